//! What the end of a chain states, read backward: how far the chain was durable, and what it last stated about other
//! chains. A segment is read only as far back as needed, in windows of bounded size.

use std::{collections::BTreeSet, io, ops::ControlFlow};

use memchr::memmem;

use super::{
    first_line::{FirstLine, open_if_there},
    lines_backward::LinesBackward,
    noted::Point,
};
use crate::{
    format::{ChainId, LineParser, MAX_LINE, RecordKind, Witness, Witnesses, is_right, read_witnesses},
    segment_name::{ChainNumber, SegmentName},
    storage::{File, Storage},
};

/// How far back the last mark is searched for. A writer never has as many bytes that are not durable.
const MARK_REACH: u64 = 64 << 20;

/// Returns the durable head of a chain according to its own marks; its files are given oldest first. `None` if nothing
/// is known to be durable, or the record is bad. A `close` at the very end is not the head: its writer may have died
/// before it was synced.
pub(crate) fn durable_head(storage: &dyn Storage, segments: &[SegmentName]) -> io::Result<Option<Witness>> {
    for name in segments.iter().rev() {
        let Some(file) = open_if_there(storage, *name)? else { continue };
        if let Some(start) = FirstLine::read(file.as_ref(), *name)?.segment() {
            return head_of(file.as_ref(), start.info.id);
        }
    }
    Ok(None)
}

