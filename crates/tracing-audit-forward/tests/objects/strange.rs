//! Foreign objects in an archive stop at most the chain that they are in, and verification names them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, PermissionsExt as _, symlink},
    },
    path::PathBuf,
    sync::Arc,
};

use tracing_audit_forward::{Archive, CopyChecker, Gap, Objects, Sink as _, SinkError};

use crate::{
    Place, files, log_of, position, positions,
    records::{events, read},
};

/// Returns the directories of the only chain: its own, and that of its live parts.
fn directories(place: &Place<'_>) -> [PathBuf; 2] {
    let all = files(&place.path());
    let of = |live: bool| {
        let is_it = |path: &&PathBuf| path.to_str().unwrap().contains("/live/") == live;
        let file = all.iter().filter(is_it).find(|path| path.to_str().unwrap().contains("/web/n1/"));
        let parts = file.unwrap().ancestors();
        parts.filter(|path| path.file_name().is_some_and(|name| name.len() == 32)).last().unwrap().to_owned()
    };
    [of(false), of(true)]
}

#[test]
fn a_name_that_is_not_a_key_is_a_finding_and_stops_no_chain() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 2, 50));
    let odd: [&dyn Fn(&PathBuf); 4] = [
        &|directory| fs::write(directory.join("a\u{1}b"), "x").unwrap(),
        &|directory| fs::write(directory.join(OsStr::from_bytes(b"a\xFF")), "x").unwrap(),
        &|directory| symlink(directory, directory.join("round")).unwrap(),
        &|directory| symlink("nowhere", directory.join("broken")).unwrap(),
    ];
    for (number, odd) in odd.iter().enumerate() {
        for live in [0, 1] {
            let place = Place::directory();
            place.sink().offer(&entries[..80]).unwrap();
            odd(&directories(&place)[live]);
            let other = events(5);
            let mut sink = place.sink();
            sink.offer(&other).unwrap();
            let ids = [entries[0].chain_id.clone(), other[0].chain_id.clone()];
            let found = sink.positions(&ids).unwrap().unwrap();
            assert!(found.contains(&position(&other[other.len() - 1])), "{number}: {found:?}");
            let report = place.archive().verify().unwrap();
            let text = report.to_string();
            assert!(!report.is_intact() && text.contains("does not belong here"), "{number}: {text}");
        }
    }
    // Next to the services.
    let place = Place::directory();
    place.sink().offer(&entries).unwrap();
    fs::create_dir(place.path().join(OsStr::from_bytes(b"a\xFF"))).unwrap();
    let mut all = Archive::new(&format!("archive:{}", place.path().display())).unwrap();
    assert_eq!(all.origins().unwrap().len(), 1);
    assert!(all.verify().unwrap().is_intact());
}

#[test]
fn a_manifest_that_names_another_place_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 2, 50));
    for name in ["../x", "00000002.jsonl.zst", "/etc/hostname", "00000001.jsonl.zst/.."] {
        let place = Place::directory();
        place.sink().offer(&entries).unwrap();
        let manifest = directories(&place)[0].join("manifest-00000001.json");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::remove_file(&manifest).unwrap();
        fs::write(&manifest, text.replacen("00000001.jsonl.zst", name, 1)).unwrap();
        let report = place.archive().verify().unwrap();
        assert!(report.to_string().contains("is not a manifest of this chain"), "{name}: {report}");
        let (mut sink, other) = (place.sink(), events(5));
        sink.offer(&other).unwrap();
        assert_eq!(positions(&mut sink, &other), [position(&other[other.len() - 1])]);
        assert_eq!(positions(&mut sink, &entries), []);
    }
}

