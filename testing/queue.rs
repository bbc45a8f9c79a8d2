//! Tests of the queue without a writer: what ends a pause early, and what a wait leaves behind when it ends.

use super::*;
use crate::{
    chain::{Digest, Head},
    segment_name::ChainNumber,
};

const FAR: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(20);

fn queue(settings: QueueSettings) -> Arc<Queue> {
    let clock = Clock::start();
    let notifier = Notifier::start(Some("log".to_owned()), clock, None, || {}).expect("no thread");
    Arc::new(Queue::new(settings, clock, Arc::new(Gauges::default()), notifier))
}

fn settings() -> QueueSettings {
    QueueSettings {
        bytes: 1 << 20,
        wait_bound: Duration::from_millis(20),
        flush_mode: FlushMode::Batched { size: 100, interval: FAR },
        on_full: OnFull::Block,
        on_failure: OnFailure::Continue,
    }
}

fn submit(queue: &Queue, severity: Severity) {
    queue.submit(&Draft { payload: &[b'x'; 100], severity, at: Timestamp::now() }, None);
}

/// Checks that a pause ends early if `happens` came before it began.
#[track_caller]
fn check_before(pause: Pause, happens: impl FnOnce(&Arc<Queue>)) {
    let queue = queue(settings());
    queue.attach_writer();
    happens(&queue);
    let begun = Instant::now();
    queue.pause(pause, FAR);
    assert!(begun.elapsed() < SOON, "slept through it");
}

/// Checks that a pause ends early if `happens` comes during it.
#[track_caller]
fn check_during(pause: Pause, happens: impl FnOnce(&Arc<Queue>) + Send) {
    let queue = queue(settings());
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            queue.attach_writer();
            let begun = Instant::now();
            queue.pause(pause, FAR);
            begun.elapsed()
        });
        while queue.lock().pause != pause {
            thread::yield_now();
        }
        happens(&queue);
        assert!(writer.join().expect("join") < SOON, "slept through it");
    });
}

/// A nudge wakes the writer for work that is not in the queue. A take in between must not lose it.
#[test]
fn a_nudge_ends_one_pause_of_any_kind() {
    for pause in [Pause::Doze, Pause::Sleep, Pause::Backoff] {
        check_before(pause, |queue| queue.nudge());
        check_before(pause, |queue| {
            queue.nudge();
            queue.take(&mut DraftBuffers::default());
        });
        check_during(pause, |queue| queue.nudge());
    }
    let queue = queue(settings());
    queue.attach_writer();
    queue.nudge();
    queue.pause(Pause::Sleep, FAR);
    let moment = Duration::from_millis(50);
    let begun = Instant::now();
    queue.pause(Pause::Sleep, queue.clock.elapsed() + moment);
    assert!(begun.elapsed() >= moment, "the next pause is not cut short");
}

#[test]
fn no_pause_sleeps_through_urgent_work() {
    let routine = |queue: &Arc<Queue>| submit(queue, Severity::Routine);
    let wanted = |queue: &Arc<Queue>| {
        submit(queue, Severity::Routine);
        assert!(queue.poll_durable(1, Waker::noop()).is_pending());
    };
    let rotation = |queue: &Arc<Queue>| {
        queue.ask_rotation();
    };
    let lost = |queue: &Arc<Queue>| queue.lose(LossReason::Panic, Severity::Routine, Timestamp::now(), None);
    let much = |queue: &Arc<Queue>| {
        for _ in 0..=(WAKE_BYTES / 100) {
            submit(queue, Severity::Routine);
        }
    };
    check_before(Pause::Sleep, routine);
    check_before(Pause::Sleep, lost);
    check_during(Pause::Sleep, routine);
    check_during(Pause::Sleep, lost);
    for pause in [Pause::Doze, Pause::Sleep] {
        check_before(pause, wanted);
        check_before(pause, rotation);
        check_before(pause, much);
        check_before(pause, |queue| queue.end(Stage::Closing));
        check_during(pause, wanted);
        check_during(pause, rotation);
        check_during(pause, much);
        check_during(pause, |queue| queue.end(Stage::Closing));
    }
    check_before(Pause::Backoff, |queue| queue.end(Stage::Abandoned));
    check_during(Pause::Backoff, |queue| queue.end(Stage::Abandoned));
}

