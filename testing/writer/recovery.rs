//! What recovery finds, and what it reports, to the byte.

use super::{
    super::ledger::MAX_FAILED,
    trouble::{FIRST, begun, ended_well},
    world::{MS, Node, Settings, World},
};
use crate::{
    ChainRecovery,
    chain::Digest,
    chain_reader::{BLOCK, Point},
    clock::Timestamp,
    format::{After, ChainId, CloseInfo, LineParser, SegmentInfo, Witnesses, seal},
    segment_name::ChainNumber,
    storage::sim::{Errno, Fault, Op},
    writer::chain_lock::{ChainLock, LockState, Tried},
};

const SECOND_FILE: &str = "audit-000-00000002.jsonl";
const THIRD_FILE: &str = "audit-000-00000003.jsonl";

/// Creates a log of nine durable records whose process was killed. Returns its lines.
fn killed(world: &mut World) -> Vec<Vec<u8>> {
    let mut node = begun(world);
    for _ in 0..5 {
        node.critical(world);
        node.pump(world);
    }
    node.process.kill();
    lines_of(world)
}

fn lines_of(world: &World) -> Vec<Vec<u8>> {
    let file = world.disk.contents(FIRST).unwrap();
    file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Cuts the lock file as if the previous version had written it: the chain is then read from its
/// newest first line.
pub(super) fn forget_noted(world: &World) {
    let lock = format!("control/{}", ChainNumber::FIRST.lock_name());
    assert!(world.disk.truncate(&lock, 2 * BLOCK));
}

/// Opens the log, and returns what was found of its only chain.
fn reopened(world: &mut World) -> (Node, ChainRecovery) {
    let node = world.opened(&Settings::default());
    let [found] = node.found.as_slice() else { panic!("{:?}", node.found) };
    let found = found.clone();
    (node, found)
}

/// Opens the log, and checks that the report and the `recovery` record agree. Both state how many
/// bytes of the first segment count, and how many are void.
#[track_caller]
fn recovered(world: &mut World, cause: &str, bytes: usize, void: usize) -> Node {
    let (node, found) = reopened(world);
    assert_eq!((found.torn_bytes, found.damaged), (void as u64, cause == "damage"));
    check_recovery(world, &format!("\"cause\":\"{cause}\",\"segment\":1,\"bytes\":{bytes},\"void\":{void},"));
    node
}

/// Returns a `segment` line that another chain might have, sealed behind a record.
fn foreign_line(behind: &[u8], skipped: u64, segment: u32, pruned: Option<(u64, Digest)>) -> Vec<u8> {
    let last = LineParser::default().parse(behind.strip_suffix(b"\n").unwrap()).unwrap();
    let info = SegmentInfo {
        id: ChainId(7),
        chain: ChainNumber::FIRST,
        segment,
        after: Vec::new(),
        chains: Witnesses::new(),
        pruned,
    };
    let durable = (skipped > 0).then_some(last.seq + skipped);
    let mut line = Vec::new();
    seal(&mut line, last.seq + skipped + 1, &info.payload(Timestamp::now()), durable, &last.hash);
    line
}

/// Writes a poison entry of this boot to the lock file.
fn poison(world: &World, point: Point) {
    let storage = world.disk.process().storage();
    let Tried::Taken(lock) = ChainLock::try_take(&storage, ChainNumber::FIRST, None).unwrap() else {
        panic!("somebody holds it")
    };
    lock.write(&LockState::Poison { boot: storage.boot_id(), point }).unwrap();
}

/// Checks that the log holds one `recovery` record, and that it contains this text.
#[track_caller]
fn check_recovery(world: &World, wanted: &str) {
    let log: Vec<u8> = world.disk.snapshot().into_values().flatten().collect();
    let log = String::from_utf8_lossy(&log);
    let records: Vec<&str> = log.lines().filter(|line| line.contains("\"kind\":\"recovery\"")).collect();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert!(record.contains(wanted), "{wanted}: {record}");
}

#[test]
fn void_bytes_are_counted_over_all_files() {
    let mut world = World::new(1);
    let length = killed(&mut world).concat().len();
    assert!(world.disk.append_foreign(FIRST, b"{\"seq\":"));
    world.disk.replace(SECOND_FILE, b"no line");
    world.disk.replace(THIRD_FILE, b"none");
    let (mut node, found) = reopened(&mut world);
    assert_eq!((found.torn_bytes, found.damaged), (7 + 7 + 4, false));
    assert_eq!(found.head.map(|head| (head.chain(), head.seq())), Some((0, 9)));
    check_recovery(&world, &format!("\"cause\":\"torn\",\"segment\":1,\"bytes\":{length},\"void\":18,"));
    let chain = ended_well(&mut world, &mut node);
    assert_eq!(chain.segments, [1, 4]);
    let first = &chain.lines.iter().find(|line| line.segment == 4).unwrap().text;
    assert!(first.contains(&format!("\"after\":[{{\"segment\":1,\"bytes\":{length},\"from\"")), "{first}");
    assert!(first.contains("},{\"segment\":3,\"bytes\":0,\"from\":2}]"), "{first}");
}

#[test]
fn a_torn_end_behind_damage_is_void_and_the_damage_is_not() {
    let mut world = World::new(1);
    let lines = killed(&mut world);
    let length = lines.concat().len();
    forget_noted(&world);
    assert!(world.disk.flip_bit(FIRST, lines[..3].concat().len() + 20, 0));
    assert!(world.disk.append_foreign(FIRST, b"{\"seq\""));
    recovered(&mut world, "damage", length, 6);
}

/// A durable record follows the torn line. It shows that it was moved there, so nothing is void.
#[test]
fn evidence_of_damage_behind_a_torn_line_is_not_void() {
    let mut world = World::new(1);
    let mut lines = killed(&mut world);
    let moved = lines.remove(2);
    lines[1][20] ^= 1;
    lines.push(b"torn\n".to_vec());
    lines.push(moved);
    let file = lines.concat();
    world.disk.replace(FIRST, &file);
    recovered(&mut world, "damage", file.len(), 0);
}

#[test]
fn evidence_of_damage_before_a_torn_end_is_not_void() {
    let mut world = World::new(1);
    let mut lines = killed(&mut world);
    let moved = lines.remove(2);
    lines[1][20] ^= 1;
    lines.push(moved);
    let length = lines.concat().len();
    lines.push(b"torn".to_vec());
    world.disk.replace(FIRST, &lines.concat());
    recovered(&mut world, "damage", length, 4);
}

/// A line that shows two things at once: that a durable record is missing, and that it belongs to
/// another file. The second made the line void, and with it the evidence of the first: the next run
/// reused the missing number.
#[test]
fn a_line_that_shows_damage_is_not_void_for_another_reason() {
    let mut world = World::new(1);
    let mut lines = killed(&mut world);
    lines.truncate(5);
    lines.push(foreign_line(&lines[4], 1, 2, None));
    let file = lines.concat();
    world.disk.replace(FIRST, &file);
    recovered(&mut world, "damage", file.len(), 0);
}

/// A line in the middle of a file that would begin this very file, or another. It is well formed,
/// and void.
#[test]
fn a_segment_line_in_the_middle_counts_nothing() {
    for segment in [1, 2] {
        let mut world = World::new(1);
        let lines = killed(&mut world);
        let length = lines.concat().len();
        let foreign = foreign_line(&lines[8], 0, segment, Some((2, Digest::ZERO)));
        assert!(world.disk.append_foreign(FIRST, &foreign));
        let mut node = recovered(&mut world, "torn", length, foreign.len());
        let chain = ended_well(&mut world, &mut node);
        let first = &chain.lines.iter().find(|line| line.segment == 2).unwrap().text;
        assert!(!first.contains(&ChainId(7).to_string()) && !first.contains("pruned"), "{first}");
    }
}

/// The heads of other chains are in the first line of the last segment, and nowhere behind it.
#[test]
fn a_missing_chain_is_detected_by_a_first_line_alone() {
    let mut world = World::new(1);
    let [mut own, other] = [(); 2].map(|()| begun(&mut world));
    own.queue.ask_rotation();
    own.pump(&mut world);
    own.process.kill();
    other.process.kill();
    assert!(world.disk.remove_behind_back("audit-001-00000001.jsonl"));
    assert!(world.disk.remove_behind_back("control/chain-001.lock"));
    let mut node = world.opened(&Settings::default());
    node.close(&mut world);
    let log = String::from_utf8(world.disk.contents(SECOND_FILE).unwrap()).unwrap();
    assert!(log.contains("chain 001 was seen before and is gone"), "{log}");
}

/// Everything before the first good line is bad, and that line states that some of it was durable.
#[test]
fn a_chain_whose_durable_beginning_is_bad_is_left_alone() {
    let mut world = World::new(1);
    let mut node = world.opened(&Settings::batched(100, 500 * MS));
    for _ in 0..2 {
        node.routine(&mut world);
        node.run_for(&mut world, 20 * MS);
    }
    node.process.kill();
    let lines = lines_of(&world);
    assert!(String::from_utf8_lossy(&lines[3]).contains("\"durable\":2"), "two writes behind one sync");
    let mut file = b"x".repeat(lines[..3].concat().len() - 1);
    file.push(b'\n');
    file.extend(&lines[3]);
    world.disk.replace(FIRST, &file);
    let node = world.opened(&Settings::default());
    let found: Vec<_> =
        node.found.iter().map(|found| (found.chain, found.damaged, found.left_alone)).collect();
    assert_eq!(found, [(0, true, true)], "reported once");
    assert_eq!(world.disk.contents(FIRST).unwrap(), file);
    assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
}

#[test]
fn a_chain_without_a_record_has_no_head() {
    let mut world = World::new(1);
    world.disk.replace(FIRST, b"none");
    let (mut node, found) = reopened(&mut world);
    assert_eq!((found.torn_bytes, found.damaged, found.head), (4, false, None));
    check_recovery(&world, "\"cause\":\"torn\",\"segment\":1,\"bytes\":0,\"void\":4,");
    assert_eq!(ended_well(&mut world, &mut node).segments, [2]);
}

#[test]
fn an_unreadable_file_is_named_in_the_error() {
    for (op, action) in [(Op::Open, "open"), (Op::Read, "read")] {
        let mut world = World::new(1);
        killed(&mut world);
        world.disk.inject(Fault::error(&[op], Errno::IO).on("audit-000-").and_later());
        let error = world.open(&Settings::default()).unwrap_err().to_string();
        assert!(error.contains(action) && error.contains(FIRST), "{error}");
    }
}

/// JSON parsers elsewhere represent integers exactly only up to 2^53. A chain ends well before
/// that.
#[test]
fn a_chain_whose_numbers_are_used_up_is_left_alone() {
    const LAST_SEQ: u64 = (1 << 53) - (1 << 40);
    for (seq, chain) in [(10_000, 0), (LAST_SEQ - 1, 0), (LAST_SEQ, 1)] {
        let mut world = World::new(1);
        let (chains, at) = (Witnesses::new(), Timestamp::now());
        let info = SegmentInfo {
            id: ChainId(7),
            chain: ChainNumber::FIRST,
            segment: 1,
            after: Vec::new(),
            chains: chains.clone(),
            pruned: None,
        };
        let mut file = Vec::new();
        let hash = seal(&mut file, seq - 1, &info.payload(at), None, &Digest::ZERO);
        seal(&mut file, seq, &CloseInfo { events: 0, chains: &chains }.payload(at), None, &hash);
        world.disk.replace(FIRST, &file);
        let node = world.opened(&Settings::default());
        assert_eq!(node.queue.gauges.head().unwrap().chain(), chain, "{seq}");
        let is_reported = node
            .found
            .iter()
            .any(|found| found.left_alone && found.message.contains("every sequence number"));
        assert_eq!(is_reported, chain == 1, "{:?}", node.found);
    }
}

/// After a downgrade, this version opened a log that a later version had written. It continued in
/// its own format behind the segment, which it must not judge.
#[test]
fn a_chain_that_a_later_version_wrote_is_left_alone() {
    for is_poisoned in [false, true] {
        let mut world = World::new(1);
        let info = SegmentInfo {
            id: ChainId(7),
            chain: ChainNumber::FIRST,
            segment: 1,
            after: Vec::new(),
            chains: Witnesses::new(),
            pruned: None,
        };
        let mut first = Vec::new();
        let hash = seal(&mut first, 1, &info.payload(Timestamp::now()), Some(0), &Digest::ZERO);
        world.disk.replace(FIRST, &first);
        let after = vec![After::counted(1, first.len() as u64, None)];
        let info = SegmentInfo { segment: 2, after, ..info };
        let begin = String::from_utf8(info.payload(Timestamp::now())).unwrap();
        let mut file = Vec::new();
        let later = begin.replace("\"format\":1", "\"format\":2");
        let hash = seal(&mut file, 2, later.as_bytes(), Some(1), &hash);
        let hash = seal(&mut file, 3, b",\"kind\":\"something\"", Some(2), &hash);
        world.disk.replace(SECOND_FILE, &file);
        if is_poisoned {
            poison(&world, Point { segment: 2, seq: 3, hash, end: file.len() as u64 });
        }
        let node = world.opened(&Settings::default());
        let found: Vec<_> =
            node.found.iter().map(|found| (found.chain, found.damaged, found.left_alone)).collect();
        assert_eq!(found, [(0, false, true)], "{:?}", node.found);
        assert!(node.found[0].message.contains("a later version of the format"), "{:?}", node.found);
        assert_eq!(world.disk.contents(SECOND_FILE).unwrap(), file);
        assert!(!world.disk.snapshot().contains_key(THIRD_FILE));
        assert_eq!(node.queue.gauges.head().unwrap().chain(), 1);
    }
}

/// The entry in the lock file is compared with the chain. If they disagree, nothing is decided.
#[test]
fn a_chain_that_contradicts_its_lock_file_is_left_alone() {
    let mut world = World::new(1);
    let lines = killed(&mut world);
    forget_noted(&world);
    let parsed = LineParser::default().parse(lines[7].strip_suffix(b"\n").unwrap()).map(|line| line.hash);
    let point = Point { segment: 1, seq: 8, hash: parsed.unwrap(), end: lines[..8].concat().len() as u64 };
    let file = lines.concat();
    let gone = "the segment of its last durable record is gone";
    let elsewhere = "its last durable record is not where its lock file says";
    for (point, why) in [
        (Point { segment: 7, ..point }, gone),
        (Point { seq: 7, ..point }, elsewhere),
        (Point { hash: Digest::ZERO, ..point }, elsewhere),
        (Point { end: point.end + 1, ..point }, elsewhere),
        (Point { end: file.len() as u64, ..point }, elsewhere),
    ] {
        // A chain that was left alone is passed over silently from then on.
        let mut world = World::new(1);
        killed(&mut world);
        poison(&world, point);
        let mut node = world.opened(&Settings::default());
        let found = &node.found[0];
        assert!(found.left_alone && found.damaged && found.message.ends_with(why), "{point:?}: {found:?}");
        assert_eq!(world.disk.contents(FIRST).unwrap(), file);
        node.close(&mut world);
    }
    poison(&world, point);
    let (_node, found) = reopened(&mut world);
    assert!(!found.left_alone && !found.damaged, "{found:?}");
    assert_eq!(found.head.unwrap().seq(), 8);
}

/// A new segment lists every file between it and the last record, and has space for only so many.
#[test]
fn a_chain_with_too_many_files_behind_its_last_record_is_left_alone() {
    for has_records in [true, false] {
        for too_many in [false, true] {
            let mut world = World::new(1);
            if has_records {
                killed(&mut world);
            }
            // The file of the last record is listed, too.
            for number in 0..MAX_FAILED - 2 + usize::from(too_many) {
                world.disk.replace(&format!("audit-000-{:08}.jsonl", number + 2), b"void");
            }
            let (node, found) = reopened(&mut world);
            assert_eq!(found.left_alone, too_many, "{found:?}");
            assert_eq!(found.message.contains("too many files"), too_many, "{found:?}");
            assert_eq!(node.queue.gauges.head().unwrap().chain(), u16::from(too_many));
        }
    }
}

#[test]
fn a_line_of_a_later_format_inside_a_file_is_no_reason_to_leave_a_chain_alone() {
    let mut world = World::new(1);
    let mut file = killed(&mut world).concat();
    let last = file.strip_suffix(b"\n").unwrap().rsplit(|byte| *byte == b'\n').next().unwrap();
    let (seq, hash) = LineParser::default().parse(last).map(|line| (line.seq, line.hash)).unwrap();
    let bytes = file.len();
    seal(&mut file, seq + 1, b",\"kind\":\"segment\",\"segment\":{\"format\":2}", None, &hash);
    world.disk.replace(FIRST, &file);
    recovered(&mut world, "torn", bytes, file.len() - bytes);
}
