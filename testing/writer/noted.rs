//! The noted head: what it saves an opener, what it witnesses, and that it causes no false alarm.

use std::{collections::BTreeMap, time::Duration};

use super::{
    oracle,
    recovery::forget_noted,
    trouble::{FIRST, LOCK, begun, ended_well},
    world::{Node, SECOND, Settings, World},
};
use crate::{
    ChainRecovery, Error, FindingKind, Report, Verdict, Verifier,
    chain_reader::BLOCK,
    format::RecordKind,
    stats::NoticeKind,
    storage::sim::{Errno, Fault, Op, SimDisk},
};

const SECOND_FILE: &str = "audit-000-00000002.jsonl";
const THIRD_FILE: &str = "audit-000-00000003.jsonl";

fn verify(disk: &SimDisk) -> Report {
    Verifier::new("/log").run_on(&*disk.process().storage()).unwrap()
}

/// Returns the state and the sequence number in the newest good slot of a lock file: `open`,
/// `closed` or `left`.
fn slot(disk: &SimDisk, lock: &str) -> (String, u64) {
    let bytes = disk.contents(lock).unwrap();
    let slots =
        [2, 3].map(|block| String::from_utf8(bytes[block * BLOCK..(block + 1) * BLOCK].to_vec()).unwrap());
    let words = slots.iter().map(|slot| slot.trim_end().split(' ').map(str::to_owned).collect::<Vec<_>>());
    let newest = words.filter(|words| words.len() > 9).max_by_key(|words| words[1].parse::<u64>().unwrap());
    let words = newest.expect("a slot");
    (words[5].clone(), words[9].parse().unwrap())
}

/// Returns the lines of a file as a tool that converts line ends leaves them.
fn with_other_line_ends(bytes: &[u8]) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).unwrap().replace('\n', "\r\n").into_bytes()
}

/// Creates a closed log of some events, in this many segments.
fn closed(world: &mut World, segments: usize) {
    let mut node = begun(world);
    for _ in 1..segments {
        node.queue.ask_rotation();
        node.pump(world);
        node.critical(world);
        node.pump(world);
    }
    node.close(world);
}

/// Opens the log, and returns what was found.
fn reopened(world: &mut World) -> (Node, Vec<ChainRecovery>) {
    let node = world.opened(&Settings::default());
    let found = node.found.clone();
    (node, found)
}

#[test]
fn the_first_write_of_a_segment_is_its_first_line_alone_and_its_head_is_noted_before_anything_follows() {
    let mut world = World::new(1);
    world.disk.record_trace();
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on(FIRST));
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    let trace = world.disk.trace();
    for file in [FIRST, SECOND_FILE] {
        let from = trace.iter().position(|call| call.ends_with(&format!("Create {file}"))).unwrap();
        let calls: Vec<&str> = trace[from..]
            .iter()
            .map(|call| call.split_once(' ').unwrap().1)
            .filter(|call| !call.starts_with("Stat"))
            .collect();
        let lock = [format!("WriteAt {LOCK}"), format!("SyncData {LOCK}")];
        let mut expected = vec![
            format!("Create {file}"),
            format!("Append {file}"),
            format!("SyncAll {file}"),
            "SyncDir .".to_owned(),
        ];
        if file == SECOND_FILE {
            // The poison entry of the first segment is cleared.
            expected.extend(lock.clone());
        }
        expected.extend(lock.clone());
        expected.push(format!("Append {file}"));
        let calls: Vec<&str> = calls.into_iter().filter(|call| !call.starts_with("FreeBytes")).collect();
        assert_eq!(calls[..expected.len()], expected, "{trace:?}");
    }
    let second = world.disk.contents(SECOND_FILE).unwrap();
    assert!(String::from_utf8(second).unwrap().lines().nth(1).unwrap().contains("\"kind\":\"recovery\""));
    // A second segment of which only the first write was made.
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on(SECOND_FILE));
    world.disk.inject(Fault::error(&[Op::SyncAll], Errno::IO).on(THIRD_FILE));
    node.critical(&mut world);
    node.run_for(&mut world, SECOND);
    let third = String::from_utf8(world.disk.contents(THIRD_FILE).unwrap()).unwrap();
    assert_eq!(third.lines().count(), 1, "{third}");
    ended_well(&mut world, &mut node);
}

