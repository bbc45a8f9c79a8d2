//! How far a chain was durable, and what that makes of what does not fit: damage, or a torn end.
//!
//! docs/format.md, section 6, has the rules.

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
    /// one after it on.
    pub(crate) floor: (u64, Digest),
    /// The last record known to have been durable: M in docs/format.md.
    pub(crate) through: u64,
}

impl Durable {
    /// What a chain that was read says itself, how its files look, what of it is trusted, and what others claim that
    /// it had.
    pub(crate) fn of(
        follow: &Follow,
        files: &[SegmentFile],
        trusted: Option<(u64, Digest)>,
        claimed: impl IntoIterator<Item = u64>,
    ) -> Self {
        let floor = [follow.facts.pruned, trusted].into_iter().flatten().max_by_key(|(seq, _)| *seq);
        let floor = floor.unwrap_or((0, Digest::ZERO));
        let own = durable_by_itself(follow).max(floor.0).max(follow.durable_by_looks(files));
        Self { floor, through: claimed.into_iter().fold(own, u64::max) }
    }

    /// Whether something that does not fit is damage; else it is part of a torn end.
    pub(crate) fn makes_damage(&self, anomaly: &Anomaly) -> bool {
        anomaly.is_certain || anomaly.at <= self.through
    }

    /// The anomaly, as far as it lies above what is removed or trusted.
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
        // Missing up to what was removed: the line behind must be the first that was kept.
        (last == through && anomaly.link != Some(hash)).then(|| {
            rest.fault = Fault::BrokenLink;
            rest.message = format!("the line does not link to record {through}, the last that was removed");
            Cow::Owned(rest)
        })
    }
}

/// How far the chain itself says that it was durable: its marks, and a last good `close`.
pub(crate) fn durable_by_itself(follow: &Follow) -> u64 {
    // Nothing is written behind a `close` before it is durable, and it is synced before anybody hears of it.
    let closed = follow.good.last.filter(|last| last.kind == RecordKind::Close).map_or(0, |last| last.seq);
    follow.facts.mark.max(closed)
}

/// Where a chain goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoOn {
    /// The last record that counts.
    pub(crate) last: Last,
    /// The file in which what counts ends, and how many of its bytes count.
    pub(crate) segment: u32,
    pub(crate) end: u64,
    /// The first record that was durable and is bad or missing.
    pub(crate) damaged: Option<u64>,
    /// Whether anything stands behind what counts.
    pub(crate) is_torn: bool,
}

/// Decides where a chain goes on whose last files were followed, the first of them from its good first line on.
/// `None` where it ends below what was durable, so that it must be left alone.
///
/// Nothing durable becomes void, and nothing that shows damage: then verification says afterwards what it said
/// before.
pub(crate) fn go_on(follow: &Follow, durable: &Durable, files: &[SegmentFile]) -> Option<GoOn> {
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
    if follow.anomalies.damage_beyond(durable.through).is_some() {
        damaged = damaged.or(Some(durable.through));
        shows_damage_behind = true;
    }
    // Everything from the first bad byte above the mark on is torn, good lines included.
    let cut = torn.filter(|_| !shows_damage_behind).and_then(|torn| {
        let last = torn.before.last.filter(|last| last.seq >= durable.through)?;
        let (segment, end) = end_before(torn, files)?;
        Some(GoOn { last, segment, end, damaged, is_torn: true })
    });
    if cut.is_none() && torn.is_some() && damaged.is_none() {
        // Where nothing is damaged, nothing may count that is torn.
        return None;
    }
    cut.or_else(|| {
        let newest = files.iter().rfind(|file| file.bytes > 0)?;
        Some(GoOn { last, segment: newest.name.segment, end: newest.bytes, damaged, is_torn: false })
    })
}

