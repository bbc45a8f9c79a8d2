//! What is offered is stored once, whatever happened in between.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tracing_audit_forward::{Entry, Gap, HoleReason, Objects, Origin, Sink as _, SinkError};

use crate::{
    Place, check_whole, files, log_of, position, positions,
    records::{events, read},
    server::{KEY, SECRET, Server},
};

fn whole(place: &Place<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 3, 400);
    let entries = read(&log);
    let mut sink = place.sink();
    assert_eq!(positions(&mut sink, &entries), []);
    let mut offered = 0;
    for (number, batch) in entries.chunks(150).enumerate() {
        if number % 3 == 2 {
            sink = place.sink();
            assert_eq!(positions(&mut sink, &entries), [position(&entries[offered - 1])]);
        }
        sink.offer(batch).unwrap();
        offered += batch.len();
    }
    assert_eq!(positions(&mut place.sink(), &entries), [position(entries.last().unwrap())]);
    check_whole(&mut place.archive(), &log);
}

#[test]
fn a_log_is_archived_and_restored_from_a_directory() {
    let place = Place::directory();
    whole(&place);
    let keys: Vec<String> = place.keys();
    let expected = [
        "00000001.jsonl.zst",
        "00000002.jsonl.zst",
        "live/00000001/00000001.jsonl",
        "live/00000001/00000002.jsonl",
        "live/00000001/00000003.jsonl",
        "live/00000001/00000004.jsonl",
    ];
    assert_eq!(keys[..6], expected, "{keys:?}");
    assert_eq!(keys[keys.len() - 2..], ["manifest-00000001.json", "manifest-00000002.json"]);
    // Only its owner reads it.
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_log_is_archived_and_restored_from_a_server() {
    let Some(server) = Server::start("a_log_is_archived_and_restored_from_a_server") else { return };
    whole(&Place::S3(&server, "locked/logs"));
    whole(&Place::S3(&server, "plain"));
    // Everything below a prefix, of whatever log.
    let url = server.url("locked/logs", "").replace("service=web&host=n1&", "");
    let mut all = Objects::builder(&url).credentials(KEY, SECRET, None).archive().unwrap();
    assert_eq!(all.origins().unwrap(), [Origin::new("web", "n1").unwrap()]);
    assert_eq!(all.verify().unwrap().chains().len(), 1);
}

#[test]
fn a_sealed_segment_is_the_file_once_it_is_decompressed() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 100);
    for is_compressed in [true, false] {
        let place = Place::directory();
        let mut sink = place.builder().compress(is_compressed).build().unwrap();
        sink.offer(&read(&log)).unwrap();
        let name = if is_compressed { "00000001.jsonl.zst" } else { "00000001.jsonl" };
        let is_sealed = |path: &Path| path.ends_with(name) && !path.to_str().unwrap().contains("/live/");
        let sealed = files(&place.path()).into_iter().find(|path| is_sealed(path));
        let mut bytes = fs::read(sealed.unwrap()).unwrap();
        if is_compressed {
            bytes = zstd::decode_all(bytes.as_slice()).unwrap();
        }
        assert!(bytes == fs::read(log.join("audit-000-00000001.jsonl")).unwrap());
        check_whole(&mut place.archive(), &log);
    }
}

#[test]
fn what_is_there_is_acknowledged_again_without_duplicates() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 100);
    let entries = read(&log);
    let place = Place::directory();
    let mut sink = place.sink();
    sink.offer(&entries[..50]).unwrap();
    sink.offer(&entries[..50]).unwrap();
    sink.offer(&entries[20..80]).unwrap();
    sink.offer(&entries[79..80]).unwrap();
    place.sink().offer(&entries[..90]).unwrap();
    // From the first sink, which does not know of the last ten.
    sink.offer(&entries[80..95]).unwrap_err();
    sink.offer(&entries[80..95]).unwrap();
    sink.offer(&entries).unwrap();
    place.sink().offer(&entries).unwrap();
    check_whole(&mut place.archive(), &log);
}

/// Sealing resumes from every state that a crash can leave.
#[test]
fn sealing_resumes_after_a_crash_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 100);
    let entries = read(&log);
    let second = entries.iter().skip(1).position(|entry| entry.record.get("segment").is_some()).unwrap() + 1;
    let steps: [&[&str]; 4] = [
        &["live/00000002/00000001.jsonl"],
        &["live/00000002/00000001.jsonl", "manifest-00000001.json"],
        &["live/00000002/00000001.jsonl", "manifest-00000001.json", "00000001.jsonl.zst"],
        &[
            "live/00000002/00000001.jsonl",
            "manifest-00000001.json",
            "00000001.jsonl.zst",
            "live/00000001/00000003.jsonl",
        ],
    ];
    for (step, lost) in steps.iter().enumerate() {
        let place = Place::directory();
        let mut sink = place.sink();
        sink.offer(&entries[..40]).unwrap();
        sink.offer(&entries[40..second]).unwrap();
        sink.offer(&entries[second..]).unwrap();
        for path in files(&place.path()) {
            let key = without_names(&path, &place.path());
            if lost.contains(&key.as_str()) {
                fs::remove_file(path).unwrap();
            }
        }
        let before = place.archive().verify().unwrap();
        assert!(before.is_intact(), "step {step}: {before}");
        let mut sink = place.builder().compress(step % 2 == 0).build().unwrap();
        assert_eq!(positions(&mut sink, &entries), [position(&entries[second - 1])], "step {step}");
        sink.offer(&entries[second..]).unwrap();
        check_whole(&mut place.archive(), &log);
    }
}

