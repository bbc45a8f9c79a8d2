//! What the flush modes promise.

use std::{
    future::Future,
    pin::pin,
    process::Command,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, FlushMode, Verdict, verify};

use crate::support::{
    Confirming, assert_all_present, child, events, fresh, independent_verdict, run, segments, skip, wait_for,
    with_layer,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a mode that syncs only when a caller waits.
pub(crate) fn lazy() -> FlushMode {
    FlushMode::Batched { size: u32::MAX, interval: HOUR }
}

#[test]
fn what_was_confirmed_survives_sigkill() {
    let (_dir, log) = fresh();
    let mut all = Vec::new();
    for round in 0..25 {
        let process = Confirming::start(&log, 4).begun();
        std::thread::sleep(Duration::from_millis(round * 7 % 50));
        all.extend(process.kill());
    }
    assert!(all.len() >= 25, "each has confirmed: {}", all.len());
    assert_all_present(&log, &all);
    let report = verify(&log).unwrap();
    assert_eq!(report.verdict(), Verdict::Unclean, "{report}");
    assert_eq!(independent_verdict(&log), 3);
    // The next opener recovers it.
    let reopened = AuditLog::open(&log).unwrap();
    assert!(!reopened.recovery().is_clean());
    reopened.close().unwrap();
    assert_all_present(&log, &all);
    verify(&log).unwrap().ensure_intact().unwrap();
    assert_eq!(independent_verdict(&log), 0);
}

/// Must fail if a mode never syncs: it counts system calls, not our own counters.
#[test]
fn every_flush_mode_syncs_as_often_as_documented() {
    if !run("strace", &["-V"]) {
        return skip("every_flush_mode_syncs_as_often_as_documented", "strace is not installed");
    }
    let syncs = |mode: &str, events: u32| {
        let (dir, log) = fresh();
        let trace = dir.path().join("trace");
        let process = child("emit", &log, &[mode, &events.to_string()]);
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=fdatasync", "-o"]).arg(&trace).arg(process.get_program());
        command.args(process.get_args());
        for (name, value) in process.get_envs() {
            command.env(name, value.unwrap());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let trace = std::fs::read_to_string(trace).unwrap();
        verify(&log).unwrap().ensure_intact().unwrap();
        trace.lines().filter(|line| line.contains("fdatasync(")).count()
    };
    let around = syncs("batched", 0);
    assert!(around <= 8, "open and close cost {around} syncs");
    let immediate = syncs("immediate", 200);
    assert!((200..=200 + around).contains(&immediate), "immediate: {immediate}");
    let hybrid = syncs("hybrid", 200);
    // One more for the routine events after the last critical one.
    assert!((20..=21 + around).contains(&hybrid), "hybrid, 20 critical of 200: {hybrid}");
    let batched = syncs("batched", 200);
    assert!((1 + around..=5 + around).contains(&batched), "batched by 50, 200 events: {batched}");
}

#[test]
fn immediate_and_critical_return_when_durable_and_others_when_queued() {
    let modes = [
        (FlushMode::Immediate, true, true),
        (
            FlushMode::Hybrid { batch_size: u32::MAX, batch_interval: HOUR, critical_immediate: true },
            false,
            true,
        ),
        (lazy(), false, false),
    ];
    for (mode, routine_waits, critical_waits) in modes {
        let (_dir, path) = fresh();
        let log = AuditLog::builder(&path).flush_mode(mode).open().unwrap();
        with_layer(&log, || {
            tracing::info!(target: "audit", action = "a", actor = "b");
            assert_eq!(log.stats().durable, u64::from(routine_waits), "{mode}");
            tracing::warn!(target: "audit", action = "AuthFailure", actor = "b");
            assert_eq!(log.stats().durable, if critical_waits { 2 } else { 0 }, "{mode}");
        });
        log.flush().unwrap();
        assert_eq!(log.stats().durable, 2, "{mode}");
    }
}

#[test]
fn a_routine_event_is_written_soon_and_synced_at_its_interval() {
    let (_dir, path) = fresh();
    let interval = Duration::from_millis(300);
    let log =
        AuditLog::builder(&path).flush_mode(FlushMode::Batched { size: u32::MAX, interval }).open().unwrap();
    with_layer(&log, || {
        let begun = Instant::now();
        tracing::info!(target: "audit", action = "idle", actor = "b");
        wait_for("the write", || events(&path).len() == 1);
        assert!(begun.elapsed() < Duration::from_millis(250), "written after {:?}", begun.elapsed());
        assert_eq!(log.stats().durable, 0);
        wait_for("the sync", || log.stats().durable == 1);
        let elapsed = begun.elapsed();
        assert!(elapsed >= interval / 2 && elapsed < interval * 3, "synced after {elapsed:?}");

        // The age of the oldest record is limited even under load.
        let before = log.stats().syncs;
        let begun = Instant::now();
        let mut oldest = Duration::ZERO;
        while begun.elapsed() < interval * 5 {
            tracing::info!(target: "audit", action = "busy", actor = "b");
            oldest = oldest.max(log.stats().oldest_not_durable);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(oldest < interval * 2, "{oldest:?}");
        assert!(log.stats().syncs >= before + 3, "{:?}", log.stats());
    });
}

#[test]
fn waiting_threads_share_syncs() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(FlushMode::Immediate).open().unwrap();
    let (threads, each) = (64, 50);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                with_layer(&log, || {
                    for _ in 0..each {
                        tracing::info!(target: "audit", action = "a", actor = "b");
                    }
                });
            });
        }
    });
    let stats = log.stats();
    assert_eq!(stats.durable, threads * each);
    assert!(stats.syncs * 3 < threads * each, "{} syncs for {} events", stats.syncs, stats.durable);
}

