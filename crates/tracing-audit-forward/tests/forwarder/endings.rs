//! Where forwarding begins and ends, and what is known while the store hangs, is down or has another log.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Retention};
use tracing_audit_forward::{Entry, Forwarder, NoticeKind, Position, Sink, SinkError, StartAt, State};

use super::app::*;

/// Sets the flag even if the test fails; otherwise a thread that waits for it would wait forever.
struct SetAtTheEnd<'a>(&'a AtomicBool);

impl Drop for SetAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The log is never idle, and the store is slow enough to have something left each time.
#[test]
fn a_log_that_is_being_written_can_be_drained() {
    let app = App::new();
    let store = Store::with(|_| {
        thread::sleep(Duration::from_millis(20));
        None
    });
    let (forwarder, _) = start(&app, &store);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetAtTheEnd(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                app.emit(1);
            }
        });
        for _ in 0..5 {
            let begun = Instant::now();
            let head = app.log.head().seq();
            forwarder.drain(LONG).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            assert!(store.0.lock().unwrap().rows.keys().any(|(_, seq)| *seq >= head));
        }
    });
    let asked = store.0.lock().unwrap().asked;
    assert!(asked <= 7, "{asked}: when it began, and once for each drain");
}

#[test]
fn a_store_that_hangs_is_not_healthy() {
    let app = App::new();
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let store = Store::with(move |_| {
        while is_hanging.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        None
    });
    let builder = Forwarder::builder("store").max_lag(Duration::from_millis(300));
    let forwarder = builder.start(&app.log, store.sink()).unwrap();
    forwarder.drain(LONG).unwrap();
    assert!(forwarder.stats().is_healthy());
    hangs.store(true, Ordering::SeqCst);
    app.emit(10);
    until("it is seen", || forwarder.stats().is_behind);
    let stats = forwarder.stats();
    assert!(!stats.is_healthy() && stats.lag >= Duration::from_millis(300), "{stats:?}");
    let error = forwarder.drain(Duration::from_millis(50)).unwrap_err().to_string();
    assert!(error.starts_with('1'), "10 records, and perhaps a mark: {error}");
    hangs.store(false, Ordering::SeqCst);
    forwarder.drain(LONG).unwrap();
    assert!(forwarder.stats().is_healthy());
}

/// However long a pause the store asked for.
#[test]
fn a_drain_ends_a_pause() {
    let app = App::new();
    app.emit(3);
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let store = Store::with(move |_| {
        let retry_after = Some(Duration::from_secs(200));
        let reason = "no answer".to_owned();
        down.load(Ordering::SeqCst).then_some(SinkError::Unavailable { reason, retry_after })
    });
    let (forwarder, _) = start(&app, &store);
    until("it fails", || forwarder.stats().failures > 0);
    is_down.store(false, Ordering::SeqCst);
    forwarder.drain(LONG).unwrap();
    assert_eq!(store.lines().len(), 5);
}

/// The store may come back with less.
#[test]
fn what_a_store_reported_does_not_count_while_it_is_down() {
    let app = App::new();
    app.emit(10);
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    assert!(!app.position().contains("\"asked\": 0\n"), "{}", app.position());
    store.0.lock().unwrap().script = Some(Box::new(|_| Some(unavailable())));
    app.emit(1);
    until("it fails", || forwarder.stats().failures > 0);
    until("that is written", || app.position().contains("\"asked\": 0\n"));
    store.0.lock().unwrap().script = None;
    forwarder.drain(LONG).unwrap();
    assert!(!app.position().contains("\"asked\": 0\n"), "{}", app.position());
}

