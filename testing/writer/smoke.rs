//! A log without any faults.

use std::{task::Waker, time::Duration};

use super::{
    oracle::{self, Strictness, check_counts, read_log},
    world::{MS, Node, SECOND, Settings, World},
};
use crate::{
    Error, FlushMode, LossReason, Rotation, Severity, Stats, Verdict,
    clock::{Clock, Timestamp},
    format::RecordKind,
    queue::{MADE, Pause, Stage},
    storage::sim::{Errno, Fault, Op},
    writer::Next,
};

#[track_caller]
fn checked(world: &World) -> std::collections::BTreeMap<u16, oracle::Chain> {
    let chains = oracle::check(world, Strictness::Once).unwrap();
    check_counts(world, &chains).unwrap();
    let (verdict, report) = oracle::verify(world).unwrap();
    assert_eq!(verdict, Verdict::Intact, "{report}");
    chains
}

#[test]
fn a_log_is_opened_written_closed_and_continued() {
    let mut world = World::new(1);
    for _ in 0..3 {
        let mut node = world.opened(&Settings::default());
        assert!(node.found.is_empty(), "{:?}", node.found);
        node.routine(&mut world);
        node.critical(&mut world);
        node.run_for(&mut world, 20 * MS);
        node.routine(&mut world);
        node.run_for(&mut world, 2 * SECOND);
        assert_eq!(node.queue.not_durable(), 0);
        node.close(&mut world);
    }
    let chains = checked(&world);
    assert_eq!(chains.len(), 1);
    let run = "open event event event close";
    assert_eq!(chains[&0].kinds(), format!("segment {run} {run} {run}"));
    assert_eq!(chains[&0].segments, [1]);
    assert!(world.disk.contents("control/chain-000.lock").is_some(), "never removed");
}

#[test]
fn a_quiet_log_is_marked_after_a_minute_and_every_hour() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    node.routine(&mut world);
    node.run_for(&mut world, Duration::from_secs(3 * 3600 + 200));
    node.close(&mut world);
    let chains = checked(&world);
    let marks = chains[&0].of_kind(RecordKind::Mark);
    assert_eq!(marks.len(), 4, "{}", chains[&0].kinds());
    assert!(marks.iter().all(|mark| mark.durable == Some(mark.seq - 1)));
}

/// Counts how often the writer woke during a silence of this length, and how often it listed
/// `control`.
fn silence(world: &mut World, node: &mut Node, length: Duration) -> (usize, u64) {
    world.disk.record_trace();
    let end = world.now.elapsed + length;
    let mut wakes = 0;
    while let Next::Pause(_, until) = node.pump(world)
        && until < end
    {
        wakes += 1;
        world.advance(until.saturating_sub(world.now.elapsed).max(Duration::from_micros(1)));
    }
    let looks = world.disk.trace().iter().filter(|line| line.contains("List control/")).count();
    (wakes, looks as u64)
}

#[test]
fn a_quiet_log_beside_a_forwarder_is_marked_once_after_a_second() {
    for forwarder in [None, Some("forward-postgres"), Some("forward-postgres.lock")] {
        let mut world = World::new(1);
        let mut node = world.opened(&Settings::default());
        if let Some(name) = forwarder {
            world.disk.replace(&format!("control/{name}"), b"");
        }
        for silences in 1..=3 {
            node.routine(&mut world);
            node.run_for(&mut world, 3 * SECOND);
            let marks = oracle::read_log(&world.disk.snapshot()).unwrap()[&0].of_kind(RecordKind::Mark).len();
            assert_eq!(marks, if forwarder == Some("forward-postgres") { silences } else { 0 });
        }
        node.run_for(&mut world, Duration::from_secs(2 * 3600 + 1800));
        node.close(&mut world);
        let chains = checked(&world);
        let marks = chains[&0].of_kind(RecordKind::Mark);
        let expected = if forwarder == Some("forward-postgres") { 5 } else { 3 };
        assert_eq!(marks.len(), expected, "{}", chains[&0].kinds());
        assert!(marks.iter().all(|mark| mark.durable == Some(mark.seq - 1)));
    }
}

