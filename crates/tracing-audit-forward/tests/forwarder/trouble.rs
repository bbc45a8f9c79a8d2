//! Trouble of the log itself, and what retention and operators see meanwhile.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tracing_audit::{AuditLog, Head, Retention};
use tracing_audit_forward::{
    ChainStatus, Fate, Forwarder, NoticeKind, SinkError, StartAt, State, give_up, lift, rejected, require,
    required, skip, status,
};

use super::app::*;

/// Emits into another chain of the same directory, like another process.
fn another_chain(app: &App, events: u64) {
    let log = AuditLog::builder(app.path()).stderr(false).open().unwrap();
    emit_to(&log, events);
    log.close().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "what somebody else does to the directory")]
fn moved(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

/// Replaces a file by something that nobody can open or read.
fn make_unreadable(path: &Path, as_directory: bool) -> PathBuf {
    let aside = path.with_extension("aside");
    moved(path, &aside);
    if as_directory {
        fs::create_dir(path).unwrap();
    } else {
        symlink(path, path).unwrap();
    }
    aside
}

fn make_readable(path: &Path, aside: &Path) {
    if path.is_symlink() {
        fs::remove_file(path).unwrap();
    } else {
        fs::remove_dir(path).unwrap();
    }
    moved(aside, path);
}

fn seqs_of(store: &Store, wanted: usize) -> Vec<u64> {
    let rows = &store.0.lock().unwrap().rows;
    let mut ids: Vec<&String> = rows.keys().map(|(id, _)| id).collect();
    ids.dedup();
    ids.sort_by_key(|id| rows.keys().filter(|(of, _)| of == *id).count());
    let id = ids.get(wanted).map(|id| (*id).clone());
    rows.keys().filter(|(of, _)| Some(of) == id.as_ref()).map(|(_, seq)| *seq).collect()
}

/// Such a chain once blocked all others.
#[test]
fn a_chain_that_cannot_be_read_stops_no_other_and_continues_later() {
    for (as_directory, is_at_start) in [(false, true), (true, true), (false, false), (true, false)] {
        let app = App::new();
        app.emit(100);
        another_chain(&app, 10);
        let file = app.path().join("audit-001-00000001.jsonl");
        let store = Store::default();
        let mut aside = None;
        if is_at_start {
            aside = Some(make_unreadable(&file, as_directory));
        }
        let (forwarder, notices) = start(&app, &store);
        if is_at_start {
            drain_others(&forwarder, 1);
        } else {
            forwarder.drain(LONG).unwrap();
        }
        let aside = aside.unwrap_or_else(|| make_unreadable(&file, as_directory));
        for _ in 0..3 {
            app.emit(10);
            drain_others(&forwarder, 1);
        }
        assert_eq!(
            seqs_of(&store, usize::from(!is_at_start)),
            (1..=app.log.head().seq()).collect::<Vec<_>>()
        );
        assert_eq!(kinds(&notices), [NoticeKind::Io], "{notices:?}");
        let stats = forwarder.stats();
        let why = stats.unreadable.get(&1).unwrap();
        assert!(why.contains("audit-001-00000001.jsonl") && !stats.is_healthy(), "{stats:?}");
        assert!(stats.trouble.is_none() && stats.stopped.is_empty(), "{stats:?}");
        let (first, second) = chains_of(&app);
        assert_eq!((first.lag_records, first.fate), (Some(0), Some(Fate::Acknowledged)));
        assert_eq!((second.chain, second.lag_records), (1, None));
        // The position still shows what the store has of it.
        assert_eq!(second.last.map(|head| head.seq()), (!is_at_start).then_some(13));
        assert_eq!(require(app.path(), &["tape"]).unwrap(), ["tape"]);
        assert_eq!(required(app.path()).unwrap(), ["tape"]);
        assert_eq!(lift(app.path(), &["tape"]).unwrap(), [""; 0]);
        make_readable(&file, &aside);
        app.emit(1);
        forwarder.drain(LONG).unwrap();
        assert_eq!(kinds(&notices), [NoticeKind::Io, NoticeKind::Healed]);
        forwarder.drain(LONG).unwrap();
        assert!(forwarder.stats().unreadable.is_empty());
        assert_eq!(seqs_of(&store, 0), (1..=13).collect::<Vec<_>>());
    }
}

fn chains_of(app: &App) -> (ChainStatus, ChainStatus) {
    let mut chains = status(app.path()).unwrap().remove(0).chains.into_iter();
    let two = (chains.next().unwrap(), chains.next().unwrap());
    assert!(chains.next().is_none());
    two
}

/// Status once reported the record after which forwarding began as acknowledged.
#[test]
fn status_distinguishes_what_the_store_has_from_where_forwarding_begins() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("log");
    let emit = || {
        let log = AuditLog::builder(&path).stderr(false).open().unwrap();
        emit_to(&log, 3);
        log.close().unwrap()
    };
    let reached = |name: &str| {
        let of_name = status(&path).unwrap().into_iter().find(|status| status.name == name).unwrap();
        (of_name.chains[0].last, of_name.chains[0].fate.unwrap())
    };
    let forward = |name: &str, start_at: StartAt, store: &Store| {
        let builder = Forwarder::builder(name).start_at(start_at);
        builder.start_beside(&path, store.sink()).unwrap().close(LONG).unwrap();
        reached(name)
    };
    let head = emit();
    assert_eq!(forward("now", StartAt::Now, &Store::default()), (Some(head), Fate::BeganAfter));
    let refusing = Store::with(|_| Some(SinkError::Refused { reason: "no".to_owned() }));
    assert_eq!(forward("store", StartAt::Beginning, &refusing), (Some(head), Fate::Refused));
    let refused: Vec<Head> =
        rejected(&path, "store").unwrap().into_iter().map(|rejected| rejected.record).collect();
    give_up(&path, "store", &refused).unwrap();
    assert_eq!(reached("store"), (Some(head), Fate::Refused));
    let head = emit();
    skip(&path, "store", head).unwrap();
    assert_eq!(reached("store"), (Some(head), Fate::Skipped));
    let head = emit();
    let store = Store::default();
    assert_eq!(forward("store", StartAt::Beginning, &store), (Some(head), Fate::Acknowledged));
}