/// Returns the last head that a chain named of each other chain in `wanted`, or of all of them without `wanted`. The
/// chain's files are given oldest first. The first line of a segment names all heads, so at most the newest segment
/// with a good first line is read.
pub(crate) fn said_of(
    storage: &dyn Storage,
    segments: &[SegmentName],
    wanted: Option<&BTreeSet<ChainNumber>>,
) -> io::Result<Witnesses> {
    let chains = memmem::Finder::new(b"\"chains\":{");
    let mut said = Witnesses::new();
    let mut parser = LineParser::default();
    for name in segments.iter().rev() {
        let Some(file) = open_if_there(storage, *name)? else { continue };
        let is_last = FirstLine::read(file.as_ref(), *name)?.segment().is_some();
        lines_backward(file.as_ref(), file.stat()?.bytes, 0, |line, _| {
            // Most lines are skipped without being parsed.
            let line =
                line.filter(|line| chains.find(line).is_some()).and_then(|line| parser.parse(line).ok());
            let line = line.filter(|line| line.kind != RecordKind::Event && line.hash_is_right());
            for (chain, witness) in line.and_then(|line| read_witnesses(line.detail?)).into_iter().flatten() {
                if wanted.is_none_or(|wanted| wanted.contains(&chain)) {
                    said.entry(chain).or_insert(witness);
                }
            }
            let is_done = wanted.is_some_and(|wanted| said.len() == wanted.len());
            if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if is_last {
            break;
        }
    }
    Ok(said)
}

/// Goes back through the lines of one file to its durable head.
fn head_of(file: &dyn File, id: ChainId) -> io::Result<Option<Witness>> {
    let mut parser = LineParser::default();
    let mut mark = 0;
    let mut head = None;
    lines_backward(file, file.stat()?.bytes, 0, |line, offset| {
        let line = line.and_then(|line| parser.parse(line).ok());
        let Some(line) = line.filter(|line| is_right(line, offset == 0)) else {
            return ControlFlow::Continue(());
        };
        // Going backward, the durable record comes after the mark that names it.
        mark = mark.max(line.durable.unwrap_or(0));
        head = if line.seq == mark {
            Some((line.seq, line.hash))
        } else if offset == 0 && mark > 0 && line.seq.checked_sub(1) == Some(mark) {
            // The durable record is the last one of the file before, to which the first line links.
            Some((mark, line.previous))
        } else {
            None
        };
        if head.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(head.map(|(seq, hash)| Witness { id, seq, hash }))
}

/// Returns the kind of this record if the segment has it and it ends at this offset.
pub(crate) fn kind_at(file: &dyn File, point: &Point) -> io::Result<Option<RecordKind>> {
    let mut parser = LineParser::default();
    let mut kind = None;
    if file.stat()?.bytes < point.end {
        return Ok(None);
    }
    // The longest line, and the line feed before it, which shows where the line begins.
    lines_backward(file, point.end, point.end.saturating_sub(MAX_LINE as u64 + 1), |line, offset| {
        let line = line.and_then(|line| parser.parse(line).ok());
        let line = line.filter(|line| (line.seq, line.hash) == (point.seq, point.hash));
        kind = line.filter(|line| is_right(line, offset == 0)).map(|line| line.kind);
        ControlFlow::Break(())
    })?;
    Ok(kind)
}

/// Returns the highest record that the lines before `end` state to be durable: their last mark, or a `close` at the
/// end. Marks only grow, so the last one is enough. Each write begins with a mark.
pub(crate) fn last_mark(file: &dyn File, end: u64) -> io::Result<Option<u64>> {
    let mut parser = LineParser::default();
    let mut is_end = true;
    let mut found = None;
    lines_backward(file, end, end.saturating_sub(MARK_REACH), |line, _| {
        let was_end = std::mem::replace(&mut is_end, false);
        let Some(line) = line.and_then(|line| parser.parse(line).ok()) else {
            return ControlFlow::Continue(());
        };
        if !is_right(&line, false) {
            return ControlFlow::Continue(());
        }
        found = if was_end && line.kind == RecordKind::Close { Some(line.seq) } else { line.durable };
        found.map_or(ControlFlow::Continue(()), |_| ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Calls `each` for every line between two offsets of a file, the last line first, as [`LinesBackward`] returns them.
fn lines_backward(
    file: &dyn File,
    end: u64,
    start: u64,
    mut each: impl FnMut(Option<&[u8]>, u64) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut lines = LinesBackward::new(end, start);
    while let Some((offset, line)) = lines.next(file)? {
        if each(line, offset).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        chain::Digest,
        clock::Timestamp,
        format::{After, CloseInfo, Payload, SegmentInfo, mark_payload, seal},
        segment_name::ChainNumber,
        storage::{
            Access, Dir,
            sim::{Errno, Fault, Op, SimDisk},
        },
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
            Payload::begin(&mut payload, Timestamp::now(), RecordKind::Event)
                .text("action", &"x".repeat(padding));
            self.line(&payload, durable)
        }

        /// Appends events without a mark.
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

    fn head_in(files: &[(u32, &[u8])]) -> Option<(u64, Digest)> {
        let (_disk, storage) = disk_with(files);
        let names: Vec<_> = files.iter().map(|(segment, _)| name(*segment)).collect();
        durable_head(storage.as_ref(), &names).unwrap().map(|head| (head.seq, head.hash))
    }

    fn said_in(file: &[u8]) -> Witnesses {
        let (_disk, storage) = disk_with(&[(1, file)]);
        said_of(storage.as_ref(), &[name(1)], None).unwrap()
    }

    #[test]
    fn the_durable_head_is_found_at_any_distance_from_the_end() {
        for distance in [0, 1, 30_000, 64 << 10, 70_000, 255_000, 300_000, 1_100_000] {
            let head = Written::new(Vec::new()).event(10, None);
            let file = head.clone().event(10, Some(2)).bytes(distance);
            assert_eq!(head_in(&[(1, &file.bytes)]), Some((2, head.hash)), "{distance}");
        }
    }

    /// Returns the lines between two offsets, the last first: their lengths, or 0 for what is no line, and their
    /// offsets.
    fn backward(bytes: &[u8], start: u64) -> Vec<(usize, u64)> {
        let disk = SimDisk::with_files(1, &BTreeMap::from([("lines".to_owned(), bytes.to_vec())]));
        let file = disk.process().open(Dir::Log, "lines", Access::Read).unwrap();
        let mut found = Vec::new();
        lines_backward(file.as_ref(), bytes.len() as u64, start, |line, offset| {
            found.push((line.map_or(0, |line| line.len() + 1), offset));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    }

    #[test]
    fn lines_are_found_from_the_end_wherever_windows_begin() {
        let line = |length: usize| [vec![b'x'; length - 1], b"\n".to_vec()].concat();
        for long in [2, 4095, MAX_LINE - 1, MAX_LINE, 70_000, 400_000, 5_000_000] {
            for behind in [1, 100, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 320 << 10] {
                let behind = vec![b'\n'; behind];
                let bytes = [line(9), line(long), behind.clone()].concat();
                let found = backward(&bytes, 0);
                let (first, rest) = found.split_last().unwrap();
                assert_eq!(*first, (9, 0), "{long}");
                let mut rest = rest.iter().filter(|(length, _)| *length != 1);
                let expected = if long <= MAX_LINE { long } else { 0 };
                let found_long = rest.next().copied().unwrap();
                assert_eq!(found_long.0, expected, "{long}");
                assert!(found_long.1 >= 9 && rest.next().is_none(), "{long}");
                assert_eq!(found.iter().filter(|(length, _)| *length == 1).count(), behind.len());
                // Bytes without a line feed are returned once.
                let cut = backward(&bytes[..9 + long - 1], 0);
                assert_eq!(cut.iter().filter(|(length, _)| *length == 0).count(), 1, "{long}");
                assert_eq!(cut.last(), Some(&(9, 0)));
                // Lines that begin before the start are not returned.
                assert!(backward(&bytes, 9).iter().all(|(_, offset)| *offset >= 9));
            }
        }
    }

    #[test]
    fn a_bad_line_says_nothing() {
        let first = Written::new(Vec::new()).event(10, None).event(10, Some(2));
        let second = first.clone().event(10, Some(3));
        let file = second.clone().close();
        for (before, durable) in [(first, 2), (second, 3)] {
            let mut bytes = file.bytes.clone();
            bytes[before.bytes.len() + 20] ^= 1;
            assert_eq!(head_in(&[(1, &bytes)]).map(|(seq, _)| seq), Some(durable));
        }
    }

    #[test]
    fn a_durable_record_that_is_bad_is_not_a_head() {
        let first = Written::new(Vec::new());
        let start = first.bytes.len();
        let mut file = first.event(10, None).event(10, Some(2));
        file.bytes[start + 20] ^= 1;
        // The next line links to it, but its content is lost.
        assert_eq!(head_in(&[(1, &file.bytes)]), None);
        assert_eq!(head_in(&[(1, b"none\n")]), None);
    }

    #[test]
    fn a_record_is_found_where_it_was_noted_or_not_at_all() {
        let first = Written::new(Vec::new()).event(10, None);
        let file = first.clone().close();
        let (_disk, storage) = disk_with(&[(1, &file.bytes)]);
        let open = storage.open(Dir::Log, &name(1).to_string(), Access::Read).unwrap();
        let at = |written: &Written, end: u64| {
            let point = Point { segment: 1, seq: written.seq, hash: written.hash, end };
            kind_at(open.as_ref(), &point).unwrap()
        };
        let (middle, end) = (first.bytes.len() as u64, file.bytes.len() as u64);
        assert_eq!((at(&first, middle), at(&file, end)), (Some(RecordKind::Event), Some(RecordKind::Close)));
        for (written, end) in
            [(&first, end), (&file, middle), (&file, end - 1), (&file, end + 1), (&first, 0)]
        {
            assert_eq!(at(written, end), None);
        }
    }

    #[test]
    fn a_missing_file_is_skipped_and_an_unreadable_one_is_an_error() {
        let file = Written::new(Vec::new()).mark(5).event(10, Some(2));
        let (disk, storage) = disk_with(&[(1, &file.bytes)]);
        let names = [name(1), name(2)];
        assert_eq!(durable_head(storage.as_ref(), &names).unwrap().map(|head| head.seq), Some(2));
        assert_eq!(said_of(storage.as_ref(), &names, None).unwrap(), seen_of(5));
        disk.inject(Fault::error(&[Op::Open], Errno::IO).and_later());
        durable_head(storage.as_ref(), &names).unwrap_err();
        said_of(storage.as_ref(), &names, None).unwrap_err();
    }

    #[test]
    fn a_first_line_may_be_long_and_must_name_its_file() {
        for count in [1, 80, 110, 500] {
            let after =
                (1..=count).map(|segment| After::counted(segment, u64::from(segment), None)).collect();
            let file = Written::new(after).event(10, None);
            let (_disk, storage) = disk_with(&[(1, &file.bytes)]);
            let open = || storage.open(Dir::Log, &name(1).to_string(), Access::Read).unwrap();
            let first = FirstLine::read(open().as_ref(), name(1)).unwrap().segment().unwrap();
            assert_eq!(
                (first.seq, first.previous, first.info.after.len()),
                (1, Digest::ZERO, count as usize)
            );
            assert!(
                FirstLine::read(open().as_ref(), name(2)).unwrap().segment().is_none(),
                "of another file"
            );
        }
    }

    #[test]
    fn the_last_witnesses_are_found_wherever_windows_end() {
        let borders = [0, 60 << 10, 64 << 10, 128 << 10, (128 + 512) << 10];
        for border in borders {
            for more in (0..4000_usize).step_by(331) {
                let distance = (border + more).saturating_sub(2000);
                let file = Written::new(Vec::new()).mark(4).mark(5).bytes(distance);
                assert_eq!(said_in(&file.bytes), seen_of(5), "{distance}");
            }
        }
    }

    /// Lines with a wrong hash were not written by the writer.
    #[test]
    fn witnesses_come_from_good_lines_only() {
        let mut file = Written::new(Vec::new()).mark(4).mark(5);
        let at = file.bytes.len() - 10;
        file.bytes[at] ^= 1;
        assert_eq!(said_in(&file.bytes), seen_of(4));
    }
}