#[test]
fn the_state_of_a_chain_is_noted_when_it_is_opened_written_to_and_closed() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::default());
    assert_eq!(slot(&world.disk, LOCK), ("open".to_owned(), 1), "with the first line");
    node.critical(&mut world);
    node.pump(&mut world);
    assert_eq!(slot(&world.disk, LOCK), ("open".to_owned(), 1));
    node.run_for(&mut world, SECOND + Duration::from_millis(20));
    assert_eq!(slot(&world.disk, LOCK), ("open".to_owned(), 3), "at the latest after a second");
    node.queue.ask_rotation();
    node.pump(&mut world);
    assert_eq!(slot(&world.disk, LOCK), ("open".to_owned(), 4), "a new segment at once");
    for _ in 0..300 {
        node.emit(&mut world, crate::Severity::Critical, 30_000);
        node.pump(&mut world);
    }
    let noted = slot(&world.disk, LOCK).1;
    assert!((250..304).contains(&noted), "after 8 MiB at once: {noted}");
    node.close(&mut world);
    assert_eq!(slot(&world.disk, LOCK), ("closed".to_owned(), 305));
    let again = world.opened(&Settings::default());
    assert_eq!(slot(&world.disk, LOCK), ("open".to_owned(), 305), "before the first append");
    drop(again);
}

/// It once took 1.07 s to open a last segment of 177 MB.
#[test]
fn opening_reads_what_follows_the_noted_head_and_nothing_before_it() {
    let mut reads = Vec::new();
    for events in [10, 2_000] {
        let mut world = World::new(1);
        let mut node = begun(&mut world);
        for _ in 0..events {
            node.emit(&mut world, crate::Severity::Routine, 5_000);
            node.pump(&mut world);
        }
        node.close(&mut world);
        for kill in [false, true] {
            let before = world.disk.count(Op::Read);
            let mut node = world.opened(&Settings::default());
            reads.push(world.disk.count(Op::Read) - before);
            node.run_for(&mut world, 2 * SECOND);
            if kill {
                node.process.kill();
                drop(node);
                let before = world.disk.count(Op::Read);
                node = world.opened(&Settings::default());
                assert!(node.found.iter().all(|found| !found.damaged && found.torn_bytes == 0));
                reads.push(world.disk.count(Op::Read) - before);
            }
            ended_well(&mut world, &mut node);
        }
    }
    // The same few reads, whatever the length of the segment.
    assert!(reads.iter().all(|reads| *reads < 20), "{reads:?}");
}

/// After `sed -i 's/$/\r/' *.jsonl` and one more start, such a log was once reported as intact,
/// with 154,027 void bytes.
#[test]
fn content_that_was_destroyed_is_damage_before_the_next_start_and_ever_after() {
    // So many segments, the last of which are destroyed.
    for (segments, destroyed) in [(1, 1), (2, 1), (4, 2)] {
        for without_control in [false, true] {
            let mut world = World::new(1);
            closed(&mut world, segments);
            let files = world.disk.snapshot();
            let names: Vec<&String> = files.keys().filter(|name| name.starts_with("audit")).collect();
            for name in names.iter().rev().take(destroyed) {
                world.disk.overwrite(name, &with_other_line_ends(&files[*name]));
            }
            if without_control {
                world.disk.remove_behind_back(LOCK);
            }
            assert_eq!(verify(&world.disk).verdict(), Verdict::Damaged);
            let left = world.disk.snapshot();
            let (mut node, found) = reopened(&mut world);
            let what = format!("{segments} {destroyed} {without_control}: {found:?}");
            assert!(found[0].left_alone && found[0].damaged, "{what}");
            assert_eq!(node.queue.gauges.head().unwrap().chain(), 1, "{what}");
            node.close(&mut world);
            let now = world.disk.snapshot();
            assert!(names.iter().all(|name| now[*name] == left[*name]), "the older chain is left alone");
            // The same in a copy without `control`.
            let copy: BTreeMap<_, _> =
                now.into_iter().filter(|(name, _)| !name.starts_with("control")).collect();
            for disk in [&world.disk, &SimDisk::with_files(1, &copy)] {
                let report = verify(disk);
                assert_eq!(report.verdict(), Verdict::Damaged, "{what}\n{report}");
            }
            // Reported once.
            assert_eq!(reopened(&mut world).1, []);
        }
    }
}

