//! What a collector produces from a stream: copies that verify, and alarms.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]
#![cfg(target_os = "linux")]

#[path = "collect/disk.rs"]
mod disk;
#[path = "collect/stream.rs"]
mod stream;

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use stream::{Stream, edited, fork_of, id_of, lines_of, small_segments, write_events};
use tempfile::TempDir;
use tracing_audit::{AuditLog, Head, Retention, Verdict, Verifier, verify};
use tracing_audit_forward::{
    Alarm, AlarmKind, Collector, Error, FaultKind, Fleet, Origin, What, fleet, retire, settle,
};

fn origin(host: &str) -> Origin {
    Origin::new("web", host).unwrap()
}

/// Returns a directory with the logs of hosts, and one for a collector.
fn dirs() -> (TempDir, TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

fn collect(into: &Path, stream: &mut Stream) -> Fleet {
    let mut collector = Collector::open(into).unwrap();
    collector.catch_up(stream).unwrap();
    collector.fleet()
}

fn kinds(alarms: &[Alarm]) -> Vec<AlarmKind> {
    alarms.iter().map(|alarm| alarm.kind).collect()
}

/// Checks that the copy has the files of the log, byte for byte.
#[track_caller]
fn assert_same(copy: &Path, log: &Path) {
    let mut names = Vec::new();
    for entry in fs::read_dir(log).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("audit-") {
            assert!(fs::read(copy.join(&name)).unwrap() == fs::read(entry.path()).unwrap(), "{name}");
            names.push(name);
        }
    }
    assert_eq!(fs::read_dir(copy).unwrap().count(), names.len());
}

#[test]
fn the_logs_of_a_fleet_are_collected_byte_for_byte_and_verify() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    for host in ["n1", "n2.example"] {
        let dir = logs.path().join(host);
        let (one, other) = (small_segments(&dir), small_segments(&dir));
        write_events(&one, 600);
        write_events(&other, 50);
        other.close().unwrap();
        one.close().unwrap();
        stream.add(&origin(host), &dir);
    }
    let fleet = collect(into.path(), &mut stream);
    assert_eq!(fleet.alarms, []);
    assert_eq!(fleet.chains.len(), 4);
    assert_eq!(fleet.place, stream.messages.len() as u64);
    for host in ["n1", "n2.example"] {
        let (copy, log) = (into.path().join("logs/web").join(host), logs.path().join(host));
        assert_same(&copy, &log);
        assert_eq!(verify(&copy).unwrap().verdict(), Verdict::Intact);
        // The heads that the collector keeps are compared with the log on its host.
        let heads = fs::read_to_string(into.path().join("heads/web").join(host)).unwrap();
        let heads: Vec<Head> =
            heads.lines().filter_map(|line| line.split('#').next().unwrap().trim().parse().ok()).collect();
        let kept = verify(&log).unwrap();
        assert_eq!(heads, kept.heads());
    }
    assert!(fleet.metrics().contains("tracing_audit_collect_alarms{kind=\"forked\"} 0\n"));
}

/// The collector stops at any moment, and files have more than its table records, as after a power cut:
/// complete lines, half a line, bytes that were never written.
#[test]
fn a_collector_that_stops_at_any_moment_neither_loses_nor_duplicates() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    let hosts = ["n1", "n2"];
    for host in hosts {
        let dir = logs.path().join(host);
        let log = small_segments(&dir);
        write_events(&log, 300);
        log.close().unwrap();
        stream.add(&origin(host), &dir);
    }
    stream.mix();
    for moment in 0.. {
        stream.limit = Some(37);
        let mut collector = Collector::open(into.path()).unwrap();
        let taken = collector.step(&mut stream).unwrap().taken;
        if moment % 2 == 0 {
            collector.flush().unwrap();
            collector.step(&mut stream).unwrap();
        }
        drop(collector);
        let table = fleet(into.path());
        if let Ok(table) = &table
            && let Some(chain) = table.chains.iter().find(|chain| chain.seq > 0)
        {
            let name = format!("audit-{:03}-{:08}.jsonl", chain.chain.unwrap(), chain.segment);
            let file = into.path().join("logs").join(chain.log.as_ref().unwrap()).join(name);
            let mut file = fs::File::options().append(true).open(file).unwrap();
            file.write_all(["\0\0\0", "{\"seq\":", "{}\n"][moment % 3].repeat(moment % 5).as_bytes())
                .unwrap();
        }
        if taken == 0 && table.is_ok_and(|table| table.place == stream.messages.len() as u64) {
            break;
        }
    }
    stream.limit = None;
    assert_eq!(collect(into.path(), &mut stream).alarms, []);
    for host in hosts {
        let (copy, log) = (into.path().join("logs/web").join(host), logs.path().join(host));
        assert_same(&copy, &log);
        assert_eq!(verify(&copy).unwrap().verdict(), Verdict::Intact);
    }
}

