//! A reader that begins at a position, or reads backward, returns the same as a reader of everything returns there.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::super::{Reader, read};
use crate::{
    Error, Record,
    format::After,
    storage::{Storage, sim::Prng},
    verify::tests::log::{Chain, Log, name},
};

fn reader() -> Reader {
    Reader::new("/log")
}

fn records(log: &Log, reader: Reader) -> Vec<Record> {
    let storage: Arc<dyn Storage> = Arc::new(log.clone());
    reader.records_of(storage).unwrap().map(Result::unwrap).collect()
}

/// Returns a chain with rotations, void bytes, files without a good line, and records that are not durable.
fn random_chain(number: u16, random: &mut Prng) -> Chain {
    let mut chain = Chain::new(number);
    for _ in 0..random.below(6) {
        for _ in 0..random.below(30) {
            let padding = "x".repeat(if random.chance(60) { 20_000 } else { random.below(300) });
            let durable = random.chance(600).then_some(chain.seq);
            chain = chain.event_marked(&padding, durable);
        }
        chain = match random.below(4) {
            0 => chain.roll(),
            1 => {
                let bytes = chain.segments[&chain.segment].len() as u64;
                let lost = chain.clone().event_marked("lost", None).event_marked("lost too", None);
                let claims = vec![After::counted(chain.segment, bytes, None)];
                Chain { segments: lost.segments, ..chain }.segment(claims)
            }
            2 => {
                let (segment, bytes) = (chain.segment, chain.segments[&chain.segment].len() as u64);
                chain.segment += 1;
                chain.segments.insert(chain.segment, b"{\"seq\":".to_vec());
                chain.segment(vec![
                    After::counted(segment, bytes, None),
                    After::nothing(segment + 1, segment + 1),
                ])
            }
            _ => chain.close().open(),
        };
    }
    chain
}

fn random_log(seed: u64) -> Log {
    let mut random = Prng::new(seed);
    let chains: Vec<Chain> = (0..=random.below(3))
        .map(|number| random_chain(u16::try_from(number).unwrap(), &mut random))
        .collect();
    let mut log = Log::of(&chains.iter().collect::<Vec<_>>());
    for chain in &chains {
        let file = log.file(chain.number.get(), chain.segment);
        match random.below(4) {
            0 => file.extend_from_slice(b"{\"seq\":7,\"ts\":\"2026"),
            1 => {
                // A torn line with good ones behind it, which were never durable.
                let more =
                    chain.clone().event_marked("a", None).event_marked("b", None).event_marked("c", None);
                let mut torn = more.segments[&chain.segment][file.len()..].to_vec();
                torn[20] ^= 1;
                file.extend_from_slice(&torn);
            }
            2 => drop(log.files.insert(name(chain.number.get(), chain.segment + 1), b"{".to_vec())),
            _ => {}
        }
    }
    log
}

/// A torn tail is determined from the last durable record on, however long it is.
#[test]
fn nothing_is_found_by_number_or_time_in_a_long_torn_tail() {
    let durable = Chain::new(0).events(5).mark();
    let mut torn = durable.clone();
    for _ in 0..300 {
        torn = torn.event_marked(&"x".repeat(2_000), None);
    }
    let mut log = Log::of(&[&torn]);
    let file = log.file(0, 1);
    let bad = durable.segments[&1].len() + 20;
    file[bad] ^= 1;
    assert!(file.len() > 600_000);
    let all = records(&log, reader());
    assert_eq!(all.last().unwrap().seq(), durable.seq);
    for seq in [durable.seq + 1, durable.seq + 2, durable.seq + 200, torn.seq] {
        assert_eq!(records(&log, reader().from_seq(seq)), [], "{seq}");
    }
    let late = all.last().unwrap().time().unwrap() + std::time::Duration::from_secs(3600);
    assert_eq!(records(&log, reader().since(late)), []);
}