#[test]
fn after_a_crash_the_noted_head_reveals_that_all_but_the_first_line_was_destroyed() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    // Records of the last second before a crash may not be noted.
    node.run_for(&mut world, 2 * SECOND);
    node.process.kill();
    drop(node);
    let bytes = world.disk.contents(FIRST).unwrap();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let destroyed = [bytes[..first].to_vec(), with_other_line_ends(&bytes[first..])].concat();
    world.disk.overwrite(FIRST, &destroyed);
    assert_eq!(verify(&world.disk).verdict(), Verdict::Damaged);
    let (mut node, found) = reopened(&mut world);
    assert!(found[0].left_alone && found[0].damaged, "{found:?}");
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
    node.close(&mut world);
    let copy = world.disk.snapshot().into_iter().filter(|(name, _)| !name.starts_with("control")).collect();
    let report = verify(&SimDisk::with_files(1, &copy));
    assert_eq!(report.verdict(), Verdict::Damaged, "{report}");
}

#[test]
fn a_restored_chain_is_continued() {
    let mut world = World::new(1);
    closed(&mut world, 2);
    let whole = world.disk.contents(SECOND_FILE).unwrap();
    world.disk.overwrite(SECOND_FILE, &with_other_line_ends(&whole));
    let (mut node, found) = reopened(&mut world);
    assert!(found[0].left_alone);
    node.close(&mut world);
    world.disk.overwrite(SECOND_FILE, &whole);
    assert_eq!(verify(&world.disk).verdict(), Verdict::Intact);
    let (mut node, found) = reopened(&mut world);
    assert_eq!((found, node.queue.gauges.head().unwrap().chain()), (Vec::new(), 0));
    node.critical(&mut world);
    node.close(&mut world);
    assert_eq!(verify(&world.disk).verdict(), Verdict::Intact);
}

/// The files of the chain were copied to another machine, written to there, and copied back.
#[test]
fn a_chain_that_was_continued_elsewhere_is_left_alone() {
    let mut world = World::new(1);
    closed(&mut world, 1);
    let here = world.disk.contents(FIRST).unwrap();
    let mut elsewhere = World::on(SimDisk::with_files(2, &BTreeMap::from([(FIRST.to_owned(), here)])));
    elsewhere.now = world.now;
    for world in [&mut world, &mut elsewhere] {
        let (mut node, found) = reopened(world);
        assert_eq!(found, []);
        node.critical(world);
        node.critical(world);
        node.close(world);
    }
    world.disk.overwrite(FIRST, &elsewhere.disk.contents(FIRST).unwrap());
    let (mut node, found) = reopened(&mut world);
    assert!(found[0].left_alone && found[0].damaged, "{found:?}");
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
    node.close(&mut world);
    assert_eq!(verify(&world.disk).verdict(), Verdict::Damaged);
}

