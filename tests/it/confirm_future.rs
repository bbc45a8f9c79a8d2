//! `confirm_future`: which events it covers, and its result when the future is done.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::mpsc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tracing::instrument::WithSubscriber as _;
use tracing_audit::{
    AuditLog, ConfirmError, ConfirmFuture, Error, FlushMode, Receipt, Record, audit, audit_critical, verify,
};
use tracing_subscriber::prelude::*;

use crate::{
    promises::{Vetoes, block_on, lazy},
    support::{events, fresh, wait_for, with_layer},
};

/// Returns a mode in which only a critical event or a waiting caller causes a sync.
fn only_critical() -> FlushMode {
    FlushMode::Hybrid {
        batch_size: u32::MAX,
        batch_interval: Duration::from_secs(3600),
        critical_immediate: true,
    }
}

/// Returns `Pending` once, so that whoever polls can do something else.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Returns the position of the only event with this action.
#[track_caller]
fn receipt_of(log: &AuditLog, action: &str) -> Receipt {
    let mut events = events(log.path());
    events.retain(|event| event.action() == Some(action));
    let [event] = events.as_slice() else { panic!("{} events {action}", events.len()) };
    event.head().to_string().parse().unwrap()
}

#[track_caller]
/// Returns the number of syncs after opening.
fn syncs(log: &AuditLog, at_open: u64) -> u64 {
    log.stats().syncs - at_open
}

fn emitted_nothing<T>(confirmed: Result<(T, Receipt), ConfirmError<T>>) -> T {
    match confirmed {
        Err(ConfirmError { output, error: Error::NothingToConfirm { .. }, .. }) => output,
        Err(refused) => panic!("{refused}"),
        Ok((_, receipt)) => panic!("{receipt}"),
    }
}

#[test]
fn events_of_the_future_queue_and_one_sync_serves_them_all_at_its_end() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(only_critical()).open().unwrap();
    let at_open = log.stats().syncs;
    with_layer(&log, || {
        let mut future = log.confirm_future(async {
            audit_critical!(action = "first", actor = "mia");
            pause().await;
            let span = tracing::info_span!("work", actor = "mia");
            span.in_scope(|| tracing::error!(target: "audit", action = "second"));
            audit!(action = "third", actor = "mia");
            7
        });
        assert!(poll(&mut future).is_pending());
        assert_eq!(syncs(&log, at_open), 0, "a critical event waited for its sync");
        let (output, receipt) = block_on(future).unwrap();
        assert_eq!((output, syncs(&log, at_open), log.stats().durable), (7, 1, 3));
        assert_eq!(receipt, receipt_of(&log, "third"));
        // Outside of the future, the macro waits again.
        audit_critical!(action = "outside", actor = "mia");
        assert_eq!(log.stats().durable, 4);
    });
}

#[test]
fn an_error_has_the_output_and_a_future_that_emitted_nothing_can_be_allowed() {
    fn with_question_mark(log: &AuditLog) -> Result<&'static str, Error> {
        let (output, _receipt) = block_on(log.confirm_future(async { "an answer" }))?;
        Ok(output)
    }
    fn boxed(log: &AuditLog) -> Result<&'static str, Box<dyn std::error::Error + Send + Sync>> {
        Ok(block_on(log.confirm_future(async { "an answer" }))?.0)
    }
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let run = |emit: fn()| {
        block_on(log.confirm_future(async move {
            emit();
            "an answer"
        }))
    };
    let nothing = || run(|| {}).unwrap_err();
    assert_eq!(nothing().allow_nothing().unwrap(), "an answer");
    assert_eq!(nothing().to_string(), with_question_mark(&log).unwrap_err().to_string());
    assert!(matches!(with_question_mark(&log), Err(Error::NothingToConfirm { .. })));
    assert_eq!(nothing().to_string(), boxed(&log).unwrap_err().to_string());
    let printed = format!("{:?}", nothing());
    assert!(printed.contains("NothingToConfirm") && !printed.contains("an answer"), "{printed}");

    // A lost event is not the same as no event.
    log.close().unwrap();
    let refused = with_layer(&log, || run(|| audit!(action = "a", actor = "b"))).unwrap_err();
    assert_eq!(refused.output, "an answer");
    let refused = refused.allow_nothing().unwrap_err();
    assert!(matches!(refused.error, Error::Lost { lost: 1, .. }), "{refused}");
}

