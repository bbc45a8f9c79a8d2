//! Reading logs that were crafted by hand, and logs that change in the meantime.

mod damaged;
mod following;
mod looks;
mod places;
mod segments;

use std::sync::Arc;

use crate::{
    Error, Record, RecordKind,
    chain_reader::{Chunk, Chunks, open_segment},
    format::After,
    segment_name::SegmentName,
    verify::tests::log::{Chain, Log, name},
};

fn records(log: &Log) -> Vec<Result<Record, Error>> {
    crate::Reader::new("/log").records_of(Arc::new(log.clone())).unwrap().collect()
}

fn seqs(log: &Log) -> Vec<(u16, u64)> {
    records(log)
        .into_iter()
        .map(|record| record.map(|record| (record.chain(), record.seq())).unwrap())
        .collect()
}

#[test]
fn chains_are_merged_by_time() {
    let one = Chain::new(0).events(2);
    let two = Chain::new(1).events(3);
    let log = Log::of(&[&one, &two]);
    // Both have a record every 10 s, those of the second chain one second later.
    let expected = [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4), (1, 5)];
    assert_eq!(seqs(&log), expected);
}

#[test]
fn a_record_has_the_contents_of_its_line() {
    let chain = Chain::new(0).event("key.export").close();
    let records: Vec<Record> = records(&Log::of(&[&chain])).into_iter().map(Result::unwrap).collect();
    let event = &records[2];
    assert_eq!((event.seq(), event.kind(), event.action()), (3, RecordKind::Event, Some("key.export")));
    assert_eq!((event.actor(), event.severity(), event.field("x")), (None, None, None));
    assert_eq!(event.timestamp(), Some("2026-11-21T08:00:30.000000005Z"));
    assert!(event.time().is_some());
    assert_eq!(event.head(), chain.head_at(3));
    assert!(event.as_json().starts_with("{\"seq\":3,") && event.as_json().ends_with("\"}"));
    let open = records[1].get("open").unwrap();
    assert_eq!(open.get("pid").and_then(crate::Value::as_i64), Some(42));
    assert!(records.iter().all(|record| !record.is_provisional()));
}