#[test]
fn a_forwarder_is_looked_for_once_in_a_silence_and_never_while_events_arrive() {
    for mode in
        [FlushMode::default(), FlushMode::Immediate, FlushMode::Batched { size: 1000, interval: 20 * SECOND }]
    {
        let mut world = World::new(1);
        let mut node = world.opened(&Settings::with_mode(mode));
        node.run_for(&mut world, 100 * SECOND);
        let (_, before) = silence(&mut world, &mut node, SECOND);
        for _ in 0..20 {
            node.routine(&mut world);
            node.run_for(&mut world, SECOND / 2);
        }
        let (wakes, looks) = silence(&mut world, &mut node, 59 * SECOND);
        assert_eq!((before, looks), (0, 1), "{mode}");
        // The look, and what else is due then. In some modes, the last records were synced before.
        assert!((1..=2).contains(&wakes), "{mode}: {wakes}");
    }
}

#[test]
fn a_segment_ends_by_size_and_by_the_hour_and_by_request() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default().rotation(Rotation::hourly().max_bytes(3000)));
    for _ in 0..10 {
        node.emit(&mut world, Severity::Routine, 300);
        node.run_for(&mut world, 20 * MS);
    }
    let by_size = read_log(&world.disk.snapshot()).unwrap()[&0].segments.len();
    assert!((3..=6).contains(&by_size), "{by_size}");
    world.advance(Duration::from_secs(3600));
    node.routine(&mut world);
    node.run_for(&mut world, SECOND);
    let number = node.queue.ask_rotation();
    assert!(node.queue.poll_rotated(number, Waker::noop()).is_pending());
    node.pump(&mut world);
    assert!(node.queue.poll_rotated(number, Waker::noop()).is_ready());
    node.close(&mut world);
    let chains = checked(&world);
    assert_eq!(chains[&0].segments.len(), by_size + 2);
    assert_eq!(chains[&0].segments, (1..=u32::try_from(by_size).unwrap() + 2).collect::<Vec<_>>());
}

#[test]
fn a_clock_set_back_an_hour_begins_one_segment_and_no_more() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default().rotation(Rotation::hourly()));
    node.routine(&mut world);
    node.run_for(&mut world, SECOND);
    world.now.wall = Timestamp::from_unix(world.now.wall.unix_seconds() - 7200, 0);
    for _ in 0..5 {
        node.routine(&mut world);
        node.run_for(&mut world, SECOND);
    }
    node.close(&mut world);
    let chains = checked(&world);
    assert_eq!(chains[&0].segments, [1, 2]);
    let notices = chains[&0].of_kind(RecordKind::Notice);
    assert!(notices.len() == 1 && notices[0].text.contains("stepped back"), "{notices:?}");
}

