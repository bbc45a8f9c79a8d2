//! How far a chain was durable, and whether an anomaly is therefore damage or a torn end.
//!
//! docs/format.md, section 6, specifies the rules.

use std::borrow::Cow;

use super::{
    anomaly::{Anomaly, Fault, Last},
    follow::{Follow, missing_records},
    layout::SegmentFile,
};
use crate::{chain::Digest, format::RecordKind};

/// What is known to have been durable of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Durable {
    /// The last record that retention removed or that is trusted, and its hash. The chain is judged from the
    /// next record on.
    pub(crate) floor: (u64, Digest),
    /// The last record known to have been durable: M in docs/format.md.
    pub(crate) through: u64,
}

impl Durable {
    /// Determines how far a chain was durable from its own lines, the look of its files, what is trusted, and what
    /// others claim about it.
    pub(crate) fn of(
        follow: &Follow,
        files: &[SegmentFile],
        trusted: Option<(u64, Digest)>,
        claimed: impl IntoIterator<Item = u64>,
    ) -> Self {
        let floor = [follow.control.pruned, trusted].into_iter().flatten().max_by_key(|(seq, _)| *seq);
        let floor = floor.unwrap_or((0, Digest::ZERO));
        let own = durable_by_itself(follow).max(floor.0).max(follow.durable_by_looks(files));
        Self { floor, through: claimed.into_iter().fold(own, u64::max) }
    }

    /// Returns whether an anomaly is damage; otherwise it is part of a torn end.
    pub(crate) fn makes_damage(&self, anomaly: &Anomaly) -> bool {
        anomaly.is_certain || anomaly.at <= self.through
    }

    /// Returns the part of the anomaly above what was removed or is trusted.
    pub(crate) fn above_floor<'a>(&self, anomaly: &'a Anomaly) -> Option<Cow<'a, Anomaly>> {
        let (through, hash) = self.floor;
        if anomaly.at > through {
            return Some(Cow::Borrowed(anomaly));
        }
        let (Fault::Missing, Some((_, last))) = (anomaly.fault, anomaly.records) else { return None };
        let mut rest = anomaly.clone();
        if last > through {
            rest.records = Some((through + 1, last));
            rest.message = missing_records(last - through);
            return Some(Cow::Owned(rest));
        }
        // Everything up to the last removed record is missing: the line must link to that record.
        (last == through && anomaly.link != Some(hash)).then(|| {
            rest.fault = Fault::BrokenLink;
            rest.message = format!("the line does not link to record {through}, the last that was removed");
            Cow::Owned(rest)
        })
    }
}

/// Returns how far the chain's own lines state that it was durable: its marks, and a good `close` at its end.
pub(crate) fn durable_by_itself(follow: &Follow) -> u64 {
    // Nothing is written behind a `close` before it is durable, and `close` returns only after it was synced.
    let closed = follow.good.last.filter(|last| last.kind == RecordKind::Close).map_or(0, |last| last.seq);
    follow.control.mark.max(closed)
}

/// How recovery continues a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoOn {
    /// The last record that counts.
    pub(crate) last: Last,
    /// The file in which the valid part ends, and how many of its bytes count.
    pub(crate) segment: u32,
    pub(crate) end: u64,
    /// The first durable record that is bad or missing.
    pub(crate) damaged: Option<u64>,
    /// Whether any bytes follow the valid part.
    pub(crate) is_torn: bool,
}

