//! Changes in an archive are found, and the key is named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tracing_audit::Head;
use tracing_audit_forward::{CopyChecker, Sink as _};

use crate::{Place, files, log_of, records::read};

/// Creates an archive with two sealed segments, and two parts of the third.
fn archive() -> (Place<'static>, Vec<tracing_audit_forward::Entry>) {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 3, 60));
    let place = Place::directory();
    let mut sink = place.sink();
    for batch in entries.chunks(50) {
        sink.offer(batch).unwrap();
    }
    (place, entries)
}

fn find(place: &Place<'_>, end: &str) -> PathBuf {
    let found: Vec<PathBuf> =
        files(&place.path()).into_iter().filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{end}: {found:?}");
    found[0].clone()
}

/// Checks that after this change, verification finds something, and reports this.
#[track_caller]
fn check_found(change: impl FnOnce(&Place<'_>), expected: &[&str]) {
    let (place, _) = archive();
    assert!(place.archive().verify().unwrap().is_intact());
    change(&place);
    let report = place.archive().verify().unwrap();
    assert!(!report.is_intact(), "{report}");
    let text = report.to_string();
    for expected in expected {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

fn edit(path: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let changed = change(bytes.clone());
    assert!(changed != bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, changed).unwrap();
}

fn replaced(bytes: &[u8], one: &str, other: &str) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).unwrap().replacen(one, other, 1).into_bytes()
}

#[test]
fn what_was_changed_is_found() {
    let sealed = "/00000002.jsonl.zst";
    let is_other = "is not the one that the manifest names";
    // Changes a line, and compresses the object again.
    let recompressed = |place: &Place<'_>| {
        edit(&find(place, sealed), |bytes| {
            let lines = zstd::decode_all(bytes.as_slice()).unwrap();
            zstd::encode_all(replaced(&lines, "mia", "eve").as_slice(), 3).unwrap()
        });
    };
    check_found(recompressed, &["was edited", is_other, "00000002.jsonl.zst"]);
    // The same lines, compressed differently.
    let same =
        |bytes: Vec<u8>| zstd::encode_all(zstd::decode_all(bytes.as_slice()).unwrap().as_slice(), 9).unwrap();
    check_found(|place| edit(&find(place, sealed), same), &[is_other]);
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    check_found(|place| edit(&find(place, sealed), cut), &[is_other, "missing"]);
    check_found(|place| edit(&find(place, sealed), |_| b"no frame".to_vec()), &[is_other]);
    check_found(|place| fs::remove_file(find(place, sealed)).unwrap(), &["the object is missing", sealed]);
    let add = |place: &Place<'_>| {
        let sealed = find(place, sealed);
        fs::copy(&sealed, sealed.with_file_name("00000009.jsonl.zst")).unwrap();
    };
    check_found(add, &["00000009.jsonl.zst: no manifest names the object"]);
    let add = |place: &Place<'_>| fs::write(find(place, sealed).with_file_name("notes"), "x").unwrap();
    check_found(add, &["notes: the object does not belong here"]);
}

#[test]
fn what_was_changed_in_manifests_and_parts_is_found() {
    let newest = "manifest-00000002.json";
    let edited = |place: &Place<'_>| {
        edit(&find(place, newest), |bytes| replaced(&bytes, "\"segment\": 2", "\"segment\": 7"));
    };
    check_found(edited, &["00000002.jsonl.zst"]);
    check_found(|place| edit(&find(place, newest), |_| b"{}".to_vec()), &["is not a manifest of this chain"]);
    check_found(|place| fs::remove_file(find(place, newest)).unwrap(), &["no manifest names the object"]);
    let part = |place: &Place<'_>, number: u32| find(place, &format!("/00000003/{number:08}.jsonl"));
    let edited = |place: &Place<'_>| edit(&part(place, 1), |bytes| replaced(&bytes, "mia", "eve"));
    check_found(edited, &["was edited"]);
    check_found(
        |place| fs::remove_file(part(place, 1)).unwrap(),
        &["a part before the object is missing", "missing"],
    );
    let cut = |place: &Place<'_>| {
        edit(&part(place, 1), |mut bytes| {
            bytes.pop();
            bytes
        });
    };
    check_found(cut, &["00000003/00000001.jsonl: its last line has no line feed"]);
    // Parts of a sealed segment may be missing: a lifecycle rule removes them.
    let (place, _) = archive();
    for path in files(&place.path()).into_iter().filter(|path| path.to_str().unwrap().contains("/00000001/"))
    {
        fs::remove_file(path).unwrap();
    }
    assert!(place.archive().verify().unwrap().is_intact());
}

