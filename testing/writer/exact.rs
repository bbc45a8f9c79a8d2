//! Numbers and positions, to the byte.

use std::time::Duration;

use super::{
    oracle::read_log,
    trouble::{FIRST, begun, ended_well, entry},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    Rotation, Severity,
    format::RecordKind,
    segment_name::{ChainNumber, SegmentName},
    storage::sim::{Errno, Fault, Op},
};

const SECOND_FILE: &str = "audit-000-00000002.jsonl";

fn bytes_of_all_segments(world: &World) -> u64 {
    let files = world.disk.snapshot();
    files.iter().filter(|(name, _)| name.starts_with("audit")).map(|(_, bytes)| bytes.len() as u64).sum()
}

/// Returns the first line of a segment.
fn first_line(world: &World, name: &str) -> String {
    let file = String::from_utf8(world.disk.contents(name).unwrap()).unwrap();
    file.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn every_byte_that_is_written_is_counted() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default().rotation(Rotation::never().max_bytes(1 << 16)));
    for _ in 0..40 {
        node.emit(&mut world, Severity::Critical, 4000);
        node.pump(&mut world);
    }
    node.queue.ask_rotation();
    node.pump(&mut world);
    let so_far = bytes_of_all_segments(&world);
    assert_eq!(node.queue.gauges.written_bytes.get(), so_far);
    node.close(&mut world);
    assert!(bytes_of_all_segments(&world) > so_far);
    assert_eq!(node.queue.gauges.written_bytes.get(), bytes_of_all_segments(&world));
}

#[test]
fn what_is_kept_in_memory_is_bounded_in_every_mode() {
    let mut world = World::new(1);
    // The limits by count and age are out of reach, so only the limit by bytes can cause a sync.
    let mut settings = Settings::batched(u32::MAX, Duration::from_secs(3600));
    settings.queue.bytes = 64 << 20;
    let mut node = world.opened(&settings);
    let syncs = |node: &Node| node.queue.gauges.syncs.get();
    let before = syncs(&node);
    let mut bytes = 0;
    while syncs(&node) == before {
        assert!(bytes < 5 << 20, "nothing is synced");
        bytes += 30_000;
        node.emit(&mut world, Severity::Routine, 30_000);
        node.run_for(&mut world, 20 * MS);
    }
    assert!(bytes > 4_000_000, "{bytes}");
}

#[test]
fn closing_syncs_nothing_twice() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    let before = [Op::SyncData, Op::SyncAll, Op::SyncDir].map(|op| world.disk.count(op));
    node.close(&mut world);
    let after = [Op::SyncData, Op::SyncAll, Op::SyncDir].map(|op| world.disk.count(op));
    // `close`, and the note in the lock file that the chain is closed.
    assert_eq!(after, [before[0] + 2, before[1], before[2]]);
}

#[test]
fn a_failed_segment_is_recorded_to_the_byte() {
    for has_durable in [true, false] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        if !has_durable {
            // The sync of the next segment fails as well.
            world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on(SECOND_FILE));
        }
        let durable = world.disk.contents(FIRST).unwrap().len();
        world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on(FIRST));
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        let void = world.disk.contents(FIRST).unwrap().len() - durable;
        assert!(void > 0 && node.queue.not_durable() == 0);
        let chain = ended_well(&mut world, &mut node);
        let [record] = *chain.of_kind(RecordKind::Recovery) else { panic!("{}", chain.kinds()) };
        let wanted = format!("\"cause\":\"sync_failed\",\"segment\":1,\"bytes\":{durable},\"void\":{void},");
        assert!(record.text.contains(&wanted), "{wanted}: {}", record.text);
        assert_eq!(record.segment, if has_durable { 2 } else { 3 });
    }
}

#[test]
fn the_first_segment_comes_after_none() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    ended_well(&mut world, &mut node);
    assert!(first_line(&world, FIRST).contains("\"after\":[],"), "{}", first_line(&world, FIRST));
}

#[test]
fn a_full_disk_does_not_poison_a_segment() {
    for (errno, is_poison) in [(Errno::NOSPC, false), (Errno::IO, true)] {
        for took_a_part in [true, false] {
            let mut world = World::new(1);
            let mut node = begun(&mut world);
            // The first write of the second segment is taken in part, or not at all.
            if took_a_part {
                world.disk.inject(Fault::short_write(100).on(SECOND_FILE));
            }
            let nth = if took_a_part { 2 } else { 1 };
            world.disk.inject(Fault::error(&[Op::Append], errno).on(SECOND_FILE).nth(nth));
            // The old segment takes nothing more and no third file can be created, so the outage
            // lasts.
            world.disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).on(FIRST));
            world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-000-00000003").and_later());
            node.critical(&mut world);
            node.pump(&mut world);
            assert!(node.is_failing());
            assert_eq!(entry(&world).starts_with("poison "), is_poison, "{errno}: {}", entry(&world));
            world.disk.clear_faults();
            node.run_for(&mut world, 3 * SECOND);
            let is_used_again = !took_a_part && !is_poison;
            assert_eq!(ended_well(&mut world, &mut node).segments, [1, if is_used_again { 2 } else { 3 }]);
        }
    }
}

/// Another program put a file where the next segment would be.
#[test]
fn a_segment_name_that_is_taken_is_skipped() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.replace(SECOND_FILE, b"somebody's\n");
    node.queue.ask_rotation();
    node.pump(&mut world);
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    let chain = ended_well(&mut world, &mut node);
    assert_eq!(chain.segments, [1, 3]);
    let first = first_line(&world, "audit-000-00000003.jsonl");
    assert!(first.contains("},{\"segment\":2,\"bytes\":0}],"), "{first}");
    assert_eq!(world.disk.contents(SECOND_FILE).unwrap(), b"somebody's\n");
}