#[test]
fn a_thread_that_waits_for_room_wakes_the_writer() {
    for pause in [Pause::Doze, Pause::Sleep] {
        let queue = queue(QueueSettings { bytes: 500, wait_bound: SOON, ..settings() });
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                queue.attach_writer();
                while queue.lock().accepted < 4 {
                    let mut batch = DraftBuffers::default();
                    if queue.take(&mut batch).room_wanted {
                        queue.publish(queue.accepted(), 0, || {}).unwrap();
                    }
                    queue.pause(pause, FAR);
                }
            });
            for _ in 0..4 {
                submit(&queue, Severity::Routine);
            }
            queue.end(Stage::Closing);
            writer.join().expect("join");
        });
        assert_eq!(queue.accepted(), 4);
    }
}

#[test]
fn less_accumulates_once_a_caller_has_waited() {
    let queue = queue(settings());
    for (waits, wakes_at) in [(false, WAKE_BYTES), (true, EAGER_WAKE_BYTES)] {
        if waits {
            assert!(queue.poll_durable(queue.accepted(), Waker::noop()).is_pending());
        }
        queue.take(&mut DraftBuffers::default());
        queue.publish(queue.accepted(), 0, || {}).unwrap();
        queue.lock().pause = Pause::Doze;
        for _ in 0..wakes_at / 100 {
            submit(&queue, Severity::Routine);
        }
        assert_eq!(queue.lock().pause, Pause::Doze);
        submit(&queue, Severity::Routine);
        assert_eq!(queue.lock().pause, Pause::None);
    }
}

#[test]
fn an_event_published_when_its_wait_ended_is_no_stall() {
    let queue = queue(settings());
    submit(&queue, Severity::Routine);
    assert!(queue.poll_durable(1, Waker::noop()).is_pending());
    queue.publish(1, 0, || {}).unwrap();
    assert!(queue.judge_wait(1, false, Waiter::All).is_ok() && !queue.is_stalled());
    submit(&queue, Severity::Routine);
    assert!(queue.wait_until_durable(2, Waiter::All).is_err() && queue.is_stalled());
    queue.publish(2, 0, || {}).unwrap();
    assert!(!queue.is_stalled());
}

#[test]
fn tasks_that_gave_up_do_not_accumulate_in_a_stall() {
    struct Task;
    impl std::task::Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let queue = queue(settings());
    submit(&queue, Severity::Routine);
    queue.stall(&queue.lock());
    for _ in 0..10_000 {
        assert!(queue.poll_durable(1, &Waker::from(Arc::new(Task))).is_pending());
    }
    assert_eq!(queue.lock().waiters.len(), MAX_STALLED_WAITERS);
}

#[test]
fn bytes_held_by_the_writer_take_room_in_the_queue() {
    let queue = queue(QueueSettings { bytes: 1000, ..settings() });
    for _ in 0..5 {
        submit(&queue, Severity::Routine);
    }
    let mut batch = DraftBuffers::default();
    queue.take(&mut batch);
    submit(&queue, Severity::Routine);
    assert_eq!(queue.lock().held_bytes, 600);
    queue.publish(3, 200, || {}).unwrap();
    assert_eq!(queue.lock().held_bytes, 300);
    let mut stats = Stats::default();
    queue.fill(&mut stats);
    assert!(stats.oldest_not_durable > Duration::ZERO);
    queue.take(&mut batch);
    queue.publish(6, 0, || {}).unwrap();
    queue.fill(&mut stats);
    assert_eq!((stats.queued_bytes, stats.oldest_not_durable), (0, Duration::ZERO));
}