#[test]
fn futures_that_are_polled_in_turn_on_one_thread_do_not_mix() {
    async fn work(action: &'static str, times: usize) -> usize {
        for number in 0..times {
            audit_critical!(action = "before", actor = "mia", number);
            pause().await;
        }
        if times > 0 {
            audit!(action, actor = "mia");
        }
        times
    }
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(only_critical()).open().unwrap();
    let at_open = log.stats().syncs;
    let subscriber = tracing_subscriber::registry().with(Vetoes).with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        let mut one = log.confirm_future(work("one", 3));
        let mut two = log.confirm_future(work("two", 2));
        let mut silent = log.confirm_future(work("silent", 0));
        let mut vetoed = log.confirm_future(async {
            tracing::info!(target: "audit::vetoed", action = "vetoed", actor = "mia");
            pause().await;
            audit!(action = "of vetoed", actor = "mia");
        });
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        assert!(poll(&mut vetoed).is_pending());
        audit!(action = "between", actor = "mia");
        let Poll::Ready(nothing) = poll(&mut silent) else { panic!("waits for nothing") };
        assert_eq!(emitted_nothing(nothing), 0);
        assert!(poll(&mut two).is_pending() && poll(&mut one).is_pending());
        assert_eq!(syncs(&log, at_open), 0);
        let (_, second) = block_on(two).unwrap();
        let (_, first) = block_on(one).unwrap();
        assert_eq!((first, second), (receipt_of(&log, "one"), receipt_of(&log, "two")));
        let refused = block_on(vetoed).unwrap_err().error;
        assert!(matches!(refused, Error::Lost { lost: 1, .. }), "{refused}");
        log.close().unwrap();
    });
    // The caller was told that one event is lost, so the other one is named unconfirmed.
    let named: Vec<_> = events(&path).into_iter().filter(Record::is_unconfirmed).collect();
    assert!(matches!(named.as_slice(), [only] if only.action() == Some("of vetoed")), "{named:?}");
    verify(&path).unwrap().ensure_intact().unwrap();
}

#[test]
fn an_inner_confirm_counts_for_the_scope_in_which_it_is_polled() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(lazy()).open().unwrap();
    with_layer(&log, || {
        let emit = |action: &'static str| async move {
            pause().await;
            audit!(action, actor = "mia");
        };
        // Every form of `confirm` inside of it.
        let outer = log.confirm_future(async {
            let ((), inner) = log.confirm_future(emit("1")).await.unwrap();
            assert_eq!(inner, receipt_of(&log, "1"));
            log.confirm(|| audit!(action = "2", actor = "mia")).unwrap();
            log.confirm_async(|| audit!(action = "3", actor = "mia")).await.unwrap()
        });
        let (inner, outer) = block_on(outer).unwrap();
        assert_eq!(inner, outer);
        // Inside of `confirm`.
        let outer = log.confirm(|| assert!(block_on(log.confirm_future(emit("4"))).is_ok()));
        assert_eq!(outer.unwrap(), receipt_of(&log, "4"));
        // Created outside and polled inside, but polled once outside first, so that its outer scope changes.
        let mut made_outside = log.confirm_future(async {
            audit!(action = "alone", actor = "mia");
            emit("5").await;
        });
        assert!(poll(&mut made_outside).is_pending());
        let ((inner, ()), outer) =
            block_on(log.confirm_future(async { (made_outside.await.unwrap().1, ()) })).unwrap();
        assert_eq!((inner, outer), (receipt_of(&log, "5"), inner));
        // Created and started inside, and moved out.
        let mut taken = None;
        let outer = log.confirm_future(async {
            let mut inner = log.confirm_future(async {
                audit!(action = "6", actor = "mia");
                emit("taken").await;
            });
            assert!(poll(&mut inner).is_pending());
            taken = Some(inner);
        });
        let mut outer = Box::pin(outer);
        assert!(poll(&mut outer).is_pending(), "it waits for the first");
        let ((), receipt) = block_on(outer).unwrap();
        assert_eq!(receipt, receipt_of(&log, "6"));
        assert_eq!(block_on(taken.unwrap()).unwrap().1, receipt_of(&log, "taken"));
    });
}

