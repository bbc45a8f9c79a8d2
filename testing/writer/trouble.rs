//! One fault at a time, and the guarantees that must survive it.

use std::time::Duration;

use super::{
    oracle::{self, Chain, Strictness, check_counts, read_log},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    Error, FlushMode, Verdict,
    format::RecordKind,
    storage::sim::{Applied, Errno, Fault, Op},
};

pub(super) const FIRST: &str = "audit-000-00000001.jsonl";
pub(super) const LOCK: &str = "control/chain-000.lock";

/// Creates a log with two durable events.
pub(super) fn begun(world: &mut World) -> Node {
    begun_with(world, &Settings::default())
}

fn begun_with(world: &mut World, settings: &Settings) -> Node {
    let mut node = world.opened(settings);
    node.critical(world);
    node.critical(world);
    node.run_for(world, SECOND);
    assert_eq!(node.queue.not_durable(), 0);
    node
}

/// Closes and checks the log. Every event that was emitted must be there.
#[track_caller]
pub(super) fn ended_well(world: &mut World, node: &mut Node) -> Chain {
    node.close(world);
    let chains = oracle::check(world, Strictness::Once).unwrap();
    check_counts(world, &chains).unwrap();
    let (verdict, report) = oracle::verify(world).unwrap();
    assert_eq!(verdict, Verdict::Intact, "{report}");
    chains[&0].clone()
}

pub(super) fn entry(world: &World) -> String {
    let lock = world.disk.contents(LOCK).unwrap();
    String::from_utf8(lock[..512].to_vec()).unwrap().trim_end().to_owned()
}

pub(super) fn durable(node: &Node) -> u64 {
    node.queue.accepted() - node.queue.not_durable()
}

#[test]
fn a_failed_sync_is_poison_until_a_new_segment_is_durable() {
    for op in [Op::SyncData, Op::Append] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        world.disk.record_trace();
        world.disk.inject(Fault::error(&[op], Errno::IO).on("audit-000-00000001"));
        node.routine(&mut world);
        node.critical(&mut world);
        node.pump(&mut world);
        assert_eq!(durable(&node), 4, "healed at once");
        let trace: Vec<String> =
            world.disk.trace().iter().map(|line| line.trim_start_matches("p0 ").to_owned()).collect();
        let at = |what: &str| {
            trace.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what}: {trace:?}"))
        };
        let refused = trace.iter().position(|line| line.contains("Input/output")).unwrap();
        let order = [
            at("WriteAt control/chain-000.lock"),
            at("SyncData control/chain-000.lock"),
            at("Create audit-000-00000002.jsonl"),
            at("Append audit-000-00000002.jsonl"),
            at("SyncAll audit-000-00000002.jsonl"),
            at("SyncDir ."),
        ];
        assert!(refused < order[0] && order.is_sorted(), "{trace:?}");
        let cleared = trace.iter().rposition(|line| line == "SyncData control/chain-000.lock").unwrap();
        assert!(cleared > order[5], "cleared after the new segment is durable");
        // The old segment is not touched again.
        let later = &trace[refused + 1..];
        // Its state may be read, but it must be neither written nor synced.
        let touches = |line: &&String| line.ends_with("00000001.jsonl") && !line.starts_with("Stat");
        assert!(!later.iter().any(|line| touches(&line)), "{later:?}");
        assert_eq!(entry(&world), "clean");
        let chain = ended_well(&mut world, &mut node);
        assert_eq!(chain.segments, [1, 2]);
        assert_eq!(chain.of_kind(RecordKind::Recovery).len(), 1);
    }
}

#[test]
fn nothing_is_acknowledged_while_the_poison_entry_cannot_be_cleared() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000-00000001"));
    // The first write marks the chain as poisoned, the second would clear it.
    world.disk.inject(Fault::error(&[Op::WriteAt], Errno::IO).on(LOCK).nth(2).and_later());
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    assert!(node.is_failing() && durable(&node) == 2);
    world.disk.clear_faults();
    node.run_for(&mut world, 3 * SECOND);
    assert!(!node.is_failing() && durable(&node) == 3);
    ended_well(&mut world, &mut node);
}

