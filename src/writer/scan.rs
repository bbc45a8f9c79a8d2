//! Reads one segment to learn where its chain can go on.

use std::io;

use crate::{
    chain::Digest,
    clock::Timestamp,
    format::{Control, Kind, Line, LineParser, MAX_LINE, SegmentInfo, Witnesses, control_of},
    segment_name::SegmentName,
    storage::{File, read_full},
};

/// Bytes read at once; less at first, because most segments of a small log are small.
const BLOCK: usize = 1 << 20;
const FIRST_BLOCK: usize = 16 << 10;

/// A place in a chain: behind a record, in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) hash: Digest,
    /// The offset behind the record's line.
    pub(super) end: u64,
}

/// Where good lines stop following each other.
#[derive(Debug, Clone, Copy)]
struct Break {
    /// The sequence number that was expected here.
    expected: u64,
    /// The last good place before.
    before: Option<Place>,
    /// The offset at which what does not count begins, if it does not.
    start: u64,
    /// The offset of what shows it.
    seen: u64,
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan {
    name: SegmentName,
    /// Whether its first line is of a later format, which this version must not judge.
    pub(super) is_later: bool,
    /// What its first line says, if it is a good `segment` line.
    pub(super) info: Option<SegmentInfo>,
    pub(super) begun: Option<Timestamp>,
    /// The last good line, whatever stands before or behind it.
    pub(super) last: Option<Place>,
    last_kind: Option<Kind>,
    /// Whether that is a `close`, with nothing behind it.
    pub(super) closed: bool,
    /// The highest sequence number that a line says to be durable.
    pub(super) durable: u64,
    pub(super) witnesses: Witnesses,
    pub(super) pruned: Option<(u64, Digest)>,
    pub(super) length: u64,
    /// Every place where a record of the chain is bad or missing, in order of `expected`.
    breaks: Vec<Break>,
    /// Breaks below what turned out to be durable: how many, and the first.
    damage: Option<u64>,
    /// Where the last of them begins.
    damage_start: u64,
    /// Whether the file does not begin with a good line.
    bad_start: bool,
    /// Where the piece begins that is looked at.
    at: u64,
}

/// More breaks than this are not told apart; nobody tears a log this often.
const MAX_BREAKS: usize = 65_536;

/// Where a chain goes on, once it is known what was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// The last record that counts; `None` when the first line is already torn.
    pub(super) place: Option<Place>,
    /// The first sequence number that is bad or missing although it was durable.
    pub(super) damaged: Option<u64>,
    /// Whether bytes behind `place` do not count.
    pub(super) torn: bool,
}

impl Scan {
    /// Reads the file up to `limit` bytes.
    pub(super) fn run(file: &dyn File, name: SegmentName, limit: u64) -> io::Result<Self> {
        let mut scan = Self {
            name,
            is_later: false,
            info: None,
            begun: None,
            last: None,
            last_kind: None,
            closed: false,
            durable: 0,
            witnesses: Witnesses::new(),
            pruned: None,
            length: 0,
            breaks: Vec::new(),
            damage: None,
            damage_start: 0,
            bad_start: false,
            at: 0,
        };
        let mut parser = LineParser::default();
        let mut state = State { expected: None, link: None };
        scan.length = for_each_line(file, limit, |piece, end| {
            scan.line(&mut parser, &mut state, piece, end);
            scan.at = end;
        })?;
        Ok(scan)
    }

    /// Takes the next piece of the file: a line without its line feed, or what is no whole line.
    fn line(&mut self, parser: &mut LineParser, state: &mut State, piece: Piece<'_>, end: u64) {
        let Piece::Line(bytes) = piece else { return self.bad(state) };
        let Ok(line) = parser.parse(bytes) else { return self.bad(state) };
        if !line.hash_is_right() {
            return self.bad(state);
        }
        // Good is what verification takes for good.
        let is_first = self.at == 0;
        let Ok(control) = control_of(&line, is_first) else { return self.bad(state) };
        if let Some(Control::Later(_)) = &control {
            self.is_later = true;
            return;
        }
        let follows = match (state.expected, state.link) {
            (None, _) => true,
            (Some(expected), Some(hash)) => line.seq == expected && line.previous == hash,
            (Some(_), None) => false,
        };
        if state.expected.is_some_and(|expected| line.seq < expected) {
            self.out_of_place(&line, state);
            return;
        }
        // Whatever comes of it, it was written when its mark was durable.
        self.durable = self.durable.max(line.durable.unwrap_or(0));
        if !follows {
            // A link joins two records, and is judged by the first of them.
            let is_link = state.expected == Some(line.seq);
            let expected = state.expected.map(|expected| expected - u64::from(is_link));
            self.broken(&State { expected, link: None });
        }
        let place = Place { seq: line.seq, hash: line.hash, end };
        if self.last.is_none() {
            self.begun = line.at();
            if self.bad_start {
                self.broken(&State { expected: Some(line.seq.saturating_sub(1).max(1)), link: None });
            }
        }
        let belongs = match &control {
            Some(Control::Segment(info)) => is_first && info.is_of(self.name),
            _ => !is_first,
        };
        if !belongs {
            // Right in itself, as is what follows it; but a file begins with the line that names it, and
            // no other line does.
            self.broken(&State { expected: Some(line.seq), link: None });
        }
        match control {
            Some(Control::Segment(info)) if belongs => {
                self.prune(line.seq, info.pruned);
                self.witnesses.extend(&info.chains);
                self.info = Some(*info);
            }
            Some(Control::Open(seen) | Control::Mark(seen) | Control::Close(seen)) => {
                self.witnesses.extend(seen);
            }
            Some(Control::Prune { through, hash }) => {
                self.durable = self.durable.max(through);
                self.prune(line.seq, Some((through, hash)));
            }
            _ => {}
        }
        self.closed = line.kind == Kind::Close;
        self.last_kind = Some(line.kind);
        self.last = Some(place);
        *state = State { expected: line.seq.checked_add(1), link: Some(line.hash) };
        self.settle();
    }

