//! Removing old segments.

use std::time::Duration;

use super::{
    oracle::{self, Chain, Strictness},
    world::{Node, SECOND, Settings, World},
};
use crate::{
    Retention, Rotation, Verdict,
    format::RecordKind,
    storage::sim::{Errno, Fault, Op, Prng},
};

fn keeping(segments: u32) -> Settings {
    Settings::default().retention(Retention::keep_all().max_segments(segments))
}

/// Writes so many segments with an event each.
fn fill(world: &mut World, node: &mut Node, segments: usize) {
    for _ in 0..segments {
        node.critical(world);
        node.run_for(world, SECOND);
        node.queue.ask_rotation();
        node.run_for(world, SECOND);
    }
}

#[track_caller]
fn checked(world: &World) -> Chain {
    let chains = oracle::check(world, Strictness::Once).unwrap();
    let (verdict, report) = oracle::verify(world).unwrap();
    assert_eq!(verdict, Verdict::Intact, "{report}");
    chains[&0].clone()
}

fn files(world: &World) -> Vec<u32> {
    let names = world.disk.snapshot().into_keys();
    names.filter_map(|name| name.strip_prefix("audit-000-")?.strip_suffix(".jsonl")?.parse().ok()).collect()
}

#[test]
fn the_oldest_segments_go_after_a_durable_prune_record() {
    let mut world = World::new(1);
    let mut node = world.opened(&keeping(3));
    world.disk.record_trace();
    fill(&mut world, &mut node, 6);
    assert_eq!(files(&world), [5, 6, 7]);
    let trace = world.disk.trace();
    for (at, _) in trace.iter().enumerate().filter(|(_, line)| line.contains("Remove")) {
        let before = trace[..at].iter().rev().find(|line| !line.contains("Remove") && !line.contains("Stat"));
        assert!(before.is_some_and(|line| line.contains("SyncData audit-000-")), "{before:?}");
    }
    let removed = trace.iter().rposition(|line| line.contains("Remove")).unwrap();
    assert!(trace[removed + 1].contains("SyncDir ."), "until then a power cut brings them back");
    node.close(&mut world);
    let chain = checked(&world);
    assert!(chain.pruned > 0 && !chain.of_kind(RecordKind::Prune).is_empty());
    // What was pruned is known to the next run too.
    let mut node = world.opened(&keeping(1));
    fill(&mut world, &mut node, 1);
    node.close(&mut world);
    assert_eq!(files(&world), [8]);
    checked(&world);
}

#[test]
fn a_hold_and_the_least_age_keep_everything() {
    let mut world = World::new(1);
    world.disk.replace("hold", b"");
    let mut node = world.opened(&keeping(1));
    fill(&mut world, &mut node, 3);
    assert_eq!(files(&world), [1, 2, 3, 4]);
    world.disk.remove_behind_back("hold");
    node.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [4]);
    node.close(&mut world);
    checked(&world);

    let mut world = World::new(1);
    let aged = Retention::keep_all().max_segments(1).min_age(Duration::from_secs(1000));
    let mut node = world.opened(&Settings::default().retention(aged));
    fill(&mut world, &mut node, 3);
    assert_eq!(files(&world).len(), 4);
    node.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [4]);
}

#[test]
fn a_removed_file_that_comes_back_is_removed_again() {
    let mut world = World::new(1);
    let mut node = world.opened(&keeping(3));
    fill(&mut world, &mut node, 3);
    let old: Vec<(String, Vec<u8>)> =
        world.disk.snapshot().into_iter().filter(|(name, _)| name.starts_with("audit")).collect();
    fill(&mut world, &mut node, 5);
    node.close(&mut world);
    for chosen in 1..1_u32 << old.len() {
        let mut again = World::on(crate::storage::sim::SimDisk::with_files(1, &world.disk.snapshot()));
        again.now = world.now;
        for (index, (name, bytes)) in old.iter().enumerate() {
            if chosen >> index & 1 == 1 {
                again.disk.replace(name, bytes);
            }
        }
        let before = files(&again);
        let mut node = again.opened(&keeping(3));
        node.run_for(&mut again, SECOND);
        node.close(&mut again);
        let after = files(&again);
        assert!(before.len() > after.len() && after == [7, 8, 9], "{before:?} {after:?}");
        checked(&again);
    }
}

/// Files from before the first record stayed for ever: nothing that counts stands behind them.
#[test]
fn what_was_begun_in_vain_goes_after_the_first_segment() {
    let mut world = World::new(1);
    world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on("audit-000-"));
    assert!(world.open(&keeping(2)).is_err());
    world.disk.clear_faults();
    let mut node = world.opened(&keeping(2));
    let begun = files(&world);
    fill(&mut world, &mut node, 4);
    node.close(&mut world);
    assert!(begun.len() > 1 && files(&world).len() == 2, "{begun:?} {:?}", files(&world));
    checked(&world);
}