fn without_names(path: &Path, root: &Path) -> String {
    let key = path.strip_prefix(root).unwrap().to_str().unwrap();
    let parts = key.split('/').filter(|part| part.len() != 32 && *part != "web" && *part != "n1");
    parts.collect::<Vec<_>>().join("/")
}

/// Two logs with a common past: a machine and its clone.
fn clones() -> (Vec<Entry>, Vec<Entry>) {
    use crate::records::by_hand;
    let event = r#""ts":"2026-01-01T00:00:00.000000001Z","kind":"event","action":"a""#;
    let other = r#""ts":"2026-01-01T00:00:00.000000001Z","kind":"event","action":"b""#;
    let mut members = [event; 30];
    let one = by_hand(&members);
    members[20] = other;
    (one, by_hand(&members))
}

#[test]
fn of_two_senders_with_a_common_past_one_is_stopped() {
    let (one, other) = clones();
    // Both have the same state when they diverge.
    let place = Place::directory();
    let (mut first, mut second) = (place.sink(), place.sink());
    first.offer(&one[..21]).unwrap();
    positions(&mut second, &one);
    first.offer(&one[21..25]).unwrap();
    let conflict = SinkError::Conflict { index: 0, stored: one[21].record.hash() };
    assert_eq!(second.offer(&other[21..]), Err(conflict.clone()));
    assert_eq!(second.offer(&other[21..]), Err(conflict));
    // Within a part, and after it.
    let conflict = SinkError::Conflict { index: 21, stored: one[21].record.hash() };
    assert_eq!(place.sink().offer(&other), Err(conflict));
    let conflict = SinkError::Conflict { index: 0, stored: one[24].record.hash() };
    assert_eq!(place.sink().offer(&other[24..25]), Err(conflict));
    first.offer(&one[25..]).unwrap();
    assert!(place.archive().verify().unwrap().is_intact());
}

/// A sender that was suspended while another one sealed the segment adds nothing to it.
#[test]
fn nothing_is_added_to_a_segment_that_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 100);
    let entries = read(&log);
    let second = entries.iter().skip(1).position(|entry| entry.record.get("segment").is_some()).unwrap() + 1;
    let place = Place::directory();
    let (mut first, mut sleeper) = (place.sink(), place.sink());
    first.offer(&entries[..second]).unwrap();
    positions(&mut sleeper, &entries);
    first.offer(&entries[second..]).unwrap();
    let keys = place.keys();
    // A record of a diverged log, in the segment that the suspended sender takes for the live one.
    let other = events(300).into_iter().find(|entry| entry.record.seq() == second as u64 + 1).unwrap();
    let other = Entry::new(entries[0].chain_id.clone(), other.record);
    let outcome = sleeper.offer(std::slice::from_ref(&other));
    assert!(matches!(outcome, Err(SinkError::Unavailable { .. })), "{outcome:?}");
    let outcome = sleeper.offer(std::slice::from_ref(&other));
    assert!(matches!(outcome, Err(SinkError::Conflict { .. })), "{outcome:?}");
    assert_eq!(place.keys(), keys);
    check_whole(&mut place.archive(), &log);
}

#[test]
fn one_chain_that_cannot_be_stored_does_not_stop_another() {
    let place = Place::directory();
    let (bad, good) = (events(20), events(20));
    place.sink().offer(&bad[..10]).unwrap();
    for path in files(&place.path()) {
        if path.to_str().unwrap().contains(&*bad[0].chain_id) {
            fs::copy(&path, path.with_file_name("00000002.jsonl")).unwrap();
            fs::remove_file(&path).unwrap();
        }
    }
    let mut sink = place.sink();
    let both: Vec<Entry> = bad[10..].iter().chain(&good).cloned().collect();
    let Err(SinkError::Chain { index: 0, reason }) = sink.offer(&both) else { panic!("it is stored") };
    assert!(reason.contains("00000001.jsonl is missing before it"), "{reason}");
    let ids = [bad[0].chain_id.clone(), good[0].chain_id.clone()];
    assert_eq!(sink.positions(&ids).unwrap().unwrap(), [position(good.last().unwrap())]);
    assert_eq!(positions(&mut sink, &good), [position(good.last().unwrap())]);
}