#[test]
fn an_exclusive_log_names_what_to_move_aside_and_begins_anew_without_it() {
    let mut world = World::new(1);
    closed(&mut world, 1);
    let whole = world.disk.contents(FIRST).unwrap();
    world.disk.overwrite(FIRST, &with_other_line_ends(&whole));
    let settings = Settings::default().exclusive();
    // Every later opener gets the same error.
    for _ in 0..2 {
        match world.open(&settings).unwrap_err() {
            Error::NoChain { reason, .. } => assert!(
                reason.to_string().contains("audit-000-*.jsonl")
                    && reason.to_string().contains("control/chain-000.lock"),
                "{reason}"
            ),
            error => panic!("{error}"),
        }
    }
    world.disk.remove_behind_back(FIRST);
    assert!(world.open(&settings).is_err(), "its lock file knows of its records");
    world.disk.remove_behind_back(LOCK);
    let mut node = world.opened(&settings);
    assert_eq!(node.found, []);
    node.close(&mut world);
    assert_eq!(verify(&world.disk).verdict(), Verdict::Intact);
}

#[test]
fn a_file_with_the_last_number_makes_the_log_take_the_next_chain() {
    for junk in [&b""[..], b"junk\n", b"{\"seq\":1,"] {
        let mut world = World::new(1);
        world.disk.replace("audit-000-99999999.jsonl", junk);
        let (mut node, found) = reopened(&mut world);
        assert!(found[0].left_alone && found[0].message.contains("the last number there is"), "{found:?}");
        assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
        node.queue.ask_rotation();
        node.pump(&mut world);
        node.close(&mut world);
        assert_eq!(reopened(&mut world).1, [], "reported once");
        match world.open(&Settings::default().exclusive()).unwrap_err() {
            Error::NoChain { reason, .. } => {
                assert!(reason.to_string().contains("audit-000-*.jsonl"), "{reason}");
            }
            error => panic!("{error}"),
        }
    }
}

/// The entry outlived its segment: the lock file was restored, or the process was killed between
/// two steps.
#[test]
fn a_poison_entry_of_an_earlier_segment_is_ignored() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::SyncData], Errno::IO).on(FIRST));
    world.disk.inject(Fault::error(&[Op::Create], Errno::MFILE).on(SECOND_FILE));
    node.critical(&mut world);
    node.pump(&mut world);
    let poisoned = world.disk.contents(LOCK).unwrap()[..BLOCK].to_vec();
    assert!(poisoned.starts_with(b"poison "));
    node.run_for(&mut world, 3 * SECOND);
    node.process.kill();
    drop(node);
    let lock = world.disk.contents(LOCK).unwrap();
    world.disk.overwrite(LOCK, &[poisoned, lock[BLOCK..].to_vec()].concat());
    let (mut node, found) = reopened(&mut world);
    assert!(
        found.iter().all(|found| !found.left_alone && !found.damaged && found.torn_bytes == 0),
        "{found:?}"
    );
    ended_well(&mut world, &mut node);
}

#[test]
fn a_lock_file_that_is_gone_torn_old_or_a_copy_is_no_witness_and_no_false_alarm() {
    type Damage = fn(&SimDisk);
    let damage: [(&str, Damage); 5] = [
        ("gone", |disk| assert!(disk.remove_behind_back(LOCK))),
        ("of the version before", |disk| assert!(disk.truncate(LOCK, 2 * BLOCK))),
        ("torn", |disk| {
            for slot in [2, 3] {
                disk.flip_bit(LOCK, slot * BLOCK + 30, 0);
            }
        }),
        ("a copy", |disk| disk.replace(LOCK, &disk.contents(LOCK).unwrap())),
        ("empty", |disk| assert!(disk.truncate(LOCK, 0))),
    ];
    for (what, damage) in damage {
        for kill in [false, true] {
            let mut world = World::new(1);
            let mut node = begun(&mut world);
            node.queue.ask_rotation();
            node.pump(&mut world);
            node.critical(&mut world);
            node.pump(&mut world);
            if kill {
                node.process.kill();
            } else {
                node.close(&mut world);
            }
            drop(node);
            damage(&world.disk);
            assert_ne!(verify(&world.disk).verdict(), Verdict::Damaged, "{what}");
            let mut node = world.opened(&Settings::default());
            assert!(
                node.found.iter().all(|found| !found.left_alone && !found.damaged),
                "{what}: {:?}",
                node.found
            );
            ended_well(&mut world, &mut node);
            let segment = String::from_utf8(world.disk.contents(SECOND_FILE).unwrap()).unwrap();
            let code = NoticeKind::HeadUnknown.as_str();
            assert!(segment.contains(&format!("\"notice\":{{\"code\":\"{code}\"")), "{what}: {segment}");
        }
    }
}