#[test]
fn another_record_under_the_same_number_is_a_fork_and_the_others_continue() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    let (dir, other) = (logs.path().join("n1"), logs.path().join("n2"));
    for dir in [&dir, &other] {
        let log = small_segments(dir);
        write_events(&log, 20);
        log.close().unwrap();
    }
    stream.add(&origin("n1"), &dir);
    // As an attacker who has the log would write it: with a correct hash.
    for at in [5, 12] {
        let forked = fork_of(&lines_of(&dir)[at].1);
        stream.push(&origin("n1"), &id_of(&stream.messages[0]), forked);
    }
    stream.add(&origin("n2"), &other);
    let fleet = collect(into.path(), &mut stream);
    assert_eq!(kinds(&fleet.alarms), [AlarmKind::Forked], "{:?}", fleet.alarms);
    let chain = fleet.chains.iter().find(|chain| chain.fault.is_some()).unwrap();
    let fault = chain.fault.as_ref().unwrap();
    assert_eq!((fault.kind, fault.seq, chain.faults), (FaultKind::Forked, 6, 2));
    for host in ["n1", "n2"] {
        assert_same(&into.path().join("logs/web").join(host), &logs.path().join(host));
    }
    // The alarm stays until somebody has looked.
    assert_eq!(kinds(&collect(into.path(), &mut stream).alarms), [AlarmKind::Forked]);
    assert_eq!(settle(into.path(), None).unwrap(), 1);
    assert_eq!(collect(into.path(), &mut stream).alarms, []);
}

#[test]
fn lines_that_were_edited_inserted_or_of_another_chain_are_not_written() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 20);
    log.close().unwrap();
    let lines = lines_of(&dir);
    let (id, edited) = (lines[0].0.clone(), lines[7].1.replace("login", "logout"));
    let inserted = fork_of(&lines[8].1.replace(&lines[7].2, &"0".repeat(64)));
    for (what, bad) in [
        ("it was edited", edited),
        ("does not link", inserted),
        ("not have the layout", "{}".to_owned()),
        ("not UTF-8", String::new()),
    ] {
        let into = into.path().join(what);
        let mut stream = Stream::default();
        for (at, (_, line, _)) in lines.iter().enumerate() {
            if at == 8 {
                let bad = if bad.is_empty() { vec![0xff; 200] } else { bad.clone().into_bytes() };
                stream.push_bytes(&origin("n1"), &id, bad);
            }
            stream.push(&origin("n1"), &id, line.clone());
        }
        let fleet = collect(&into, &mut stream);
        let kind =
            if what == "it was edited" && bad.contains("\"seq\":9,") { vec![] } else { kinds(&fleet.alarms) };
        assert_eq!(kind, [AlarmKind::Altered], "{what}: {:?}", fleet.alarms);
        assert!(fleet.alarms[0].message.contains(what), "{}", fleet.alarms[0]);
        assert_same(&into.join("logs/web/n1"), &dir);
    }
}