#[test]
fn a_poisoned_chain_continues_after_its_last_durable_record_under_the_same_boot() {
    for reboot in [false, true] {
        let mut world = World::new(3);
        let mut node = begun(&mut world);
        world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000-"));
        world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-000-").and_later());
        node.critical(&mut world);
        node.pump(&mut world);
        assert!(node.is_failing() && entry(&world).starts_with("poison "));
        let boot = world.disk.process().storage().boot_id();
        assert!(entry(&world).contains(&boot));
        node.process.kill();
        world.disk.clear_faults();
        if reboot {
            world.disk.power_cut();
        } else {
            world.disk.record_trace();
        }
        let mut next = world.opened(&Settings::default());
        assert!(!next.found.is_empty() && next.found.iter().all(|found| !found.damaged));
        let synced = |line: &String| line.contains("Sync") && line.contains(FIRST);
        assert!(
            reboot || !world.disk.trace().iter().any(synced),
            "another sync could succeed without the bytes"
        );
        next.critical(&mut world);
        next.run_for(&mut world, SECOND);
        assert_eq!(entry(&world).starts_with("clean"), !reboot, "a new segment clears the entry");
        let chain = ended_well_but_lost(&mut world, &mut next);
        assert_eq!(chain.numbers(), [1, 2, 4], "3 was never acknowledged");
        let began_anew = chain.lines.iter().find(|line| line.segment > 1);
        assert!(
            began_anew.is_none_or(|line| line.text.matches("{\"segment\":1,").count() == 1),
            "{began_anew:?}"
        );
    }
}

#[track_caller]
fn ended_well_but_lost(world: &mut World, node: &mut Node) -> Chain {
    node.close(world);
    let chains = oracle::check(world, Strictness::Once).unwrap();
    let (verdict, report) = oracle::verify(world).unwrap();
    assert_eq!(verdict, Verdict::Intact, "{report}");
    chains[&0].clone()
}

#[test]
fn a_failed_sync_at_the_first_record_of_an_open_is_not_forgotten() {
    let mut world = World::new(3);
    begun(&mut world).close(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000-"));
    world.open(&Settings::default()).unwrap_err();
    assert!(entry(&world).starts_with("poison "));
    let mut node = world.opened(&Settings::default());
    world.disk.power_cut();
    node.writer = None;
    let mut node = world.opened(&Settings::default());
    assert!(node.found.iter().all(|found| !found.damaged), "{:?}", node.found);
    ended_well(&mut world, &mut node);
}

/// Changes the live segment behind the writer's back while an event is written and not acknowledged.
fn tampered(what: impl Fn(&World), verdict: Verdict) {
    let mut world = World::new(1);
    let mut node = begun_with(&mut world, &Settings::batched(100, 500 * MS));
    node.run_for(&mut world, SECOND);
    node.routine(&mut world);
    node.run_for(&mut world, 20 * MS);
    // Between two writes: the next write or sync must detect it.
    what(&world);
    node.routine(&mut world);
    node.run_for(&mut world, SECOND);
    assert!(!node.is_failing() && node.queue.not_durable() == 0);
    node.close(&mut world);
    let report = crate::Verifier::new("/log").run_on(&*world.disk.process().storage()).unwrap();
    assert_eq!(report.verdict(), verdict, "{report}");
    let files = world.disk.snapshot();
    let newest = String::from_utf8(files["audit-000-00000002.jsonl"].clone()).unwrap();
    for wanted in ["\"n\":3,", "\"n\":4,", "\"code\":\"segment_tampered\"", "\"cause\":\"replaced\""] {
        assert!(newest.contains(wanted), "{wanted}: {newest}");
    }
}

#[test]
fn a_live_segment_that_somebody_changes_is_left_for_a_new_one() {
    tampered(|world| assert!(world.disk.remove_behind_back(FIRST)), Verdict::Damaged);
    tampered(|world| world.disk.replace(FIRST, b"something else\n"), Verdict::Damaged);
    // Moved away, as by a clean-up: the open file does not show it.
    let rename = |world: &World| world.disk.hard_link(FIRST, "old") && world.disk.remove_behind_back(FIRST);
    tampered(|world| assert!(rename(world)), Verdict::Damaged);
    // And another file put in its place.
    let rotated = |world: &World| {
        world.disk.hard_link(FIRST, "old") && world.disk.remove_behind_back(FIRST) && {
            world.disk.replace(FIRST, b"something else\n");
            true
        }
    };
    tampered(|world| assert!(rotated(world)), Verdict::Damaged);
    tampered(|world| assert!(world.disk.hard_link(FIRST, "a second name")), Verdict::Intact);
    tampered(|world| assert!(world.disk.truncate(FIRST, 100)), Verdict::Damaged);
    tampered(|world| assert!(world.disk.append_foreign(FIRST, b"foreign\n")), Verdict::Intact);
}

#[test]
fn tampering_with_a_new_segment_is_detected_before_anything_in_it_is_acknowledged() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.set_free_bytes(0);
    node.critical(&mut world);
    node.run_for(&mut world, 20 * MS);
    assert!(node.is_failing());
    // The empty file that waits for room is removed meanwhile.
    assert!(world.disk.remove_behind_back("audit-000-00000002.jsonl"));
    world.disk.set_capacity(None);
    node.run_for(&mut world, 5 * SECOND);
    assert_eq!(node.queue.not_durable(), 0);
    let chain = ended_well(&mut world, &mut node);
    assert_eq!(chain.segments, [1, 3]);
}

