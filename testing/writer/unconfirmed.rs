//! A refusal stays true: a record that a caller was told is not confirmed, and that is durable
//! nevertheless, is named.

use super::{
    oracle::{self, Chain},
    trouble::{FIRST, LOCK, begun, durable},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    NoteKind, Severity, Verdict, Verifier,
    format::RecordKind,
    storage::sim::{Errno, Fault, Op},
};

/// Closes the log, and checks that exactly the refused records are named. Returns the chains.
fn closed(world: &mut World, node: &mut Node) -> std::collections::BTreeMap<u16, Chain> {
    node.close(world);
    let chains = oracle::read_log(&world.disk.snapshot()).unwrap();
    oracle::check_refusals(world, &chains).unwrap();
    chains
}

/// Returns the ranges that the `unconfirmed` records of a chain name, as printed.
fn named(chain: &Chain) -> Vec<String> {
    let ranges =
        |text: &str| text.split_once("\"records\":").unwrap().1.split_once('}').unwrap().0.to_owned();
    chain.of_kind(RecordKind::Unconfirmed).into_iter().map(|line| ranges(&line.text)).collect()
}

/// Three requests were refused with 503 while the disk was full. When space returned, their records
/// said `outcome=allowed`, and the log was intact.
#[test]
fn what_was_refused_while_the_disk_was_full_is_named_when_space_returns() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.set_free_bytes(0);
    for _ in 0..3 {
        node.emit(&mut world, Severity::Routine, 40);
        node.pump(&mut world);
        assert!(node.refuse_the_last(&mut world).is_some());
    }
    let before = durable(&node);
    world.disk.set_capacity(None);
    node.run_for(&mut world, 3 * SECOND);
    assert_eq!(durable(&node), before + 3);
    let chains = closed(&mut world, &mut node);
    // Behind the `segment` line and the `recovery` record of the new segment.
    assert_eq!(named(&chains[&0]), ["[[7,7]]", "[[9,10]]"], "{:?}", chains[&0].kinds());
    let report = Verifier::new("/log").run_on(&*world.disk.process().storage()).unwrap();
    assert_eq!(report.verdict(), Verdict::Intact, "{report}");
    let storage = world.disk.process().storage();
    let records = crate::Reader::new("/log").records_of(storage).unwrap().map(Result::unwrap);
    let refused: Vec<u64> =
        records.filter(crate::Record::is_unconfirmed).map(|record| record.seq()).collect();
    assert_eq!(refused, [7, 9, 10]);
    let notes = report.notes().iter().filter(|note| note.kind() == NoteKind::Unconfirmed).count();
    assert_eq!(notes, 2, "{report}");
}

/// A newer event in the same sync is acknowledged only behind the line that names the refused one.
#[test]
fn nothing_newer_is_acknowledged_before_a_refused_record_is_named() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    node.emit(&mut world, Severity::Routine, 40);
    node.pump(&mut world);
    assert!(node.refuse_the_last(&mut world).is_some());
    node.critical(&mut world);
    let before = durable(&node);
    // The sync that covers both succeeds. The write of the line that names one fails.
    world.disk.inject(Fault::error(&[Op::Append], Errno::IO).on(FIRST).nth(2));
    world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on("audit-000-00000002"));
    node.pump(&mut world);
    assert_eq!(durable(&node), before, "durable, and not acknowledged");
    node.run_for(&mut world, 2 * SECOND);
    assert_eq!(durable(&node), before + 2);
    let chains = closed(&mut world, &mut node);
    assert_eq!(named(&chains[&0]), ["[[5,5]]"]);
}

#[test]
fn a_refusal_between_a_sync_and_its_acknowledgement_has_one_winner() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    node.critical(&mut world);
    node.pump(&mut world);
    assert_eq!(node.refuse_the_last(&mut world), None, "it is published: the wait has succeeded");
    node.emit(&mut world, Severity::Routine, 1);
    assert!(node.refuse_the_last(&mut world).is_some(), "before the writer has even taken it");
    node.run_for(&mut world, SECOND);
    let chains = closed(&mut world, &mut node);
    assert_eq!(named(&chains[&0]), ["[[6,6]]"]);
    oracle::check(&world, oracle::Strictness::Once).unwrap();
}