#[test]
fn the_last_segment_number_is_used_and_none_after_it() {
    let mut world = World::new(1);
    let name = |segment| SegmentName { chain: ChainNumber::FIRST, segment }.to_string();
    // Behind this file, the last number is the next one.
    world.disk.replace(&name(SegmentName::MAX_SEGMENT - 1), b"none\n");
    let mut node = begun(&mut world);
    assert!(world.disk.contents(&name(SegmentName::MAX_SEGMENT)).is_some());
    node.queue.ask_rotation();
    node.run_for(&mut world, SECOND);
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    assert!(!node.is_failing() && node.queue.not_durable() == 0, "the old segment stays in use");
    node.close(&mut world);
    let files = world.disk.snapshot();
    assert_eq!(read_log(&files).unwrap()[&0].segments, [SegmentName::MAX_SEGMENT]);
    assert_eq!(files.keys().filter(|name| name.starts_with("audit")).count(), 2);
}

fn healed_with(free: usize) -> bool {
    let mut world = World::new(1);
    let mut node: Node = begun(&mut world);
    world.disk.set_free_bytes(10);
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    assert!(node.is_failing());
    world.disk.set_free_bytes(free);
    node.run_for(&mut world, 5 * SECOND);
    !node.is_failing()
}

#[test]
fn after_a_full_disk_a_new_segment_waits_for_more_room_than_its_first_write_needs() {
    assert!(!healed_with(64 << 10));
    assert!(healed_with((64 << 10) + 8192));
}

/// The whole lines of a write cut short by a full disk are durable at once, unless somebody else
/// wrote to the file.
#[test]
fn lines_written_before_a_full_disk_count_unless_somebody_else_wrote_there() {
    for foreign in [false, true] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        let before = world.disk.contents(FIRST).unwrap().len();
        node.critical(&mut world);
        node.pump(&mut world);
        let line = world.disk.contents(FIRST).unwrap().len() - before;
        node.routine(&mut world);
        node.critical(&mut world);
        if foreign {
            assert!(world.disk.append_foreign(FIRST, b"foreign\n"));
        }
        world.disk.inject(Fault::short_write(line + 50).on(FIRST));
        world.disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).on(FIRST).nth(2));
        world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-").and_later());
        node.pump(&mut world);
        assert!(node.is_failing());
        assert_eq!(node.queue.not_durable(), if foreign { 2 } else { 1 });
        world.disk.clear_faults();
        node.run_for(&mut world, 3 * SECOND);
        ended_well(&mut world, &mut node);
    }
}

#[test]
fn a_new_log_opens_at_once_and_a_held_chain_is_tried_for_a_while() {
    let mut world = World::new(1);
    world.simulate_the_clock();
    let _holder = world.opened(&Settings::default());
    assert_eq!(world.disk.count(Op::Lock), 1);
    let other = world.opened(&Settings::default());
    assert_eq!(other.queue.gauges.head().map(|head| head.chain()), Some(1));
    // Tried ever more often for 250 ms, then the new chain, and the first one again to recover it.
    let asked = world.disk.count(Op::Lock) - 1 - 1 - 1;
    assert!((25..150).contains(&asked), "{asked}");
    // For a holder that has run for long, 100 ms is enough.
    world.advance(2 * SECOND);
    let before = world.disk.count(Op::Lock);
    drop(world.opened(&Settings::default()));
    let asked = (world.disk.count(Op::Lock) - before - 1 - 2) / 2;
    assert!((8..60).contains(&asked), "{asked}");
}

#[test]
fn findings_in_other_chains_are_recorded_and_reported_once() {
    let mut world = World::new(1);
    let nodes = [(); 3].map(|()| begun(&mut world));
    for node in &nodes {
        node.process.kill();
    }
    let third = "audit-002-00000001.jsonl";
    // Chains 000 and 001 are recovered. Chain 002 has lost every line, so it is left alone.
    world.disk.replace(third, b"x".repeat(world.disk.contents(third).unwrap().len()).as_slice());
    let mut node = world.opened(&Settings::default());
    let found: Vec<u16> = node.found.iter().map(|found| found.chain).collect();
    assert_eq!(found, [0, 1, 2]);
    node.close(&mut world);
    let log = String::from_utf8(world.disk.contents(FIRST).unwrap()).unwrap();
    for chain in ["chain 000", "chain 001", "chain 002"] {
        let notices = log.lines().filter(|line| line.contains("\"kind\":\"notice\"") && line.contains(chain));
        assert_eq!(notices.count(), 1, "{chain}: {log}");
    }
}

/// A chain that goes back does not undo what was witnessed of it.
#[test]
fn the_highest_head_that_was_seen_of_a_chain_stays() {
    let mut world = World::new(1);
    let [mut own, mut other] = [(); 2].map(|()| begun(&mut world));
    let name = "audit-001-00000001.jsonl";
    let older = world.disk.contents(name).unwrap();
    other.critical(&mut world);
    other.run_for(&mut world, SECOND);
    let seen = |world: &World, segment: u32| {
        let first = first_line(world, &SegmentName { chain: ChainNumber::FIRST, segment }.to_string());
        first
            .split("\"001\":{")
            .nth(1)
            .and_then(|rest| rest.split("\"seq\":").nth(1))
            .map(|rest| rest[..1].to_owned())
    };
    // The first line of each segment names every head that is known.
    let mut rotate = |world: &mut World| {
        own.queue.ask_rotation();
        own.pump(world);
    };
    rotate(&mut world);
    let before = seen(&world, 2);
    assert!(before.is_some());
    world.disk.replace(name, &older);
    rotate(&mut world);
    assert_eq!(seen(&world, 3), before);
}