#[test]
fn what_is_missing_is_named() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let (one, other) = (small_segments(&dir), small_segments(&dir));
    write_events(&one, 10);
    write_events(&other, 10);
    other.close().unwrap();
    // It names the other chain's head.
    one.close().unwrap();
    let lines = lines_of(&dir);
    let mut stream = Stream::default();
    let first = lines[0].0.clone();
    for (at, (id, line, _)) in lines.iter().enumerate() {
        if *id == first && at != 4 {
            stream.push(&origin("n1"), id, line.clone());
        }
    }
    let mut collector = Collector::builder(into.path())
        .silent_after(Duration::ZERO)
        .expect(origin("n1"))
        .expect(origin("n3"))
        .open()
        .unwrap();
    collector.catch_up(&mut stream).unwrap();
    let said: Vec<String> = collector.alarms().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("web/n1") && said[0].contains("records 5 to 5 did not arrive"), "{said:?}");
    assert!(said[1].contains("missing: web/n3: it is expected"), "{said:?}");
    // The other chain has half a minute to arrive.
    let fleet = collector.fleet();
    let unseen = fleet.chains.iter().find(|chain| chain.chain_id != first).unwrap();
    assert_eq!((unseen.seq, unseen.chain), (0, Some(1)));
    assert_eq!(verify(into.path().join("logs/web/n1")).unwrap().verdict(), Verdict::Damaged);
}

#[test]
fn a_silent_log_is_named_unless_it_was_closed_or_its_forwarder_sends_heartbeats() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    let open: Vec<AuditLog> = ["n1", "n2"]
        .map(|host| {
            let log = small_segments(&logs.path().join(host));
            write_events(&log, 3);
            log.flush().unwrap();
            log
        })
        .into();
    let closed = small_segments(&logs.path().join("n3"));
    write_events(&closed, 3);
    closed.close().unwrap();
    for host in ["n1", "n2", "n3"] {
        stream.add(&origin(host), &logs.path().join(host));
    }
    let quiet = Duration::from_secs(2);
    let mut collector = Collector::builder(into.path()).silent_after(quiet).open().unwrap();
    let begun = Instant::now();
    while collector.alarms().is_empty() {
        stream.beat(&origin("n2"), &[]);
        collector.step(&mut stream).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    assert!(begun.elapsed() >= quiet);
    assert_eq!(kinds(collector.alarms()), [AlarmKind::Silent]);
    assert_eq!(collector.alarms()[0].origin.as_deref(), Some("web/n1"));
    // A heartbeat ends it; one that reports a stopped chain raises another alarm.
    let id = id_of(&stream.messages[0]);
    stream.beat(&origin("n1"), &[(&id, "the log was cut, restored or cloned")]);
    while kinds(collector.alarms()) != [AlarmKind::Stopped] {
        stream.beat(&origin("n2"), &[]);
        collector.step(&mut stream).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", collector.alarms());
    }
    assert!(collector.alarms()[0].message.contains("restored"));
    drop(open);
}

/// The stream was deleted and recreated, or its server came back with less than it had acknowledged. The
/// hosts send again what it lacks.
#[test]
fn a_recreated_stream_duplicates_nothing_and_hides_no_fork() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 100);
    log.flush().unwrap();
    let mut stream = Stream::default();
    stream.add(&origin("n1"), &dir);
    assert_eq!(collect(into.path(), &mut stream).alarms, []);
    write_events(&log, 100);
    log.close().unwrap();
    // The same stream with less, which now has other messages at the places that were collected.
    let mut shorter = Stream { messages: stream.messages[..40].to_vec(), ..Stream::default() };
    shorter.put(What::Stranger);
    for (id, line, _) in &lines_of(&dir)[40..] {
        shorter.push(&origin("n1"), id, line.clone());
    }
    shorter.push(&origin("n9"), "no id", "{}".to_owned());
    shorter.put(What::Stranger);
    let fleet = collect(into.path(), &mut shorter);
    assert_eq!((fleet.alarms.len(), fleet.strangers), (0, 3), "{:?}", fleet.alarms);
    assert_same(&into.path().join("logs/web/n1"), &dir);
    // A new one.
    let mut new = Stream { identity: "another".to_owned(), ..Stream::default() };
    new.add(&origin("n1"), &dir);
    assert_eq!(collect(into.path(), &mut new).alarms, []);
    assert_same(&into.path().join("logs/web/n1"), &dir);
    let mut forged = Stream { identity: "a third".to_owned(), ..Stream::default() };
    for (at, (id, line, _)) in lines_of(&dir).iter().enumerate() {
        forged.push(&origin("n1"), id, if at == 150 { fork_of(line) } else { line.clone() });
    }
    let fleet = collect(into.path(), &mut forged);
    assert_eq!(kinds(&fleet.alarms), [AlarmKind::Forked]);
    assert_eq!(fleet.chains[0].fault.as_ref().unwrap().seq, 151);
}