#[test]
fn what_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 3, 50));
    let place = Place::directory();
    place.sink().offer(&entries[..80]).unwrap();
    let gap = Gap::new(entries[0].chain_id.clone(), 0, 200..=201);
    place.sink().gap(&gap).unwrap();
    let chain = &directories(&place)[0];
    for name in ["manifest-00000001.json", "gap-00000000000000000200-00000000000000000201.json"] {
        #[expect(clippy::disallowed_methods, reason = "it is no segment")]
        fs::OpenOptions::new().write(true).open(chain.join(name)).unwrap().set_len(80 << 20).unwrap();
        let report = place.archive().verify().unwrap().to_string();
        assert!(report.contains(name) && report.contains("larger than"), "{report}");
    }
    let outcome = place.sink().offer(&entries[80..]);
    let Err(SinkError::Chain { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("larger than"), "{reason}");
    // Endless lines, although the manifest says how many there are.
    let place = Place::directory();
    place.sink().offer(&entries[..80]).unwrap();
    let sealed = directories(&place)[0].join("00000001.jsonl.zst");
    let lines = zstd::decode_all(fs::read(&sealed).unwrap().as_slice()).unwrap();
    fs::remove_file(&sealed).unwrap();
    fs::write(&sealed, zstd::encode_all(lines.repeat(100).as_slice(), 3).unwrap()).unwrap();
    let report = place.archive().verify().unwrap();
    assert!(!report.is_intact() && report.finding_count() < 5, "{report}");
    let back = dir.path().join("back");
    place.archive().restore(&back, &[]).unwrap_err();
    let written: u64 = files(&back).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(written < lines.len() as u64 * 3, "{written}");
}

/// A segment that is sealed and in no manifest yet is as long as its parts.
#[test]
fn no_more_than_compression_explains_is_read_where_no_manifest_says_it() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 1, 50));
    let place = Place::directory();
    place.sink().offer(&entries).unwrap();
    let is_part = |path: &PathBuf| path.to_str().unwrap().contains("/live/");
    let part = files(&place.path()).into_iter().find(is_part).unwrap();
    let chain = place.path().join("web/n1").join(&*entries[0].chain_id);
    fs::create_dir_all(&chain).unwrap();
    let lines = fs::read(part).unwrap();
    let seal = |lines: &[u8]| {
        drop(fs::remove_file(chain.join("00000001.jsonl.zst")));
        fs::write(chain.join("00000001.jsonl.zst"), zstd::encode_all(lines, 3).unwrap()).unwrap();
    };
    seal(&lines);
    assert!(place.archive().verify().unwrap().is_intact());
    seal(&lines.repeat(2));
    assert!(!place.archive().verify().unwrap().is_intact());
    // Some of its parts were removed: the object is still right, but an object that grows beyond measure is
    // cut off.
    seal(&vec![b' '; 64 << 20]);
    let report = place.archive().verify().unwrap();
    assert!(!report.is_intact() && report.records() < 100, "{}", report.records());
}

#[test]
fn an_archive_in_a_directory_that_others_read_is_read_by_its_owner_only() {
    let place = Place::directory();
    fs::DirBuilder::new().mode(0o755).create(place.path()).unwrap();
    let entries = events(5);
    place.sink().offer(&entries).unwrap();
    place.sink().gap(&Gap::new(entries[0].chain_id.clone(), 0, 200..=201)).unwrap();
    for name in ["live", "probe", "web"] {
        let mode = fs::metadata(place.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn a_different_gap_under_the_same_key_stops_the_chain() {
    let place = Place::directory();
    let entries = events(5);
    let mut sink = place.sink();
    sink.offer(&entries).unwrap();
    let gap = |chain| Gap::new(entries[0].chain_id.clone(), chain, 200..=201);
    sink.gap(&gap(0)).unwrap();
    sink.gap(&gap(0)).unwrap();
    let outcome = sink.gap(&gap(1));
    let Err(SinkError::Chain { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("gap-00000000000000000200"), "{reason}");
}

#[test]
fn the_verification_of_nothing_is_no_success() {
    let place = Place::directory();
    fs::create_dir(place.path()).unwrap();
    let whole = format!("archive:{}", place.path().display());
    let nothing = |mut archive: Archive| match archive.verify() {
        Err(SinkError::Setup { reason }) => assert!(reason.contains("has no"), "{reason}"),
        outcome => panic!("{outcome:?}"),
    };
    nothing(place.archive());
    nothing(Archive::new(&whole).unwrap());
    place.sink().offer(&events(3)).unwrap();
    nothing(Archive::new(&format!("{whole}?service=other&host=n1")).unwrap());
    assert!(Archive::new(&whole).unwrap().verify().unwrap().is_intact());
}

/// Somebody removed a manifest, or a segment with it.
#[test]
fn a_missing_manifest_stops_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 4, 50));
    let end = entries.iter().rposition(|entry| entry.record.get("segment").is_some()).unwrap();
    for gone in [&["manifest-00000002.json"][..], &["manifest-00000001.json", "manifest-00000002.json"]] {
        let place = Place::directory();
        place.sink().offer(&entries[..end]).unwrap();
        let [chain, live] = directories(&place);
        for name in gone {
            fs::remove_file(chain.join(name)).unwrap();
        }
        for sealed in ["00000001", "00000002"] {
            fs::remove_dir_all(live.join(sealed)).unwrap();
        }
        let mut sink = place.sink();
        assert_eq!(positions(&mut sink, &entries), []);
        let outcome = sink.offer(&entries[end..]);
        let Err(SinkError::Chain { reason, .. }) = outcome else { panic!("{gone:?}: {outcome:?}") };
        assert!(reason.contains("manifest"), "{reason}");
    }
}

/// The next manifest would repeat what the last one says.
#[test]
fn an_altered_manifest_that_the_live_segment_does_not_follow_stops_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 2, 50));
    let end = entries.len() - 5;
    for name in ["last_hash", "last_seq"] {
        let place = Place::directory();
        place.sink().offer(&entries[..end]).unwrap();
        assert_eq!(positions(&mut place.sink(), &entries), [position(&entries[end - 1])]);
        let manifest = directories(&place)[0].join("manifest-00000001.json");
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
        value["segments"][0][name] = match name {
            "last_hash" => "0".repeat(64).into(),
            _ => 60.into(),
        };
        fs::remove_file(&manifest).unwrap();
        fs::write(&manifest, value.to_string()).unwrap();
        let outcome = place.sink().offer(&entries[end..]);
        let Err(SinkError::Chain { reason, .. }) = outcome else { panic!("{name}: {outcome:?}") };
        assert!(reason.contains("does not follow on record"), "{reason}");
    }
}

