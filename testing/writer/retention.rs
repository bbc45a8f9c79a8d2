//! Removing old segments.

use std::time::Duration;

use super::{
    oracle::{self, Chain, Strictness},
    world::{Node, SECOND, Settings, World},
};
use crate::{
    NoticeKind, Retention, Rotation, Verdict,
    format::RecordKind,
    storage::sim::{Applied, Errno, Fault, Op, Prng},
};

fn keeping(segments: u32) -> Settings {
    Settings::default().retention(Retention::keep_all().max_segments(segments))
}

/// Writes this many segments with an event each.
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
        let asks =
            |line: &str| ["Remove", "Stat", "Open forward-required"].iter().any(|call| line.contains(call));
        let before = trace[..at].iter().rev().find(|line| !asks(line));
        assert!(before.is_some_and(|line| line.contains("SyncData audit-000-")), "{before:?}");
    }
    let removed = trace.iter().rposition(|line| line.contains("Remove")).unwrap();
    assert!(trace[removed + 1].contains("SyncDir ."), "until then a power cut brings them back");
    node.close(&mut world);
    let chain = checked(&world);
    assert!(chain.pruned > 0 && !chain.of_kind(RecordKind::Prune).is_empty());
    // The next run knows what was pruned.
    let mut node = world.opened(&keeping(1));
    fill(&mut world, &mut node, 1);
    node.close(&mut world);
    assert_eq!(files(&world), [8]);
    checked(&world);
}