#[test]
fn an_inner_loss_counts_for_the_outer_scope_but_not_one_before_it() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let subscriber = tracing_subscriber::registry().with(Vetoes).with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        let mut inner = log.confirm_future(async {
            tracing::info!(target: "audit::vetoed", action = "a", actor = "b");
            pause().await;
            audit!(action = "inner", actor = "b");
        });
        assert!(poll(&mut inner).is_pending());
        let outer = log.confirm_future(async { inner.await.unwrap_err().error });
        let (inner, receipt) = block_on(outer).unwrap();
        assert!(matches!(inner, Error::Lost { lost: 1, .. }), "{inner}");
        assert_eq!(receipt, receipt_of(&log, "inner"));
        let outer = log.confirm_future(async {
            let lost = async { tracing::info!(target: "audit::vetoed", action = "a", actor = "b") };
            drop(log.confirm_future(lost).await.unwrap_err());
        });
        let outer = block_on(outer).unwrap_err().error;
        assert!(matches!(outer, Error::Lost { lost: 1, .. }), "{outer}");
    });
}

#[test]
fn a_future_covers_the_events_of_its_own_log_only() {
    let ((_dir, path), (_other_dir, other_path)) = (fresh(), fresh());
    let one = AuditLog::builder(&path).flush_mode(only_critical()).open().unwrap();
    let two = AuditLog::builder(&other_path).flush_mode(only_critical()).open().unwrap();
    let subscriber = tracing_subscriber::registry().with(one.layer()).with(two.layer());
    tracing::subscriber::with_default(subscriber, || {
        let mut of_one = one.confirm_future(async {
            audit_critical!(action = "1", actor = "mia");
            pause().await;
        });
        assert!(poll(&mut of_one).is_pending());
        assert_eq!((one.stats().durable, two.stats().durable), (0, 1), "the other log still waits");
        assert_eq!(block_on(of_one).unwrap().1, receipt_of(&one, "1"));
        let of_both = one.confirm_future(two.confirm_future(async {
            pause().await;
            audit_critical!(action = "2", actor = "mia");
        }));
        let (inner, outer) = block_on(of_both).unwrap();
        assert_eq!((outer, inner.unwrap().1), (receipt_of(&one, "2"), receipt_of(&two, "2")));
    });
}

/// A guard that emits an event when it is dropped.
struct Guard(&'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        audit_critical!(action = self.0, actor = "guard");
    }
}

/// A future with a guard beside the inner future, so that the guard lives as long as the future itself.
struct Guarded<F>(F, #[expect(dead_code, reason = "for its end")] Guard);

impl<F: Future + Unpin> Future for Guarded<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

#[test]
fn events_emitted_while_the_future_is_dropped_count_too() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(only_critical()).open().unwrap();
    let at_open = log.stats().syncs;
    with_layer(&log, || {
        let ((), receipt) =
            block_on(log.confirm_future(Guarded(std::future::ready(()), Guard("end")))).unwrap();
        assert_eq!(receipt, receipt_of(&log, "end"));
        assert_eq!(syncs(&log, at_open), 1);
    });
}

/// This mode never syncs by itself here, so dropping the future must have requested the sync.
#[test]
fn a_dropped_future_names_no_record_and_its_events_are_synced_soon() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(lazy()).open().unwrap();
    with_layer(&log, || {
        let mut dropped = log.confirm_future(async {
            let _guard = Guard("guard");
            audit_critical!(action = "dropped", actor = "mia");
            std::future::pending::<()>().await;
        });
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        wait_for("the sync", || log.stats().durable == 2);
        drop(log.confirm_future(async { audit!(action = "never polled", actor = "mia") }));
        let mut waiting = log.confirm_future(async { audit!(action = "waiting", actor = "mia") });
        drop(poll(&mut waiting));
        drop(waiting);
    });
    log.close().unwrap();
    let events = events(&path);
    let actions: Vec<_> = events.iter().filter_map(Record::action).collect();
    assert_eq!(actions, ["dropped", "guard", "waiting"]);
    assert!(!events.iter().any(Record::is_unconfirmed));
}

#[test]
fn a_panic_of_the_future_is_propagated_and_leaves_no_scope_behind() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(only_critical()).open().unwrap();
    with_layer(&log, || {
        let mut future = log.confirm_future(async {
            audit_critical!(action = "before", actor = "mia");
            panic!("of the application")
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| poll(&mut future)));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"of the application"));
        assert_eq!(log.stats().durable, 0);
        audit_critical!(action = "outside", actor = "mia");
        assert_eq!(log.stats().durable, 2, "the macro waits by itself again");
    });
    log.close().unwrap();
    assert!(!events(&path).iter().any(Record::is_unconfirmed));
}