/// Whether a chain whose files have no good first line was never durable at all: everything in them is torn.
pub(crate) fn is_all_torn(follow: &Follow, durable: &Durable) -> bool {
    let anomalies = follow.anomalies.kept();
    let is_from_the_first = anomalies.first().is_none_or(|first| first.before.last.is_none());
    let is_damaged = anomalies.iter().any(|anomaly| durable.makes_damage(anomaly))
        || follow.anomalies.damage_beyond(durable.through).is_some();
    durable.through == 0 && is_from_the_first && !is_damaged
}

/// Whether a line out of place is a durable record that may be missing where it belongs: what was durable must not
/// become void. Any other may be what a torn sector held before.
fn is_missing_record(anomaly: &Anomaly, damaged: Option<u64>, durable: &Durable) -> bool {
    let (Some((seq, _)), Some(first)) = (anomaly.records, damaged) else { return false };
    anomaly.fault.is_out_of_place() && first <= seq && seq <= durable.through
}

/// The file and the offset at which what stands before an anomaly ends.
fn end_before(anomaly: &Anomaly, files: &[SegmentFile]) -> Option<(u32, u64)> {
    let place = anomaly.place;
    if place.offset > 0 {
        return Some((place.segment, place.offset));
    }
    let counted = |file: &SegmentFile| file.counted.unwrap_or(file.bytes);
    let before = files.iter().rfind(|file| file.name.segment < place.segment && counted(file) > 0)?;
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

    /// What becomes of the files of a log, of which others say that this record was durable.
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

    /// The last record that counts, where that ends, the first that is damaged, and whether the rest is torn.
    #[track_caller]
    fn check(log: &Log, files: &[u32], claimed: u64, expected: Option<(u64, u32, u64, Option<u64>, bool)>) {
        let found = judged(log, files, claimed).go_on;
        let found = found.map(|on| (on.last.seq, on.segment, on.end, on.damaged, on.is_torn));
        assert_eq!(found, expected);
    }

    /// Six durable records and a seventh that no mark covers, and the length of the first lines.
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
    fn a_whole_chain_goes_on_behind_its_last_line() {
        let (log, length) = seven();
        check(&log, &[1], 0, Some((7, 1, length(7), None, false)));
        check(&log, &[1], 7, Some((7, 1, length(7), None, false)));
        check(&log, &[1], 8, None);
    }

    #[test]
    fn everything_from_the_first_bad_byte_above_the_mark_on_is_torn() {
        let (mut log, length) = seven();
        log.file(0, 1).extend_from_slice(b"{\"seq\"");
        check(&log, &[1], 0, Some((7, 1, length(7), None, true)));
        log.edit(0, 1, |lines| lines[6][20] ^= 1);
        check(&log, &[1], 0, Some((6, 1, length(6), None, true)));
        // Somebody has seen the last one: it was durable, and there is nothing above it to go on from.
        check(&log, &[1], 7, None);
    }

    /// A failing disk may not have what stands behind a poison entry's place any more, and nobody may need it.
    #[test]
    fn what_is_void_is_not_read_to_go_on() {
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
        // A durable record behind what is torn was moved there: nothing is cut, lest it become void.
        log.edit(0, 1, |lines| {
            let line = lines.remove(2);
            lines.push(line);
        });
        let all = log.file(0, 1).len() as u64;
        check(&log, &[1], 0, Some((7, 1, all, Some(3), false)));
    }

    /// Recovery once read the last file alone, so that it took what does not belong there for a chain of its own.
    #[test]
    fn a_file_without_its_first_line_is_judged_by_what_stands_before_it() {
        let (mut log, length) = seven();
        let lines: Vec<Vec<u8>> =
            log.file(0, 1).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let second = SegmentName { chain: CHAIN, segment: 2 }.to_string();
        // More than a first write: what belongs there had been durable.
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
        // A line that says that others were durable.
        let marked = Chain::bare(0).segment(Vec::new()).event("a").event("b");
        let mut log = Log::of(&[&marked]);
        log.edit(0, 1, |lines| lines[0][20] ^= 1);
        assert!(!all_torn(&log, 0));
    }
}