#[test]
fn what_retention_removed_before_it_was_sent_is_a_gap_and_the_copy_verifies() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = AuditLog::builder(&dir)
        .rotation(tracing_audit::Rotation::never().max_bytes(64 << 10))
        .retention(Retention::keep_all().max_segments(2))
        .stderr(false)
        .open()
        .unwrap();
    write_events(&log, 20);
    log.flush().unwrap();
    let mut stream = Stream::default();
    stream.add(&origin("n1"), &dir);
    let sent = stream.messages.len() as u64;
    let begun = Instant::now();
    while dir.join("audit-000-00000001.jsonl").exists() || dir.join("audit-000-00000002.jsonl").exists() {
        write_events(&log, 50);
        log.flush().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    log.close().unwrap();
    let lines = lines_of(&dir);
    let first: u64 =
        lines[0].1.strip_prefix("{\"seq\":").unwrap().split(',').next().unwrap().parse().unwrap();
    stream.gap(&origin("n1"), &lines[0].0, sent + 1, first - 1);
    for (id, line, _) in &lines {
        stream.push(&origin("n1"), id, line.clone());
    }
    let fleet = collect(into.path(), &mut stream);
    assert_eq!(fleet.alarms, []);
    assert_eq!(fleet.chains[0].gaps, [(sent + 1, first - 1)]);
    let report = verify(into.path().join("logs/web/n1")).unwrap();
    assert_eq!(report.verdict(), Verdict::Intact, "{report}");
}

#[test]
fn a_log_that_began_anew_or_has_the_name_of_another_gets_a_directory_of_its_own() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    for name in ["one", "other"] {
        let dir = logs.path().join(name);
        let log = small_segments(&dir);
        write_events(&log, 3);
        log.close().unwrap();
        stream.add(&origin("n1"), &dir);
    }
    let fleet = collect(into.path(), &mut stream);
    assert_eq!(kinds(&fleet.alarms), [AlarmKind::Forked]);
    for chain in &fleet.chains {
        let copy = into.path().join("logs").join(chain.log.as_ref().unwrap());
        let report = Verifier::new(copy).expect_head(chain.head().unwrap()).run().unwrap();
        assert_eq!(report.verdict(), Verdict::Intact);
    }
}

#[test]
fn a_directory_without_its_table_or_of_another_collector_is_refused() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 3);
    log.close().unwrap();
    let mut stream = Stream::default();
    stream.add(&origin("n1"), &dir);
    collect(into.path(), &mut stream);
    let running = Collector::open(into.path()).unwrap();
    assert!(matches!(Collector::open(into.path()), Err(Error::CollectorRuns { .. })));
    drop(running);
    let table = into.path().join("table.json");
    fs::write(&table, "{}").unwrap();
    assert!(matches!(Collector::open(into.path()), Err(Error::BadTable { .. })));
    fs::remove_file(&table).unwrap();
    assert!(matches!(Collector::open(into.path()), Err(Error::BadCopy { .. })));
}