#[test]
fn polling_a_finished_future_panics_with_a_message() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let mut future = log.confirm_future(std::future::ready(1));
    assert!(poll(&mut future).is_ready());
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(poll(&mut future)))).unwrap_err();
    assert!(panicked.downcast_ref::<&str>().unwrap().contains("polled again"));
}

/// The reason for the warning in docs/confirm.md.
#[test]
fn an_instrumented_task_keeps_its_actor_but_a_guard_held_across_an_await_leaks_it() {
    use tracing::Instrument as _;
    async fn work(action: &'static str) {
        pause().await;
        audit!(action);
    }
    let span = |actor: &str| tracing::info_span!("request", actor);
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        let mut one = log.confirm_future(work("1").instrument(span("mia")));
        let mut two = log.confirm_future(work("2").instrument(span("noor")));
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        assert!(block_on(one).is_ok() && block_on(two).is_ok());

        let mut holding = log.confirm_future(async {
            let _entered = span("mia").entered();
            work("3").await;
        });
        let mut robbed = log.confirm_future(work("4"));
        assert!(poll(&mut holding).is_pending() && poll(&mut robbed).is_pending());
        assert!(block_on(robbed).is_ok() && block_on(holding).is_ok());
    });
    log.close().unwrap();
    let actors: Vec<_> =
        events(&path).iter().map(|event| event.actor().map(str::to_owned).unwrap_or_default()).collect();
    assert_eq!(actors, ["mia", "noor", "mia", "mia"], "the fourth has no actor of its own");
}

/// Each thread polls each future once, and all threads emit other events beside it. The thread-local scope must neither
/// stay behind nor be missing.
#[test]
fn a_future_may_be_polled_by_a_different_thread_each_time() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 5;
    type Task = ConfirmFuture<Pin<Box<dyn Future<Output = usize> + Send>>>;

    async fn work(task: usize) -> usize {
        for poll in 0..THREADS * ROUNDS {
            audit_critical!(action = "inside", actor = "mia", task, poll);
            pause().await;
        }
        audit!(action = "last", actor = "mia", task);
        task
    }
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(lazy()).open().unwrap();
    let futures = 40;
    // A ring: each thread passes on what it polled, and finishes the futures that have visited all threads.
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel::<Task>()).unzip();
    for task in 0..futures {
        senders[task % THREADS].send(log.confirm_future(Box::pin(work(task)))).unwrap();
    }
    let confirmed: Vec<(usize, Receipt)> = thread::scope(|scope| {
        let threads: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(number, receiver)| {
                let (log, next) = (&log, senders[(number + 1) % THREADS].clone());
                scope.spawn(move || {
                    with_layer(log, || {
                        let mut confirmed = Vec::new();
                        for turn in 0..futures / THREADS * (THREADS * ROUNDS) {
                            let mut task = receiver.recv().unwrap();
                            assert!(poll(&mut task).is_pending());
                            audit!(action = "beside", actor = "nobody", turn);
                            next.send(task).unwrap();
                        }
                        for task in receiver.iter().take(futures / THREADS) {
                            confirmed.push(block_on(task).unwrap());
                        }
                        assert!(matches!(log.confirm(|| {}), Err(Error::NothingToConfirm { .. })));
                        confirmed
                    })
                })
            })
            .collect();
        // If one thread fails, the others must not wait for it.
        drop(senders);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(confirmed.len(), futures);
    let events = events(&path);
    for (task, receipt) in confirmed {
        let event = events.iter().find(|event| event.head() == receipt.head()).unwrap();
        let number = event.field("task").and_then(tracing_audit::Value::as_u64);
        assert_eq!((event.action(), number), (Some("last"), Some(task as u64)));
    }
}