    /// Of several the highest holds, and no record removes itself.
    fn prune(&mut self, seq: u64, cut: Option<(u64, Digest)>) {
        let cut = cut.filter(|(through, _)| (1..seq).contains(through));
        self.pruned = self.pruned.into_iter().chain(cut).max_by_key(|(through, _)| *through);
    }

    /// A line that comes too late. It was written when its mark was durable all the same.
    fn out_of_place(&mut self, line: &Line<'_>, state: &State) {
        self.durable = self.durable.max(line.durable.unwrap_or(0));
        self.settle();
        let first = self.damage.or(self.breaks.first().map(|first| first.expected));
        // Where its place was passed over it is judged by that: what was durable must not become void.
        // Any other may be what a torn sector held before.
        let was_passed_over = first.is_some_and(|first| first <= line.seq);
        self.broken(&State {
            expected: if was_passed_over { Some(line.seq) } else { state.expected },
            link: None,
        });
    }

    fn bad(&mut self, state: &State) {
        if state.expected.is_some() {
            self.broken(state);
        } else {
            self.bad_start = true;
        }
        // What stands here is unknown: the next good line decides how far the chain has come.
        self.closed = false;
    }

    fn broken(&mut self, state: &State) {
        let Some(expected) = state.expected else { return };
        if self.breaks.len() < MAX_BREAKS {
            let at = self.breaks.partition_point(|known| known.expected <= expected);
            let (before, start) =
                self.breaks.get(at).map_or((self.last, self.at), |known| (known.before, known.start));
            self.breaks.insert(at, Break { expected, before, start, seen: self.at });
        }
    }

    /// Breaks at or below what is now known durable are damage, not a torn tail.
    fn settle(&mut self) {
        let is_damage = |first: &Break| first.expected <= self.durable && !planted!(DamageIsTorn);
        if self.breaks.first().is_some_and(is_damage) {
            let count = self.breaks.iter().take_while(|found| is_damage(found)).count();
            for found in self.breaks.drain(..count) {
                self.damage.get_or_insert(found.expected);
                self.damage_start = self.damage_start.max(found.seen);
            }
        }
    }

    pub(super) fn has_good_line(&self) -> bool {
        self.last.is_some()
    }

    /// Where the chain goes on, given what others know to be durable of it; `None` where it ends
    /// below that, so that it must be left alone.
    pub(super) fn cut(&mut self, witnessed: u64) -> Option<Cut> {
        self.durable = self.durable.max(witnessed);
        if let (Some(Kind::Close), Some(last)) = (self.last_kind, self.last) {
            // Nothing was written behind it before it was durable.
            self.durable = self.durable.max(last.seq);
        }
        self.settle();
        let last = self.last?;
        if last.seq < self.durable {
            return None;
        }
        if planted!(TornTailIsDamage) {
            self.damage = self.damage.or(self.breaks.first().map(|first| first.expected));
        }
        let (place, torn) = match self.breaks.first() {
            _ if planted!(HolesKept) => (Some(last), false),
            // What shows the damage must not become void.
            Some(first) if self.damage.is_some() && first.start <= self.damage_start => (Some(last), false),
            // Everything from the first bad byte above the mark on is torn, good lines included.
            Some(first) => (first.before.map(|before| Place { end: first.start, ..before }), true),
            None => (Some(last), false),
        };
        Some(Cut { place, damaged: self.damage, torn })
    }
}