/// The same log was also forwarded under the name of another service, as after a rename: both copies are
/// complete.
#[test]
fn one_log_under_two_names_is_two_complete_copies() {
    let place = Place::directory();
    let log = place.path().with_file_name("log");
    let entries = read(&log_of(log.parent().unwrap(), 3, 20));
    for service in ["web", "shop"] {
        let url = format!("archive:{}?service={service}&host=n1", place.path().display());
        Objects::builder(&url).build().unwrap().offer(&entries).unwrap();
    }
    let all = format!("archive:{}", place.path().display());
    let head: tracing_audit::Head = entries[30].record.head();
    let mut checker = CopyChecker::new();
    checker.expect_head(head);
    let report = Archive::new(&all).unwrap().verify_with(checker).unwrap();
    assert!(report.is_intact() && report.chains().len() == 2, "{report}");
    assert!(report.heads_not_compared().is_empty());
    // Files of others do no harm.
    for other in ["backup/2024/jan", "lost+found/x/y"] {
        fs::create_dir_all(place.path().join(other)).unwrap();
        fs::write(place.path().join(other).join("db.sql"), "x").unwrap();
    }
    let chain = place.path().join("web/n1").join(&*entries[0].chain_id);
    fs::write(chain.join("notes.txt"), "x").unwrap();
    let live = place.path().join("live/web/n1").join(&*entries[0].chain_id).join("00000003");
    fs::write(live.join(".nfs0001"), "x").unwrap();
    let mut sink = place.builder().build().unwrap();
    assert_eq!(positions(&mut sink, &entries).len(), 1);
    assert_eq!(Archive::new(&all).unwrap().origins().unwrap().len(), 2);
}

/// A chain that cannot be read may have records that retention removed since: that is not a gap.
#[test]
fn no_gap_is_reported_for_records_that_are_there() {
    let place = Place::directory();
    let log = place.path().with_file_name("log");
    let entries = read(&log_of(log.parent().unwrap(), 3, 20));
    let mut sink = place.builder().build().unwrap();
    sink.offer(&entries).unwrap();
    let gap = Gap::new(Arc::clone(&entries[0].chain_id), 0, 5..=9);
    sink.gap(&gap).unwrap();
    let live =
        files(&place.path()).into_iter().rfind(|path| path.to_string_lossy().contains("/live/")).unwrap();
    let was = fs::read(&live).unwrap();
    fs::write(&live, "no record\n").unwrap();
    let mut anew = place.builder().build().unwrap();
    assert!(matches!(anew.gap(&gap), Err(SinkError::Chain { .. })));
    fs::write(&live, was).unwrap();
    assert!(place.builder().archive().unwrap().verify().unwrap().is_intact());
}
