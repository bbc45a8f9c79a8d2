//! The first line of a segment: what it states about its own file and about the files before it.

use std::io;

use crate::{
    chain::Digest,
    clock::Timestamp,
    error::Error,
    format::{ChainId, Control, Line, LineParser, MAX_LINE, SegmentInfo, control_of},
    segment_name::SegmentName,
    storage::{Access, Dir, File, Storage, read_full},
};

/// Most first lines are short; the longest possible ones are read in a second step.
const FIRST_READ: usize = 4 << 10;

/// What a file begins with.
#[derive(Debug)]
pub(crate) enum FirstLine {
    /// A good `segment` line of this file.
    Segment(SegmentStart),
    /// A `segment` line of a later format, which this version must not judge.
    Later,
    /// Anything else, or nothing.
    Bad,
}

/// A good first line.
#[derive(Debug)]
pub(crate) struct SegmentStart {
    pub(crate) info: SegmentInfo,
    pub(crate) at: Option<Timestamp>,
    pub(crate) seq: u64,
    pub(crate) previous: Digest,
}

/// The beginning of a file.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) line: FirstLine,
    /// Whether the file holds no more than the first write of a segment, which is a single line. That line may be whole
    /// or torn, and a crash may have left arbitrary content in some of its sectors.
    pub(crate) looks_stillborn: bool,
}

impl Beginning {
    /// Reads the beginning of an open file of this length.
    pub(crate) fn read(file: &dyn File, name: SegmentName, length: u64) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut line = FirstLine::Bad;
        let mut end = None;
        for wanted in [FIRST_READ, MAX_LINE] {
            read_up_to(file, &mut bytes, wanted)?;
            end = memchr::memchr(b'\n', &bytes);
            if let Some((first, _)) = end.and_then(|end| bytes.split_at_checked(end)) {
                line = FirstLine::of(first, name);
                break;
            }
        }
        // The first write of a segment is a single line. More than one line is the remains of such a write only if the
        // bytes are not text.
        let is_alone = end.is_none_or(|end| end as u64 + 1 == length);
        let looks_stillborn = length <= MAX_LINE as u64
            && (is_alone
                || matches!(line, FirstLine::Bad) && {
                    read_up_to(file, &mut bytes, MAX_LINE)?;
                    !is_text(&bytes)
                });
        Ok(Self { line, looks_stillborn })
    }

    /// Returns the time of a good first line.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        match &self.line {
            FirstLine::Segment(start) => start.at,
            FirstLine::Later | FirstLine::Bad => None,
        }
    }

    /// Returns the id of the chain that a good first line names.
    pub(crate) fn id(&self) -> Option<ChainId> {
        match &self.line {
            FirstLine::Segment(start) => Some(start.info.id),
            FirstLine::Later | FirstLine::Bad => None,
        }
    }

    /// Returns the sequence number of a good first line.
    pub(crate) fn seq(&self) -> Option<u64> {
        match &self.line {
            FirstLine::Segment(start) => Some(start.seq),
            FirstLine::Later | FirstLine::Bad => None,
        }
    }
}

/// Extends `bytes` to the first `wanted` bytes of the file, or to its end.
fn read_up_to(file: &dyn File, bytes: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    let known = bytes.len();
    if known < wanted {
        bytes.resize(wanted, 0);
        let (_, unread) = bytes.split_at_mut(known);
        let read = read_full(file, unread, known as u64)?;
        bytes.truncate(known + read);
    }
    Ok(())
}

/// Returns whether the bytes are UTF-8 without control characters other than white space. What a crash leaves of a
/// single line is never text of several lines. It has no further line feeds, or it holds zeros or stale disk contents.
fn is_text(bytes: &[u8]) -> bool {
    let is_of_text = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r');
    std::str::from_utf8(bytes).is_ok() && bytes.iter().all(is_of_text)
}

impl FirstLine {
    /// Reads the first line of an open file.
    pub(crate) fn read(file: &dyn File, name: SegmentName) -> io::Result<Self> {
        // With this length, nothing more is read to determine whether the file looks stillborn.
        Beginning::read(file, name, u64::MAX).map(|beginning| beginning.line)
    }

    /// Judges the first line of the file with this name.
    fn of(line: &[u8], name: SegmentName) -> Self {
        let mut parser = LineParser::default();
        let Some(line) = parser.parse(line).ok().filter(Line::hash_is_right) else { return Self::Bad };
        match control_of(&line, true) {
            Ok(Some(Control::Later(_))) => Self::Later,
            Ok(Some(Control::Segment(info))) if info.is_of(name) => Self::Segment(SegmentStart {
                info: *info,
                at: line.at(),
                seq: line.seq,
                previous: line.previous,
            }),
            _ => Self::Bad,
        }
    }

    /// Returns the line if it is of this format and of this file.
    pub(crate) fn segment(self) -> Option<SegmentStart> {
        match self {
            Self::Segment(start) => Some(start),
            Self::Later | Self::Bad => None,
        }
    }
}

/// Opens a segment for reading; returns `None` if it no longer exists.
pub(crate) fn open_segment(storage: &dyn Storage, name: SegmentName) -> Result<Option<Box<dyn File>>, Error> {
    open_if_there(storage, name)
        .map_err(|error| Error::io("open", storage.path(Dir::Log, &name.to_string()))(error))
}

/// Opens a segment for reading, for callers that add the path to the error themselves. Retention may have removed it
/// since the directory was listed.
pub(super) fn open_if_there(storage: &dyn Storage, name: SegmentName) -> io::Result<Option<Box<dyn File>>> {
    match storage.open(Dir::Log, &name.to_string(), Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}