#[test]
fn a_chain_whose_lock_was_replaced_is_left_for_the_next_number() {
    for removed in [true, false] {
        let mut world = World::new(1);
        let mut node = begun_with(&mut world, &Settings::batched(100, 500 * MS));
        node.run_for(&mut world, SECOND);
        if removed {
            assert!(world.disk.remove_behind_back(LOCK));
        } else {
            world.disk.replace(LOCK, b"");
        }
        let mut other = world.opened(&Settings::default());
        assert_eq!(other.queue.gauges.head().unwrap().chain(), 0, "nothing keeps others out");
        node.routine(&mut world);
        node.run_for(&mut world, SECOND);
        assert_eq!((node.queue.gauges.head().unwrap().chain(), node.queue.not_durable()), (1, 0));
        other.critical(&mut world);
        other.run_for(&mut world, SECOND);
        node.close(&mut world);
        other.close(&mut world);
        let chains = oracle::check(&world, Strictness::OnceOrTwice).unwrap();
        assert!(
            chains[&1].of_kind(RecordKind::Notice)[0].text.contains("lock_replaced"),
            "{:?}",
            chains[&1].kinds()
        );
        assert_eq!(chains[&1].numbers(), [3]);
        oracle::verify(&world).unwrap();
    }
}

/// The poison entry once went to the lock file that was removed. The next holder of the new lock under the
/// same boot, possibly the same exclusive log, synced the segment successfully. It then acknowledged records
/// behind others that never reached the disk: after the next power cut they were gone.
#[test]
fn a_poisoned_segment_is_known_to_the_next_holder_of_a_replaced_lock() {
    for exclusive in [false, true] {
        for removed in [true, false] {
            for earlier in [true, false] {
                let mut world = World::new(1);
                let settings = Settings::default();
                let settings = if exclusive { settings.exclusive() } else { settings };
                let mut node = begun_with(&mut world, &settings);
                let lose_lock = |world: &World| {
                    if removed {
                        assert!(world.disk.remove_behind_back(LOCK));
                    } else {
                        world.disk.replace(LOCK, b"");
                    }
                };
                if earlier {
                    // The paths were checked a moment ago.
                    node.critical(&mut world);
                    node.pump(&mut world);
                    lose_lock(&world);
                } else {
                    // After the entry was written, while no new segment can be created.
                    world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-").and_later());
                }
                world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000-00000001"));
                node.critical(&mut world);
                node.pump(&mut world);
                if !earlier {
                    assert!(node.is_failing());
                    lose_lock(&world);
                    world.disk.clear_faults();
                }
                node.run_for(&mut world, 3 * SECOND);
                assert!(!node.is_failing() && node.queue.not_durable() == 0);
                let chain = node.queue.gauges.head().unwrap().chain();
                assert_eq!(chain, u16::from(!exclusive));
                let mut other = world.opened(&Settings::default());
                other.critical(&mut world);
                other.run_for(&mut world, SECOND);
                world.disk.power_cut();
                let mut last = world.opened(&Settings::default());
                assert!(last.found.iter().all(|found| !found.damaged), "{:?}", last.found);
                last.close(&mut world);
                oracle::check(&world, Strictness::OnceOrTwice).unwrap();
                oracle::verify(&world).unwrap();
            }
        }
    }
}