/// Decides where to continue a chain whose last files were followed, the first of them from its good first line on.
/// Returns `None` where it ends below what was durable: then the chain must be left alone.
///
/// Nothing that was durable or that shows damage becomes void, so verification reports the same before and after
/// recovery.
pub(crate) fn go_on(follow: &Follow, durable: &Durable, files: &[SegmentFile]) -> Option<GoOn> {
    // A chain that ends below a durable record has lost it. To continue would give its number to another record.
    let last = follow.good.last.filter(|last| last.seq >= durable.through)?;
    let mut damaged: Option<u64> = None;
    let mut torn: Option<&Anomaly> = None;
    let mut shows_damage_behind = false;
    for anomaly in follow.anomalies.kept().iter().filter(|anomaly| durable.above_floor(anomaly).is_some()) {
        if durable.makes_damage(anomaly) {
            damaged = Some(damaged.map_or(anomaly.at, |first| first.min(anomaly.at)));
            shows_damage_behind |= torn.is_some();
        } else if is_missing_record(anomaly, damaged, durable) {
            shows_damage_behind |= torn.is_some();
        } else {
            torn = torn.or(Some(anomaly));
        }
    }
    // The positions of anomalies that were not kept are unknown, so they are assumed to be behind the torn part.
    if follow.anomalies.damage_beyond(durable.through).is_some() {
        damaged = damaged.or(Some(durable.through));
        shows_damage_behind = true;
    }
    // Everything from the first bad byte above the mark is torn, including good lines behind it.
    let cut = torn.filter(|_| !shows_damage_behind).and_then(|torn| {
        let last = torn.before.last.filter(|last| last.seq >= durable.through)?;
        let (segment, end) = end_before(torn, files)?;
        Some(GoOn { last, segment, end, damaged, is_torn: true })
    });
    if cut.is_none() && torn.is_some() && damaged.is_none() {
        // The torn part cannot be cut off. Without damage to report, it must not count either.
        return None;
    }
    cut.or_else(|| {
        // Nothing is cut off: the chain continues at the end of the newest file with any bytes.
        let newest = files.iter().rfind(|file| file.bytes > 0)?;
        Some(GoOn { last, segment: newest.name.segment, end: newest.bytes, damaged, is_torn: false })
    })
}

/// Returns whether a chain whose files have no good first line was never durable: then everything in them is torn.
pub(crate) fn is_all_torn(follow: &Follow, durable: &Durable) -> bool {
    let anomalies = follow.anomalies.kept();
    let is_from_the_first = anomalies.first().is_none_or(|first| first.before.last.is_none());
    let is_damaged = anomalies.iter().any(|anomaly| durable.makes_damage(anomaly))
        || follow.anomalies.damage_beyond(durable.through).is_some();
    durable.through == 0 && is_from_the_first && !is_damaged
}

/// Returns whether a line out of place is a durable record that may be missing where it belongs: it must not become
/// void. Any other such line may be stale content of a torn sector.
fn is_missing_record(anomaly: &Anomaly, damaged: Option<u64>, durable: &Durable) -> bool {
    let (Some((seq, _)), Some(first)) = (anomaly.records, damaged) else { return false };
    anomaly.fault.is_out_of_place() && first <= seq && seq <= durable.through
}

