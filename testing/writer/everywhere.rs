//! The same workload with one fault at each of its calls in turn, as the tests of `SQLite` do it.
//! Every kind of call fails with every error, once and from then on. A kill and a power cut come at
//! every call that changes something.

use std::{task::Waker, time::Duration};

use super::{
    oracle::{self, Strictness, check_counts},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    FlushMode, Retention, Rotation, Severity, Verdict,
    queue::Stage,
    storage::sim::{Applied, Errno, Fault, Op},
    writer::Next,
};

const ERRNOS: [Errno; 17] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::FBIG,
    Errno::ROFS,
    Errno::ACCESS,
    Errno::PERM,
    Errno::MFILE,
    Errno::NFILE,
    Errno::LOOP,
    Errno::NOENT,
    Errno::NOLCK,
    Errno::INTR,
    Errno::AGAIN,
    Errno::OPNOTSUPP,
    Errno::STALE,
    Errno::BADF,
];

fn modes() -> [FlushMode; 3] {
    [
        FlushMode::Immediate,
        FlushMode::Batched { size: 4, interval: 100 * MS },
        FlushMode::Hybrid { batch_size: 4, batch_interval: 100 * MS, critical_immediate: true },
    ]
}

fn settings(mode: FlushMode) -> Settings {
    Settings::with_mode(mode)
        .rotation(Rotation::never().max_bytes(2500))
        .retention(Retention::keep_all().max_segments(3))
}

/// Opens, writes, rotates, prunes, marks, closes and opens again. Returns early if the process
/// dies.
fn work(world: &mut World, settings: &Settings) -> Option<Node> {
    for last in [false, true] {
        let Ok(mut node) = world.open(settings) else { return None };
        for round in 0..12 {
            node.emit(world, Severity::Routine, 50);
            node.emit(world, if round % 3 == 0 { Severity::Critical } else { Severity::Routine }, 80);
            if round == 5 {
                node.queue.ask_rotation();
            }
            for _ in 0..3 {
                node.pump(world);
                world.advance(20 * MS);
            }
        }
        world.advance(Duration::from_secs(70));
        node.pump(world);
        if !node.process.is_alive() {
            return Some(node);
        }
        node.queue.end(Stage::Closing);
        for _ in 0..8 {
            if node.pump(world) == Next::Ended {
                break;
            }
            world.advance(SECOND);
        }
        if last || node.queue.stage() != Stage::Closed {
            return Some(node);
        }
    }
    None
}

/// Closes whatever is left and checks it.
#[track_caller]
fn check(world: &mut World, settings: &Settings, node: Option<Node>, what: &str) {
    let lives = node.as_ref().is_some_and(|node| node.process.is_alive());
    // Only if a single process emitted everything and lives are the counts known exactly.
    let everything = lives && world.producers.len() == 1;
    if let Some(mut node) = node.filter(|_| lives) {
        if node.queue.stage() != Stage::Closed {
            node.close(world);
        }
        assert_eq!(node.queue.not_durable(), 0, "{what}");
        assert!(node.queue.poll_durable(node.queue.accepted(), Waker::noop()).is_ready());
    }
    let mut again = world.open(settings).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(again.found.iter().all(|found| !found.damaged), "{what}: {:?}", again.found);
    again.critical(world);
    again.run_for(world, SECOND);
    again.close(world);
    let chains = oracle::check(world, Strictness::Once).unwrap_or_else(|error| panic!("{what}: {error}"));
    if everything && chains.values().all(|chain| chain.pruned == 0) {
        check_counts(world, &chains).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let (verdict, report) = oracle::verify(world).unwrap_or_else(|error| panic!("{what}: {error}"));
    let left_alone = again.found.iter().any(|found| found.left_alone);
    assert!(verdict == Verdict::Intact || left_alone, "{what}: {report}");
}

/// Runs the workload with the nth call of a kind failing. Returns false once no call was left to
/// fail.
fn with_fault(op: Op, errno: Errno, nth: u64, later: bool, applied: bool) -> bool {
    let mut world = World::new(nth);
    let settings = settings(modes()[usize::try_from(nth).unwrap() % 3]);
    let fault =
        if applied { Fault::error_applied(&[op], errno) } else { Fault::error(&[op], errno) }.nth(nth);
    world.disk.inject(if later { fault.and_later() } else { fault });
    let node = work(&mut world, &settings);
    let was_hit = world.disk.faults_hit() > 0;
    world.disk.clear_faults();
    let what = format!("{op:?} {nth} {errno:?} later {later} applied {applied}");
    // An open that failed leaves no process that knows of the failed sync: see `crashes`.
    if node.is_none() && was_hit && (Op::SYNCS.contains(&op) || op == Op::WriteAt) {
        world.disk.power_cut();
    }
    check(&mut world, &settings, node, &what);
    was_hit
}

#[test]
fn any_call_may_fail_once_or_from_then_on() {
    let mut cases = 0;
    for op in Op::ALL {
        for later in [false, true] {
            for applied in [false, true] {
                let mut nth = 1;
                while with_fault(op, Errno::IO, nth, later, applied) {
                    // All of the first ones, then fewer.
                    nth += 1 + nth / 12;
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > 500, "{cases}");
}

#[test]
fn any_error_may_be_the_reason() {
    let mut cases = 0;
    for op in Op::ALL {
        for errno in ERRNOS {
            // A sample, because the errors matter here and not the positions.
            for (nth, later) in [(1, false), (2, false), (9, false), (1, true), (5, true)] {
                cases += u32::from(with_fault(op, errno, nth, later, false));
            }
        }
    }
    assert!(cases > 240, "{cases}");
}

#[test]
fn a_kill_or_a_power_cut_may_come_at_any_call() {
    for (number, mode) in modes().into_iter().enumerate() {
        for applied in [Applied::Fully, Applied::NotAtAll, Applied::Seeded] {
            for power_cut in [false, true] {
                let mut nth = 1;
                loop {
                    let mut world = World::new(nth * 10 + number as u64);
                    let settings = settings(mode);
                    if power_cut {
                        world.disk.cut_power_at(nth, applied);
                    } else {
                        // The first two processes of the workload.
                        let process = world.disk.process();
                        process.kill_at(nth, applied);
                        let opened = world.open_in(process, &settings);
                        if let Ok(mut node) = opened {
                            for _ in 0..30 {
                                node.emit(&mut world, Severity::Critical, 90);
                                node.emit(&mut world, Severity::Routine, 30);
                                node.pump(&mut world);
                                world.advance(30 * MS);
                            }
                        }
                    }
                    let node = if power_cut { work(&mut world, &settings) } else { None };
                    let reached = world.disk.crashes_to_come() == 0;
                    world.disk.clear_faults();
                    let what = format!("{mode} {applied:?} power cut {power_cut} at {nth}");
                    check(&mut world, &settings, node, &what);
                    if !reached {
                        break;
                    }
                    nth += 1;
                }
                assert!(nth > 60, "{nth}");
            }
        }
    }
}