/// Somebody truncated or removed a file of the copy. That log is reported; the others continue.
#[test]
fn a_damaged_copy_is_named_and_the_others_continue() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    let (n1, n2) = (logs.path().join("n1"), logs.path().join("n2"));
    let open = [&n1, &n2].map(|dir| small_segments(dir));
    for log in &open {
        write_events(log, 3);
        log.flush().unwrap();
    }
    stream.add(&origin("n1"), &n1);
    stream.add(&origin("n2"), &n2);
    collect(into.path(), &mut stream);
    let (sent_1, sent_2) = (lines_of(&n1).len(), lines_of(&n2).len());
    for log in &open {
        write_events(log, 3);
        log.close().unwrap();
    }
    let file = into.path().join("logs/web/n1/audit-000-00000001.jsonl");
    let bytes = fs::read(&file).unwrap();
    for damage in [Some(&bytes[1..]), None] {
        match damage {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let mut collector = Collector::open(into.path()).unwrap();
        collector.catch_up(&mut stream).unwrap();
        assert_eq!(kinds(collector.alarms()), [AlarmKind::Altered]);
        assert!(collector.alarms()[0].message.contains("the copy is damaged"), "{:?}", collector.alarms());
    }
    for (id, line, _) in &lines_of(&n2)[sent_2..] {
        stream.push(&origin("n2"), id, line.clone());
    }
    for (id, line, _) in &lines_of(&n1)[sent_1..] {
        stream.push(&origin("n1"), id, line.clone());
    }
    fs::write(&file, &bytes[1..]).unwrap();
    assert_eq!(kinds(&collect(into.path(), &mut stream).alarms), [AlarmKind::Altered]);
    assert_same(&into.path().join("logs/web/n2"), &n2);
    // Once the file is restored, the log continues with what arrived in the meantime.
    fs::write(&file, &bytes).unwrap();
    settle(into.path(), None).unwrap();
    assert_eq!(collect(into.path(), &mut stream).alarms, []);
    assert_same(&into.path().join("logs/web/n1"), &n1);
    // A chain that is read again, and whose copy was edited, does not pass as the same.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("mia", "eve", 1)).unwrap();
    stream.identity = "another".to_owned();
    assert_eq!(kinds(&collect(into.path(), &mut stream).alarms), [AlarmKind::Altered]);
}

/// A host may send in its own name only, but it can know the ids and hashes of others.
#[test]
fn what_one_host_sends_changes_nothing_in_the_logs_of_others() {
    let (logs, into) = dirs();
    let mut stream = Stream::default();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 20);
    log.close().unwrap();
    let lines = lines_of(&dir);
    let evil = origin("evil");
    for (at, (id, line, _)) in lines.iter().enumerate() {
        stream.push(&origin("n1"), id, line.clone());
        if at == 5 {
            stream.push(&evil, id, fork_of(line));
            stream.push(&evil, id, edited(line, "\"seq\":6,", "\"seq\":999999,"));
            stream.push(&evil, id, edited(line, "\"seq\":6,", &format!("\"seq\":{},", u64::MAX)));
            stream.gap(&evil, id, 1, u64::MAX);
            stream.push(&evil, id, line.clone());
            // Its own chain makes false claims about the other one, and about chains that do not exist.
            let own = "e".repeat(32);
            let begin = lines[0].1.replace(id.as_str(), &own);
            let chains = format!(
                "\"chains\":{{\"001\":{{\"id\":\"{id}\",\"seq\":3,\"hash\":\"{}\"}},\"002\":{{\"id\":\"any \\u202e text\",\
                 \"seq\":9,\"hash\":\"{}\"}}}}",
                "0".repeat(64),
                "0".repeat(64)
            );
            stream.push(&evil, &own, edited(&begin, "\"chains\":{}", &chains));
        }
    }
    let fleet = collect(into.path(), &mut stream);
    let of_n1: Vec<&Alarm> =
        fleet.alarms.iter().filter(|alarm| alarm.origin.as_deref() == Some("web/n1")).collect();
    assert!(of_n1.is_empty(), "{of_n1:?}");
    assert!(fleet.alarms.iter().any(|alarm| alarm.message.contains("comes from web/n1, too")));
    assert_same(&into.path().join("logs/web/n1"), &dir);
    assert!(!fleet.metrics().contains('\u{202e}') && !fleet.metrics().contains("\\u"));
    // The number of chains is bounded.
    for chain in 0..3_000 {
        stream.push(&evil, &format!("{chain:032x}"), lines[0].1.clone());
    }
    let fleet = collect(into.path(), &mut stream);
    assert!(fleet.chains.len() <= 1_001, "{}", fleet.chains.len());
    assert!(fleet.alarms.iter().any(|alarm| alarm.message.contains("more chains than")));
}

