//! A disk that is full, or fails for a long time.

use std::{task::Waker, time::Duration};

use super::{
    oracle::{self, Strictness},
    trouble::{FIRST, LOCK, begun, durable, ended_well, entry},
    world::{MS, SECOND, Settings, World},
};
use crate::{
    Severity,
    format::RecordKind,
    queue::Stage,
    storage::sim::{Errno, Fault, Op},
};

#[test]
fn a_full_disk_only_ends_the_segment() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::batched(100, 10 * SECOND));
    for _ in 0..3 {
        node.routine(&mut world);
    }
    node.run_for(&mut world, 20 * MS);
    let syncs = world.disk.count(Op::SyncData);
    world.disk.set_free_bytes(700);
    for _ in 0..10 {
        node.routine(&mut world);
    }
    node.run_for(&mut world, 20 * MS);
    // The whole lines that fitted are synced and acknowledged. The rest is held.
    assert!(node.is_failing() && world.disk.count(Op::SyncData) == syncs + 1);
    let acknowledged = durable(&node);
    assert!(acknowledged > 3 && acknowledged < 13, "{acknowledged}");
    assert_eq!(entry(&world), "clean");
    node.run_for(&mut world, 30 * SECOND);
    assert_eq!(durable(&node), acknowledged);
    // One empty file waits for room, instead of one for each attempt.
    let names: Vec<String> =
        world.disk.snapshot().into_keys().filter(|name| name.starts_with("audit")).collect();
    assert_eq!(names, [FIRST, "audit-000-00000002.jsonl"]);
    world.disk.set_capacity(None);
    node.run_for(&mut world, 3 * SECOND);
    assert!(!node.is_failing() && durable(&node) == 13);
    let chain = ended_well(&mut world, &mut node);
    assert_eq!(chain.segments, [1, 2]);
}

#[test]
fn a_disk_that_is_filled_and_freed_a_hundred_times_keeps_the_count() {
    let mut world = World::new(1);
    let mut settings = Settings::default();
    settings.queue.bytes = 6000;
    let mut node = world.opened(&settings);
    for round in 0..100 {
        world.disk.set_free_bytes(200 + round * 10);
        for _ in 0..15 {
            node.emit(&mut world, Severity::Routine, 100);
            node.emit(&mut world, Severity::Critical, 100);
        }
        node.run_for(&mut world, 300 * MS);
        assert!(node.is_failing());
        world.disk.set_capacity(None);
        node.run_for(&mut world, 3 * SECOND);
        assert!(!node.is_failing() && node.queue.not_durable() == 0);
    }
    let chain = ended_well(&mut world, &mut node);
    assert!(chain.of_kind(RecordKind::Gap).len() >= 100);
}

#[test]
fn crash_looping_on_a_full_disk_uses_one_empty_file() {
    let mut world = World::new(1);
    begun(&mut world).process.kill();
    world.disk.append_foreign(FIRST, b"torn");
    world.disk.set_free_bytes(0);
    for _ in 0..20 {
        world.open(&Settings::default()).unwrap_err();
    }
    assert_eq!(world.disk.snapshot().keys().filter(|name| name.starts_with("audit")).count(), 2);
    world.disk.set_capacity(None);
    let mut node = world.opened(&Settings::default());
    let chain = ended_well(&mut world, &mut node);
    assert_eq!(chain.segments, [1, 2]);
}

#[test]
fn a_rotation_that_cannot_create_a_file_keeps_the_old_segment_in_use() {
    for (op, errno) in [(Op::Create, Errno::MFILE), (Op::Create, Errno::NOSPC), (Op::Append, Errno::NOSPC)] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        world.disk.inject(Fault::error(&[op], errno).on("audit-000-00000002").and_later());
        for _ in 0..5 {
            let number = node.queue.ask_rotation();
            node.run_for(&mut world, 20 * MS);
            assert!(node.queue.poll_rotated(number, Waker::noop()).is_pending(), "not done, and tried again");
            node.critical(&mut world);
            node.run_for(&mut world, SECOND);
            assert!(!node.is_failing() && node.queue.not_durable() == 0, "{op:?} {errno}");
        }
        world.disk.clear_faults();
        let number = node.queue.ask_rotation();
        node.critical(&mut world);
        node.run_for(&mut world, 2 * SECOND);
        assert!(node.queue.poll_rotated(number, Waker::noop()).is_ready());
        let chain = ended_well(&mut world, &mut node);
        assert_eq!(chain.segments, [1, 2], "{op:?} {errno}");
    }
}