#[test]
fn a_hold_and_the_minimum_age_keep_everything() {
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
    // Time is that of the newest record. The mark of the hour is written after the first look.
    node.run_for(&mut world, Duration::from_secs(2 * 3600));
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
    // Every set of removed files that can come back.
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

/// Files from before the first record once stayed for ever, because nothing that counts precedes
/// them.
#[test]
fn files_begun_in_vain_before_the_first_segment_are_removed_too() {
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
fn nothing_is_removed_while_the_prune_record_is_not_durable() {
    for op in [Op::Append, Op::SyncData] {
        for seed in 0..20 {
            let mut world = World::new(seed);
            let mut node = world.opened(&Settings::default());
            fill(&mut world, &mut node, 3);
            node.close(&mut world);
            let mut node = world.opened(&keeping(1));
            // The open record comes first, the prune record next.
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

/// Retention once removed nothing for an hour after such a failure.
#[test]
fn a_failed_removal_is_tried_again_after_a_minute() {
    for op in [Op::SyncData, Op::Remove] {
        let mut world = filled(1, 5);
        let mut node = world.opened(&keeping(1));
        world.disk.inject(Fault::error(&[op], Errno::IO).on("audit-000-"));
        node.pump(&mut world);
        assert!(!node.is_failing() && files(&world).len() >= 5, "{op:?}: {:?}", files(&world));
        node.run_for(&mut world, Duration::from_secs(58));
        assert!(files(&world).len() >= 5, "{op:?}: {:?}", files(&world));
        node.run_for(&mut world, Duration::from_secs(4));
        assert_eq!(files(&world).len(), 1, "{op:?}");
        node.close(&mut world);
        checked(&world);
    }
}

/// The `prune` record of the own chain failed, and the following pass over the other chains
/// overwrote that result. The writer then had no segment and knew of no failure, so it never tried
/// another.
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

/// Its last run did not end in order. Such a chain is recovered by an opener, not by retention.
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

/// Writes the position that a forwarder notes once its store has this much of chain 000.
fn note_position(world: &World, name: &str, seq: u64, refused: Option<u64>) {
    let files = world.disk.snapshot();
    let first = files.iter().find(|(name, _)| name.starts_with("audit-000-")).unwrap().1;
    let line = String::from_utf8(first.clone()).unwrap();
    let id = line.split_once("\"id\":\"").unwrap().1.split_once('"').unwrap().0;
    let hash = "ab".repeat(32);
    let refused = refused.map_or_else(String::new, |refused| format!(",\"refused\":{refused}"));
    let chain = format!("{{\"chain\":\"000\",\"seq\":{seq},\"hash\":\"{hash}\"{refused}}}");
    let text = format!("{{\"format\":1,\"chains\":{{\"{id}\":{chain}}}}}");
    world.disk.replace(&format!("control/forward-{name}"), text.as_bytes());
}

/// Returns the last record of each segment but the newest.
fn last_records(world: &World) -> Vec<u64> {
    let log = oracle::read_log(&world.disk.snapshot()).unwrap();
    log[&0].of_kind(RecordKind::Segment).iter().skip(1).map(|first| first.seq - 1).collect()
}

/// Creates a closed log with this many segments.
fn filled(seed: u64, segments: usize) -> World {
    let mut world = World::new(seed);
    let mut node = world.opened(&Settings::default());
    fill(&mut world, &mut node, segments - 1);
    node.close(&mut world);
    world
}

#[test]
fn a_segment_stays_until_its_last_record_was_forwarded() {
    let mut world = filled(1, 5);
    let last = last_records(&world);
    let settings = Settings::default()
        .retention(Retention::keep_all().max_segments(1).require_forwarded(["archive", "postgres"]));
    let mut node = world.opened(&settings);
    // What each store has, the first record that the second one refused, and how many segments must
    // be left.
    for (archive, postgres, refused, left) in [
        (0, 1 << 60, None, 5),
        (last[0] - 1, last[3], None, 5),
        (last[3], last[0], None, 4),
        (last[3], last[3], Some(last[2]), 3),
        (last[3], last[3], Some(last[2] + 1), 2),
        (last[3], last[3], None, 1),
    ] {
        note_position(&world, "archive", archive, None);
        note_position(&world, "postgres", postgres, refused);
        node.run_for(&mut world, Duration::from_secs(3700));
        assert_eq!(files(&world).len(), left, "{archive} {postgres} {refused:?}");
    }
    node.close(&mut world);
    let chain = checked(&world);
    let notices = chain.of_kind(RecordKind::Notice);
    assert_eq!(notices.len(), 1, "reported once: {}", chain.kinds());
    assert!(notices[0].text.contains(NoticeKind::RetentionWaits.as_str()), "{}", notices[0].text);
    assert!(notices[0].text.contains("forwarder archive"), "{}", notices[0].text);
}

/// A chain that nobody holds is neither locked nor written to while its segments wait.
#[test]
fn a_chain_that_nobody_holds_waits_too() {
    let mut world = World::new(1);
    let (mut one, mut two) = (world.opened(&Settings::default()), world.opened(&Settings::default()));
    for node in [&mut one, &mut two] {
        fill(&mut world, node, 3);
        node.close(&mut world);
    }
    let of_two = |world: &World| {
        let files = world.disk.snapshot();
        files.into_iter().filter(|(name, _)| name.contains("-001")).collect::<Vec<_>>()
    };
    let before = of_two(&world);
    let keep = Retention::keep_all().max_segments(1).require_forwarded(["archive"]);
    let mut node = world.opened(&Settings::default().retention(keep));
    node.run_for(&mut world, Duration::from_secs(3 * 3600));
    assert!(before.len() > 4 && of_two(&world) == before);
    assert_eq!(files(&world), [1, 2, 3, 4]);
    node.close(&mut world);
    let chains = oracle::check(&world, Strictness::Once).unwrap();
    let notices: Vec<_> =
        chains[&0].of_kind(RecordKind::Notice).iter().map(|line| line.text.clone()).collect();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].contains("chain 000 keeps") && notices[1].contains("chain 001 keeps"), "{notices:?}");
}

#[test]
fn a_program_without_the_setting_obeys_the_file_and_reads_it_before_each_removal() {
    let mut world = filled(1, 5);
    let last = last_records(&world);
    let mut node = world.opened(&keeping(1));
    let disk = world.disk.clone();
    disk.hold(Op::Remove);
    std::thread::scope(|scope| {
        scope.spawn(|| node.pump(&mut world));
        assert!(disk.wait_until_held(1, 10 * SECOND));
        // The removal of the first file is about to start, after its last check.
        disk.replace("forward-required", b"archive\n");
        disk.release();
    });
    assert_eq!(files(&world), [2, 3, 4, 5]);
    // The `prune` record covers these, too, and they wait nevertheless.
    for (has, left) in
        [(0, &[2, 3, 4, 5][..]), (last[1], &[3, 4, 5]), (last[3] - 1, &[4, 5]), (last[3], &[5])]
    {
        note_position(&world, "archive", has, None);
        node.run_for(&mut world, Duration::from_secs(3700));
        assert_eq!(files(&world), left, "{has}");
    }
    node.close(&mut world);
    let chain = checked(&world);
    let notices = chain.of_kind(RecordKind::Notice);
    assert_eq!(notices.len(), 1, "reported once: {}", chain.kinds());
    let text = &notices[0].text;
    assert!(text.contains(&format!("keeps old records up to {}", last[3])), "{text}");
}

/// Creates a log whose store was complete and has lost records since. Segments 1 to 4 of the first
/// chain are back.
fn removed_and_lost(keep: &Settings) -> (World, Node, Vec<u64>) {
    let mut world = filled(1, 5);
    let last = last_records(&world);
    let old = world.disk.snapshot();
    note_position(&world, "archive", last[3], None);
    let mut node = world.opened(keep);
    // The new first line names what was removed, also for processes that did not read the chain.
    fill(&mut world, &mut node, 1);
    assert_eq!(files(&world), [5, 6]);
    for segment in 1..5 {
        let name = format!("audit-000-{segment:08}.jsonl");
        world.disk.replace(&name, &old[&name]);
    }
    note_position(&world, "archive", last[0], None);
    (world, node, last)
}

#[test]
fn a_removed_file_that_comes_back_stays_while_the_store_has_lost_it() {
    let keep = Retention::keep_all().max_segments(2).require_forwarded(["archive"]);
    let (mut world, mut node, last) = removed_and_lost(&Settings::default().retention(keep));
    node.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [2, 3, 4, 5, 6]);
    // With a file missing in between, it is unknown where the older ones end.
    world.disk.remove_behind_back("audit-000-00000003.jsonl");
    note_position(&world, "archive", last[2] - 1, None);
    node.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [2, 4, 5, 6]);
    note_position(&world, "archive", last[2], None);
    node.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [4, 5, 6]);
    node.close(&mut world);
    let text = checked(&world).of_kind(RecordKind::Notice)[0].text.clone();
    assert!(text.contains(&format!("keeps old records up to {}", last[3])), "{text}");
}

