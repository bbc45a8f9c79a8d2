//! Passes of retention on their own thread: no event waits for them, and they wait for no event.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    oracle::{self, Strictness},
    threads::{PATIENCE, Running, patient},
    world::{MS, SECOND, Settings, World},
};
use crate::{
    FlushMode, Retention, Severity, Verdict, Verifier,
    clock::Timestamp,
    format::RecordKind,
    segment_name::SegmentName,
    storage::sim::{Applied, Errno, Fault, Op, SimDisk},
};

/// Creates a closed log with this many segments in chain 000.
fn of_segments(segments: usize) -> World {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    for _ in 1..segments {
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        node.queue.ask_rotation();
        node.run_for(&mut world, SECOND);
    }
    node.close(&mut world);
    assert_eq!(files(&world.disk).len(), segments);
    world
}

fn files(disk: &SimDisk) -> Vec<SegmentName> {
    disk.snapshot().keys().filter_map(|name| SegmentName::parse(name)).collect()
}

fn keeping(segments: u32) -> Settings {
    let mut settings = patient(FlushMode::default());
    settings.writer.retention = Retention::keep_all().max_segments(segments);
    settings
}

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(MS);
    }
}

#[track_caller]
fn intact(disk: &SimDisk) {
    let report = Verifier::new("/log").run_on(&*disk.process().storage()).unwrap();
    assert_eq!(report.verdict(), Verdict::Intact, "{report}");
}

/// The writer once removed the files itself, and events waited for that.
#[test]
fn no_event_waits_for_a_removal_that_hangs() {
    let disk = of_segments(8).disk;
    disk.hold(Op::Remove);
    let mut log = Running::start_on(disk.clone(), &keeping(3));
    assert!(disk.wait_until_held(1, PATIENCE));
    for _ in 0..20 {
        // Returns only once it is durable.
        log.emit(Severity::Critical, None);
    }
    log.queue.ask_rotation();
    log.emit(Severity::Critical, None);
    assert_eq!((log.queue.not_durable(), log.stats().unconfirmed_waits), (0, 0));
    assert!(!log.queue.is_stalled());
    assert!(files(&disk).len() > 7, "none is removed yet");
    disk.release();
    wait_for("the old ones to go, and the next pass", || files(&disk).len() == 3);
    log.close();
    intact(&disk);
}

/// The same for another chain, which the pass holds meanwhile.
#[test]
fn no_event_waits_while_another_chain_is_shortened() {
    let mut world = World::new(1);
    let (mut own, mut other) = (world.opened(&Settings::default()), world.opened(&Settings::default()));
    for _ in 0..6 {
        other.critical(&mut world);
        other.queue.ask_rotation();
        other.run_for(&mut world, SECOND);
    }
    own.close(&mut world);
    other.close(&mut world);
    let disk = world.disk;
    disk.hold(Op::Remove);
    let mut log = Running::start_on(disk.clone(), &keeping(2));
    assert!(disk.wait_until_held(1, PATIENCE));
    for _ in 0..20 {
        log.emit(Severity::Critical, None);
    }
    assert_eq!((log.queue.not_durable(), log.queue.is_stalled()), (0, false));
    // Its last record is already there: if this process dies now, the chain has ended in order.
    let chains = oracle::read_log(&disk.snapshot()).unwrap();
    assert!(chains[&1].kinds().ends_with("close prune close"), "{}", chains[&1].kinds());
    disk.release();
    wait_for("it to be shortened", || files(&disk).len() == 3);
    log.close();
    intact(&disk);
}

#[test]
fn closing_waits_a_moment_for_a_pass_and_leaves_the_rest_to_the_next_run() {
    let disk = of_segments(8).disk;
    let mut settings = keeping(3);
    settings.queue.wait_bound = 4 * SECOND;
    disk.hold(Op::Remove);
    let mut log = Running::start_on(disk.clone(), &settings);
    assert!(disk.wait_until_held(1, PATIENCE));
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| log.close());
        // Longer than closing waits for the whole pass. From then on, the pass ends with its
        // current file.
        std::thread::sleep(1200 * MS);
        assert!(!closing.is_finished(), "it waits for the call that is under way");
        disk.release();
        closing.join().unwrap();
    });
    assert_eq!(files(&disk).len(), 7, "one removal was under way when the pass was told to stop");
    intact(&disk);
    // Even a short run removes what is left.
    let mut log = Running::start_on(disk.clone(), &settings);
    log.close();
    assert_eq!(files(&disk).len(), 3);
    intact(&disk);
}

