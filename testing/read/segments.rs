//! The files of a log, for programs that search them themselves.

use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    clock::Timestamp,
    read::{Segment, segments::segments_of},
    storage::Storage,
};

fn segments(log: &Log) -> Vec<Segment> {
    let storage: Arc<dyn Storage> = Arc::new(log.clone());
    segments_of(&storage, Path::new("/log")).unwrap()
}

/// Returns the lines of what counts of a file, up to the last durable record.
fn records_in(log: &Log, segment: &Segment) -> Vec<Record> {
    let bytes = &log.files[&name(segment.chain(), segment.number())];
    let counted = &bytes[..usize::try_from(segment.counted_bytes()).unwrap()];
    let mut offset = 0;
    let mut records = Vec::new();
    for line in counted.split_inclusive(|byte| *byte == b'\n') {
        records.extend(segment.record(offset, line.strip_suffix(b"\n").unwrap_or(line)));
        offset += line.len() as u64;
    }
    records.retain(|record| !record.is_provisional());
    records
}

#[test]
fn what_counts_of_each_file_is_what_a_reader_returns() {
    let time = |text: &str| Timestamp::parse(text.as_bytes()).unwrap();
    let times = (time("2026-11-21T08:00:00.000000000Z"), time("2026-11-21T09:00:00.000000000Z"));
    let one = Chain::new(0).events(3);
    let counted = one.segments[&1].len() as u64;
    let one = one.segment(vec![After::counted(1, counted, Some(times))]).events(2).close();
    let mut log = Log::of(&[&one, &Chain::new(7).events(4)]);
    // Void bytes behind what counts.
    log.file(0, 1).extend_from_slice(b"{\"seq\":99}\n");
    let all = segments(&log);
    let said: Vec<_> = all
        .iter()
        .map(|segment| (segment.chain(), segment.number(), segment.counted_bytes() == segment.bytes()))
        .collect();
    assert_eq!(said, [(0, 1, false), (0, 2, true), (7, 1, true)]);
    assert_eq!((all[0].counted_bytes(), all[0].first_seq()), (counted, Some(1)));
    assert_eq!(all[0].times(), Some((times.0.to_system_time(), times.1.to_system_time())));
    assert_eq!((all[1].times(), all[1].chain_id() == all[0].chain_id()), (None, true));
    assert_eq!(all[0].path(), Path::new("/log/audit-000-00000001.jsonl"));

    let searched: Vec<Record> = all.iter().flat_map(|segment| records_in(&log, segment)).collect();
    let mut read: Vec<Record> = records(&log).into_iter().map(Result::unwrap).collect();
    read.retain(|record| !record.is_provisional());
    read.sort_by_key(|record| (record.chain(), record.seq()));
    assert_eq!(searched, read);
    assert!(searched.iter().zip(&read).all(|(one, other)| one.offset() == other.offset()));
}

#[test]
fn a_line_that_does_not_match_its_hash_is_not_a_record() {
    let mut log = Log::of(&[&Chain::new(0).events(3).close()]);
    let all = segments(&log);
    assert_eq!(records_in(&log, &all[0]).len(), 6);
    log.edit(0, 1, |lines| lines[3][40] ^= 1);
    assert_eq!(records_in(&log, &all[0]).len(), 5);
    assert!(all[0].record(0, b"").is_none());
}