#[test]
fn an_unreadable_log_is_not_trouble_of_the_store() {
    let app = App::new();
    app.emit(10);
    app.log.close().unwrap();
    let file = app.path().join("audit-000-00000001.jsonl");
    let aside = make_unreadable(&file, true);
    let store = Store::default();
    let (told, notices) = notices();
    let builder = Forwarder::builder("store").on_notice(told);
    let forwarder = builder.start_beside(app.path(), store.sink()).unwrap();
    for _ in 0..2 {
        drain_others(&forwarder, 0);
        let stats = forwarder.stats();
        assert_eq!((stats.state, stats.failures, stats.trouble), (State::Forwarding, 0, None));
    }
    make_readable(&file, &aside);
    until("it is read", || store.lines().len() == 13);
    forwarder.drain(LONG).unwrap();
    assert_eq!(kinds(&notices), [NoticeKind::Io, NoticeKind::Healed]);
}

/// A later version may write it.
#[test]
fn a_chain_whose_first_line_is_not_understood_stays_reported() {
    let app = App::new();
    app.emit(3);
    let logs = [3, 4].map(|events| {
        let log = AuditLog::builder(app.path()).stderr(false).open().unwrap();
        emit_to(&log, events);
        log
    });
    for log in logs {
        log.close().unwrap();
    }
    for (chain, from, to) in [("001", "\"format\":1", "\"format\":2"), ("002", "\"n\":1", "\"n\":2")] {
        let file = app.path().join(format!("audit-{chain}-00000001.jsonl"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }
    let store = Store::default();
    let (forwarder, notices) = start(&app, &store);
    until("one stops", || forwarder.stats().stopped.contains_key(&2));
    for _ in 0..3 {
        app.emit(1);
        forwarder.drain(LONG).unwrap_err();
        let stats = forwarder.stats();
        assert!(stats.unreadable.contains_key(&1) || stats.stopped.contains_key(&1), "{stats:?}");
    }
    assert!(!kinds(&notices).contains(&NoticeKind::Healed), "{notices:?}");
}

#[test]
fn a_stopped_chain_that_cannot_be_read_stops_no_other() {
    let app = App::new();
    app.emit(10);
    another_chain(&app, 30);
    let file = app.path().join("audit-001-00000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"n\":20", "\"n\":21", 1)).unwrap();
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    until("it stops", || forwarder.stats().stopped.contains_key(&1));
    let aside = make_unreadable(&file, false);
    for _ in 0..3 {
        app.emit(5);
        forwarder.drain(LONG).unwrap_err();
        let stats = forwarder.stats();
        assert_eq!((stats.state, stats.trouble), (State::Forwarding, None));
    }
    assert_eq!(seqs_of(&store, 1), (1..=app.log.head().seq()).collect::<Vec<_>>());
    make_readable(&file, &aside);
    app.emit(1);
    drain_others(&forwarder, 1);
    assert_eq!(forwarder.stats().stopped.len(), 1, "it is no other chain");
}

/// A store that acknowledged records and lost them before it was asked: the log still has them.
#[test]
fn retention_relies_on_what_the_store_reports() {
    let app = App::with(|builder| {
        builder.retention(Retention::keep_all().max_segments(1).require_forwarded(["store"]))
    });
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    let asked = app.log.head().seq();
    app.emit(20);
    until("it is acknowledged", || forwarder.stats().records >= 21);
    let position = || fs::read_to_string(app.path().join("control/forward-store")).unwrap();
    // A mark may have come between.
    let newest = || app.log.head().seq();
    until("it is written", || position().contains(&format!("\"seq\": {},", newest())));
    assert!(position().contains(&format!("\"asked\": {asked}\n")), "{}", position());
    let first = app.path().join("audit-000-00000001.jsonl");
    app.log.rotate().unwrap();
    app.log.rotate().unwrap();
    app.log.flush().unwrap();
    assert!(first.exists());
    forwarder.drain(LONG).unwrap();
    app.log.rotate().unwrap();
    until("the store said that it has it", || !first.exists());
}

/// Neither the chains that exist when it begins nor those that begin while it runs.
#[test]
fn retention_does_not_rely_on_what_was_only_acknowledged() {
    let app = App::new();
    app.emit(20);
    let store = Store::default();
    let (_forwarder, _) = start(&app, &store);
    let position = || fs::read_to_string(app.path().join("control/forward-store")).unwrap_or_default();
    until("it is written", || position().contains("\"seq\": 2"));
    another_chain(&app, 3);
    until("it is written, too", || position().contains("\"chain\": \"001\""));
    assert_eq!(position().matches("\"asked\": 0\n").count(), 2, "{}", position());
}

#[test]
fn a_store_that_falls_behind_is_reported_once() {
    let app = App::new();
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let store = Store::with(move |_| is_down.load(Ordering::SeqCst).then(unavailable));
    let notices = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&notices);
    let builder = Forwarder::builder("store").max_lag(Duration::from_millis(500));
    let builder = builder.on_notice(move |notice| told.lock().unwrap().push(notice));
    app.emit(5);
    let forwarder = builder.start(&app.log, store.sink()).unwrap();
    until("it is behind", || forwarder.stats().is_behind);
    until("it is told", || kinds(&notices).contains(&NoticeKind::Behind));
    let stats = forwarder.stats();
    assert!(
        !stats.is_healthy()
            && stats.lag >= Duration::from_millis(500)
            && (7..=8).contains(&stats.lag_records),
        "{stats:?}"
    );
    down.store(false, Ordering::SeqCst);
    forwarder.drain(LONG).unwrap();
    let stats = forwarder.stats();
    assert!(stats.is_healthy() && stats.lag.is_zero() && stats.lag_records == 0, "{stats:?}");
    let kinds = kinds(&notices);
    let of_lag: Vec<_> =
        kinds.iter().filter(|kind| matches!(kind, NoticeKind::Behind | NoticeKind::CaughtUp)).collect();
    assert_eq!(of_lag, [&NoticeKind::Behind, &NoticeKind::CaughtUp]);
}

