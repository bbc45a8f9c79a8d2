//! What arrives, and in which order, whatever the store does.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Head, Retention, Rotation};
use tracing_audit_forward::{
    Entry, Forwarder, NoticeKind, SinkError, StartAt, State, Stats, give_up, offer_again, rejected, skip,
};

use super::app::*;

#[test]
fn every_record_arrives_once_and_in_order() {
    let app = App::with(|builder| builder.rotation(Rotation::never().max_bytes(64 << 10)));
    let store = Store::default();
    app.emit(100);
    let (forwarder, notices) = start(&app, &store);
    app.emit(2_500);
    app.log.rotate().unwrap();
    app.emit(10);
    forwarder.drain(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(store.came(), store.lines().len());
    let Stats { state, records, lag_records, rejected, .. } = forwarder.stats();
    assert_eq!((state, lag_records, rejected), (State::Forwarding, 0, 0));
    assert!(records >= store.came() as u64);
    app.log.close().unwrap();
    forwarder.close(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(kinds(&notices), []);
}

#[test]
fn a_critical_record_arrives_at_once() {
    let app = App::new();
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    let mut waits = Vec::new();
    for _ in 0..21 {
        std::thread::sleep(Duration::from_millis(20));
        app.critical();
        let begun = Instant::now();
        let head = app.log.head();
        until("it arrives", || store.seqs().contains(&head.seq()));
        waits.push(begun.elapsed());
    }
    waits.sort();
    assert!(waits[10] < Duration::from_millis(50) && waits[20] < Duration::from_millis(500), "{waits:?}");
}

#[test]
fn a_store_that_comes_and_goes_gets_everything_once() {
    let app = App::new();
    for fails_late in [false, true] {
        let mut calls = 0;
        let store = Store::with(move |_| {
            calls += 1;
            (calls % 3 == 0).then(unavailable)
        });
        store.0.lock().unwrap().fails_late = fails_late;
        let name = if fails_late { "late" } else { "early" };
        let forwarder = Forwarder::builder(name).start(&app.log, store.sink()).unwrap();
        for _ in 0..12 {
            app.emit(20);
            forwarder.drain(LONG).unwrap();
        }
        assert!(store.lines() == lines(&app.path()));
        // Even where the answer was lost after the store had accepted the batch.
        assert_eq!(store.came(), store.lines().len());
        assert!(forwarder.stats().failures >= 4);
    }
}

#[test]
fn a_record_that_is_refused_stops_no_other() {
    for partly in [false, true] {
        let app = App::new();
        app.emit(50);
        let is_bad = |entry: &Entry| [7, 30].contains(&entry.record.seq());
        let store = Store::with(move |batch| {
            let bad = batch.iter().enumerate().filter(|(_, entry)| is_bad(entry));
            let refused: Vec<(usize, String)> = bad.map(|(index, _)| (index, "too odd".to_owned())).collect();
            match refused.len() {
                0 => None,
                _ if partly => Some(SinkError::Partly { refused }),
                _ => Some(SinkError::Refused { reason: "too odd".to_owned() }),
            }
        });
        {
            let mut inner = store.0.lock().unwrap();
            (inner.fails_late, inner.cannot_be_asked) = (partly, partly);
        }
        let (forwarder, notices) = start(&app, &store);
        forwarder.drain(LONG).unwrap();
        let expected: Vec<u64> = (1..=52).filter(|seq| partly || ![7, 30].contains(seq)).collect();
        assert_eq!(store.seqs(), expected);
        assert_eq!(forwarder.stats().rejected, 2);
        assert_eq!(kinds(&notices), [NoticeKind::Rejected, NoticeKind::Rejected]);
        let list = fs::read_to_string(app.path().join("control/forward-store.rejected.jsonl")).unwrap();
        assert!(list.contains("\"record\":\"000/7:") && list.contains("too odd"), "{list}");
        let position = || fs::read_to_string(app.path().join("control/forward-store")).unwrap();
        assert!(position().contains("\"refused\": 7"), "{}", position());
        // One is given up, the other is accepted at last.
        let heads: Vec<Head> = rejected(app.path(), "store").unwrap().iter().map(|one| one.record).collect();
        assert_eq!(heads.iter().map(Head::seq).collect::<Vec<_>>(), [7, 30]);
        give_up(app.path(), "store", &heads[..1]).unwrap_err();
        forwarder.close(LONG).unwrap();
        assert_eq!(give_up(app.path(), "store", &heads[..1]).unwrap(), 1);
        assert!(position().contains("\"refused\": 30"), "{}", position());
        assert_eq!(offer_again(app.path(), "store", &mut store.sink()).unwrap(), 0);
        store.0.lock().unwrap().script = None;
        assert_eq!(offer_again(app.path(), "store", &mut store.sink()).unwrap(), 1);
        assert!(store.seqs().contains(&30) && !position().contains("refused"), "{}", position());
        assert_eq!(rejected(app.path(), "store").unwrap(), []);
    }
}

#[test]
fn another_record_under_the_same_key_stops_its_chain_and_no_other() {
    let app = App::new();
    app.emit(10);
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    forwarder.close(LONG).unwrap();
    // Somebody else forwarded a clone of the log.
    let id = store.0.lock().unwrap().rows.keys().next().unwrap().0.clone();
    let forged = ("0".repeat(64).parse().unwrap(), "forged".to_owned());
    store.0.lock().unwrap().rows.insert((id, 14), forged.clone());
    let other = AuditLog::builder(app.path()).stderr(false).open().unwrap();
    let (forwarder, notices) = start(&app, &store);
    app.emit(5);
    until("the chain stops", || forwarder.stats().stopped.contains_key(&0));
    drain_others(&forwarder, 0);
    assert_eq!(kinds(&notices), [NoticeKind::ChainStopped]);
    let rows = store.0.lock().unwrap().rows.clone();
    assert_eq!(rows.values().filter(|row| **row == forged).count(), 1);
    assert_eq!(rows.keys().filter(|(_, seq)| *seq > 14).count(), 0);
    other.close().unwrap();
    drain_others(&forwarder, 0);
    assert_eq!(
        store.lines().iter().filter(|line| line.contains("\"kind\":\"close\"")).count(),
        1,
        "of the other chain"
    );
    assert!(!forwarder.stats().is_healthy());
    drop(forwarder);
    // Somebody decides that the store keeps what it has up to a record.
    let known = app.log.head();
    app.emit(5);
    skip(app.path(), "store", known).unwrap();
    for _ in 0..2 {
        let (forwarder, notices) = start(&app, &store);
        forwarder.drain(LONG).unwrap();
        assert_eq!(kinds(&notices), []);
        app.emit(1);
        forwarder.close(LONG).unwrap();
    }
    let rows = store.0.lock().unwrap().rows.clone();
    assert!(rows.values().any(|row| *row == forged));
    let seqs: Vec<u64> = rows.keys().map(|(_, seq)| *seq).filter(|seq| *seq > 14).collect();
    assert_eq!(seqs, (known.seq() + 1..=app.log.head().seq()).collect::<Vec<_>>());
}

#[test]
fn a_store_that_lost_records_gets_them_again() {
    let app = App::new();
    app.emit(30);
    let store = Store::default();
    let (forwarder, notices) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    // The store fails over to one that is behind.
    let fails = Arc::new(Mutex::new(false));
    let failing = Arc::clone(&fails);
    {
        let mut inner = store.0.lock().unwrap();
        inner.rows.retain(|(_, seq), _| *seq <= 12);
        inner.script =
            Some(Box::new(move |_| std::mem::take(&mut *failing.lock().unwrap()).then(unavailable)));
    }
    *fails.lock().unwrap() = true;
    app.emit(5);
    forwarder.drain(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(forwarder.stats().losses, 1);
    assert!(kinds(&notices).contains(&NoticeKind::StoreLost), "{notices:?}");
    drop(forwarder);
    // Also at the next start, with an empty store.
    store.0.lock().unwrap().rows.clear();
    let (forwarder, notices) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(kinds(&notices), [NoticeKind::StoreLost]);
}

#[test]
fn a_store_that_cannot_be_asked_is_trusted() {
    let app = App::new();
    app.emit(30);
    let store = Store::default();
    store.0.lock().unwrap().cannot_be_asked = true;
    for _ in 0..3 {
        let (forwarder, _) = start(&app, &store);
        app.emit(3);
        forwarder.close(LONG).unwrap();
    }
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(store.came(), 41);
}

#[test]
fn a_store_that_hangs_blocks_nobody() {
    let app = App::new();
    app.emit(30);
    let store = Store::with(|_| {
        std::thread::sleep(Duration::from_secs(3));
        None
    });
    let (forwarder, _) = start(&app, &store);
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    let error = forwarder.close(Duration::from_millis(200)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(error.to_string().contains("were not forwarded within 200ms; they stay in the log"), "{error}");
    app.emit(10);
    app.log.close().unwrap();
}

#[test]
fn one_forwarder_at_a_time_holds_a_name() {
    let app = App::new();
    app.emit(10);
    let store = Store::default();
    let (first, _) = start(&app, &store);
    first.drain(LONG).unwrap();
    let (second, notices) = start(&app, &store);
    until("it waits", || second.stats().state == State::Waiting);
    app.emit(10);
    first.close(LONG).unwrap();
    app.emit(10);
    second.drain(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(store.came(), 32);
    assert_eq!(kinds(&notices), [NoticeKind::Waiting]);
}

#[test]
fn forwarding_begins_where_it_is_configured_to() {
    let app = App::new();
    app.emit(10);
    let head = app.log.head();
    app.emit(10);
    for (name, start_at, first) in [
        ("all", StartAt::Beginning, 1),
        ("now", StartAt::Now, 0),
        ("after", StartAt::After(head), head.seq() + 1),
    ] {
        let first = if start_at == StartAt::Now { app.log.head().seq() + 1 } else { first };
        let store = Store::default();
        let builder = || Forwarder::builder(name).start_at(start_at);
        let forwarder = builder().start(&app.log, store.sink()).unwrap();
        forwarder.close(LONG).unwrap();
        let forwarder = builder().start(&app.log, store.sink()).unwrap();
        let before = store.seqs();
        app.emit(1);
        forwarder.close(LONG).unwrap();
        // A mark may have come first.
        let begun = *store.seqs().first().unwrap();
        assert!((first..=first + u64::from(name == "now")).contains(&begun), "{name}: {begun} {before:?}");
        app.log.flush().unwrap();
        let app_lines = lines(&app.path()).len() as u64;
        assert_eq!(store.seqs().last(), Some(&app_lines), "{name}");
    }
}

#[test]
fn what_retention_removed_is_reported_and_what_somebody_removed_stops_the_chain() {
    let app = App::with(|builder| {
        builder
            .rotation(Rotation::never().max_bytes(64 << 10))
            .retention(Retention::keep_all().max_segments(2))
    });
    for _ in 0..40 {
        app.emit(50);
    }
    until("old segments go", || !app.path().join("audit-000-00000001.jsonl").exists());
    app.emit(1);
    let store = Store::default();
    let (forwarder, notices) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(kinds(&notices), [], "it begins with what is there");
    drop(forwarder);
    // Now with an earlier position.
    for _ in 0..40 {
        app.emit(50);
    }
    let first = lines(&app.path())[0].clone();
    let first: u64 = first["{\"seq\":".len()..].split(',').next().unwrap().parse().unwrap();
    let had = *store.seqs().last().unwrap();
    assert!(first > had + 1, "{first} {had}");
    let (forwarder, notices) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert_eq!(kinds(&notices), [NoticeKind::Missed]);
    let gaps = store.0.lock().unwrap().gaps.clone();
    assert!(gaps.len() == 1 && (gaps[0].first_seq, gaps[0].last_seq) == (had + 1, first - 1), "{gaps:?}");
    assert_eq!(forwarder.stats().missed, first - 1 - had);
    assert_eq!(store.seqs().last(), Some(&app.log.head().seq()));
    drop(forwarder);
    // Somebody removes a segment in the middle.
    app.log.rotate().unwrap();
    app.emit(20);
    app.log.rotate().unwrap();
    let names: Vec<_> = {
        let mut names: Vec<_> =
            fs::read_dir(app.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|name| name.is_file());
        names.sort();
        names
    };
    fs::remove_file(&names[names.len() - 2]).unwrap();
    let (forwarder, notices) = start(&app, &store);
    until("the chain stops", || forwarder.stats().stopped.contains_key(&0));
    assert_eq!(kinds(&notices), [NoticeKind::ChainStopped]);
}

#[test]
fn nothing_is_forwarded_past_a_break() {
    let app = App::new();
    app.emit(50);
    app.log.close().unwrap();
    let file = app.path().join("audit-000-00000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"n\":20", "\"n\":21", 1)).unwrap();
    let store = Store::default();
    let forwarder = Forwarder::builder("store").start_beside(app.path(), store.sink()).unwrap();
    until("the chain stops", || forwarder.stats().stopped.contains_key(&0));
    let last = *store.seqs().last().unwrap();
    assert_eq!(last, 22, "the record before the edited one");
}

/// What a process wrote before it died is offered as well.
#[test]
fn the_tail_of_a_dead_writer_is_recovered() {
    let app = App::new();
    app.emit(10);
    // The directory as it is while the writer runs, without anybody holding it.
    let dead = app.dir.path().join("dead");
    fs::create_dir_all(dead.join("control")).unwrap();
    for name in ["audit-000-00000001.jsonl", "control/chain-000.lock"] {
        fs::copy(app.path().join(name), dead.join(name)).unwrap();
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&dead, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(dead.join("control"), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let store = Store::default();
    let forwarder = Forwarder::builder("store").start_beside(&dead, store.sink()).unwrap();
    until("its last record arrives", || store.seqs().contains(&12));
    assert_eq!(forwarder.stats().failures, 0);
    until("the close arrives", || {
        store.lines().last().is_some_and(|line| line.contains("\"kind\":\"close\""))
    });
}

/// The last answer of such a store does not prove that it works.
#[test]
fn pauses_also_grow_for_a_store_that_cannot_be_asked() {
    let app = App::new();
    app.emit(3);
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let store = Store::with(move |_| {
        *counted.lock().unwrap() += 1;
        Some(SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: None })
    });
    store.0.lock().unwrap().cannot_be_asked = true;
    let (_forwarder, notices) = start(&app, &store);
    std::thread::sleep(Duration::from_millis(1_500));
    let calls = *calls.lock().unwrap();
    assert!((2..=7).contains(&calls), "{calls} calls");
    assert_eq!(kinds(&notices), [NoticeKind::Unavailable]);
}

#[test]
fn a_sink_that_panics_ends_the_forwarder_visibly() {
    let app = App::new();
    app.emit(3);
    let store = Store::with(|_| panic!("a bug of the sink"));
    let (forwarder, _) = start(&app, &store);
    until("it ends", || forwarder.stats().state == State::Closed);
    assert!(!forwarder.stats().is_healthy() && forwarder.stats().trouble.is_some());
    forwarder.close(Duration::from_secs(1)).unwrap_err();
}

/// The store never had the last record of the chain, because it refused it.
#[test]
fn a_refused_last_record_is_not_a_loss_of_the_store() {
    let app = App::new();
    app.emit(3);
    let store = Store::with(|batch| {
        let is_bad = batch.iter().any(|entry| entry.record.seq() == 5);
        is_bad.then(|| SinkError::Refused { reason: "too odd".to_owned() })
    });
    for round in 0..3 {
        let (forwarder, notices) = start(&app, &store);
        forwarder.drain(LONG).unwrap();
        let stats = forwarder.stats();
        assert_eq!((stats.losses, stats.rejected, stats.rejections), (0, 1, u64::from(round == 0)));
        assert!(!stats.is_healthy());
        assert_eq!(kinds(&notices).len(), usize::from(round == 0), "{notices:?}");
    }
    assert_eq!(rejected(app.path(), "store").unwrap().len(), 1);
    // Half a line in the list, as left by a crash of an older version or by an editor.
    let list = app.path().join("control/forward-store.rejected.jsonl");
    let text = fs::read_to_string(&list).unwrap() + "{\"record\":";
    fs::write(&list, text).unwrap();
    store.0.lock().unwrap().script = Some(Box::new(|batch| {
        let is_bad = batch.iter().any(|entry| entry.record.seq() == 7);
        is_bad.then(|| SinkError::Refused { reason: "too odd".to_owned() })
    }));
    let (forwarder, _) = start(&app, &store);
    app.emit(4);
    forwarder.drain(LONG).unwrap();
    let seqs: Vec<u64> = rejected(app.path(), "store").unwrap().iter().map(|one| one.record.seq()).collect();
    assert_eq!(seqs, [5, 7]);
}

/// What the store lost must stay in the log, even while the store accepts nothing.
#[test]
fn a_loss_of_the_store_is_on_disk_at_once() {
    let app = App::new();
    app.emit(20);
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.close(LONG).unwrap();
    let position = || fs::read_to_string(app.path().join("control/forward-store")).unwrap();
    assert!(position().contains("\"seq\": 22"), "{}", position());
    {
        let mut inner = store.0.lock().unwrap();
        inner.rows.retain(|(_, seq), _| *seq <= 9);
        inner.script = Some(Box::new(|_| Some(unavailable())));
    }
    let (forwarder, _) = start(&app, &store);
    until("it fails", || forwarder.stats().failures > 0);
    assert!(position().contains("\"seq\": 9"), "{}", position());
}

/// A backup omits `control/`, and `restore` restores the segments only.
#[test]
fn a_log_that_was_restored_without_control_is_forwarded() {
    use std::os::unix::fs::PermissionsExt as _;
    let app = App::new();
    app.emit(5);
    app.log.close().unwrap();
    fs::remove_dir_all(app.control("")).unwrap();
    let store = Store::default();
    let forwarder = Forwarder::builder("store").start_beside(app.path(), store.sink()).unwrap();
    forwarder.drain(LONG).unwrap();
    assert!(store.lines() == lines(&app.path()));
    assert_eq!(fs::metadata(app.control("")).unwrap().permissions().mode() & 0o777, 0o700);
}