/// What the next line must be.
#[derive(Debug)]
struct State {
    expected: Option<u64>,
    link: Option<Digest>,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    /// A line, without its line feed.
    Line(&'a [u8]),
    /// What is longer than any line, or lacks its line feed at the end of the file.
    Torn,
}

/// Calls `each` for every piece of the first `limit` bytes, with the offset behind it. Returns how
/// many bytes there were. What is longer than a line can be is reported once and passed over.
pub(super) fn for_each_line(
    file: &dyn File,
    limit: u64,
    mut each: impl FnMut(Piece<'_>, u64),
) -> io::Result<u64> {
    let mut buffer = Vec::new();
    let mut block = FIRST_BLOCK;
    let mut kept = 0;
    let mut offset: u64 = 0;
    let mut skipping = false;
    loop {
        let room = usize::try_from(limit - offset - kept as u64).unwrap_or(usize::MAX).min(block);
        buffer.resize(buffer.len().max(kept + room), 0);
        let Some(free) = buffer.get_mut(kept..kept + room) else { return Ok(offset) };
        let read = read_full(file, free, offset + kept as u64)?;
        if read == room {
            block = BLOCK;
        }
        let filled = kept + read;
        let bytes = buffer.get(..filled).unwrap_or_default();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            if !std::mem::take(&mut skipping) {
                let line = bytes.get(start..end).unwrap_or_default();
                let piece = if line.len() < MAX_LINE { Piece::Line(line) } else { Piece::Torn };
                each(piece, offset + end as u64 + 1);
            }
            start = end + 1;
        }
        let rest = filled - start;
        if read == 0 {
            if rest > 0 || skipping {
                each(Piece::Torn, offset + filled as u64);
            }
            return Ok(offset + filled as u64);
        }
        if rest >= MAX_LINE {
            if !std::mem::replace(&mut skipping, true) {
                each(Piece::Torn, offset + filled as u64);
            }
            offset += filled as u64;
            kept = 0;
        } else {
            buffer.copy_within(start..filled, 0);
            offset += start as u64;
            kept = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::storage::{Access, Dir, Storage as _, sim::SimDisk};

    /// A line, or `None` for what is none, and where it ends.
    type Ended = (Option<Vec<u8>>, u64);

    /// Every piece of `bytes`, and how many bytes were read.
    fn pieces(bytes: &[u8], limit: u64) -> (Vec<Ended>, u64) {
        let disk = SimDisk::with_files(1, &BTreeMap::from([("lines".to_owned(), bytes.to_vec())]));
        let file = disk.process().open(Dir::Log, "lines", Access::Read).unwrap();
        let mut found = Vec::new();
        let length = for_each_line(file.as_ref(), limit, |piece, end| {
            found.push(match piece {
                Piece::Line(line) => (Some(line.to_vec()), end),
                Piece::Torn => (None, end),
            });
        });
        (found, length.unwrap())
    }

    #[test]
    fn lines_of_any_length_are_found_wherever_blocks_end() {
        let short = || b"short".to_vec();
        for length in [0, 1, FIRST_BLOCK - 1, FIRST_BLOCK, MAX_LINE - 1, MAX_LINE, BLOCK, 2 * BLOCK + 7] {
            for before in [0, 1, FIRST_BLOCK - 7, FIRST_BLOCK, 3 * FIRST_BLOCK + 1] {
                let lines = [short(), vec![b'b'; before], vec![b'x'; length], short(), Vec::new(), short()];
                let bytes = [lines.join(&b'\n'), b"\n".to_vec()].concat();
                let (found, end) = pieces(&bytes, u64::MAX);
                assert_eq!(end, bytes.len() as u64);
                assert_eq!(found.len(), lines.len());
                let mut at = 0;
                for (line, (piece, end)) in lines.iter().zip(&found) {
                    let begin = at;
                    at += line.len() as u64 + 1;
                    if line.len() < MAX_LINE {
                        assert_eq!((piece.as_ref(), *end), (Some(line), at), "{length} behind {before}");
                    } else {
                        assert!(
                            piece.is_none() && begin < *end && *end <= at,
                            "{length} behind {before}: {end}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_no_line_feed_is_no_line() {
        for length in [1, FIRST_BLOCK, MAX_LINE, BLOCK + 1] {
            let bytes = [b"line\n".to_vec(), vec![b'x'; length]].concat();
            let (found, end) = pieces(&bytes, u64::MAX);
            assert_eq!(end, bytes.len() as u64);
            let (last, lines) = found.split_last().unwrap();
            assert_eq!(last.0, None);
            assert_eq!(lines.first(), Some(&(Some(b"line".to_vec()), 5)));
            assert!(lines.iter().skip(1).all(|(line, _)| line.is_none()));
        }
        let (found, end) = pieces(b"one\ntwo\nthree\n", 6);
        assert_eq!((found, end), (vec![(Some(b"one".to_vec()), 4), (None, 6)], 6));
        assert_eq!(pieces(b"", u64::MAX), (Vec::new(), 0));
    }
}