/// The store never had it, and nobody wants it offered again.
#[test]
fn a_last_record_that_was_given_up_is_not_a_loss_of_the_store() {
    let app = App::new();
    app.emit(3);
    let store = Store::with(|batch| {
        let is_bad = batch.iter().any(|entry| [4, 5].contains(&entry.record.seq()));
        is_bad.then(|| SinkError::Refused { reason: "too odd".to_owned() })
    });
    let (forwarder, _) = start(&app, &store);
    forwarder.close(LONG).unwrap();
    let all: Vec<_> = rejected(app.path(), "store").unwrap().into_iter().map(|one| one.record).collect();
    assert_eq!(give_up(app.path(), "store", &all[..1]).unwrap(), 1);
    for _ in 0..2 {
        let (forwarder, notices) = start(&app, &store);
        forwarder.close(LONG).unwrap();
        assert_eq!(kinds(&notices), []);
    }
    assert_eq!(give_up(app.path(), "store", &all).unwrap(), 1);
    let (forwarder, notices) = start(&app, &store);
    app.emit(3);
    forwarder.close(LONG).unwrap();
    assert_eq!((kinds(&notices), rejected(app.path(), "store").unwrap()), (vec![], vec![]));
    let position = fs::read_to_string(app.path().join("control/forward-store")).unwrap();
    assert!(!position.contains("given_up"), "{position}");
}