#[test]
fn a_directory_that_was_removed_or_moved_is_made_again_without_a_restart() {
    for mode in [FlushMode::Immediate, FlushMode::default()] {
        for (removed, exclusive) in [(true, false), (false, false), (true, true)] {
            for pause in [0, 200] {
                let mut world = World::new(1);
                let settings = Settings::with_mode(mode);
                let settings = if exclusive { settings.exclusive() } else { settings };
                let mut node = begun_with(&mut world, &settings);
                node.critical(&mut world);
                node.pump(&mut world);
                if removed {
                    world.disk.remove_directory();
                } else {
                    world.disk.move_directory_away();
                }
                world.advance(MS * pause);
                node.critical(&mut world);
                node.routine(&mut world);
                node.run_for(&mut world, 5 * SECOND);
                node.critical(&mut world);
                node.run_for(&mut world, 5 * SECOND);
                assert!(!node.is_failing() && node.queue.not_durable() == 0, "{removed} {exclusive} {pause}");
                node.close(&mut world);
                let chains = read_log(&world.disk.snapshot()).unwrap();
                let chain = &chains[&u16::from(!exclusive)];
                let numbers = chain.numbers();
                assert!(numbers.ends_with(&[6]) && (!removed || numbers == [4, 5, 6]), "{numbers:?}");
                // The new chain witnesses the one that is gone. An exclusive log has only one chain, so
                // nothing is left to compare with.
                let expected = if exclusive { Verdict::Intact } else { Verdict::Damaged };
                let report = crate::Verifier::new("/log").run_on(&*world.disk.process().storage()).unwrap();
                assert_eq!(report.verdict(), expected, "{report}");
                assert_eq!(report.count(crate::FindingKind::MissingChain), u64::from(!exclusive), "{report}");
            }
        }
    }
}

#[test]
fn a_segment_that_cannot_be_synced_at_open_decides_nothing_until_the_next_boot() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    node.routine(&mut world);
    node.run_for(&mut world, 20 * MS);
    node.process.kill();
    drop(node);
    world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on(FIRST));
    let before = world.disk.contents(FIRST);
    match world.open(&Settings::default().exclusive()).unwrap_err() {
        Error::NoChain { reason, .. } => {
            assert!(reason.to_string().contains("could not be synced"), "{reason}");
        }
        error => panic!("{error}"),
    }
    // Not tried again under the same boot: a second sync could succeed without the bytes.
    for _ in 0..2 {
        let mut node = world.opened(&Settings::default());
        assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
        assert!(node.found[0].left_alone && !node.found[0].damaged);
        node.close(&mut world);
    }
    assert_eq!(world.disk.contents(FIRST), before);
    assert!(entry(&world).starts_with("unsynced "));
    world.disk.power_cut();
    let mut node = world.opened(&Settings::default());
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 0);
    ended_well_but_lost(&mut world, &mut node);
}

#[test]
fn a_chain_that_ends_below_a_witnessed_head_is_left_alone() {
    let mut world = World::new(1);
    let mut one = begun(&mut world);
    let mut two = world.opened(&Settings::default());
    one.critical(&mut world);
    one.run_for(&mut world, SECOND);
    two.run_for(&mut world, Duration::from_secs(62));
    two.close(&mut world);
    one.close(&mut world);
    let whole = world.disk.contents(FIRST).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let cut = lines[..2].concat();
    assert!(world.disk.overwrite(FIRST, &cut));
    let node = world.opened(&Settings::default());
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
    assert!(node.found[0].left_alone && node.found[0].damaged, "{:?}", node.found);
    assert_eq!(world.disk.contents(FIRST).unwrap(), cut, "nothing is cut and nothing appended");
}