/// `close` once failed at the wait bound, and the chain had no `close` record.
#[test]
fn closing_succeeds_without_a_removal_that_never_returns() {
    let disk = of_segments(8).disk;
    let mut settings = keeping(3);
    settings.queue.wait_bound = SECOND;
    disk.hold(Op::Remove);
    let mut log = Running::start_on(disk.clone(), &settings);
    assert!(disk.wait_until_held(1, PATIENCE));
    log.emit(Severity::Critical, None);
    let begun = Instant::now();
    log.close();
    assert!(log.queue.gauges.closed_in_order.get() && begun.elapsed() < PATIENCE / 2);
    let chains = oracle::read_log(&disk.snapshot()).unwrap();
    assert!(chains[&0].kinds().ends_with("notice close"), "{}", chains[&0].kinds());
    let notice = &chains[&0].of_kind(RecordKind::Notice)[0].text;
    assert!(notice.contains("retention_failed") && notice.contains("audit-log"), "{notice}");
    // Nothing that the next run needs is held. The thread ends with its current call and removes no
    // other file.
    let mut log = Running::start_on(disk.clone(), &patient(FlushMode::default()));
    log.emit(Severity::Critical, None);
    assert_eq!(log.queue.gauges.head().unwrap().chain(), 0);
    disk.release();
    wait_for("the file that it was at to go", || files(&disk).len() == 7);
    log.close();
    assert_eq!(files(&disk).len(), 7);
    intact(&disk);
}

/// Creates three closed chains with this many segments.
fn three_chains(segments: usize) -> SimDisk {
    let mut world = World::new(1);
    let mut nodes = [(); 3].map(|()| world.opened(&Settings::default()));
    for node in &mut nodes {
        for _ in 1..segments {
            node.critical(&mut world);
            node.queue.ask_rotation();
            node.run_for(&mut world, SECOND);
        }
        node.close(&mut world);
    }
    world.disk
}

fn files_of(disk: &SimDisk, chain: &str) -> usize {
    files(disk).iter().filter(|name| name.chain.to_string() == chain).count()
}

/// The pass once ended at such a chain in each run, and the chains after it grew.
#[test]
fn a_chain_that_cannot_be_read_keeps_no_other_from_being_shortened() {
    let disk = three_chains(5);
    disk.inject(Fault::error(&[Op::Open], Errno::ACCESS).on("audit-001-").and_later());
    let mut log = Running::start_on(disk.clone(), &keeping(2));
    wait_for("the chain behind it", || files_of(&disk, "002") == 2);
    log.close();
    assert_eq!(["000", "001"].map(|chain| files_of(&disk, chain)), [2, 5]);
    disk.clear_faults();
    let chains = oracle::read_log(&disk.snapshot()).unwrap();
    let notices = chains[&0].of_kind(RecordKind::Notice);
    let is_reported = |line: &&&oracle::Line| {
        line.text.contains("retention_failed") && line.text.contains("audit-log/audit-001-")
    };
    assert_eq!(notices.iter().filter(is_reported).count(), 1, "{notices:?}");
    intact(&disk);
}

/// Another process removes files, too.
#[test]
fn a_file_that_another_process_removed_is_no_failure() {
    let disk = three_chains(5);
    disk.inject(Fault::error(&[Op::Open], Errno::NOENT).on("audit-001-00000001").and_later());
    let mut log = Running::start_on(disk.clone(), &keeping(2));
    wait_for("the others", || files_of(&disk, "002") == 2);
    log.close();
    assert_eq!(["000", "001"].map(|chain| files_of(&disk, chain)), [2, 3]);
    disk.clear_faults();
    let chains = oracle::read_log(&disk.snapshot()).unwrap();
    assert!(chains[&0].of_kind(RecordKind::Notice).is_empty(), "{}", chains[&0].kinds());
    intact(&disk);
}

/// These records once had the time at which the pass began.
#[test]
fn records_written_to_another_chain_have_the_time_of_their_writing() {
    let disk = three_chains(5);
    disk.hold(Op::Remove);
    let mut log = Running::start_on(disk.clone(), &keeping(2));
    assert!(disk.wait_until_held(1, PATIENCE));
    std::thread::sleep(20 * MS);
    let released = Timestamp::now().to_string();
    disk.release();
    wait_for("the others", || files_of(&disk, "002") == 2);
    log.close();
    let chains = oracle::read_log(&disk.snapshot()).unwrap();
    for line in chains[&1].of_kind(RecordKind::Prune) {
        let at = line.text.split_once("\"ts\":\"").unwrap().1.split('"').next().unwrap();
        assert!(at > released.as_str(), "{released}: {}", line.text);
    }
    intact(&disk);
}