/// The age was once measured from the first event since the writer had last held nothing. After a rotation in the middle
/// of a batch, every record up to the next sync then looked a whole interval too old.
#[test]
fn the_age_counts_only_events_that_are_not_durable() {
    let queue = queue(settings());
    let mut batch = DraftBuffers::default();
    let age = || {
        let mut stats = Stats::default();
        queue.fill(&mut stats);
        stats.oldest_not_durable
    };
    let pause = Duration::from_millis(20);
    submit(&queue, Severity::Routine);
    queue.take(&mut batch);
    std::thread::sleep(pause);
    submit(&queue, Severity::Routine);
    submit(&queue, Severity::Routine);
    queue.take(&mut batch);
    let asked = std::time::Instant::now();
    let before = age();
    queue.publish(2, 100, || {}).unwrap();
    let after = age();
    // One event of the second batch is left, which came a pause later than the first batch.
    assert!(
        Duration::ZERO < after && after + pause < before + asked.elapsed() + pause / 10,
        "{before:?} {after:?}"
    );
    submit(&queue, Severity::Routine);
    queue.publish(3, 0, || {}).unwrap();
    assert!(age() > Duration::ZERO, "one is queued");
    queue.take(&mut batch);
    queue.publish(4, 0, || {}).unwrap();
    assert_eq!(age(), Duration::ZERO);
}

#[test]
fn urgent_work_cuts_a_doze_short() {
    let urgent = |happens: &dyn Fn(&Queue)| {
        let queue = queue(settings());
        submit(&queue, Severity::Routine);
        assert!(!queue.is_urgent(&queue.lock()), "a routine event is not");
        happens(&queue);
        queue.is_urgent(&queue.lock())
    };
    assert!(urgent(&|queue| queue.lock().wanted = 1));
    assert!(!urgent(&|queue| {
        queue.lock().wanted = 1;
        queue.publish(1, 0, || {}).unwrap();
    }));
    assert!(urgent(&|queue| queue.lock().queued_bytes = WAKE_BYTES));
    assert!(!urgent(&|queue| queue.lock().queued_bytes = WAKE_BYTES - 1));
    assert!(urgent(&|queue| queue.lock().blocked = 1));
    assert!(urgent(&|queue| assert_eq!(queue.ask_rotation(), 1)));
    assert!(urgent(&|queue| queue.end(Stage::Closing)));
}

#[test]
fn a_critical_event_is_synced_at_once_even_if_no_caller_waits_for_it() {
    let hybrid = FlushMode::Hybrid { batch_size: 100, batch_interval: FAR, critical_immediate: false };
    for (flush_mode, routine, critical) in
        [(hybrid, 0, 2), (FlushMode::Batched { size: 100, interval: FAR }, 0, 0)]
    {
        let queue = queue(QueueSettings { flush_mode, ..settings() });
        submit(&queue, Severity::Routine);
        assert_eq!(queue.lock().wanted, routine);
        submit(&queue, Severity::Critical);
        assert_eq!(queue.lock().wanted, critical);
    }
}

#[test]
fn a_log_is_overloaded_from_three_quarters_on() {
    let queue = queue(QueueSettings { bytes: 400, on_full: OnFull::DropRoutine, ..settings() });
    for is_overloaded in [false, false, true] {
        submit(&queue, Severity::Routine);
        assert_eq!(queue.is_overloaded(), is_overloaded);
    }
    // The last quarter is reserved for critical events.
    submit(&queue, Severity::Routine);
    submit(&queue, Severity::Critical);
    let mut stats = Stats::default();
    queue.fill(&mut stats);
    assert_eq!((stats.accepted_routine, stats.accepted_critical, stats.lost_total()), (3, 1, 1));
    submit(&queue, Severity::Critical);
    submit(&queue, Severity::Critical);
    queue.fill(&mut stats);
    assert_eq!((stats.accepted_routine, stats.accepted_critical, stats.lost_total()), (3, 1, 3));
    assert_eq!(queue.lock().blocked, 0, "a thread still counts as waiting for room");
}

/// Otherwise the wait could hold the thread of a task for as long as the disk takes.
#[test]
fn a_mode_that_does_not_wait_does_not_begin_to_when_the_disk_works_again() {
    let queue = queue(QueueSettings { wait_bound: FAR, ..settings() });
    submit(&queue, Severity::Critical);
    let begun = Instant::now();
    // Like an event that was emitted while the disk was failing, if the disk works again by now.
    queue.wait_for_own(1, Severity::Critical, FAR, false);
    assert!(begun.elapsed() < SOON && !queue.is_stalled());
}

