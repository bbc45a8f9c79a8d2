//! What a program does to its own log while it is open, and what the system does not report to it.

use super::{
    oracle::{self, Strictness},
    trouble::{FIRST, LOCK, begun, ended_well},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    Error, Rotation, Verdict,
    format::RecordKind,
    stats::NoticeKind,
    storage::sim::{Errno, Fault, Op},
};

fn reported(node: &Node, kind: NoticeKind) -> u64 {
    let counts = node.queue.notifier.counts();
    counts.iter().find(|reported| reported.kind == kind).map_or(0, |reported| reported.count)
}

/// Once, a notice was sent every second while the log was reported as healthy.
#[test]
fn a_failing_rotation_is_reported_once_and_degrades_the_log_until_one_succeeds() {
    for asked in [false, true] {
        let mut world = World::new(1);
        let size = if asked { u64::MAX } else { 2500 };
        let mut node = world.opened(&Settings::default().rotation(Rotation::never().max_bytes(size)));
        world.disk.inject(Fault::error(&[Op::Create], Errno::ACCESS).on("audit-000-").and_later());
        if asked {
            node.queue.ask_rotation();
        }
        for _ in 0..20 {
            node.critical(&mut world);
            node.emit(&mut world, crate::Severity::Critical, 200);
            node.run_for(&mut world, SECOND / 2);
            assert_eq!(node.queue.not_durable(), 0, "the old segment stays in use");
        }
        // The head must be noted meanwhile: a failure of that would degrade the log as well.
        assert!(node.queue.gauges.is_degraded() && !node.is_failing());
        assert_eq!(reported(&node, NoticeKind::SegmentFailed), 1);
        world.disk.clear_faults();
        node.critical(&mut world);
        node.run_for(&mut world, 2 * SECOND);
        assert!(!node.queue.gauges.is_degraded());
        // A later failure is a new one.
        world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-000-").and_later());
        node.queue.ask_rotation();
        node.run_for(&mut world, 3 * SECOND);
        assert_eq!(reported(&node, NoticeKind::SegmentFailed), 2);
        world.disk.clear_faults();
        let chain = ended_well(&mut world, &mut node);
        let notices = chain.of_kind(RecordKind::Notice);
        assert_eq!(notices.len(), 2);
        assert!(notices[0].text.contains("cannot create"), "{}", notices[0].text);
        assert!(notices[0].text.contains("the old segment stays in use"), "{}", notices[0].text);
    }
}

/// Daemons do this when they start. The lock was released with the descriptors, so another writer
/// may have the chain.
#[test]
fn a_program_that_closes_its_descriptors_continues_in_another_chain_without_loss() {
    for (exclusive, another) in [(false, false), (false, true), (true, false)] {
        for unsynced in [false, true] {
            let mut world = World::new(1);
            let settings = Settings::batched(100, 500 * MS);
            let settings = if exclusive { settings.exclusive() } else { settings };
            let mut node = world.opened(&settings);
            node.routine(&mut world);
            node.run_for(&mut world, SECOND);
            if unsynced {
                node.routine(&mut world);
                node.run_for(&mut world, 20 * MS);
            }
            node.process.close_descriptors();
            let other = another.then(|| world.opened(&Settings::default()));
            if let Some(other) = &other {
                assert_eq!(other.queue.gauges.head().unwrap().chain(), 0, "nothing keeps others out");
            }
            node.routine(&mut world);
            node.run_for(&mut world, 2 * SECOND);
            assert!(!node.is_failing() && node.queue.not_durable() == 0, "{exclusive} {another} {unsynced}");
            assert_eq!(node.queue.gauges.head().unwrap().chain(), u16::from(!exclusive));
            assert_eq!(reported(&node, NoticeKind::LockReplaced), 1);
            for mut open in std::iter::once(node).chain(other) {
                open.critical(&mut world);
                open.run_for(&mut world, SECOND);
                open.close(&mut world);
            }
            // The chain that was left is recovered.
            world.opened(&Settings::default()).close(&mut world);
            oracle::check(&world, Strictness::OnceOrTwice).unwrap();
            assert_eq!(oracle::verify(&world).unwrap().0, Verdict::Intact);
        }
    }
}