#[test]
fn confirm_waits_in_every_mode_and_names_the_last_event() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(lazy()).open().unwrap();
    let opened = log.stats().syncs;
    with_layer(&log, || {
        let receipt = log
            .confirm(|| {
                let _span = tracing::info_span!("work", actor = "mia").entered();
                tracing::info!(target: "audit", action = "first");
                tracing::warn!(target: "audit", action = "auth.failure");
                tracing::info!(target: "other", "not ours");
            })
            .unwrap();
        assert_eq!(log.stats().durable, 2);
        let events = events(&path);
        assert_eq!(events.last().unwrap().head(), receipt.head());
        assert_eq!(events.last().unwrap().action(), Some("auth.failure"));
        assert_eq!(receipt.to_string().parse::<tracing_audit::Receipt>().unwrap(), receipt);
        // The outer event came first, so it is durable too, with the same sync.
        assert_eq!(log.stats().syncs, opened + 1);
    });
}

/// `segments` of a new log, which has one, was 0.
#[test]
fn counters_include_the_work_of_opening() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let stats = log.stats();
    assert_eq!((stats.segments, stats.syncs), (1, 2), "the first line, and the `open` record behind it");
    assert_eq!(stats.written_bytes, std::fs::metadata(&segments(&path)[0]).unwrap().len());
    log.rotate().unwrap();
    assert_eq!(log.stats().segments, 2);
    log.close().unwrap();
    let log = AuditLog::open(&path).unwrap();
    let stats = log.stats();
    assert_eq!((stats.segments, stats.syncs), (0, 1), "it continues the existing segment");
    log.close().unwrap();
    assert_eq!(log.stats().syncs, 2, "`close` is a write of its own");
}

#[test]
fn an_event_of_an_inner_confirm_counts_for_the_outer_one() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        let mut inner = None;
        let outer = log.confirm(|| {
            inner = Some(log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap());
        });
        assert_eq!(outer.unwrap(), inner.unwrap());
    });
}

#[test]
fn confirming_nothing_is_an_error() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        assert!(matches!(log.confirm(|| {}), Err(Error::NothingToConfirm { .. })));
        let elsewhere = log.confirm(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    with_layer(&log, || tracing::info!(target: "audit", action = "a", actor = "b"));
                });
            });
        });
        assert!(matches!(elsewhere, Err(Error::NothingToConfirm { .. })), "{elsewhere:?}");
    });
    // Without a subscriber, no event arrives either.
    assert!(log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).is_err());
}

#[test]
fn a_panic_in_confirm_reaches_the_caller_and_leaves_no_scope_behind() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(FlushMode::Immediate).open().unwrap();
    with_layer(&log, || {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            log.confirm(|| panic!("of the application"))
        }));
        assert!(panicked.is_err());
        // Outside a scope, the macro waits again.
        tracing::info!(target: "audit", action = "a", actor = "b");
        assert_eq!(log.stats().durable, 1);
    });
}

/// Runs a future without any runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn the_async_forms_need_no_runtime() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(lazy()).open().unwrap();
    let receipt = with_layer(&log, || {
        // The closure runs during the call. The future is `Send` and may be awaited anywhere.
        let future = log.confirm_async(|| tracing::info!(target: "audit", action = "a", actor = "b"));
        std::thread::spawn(move || block_on(future)).join().unwrap().unwrap()
    });
    assert_eq!(events(&path)[0].head(), receipt.head());
    with_layer(&log, || tracing::info!(target: "audit", action = "a", actor = "b"));
    block_on(log.flush_async()).unwrap();
    assert_eq!(log.stats().durable, 2);
    let head = block_on(log.close_async()).unwrap();
    assert_eq!(log.close().unwrap(), head);
    assert!(matches!(block_on(log.confirm_async(|| {})), Err(Error::NothingToConfirm { .. })));
}

#[test]
fn the_async_forms_do_not_block_a_current_thread_runtime() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let receipts = runtime.block_on(async {
        let subscriber = tracing_subscriber::prelude::__tracing_subscriber_SubscriberExt::with(
            tracing_subscriber::registry(),
            log.layer(),
        );
        let _guard = tracing::subscriber::set_default(subscriber);
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                tokio::spawn(
                    log.confirm_async(|| tracing::info!(target: "audit", action = "a", actor = "b", number)),
                )
            })
            .collect();
        let mut receipts = Vec::new();
        for task in tasks {
            receipts.push(task.await.unwrap().unwrap());
        }
        receipts
    });
    assert_all_present(&path, &receipts);
    assert!(log.stats().syncs < 40, "tasks share syncs too: {}", log.stats().syncs);
}

/// A layer nearer to the registry that vetoes events with the target `audit::vetoed`.
pub(crate) struct Vetoes;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Vetoes {
    fn event_enabled(
        &self,
        event: &tracing::Event<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) -> bool {
        event.metadata().target() != "audit::vetoed"
    }
}

/// `confirm` once succeeded although a layer below had vetoed one of its events.
#[test]
fn confirm_is_an_error_when_one_of_its_events_was_vetoed() {
    use tracing_subscriber::prelude::*;
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let subscriber = tracing_subscriber::registry().with(Vetoes).with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        let confirmed = log.confirm(|| {
            tracing::info!(target: "audit", action = "a", actor = "b");
            tracing::error!(target: "audit::vetoed", action = "c", actor = "b");
        });
        assert!(matches!(confirmed, Err(Error::Lost { lost: 1, .. })), "{confirmed:?}");
        log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
    });
    assert_eq!(log.stats().lost_total(), 1);
    log.close().unwrap();
    verify(&path).unwrap().ensure_intact().unwrap();
}