/// Files are copied one by one in any order while the log is written.
#[test]
fn a_backup_of_a_running_log_is_no_damage_by_itself() {
    for order in 0..6 {
        let mut world = World::new(order);
        let mut node = begun(&mut world);
        node.queue.ask_rotation();
        node.pump(&mut world);
        node.critical(&mut world);
        node.run_for(&mut world, SECOND);
        let mut copied = BTreeMap::new();
        let mut names: Vec<String> = world.disk.snapshot().into_keys().collect();
        // Control first, last, or in between. The segments are copied in order, as the log of one
        // chain requires.
        names.sort_by_key(|name| match order % 3 {
            0 => name.starts_with("audit"),
            1 => name.starts_with("control"),
            _ => *name == *SECOND_FILE,
        });
        for name in names {
            copied.insert(name.clone(), world.disk.contents(&name).unwrap());
            node.critical(&mut world);
            node.run_for(&mut world, 2 * SECOND);
        }
        let mut restored = World::on(SimDisk::with_files(order + 10, &copied));
        assert_ne!(verify(&restored.disk).verdict(), Verdict::Damaged, "{order}");
        let mut again = restored.opened(&Settings::default());
        assert!(again.found.iter().all(|found| !found.damaged && !found.left_alone), "{:?}", again.found);
        again.close(&mut restored);
        assert_eq!(verify(&restored.disk).verdict(), Verdict::Intact, "{order}");
        ended_well(&mut world, &mut node);
    }
}

#[test]
fn many_stillborn_files_are_no_damage() {
    let mut world = World::new(1);
    closed(&mut world, 1);
    for segment in 2..=990 {
        let torn: &[u8] = match segment % 4 {
            0 => b"",
            1 => b"{\"seq\":7,\"ts\":\"2026",
            // A sector with invented contents: line feeds, and no other control character.
            2 => b"{\"seq\":7,\"t\xc3\n\xfe\xed\n\x80q",
            _ => &[0; 700],
        };
        world.disk.replace(&format!("audit-000-{segment:08}.jsonl"), torn);
    }
    assert_eq!(verify(&world.disk).verdict(), Verdict::Unclean);
    let (mut node, found) = reopened(&mut world);
    assert!(found.iter().all(|found| !found.damaged && !found.left_alone), "{found:?}");
    node.critical(&mut world);
    node.close(&mut world);
    let report = verify(&world.disk);
    assert_eq!(report.verdict(), Verdict::Intact, "{report}");
    assert_eq!(report.count(FindingKind::Destroyed), 0);
}

#[test]
fn a_head_that_cannot_be_noted_is_tried_again_and_nothing_is_lost() {
    let mut world = World::new(1);
    let mut node = begun(&mut world);
    world.disk.inject(Fault::error(&[Op::WriteAt], Errno::IO).on(LOCK).and_later());
    for _ in 0..3 {
        node.critical(&mut world);
        node.run_for(&mut world, 2 * SECOND);
    }
    assert_eq!(node.queue.not_durable(), 0);
    assert!(node.queue.gauges.is_degraded() && !node.is_failing());
    // A new segment waits for the note.
    node.queue.ask_rotation();
    node.critical(&mut world);
    node.run_for(&mut world, 2 * SECOND);
    assert!(node.is_failing());
    node.critical(&mut world);
    node.pump(&mut world);
    assert_eq!(node.queue.not_durable(), 1);
    let files = world.disk.snapshot().keys().filter(|name| name.starts_with("audit")).count();
    assert_eq!(files, 2, "the same file is tried again");
    world.disk.clear_faults();
    node.run_for(&mut world, 4 * SECOND);
    assert_eq!((node.queue.not_durable(), node.is_failing()), (0, false));
    assert!(!node.queue.gauges.is_degraded());
    ended_well(&mut world, &mut node);
    assert!(!world.disk.snapshot().contains_key(THIRD_FILE));
}

