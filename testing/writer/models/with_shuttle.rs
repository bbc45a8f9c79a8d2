//! The whole pipeline in random schedules, with more threads, events and faults than can be tried
//! in every order.
//!
//! `AUDIT_SCHEDULES=<number>` runs that many of each kind. A schedule that fails is printed, with
//! the data to replay it.

use std::sync::Mutex;

use shuttle::rand::{Rng, thread_rng};

use super::{Arc, Doze, Log, MS, Model, NEVER, Settings, Severity, Stage};
use crate::{
    FlushMode, LossReason, OnFull, Rotation,
    storage::sim::{Errno, Fault, Op, SyncFailure},
};

const PRODUCERS: u64 = 3;
const EVENTS: u64 = 4;

fn draw(below: u64) -> u64 {
    thread_rng().gen_range(0..below)
}

fn settings() -> Settings {
    let mode = match draw(3) {
        0 => FlushMode::Immediate,
        1 => FlushMode::Batched { size: 2, interval: 50 * MS },
        _ => FlushMode::Hybrid { batch_size: 3, batch_interval: 100 * MS, critical_immediate: true },
    };
    let mut settings = Settings::with_mode(mode);
    if draw(2) == 0 {
        settings = settings.rotation(Rotation::never().max_bytes(1000 + draw(3000)));
    }
    settings.queue.wait_bound = NEVER;
    settings.queue.on_full = if draw(2) == 0 { OnFull::Block } else { OnFull::DropRoutine };
    settings.queue.bytes = Log::payload(1).len() as u64 * (2 + draw(6));
    settings
}

/// Injects faults that occur once each, so that the log heals.
fn inject(log: &Log) {
    log.disk.set_sync_failure(match draw(3) {
        0 => SyncFailure::Ext4Ordered,
        1 => SyncFailure::Xfs,
        _ => SyncFailure::Btrfs,
    });
    const ERRNOS: [Errno; 3] = [Errno::IO, Errno::NOSPC, Errno::ROFS];
    const OPS: [Op; 6] = [Op::SyncData, Op::SyncAll, Op::SyncDir, Op::Append, Op::Create, Op::WriteAt];
    for _ in 0..draw(4) {
        let op = OPS[usize::try_from(draw(6)).unwrap()];
        let errno = ERRNOS[usize::try_from(draw(3)).unwrap()];
        log.disk.inject(Fault::error(&[op], errno).nth(1 + draw(6)));
    }
}

fn pipeline() {
    let closes_early = draw(3) == 0;
    let model = Model::new(&settings(), usize::try_from(PRODUCERS).unwrap() + usize::from(closes_early));
    inject(&model.log);
    let lost = Arc::new(Mutex::new(Vec::new()));
    for producer in 0..PRODUCERS {
        let lost = Arc::clone(&lost);
        model.produce(move |log| {
            for number in producer * EVENTS..(producer + 1) * EVENTS {
                let severity = if draw(3) == 0 { Severity::Critical } else { Severity::Routine };
                let emitted = log.emit(number, severity);
                if !emitted.is_accepted {
                    lost.lock().unwrap().push(number);
                } else if draw(2) == 0 {
                    assert!(log.confirm(&emitted), "accepted, and left behind");
                }
                if draw(8) == 0 {
                    log.queue.ask_rotation();
                }
            }
        });
    }
    if closes_early {
        model.produce(|log| log.queue.end(Stage::Closing));
    }
    let log = Arc::clone(&model.log);
    let doze = if draw(2) == 0 { Doze::UntilWoken } else { Doze::IsOver };
    let held = model.finish(doze);
    let lost = lost.lock().unwrap();
    let emitted = PRODUCERS * EVENTS;
    assert_eq!(held.order.len() as u64 + lost.len() as u64, emitted, "neither recorded nor lost");
    assert_eq!(held.lost + log.lost(LossReason::Closed), lost.len() as u64, "recorded as lost, and lost");
    for producer in 0..PRODUCERS {
        let numbers = || producer * EVENTS..(producer + 1) * EVENTS;
        let places: Vec<usize> = numbers().filter_map(|number| held.events.get(&number).copied()).collect();
        assert!(places.is_sorted(), "the order of producer {producer} is lost");
        for number in numbers().filter(|number| !lost.contains(number)) {
            let before = numbers().filter(|other| other < &number && lost.contains(other)).count() as u64;
            assert!(held.lost_before[held.events[&number]] >= before, "{number} precedes a gap");
        }
    }
}

fn schedules() -> usize {
    std::env::var("AUDIT_SCHEDULES").ok().and_then(|number| number.parse().ok()).unwrap_or(5_000)
}

#[test]
fn the_pipeline_keeps_its_promises_in_random_schedules() {
    shuttle::check_random(pipeline, schedules());
}

#[test]
fn the_pipeline_keeps_its_promises_in_schedules_with_few_preemptions() {
    shuttle::check_pct(pipeline, schedules(), 3);
}