#[test]
fn a_reported_gap_explains_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 2, 50));
    let place = Place::directory();
    let mut sink = place.sink();
    sink.offer(&entries[..10]).unwrap();
    let gap = Gap::new(entries[0].chain_id.clone(), 0, 11..=20);
    sink.gap(&gap).unwrap();
    sink.gap(&gap).unwrap();
    sink.offer(&entries[20..]).unwrap();
    let report = place.archive().verify().unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!((report.holes()[0].first_seq, report.holes()[0].last_seq), (11, 20));
    assert_eq!(report.holes()[0].reason, HoleReason::Gap);
    let manifest =
        files(&place.path()).into_iter().find(|path| path.to_str().unwrap().contains("manifest")).unwrap();
    assert!(fs::read_to_string(manifest).unwrap().contains("\"gaps\": [\n    {"));
}

#[test]
fn a_sink_is_used_and_dropped_on_a_thread_of_another_runtime() {
    let place = Place::directory();
    let entries = events(5);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut sink = place.sink();
        sink.offer(&entries).unwrap();
        drop(sink);
    });
    assert_eq!(positions(&mut place.sink(), &entries), [position(&entries[entries.len() - 1])]);
}

#[test]
fn an_unmounted_disk_is_noticed() {
    let place = Place::directory();
    let entries = events(5);
    let mut sink = place.sink();
    sink.offer(&entries[..2]).unwrap();
    let away = place.path().with_extension("away");
    move_to(&place.path(), &away);
    let Err(SinkError::Setup { .. }) = sink.offer(&entries[2..]) else { panic!("it is stored") };
    fs::create_dir(place.path()).unwrap();
    let Err(SinkError::Setup { reason }) = sink.offer(&entries[2..]) else { panic!("it is stored") };
    assert!(reason.contains("not the same directory as before"), "{reason}");
    fs::remove_dir(place.path()).unwrap();
    move_to(&away, &place.path());
    sink.offer(&entries[2..]).unwrap();
    assert!(place.archive().verify().unwrap().is_intact());
}

fn move_to(one: &Path, other: &Path) {
    #[expect(clippy::disallowed_methods, reason = "it is no segment")]
    fs::rename(one, other).unwrap();
}

/// End to end: a chain that is damaged in the archive stops with the key in its reason, and the other one
/// continues.
#[test]
fn a_forwarder_continues_with_the_other_chain() {
    use tracing_audit::AuditLog;
    use tracing_audit_forward::Forwarder;
    use tracing_subscriber::prelude::*;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let logs = [(); 2].map(|()| AuditLog::builder(&path).stderr(false).open().unwrap());
    let emit = |number: usize| {
        let subscriber = tracing_subscriber::registry().with(logs[number].layer());
        tracing::subscriber::with_default(subscriber, || {
            logs[number].confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        });
    };
    (0..2).for_each(emit);
    let place = Place::directory();
    let forward = || {
        let forwarder = Forwarder::builder("archive").start_beside(&path, place.sink()).unwrap();
        drop(forwarder.drain(std::time::Duration::from_secs(10)));
        let stats = forwarder.stats();
        drop(forwarder.close(std::time::Duration::from_secs(1)));
        stats
    };
    assert!(forward().stopped.is_empty());
    let chain = read(&path).into_iter().find(|entry| entry.record.chain() == 0).unwrap().chain_id;
    for part in files(&place.path()).iter().filter(|part| part.to_str().unwrap().contains(&*chain)) {
        fs::copy(part, part.with_file_name("00000009.jsonl")).unwrap();
    }
    (0..2).for_each(emit);
    for log in logs {
        log.close().unwrap();
    }
    let stats = forward();
    assert_eq!(stats.stopped.keys().collect::<Vec<_>>(), [&0], "{stats:?}");
    assert!(stats.stopped[&0].contains("00000009.jsonl is in the way"), "{stats:?}");
    let entries = read(&path);
    let last = entries.iter().rfind(|entry| entry.record.chain() == 1).unwrap();
    assert_eq!(positions(&mut place.sink(), std::slice::from_ref(last)), [position(last)]);
}

/// After `forward skip`, the next record may be in the middle of a later segment.
#[test]
fn a_record_is_put_into_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let entries = read(&log_of(dir.path(), 3, 50));
    let third = entries.iter().rposition(|entry| entry.record.get("segment").is_some()).unwrap();
    let place = Place::directory();
    let mut sink = place.sink();
    sink.offer(&entries[..30]).unwrap();
    sink.offer(&entries[third + 5..]).unwrap();
    let keys = place.keys();
    let parts: Vec<&str> = keys.iter().filter_map(|key| key.strip_prefix("live/")).collect();
    assert_eq!(
        parts,
        ["00000001/00000001.jsonl", "00000001/00000002.jsonl", "00000003/00000001.jsonl"],
        "{keys:?}"
    );
}

/// A `segment` line whose number differs from that of its file.
#[test]
fn a_segment_line_in_another_file_stops_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 1, 5);
    move_to(&log.join("audit-000-00000001.jsonl"), &log.join("audit-000-00000002.jsonl"));
    let entries = read(&log);
    let outcome = Place::directory().sink().offer(&entries);
    let Err(SinkError::Chain { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("audit-000-00000002.jsonl"), "{reason}");
}