#[test]
fn records_that_arrive_late_or_within_a_gap_are_named() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 40);
    log.close().unwrap();
    let lines = lines_of(&dir);
    let n1 = origin("n1");
    let id = &lines[0].0;
    let mut stream = Stream::default();
    let push = |stream: &mut Stream, range: std::ops::Range<usize>| {
        for (id, line, _) in &lines[range] {
            stream.push(&n1, id, line.clone());
        }
    };
    push(&mut stream, 0..10);
    push(&mut stream, 12..20);
    let late = into.path().join("late");
    assert_eq!(kinds(&collect(&late, &mut stream).alarms), [AlarmKind::Missing]);
    settle(&late, Some(id)).unwrap();
    push(&mut stream, 10..12);
    assert_eq!(kinds(&collect(&late, &mut stream).alarms), [AlarmKind::Altered]);
    // After a gap, a record still has to link, and a record that was reported as removed is an alarm.
    let mut stream = Stream::default();
    push(&mut stream, 0..20);
    stream.gap(&n1, id, 21, 30);
    stream.push(&n1, id, edited(&lines[20].1, &lines[19].2, &"0".repeat(64)));
    let gap = into.path().join("gap");
    assert_eq!(kinds(&collect(&gap, &mut stream).alarms), [AlarmKind::Altered]);
    let mut stream = Stream::default();
    push(&mut stream, 0..20);
    stream.gap(&n1, id, 21, 30);
    push(&mut stream, 20..40);
    let came = into.path().join("came");
    assert_eq!(kinds(&collect(&came, &mut stream).alarms), [AlarmKind::Forked]);
    // A chain that begins in the middle is reported.
    let mut stream = Stream::default();
    push(&mut stream, 5..40);
    let middle = into.path().join("middle");
    let mut collector = Collector::builder(&middle).expect(n1.clone()).open().unwrap();
    collector.catch_up(&mut stream).unwrap();
    assert_eq!(
        kinds(collector.alarms()),
        [AlarmKind::Missing, AlarmKind::Missing],
        "{:?}",
        collector.alarms()
    );
}

/// A table from a backup records less than the files have. Lines that the stream no longer has are moved
/// aside, not deleted.
#[test]
fn an_older_table_deletes_nothing() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 10);
    log.flush().unwrap();
    let mut stream = Stream::default();
    stream.add(&origin("n1"), &dir);
    collect(into.path(), &mut stream);
    let table = into.path().join("table.json");
    let older = fs::read(&table).unwrap();
    let sent = stream.messages.len();
    write_events(&log, 10);
    log.close().unwrap();
    for (id, line, _) in &lines_of(&dir)[sent..] {
        stream.push(&origin("n1"), id, line.clone());
    }
    collect(into.path(), &mut stream);
    let file = into.path().join("logs/web/n1/audit-000-00000001.jsonl");
    let whole = fs::read(&file).unwrap();
    fs::write(&table, &older).unwrap();
    // Nothing is cut before the state of the stream is known.
    stream.fails = true;
    let mut collector = Collector::open(into.path()).unwrap();
    assert!(collector.step(&mut stream).is_err());
    drop(collector);
    assert!(fs::read(&file).unwrap() == whole);
    stream.fails = false;
    stream.purged = stream.messages.len() as u64;
    collect(into.path(), &mut stream);
    let aside: Vec<_> =
        fs::read_dir(into.path().join("cut")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [aside] = &aside[..] else { panic!("{aside:?}") };
    let back = [fs::read(&file).unwrap(), fs::read(aside).unwrap()].concat();
    assert!(back == whole);
}

