//! Reading real directories while others write, rotate and prune.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, FlushMode, ReadItem, ReadItems, Reader, Record, Rotation, read};

use crate::support::{child, fresh, segments, with_layer};

/// What a follower has seen of a log.
#[derive(Default)]
struct Seen {
    /// The last record of each chain.
    last: BTreeMap<u16, Record>,
    records: u64,
    /// The last missing record of each chain, and the number of gaps.
    missing: BTreeMap<u16, u64>,
    gaps: u64,
}

impl Seen {
    /// Checks an item: each record follows the last of its chain by number and by hash, unless a gap is between them.
    fn take(&mut self, item: ReadItem) {
        match item {
            ReadItem::Record(record) => {
                assert!(!record.is_provisional());
                if let Some(last) = self.last.get(&record.chain()) {
                    let previous = record.get("_prev_hash").and_then(|hash| hash.as_str()).unwrap();
                    let missing = self.missing.get(&record.chain());
                    if missing.is_some_and(|missing| missing + 1 == record.seq()) {
                        assert!(last.seq() < record.seq());
                    } else {
                        assert_eq!(last.seq() + 1, record.seq());
                        assert_eq!(last.hash().to_string(), previous);
                    }
                }
                self.records += 1;
                self.last.insert(record.chain(), record);
            }
            ReadItem::Gap { chain, first_seq, last_seq, .. } => {
                assert_eq!(self.last.get(&chain).map_or(0, Record::seq) + 1, first_seq);
                self.missing.insert(chain, last_seq);
                self.gaps += 1;
            }
            item => panic!("{item:?}"),
        }
    }

    /// Reads until it has the last record of each chain.
    fn read_to(&mut self, items: &mut ReadItems, ends: &BTreeMap<u16, u64>) {
        let begun = Instant::now();
        while self
            .last
            .iter()
            .map(|(chain, last)| (*chain, last.seq()))
            .ne(ends.iter().map(|(c, s)| (*c, *s)))
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "{ends:?}");
            if let Some(item) = items.next_within(Duration::from_millis(100)) {
                self.take(item.unwrap());
            }
        }
    }
}

fn follow(log: &Path) -> ReadItems {
    Reader::new(log).durable_only(true).follow(true).items().unwrap()
}

/// Returns the resident memory of this process, see `proc_pid_status(5)`.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// Takes 3 s, or as many seconds as `AUDIT_FOLLOW_SECONDS` has.
#[test]
fn a_follower_gets_every_durable_record_once_while_four_processes_write_rotate_and_prune() {
    let seconds = std::env::var("AUDIT_FOLLOW_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(3));
    let (_dir, log) = fresh();
    AuditLog::open(&log).unwrap().close().unwrap();
    let (mut items, mut lazy) = (follow(&log), follow(&log));
    // This follower reads nothing until everything is over, and so gets only what retention left.
    let mut late = Seen::default();
    late.take(lazy.next().unwrap().unwrap());
    let begun = Instant::now();
    let left = || length.saturating_sub(begun.elapsed()).as_millis().to_string();
    let start = || child("churn", &log, &[&left()]).spawn().unwrap();
    let mut writers: Vec<_> = (0..4).map(|_| start()).collect();
    let mut seen = Seen::default();
    let mut kills = 0;
    let mut early = None;
    while begun.elapsed() < length {
        if let Some(item) = items.next_within(Duration::from_millis(20)) {
            seen.take(item.unwrap());
        }
        if begun.elapsed() > length / 5 {
            early.get_or_insert_with(resident_kib);
        }
        // One writer is killed repeatedly, and its chain recovered by the next opener.
        if begun.elapsed() > Duration::from_millis(700) * (kills + 1) {
            let mut killed = std::mem::replace(&mut writers[0], start());
            killed.kill().unwrap();
            killed.wait().unwrap();
            kills += 1;
        }
    }
    if let (Some(early), Some(_)) = (early, seconds) {
        // Only in a run of its own: beside other tests of this process, the figure means nothing.
        let late = resident_kib();
        println!("resident: {early} KiB after a fifth of the time, {late} KiB at the end");
        assert!(late < early + (16 << 10), "{early} KiB, then {late} KiB");
    }
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    // Recovers every chain.
    AuditLog::open(&log).unwrap().close().unwrap();
    let mut ends = BTreeMap::new();
    let mut begins = BTreeMap::new();
    for record in read(&log).unwrap().map(Result::unwrap) {
        begins.entry(record.chain()).or_insert(record.seq());
        ends.insert(record.chain(), record.seq());
    }
    seen.read_to(&mut items, &ends);
    late.read_to(&mut lazy, &ends);
    println!(
        "{} chains, {} records, {} gaps; late: {} records, {} gaps; {kills} kills",
        ends.len(),
        seen.records,
        seen.gaps,
        late.records,
        late.gaps
    );
    assert!(late.gaps > 0, "retention removed nothing");
    for (chain, missing) in seen.missing.iter().chain(&late.missing) {
        assert!(missing < &begins[chain], "{missing} of chain {chain} is missing and was not pruned");
    }
}

/// With 4 MiB, or a log of `AUDIT_LARGE_LOG_MIB`, for which it also checks the time to find the first record.
#[test]
fn the_starting_position_is_found_quickly_in_a_large_log() {
    let mib: Option<u64> = std::env::var("AUDIT_LARGE_LOG_MIB").ok().and_then(|text| text.parse().ok());
    let (_dir, path) = fresh();
    let hour = Duration::from_secs(3600);
    let log = AuditLog::builder(&path)
        .rotation(Rotation::never().max_bytes(256 << 20))
        .flush_mode(FlushMode::Batched { size: 100_000, interval: hour })
        .open()
        .unwrap();
    let events = mib.unwrap_or(4) << 10;
    with_layer(&log, || {
        let message = "x".repeat(640);
        for number in 0..events {
            tracing::info!(target: "audit", action = "a", actor = "b", number, "{message}");
        }
    });
    let head = log.close().unwrap();
    let bytes: u64 = segments(&path).iter().map(|file| file.metadata().unwrap().len()).sum();
    println!("{bytes} bytes in {} files, {} records", segments(&path).len(), head.seq());
    let timed = |what: &str, reader: Reader, records: usize| {
        let mut times: Vec<Duration> = Vec::new();
        let mut first = 0;
        for _ in 0..9 {
            let begun = Instant::now();
            let records: Vec<Record> =
                reader.clone().records().unwrap().take(records).map(Result::unwrap).collect();
            times.push(begun.elapsed());
            first = records[0].seq();
        }
        times.sort();
        println!("{what}: median {:?}, most {:?}", times[4], times[8]);
        // Starting at a time reads from ten minutes earlier, which is all of this log.
        let is_far = mib.is_none() || what == "since a time";
        assert!(is_far || times[4] < Duration::from_millis(50), "{what}: {times:?}");
        first
    };
    let middle = head.seq() / 2;
    assert_eq!(timed("the last ten", Reader::new(&path).last(10), 10), head.seq() - 9);
    assert_eq!(timed("the last ten backward", Reader::new(&path).last(10).reverse(true), 10), head.seq());
    assert_eq!(timed("a record", Reader::new(&path).from_seq(middle), 1), middle);
    let receipt = Reader::new(&path).from_seq(middle).records().unwrap().next().unwrap().unwrap();
    assert_eq!(timed("behind a head", Reader::new(&path).after(receipt.head()), 1), middle + 1);
    let late = receipt.time().unwrap();
    timed("since a time", Reader::new(&path).since(late + Duration::from_millis(1)), 1);
}