#[test]
fn damage_below_the_mark_stays_within_what_counts() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    for _ in 0..5 {
        node.critical(&mut world);
        node.run_for(&mut world, 20 * MS);
    }
    node.process.kill();
    drop(node);
    let bytes = world.disk.contents(FIRST).unwrap();
    let at = bytes.windows(7).position(|window| window == b"\"n\":2,\"").unwrap();
    assert!(world.disk.flip_bit(FIRST, at + 4, 0));
    let mut node = world.opened(&Settings::default());
    assert!(node.found[0].damaged && !node.found[0].left_alone);
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    node.close(&mut world);
    let second = String::from_utf8(world.disk.contents("audit-000-00000002.jsonl").unwrap()).unwrap();
    assert!(
        second.contains(&format!("\"after\":[{{\"segment\":1,\"bytes\":{},\"from\":", bytes.len())),
        "{second}"
    );
    assert!(second.contains(",\"damage\":true}],"), "{second}");
    assert!(second.contains("\"cause\":\"damage\""));
    let report = crate::Verifier::new("/log").run_on(&*world.disk.process().storage()).unwrap();
    assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
}

#[test]
fn other_chains_that_ended_without_close_are_recovered_and_closed() {
    let mut world = World::new(1);
    let mut nodes: Vec<Node> = (0..3).map(|_| begun(&mut world)).collect();
    for node in &nodes[1..] {
        node.process.kill();
    }
    nodes[0].close(&mut world);
    nodes.clear();
    let mut node = world.opened(&Settings::default());
    assert_eq!(node.found.iter().map(|found| found.chain).collect::<Vec<_>>(), [1, 2]);
    node.close(&mut world);
    let chains = oracle::check(&world, Strictness::Once).unwrap();
    for chain in [&chains[&1], &chains[&2]] {
        assert!(chain.kinds().ends_with("event event recovery close"), "{}", chain.kinds());
    }
    assert_eq!(oracle::verify(&world).unwrap().0, Verdict::Intact);
}

#[test]
fn the_open_record_precedes_the_recovery_record() {
    let mut world = World::new(1);
    begun(&mut world).process.kill();
    let mut node = world.opened(&Settings::default());
    let chain = ended_well(&mut world, &mut node);
    assert_eq!(chain.kinds(), "segment open event event open recovery notice close");
}

#[test]
fn a_close_that_fails_is_written_once() {
    for op in [Op::Append, Op::SyncData] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        world.disk.inject(Fault::error(&[op], Errno::IO).on(FIRST));
        let chain = ended_well(&mut world, &mut node);
        assert_eq!(chain.kinds(), "segment open event event segment recovery close");
        let close = chain.lines.last().unwrap();
        assert_eq!(close.durable, Some(close.seq - 1));
    }
}

/// The `recovery` record about a segment of a chain that was then left was written to the next chain. It
/// named a segment that this chain never had.
#[test]
fn a_crash_while_a_segment_begins_never_uses_its_number_twice() {
    // A kill at each call of a rotation.
    for nth in 1..12 {
        let mut world = World::new(nth);
        let mut node = begun(&mut world);
        node.process.kill_at(nth, Applied::Seeded);
        node.queue.ask_rotation();
        node.critical(&mut world);
        node.pump(&mut world);
        let is_dead = !node.process.is_alive();
        node.process.kill();
        drop(node);
        let mut node = world.opened(&Settings::default());
        let chain = ended_well_but_lost(&mut world, &mut node);
        assert!(
            chain.segments.is_sorted() && chain.segments.len() <= 3,
            "{nth} {is_dead} {:?}",
            chain.segments
        );
    }
}