#[test]
fn records_are_named_by_the_numbers_with_which_they_are_written_again() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    for _ in 0..2 {
        node.emit(&mut world, Severity::Routine, 40);
    }
    node.pump(&mut world);
    assert!(node.refuse_the_last(&mut world).is_some());
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on(FIRST));
    node.run_for(&mut world, 2 * SECOND);
    let chains = closed(&mut world, &mut node);
    // They were 5 and 6. A `segment` line and a `recovery` record came in between.
    assert_eq!(named(&chains[&0]), ["[[8,8]]"]);
}

/// Makes the log leave a chain in which a refused event was written.
fn moved(world: &mut World, before: impl FnOnce(&World)) -> Node {
    let mut node = begun(world);
    node.emit(world, Severity::Routine, 40);
    node.pump(world);
    assert!(node.refuse_the_last(world).is_some());
    before(world);
    world.disk.remove_behind_back(LOCK);
    world.advance(150 * MS);
    node.emit(world, Severity::Routine, 40);
    node.run_for(world, 2 * SECOND);
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
    node
}

#[test]
fn a_change_of_chain_names_the_position_in_both() {
    let mut world = World::new(1);
    let mut node = moved(&mut world, |_| {});
    let chains = closed(&mut world, &mut node);
    let named = named(&chains[&1]);
    assert_eq!(named.len(), 2, "{named:?}");
    let first = chains[&1].of_kind(RecordKind::Unconfirmed)[0].text.clone();
    assert!(first.contains("\"chain\":\"000\",\"id\":\"") && named[0] == "[[5,5]]", "{first}");
}

#[test]
fn no_other_record_gets_a_number_that_was_named_in_a_chain_that_was_left() {
    let mut world = World::new(1);
    let mut node = moved(&mut world, |_| {});
    node.close(&mut world);
    world.disk.power_cut();
    let mut node = begun(&mut world);
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 0);
    closed(&mut world, &mut node);
}

#[test]
fn what_cannot_be_made_durable_in_a_chain_that_is_left_is_void_there() {
    let mut world = World::new(1);
    let fails = |world: &World| world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on(FIRST));
    let mut node = moved(&mut world, fails);
    let chains = closed(&mut world, &mut node);
    let named = named(&chains[&1]);
    assert_eq!(named.len(), 1, "{named:?}");
    let mut node = begun(&mut world);
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 0);
    closed(&mut world, &mut node);
}

#[test]
fn a_wait_that_is_dropped_without_an_answer_names_nothing() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    let ticket = node.queue.accepted() + 1;
    node.emit(&mut world, Severity::Routine, 40);
    // As a future that is dropped.
    assert!(node.queue.poll_durable(ticket, std::task::Waker::noop()).is_pending());
    node.run_for(&mut world, 2 * SECOND);
    let chains = closed(&mut world, &mut node);
    assert_eq!(named(&chains[&0]), Vec::<String>::new());
}

#[test]
fn many_ranges_take_several_records() {
    let mut world = World::new(1);
    let mut settings = Settings::batched(u32::MAX, 3600 * SECOND);
    settings.queue.bytes = 64 << 20;
    let mut node = world.opened(&settings);
    // Every second event is refused, so the ranges cannot be merged.
    for _ in 0..1_500 {
        node.emit(&mut world, Severity::Routine, 1);
        node.refuse_the_last(&mut world).unwrap();
        node.emit(&mut world, Severity::Routine, 1);
    }
    node.run_for(&mut world, SECOND);
    let chains = closed(&mut world, &mut node);
    assert!(named(&chains[&0]).len() >= 2);
}