#[test]
fn files_that_count_nothing_do_not_keep_old_segments_for_ever() {
    let mut world = World::new(1);
    let mut node = world.opened(&keeping(2));
    for _ in 0..4 {
        world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on("audit-000-"));
        fill(&mut world, &mut node, 2);
        node.run_for(&mut world, 5 * SECOND);
    }
    node.run_for(&mut world, Duration::from_secs(3700));
    assert!(files(&world).len() <= 4, "{:?}", files(&world));
    node.close(&mut world);
    checked(&world);
}

#[test]
fn the_segments_of_chains_that_nobody_holds_are_removed_too() {
    let mut world = World::new(1);
    let (mut one, mut two) = (world.opened(&Settings::default()), world.opened(&Settings::default()));
    for node in [&mut one, &mut two] {
        fill(&mut world, node, 3);
        node.close(&mut world);
    }
    let mut node = world.opened(&keeping(2));
    node.run_for(&mut world, Duration::from_secs(3 * 3600));
    node.close(&mut world);
    let chains = oracle::check(&world, Strictness::Once).unwrap();
    assert_eq!((chains[&0].segments.len(), chains[&1].segments.len()), (2, 2));
    assert!(
        chains[&1].kinds().ends_with("close prune close"),
        "once, not every hour: {}",
        chains[&1].kinds()
    );
    assert_eq!(oracle::verify(&world).unwrap().0, Verdict::Intact);
}

#[test]
fn after_a_clock_that_jumped_ahead_nothing_is_removed_for_a_day() {
    let mut world = World::new(1);
    let aged = Settings::default().retention(Retention::keep_all().max_age(Duration::from_secs(7 * 86_400)));
    let mut node = world.opened(&aged);
    fill(&mut world, &mut node, 2);
    world.step_wall_clock(Duration::from_secs(30 * 86_400));
    node.routine(&mut world);
    node.run_for(&mut world, Duration::from_secs(20 * 3600));
    assert_eq!(files(&world).len(), 3);
    node.run_for(&mut world, Duration::from_secs(6 * 3600));
    assert_eq!(files(&world).len(), 1);
    node.close(&mut world);
    let chain = checked(&world);
    assert!(chain.of_kind(RecordKind::Notice)[0].text.contains("clock_step"));
}

#[test]
fn nothing_goes_when_the_prune_record_is_not_durable() {
    for op in [Op::Append, Op::SyncData] {
        for seed in 0..20 {
            let mut world = World::new(seed);
            let mut node = world.opened(&Settings::default());
            fill(&mut world, &mut node, 3);
            node.close(&mut world);
            let mut node = world.opened(&keeping(1));
            // The open record is the first, the prune record the next.
            world
                .disk
                .inject(Fault::error(&[op], Errno::IO).on("audit-000-").nth(1 + Prng::new(seed).next() % 3));
            world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-000-").and_later());
            node.pump(&mut world);
            let failed = node.is_failing();
            assert_eq!(failed, files(&world).len() == 4, "{:?}", files(&world));
            world.disk.clear_faults();
            node.run_for(&mut world, Duration::from_secs(3700));
            node.close(&mut world);
            checked(&world);
        }
    }
}

/// The `prune` record of the log's own chain failed, and the pass over the other chains that followed
/// forgot it: the writer had no segment and knew of no failure, so it never tried for another.
#[test]
fn a_prune_record_that_fails_does_not_leave_the_writer_without_a_segment() {
    let mut world = World::new(1);
    let settings = Settings::default()
        .rotation(Rotation::never().max_bytes(1500))
        .retention(Retention::keep_all().max_segments(2));
    let keep_all = settings.clone().retention(Retention::keep_all());
    let mut second = {
        let _first = world.opened(&keep_all);
        world.opened(&keep_all)
    };
    for _ in 0..20 {
        second.critical(&mut world);
        second.run_for(&mut world, SECOND);
    }
    second.close(&mut world);
    let mut node = world.opened(&keep_all);
    for _ in 0..20 {
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
    }
    node.close(&mut world);
    let mut node = world.opened(&settings);
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000"));
    node.run_for(&mut world, SECOND);
    node.critical(&mut world);
    node.run_for(&mut world, 5 * SECOND);
    assert!(!node.is_failing() && node.queue.not_durable() == 0);
    node.close(&mut world);
}

/// Its last run did not end in order: it is recovered by an opener, not by retention.
#[test]
fn a_free_chain_that_was_not_closed_is_not_shortened() {
    let mut world = World::new(1);
    let settings = Settings::default().retention(Retention::keep_all().max_segments(1));
    let mut node = world.opened(&settings);
    let mut other = world.opened(&Settings::default());
    for _ in 0..4 {
        other.critical(&mut world);
        other.queue.ask_rotation();
        other.run_for(&mut world, SECOND);
    }
    other.process.kill();
    let of_other = |world: &World| {
        let files = world.disk.snapshot();
        files.into_iter().filter(|(name, _)| name.starts_with("audit-001-")).collect::<Vec<_>>()
    };
    let before = of_other(&world);
    assert_eq!(before.len(), 5);
    for _ in 0..3 {
        node.critical(&mut world);
        node.queue.ask_rotation();
        node.run_for(&mut world, SECOND);
    }
    assert_eq!(of_other(&world), before);
    assert!(world.disk.snapshot().keys().filter(|name| name.starts_with("audit-000-")).count() < 3);
}