/// Returns the file and the offset at which the content before an anomaly ends.
fn end_before(anomaly: &Anomaly, files: &[SegmentFile]) -> Option<(u32, u64)> {
    let position = anomaly.position;
    if position.offset > 0 {
        return Some((position.segment, position.offset));
    }
    let counted = |file: &SegmentFile| file.counted.unwrap_or(file.bytes);
    // The anomaly begins its file, so the content before it ends in an earlier file that counts.
    let before = files.iter().rfind(|file| file.name.segment < position.segment && counted(file) > 0)?;
    Some((before.name.segment, counted(before)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::first_line::{Beginning, open_segment},
        *,
    };
    use crate::{
        segment_name::{ChainNumber, SegmentName},
        verify::tests::log::{Chain, Log},
    };

    const CHAIN: ChainNumber = ChainNumber::FIRST;

    /// The outcome for the files of a log, given a claim of others that a record was durable.
    struct Judged {
        follow: Follow,
        durable: Durable,
        go_on: Option<GoOn>,
    }

    fn judged(log: &Log, files: &[u32], claimed: u64) -> Judged {
        let file = |segment: &u32| {
            let name = SegmentName { chain: CHAIN, segment: *segment };
            let file = open_segment(log, name).unwrap().unwrap();
            let bytes = log.files[&name.to_string()].len() as u64;
            let first = Beginning::read(file.as_ref(), name, bytes).unwrap();
            SegmentFile::unclaimed(name, bytes, &first)
        };
        let files: Vec<SegmentFile> = files.iter().map(file).collect();
        let follow = Follow::through(log, CHAIN, &files, None, &[]).unwrap();
        let durable = Durable::of(&follow, &files, None, [claimed]);
        let go_on = go_on(&follow, &durable, &files);
        Judged { follow, durable, go_on }
    }

    /// Compares the last record that counts, where it ends, the first damaged record, and whether the rest is torn.
    #[track_caller]
    fn check(log: &Log, files: &[u32], claimed: u64, expected: Option<(u64, u32, u64, Option<u64>, bool)>) {
        let found = judged(log, files, claimed).go_on;
        let found = found.map(|on| (on.last.seq, on.segment, on.end, on.damaged, on.is_torn));
        assert_eq!(found, expected);
    }

    /// Six durable records, a seventh that no mark covers, and the lengths of the first lines.
    fn seven() -> (Log, impl Fn(usize) -> u64) {
        let log = Log::of(&[&Chain::new(0).events(5)]);
        let lines: Vec<u64> = log
            .files
            .values()
            .next()
            .unwrap()
            .split_inclusive(|b| *b == b'\n')
            .map(|l| l.len() as u64)
            .collect();
        (log, move |count| lines[..count].iter().sum())
    }

    #[test]
    fn an_intact_chain_continues_behind_its_last_line() {
        let (log, length) = seven();
        check(&log, &[1], 0, Some((7, 1, length(7), None, false)));
        check(&log, &[1], 7, Some((7, 1, length(7), None, false)));
        check(&log, &[1], 8, None);
    }

    #[test]
    fn everything_from_the_first_bad_byte_above_the_mark_is_torn() {
        let (mut log, length) = seven();
        log.file(0, 1).extend_from_slice(b"{\"seq\"");
        check(&log, &[1], 0, Some((7, 1, length(7), None, true)));
        log.edit(0, 1, |lines| lines[6][20] ^= 1);
        check(&log, &[1], 0, Some((6, 1, length(6), None, true)));
        // A witness has seen the last record. So it was durable, and no good record at or above it is left to continue
        // from.
        check(&log, &[1], 7, None);
    }

    /// A failing disk may no longer be able to read void bytes, and they may not be needed.
    #[test]
    fn recovery_does_not_read_void_bytes() {
        let (log, length) = seven();
        let name = SegmentName { chain: CHAIN, segment: 1 };
        let open = open_segment(&log, name).unwrap().unwrap();
        let first = Beginning::read(open.as_ref(), name, length(7)).unwrap();
        let mut file = SegmentFile::unclaimed(name, length(7), &first);
        file.counted = Some(length(5));
        let follow = Follow::through(&log, CHAIN, &[file], None, &[]).unwrap();
        let last = follow.good.last.map(|last| last.seq);
        assert_eq!((last, follow.ends_well, follow.files[0].void_bytes), (Some(5), true, 0));
    }

    #[test]
    fn damage_stays_within_what_counts() {
        let (mut log, length) = seven();
        log.edit(0, 1, |lines| lines[3][20] ^= 1);
        check(&log, &[1], 0, Some((7, 1, length(7), Some(4), false)));
        log.file(0, 1).extend_from_slice(b"torn\n");
        check(&log, &[1], 0, Some((7, 1, length(7), Some(4), true)));
        // A durable record behind the torn line was moved there. Nothing is cut, lest it become void.
        log.edit(0, 1, |lines| {
            let line = lines.remove(2);
            lines.push(line);
        });
        let all = log.file(0, 1).len() as u64;
        check(&log, &[1], 0, Some((7, 1, all, Some(3), false)));
    }

    /// Recovery once read the last file alone, and took its misplaced lines for a chain of their own.
    #[test]
    fn a_file_without_its_first_line_is_judged_by_what_precedes_it() {
        let (mut log, length) = seven();
        let lines: Vec<Vec<u8>> =
            log.file(0, 1).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let second = SegmentName { chain: CHAIN, segment: 2 }.to_string();
        // More than a first write, so the records that belong there had been durable.
        for copies in [&lines[2..4], &lines[5..], &lines[1..]] {
            log.files.insert(second.clone(), copies.concat());
            check(&log, &[1, 2], 0, None);
        }
        log.files.insert(second.clone(), lines[2].clone());
        check(&log, &[1, 2], 0, Some((7, 1, length(7), None, true)));
        log.files.insert(second, b"none\n".to_vec());
        check(&log, &[1, 2], 0, Some((7, 1, length(7), None, true)));
    }

    #[test]
    fn a_chain_that_was_never_durable_is_all_torn() {
        let chain = Chain::bare(0).segment(Vec::new()).event_marked("a", None).event_marked("b", None);
        let mut log = Log::of(&[&chain]);
        let all_torn = |log: &Log, claimed| {
            let judged = judged(log, &[1], claimed);
            is_all_torn(&judged.follow, &judged.durable)
        };
        log.edit(0, 1, |lines| lines[0][20] ^= 1);
        assert!(all_torn(&log, 0) && !all_torn(&log, 1));
        // With marks: a line states that others were durable.
        let marked = Chain::bare(0).segment(Vec::new()).event("a").event("b");
        let mut log = Log::of(&[&marked]);
        log.edit(0, 1, |lines| lines[0][20] ^= 1);
        assert!(!all_torn(&log, 0));
    }
}