#[test]
fn concurrent_writers_have_their_own_chains_and_witness_each_other() {
    let mut world = World::new(1);
    let settings = Settings::default();
    let mut nodes: Vec<Node> = (0..3).map(|_| world.opened(&settings)).collect();
    for node in &mut nodes {
        node.critical(&mut world);
        node.run_for(&mut world, 20 * MS);
    }
    assert_eq!(
        nodes.iter().map(|node| node.queue.gauges.head().unwrap().chain()).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    for node in &mut nodes {
        node.run_for(&mut world, Duration::from_secs(61));
        node.close(&mut world);
    }
    // The free chain with the lowest number is continued.
    let mut again = world.opened(&settings);
    again.close(&mut world);
    let chains = checked(&world);
    assert_eq!(chains.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let open = chains[&0].of_kind(RecordKind::Open).last().unwrap().text.clone();
    assert!(open.contains("\"chains\":{\"001\":{") && open.contains("\"002\":{"), "{open}");
    assert!(chains[&2].of_kind(RecordKind::Mark)[0].text.contains("\"000\":{"), "{}", chains[&2].kinds());
    assert_eq!(chains[&0].of_kind(RecordKind::Close).len(), 2);
}

#[test]
fn an_idle_chain_that_vanishes_is_detected_at_once() {
    let mut world = World::new(1);
    let (mut one, mut two) = (world.opened(&Settings::default()), world.opened(&Settings::default()));
    two.critical(&mut world);
    two.run_for(&mut world, SECOND);
    one.run_for(&mut world, Duration::from_secs(61));
    two.close(&mut world);
    one.close(&mut world);
    assert!(world.disk.remove_behind_back("audit-001-00000001.jsonl"));
    let node = world.opened(&Settings::default());
    let log = read_log(&world.disk.snapshot()).unwrap();
    let notice = log[&0].of_kind(RecordKind::Notice)[0].text.clone();
    assert!(notice.contains("chain_missing") && notice.contains("chain 001"), "{notice}");
    // Its number is not reused.
    let third = world.opened(&Settings::default());
    assert_eq!(third.queue.gauges.head().unwrap().chain(), 2);
    drop(node);
}

#[test]
fn an_exclusive_log_has_one_holder_who_is_named() {
    let mut world = World::new(1);
    let settings = Settings::default().exclusive();
    let mut node = world.opened(&settings);
    match world.open(&settings).unwrap_err() {
        Error::Locked { pid, .. } => assert_eq!(pid, Some(node.process.storage().process_id())),
        error => panic!("{error}"),
    }
    node.close(&mut world);
    world.opened(&settings).close(&mut world);
    checked(&world);
}

#[test]
fn once_the_log_is_reported_closed_its_chain_can_be_continued() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    node.queue.end(Stage::Closing);
    let mut writer = node.writer.take().unwrap();
    while node.queue.stage() != Stage::Closed {
        let _ = writer.step(&world.now, Clock::hurried());
    }
    // The writer still exists.
    let next = world.opened(&Settings::default());
    assert_eq!(next.queue.gauges.head().unwrap().chain(), 0);
    drop(writer);
}

#[test]
fn a_gap_stands_exactly_before_the_next_event() {
    let mut world = World::new(1);
    let mut settings = Settings::batched(1000, 10 * SECOND);
    settings.queue.bytes = 4000;
    let mut node = world.opened(&settings);
    let mut accepted = Vec::new();
    for _ in 0..40 {
        accepted.push(node.emit(&mut world, Severity::Routine, 150));
    }
    node.critical(&mut world);
    node.queue.poll_durable(node.queue.accepted(), Waker::noop()).is_pending();
    node.pump(&mut world);
    node.routine(&mut world);
    node.run_for(&mut world, 20 * MS);
    node.queue.lose(LossReason::Panic, Severity::Critical, world.now.wall, None);
    node.run_for(&mut world, 20 * MS);
    node.close(&mut world);
    // Not `Once`: that compares with what was emitted, and the loss above was not emitted.
    let chains = oracle::check(&world, Strictness::OnceOrTwice).unwrap();
    let kinds = chains[&0].kinds();
    let critical = kinds.find("gap").unwrap();
    // The first gap precedes the next accepted event. The second has no event to precede but
    // `close`.
    assert_eq!(&kinds[critical..], "gap event event gap close", "{kinds}");
    let gap = &chains[&0].of_kind(RecordKind::Gap)[0].text;
    let written = chains[&0].numbers().len() - 2;
    assert!(gap.contains(&format!("\"routine\":{}", 40 - written)), "{gap}");
    assert_eq!(node.queue.not_durable(), 0);
}

#[test]
fn a_quarter_of_the_queue_is_kept_for_critical_events() {
    let mut world = World::new(1);
    let mut settings = Settings::batched(1000, 10 * SECOND);
    settings.queue.bytes = 8000;
    let node = world.opened(&settings);
    let accepted = |world: &World, severity| {
        let emissions = &world.producers[0].emissions;
        emissions.iter().filter(|one| one.severity == severity && one.ticket.is_some()).count()
    };
    for _ in 0..50 {
        node.emit(&mut world, Severity::Routine, 150);
    }
    let routine = accepted(&world, Severity::Routine);
    for _ in 0..50 {
        node.emit(&mut world, Severity::Critical, 150);
    }
    let critical = accepted(&world, Severity::Critical);
    // Three quarters for routine events, and the rest for critical ones.
    assert!((20..30).contains(&routine) && (6..12).contains(&critical), "{routine} {critical}");
    assert!(node.queue.is_overloaded());
}

#[test]
fn events_given_up_at_the_end_are_counted_as_lost() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    world.disk.inject(Fault::error(&Op::WRITES, Errno::IO).and_later());
    for _ in 0..3 {
        node.routine(&mut world);
        node.critical(&mut world);
        node.run_for(&mut world, 20 * MS);
    }
    assert!(node.is_failing());
    node.queue.end(Stage::Closing);
    node.run_for(&mut world, SECOND);
    assert_eq!(node.queue.stage(), Stage::Closing);
    node.queue.end(Stage::Abandoned);
    assert_eq!(node.pump(&mut world), Next::Ended);
    let mut stats = Stats::default();
    node.queue.fill(&mut stats);
    assert_eq!(stats.lost_total(), 6);
    assert_eq!((node.queue.stage(), node.queue.not_durable()), (Stage::Closed, 6));
    // A caller that waits for them gets an answer now, and not only at the bound.
    assert!(node.queue.poll_durable(6, Waker::noop()).is_ready() && !node.queue.is_durable(6));
}