#[test]
fn every_way_to_begin_returns_the_same_part_of_the_log() {
    for seed in 0..250 {
        let log = random_log(seed);
        let mut random = Prng::new(seed + 1_000_000);
        let all = records(&log, reader());
        let cut = |keep: &dyn Fn(&Record) -> bool| {
            all.iter().filter(|record| keep(record)).cloned().collect::<Vec<_>>()
        };
        let mut backward = records(&log, reader().reverse(true));
        backward.reverse();
        assert_eq!(backward, all, "seed {seed}, reverse");
        let durable = cut(&|record| !record.is_provisional());
        assert_eq!(records(&log, reader().durable_only(true)), durable, "seed {seed}, durable");
        let mut backward = records(&log, reader().durable_only(true).reverse(true));
        backward.reverse();
        assert_eq!(backward, durable, "seed {seed}, durable and reverse");
        for _ in 0..8 {
            let some = &all[random.below(all.len())];
            let (seq, time) = (some.seq(), some.time().unwrap());
            let expected = cut(&|record| record.seq() >= seq);
            assert_eq!(records(&log, reader().from_seq(seq)), expected, "seed {seed}, from {seq}");
            let expected = cut(&|record| record.time() >= Some(time));
            assert_eq!(records(&log, reader().since(time)), expected, "seed {seed}, since {time:?}");
            let mut backward = records(&log, reader().since(time).reverse(true));
            backward.reverse();
            assert_eq!(backward, expected, "seed {seed}, since {time:?} and reverse");
            let expected = cut(&|record| record.chain() != some.chain() || record.seq() > seq);
            assert_eq!(records(&log, reader().after(some.head())), expected, "seed {seed}, after {seq}");
            let expected = cut(&|record| record.chain() == some.chain());
            assert_eq!(records(&log, reader().chain(some.chain())), expected, "seed {seed}, chain");
            let last = random.below(all.len() + 3);
            let expected = &all[all.len().saturating_sub(last)..];
            assert_eq!(records(&log, reader().last(last as u64)), expected, "seed {seed}, last {last}");
            let mut backward = records(&log, reader().last(last as u64).reverse(true));
            backward.reverse();
            assert_eq!(backward, expected, "seed {seed}, last {last} and reverse");
        }
    }
}

#[test]
fn a_record_knows_its_position() {
    for seed in 0..20 {
        let log = random_log(seed);
        for record in records(&log, reader()).iter().chain(&records(&log, reader().reverse(true).last(9))) {
            let file = &log.files[&record.file_name()];
            let line = &file[usize::try_from(record.offset()).unwrap()..];
            assert!(line.starts_with(format!("{}\n", record.as_json()).as_bytes()), "seed {seed}");
        }
    }
}

/// A log of 12 MB in long lines, in three segments. Reading from a time begins up to ten minutes, here 60 records,
/// earlier.
#[test]
fn what_precedes_the_position_is_not_read() {
    let mut chain = Chain::new(0);
    for _ in 0..30 {
        for _ in 0..20 {
            chain = chain.event(&"x".repeat(20_000));
        }
        if chain.segment < 3 {
            chain = chain.roll();
        }
    }
    let log = Log::of(&[&chain]);
    assert!(log.file_bytes() > 11 << 20);
    let middle = chain.seq - 200;
    let at = records(&log, reader().from_seq(middle))[0].time().unwrap();
    let late = at + std::time::Duration::from_secs(700);
    for (what, reader, limit) in [
        ("the last ten", reader().last(10), 2_000_000),
        ("the last ten backward", reader().last(10).reverse(true), 1_200_000),
        ("a record", reader().from_seq(middle), 1_500_000),
        ("a time", reader().since(late), 3_000_000),
        ("behind a head", reader().after(chain.head_at(middle)), 1_500_000),
    ] {
        let log = log.clone();
        let read = Arc::clone(&log.read_bytes);
        let first = reader.records_of(Arc::new(log)).unwrap().next().unwrap().unwrap();
        assert!(first.seq() >= middle, "{what}: {}", first.seq());
        let read = read.load(Ordering::Relaxed);
        assert!(read < limit, "{what}: {read} bytes");
    }
}