#[test]
fn a_removed_file_that_comes_back_is_removed_for_lack_of_room() {
    let keep = Retention::keep_all().max_segments(2).require_forwarded(["archive"]).unless_free_below(1000);
    let (mut world, mut node, _) = removed_and_lost(&Settings::default().retention(keep));
    note_position(&world, "archive", 0, None);
    world.disk.set_free_bytes(999);
    node.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [2, 3, 4, 5, 6], "one makes room enough");
    node.close(&mut world);
}

/// The leftovers of a chain that nobody holds stay, and the chain is neither locked nor written to.
#[test]
fn a_chain_that_nobody_holds_keeps_what_came_back_too() {
    let keep = Retention::keep_all().max_segments(2).require_forwarded(["archive"]);
    let settings = Settings::default().retention(keep);
    let (mut world, mut node, last) = removed_and_lost(&settings);
    let mut pruner = world.opened(&Settings::default().retention(Retention::keep_all().max_segments(9)));
    node.close(&mut world);
    note_position(&world, "archive", 0, None);
    let of_first = |world: &World| {
        let files = world.disk.snapshot().into_iter();
        files.filter(|(name, _)| name.starts_with("audit-000-")).collect::<Vec<_>>()
    };
    let before = of_first(&world);
    world.disk.replace("forward-required", b"archive\n");
    pruner.run_for(&mut world, Duration::from_secs(3700));
    assert!(of_first(&world) == before, "{:?}", files(&world));
    note_position(&world, "archive", last[3], None);
    pruner.run_for(&mut world, Duration::from_secs(3700));
    assert_eq!(files(&world), [5, 6]);
    pruner.close(&mut world);
    let chains = oracle::check(&world, Strictness::Once).unwrap();
    let notices = chains[&1].of_kind(RecordKind::Notice);
    assert!(notices.len() == 1 && notices[0].text.contains("chain 000 keeps"), "{}", chains[&1].kinds());
}

#[test]
fn a_list_of_forwarders_that_cannot_be_parsed_holds_everything() {
    for text in ["", "archive", "archive\0\0", "\0\0\0\0"] {
        let mut world = filled(1, 5);
        world.disk.replace("forward-required", text.as_bytes());
        let mut node = world.opened(&keeping(1));
        node.run_for(&mut world, Duration::from_secs(3700));
        assert_eq!(files(&world), [1, 2, 3, 4, 5], "{text:?}");
        node.close(&mut world);
        assert!(
            checked(&world).of_kind(RecordKind::Notice)[0]
                .text
                .contains("forward-required is not a valid list")
        );
    }
}

/// Whatever part of the file is on the disk: it requires the name, or holds everything, or `open`
/// did not return.
#[test]
fn a_name_is_required_as_soon_as_open_returns_whenever_the_power_fails() {
    let required = Settings::default().retention(Retention::keep_all().require_forwarded(["archive"]));
    for applied in [Applied::Fully, Applied::NotAtAll, Applied::Seeded] {
        for nth in 1.. {
            let mut world = filled(nth, 3);
            world.disk.sync_everything();
            world.disk.cut_power_at(nth, applied);
            let is_required = world.open(&required).is_ok();
            let was_cut = world.disk.crashes_to_come() == 0;
            world.disk.clear_faults();
            if !was_cut {
                world.disk.power_cut();
            }
            // Once as the crash left the file, and once after the next opener has repaired it.
            for is_required in [is_required, true] {
                let mut pruner = world.opened(&keeping(2));
                pruner.run_for(&mut world, SECOND);
                pruner.close(&mut world);
                assert!(!is_required || files(&world).starts_with(&[1]), "{nth} {applied:?}");
                if files(&world).starts_with(&[1]) {
                    // The next opener repairs what the crash left.
                    world.opened(&required).close(&mut world);
                } else {
                    break;
                }
                let names = world.disk.durable_contents("forward-required").unwrap();
                assert_eq!(String::from_utf8(names).unwrap().trim_end_matches('\n'), "archive");
            }
            if !was_cut {
                assert!(nth > 5, "{nth}");
                break;
            }
        }
    }
}
