//! What ends a log whose disk keeps it from closing.

use super::world::{MS, SECOND, Settings, World};
use crate::{
    queue::{Pause, Stage},
    storage::sim::{Errno, Fault, Op, SyncFailure},
    writer::Next,
};

/// A seeded run found a writer that never paused. Each new segment could be begun, and the sync
/// after it failed, as on a file system that reports a failed sync one sync late. `close` was then
/// written to one new file after the other, even after no caller waited any more.
#[test]
fn a_close_that_always_fails_is_given_up_and_leaves_few_files() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    node.routine(&mut world);
    node.run_for(&mut world, SECOND * 2);
    world.disk.set_sync_failure(SyncFailure::Ext4Data);
    // The first sync of every new file seems to succeed, and the next one reports its failure.
    world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).and_later());
    node.queue.ask_rotation();
    node.pump(&mut world);
    node.queue.end(Stage::Closing);
    for _ in 0..10 {
        let Next::Pause(pause, until) = node.pump(&mut world) else { panic!("closed") };
        assert_eq!(pause, Pause::Backoff);
        let rest = until.saturating_sub(world.now.elapsed);
        world.advance(rest + MS);
    }
    let files = world.disk.snapshot().keys().filter(|name| name.starts_with("audit-")).count();
    assert!(files < 20, "{files}");
    node.queue.end(Stage::Abandoned);
    assert_eq!(node.pump(&mut world), Next::Ended);
    assert!(!world.producers[0].closed);
    drop(node);
    world.disk.clear_faults();
    world.disk.power_cut();
    let mut again = world.opened(&Settings::default());
    again.close(&mut world);
}

/// An empty file behind `close` looks like one that was emptied.
#[test]
fn a_disk_that_is_full_for_a_moment_does_not_leave_an_empty_file_behind_close() {
    for failures in 0..3 {
        let mut world = World::new(1);
        let mut node = world.opened(&Settings::default());
        node.critical(&mut world);
        node.run_for(&mut world, SECOND * 2);
        // The first failure is that of the rotation, which leaves the file behind.
        for _ in 0..=failures {
            world.disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).on("audit-000-00000002"));
        }
        node.queue.ask_rotation();
        node.pump(&mut world);
        assert_eq!(world.disk.contents("audit-000-00000002.jsonl"), Some(Vec::new()), "{failures}");
        node.queue.end(Stage::Closing);
        node.run_for(&mut world, SECOND);
        assert!(world.producers[0].closed, "{failures}");
        drop(node);
        let report = crate::Verifier::new("/log").run_on(&*world.disk.process().storage()).unwrap();
        assert_eq!(report.verdict(), crate::Verdict::Intact, "{failures}: {report}");
    }
}

#[test]
fn a_disk_that_stays_full_does_not_keep_a_log_open() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    node.critical(&mut world);
    node.run_for(&mut world, SECOND * 2);
    world.disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).on("audit-000-00000002").and_later());
    node.queue.ask_rotation();
    node.pump(&mut world);
    node.queue.end(Stage::Closing);
    node.run_for(&mut world, SECOND * 2);
    assert!(world.producers[0].closed);
    drop(node);
    world.disk.clear_faults();
    world.opened(&Settings::default()).close(&mut world);
    let report = crate::Verifier::new("/log").run_on(&*world.disk.process().storage()).unwrap();
    assert_eq!(report.verdict(), crate::Verdict::Intact, "{report}");
}