/// The log was cloned, and the store has the records of the other one under the same numbers.
#[test]
fn what_a_store_has_of_another_log_does_not_count() {
    for has_more in [false, true] {
        let app = App::new();
        app.emit(4);
        app.log.close().unwrap();
        let clone = app.dir.path().join("clone");
        fs::create_dir_all(clone.join("control")).unwrap();
        for dir in ["", "control"] {
            for entry in fs::read_dir(app.path().join(dir)).unwrap().map(Result::unwrap) {
                if entry.path().is_file() {
                    fs::copy(entry.path(), clone.join(dir).join(entry.file_name())).unwrap();
                }
            }
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(clone.join(dir), fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        for (path, events) in [(app.path(), if has_more { 9 } else { 2 }), (clone.clone(), 5)] {
            let log = AuditLog::builder(&path).stderr(false).open().unwrap();
            emit_to(&log, events);
            log.close().unwrap();
        }
        let store = Store::default();
        let forwarder = Forwarder::builder("store").start_beside(app.path(), store.sink()).unwrap();
        forwarder.close(LONG).unwrap();
        for _ in 0..2 {
            let forwarder = Forwarder::builder("store").start_beside(&clone, store.sink()).unwrap();
            until("its chain stops", || forwarder.stats().stopped.contains_key(&0));
            let position = || fs::read_to_string(clone.join("control/forward-store")).unwrap_or_default();
            until("that is written", || !position().is_empty());
            assert!(position().contains("\"asked\": 0\n"), "{has_more}: {}", position());
            drain_others(&forwarder, 0);
            drop(forwarder);
            assert!(position().contains("\"asked\": 0\n"), "{has_more}: {}", position());
        }
    }
}

#[test]
fn a_start_record_that_the_log_does_not_have_is_refused() {
    let app = App::new();
    app.emit(10);
    let head = app.log.head();
    let store = Store::default();
    for wrong in [format!("000/8:{}", "cd".repeat(32)), format!("007/8:{}", "cd".repeat(32))] {
        let (forwarder, notices) = {
            let (told, notices) = notices();
            let builder = Forwarder::builder("store").start_at(StartAt::After(wrong.parse().unwrap()));
            (builder.on_notice(told).start(&app.log, store.sink()).unwrap(), notices)
        };
        until("it says so", || forwarder.stats().state == State::Setup);
        assert!(notices.lock().unwrap()[0].message.contains(&wrong), "{notices:?}");
        assert_eq!(app.position(), "");
    }
    let builder = Forwarder::builder("store").start_at(StartAt::After(head));
    let forwarder = builder.start(&app.log, store.sink()).unwrap();
    app.emit(1);
    forwarder.close(LONG).unwrap();
    assert_eq!(store.seqs().len(), 1);
}

/// Somebody removed the lock file: whoever locks the new one holds the name.
#[test]
fn one_forwarder_holds_a_name_even_if_its_lock_file_is_removed() {
    let app = App::new();
    app.emit(3);
    let store = Store::default();
    let (first, notices) = start(&app, &store);
    first.drain(LONG).unwrap();
    fs::remove_file(app.control("forward-store.lock")).unwrap();
    let (second, _) = start(&app, &store);
    second.drain(LONG).unwrap();
    app.emit(3);
    drop(first.drain(Duration::from_millis(300)));
    until("the first waits", || first.stats().state == State::Waiting);
    assert_eq!(kinds(&notices), [NoticeKind::Waiting]);
    second.close(LONG).unwrap();
    first.drain(LONG).unwrap();
    assert_eq!(store.came(), store.lines().len());
}

struct PanicsAtTheEnd;

impl Sink for PanicsAtTheEnd {
    fn positions(&mut self, _: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        Ok(None)
    }

    fn offer(&mut self, _: &[Entry]) -> Result<(), SinkError> {
        Ok(())
    }
}

impl Drop for PanicsAtTheEnd {
    fn drop(&mut self) {
        panic!("a bug of the sink");
    }
}

#[test]
fn a_sink_that_panics_in_drop_still_ends() {
    let app = App::new();
    app.emit(3);
    let forwarder = Forwarder::builder("store").start(&app.log, PanicsAtTheEnd).unwrap();
    forwarder.drain(LONG).unwrap();
    let begun = Instant::now();
    forwarder.close(LONG).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400), "it waits for a thread that says that it ended");
}

/// The position can be written on a full disk; otherwise nothing could ever be removed from it.
#[test]
fn disk_space_is_kept_for_the_next_position() {
    let app = App::with(|builder| builder.retention(Retention::keep_all()));
    app.emit(3);
    let store = Store::default();
    let (forwarder, _) = start(&app, &store);
    forwarder.drain(LONG).unwrap();
    let spare = fs::metadata(app.control("forward-store.new")).unwrap().len();
    assert_eq!(spare, app.position().len() as u64);
}