#[test]
fn a_cut_end_is_found_with_a_kept_head() {
    let (place, entries) = archive();
    let parts: Vec<PathBuf> = files(&place.path())
        .into_iter()
        .filter(|path| path.to_str().unwrap().contains("/00000003/"))
        .collect();
    fs::remove_file(parts.last().unwrap()).unwrap();
    assert!(place.archive().verify().unwrap().is_intact());
    let head: Head = entries.last().unwrap().record.head();
    let mut checker = CopyChecker::new();
    checker.expect_head(head);
    let report = place.archive().verify_with(checker).unwrap();
    assert!(report.to_string().contains("the record of a head is not here"), "{report}");
}

#[test]
fn an_altered_part_is_not_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 2, 60));
    let place = Place::directory();
    let mut sink = place.sink();
    sink.offer(&entries[..30]).unwrap();
    edit(&find(&place, "/00000001/00000001.jsonl"), |bytes| replaced(&bytes, "mia", "eve"));
    let error = sink.offer(&entries[30..]).unwrap_err().to_string();
    assert!(error.contains("00000001/00000001.jsonl is in the way: it was altered"), "{error}");
}

/// The newest manifest differs from the lines of a segment.
#[test]
fn a_manifest_that_differs_from_the_lines_is_found() {
    use serde_json::{Value, json};
    let newest = "manifest-00000002.json";
    let differs = "differs from the lines";
    let changed = |place: &Place<'_>, change: &dyn Fn(&mut Value)| {
        edit(&find(place, newest), |bytes| {
            let mut manifest = serde_json::from_slice(&bytes).unwrap();
            change(&mut manifest);
            serde_json::to_vec(&manifest).unwrap()
        });
    };
    let sum = json!("0".repeat(64));
    let time = json!("2026-01-01T00:00:00.000000001Z");
    for (name, value) in [
        ("first_seq", json!(1)),
        ("last_seq", json!(500)),
        ("last_hash", sum),
        ("first_ts", time.clone()),
        ("last_ts", time),
    ] {
        let change = |manifest: &mut Value| manifest["segments"][1][name] = value.clone();
        check_found(|place| changed(place, &change), &[newest, differs]);
    }
    check_found(|place| changed(place, &|manifest| manifest["chain"] = json!(7)), &[newest, differs]);
    let gaps = json!([{"chain": 0, "first_seq": 8, "last_seq": 9}]);
    let gap = "gap-00000000000000000008-00000000000000000009.json";
    check_found(
        |place| changed(place, &|manifest| manifest["gaps"] = gaps.clone()),
        &[gap, "the object that the manifest names is missing"],
    );
    let gap = |place: &Place<'_>| {
        let name = "gap-00000000000000000008-00000000000000000009.json";
        let gap = "{\"chain\":0,\"first_seq\":8,\"last_seq\":9}\n";
        fs::write(find(place, newest).with_file_name(name), gap).unwrap();
    };
    check_found(gap, &["gap-00000000000000000008", "no manifest names the object"]);
}

/// A log whose chains witness each other; nothing is left of one of them.
#[test]
fn a_chain_that_is_missing_is_noted_where_another_one_witnessed_it() {
    use tracing_audit::AuditLog;
    use tracing_subscriber::prelude::*;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let logs = [(); 2].map(|()| AuditLog::builder(&path).stderr(false).open().unwrap());
    for log in &logs {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        });
    }
    for log in logs {
        log.close().unwrap();
    }
    let entries = read(&path);
    let place = Place::directory();
    place.sink().offer(&entries).unwrap();
    let whole = place.archive().verify().unwrap();
    assert!(whole.is_intact() && !whole.to_string().contains("witnessed"), "{whole}");
    let first = entries.iter().find(|entry| entry.record.chain() == 0).unwrap().chain_id.to_string();
    for directory in ["web", "live/web"] {
        drop(fs::remove_dir_all(place.path().join(directory).join("n1").join(&first)));
    }
    let text = place.archive().verify().unwrap().to_string();
    assert!(text.contains(&first) && text.contains("witnessed"), "{text}");
}