#[test]
fn the_record_of_a_pass_is_durable_before_it_continues() {
    let disk = of_segments(8).disk;
    let mut log = Running::start_on(disk.clone(), &patient(FlushMode::default()));
    log.close();
    disk.record_trace();
    let mut log = Running::start_on(disk.clone(), &keeping(3));
    wait_for("the old ones to go", || files(&disk).len() == 3);
    log.close();
    let trace = disk.trace();
    let first = trace.iter().position(|call| call.contains("Remove ")).unwrap();
    let synced = trace[..first].iter().rposition(|call| call.contains("SyncData audit-000-")).unwrap();
    let appended = trace[..first].iter().rposition(|call| call.contains("Append audit-000-")).unwrap();
    assert!(appended < synced, "{:?}", &trace[appended..=first]);
    intact(&disk);
}

/// One record covers many files; the power is cut after each step.
#[test]
fn the_next_pass_removes_what_a_power_cut_left_of_the_last() {
    for applied in [Applied::Fully, Applied::NotAtAll, Applied::Seeded] {
        for nth in 1.. {
            let mut world = of_segments(12);
            world.disk.sync_everything();
            world.disk.cut_power_at(nth, applied);
            if let Ok(mut node) =
                world.open(&Settings::default().retention(Retention::keep_all().max_segments(2)))
            {
                node.pump(&mut world);
            }
            let was_cut = world.disk.crashes_to_come() == 0;
            world.disk.clear_faults();
            if !was_cut {
                world.disk.power_cut();
            }
            let mut node =
                world.opened(&Settings::default().retention(Retention::keep_all().max_segments(2)));
            node.pump(&mut world);
            node.close(&mut world);
            let left = files(&world.disk);
            assert!(left.len() <= 2, "{nth} {applied:?}: {left:?}");
            intact(&world.disk);
            if !was_cut {
                assert!(nth > 12, "{nth}");
                break;
            }
        }
    }
}

/// The record was once carried into the next chain like an event. There, it stated that records are
/// durable which that chain never had.
#[test]
fn a_prune_record_that_failed_is_not_carried_into_another_chain() {
    for op in [Op::Append, Op::SyncData] {
        let mut world = of_segments(4);
        let mut node = world.opened(&Settings::default().retention(Retention::keep_all().max_segments(1)));
        world.disk.inject(Fault::error(&[op], Errno::IO).on("audit-000-"));
        assert!(world.disk.remove_behind_back("control/chain-000.lock"));
        // Before any event, so that the record is what fails.
        node.run_for(&mut world, SECOND);
        assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
        node.critical(&mut world);
        node.run_for(&mut world, 5 * SECOND);
        assert_eq!(node.queue.not_durable(), 0);
        world.disk.clear_faults();
        node.close(&mut world);
        let chains = oracle::check(&world, Strictness::OnceOrTwice).unwrap();
        assert!(chains[&1].of_kind(RecordKind::Prune).is_empty(), "{}", chains[&1].kinds());
        let copy: BTreeMap<String, Vec<u8>> =
            world.disk.snapshot().into_iter().filter(|(name, _)| !name.starts_with("control")).collect();
        for disk in [&world.disk, &SimDisk::with_files(1, &copy)] {
            let report = Verifier::new("/log").run_on(&*disk.process().storage()).unwrap();
            assert_ne!(report.verdict(), Verdict::Damaged, "{op:?}\n{report}");
        }
    }
}

/// Returns the longest wait of a critical event until `is_over`.
#[track_caller]
fn longest_wait(log: &Running, is_over: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    while !is_over() {
        assert!(begun.elapsed() < PATIENCE);
        let emitted = Instant::now();
        log.emit(Severity::Critical, None);
        worst = worst.max(emitted.elapsed());
    }
    worst
}

/// There are more files than a pass removes in one step. It pauses between the steps and omits
/// none. A critical event waits at most 50 ms longer than without a pass.
#[test]
fn a_pass_over_many_segments_finishes_and_no_critical_event_waits_for_it() {
    let closed = of_segments(150).disk.snapshot();
    // Other load on the machine may disturb some of the attempts.
    let waits = [(); 5].map(|()| {
        let disk = SimDisk::with_files(1, &closed);
        let mut log = Running::start_on(disk.clone(), &keeping(2));
        let begun = Instant::now();
        let with = longest_wait(&log, || files(&disk).len() == 2);
        let took = begun.elapsed();
        let begun = Instant::now();
        let without = longest_wait(&log, || begun.elapsed() > took);
        assert_eq!(log.stats().unconfirmed_waits, 0);
        log.close();
        intact(&disk);
        (with, without)
    });
    assert!(waits.iter().any(|(with, without)| *with <= *without + 50 * MS), "{waits:?}");
}