#[test]
fn an_event_counts_for_the_scopes_around_it_at_that_moment() {
    let (one, two) = (Scope::new(None), Scope::new(None));
    let alone = Scope::new(None);
    alone.accept(1, 0);
    let inside_one = alone.inside(Some(Arc::clone(&one)));
    inside_one.accept(2, 0);
    inside_one.inside(Some(Arc::clone(&two))).lose(LossReason::Panic);
    inside_one.inside(None).accept(3, 0);
    let head = Head { chain: ChainNumber::FIRST, seq: 9, hash: Digest::ZERO };
    inside_one.confirm(2, head);
    let counts = |scope: &Scope| {
        let counts = scope.counts();
        (counts.accepted, counts.last, counts.lost, counts.durable.map(|(ticket, _)| ticket))
    };
    assert_eq!(counts(&alone), (3, 3, 1, Some(2)));
    assert_eq!((counts(&one), counts(&two)), ((1, 2, 0, Some(2)), (0, 0, 1, None)));
    assert_eq!(one.tickets().ranges().collect::<Vec<_>>(), [(2, 2)]);
    assert!(Arc::ptr_eq(&inside_one, &inside_one.inside(Some(one))), "a new scope although nothing changed");
}

#[test]
fn a_receipt_names_the_last_durable_event() {
    let scope = Scope::new(None);
    let head = |seq| Head { chain: ChainNumber::FIRST, seq, hash: Digest::ZERO };
    for (ticket, expected) in [(2, 2), (1, 2), (3, 3), (3, 3)] {
        scope.confirm(ticket, head(ticket));
        assert_eq!(scope.counts().durable, Some((expected, head(expected))));
    }
    scope.confirm(3, head(9));
    assert_eq!(scope.counts().durable, Some((3, head(3))));
}

/// Returns the notices that are given while `happens` runs.
fn notices_of(settings: QueueSettings, happens: impl FnOnce(&Queue)) -> Vec<NoticeKind> {
    let (sender, received) = std::sync::mpsc::channel();
    let on_notice = Box::new(move |notice: &crate::Notice| sender.send(notice.kind).expect("send"));
    let clock = Clock::start();
    let notifier = Notifier::start(Some("log".to_owned()), clock, Some(on_notice), || {}).expect("no thread");
    let queue = Queue::new(settings, clock, Arc::new(Gauges::default()), notifier);
    happens(&queue);
    // The thread that calls the closure ends with the notifier, and the closure with it.
    drop(queue);
    received.iter().collect()
}

#[test]
fn a_loss_is_reported_once_and_a_critical_one_each_time() {
    let lose = |queue: &Queue, reason, severity| queue.lose(reason, severity, Timestamp::now(), None);
    let received = notices_of(settings(), |queue| {
        lose(queue, LossReason::QueueFull, Severity::Routine);
        lose(queue, LossReason::QueueFull, Severity::Routine);
        assert!(queue.lock().losses.are_pending(), "no `gap` record is due");
    });
    assert_eq!(received, [NoticeKind::EventsLost]);
    let received = notices_of(settings(), |queue| {
        lose(queue, LossReason::QueueFull, Severity::Critical);
        lose(queue, LossReason::QueueFull, Severity::Critical);
    });
    assert_eq!(
        received,
        [NoticeKind::EventsLost, NoticeKind::CriticalNotRecorded, NoticeKind::CriticalNotRecorded]
    );
    // Often the closure that receives notices emitted it.
    assert_eq!(notices_of(settings(), |queue| lose(queue, LossReason::Reentrant, Severity::Critical)), []);
    let received = notices_of(settings(), |queue| {
        queue.end(Stage::Closing);
        lose(queue, LossReason::Closed, Severity::Routine);
        assert!(!queue.lock().losses.are_pending(), "no record comes after the end");
    });
    assert_eq!(received, [], "it is printed instead");
}

#[test]
fn a_failed_wait_is_reported_if_the_event_is_critical() {
    let immediate =
        QueueSettings { flush_mode: FlushMode::Immediate, wait_bound: Duration::ZERO, ..settings() };
    for severity in [Severity::Routine, Severity::Critical] {
        let critical: &[NoticeKind] =
            if severity == Severity::Critical { &[NoticeKind::CriticalNotRecorded] } else { &[] };
        let received = notices_of(immediate, |queue| {
            submit(queue, severity);
            assert_eq!((queue.lock().unconfirmed, queue.is_stalled()), (1, true));
        });
        assert_eq!(received, [&[NoticeKind::Stalled], critical].concat());
        let received = notices_of(immediate, |queue| {
            queue.gauges.failing.set(true);
            submit(queue, severity);
            submit(queue, severity);
            assert_eq!((queue.lock().unconfirmed, queue.is_stalled()), (2, false), "a thread waited");
        });
        assert_eq!(received, critical.repeat(2));
    }
    // Even in a mode that does not wait, an outage is reported for a critical event.
    let received = notices_of(settings(), |queue| {
        queue.gauges.failing.set(true);
        submit(queue, Severity::Routine);
        submit(queue, Severity::Critical);
    });
    assert_eq!(received, [NoticeKind::CriticalNotRecorded]);
}