#[test]
fn the_gauges_of_a_log_are_right() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    let gauges = std::sync::Arc::clone(&node.queue.gauges);
    let length = |world: &World| world.disk.contents("audit-000-00000001.jsonl").unwrap().len() as u64;
    // The first line, and the `open` record behind it.
    assert_eq!((gauges.segments.get(), gauges.syncs.get()), (1, 2));
    node.routine(&mut world);
    node.routine(&mut world);
    node.run_for(&mut world, 20 * MS);
    assert_eq!((gauges.records_since_sync.get(), gauges.syncs.get(), gauges.durable_events.get()), (2, 2, 0));
    assert_eq!(gauges.written_bytes.get(), length(&world));
    let mut stats = Stats::default();
    node.queue.fill(&mut stats);
    assert!(stats.queued_bytes > 0 && stats.queued_events == 0 && stats.accepted_routine == 2);
    node.run_for(&mut world, SECOND);
    assert_eq!((gauges.records_since_sync.get(), gauges.syncs.get(), gauges.durable_events.get()), (0, 3, 2));
    node.queue.fill(&mut stats);
    assert_eq!((stats.queued_bytes, stats.oldest_not_durable), (0, Duration::ZERO));
    assert_eq!(gauges.head().unwrap(), node.writer.as_ref().unwrap().head());
    // A mark is a record of the log itself and takes no space from events.
    node.run_for(&mut world, Duration::from_secs(61));
    node.routine(&mut world);
    node.run_for(&mut world, 20 * MS);
    node.queue.fill(&mut stats);
    assert!(stats.queued_bytes > 0);
    world.disk.set_free_bytes(10_000_000);
    node.close(&mut world);
    checked(&world);
}

#[test]
fn low_space_and_its_return_are_reported_once_each() {
    let mut world = World::new(1);
    let mut settings = Settings::default();
    settings.writer.low_space = 1 << 20;
    let mut node = world.opened(&settings);
    let mut tick = |world: &mut World, low| {
        for _ in 0..3 {
            node.routine(world);
            node.run_for(world, 2 * SECOND);
            assert_eq!(node.queue.gauges.low_space.get(), low);
        }
    };
    tick(&mut world, false);
    world.disk.set_free_bytes(500_000);
    tick(&mut world, true);
    world.disk.set_capacity(None);
    tick(&mut world, false);
    node.close(&mut world);
    let chains = checked(&world);
    let notices: Vec<bool> = chains[&0]
        .of_kind(RecordKind::Notice)
        .iter()
        .map(|notice| notice.text.contains("\"low_space\""))
        .collect();
    assert_eq!(notices, [true, false]);
}