#[test]
fn verification_checks_what_opening_does_not_read() {
    let mut world = World::new(1);
    closed(&mut world, 1);
    let second_line =
        world.disk.contents(FIRST).unwrap().iter().position(|byte| *byte == b'\n').unwrap() + 40;
    assert!(world.disk.flip_bit(FIRST, second_line, 0));
    let (mut node, found) = reopened(&mut world);
    assert_eq!(found, []);
    node.close(&mut world);
    assert_eq!(verify(&world.disk).verdict(), Verdict::Damaged);
    // Recovery sees it without the noted head.
    forget_noted(&world);
    let (_node, found) = reopened(&mut world);
    assert!(found[0].damaged && !found[0].left_alone, "{found:?}");
}

#[test]
fn a_chain_names_only_what_changed_and_few_at_a_time() {
    let mut world = World::new(1);
    let mut settings = Settings::default();
    settings.writer.wait_for_chain = Duration::ZERO;
    let mut nodes: Vec<Node> = (0..21).map(|_| world.opened(&settings)).collect();
    let mut first = nodes.remove(0);
    let named = |line: &oracle::Line| line.text.matches("\"seq\":").count() - 1;
    for _ in 0..2 {
        first.critical(&mut world);
        first.run_for(&mut world, 61 * SECOND);
    }
    first.close(&mut world);
    let chains = oracle::read_log(&world.disk.snapshot()).unwrap();
    let of_first = |kind| chains[&0].of_kind(kind).into_iter().map(named).collect::<Vec<_>>();
    assert_eq!(of_first(RecordKind::Open), [0]);
    assert_eq!(of_first(RecordKind::Mark), [16, 4], "never named ones first");
    assert_eq!(of_first(RecordKind::Close), [0], "all others rest");
    // A later run knows what was named.
    nodes[3].critical(&mut world);
    nodes[3].run_for(&mut world, 2 * SECOND);
    let mut again = world.opened(&settings);
    again.close(&mut world);
    let chains = oracle::read_log(&world.disk.snapshot()).unwrap();
    let opens: Vec<_> = chains[&0].of_kind(RecordKind::Open).into_iter().map(named).collect();
    assert_eq!(opens, [0, 1]);
}

#[test]
fn a_first_line_with_every_witness_and_every_abandoned_file_fits() {
    use crate::{
        chain::Digest,
        clock::Timestamp,
        format::{After, ChainId, MAX_PAYLOAD, SegmentInfo, Witness},
        segment_name::{ChainNumber, SegmentName},
    };
    let witness = Witness { id: ChainId(u128::MAX), seq: (1 << 53) - 1, hash: Digest::of_body(b"x") };
    let at = Timestamp::from_unix(1_800_000_000, 5);
    let last = SegmentName::MAX_SEGMENT;
    let counted = After { is_damaged: true, ..After::counted(last, u64::MAX, Some((at, at))) };
    let old = (0..256).map(|number| After::counted(last - number, 0, None));
    let rows = After::rows(&(1..=999).collect::<Vec<u32>>()).collect::<Vec<_>>();
    assert_eq!(rows.len(), 1);
    let info = SegmentInfo {
        id: ChainId(u128::MAX),
        chain: ChainNumber::FIRST,
        segment: last,
        after: [counted].into_iter().chain(old).chain(rows).collect(),
        chains: ChainNumber::all().take(255).map(|chain| (chain, witness)).collect(),
        pruned: Some((u64::MAX, Digest::ZERO)),
    };
    let length = info.payload(at).len();
    assert!(length <= MAX_PAYLOAD, "{length}");
}