#[test]
fn a_stall_is_reported_once_and_a_closed_log_is_no_stall() {
    let received = notices_of(settings(), |queue| {
        submit(queue, Severity::Routine);
        assert!(queue.wait_until_durable(1, Waiter::All).is_err());
        assert!(queue.wait_until_durable(1, Waiter::All).is_err());
    });
    assert_eq!(received, [NoticeKind::Stalled]);
    let received = notices_of(settings(), |queue| {
        submit(queue, Severity::Routine);
        queue.closed();
        assert!(queue.wait_until_durable(1, Waiter::All).is_ok(), "it waited for a closed log");
        queue.wait_for_own(1, Severity::Routine, FAR, true);
    });
    assert_eq!(received, []);
    let received = notices_of(settings(), |queue| {
        submit(queue, Severity::Critical);
        queue.closed();
        queue.wait_for_own(1, Severity::Critical, FAR, true);
    });
    assert_eq!(received, [NoticeKind::CriticalNotRecorded], "it is not durable and never will be");
}

/// Starts a thread that waits for an event, and returns once it is asleep or about to be.
#[cfg(not(any(loom, shuttle)))]
fn asleep_over<'scope>(
    ticket: Ticket,
    queue: &'scope Queue,
    scope: &'scope thread::Scope<'scope, '_>,
) -> thread::ScopedJoinHandle<'scope, ()> {
    queue.lock().wanted = 0;
    let sleeper = scope.spawn(move || assert!(queue.wait_until_durable(ticket, Waiter::All).is_ok()));
    while queue.lock().wanted == 0 {
        thread::yield_now();
    }
    sleeper
}

#[cfg(not(any(loom, shuttle)))]
#[test]
fn threads_that_came_during_a_sync_sleep_through_it() {
    let queue = queue(QueueSettings { wait_bound: SOON, ..settings() });
    let rings = || queue.bells.iter().map(Bell::rings).sum::<u32>();
    let mut batch = DraftBuffers::default();
    thread::scope(|scope| {
        (0..2).for_each(|_| submit(&queue, Severity::Routine));
        let first = asleep_over(1, &queue, scope);
        let orders = queue.take(&mut batch);
        // Comes while the batch is written, and is served by the same sync.
        submit(&queue, Severity::Routine);
        let latecomer = asleep_over(3, &queue, scope);
        assert!(queue.take_latecomers(&orders, &mut batch).is_some());
        submit(&queue, Severity::Routine);
        let next = asleep_over(4, &queue, scope);
        // The writer takes the event of this thread before it falls asleep.
        let late = asleep_over(2, &queue, scope);
        queue.publish(3, 0, || {}).unwrap();
        for served in [first, latecomer, late] {
            served.join().expect("join");
        }
        assert!(rings() == 1 && !next.is_finished());
        queue.publish(4, 0, || {}).unwrap();
        next.join().expect("join");
        assert_eq!(rings(), 2);
    });
}

#[cfg(not(any(loom, shuttle)))]
#[test]
fn a_sleeping_thread_is_woken_when_its_event_is_durable_or_the_log_ends() {
    for ends in [false, true] {
        let queue = queue(QueueSettings { wait_bound: FAR, ..settings() });
        submit(&queue, Severity::Routine);
        thread::scope(|scope| {
            let begun = Instant::now();
            let sleeper = asleep_over(1, &queue, scope);
            if ends {
                queue.closed();
            } else {
                queue.publish(1, 0, || {}).unwrap();
            }
            sleeper.join().expect("join");
            assert!(begun.elapsed() < SOON, "slept through it");
        });
        assert_eq!(queue.is_durable(1), !ends);
    }
}