/// The same under a runtime that moves tasks between threads, beside critical events that wait on their own.
#[test]
fn tasks_of_a_multithreaded_runtime_get_receipts_of_their_own_events() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(log.layer()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let confirmed = runtime.block_on(async {
        let task = |task: usize| {
            let work = async move {
                for number in 0..task % 7 {
                    audit_critical!(action = "inside", actor = "mia", task, number);
                    tokio::task::yield_now().await;
                }
                if !task.is_multiple_of(7) {
                    audit!(action = "last", actor = "mia", task);
                }
            };
            tokio::spawn(log.confirm_future(work).with_subscriber(dispatch.clone()))
        };
        let tasks: Vec<_> = (0..200).map(task).collect();
        let mut confirmed = Vec::new();
        for task in tasks {
            confirmed.push(task.await.unwrap());
        }
        confirmed
    });
    let events = events(&path);
    for (task, confirmed) in confirmed.into_iter().enumerate() {
        if task.is_multiple_of(7) {
            emitted_nothing(confirmed);
            continue;
        }
        let ((), receipt) = confirmed.unwrap();
        let event = events.iter().find(|event| event.head() == receipt.head()).unwrap();
        let number = event.field("task").and_then(tracing_audit::Value::as_u64);
        assert_eq!((event.action(), number), (Some("last"), Some(task as u64)));
    }
}

#[test]
fn what_a_spawned_task_emits_does_not_count() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).flush_mode(only_critical()).open().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    with_layer(&log, || {
        let confirmed = runtime.block_on(log.confirm_future(async {
            tokio::spawn(async {
                audit_critical!(action = "spawned", actor = "mia");
            })
            .await
            .unwrap();
        }));
        emitted_nothing(confirmed);
        assert_eq!(log.stats().durable, 1, "it waited by itself");
    });
}

/// With a disk that hangs until it is healed. A waiting caller gets an error at the bound, which `stats` counts.
#[cfg(feature = "fault-injection")]
mod hanging {
    use tracing_audit::Faults;

    use super::*;

    fn open(path: &std::path::Path) -> (AuditLog, Faults) {
        let faults = Faults::default();
        let bound = Duration::from_millis(300);
        let log = AuditLog::builder(path).faults(&faults).wait_bound(bound).flush_mode(FlushMode::Immediate);
        (log.open().unwrap(), faults)
    }

    #[test]
    fn neither_a_poll_nor_a_drop_waits_for_a_disk_that_hangs() {
        let (_dir, path) = fresh();
        let (log, faults) = open(&path);
        with_layer(&log, || {
            faults.stall();
            let work = || async {
                let _guard = Guard("guard");
                audit_critical!(action = "critical", actor = "mia");
                pause().await;
            };
            let mut dropped = log.confirm_future(Guarded(Box::pin(work()), Guard("beside")));
            assert!(poll(&mut dropped).is_pending());
            drop(dropped);
            let mut waiting = log.confirm_future(Guarded(Box::pin(work()), Guard("beside")));
            assert!(poll(&mut waiting).is_pending() && poll(&mut waiting).is_pending());
            drop(waiting);
            assert_eq!(log.stats().unconfirmed_waits, 0);
            audit_critical!(action = "by itself", actor = "mia");
            assert_eq!(log.stats().unconfirmed_waits, 1, "nothing hangs here");
            faults.heal();
        });
        log.close().unwrap();
        let named: Vec<_> = events(&path).into_iter().filter(Record::is_unconfirmed).collect();
        assert!(matches!(named.as_slice(), [only] if only.action() == Some("by itself")), "{named:?}");
        assert_eq!(events(&path).len(), 7);
    }

    #[test]
    fn events_not_durable_within_the_bound_are_an_error_with_the_output_and_are_named() {
        let (_dir, path) = fresh();
        let (log, faults) = open(&path);
        with_layer(&log, || {
            faults.stall();
            for number in 0..2 {
                let refused = block_on(log.confirm_future(async {
                    audit!(action = "refused", actor = "mia", number);
                    number
                }));
                let refused = refused.unwrap_err().allow_nothing().unwrap_err();
                assert!(refused.output == number && refused.error.is_timeout(), "{refused}");
            }
            faults.heal();
            // While the log is stalled nothing waits, so it must first detect that the disk is back.
            wait_for("the disk", || log.flush().is_ok());
            block_on(log.confirm_future(async { audit!(action = "confirmed", actor = "mia") })).unwrap();
        });
        log.close().unwrap();
        let named: Vec<bool> = events(&path).iter().map(Record::is_unconfirmed).collect();
        assert_eq!(named, [true, true, false]);
        verify(&path).unwrap().ensure_intact().unwrap();
    }
}
