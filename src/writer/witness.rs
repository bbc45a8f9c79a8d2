//! What a chain says at its end, read by the writers of other chains.

use std::{io, sync::Arc};

use memchr::memmem;

use crate::{
    chain::Digest,
    clock::Timestamp,
    format::{
        ChainId, Control, Kind, Line, LineParser, MAX_LINE, SegmentInfo, Witness, Witnesses, control_of,
        is_right, read_witnesses,
    },
    segment_name::{ChainNumber, SegmentName},
    storage::{Access, Dir, File, Storage, read_full},
};

/// How much of the end of a segment is read at first; four times as much whenever that was too little.
const FIRST_WINDOW: u64 = 64 << 10;

/// How much is read at first of a first line.
const FIRST_LINE: usize = 4 << 10;

/// The end of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    /// Its durable head, as its own marks say; `None` where nothing is known to be durable. Not a
    /// `close` at its very end: its writer may have died before it was synced.
    pub(super) durable: Option<Witness>,
    /// Whether nothing at all stands behind a `close`.
    pub(super) closed: bool,
}

/// The segments of a log by chain, each list in order.
pub(super) fn segments(storage: &dyn Storage) -> io::Result<Vec<SegmentName>> {
    let mut names: Vec<SegmentName> =
        storage.list(Dir::Log)?.iter().filter_map(|name| SegmentName::parse(name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Every chain that has a segment or a lock, lowest first.
pub(super) fn chains(storage: &dyn Storage, segments: &[SegmentName]) -> io::Result<Vec<ChainNumber>> {
    let locks = storage.list(Dir::Control)?;
    let mut chains: Vec<ChainNumber> = segments
        .iter()
        .map(|name| name.chain)
        .chain(locks.iter().filter_map(|name| ChainNumber::parse_lock_name(name)))
        .collect();
    chains.sort_unstable();
    chains.dedup();
    Ok(chains)
}

/// The end of a chain, or `None` where it has no good line.
pub(super) fn read_tail(
    storage: &Arc<dyn Storage>,
    segments: &[SegmentName],
    chain: ChainNumber,
) -> io::Result<Option<Tail>> {
    let mut is_newest = true;
    for name in segments.iter().rev().filter(|name| name.chain == chain) {
        let file = match storage.open(Dir::Log, &name.to_string(), Access::Read) {
            // Retention may have removed it since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        if let Some(first) = read_first_line(file.as_ref(), *name)? {
            let tail = read_end(file.as_ref(), first.info.id)?;
            return Ok(Some(Tail { closed: tail.closed && is_newest, ..tail }));
        }
        is_newest = false;
    }
    Ok(None)
}

/// What the first line of a segment says.
#[derive(Debug)]
pub(super) struct FirstLine {
    pub(super) info: SegmentInfo,
    pub(super) at: Timestamp,
    pub(super) seq: u64,
    pub(super) previous: Digest,
}

/// Reads the first line of a segment; `None` where it is no good `segment` line of this file.
pub(super) fn read_first_line(file: &dyn File, name: SegmentName) -> io::Result<Option<FirstLine>> {
    let mut bytes = vec![0; FIRST_LINE];
    let mut read = read_full(file, &mut bytes, 0)?;
    if read == FIRST_LINE && memchr::memchr(b'\n', &bytes).is_none() {
        bytes.resize(MAX_LINE, 0);
        read = read_full(file, &mut bytes, 0)?;
    }
    let bytes = bytes.get(..read).unwrap_or_default();
    let Some(line) = memchr::memchr(b'\n', bytes).and_then(|end| bytes.get(..end)) else { return Ok(None) };
    let mut parser = LineParser::default();
    let good = parser.parse(line).ok().filter(Line::hash_is_right);
    Ok(good.and_then(|line| match control_of(&line, true) {
        Ok(Some(Control::Segment(info))) if info.is_of(name) => {
            Some(FirstLine { info: *info, at: line.at()?, seq: line.seq, previous: line.previous })
        }
        _ => None,
    }))
}

/// Reads windows from the end of the file, each larger, until one holds the durable head.
fn read_end(file: &dyn File, id: ChainId) -> io::Result<Tail> {
    let length = file.stat()?.bytes;
    let mut window = FIRST_WINDOW;
    loop {
        let from = length.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(length - from).unwrap_or(usize::MAX)];
        let read = read_full(file, &mut bytes, from)?;
        let tail = judge_window(bytes.get(..read).unwrap_or_default(), from == 0, id);
        match tail {
            Some(tail) => return Ok(tail),
            None if from == 0 => return Ok(Tail { durable: None, closed: false }),
            None => window = window.saturating_mul(4),
        }
    }
}

/// The durable head that a stretch of whole lines names and also holds.
fn judge_window(bytes: &[u8], from_start: bool, id: ChainId) -> Option<Tail> {
    let mut parser = LineParser::default();
    let mut closed = false;
    let mut durable = 0;
    let mut heads: Vec<(u64, Digest)> = Vec::new();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    if !from_start {
        lines.next();
    }
    for line in lines {
        closed = false;
        let line = line.strip_suffix(b"\n").and_then(|line| parser.parse(line).ok());
        // Good is what verification takes for good.
        let Some(line) = line.filter(|line| is_right(line, false)) else { continue };
        durable = durable.max(line.durable.unwrap_or(0));
        if heads.is_empty() {
            heads.push((line.seq - 1, line.previous));
        }
        heads.push((line.seq, line.hash));
        closed = line.kind == Kind::Close;
        if planted!(UnsyncedCloseWitnessed) && closed {
            durable = line.seq;
        }
    }
    if durable == 0 {
        return from_start.then_some(Tail { durable: None, closed });
    }
    let (seq, hash) = heads.into_iter().rev().find(|(found, _)| *found == durable)?;
    Some(Tail { durable: Some(Witness { id, seq, hash }), closed })
}

/// What the chain itself last said of the others: the newest line with `chains` in its last segment.
pub(super) fn read_last_witnesses(
    storage: &Arc<dyn Storage>,
    segments: &[SegmentName],
    chain: ChainNumber,
) -> io::Result<Witnesses> {
    for name in segments.iter().rev().filter(|name| name.chain == chain) {
        let file = match storage.open(Dir::Log, &name.to_string(), Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        if let Some(witnesses) = last_witnesses_in(file.as_ref())? {
            return Ok(witnesses);
        }
    }
    Ok(Witnesses::new())
}

/// Searches from the end in windows that overlap by a line, so that none is missed at a border.
fn last_witnesses_in(file: &dyn File) -> io::Result<Option<Witnesses>> {
    const MAX_WINDOW: u64 = 4 << 20;
    let finder = memmem::FinderRev::new(b"\"chains\":{");
    let mut parser = LineParser::default();
    let length = file.stat()?.bytes;
    let mut end = length;
    let mut window = 2 * FIRST_WINDOW;
    while end > 0 {
        let from = end.saturating_sub(window);
        window = (window * 4).min(MAX_WINDOW);
        let overlap = length.min(end + MAX_LINE as u64);
        let mut bytes = vec![0; usize::try_from(overlap - from).unwrap_or(usize::MAX)];
        let read = read_full(file, &mut bytes, from)?;
        let bytes = bytes.get(..read).unwrap_or_default();
        let mut before = bytes.len();
        while let Some(at) = bytes.get(..before).and_then(|bytes| finder.rfind(bytes)) {
            before = at;
            let start =
                bytes.get(..at).and_then(|bytes| memchr::memrchr(b'\n', bytes)).map_or(0, |at| at + 1);
            let stop = bytes.get(at..).and_then(|bytes| memchr::memchr(b'\n', bytes)).map(|stop| at + stop);
            let line = stop.and_then(|stop| bytes.get(start..stop)).and_then(|line| parser.parse(line).ok());
            let good = line.filter(|line| line.kind != Kind::Event && line.hash_is_right());
            if let Some(witnesses) = good.and_then(|line| line.detail).and_then(read_witnesses) {
                return Ok(Some(witnesses));
            }
        }
        // A line that begins in this window and holds the words further back is met in the next.
        end = if from == 0 { 0 } else { from + MAX_LINE as u64 };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        format::{After, CloseInfo, Payload, mark_payload, seal},
        storage::sim::{Errno, Fault, Op, SimDisk},
    };

    const CHAIN: ChainNumber = ChainNumber::FIRST;
    const ID: ChainId = ChainId(7);

    fn name(segment: u32) -> SegmentName {
        SegmentName { chain: CHAIN, segment }
    }

    /// A segment under construction.
    #[derive(Clone)]
    struct Written {
        bytes: Vec<u8>,
        seq: u64,
        hash: Digest,
    }

    impl Written {
        fn new(after: Vec<After>) -> Self {
            let info = SegmentInfo {
                id: ID,
                chain: CHAIN,
                segment: 1,
                after,
                chains: Witnesses::new(),
                pruned: None,
            };
            Self { bytes: Vec::new(), seq: 0, hash: Digest::ZERO }.line(&info.payload(Timestamp::now()), None)
        }

        fn line(mut self, payload: &[u8], durable: Option<u64>) -> Self {
            self.seq += 1;
            self.hash = seal(&mut self.bytes, self.seq, payload, durable, &self.hash);
            self
        }

        fn event(self, padding: usize, durable: Option<u64>) -> Self {
            let mut payload = Vec::new();
            Payload::begin(&mut payload, Timestamp::now(), Kind::Event).text("action", &"x".repeat(padding));
            self.line(&payload, durable)
        }

        /// Events that say nothing of what is durable.
        fn bytes(mut self, mut count: usize) -> Self {
            while count > 0 {
                let padding = count.min(20_000);
                count -= padding;
                self = self.event(padding, None);
            }
            self
        }

        fn mark(self, seen: u64) -> Self {
            let payload = mark_payload(Timestamp::now(), &seen_of(seen));
            self.line(&payload, None)
        }

        fn close(self) -> Self {
            let chains = Witnesses::new();
            self.line(&CloseInfo { events: 1, chains: &chains }.payload(Timestamp::now()), None)
        }
    }

    fn seen_of(seq: u64) -> Witnesses {
        let other = ChainNumber::new(1).unwrap();
        Witnesses::from([(other, Witness { id: ID, seq, hash: Digest::ZERO })])
    }

    fn disk_with(files: &[(u32, &[u8])]) -> (SimDisk, Arc<dyn Storage>) {
        let files: BTreeMap<_, _> =
            files.iter().map(|(segment, bytes)| (name(*segment).to_string(), bytes.to_vec())).collect();
        let disk = SimDisk::with_files(1, &files);
        let storage: Arc<dyn Storage> = disk.process().storage();
        (disk, storage)
    }

    fn tail_of(files: &[(u32, &[u8])]) -> Option<Tail> {
        let (_disk, storage) = disk_with(files);
        let names: Vec<_> = files.iter().map(|(segment, _)| name(*segment)).collect();
        read_tail(&storage, &names, CHAIN).unwrap()
    }

    #[test]
    fn the_durable_head_is_found_at_any_distance_from_the_end() {
        for distance in [0, 1, 30_000, 64 << 10, 70_000, 255_000, 300_000, 1_100_000] {
            let head = Written::new(Vec::new()).event(10, None);
            let file = head.clone().event(10, Some(2)).bytes(distance);
            let tail = tail_of(&[(1, &file.bytes)]).unwrap();
            assert_eq!(tail.durable, Some(Witness { id: ID, seq: 2, hash: head.hash }), "{distance}");
            assert!(!tail.closed);
        }
    }

    #[test]
    fn a_bad_line_says_nothing() {
        let first = Written::new(Vec::new()).event(10, None).event(10, Some(2));
        let second = first.clone().event(10, Some(3));
        let file = second.clone().close();
        for (before, durable, closed) in [(first, 2, true), (second, 3, false)] {
            let mut bytes = file.bytes.clone();
            bytes[before.bytes.len() + 20] ^= 1;
            let tail = tail_of(&[(1, &bytes)]).unwrap();
            assert_eq!((tail.durable.map(|durable| durable.seq), tail.closed), (Some(durable), closed));
        }
    }

    #[test]
    fn a_durable_record_that_is_bad_is_no_head() {
        let first = Written::new(Vec::new());
        let start = first.bytes.len();
        let mut file = first.event(10, None).event(10, Some(2));
        file.bytes[start + 20] ^= 1;
        // The next line links to it, but what it was nobody can say.
        let tail = tail_of(&[(1, &file.bytes)]).unwrap();
        assert_eq!((tail.durable, tail.closed), (None, false));
    }

    #[test]
    fn only_a_close_at_the_very_end_ends_a_chain() {
        let file = Written::new(Vec::new()).event(10, Some(1)).close();
        assert!(tail_of(&[(1, &file.bytes)]).unwrap().closed);
        assert!(!tail_of(&[(1, &file.bytes), (2, b"")]).unwrap().closed, "a segment was begun behind it");
        let more = [file.bytes.clone(), b"{".to_vec()].concat();
        assert!(!tail_of(&[(1, &more)]).unwrap().closed);
        assert!(tail_of(&[(1, b"none\n")]).is_none());
        let unmarked = Written::new(Vec::new());
        assert_eq!(tail_of(&[(1, &unmarked.bytes)]).unwrap().durable, None);
    }

    #[test]
    fn a_file_that_went_is_passed_over_and_one_that_cannot_be_read_is_not() {
        let file = Written::new(Vec::new()).mark(5).event(10, Some(2));
        let (disk, storage) = disk_with(&[(1, &file.bytes)]);
        let names = [name(1), name(2)];
        assert!(read_tail(&storage, &names, CHAIN).unwrap().unwrap().durable.is_some());
        assert_eq!(read_last_witnesses(&storage, &names, CHAIN).unwrap(), seen_of(5));
        disk.inject(Fault::error(&[Op::Open], Errno::IO).and_later());
        read_tail(&storage, &names, CHAIN).unwrap_err();
        read_last_witnesses(&storage, &names, CHAIN).unwrap_err();
    }

    #[test]
    fn a_first_line_may_be_long_and_is_of_its_file() {
        for count in [1, 80, 110, 500] {
            let after = (1..=count).map(|segment| After { segment, bytes: u64::from(segment) }).collect();
            let file = Written::new(after).event(10, None);
            let (_disk, storage) = disk_with(&[(1, &file.bytes)]);
            let open = || storage.open(Dir::Log, &name(1).to_string(), Access::Read).unwrap();
            let first = read_first_line(open().as_ref(), name(1)).unwrap().unwrap();
            assert_eq!(
                (first.seq, first.previous, first.info.after.len()),
                (1, Digest::ZERO, count as usize)
            );
            assert!(read_first_line(open().as_ref(), name(2)).unwrap().is_none(), "of another file");
        }
    }

    #[test]
    fn the_last_witnesses_are_found_wherever_windows_end() {
        let borders = [0, 60 << 10, 64 << 10, 128 << 10, (128 + 512) << 10];
        for border in borders {
            for more in (0..4000_usize).step_by(331) {
                let distance = (border + more).saturating_sub(2000);
                let file = Written::new(Vec::new()).mark(4).mark(5).bytes(distance);
                let (_disk, storage) = disk_with(&[(1, &file.bytes)]);
                let found = read_last_witnesses(&storage, &[name(1)], CHAIN).unwrap();
                assert_eq!(found, seen_of(5), "{distance}");
            }
        }
    }

    /// What a line says whose hash is wrong, and what an event says, is not said by the writer.
    #[test]
    fn witnesses_are_of_good_lines_that_are_no_events() {
        let mut file = Written::new(Vec::new()).mark(4).mark(5);
        let at = file.bytes.len() - 10;
        file.bytes[at] ^= 1;
        let (_disk, storage) = disk_with(&[(1, &file.bytes)]);
        assert_eq!(read_last_witnesses(&storage, &[name(1)], CHAIN).unwrap(), seen_of(4));
    }
}