#[test]
fn a_stream_whose_messages_are_gone_is_fully_read() {
    let into = tempfile::tempdir().unwrap();
    let mut stream = Stream::default();
    stream.put(What::Stranger);
    stream.put(What::Stranger);
    stream.purged = 2;
    let fleet = collect(into.path(), &mut stream);
    assert_eq!((fleet.place, fleet.backlog, fleet.alarms.len()), (0, 0, 0));
    // What arrives then is not skipped.
    stream.put(What::Stranger);
    let fleet = collect(into.path(), &mut stream);
    assert_eq!((fleet.place, fleet.strangers), (3, 1));
}

#[test]
fn a_forwarder_that_cannot_send_is_named_and_no_log_is_blamed_while_the_stream_is_down() {
    let (logs, into) = dirs();
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 3);
    log.flush().unwrap();
    let mut stream = Stream::default();
    stream.add(&origin("n1"), &dir);
    let quiet = Duration::from_millis(1_500);
    let mut collector =
        Collector::builder(into.path()).silent_after(quiet).behind_after(quiet).open().unwrap();
    let step_until = |collector: &mut Collector, stream: &mut Stream, expected: &[AlarmKind]| {
        let begun = Instant::now();
        loop {
            drop(collector.step(stream));
            if kinds(collector.alarms()) == expected {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", collector.alarms());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    step_until(&mut collector, &mut stream, &[AlarmKind::Silent]);
    stream.trouble(&origin("n1"), "the stream is full");
    step_until(&mut collector, &mut stream, &[AlarmKind::Stopped]);
    assert!(collector.alarms()[0].message.contains("the stream is full"));
    stream.beat(&origin("n1"), &[]);
    step_until(&mut collector, &mut stream, &[]);
    // A chain of which nothing ever arrived.
    stream.beat(&origin("n1"), &[(&"001".into(), "its first line cannot be read")]);
    step_until(&mut collector, &mut stream, &[AlarmKind::Stopped]);
    assert_eq!(collector.alarms()[0].chain_id.as_deref(), Some("001"));
    stream.beat(&origin("n1"), &[]);
    step_until(&mut collector, &mut stream, &[]);
    stream.fails = true;
    step_until(&mut collector, &mut stream, &[AlarmKind::Behind]);
    // A host that is gone for good.
    stream.fails = false;
    step_until(&mut collector, &mut stream, &[AlarmKind::Silent]);
    collector.flush().unwrap();
    drop(collector);
    assert_eq!(retire(into.path(), &origin("n1")).unwrap(), 1);
    let mut collector = Collector::builder(into.path()).silent_after(Duration::ZERO).open().unwrap();
    collector.step(&mut stream).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    collector.step(&mut stream).unwrap();
    assert_eq!(collector.alarms(), []);
}

/// A disk that is full for a while: nothing that was taken is lost, and nothing is half written.
#[test]
fn a_full_disk_loses_and_duplicates_nothing() {
    let logs = tempfile::tempdir().unwrap();
    let Some(disk) = disk::Disk::new("1M") else {
        disk::skip("a_full_disk_loses_and_duplicates_nothing", "no file system can be mounted");
        return;
    };
    let dir = logs.path().join("n1");
    let log = small_segments(&dir);
    write_events(&log, 4_000);
    log.close().unwrap();
    let mut stream = Stream::default();
    stream.add(&origin("n1"), &dir);
    stream.limit = Some(500);
    let into = disk.path().join("fleet");
    let mut collector = Collector::open(&into).unwrap();
    let begun = Instant::now();
    let error = loop {
        match collector.step(&mut stream).and_then(|_| collector.flush()) {
            Ok(()) => assert!(begun.elapsed() < Duration::from_secs(20)),
            Err(error) => break error,
        }
    };
    let Error::Io { path, source, .. } = &error else { panic!("{error}") };
    assert!(path.starts_with(&into) && source.kind() == std::io::ErrorKind::StorageFull, "{error}: {source}");
    assert!(collector.step(&mut stream).is_err() || collector.flush().is_err());
    disk.grow("16M");
    collector.catch_up(&mut stream).unwrap();
    assert_eq!(collector.alarms(), []);
    assert_same(&into.join("logs/web/n1"), &dir);
}