#[test]
fn a_chain_whose_numbers_are_used_up_is_left_alone() {
    let mut chain = crate::format::SegmentInfo {
        id: crate::format::ChainId(1),
        chain: crate::segment_name::ChainNumber::FIRST,
        segment: 1,
        after: Vec::new(),
        chains: crate::format::Witnesses::new(),
        pruned: None,
    };
    let mut world = World::new(1);
    let mut bytes = Vec::new();
    let before = crate::chain::Digest::ZERO;
    chain.pruned = Some((u64::MAX - 1, before));
    crate::format::seal(&mut bytes, u64::MAX, &chain.payload(world.now.wall), Some(u64::MAX - 1), &before);
    world.disk.replace(FIRST, &bytes);
    let mut node = world.opened(&Settings::default());
    assert!(node.found[0].left_alone && node.queue.gauges.head().unwrap().chain() == 1);
    node.close(&mut world);
}

/// A seeded run found a false alarm. A power cut left an old line of the same file in the sector behind the
/// last durable record. Recovery took that line for the record itself, moved from its position.
#[test]
fn an_old_line_in_a_torn_tail_is_no_damage() {
    for (garbage, copied) in [(&b""[..], 2), (b"torn\n", 2), (b"torn\n", 4)] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        node.process.kill();
        drop(node);
        let bytes = world.disk.contents("audit-000-00000001.jsonl").unwrap();
        // A copy of an earlier line of the same file, right behind the last record or behind garbage.
        let line = bytes.split_inclusive(|byte| *byte == b'\n').nth(copied).unwrap();
        world.disk.append_foreign("audit-000-00000001.jsonl", &[garbage, line].concat());
        let mut again = world.opened(&Settings::default());
        assert!(again.found.iter().all(|found| !found.damaged), "{:?}", again.found);
        ended_well(&mut world, &mut again);
    }
}

/// Seeds 348,529 and 1,030,058: a process found that a segment had failed and could not write that to the
/// lock file. It released the chain all the same. The next opener's sync succeeded, and it trusted what it
/// read.
#[test]
fn a_poisoned_chain_is_not_released_while_its_entry_cannot_be_written() {
    for can_be_said in [false, true] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        let (process, chain) =
            (node.process.clone(), |node: &Node| node.queue.gauges.head().unwrap().chain());
        assert_eq!(chain(&node), 0);
        world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on("audit-000-"));
        world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).nth(1).and_later());
        if !can_be_said {
            world.disk.inject(Fault::error(&[Op::WriteAt], Errno::MFILE).on(LOCK).nth(1).and_later());
        }
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        assert!(node.is_failing());
        drop(node);
        assert_eq!(process.locks(), usize::from(!can_be_said));
        world.disk.clear_faults();
        let other = world.opened(&Settings::default());
        assert_eq!(chain(&other), u16::from(!can_be_said));
    }
}

/// Recovery had begun a segment and had no room to finish its first write, so its name was never synced. The
/// next failed sync of the directory was reported to another chain, and later syncs succeeded. The process
/// that continued behind that segment lost its records at the next power cut. Found by seed 3,043,523.
#[test]
fn a_chain_is_not_released_while_a_name_of_its_own_is_in_doubt() {
    let (mut is_continued, mut failures) = (false, 0);
    for failing_from in 1..8 {
        let mut world = World::new(1);
        let mut own = begun(&mut world);
        let recovered = [(); 2].map(|()| begun(&mut world));
        for node in &recovered {
            node.process.kill();
        }
        own.close(&mut world);
        world.disk.append_foreign("audit-001-00000001.jsonl", b"{\"seq\":");
        // Only the name of this file exists: the next process may write to it.
        world.disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).on("audit-001-00000002"));
        world.disk.inject(Fault::error(&[Op::SyncDir], Errno::IO).nth(failing_from).and_later());
        let opener = world.open(&Settings::default());
        failures += usize::from(world.disk.failures(Op::SyncDir) > 0);
        world.disk.clear_faults();
        let mut next = begun(&mut world);
        is_continued |= world.disk.contents("audit-001-00000002.jsonl").is_some_and(|file| !file.is_empty());
        next.close(&mut world);
        drop(opener);
        world.disk.power_cut();
        oracle::check(&world, Strictness::Once).unwrap();
        oracle::verify(&world).unwrap();
    }
    assert!(is_continued && failures > 2, "{is_continued}, {failures} times");
}