#[test]
fn a_batch_is_synced_within_its_interval_when_idle_and_when_busy() {
    for (interval, busy) in [(200 * MS, true), (200 * MS, false), (MS, true), (4 * MS, false)] {
        let mut world = World::new(1);
        let mut node = world.opened(&Settings::batched(100_000, interval));
        node.run_for(&mut world, SECOND);
        let mut oldest: Option<Duration> = None;
        let mut emitted_last = Duration::ZERO;
        for _ in 0..4000 {
            let idle = node.queue.not_durable() == 0;
            if (idle || busy)
                && world.now.elapsed.checked_sub(emitted_last).unwrap() > if busy { MS } else { SECOND }
            {
                emitted_last = world.now.elapsed;
                oldest.get_or_insert(world.now.elapsed);
                node.routine(&mut world);
            }
            let before = node.queue.accepted() - node.queue.not_durable();
            let next = node.pump(&mut world);
            let until = match next {
                Next::Pause(Pause::Doze, until) => until,
                // Routine drafts wake a sleeping writer.
                Next::Pause(_, until) => until.min(world.now.elapsed + 3 * MS / 4),
                Next::Ended => panic!("ended"),
            };
            if node.queue.accepted() - node.queue.not_durable() > before || node.queue.not_durable() == 0 {
                oldest = None;
            }
            world.advance(until.checked_sub(world.now.elapsed).unwrap().max(MS / 8));
            let age = oldest.map_or(Duration::ZERO, |oldest| world.now.elapsed.checked_sub(oldest).unwrap());
            assert!(age <= interval + MS / 8, "{age:?} with {interval:?}");
        }
    }
}

/// On a disk whose syncs took 50 ms, events queued during a sync became older than the interval and
/// a sync together. Their age was counted from when the writer took them. Found by `ci/faults age`.
#[test]
fn events_queued_during_a_long_sync_age_from_then_on() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::batched(100_000, 200 * MS));
    node.run_for(&mut world, SECOND);
    node.pump(&mut world);
    node.routine(&mut world);
    // The writer was busy, and takes the event only now.
    world.advance(150 * MS);
    node.pump(&mut world);
    assert_eq!(node.queue.not_durable(), 1);
    world.advance(40 * MS);
    node.pump(&mut world);
    assert_eq!(node.queue.not_durable(), 0, "190 ms old, and the interval is 200 ms");
}

#[test]
fn events_that_arrive_while_a_batch_is_written_share_its_sync() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    node.pump(&mut world);
    let opened = node.queue.gauges.syncs.get();
    node.critical(&mut world);
    let mut writer = node.writer.take().expect("an open log");
    let orders = node.queue.take(&mut writer.pending.batch);
    node.critical(&mut world);
    writer.work(orders, &world.now, Clock::hurried()).expect("a writer that can write");
    assert_eq!((node.queue.not_durable(), node.queue.gauges.syncs.get() - opened), (0, 1));
    node.writer = Some(writer);
    node.close(&mut world);
    checked(&world);
}

#[test]
fn buffers_are_reused_and_durable_drafts_leave_the_memory() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::batched(50, SECOND));
    let run = |world: &mut World, node: &mut Node| {
        for _ in 0..300 {
            for _ in 0..7 {
                node.emit(world, Severity::Routine, 200);
            }
            node.run_for(world, 10 * MS);
        }
    };
    run(&mut world, &mut node);
    let before = MADE.get();
    run(&mut world, &mut node);
    assert!(MADE.get() - before < 20, "{} new buffers", MADE.get() - before);
    node.close(&mut world);
    checked(&world);
}