#[test]
fn the_record_to_begin_after_must_exist() {
    let chain = Chain::new(0).events(9).roll().events(9);
    let other = Chain::new(0).events(8).event("another").roll().events(9);
    let log = Log::of(&[&chain]);
    let open = |log: &Log, head| reader().after(head).records_of(Arc::new(log.clone()));
    for seq in 1..=chain.seq {
        assert_eq!(open(&log, chain.head_at(seq)).unwrap().count() as u64, chain.seq - seq);
    }
    for head in [other.head_at(11), other.head_at(12), chain.clone().events(1).head(), Chain::new(1).head()] {
        let error = open(&log, head).unwrap_err();
        assert!(matches!(&error, Error::NoSuchRecord { head: named, .. } if *named == head), "{error}");
    }
    // That record was pruned. The link of the first record left confirms the head; beyond that, there is a gap.
    let pruned = chain.prune(11, (1, 1));
    let mut log = Log::of(&[&pruned]);
    log.files.remove(&name(0, 1));
    assert_eq!(open(&log, pruned.head_at(11)).unwrap().count(), 11);
    open(&log, other.head_at(11)).unwrap_err();
    let mut items = reader().after(pruned.head_at(4)).items_of(Arc::new(log)).unwrap();
    let gap = items.next().unwrap().unwrap();
    assert!(matches!(gap, crate::ReadItem::Gap { chain: 0, first_seq: 5, last_seq: 11, .. }), "{gap:?}");
    assert_eq!(items.filter_map(|item| item.unwrap().into_record()).count(), 11);
}

#[test]
fn impossible_settings_are_refused() {
    let log = Log::of(&[&Chain::new(0).events(2)]);
    let open = |reader: Reader| reader.records_of(Arc::new(log.clone())).map(Iterator::count);
    for bad in ["", "x", "1000", "0000", "+1", "-1"] {
        assert!(matches!(open(reader().chain(bad)), Err(Error::Parse(_))), "{bad}");
    }
    for good in ["0", "00", "000"] {
        assert_eq!(open(reader().chain(good)).unwrap(), 4);
    }
    assert_eq!(open(reader().chain(7)).unwrap(), 0);
    let head = Chain::new(0).head();
    for reader in
        [reader().reverse(true).after(head), reader().reverse(true).follow(true), reader().follow(true)]
    {
        assert!(matches!(open(reader), Err(Error::Setting { .. })));
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read(dir.path()), Err(Error::NoLog { .. })));
    assert!(matches!(read(Path::new("/none/such")), Err(Error::NoLog { .. })));
}

/// A bad line in the middle is reported with its right number, wherever reading began.
#[test]
fn a_bad_line_is_reported_from_both_sides() {
    let mut log = Log::of(&[&Chain::new(0).events(400)]);
    log.edit(0, 1, |lines| lines[300][20] ^= 1);
    let bad = |reader: Reader| {
        let records: Vec<_> = reader.records_of(Arc::new(log.clone())).unwrap().collect();
        let errors = records.iter().filter_map(|record| Some(record.as_ref().err()?.to_string()));
        let errors: Vec<String> = errors.collect();
        assert_eq!(errors, ["line 301 of /log/audit-000-00000001.jsonl is not a record; verify the log"]);
        records.len()
    };
    assert_eq!((bad(reader()), bad(reader().reverse(true)), bad(reader().from_seq(290))), (402, 402, 113));
}

/// Of two chains that began with a bad line, reading once continued only with one.
#[test]
fn two_chains_that_begin_badly_are_both_read() {
    let mut log = Log::of(&[&Chain::new(0).events(3), &Chain::new(1).events(3)]);
    for chain in [0, 1] {
        log.edit(chain, 1, |lines| lines[0][20] ^= 1);
    }
    let records: Vec<_> = reader().records_of(Arc::new(log)).unwrap().collect();
    assert_eq!((records.len(), records.iter().filter(|record| record.is_err()).count()), (10, 2));
}