#[test]
fn escapes_do_not_change_the_contents_of_a_record() {
    let fields = r#""redacted":["message","actor"],"fields":{"actor":"inner","n":[{"x":1}]}"#;
    let plain = format!(r#","kind":"event","action":"a",{fields},"message":"ü""#);
    let escaped = format!(r#","kind":"\u0065vent","\u0061ction":"\u0061",{fields},"message":"\u00fc""#);
    let chain = Chain::new(0).put(plain.as_bytes(), None).put(escaped.as_bytes(), None);
    let records: Vec<Record> = records(&Log::of(&[&chain])).into_iter().map(Result::unwrap).collect();
    for record in &records[2..] {
        assert!(record.is_event());
        assert_eq!((record.action(), record.actor(), record.message()), (Some("a"), None, Some("ü")));
        assert_eq!(record.field("actor").and_then(crate::Value::as_str), Some("inner"));
        assert_eq!((record.fields().count(), record.get("seq").is_some()), (2, true));
        assert_eq!((record.timestamp(), record.time()), (None, None));
    }
    assert_eq!((records.len(), records[2] == records[3]), (4, false));
}

/// Buffers are reused without being cleared: their old contents must never show.
#[test]
fn a_reused_buffer_reads_like_a_new_one() {
    let mut log = Log::of(&[&Chain::new(0).events(2_000)]);
    log.file(0, 1).extend_from_slice(&vec![b'x'; 300_000]);
    log.file(0, 1).extend_from_slice(b"\nshort\nhalf a line");
    let pieces = |buffer: fn() -> Vec<u8>| {
        let file = open_segment(&log, SegmentName::parse(&name(0, 1)).unwrap()).unwrap().unwrap();
        let mut pieces = Chunks::new(file, 0, u64::MAX);
        std::iter::from_fn(|| pieces.next(buffer()).unwrap()).collect::<Vec<_>>()
    };
    let expected = pieces(Vec::new);
    assert!(matches!(expected.last(), Some(Chunk::Unfinished { length: 11, .. })), "{:?}", expected.last());
    assert!(expected.len() > 4);
    assert_eq!(pieces(|| vec![b'\n'; 2_000_000]), expected);
    assert_eq!(pieces(|| vec![b'x'; 1_000]), expected);
}

#[test]
fn a_record_not_known_to_be_durable_is_provisional() {
    let chain = Chain::new(0).events(2).event_marked("x", None).event_marked("y", None);
    let provisional: Vec<bool> =
        records(&Log::of(&[&chain])).into_iter().map(|record| record.unwrap().is_provisional()).collect();
    assert_eq!(provisional, [false, false, false, true, true, true]);
    // The mark is far from the end, before records that are longer than the first window.
    let mut chain = Chain::new(0).events(2);
    for _ in 0..10 {
        chain = chain.event_marked(&"x".repeat(50_000), None);
    }
    assert_eq!(
        records(&Log::of(&[&chain]))
            .iter()
            .filter(|record| record.as_ref().unwrap().is_provisional())
            .count(),
        11
    );
}

#[test]
fn void_bytes_are_skipped() {
    let chain = Chain::new(0).events(3);
    let bytes = chain.segments[&1].len() as u64;
    let lost = chain.clone().event_marked("lost", None);
    let next = Chain { segments: lost.segments, ..chain };
    let next = next.segment(vec![After::counted(1, bytes, None)]).event("lost");
    let expected: Vec<(u16, u64)> = (1..=7).map(|seq| (0, seq)).collect();
    assert_eq!(seqs(&Log::of(&[&next])), expected);
}

#[test]
fn bad_lines_are_errors_and_a_torn_tail_is_the_end() {
    let chain = Chain::new(0).events(3).roll().events(3).event_marked("x", None).event_marked("y", None);
    let mut log = Log::of(&[&chain]);
    log.edit(0, 2, |lines| lines[1][20] ^= 1);
    log.file(0, 1).extend_from_slice(b"no record\n");
    let all = records(&log);
    let bad: Vec<String> = all.iter().filter_map(|record| Some(record.as_ref().err()?.to_string())).collect();
    // What was appended to segment 1 does not count.
    assert_eq!(bad, ["line 2 of /log/audit-000-00000002.jsonl is not a record; verify the log"]);
    assert_eq!(all.len(), 11);
    log.edit(0, 2, |lines| lines[4][20] ^= 1);
    assert_eq!(records(&log).len(), 9);
    log.file(0, 2).truncate(100);
    log.files.insert(name(0, 3), vec![b'x'; 3_000_000]);
    // The bytes behind the torn line are not a segment, so the chain ends with its fifth record.
    assert_eq!(records(&log).len(), 5);
}

/// A process that recovered a torn chain was killed after it had created the new segment and before it wrote to it.
/// The torn line, now in the last file but one, was returned as an error, while verification rightly called the log
/// unclean. Found by `ci/faults kill-at-open`.
#[test]
fn a_torn_tail_is_the_end_even_if_a_recovery_died_before_its_first_line() {
    let chain = Chain::new(0).events(3);
    let mut log = Log::of(&[&chain]);
    log.file(0, 1).extend_from_slice(b"{\"seq\":6,\"ts\":\"2026-");
    for stillborn in [&b""[..], b"{\"seq\":6,\"ts\""] {
        log.files.insert(name(0, 2), stillborn.to_vec());
        assert_eq!(seqs(&log), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    }
}

/// A run of lines with higher numbers in front of durable records once ended reading there.
#[test]
fn durable_records_behind_lines_out_of_place_are_returned() {
    let chain = Chain::new(0).events(6);
    let mut log = Log::of(&[&chain]);
    let far = Chain { seq: 900, ..Chain::new(0) }.event_marked("far", None).event_marked("further", None);
    let far = far.segments[&1].split_inclusive(|byte| *byte == b'\n').skip(2).map(Vec::from);
    let far: Vec<Vec<u8>> = far.collect();
    log.edit(0, 1, |lines| drop(lines.splice(4..4, far)));
    let records = records(&log);
    let bad = records.iter().filter(|record| record.is_err()).count();
    let seqs: Vec<u64> = records.iter().flatten().map(Record::seq).collect();
    // Two lines that do not belong there are returned, and each durable record behind them is an error.
    assert_eq!((seqs, bad), (vec![1, 2, 3, 4, 901, 902], 3));
}
