//! Heads passed to `on_head` while a log is written.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, Head, Receipt, Verifier};

use crate::support::{fresh, segments, wait_for, with_layer};

const SOON: Duration = Duration::from_millis(10);

fn confirm(log: &AuditLog) -> Receipt {
    with_layer(log, || log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b"))).unwrap()
}

/// Opens a log, and returns it with the heads passed to its closure.
fn open(path: &Path) -> (AuditLog, Arc<Mutex<Vec<Head>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    let log =
        AuditLog::builder(path).on_head(SOON, move |head| kept.lock().unwrap().push(head)).open().unwrap();
    (log, heads)
}

#[test]
fn each_new_head_is_given_once_and_the_last_one_at_close() {
    let (_dir, path) = fresh();
    let (log, heads) = open(&path);
    wait_for("the first head", || *heads.lock().unwrap() == [log.head()]);
    for _ in 0..3 {
        let receipt = confirm(&log);
        wait_for("its head", || heads.lock().unwrap().contains(&receipt.head()));
    }
    let last = log.close().unwrap();
    let heads = heads.lock().unwrap();
    assert_eq!(heads.last(), Some(&last), "close does not return before the last head was given");
    assert!(heads.windows(2).all(|pair| pair[0].seq() < pair[1].seq()), "each once: {heads:?}");
    // They are valid, and reveal a cut that the log alone cannot.
    let check = |head| Verifier::new(&path).expect_head(head).run().unwrap().ensure_intact();
    heads.iter().for_each(|head| check(*head).unwrap());
    let live = &segments(&path)[0];
    let text = fs::read_to_string(live).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(live, lines[..2].concat()).unwrap();
    check(last).unwrap_err();
}

#[test]
fn the_last_head_is_given_however_the_log_ends() {
    let ends: [fn(AuditLog); 3] = [
        |log| assert_eq!(log.close().unwrap(), log.head()),
        drop,
        |log| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(log.close_async()).unwrap();
        },
    ];
    for end in ends {
        let (_dir, path) = fresh();
        let (sender, heads) = mpsc::channel();
        // An interval of an hour, so that only the end of the log causes a call.
        let log = AuditLog::builder(&path)
            .on_head(Duration::from_secs(3600), move |head| sender.send(head).unwrap())
            .open()
            .unwrap();
        confirm(&log);
        end(log);
        let last = heads.try_recv().unwrap();
        assert_eq!(last, crate::support::records(&path).last().unwrap().head());
        // The closure is dropped with the log.
        assert_eq!(heads.recv(), Err(mpsc::RecvError));
    }
}

#[test]
fn a_closure_that_panics_gets_the_next_head_too() {
    let (_dir, path) = fresh();
    let (sender, heads) = mpsc::channel();
    let log = AuditLog::builder(&path)
        .on_head(SOON, move |head| {
            sender.send((head, std::thread::current().name().map(str::to_owned))).unwrap();
            panic!("in the closure");
        })
        .open()
        .unwrap();
    let (first, thread) = heads.recv().unwrap();
    assert_eq!(thread.as_deref(), Some("audit-head"));
    confirm(&log);
    let last = log.close().unwrap();
    let later: Vec<Head> = heads.iter().map(|(head, _)| head).collect();
    assert!(first.seq() < last.seq() && later.last() == Some(&last), "{first} {later:?}");
}

#[test]
fn a_closure_that_never_returns_does_not_block_close() {
    let (_dir, path) = fresh();
    let (entered, is_in) = mpsc::channel();
    let (release, stays) = mpsc::channel::<()>();
    let stays = Mutex::new(stays);
    let bound = Duration::from_millis(300);
    let log = AuditLog::builder(&path)
        .wait_bound(bound)
        .on_head(SOON, move |_| {
            entered.send(()).unwrap();
            // Blocks until the test ends.
            stays.lock().unwrap().recv().ok();
        })
        .open()
        .unwrap();
    is_in.recv().unwrap();
    let receipt = confirm(&log);
    let begun = Instant::now();
    // The log is closed nevertheless, within the wait bound.
    let last = log.close().unwrap();
    assert!(last.seq() > receipt.seq());
    assert!(begun.elapsed() < bound * 10, "{:?}", begun.elapsed());
    assert_eq!(log.close().unwrap(), last);
    drop(release);
}

#[test]
fn an_interval_out_of_range_is_refused() {
    let (_dir, path) = fresh();
    for interval in
        [Duration::ZERO, Duration::from_millis(9), Duration::from_secs(24 * 3600 + 1), Duration::MAX]
    {
        let opened = AuditLog::builder(&path).on_head(interval, |_| {}).open();
        assert!(matches!(opened, Err(Error::Setting { setting: "on_head", .. })), "{interval:?}");
    }
    assert!(!path.exists());
}