#[test]
fn a_failing_log_heals_by_itself_with_growing_pauses() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&Op::SYNCS, Errno::IO).and_later());
    for _ in 0..4 {
        node.routine(&mut world);
        node.critical(&mut world);
        node.run_for(&mut world, 20 * MS);
    }
    assert!(node.is_failing());
    // Each attempt begins with the poison entry.
    let before = world.disk.count(Op::WriteAt);
    node.run_for(&mut world, Duration::from_secs(3600));
    let attempts = world.disk.count(Op::WriteAt) - before;
    // One attempt every 2 s, the longest pause.
    assert!((1700..2000).contains(&attempts), "{attempts}");
    // A disk that syncs nothing does not get a new file with each attempt.
    let files = world.disk.snapshot().keys().filter(|name| name.starts_with("audit")).count();
    assert!(files < 5, "{files}");
    world.disk.clear_faults();
    node.run_for(&mut world, 3 * SECOND);
    assert!(!node.is_failing() && node.queue.not_durable() == 0);
    ended_well(&mut world, &mut node);
}

#[test]
fn files_that_fail_one_after_the_other_never_make_a_line_too_long() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on("audit-").and_later());
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-"));
    node.critical(&mut world);
    node.run_for(&mut world, Duration::from_secs(30_000));
    let files = |world: &World| world.disk.snapshot().keys().filter(|name| name.starts_with("audit")).count();
    // A hundred attempts at most 2 s apart, then one each minute.
    assert!((500..600).contains(&files(&world)), "{}", files(&world));
    // From here on, one each hour, until the limit of files is reached.
    node.run_for(&mut world, Duration::from_secs(600 * 3600));
    assert!((900..1100).contains(&files(&world)), "{}", files(&world));
    world.disk.clear_faults();
    node.process.kill();
    drop(node);
    let mut node = world.opened(&Settings::default());
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    node.close(&mut world);
    oracle::check(&world, Strictness::Once).unwrap();
    oracle::verify(&world).unwrap();
}

#[test]
fn a_directory_that_cannot_be_synced_does_not_fill_with_files() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncDir], Errno::IO).and_later());
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-"));
    node.critical(&mut world);
    node.run_for(&mut world, Duration::from_secs(10_000));
    assert!(node.is_failing());
    let files = world.disk.snapshot().keys().filter(|name| name.starts_with("audit")).count();
    assert_eq!(files, 2);
    world.disk.clear_faults();
    node.run_for(&mut world, 3 * SECOND);
    assert!(!node.is_failing());
    ended_well(&mut world, &mut node);
}

#[test]
fn a_new_segment_waits_for_room_that_the_sync_refused() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.set_free_bytes(20_000);
    world.disk.inject(Fault::error(&Op::SYNCS, Errno::NOSPC).on("audit-").and_later());
    node.critical(&mut world);
    node.run_for(&mut world, Duration::from_secs(10_000));
    assert!(node.is_failing());
    let files = world.disk.snapshot().keys().filter(|name| name.starts_with("audit")).count();
    assert_eq!(files, 3, "the old one, one that failed, and an empty one");
    world.disk.clear_faults();
    world.disk.set_capacity(None);
    node.run_for(&mut world, 3 * SECOND);
    assert!(!node.is_failing());
    ended_well(&mut world, &mut node);
}

#[test]
fn why_a_segment_ended_is_recorded_only_in_its_own_chain() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000-00000001"));
    world.disk.inject(Fault::error(&[Op::Append], Errno::IO).on("audit-000-00000002"));
    node.critical(&mut world);
    node.pump(&mut world);
    assert!(node.is_failing() && world.disk.remove_behind_back(LOCK));
    node.run_for(&mut world, 3 * SECOND);
    assert!(!node.is_failing());
    node.close(&mut world);
    let chains = oracle::check(&world, Strictness::OnceOrTwice).unwrap();
    assert_eq!(chains[&1].numbers(), [3]);
    assert_eq!(chains[&1].of_kind(RecordKind::Recovery).len(), 0, "{}", chains[&1].kinds());
}

#[test]
fn a_close_ends_however_long_the_disk_refuses() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&Op::WRITES, Errno::ROFS).and_later());
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    node.queue.end(Stage::Closing);
    node.run_for(&mut world, 10 * SECOND);
    assert_eq!(node.queue.stage(), Stage::Closing);
    world.disk.clear_faults();
    let chain = ended_well(&mut world, &mut node);
    assert!(chain.kinds().ends_with("event close"), "{}", chain.kinds());
}
