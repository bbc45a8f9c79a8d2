//! Every order in which a few threads can meet over a few events, up to a bound of preemptions.
//!
//! These planted bugs are found by the models:
//!
//! | model | planted |
//! |---|---|
//! | `what_is_acknowledged_…` | published before the sync |
//! | `a_receipt_…` | the same; published outside of the lock; a wake-up claimed and not given; a listener registered after the lock was released |
//! | `nothing_is_acknowledged_…` | published after a sync that failed |
//! | `losses_are_recorded_…` | losses counted outside of the lock |
//! | `a_flood_…` | the reserved quarter ignored |
//! | `every_waiter_for_room_…` | nobody notified that there is room; a notified thread still counted as waiting |
//! | `closing_…` | published before the sync; a listener registered after the lock was released |
//! | `a_writer_that_pauses_…` | a wake-up claimed and not given; a pause that does not check before it begins; a rotation that wakes nobody |
//! | `a_wait_that_ends_…` | no second check before a stall is declared |
//! | `a_timeout_that_races_…` | a refusal noted after the lock was released; published without asking who was refused |
//!
//! The busy loop found by `every_waiter_for_room_…` was a real bug: a writer that had made room
//! kept looping until the threads that it had notified had run.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::{Arc, Doze, Log, MS, Model, NEVER, Next, Settings, Severity, Stage, Waiter};
use crate::{
    FlushMode, LossReason, OnFull,
    storage::sim::{Errno, Fault, Op},
    wait::block_until,
};

/// Runs a model in every order with at most this many preemptions.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    let model = Arc::new(model);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let model = Arc::clone(&model);
        // Opening a log needs more stack than loom gives its first thread.
        let thread = loom::thread::Builder::new().stack_size(STACK_WORDS);
        thread.spawn(move || model()).expect("no thread").join().expect("the model failed");
    });
    println!("{} orders", orders.load(Ordering::Relaxed));
}

/// Returns settings with room for this many events.
fn settings(flush_mode: FlushMode, on_full: OnFull, events: u64) -> Settings {
    let mut settings = Settings::with_mode(flush_mode);
    settings.queue.wait_bound = NEVER;
    settings.queue.on_full = on_full;
    settings.queue.bytes = Log::payload(1).len() as u64 * events;
    settings
}

const PLENTY: u64 = 1000;

/// 512 KiB. Loom counts in words.
const STACK_WORDS: usize = 64 << 10;

fn batched() -> FlushMode {
    FlushMode::Batched { size: 1, interval: 10 * MS }
}

/// Starts two producers with the numbers of two events each.
fn two_producers(model: &Model, emit: impl Fn(&Log, [u64; 2]) + Copy + Send + 'static) {
    for numbers in [[1, 2], [3, 4]] {
        model.produce(move |log| emit(log, numbers));
    }
}

#[test]
fn what_is_acknowledged_is_on_disk() {
    explore(1, || {
        let model = Model::new(&settings(FlushMode::Immediate, OnFull::Block, PLENTY), 2);
        two_producers(&model, |log, numbers| {
            for number in numbers {
                log.submit_and_wait(number);
                assert!(log.is_on_disk(number), "{number} is acknowledged and not on disk");
            }
        });
        let held = model.finish(Doze::UntilWoken);
        assert!(held.events[&1] < held.events[&2] && held.events[&3] < held.events[&4]);
    });
}

#[test]
fn a_receipt_names_what_is_on_disk() {
    explore(2, || {
        let model = Model::new(&settings(FlushMode::default(), OnFull::Block, PLENTY), 2);
        two_producers(&model, |log, [first, last]| {
            let earlier = log.emit(first, Severity::Routine);
            assert!(log.confirm(&log.emit(last, Severity::Routine)), "the disk never fails");
            assert!(log.confirm(&earlier), "what is durable is a prefix");
        });
        model.finish(Doze::UntilWoken);
    });
}

#[test]
fn nothing_is_acknowledged_from_a_sync_that_failed() {
    explore(1, || {
        let model = Model::new(&settings(FlushMode::Immediate, OnFull::Block, PLENTY), 2);
        model.log.disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
        two_producers(&model, |log, [first, last]| {
            let earlier = log.emit(first, Severity::Critical);
            assert!(log.confirm(&log.emit(last, Severity::Critical)), "the log heals");
            assert!(log.confirm(&earlier), "what is durable is a prefix");
        });
        let log = Arc::clone(&model.log);
        model.finish(Doze::UntilWoken);
        assert_eq!(log.disk.failures(Op::SyncData), 1);
    });
}

#[test]
fn losses_are_recorded_exactly_and_before_the_next_event() {
    explore(2, || {
        // One event fits into the share for routine events.
        let model = Model::new(&settings(batched(), OnFull::DropRoutine, 2), 2);
        let lost = Arc::new(Mutex::new(Vec::new()));
        for numbers in [[1, 2], [3, 4]] {
            let lost = Arc::clone(&lost);
            model.produce(move |log| {
                for number in numbers {
                    if !log.emit(number, Severity::Routine).is_accepted {
                        lost.lock().unwrap().push(number);
                        // Wait until there is room again.
                        drop(log.queue.wait_until_durable(log.queue.accepted(), Waiter::All));
                    }
                }
            });
        }
        let log = Arc::clone(&model.log);
        let held = model.finish(Doze::IsOver);
        let lost = lost.lock().unwrap();
        assert_eq!(held.lost, lost.len() as u64, "recorded as lost, and lost");
        assert_eq!(log.lost(LossReason::QueueFull), lost.len() as u64, "counted, and lost");
        for [first, second] in [[1, 2], [3, 4]] {
            if lost.contains(&first) && !lost.contains(&second) {
                assert!(held.lost_before[held.events[&second]] >= 1, "{second} precedes the gap of {first}");
            }
        }
    });
}