#[test]
fn a_program_that_closes_a_descriptor_continues_in_its_chain() {
    for op in [Op::Append, Op::SyncData] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        // As if the descriptor were closed: even its state cannot be read.
        world.disk.inject(Fault::error(&[op, Op::Stat], Errno::BADF).on(FIRST).and_later());
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        assert!(!node.is_failing() && node.queue.not_durable() == 0);
        assert_eq!(reported(&node, NoticeKind::SegmentTampered), 1);
        assert!(node.queue.gauges.tampered.get());
        let lock = String::from_utf8(world.disk.contents(LOCK).unwrap()).unwrap();
        assert!(lock.starts_with("clean"), "nothing is wrong with what was written: {lock}");
        world.disk.clear_faults();
        let chain = ended_well(&mut world, &mut node);
        assert_eq!((chain.segments.as_slice(), chain.numbers().as_slice()), (&[1, 2][..], &[1, 2, 3][..]));
    }
}

/// `EBADF` was once taken for a closed descriptor, so the file was trusted after a failed sync.
#[test]
fn a_file_system_that_calls_an_open_file_closed_has_failed_like_any_other() {
    for op in [Op::Append, Op::SyncData] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        world.disk.inject(Fault::error(&[op], Errno::BADF).on(FIRST));
        // Keeps the entry from being cleared.
        world.disk.inject(Fault::error(&[Op::Create], Errno::ACCESS).on("audit-000-").and_later());
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        let lock = String::from_utf8(world.disk.contents(LOCK).unwrap()).unwrap();
        assert!(lock.starts_with("poison"), "{op:?}: {lock}");
        assert!(node.is_failing() && !node.queue.gauges.tampered.get());
        world.disk.clear_faults();
        let chain = ended_well(&mut world, &mut node);
        assert_eq!(chain.numbers().as_slice(), [1, 2, 3]);
    }
}

/// The message once promised a retry after a restart even where no restart can be detected.
#[test]
fn an_unsynced_chain_is_reported_with_its_next_attempt_and_a_remedy() {
    for has_boot_id in [true, false] {
        let mut world = World::new(1);
        if !has_boot_id {
            world.disk.hide_boot_id();
        }
        let node = begun(&mut world);
        node.process.kill();
        drop(node);
        world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on(FIRST));
        for time in ["at once", "later"] {
            let message = match world.open(&Settings::default().exclusive()).unwrap_err() {
                Error::NoChain { reason, .. } => reason.to_string(),
                error => panic!("{error}"),
            };
            assert!(message.contains("could not be synced"), "{time}: {message}");
            // What to do by hand, and when that is safe.
            let by_hand =
                "restart the machine, then remove /simulated/audit-log/control/chain-000.lock while no";
            assert!(message.contains(by_hand), "{time}: {message}");
            assert_eq!(
                message.contains("it is tried again under another boot id"),
                has_boot_id,
                "{time}: {message}"
            );
            assert_eq!(message.contains("restarting a container does not"), has_boot_id, "{time}: {message}");
        }
        // The promise holds.
        world.disk.power_cut();
        let is_tried_again = world.open(&Settings::default().exclusive()).is_ok();
        assert_eq!(is_tried_again, has_boot_id);
        if !has_boot_id {
            assert!(world.disk.remove_behind_back(LOCK));
            let mut node = world.opened(&Settings::default().exclusive());
            node.critical(&mut world);
            let chain = ended_well(&mut world, &mut node);
            assert_eq!(chain.numbers(), [1, 2, 3]);
            let notices: Vec<_> = chain.of_kind(RecordKind::Notice);
            let is_reported = |line: &&oracle::Line| line.text.contains("\"code\":\"boot_id_missing\"");
            assert_eq!(notices.into_iter().filter(is_reported).count(), 2, "once at each open");
        }
    }
}