#[test]
fn a_flood_of_routine_events_leaves_room_for_a_critical_one() {
    explore(3, || {
        // Three events fit into the share for routine events. Nothing is written meanwhile.
        let model = Model::new(&settings(batched(), OnFull::DropRoutine, 4), 2);
        model.produce(|log| {
            for number in 1..5 {
                log.emit(number, Severity::Routine);
            }
        });
        model.produce(|log| {
            assert!(log.emit(5, Severity::Critical).is_accepted, "no room was left");
        });
        model.log.wait_for_producers();
        let held = model.finish(Doze::IsOver);
        assert!(held.events.contains_key(&5) && held.order.len() as u64 + held.lost == 5);
    });
}

#[test]
fn every_waiter_for_room_gets_it() {
    explore(2, || {
        let never = FlushMode::Batched { size: u32::MAX, interval: NEVER };
        let model = Model::new(&settings(never, OnFull::Block, 2), 2);
        two_producers(&model, |log, numbers| {
            for number in numbers {
                assert!(log.emit(number, Severity::Routine).is_accepted, "{number} found no room");
            }
        });
        let held = model.finish(Doze::UntilWoken);
        assert!(held.events[&1] < held.events[&2] && held.events[&3] < held.events[&4]);
    });
}

#[test]
fn closing_wakes_everybody_and_leaves_nothing_behind() {
    explore(1, || {
        let model = Model::new(&settings(FlushMode::Immediate, OnFull::Block, 2), 3);
        let accepted = Arc::new(AtomicUsize::new(0));
        for number in [1, 2] {
            let accepted = Arc::clone(&accepted);
            model.produce(move |log| {
                let emitted = log.emit(number, Severity::Routine);
                if emitted.is_accepted {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    assert!(log.confirm(&emitted), "accepted, and left behind");
                }
            });
        }
        model.produce(|log| log.queue.end(Stage::Closing));
        let log = Arc::clone(&model.log);
        let held = model.finish(Doze::UntilWoken);
        let accepted = accepted.load(Ordering::SeqCst);
        assert_eq!(held.order.len(), accepted);
        assert_eq!(log.lost(LossReason::Closed) + accepted as u64, 2, "neither recorded nor counted");
    });
}

#[test]
fn a_writer_that_pauses_is_woken_for_whoever_waits() {
    explore(2, || {
        let model = Model::new(&settings(FlushMode::default(), OnFull::Block, PLENTY), 2);
        model.produce(|log| {
            assert!(log.confirm(&log.emit(1, Severity::Routine)));
        });
        model.produce(|log| {
            let number = log.queue.ask_rotation();
            let rotated = block_until(NEVER, |waker| log.queue.poll_rotated(number, waker));
            assert_eq!(rotated, Some(true));
        });
        model.finish(Doze::UntilWoken);
    });
}

#[test]
fn a_timeout_that_races_with_success_is_decided_once() {
    explore(2, || {
        let mut settings = settings(FlushMode::Immediate, OnFull::Block, PLENTY);
        settings.queue.wait_bound = std::time::Duration::ZERO;
        let model = Model::new(&settings, 2);
        let answers = Arc::new(Mutex::new(Vec::new()));
        for number in [1, 2] {
            let answers = Arc::clone(&answers);
            model.produce(move |log| {
                let emitted = log.emit(number, Severity::Critical);
                let ticket = emitted.scope.counts().last;
                let waiter = Waiter::Scope(&emitted.scope);
                let is_confirmed = log.queue.wait_until_durable(ticket, waiter).is_ok();
                let mut answers = answers.lock().unwrap();
                let is_newer =
                    |(_, other, other_confirmed): &(_, _, bool)| *other < ticket && !other_confirmed;
                if is_confirmed && answers.iter().any(is_newer) {
                    assert!(
                        log.has_on_disk("\"kind\":\"unconfirmed\""),
                        "acknowledged, and not named before"
                    );
                }
                answers.push((number, ticket, is_confirmed));
            });
        }
        let held = model.finish(Doze::UntilWoken);
        for (number, _, is_confirmed) in answers.lock().unwrap().iter() {
            assert_eq!(held.unconfirmed.contains(number), !is_confirmed, "{number} got another answer");
        }
    });
}

#[test]
fn a_wait_that_ends_while_its_event_becomes_durable_leaves_no_stall() {
    explore(3, || {
        let mut settings = settings(FlushMode::Immediate, OnFull::Block, PLENTY);
        settings.queue.wait_bound = std::time::Duration::ZERO;
        // One producer more than there are, so that none of them closes the log.
        let mut model = Model::new(&settings, 2);
        model.produce(|log| {
            log.confirm(&log.emit(1, Severity::Critical));
        });
        model.log.queue.attach_writer();
        loop {
            let next = model.step();
            if model.log.queue.is_durable(1) {
                break;
            }
            if let Next::Pause(pause, _) = next {
                model.log.queue.pause(pause, NEVER);
            }
        }
        let mut producers = model.log.producers.lock().unwrap();
        while *producers > 1 {
            producers = model.log.ended.wait(producers).unwrap();
        }
        drop(producers);
        assert!(
            !model.log.queue.is_stalled(),
            "everything is durable, and no sync will come that ends the stall"
        );
        assert!(model.log.stats().unconfirmed_waits <= 1);
    });
}
