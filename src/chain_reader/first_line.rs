//! The first line of a segment: what it says of its file, and of the files before it.

use std::io;

use crate::{
    chain::Digest,
    clock::Timestamp,
    error::Error,
    format::{Control, Line, LineParser, MAX_LINE, SegmentInfo, control_of},
    segment_name::SegmentName,
    storage::{Access, Dir, File, Storage, read_full},
};

/// Most first lines are short; the longest possible ones are read in a second step.
const FIRST_READ: usize = 4 << 10;

/// What stands at the beginning of a file.
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

impl FirstLine {
    /// Reads the first line of an open file.
    pub(crate) fn read(file: &dyn File, name: SegmentName) -> io::Result<Self> {
        let mut bytes = Vec::new();
        for wanted in [FIRST_READ, MAX_LINE] {
            let known = bytes.len();
            bytes.resize(wanted, 0);
            let (_, unread) = bytes.split_at_mut(known);
            let read = read_full(file, unread, known as u64)?;
            bytes.truncate(known + read);
            if let Some(end) = memchr::memchr(b'\n', &bytes) {
                bytes.truncate(end);
                return Ok(Self::of(&bytes, name));
            }
        }
        Ok(Self::Bad)
    }

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

    /// The line, if it is one of this format and this file.
    pub(crate) fn segment(self) -> Option<SegmentStart> {
        match self {
            Self::Segment(start) => Some(start),
            Self::Later | Self::Bad => None,
        }
    }
}

/// Opens a segment to read; `None` where it is gone.
pub(crate) fn open_segment(storage: &dyn Storage, name: SegmentName) -> Result<Option<Box<dyn File>>, Error> {
    open_if_there(storage, name)
        .map_err(|error| Error::io("open", storage.path(Dir::Log, &name.to_string()))(error))
}

/// The same, for callers that add the path themselves. Retention may have removed it since the directory was listed.
pub(super) fn open_if_there(storage: &dyn Storage, name: SegmentName) -> io::Result<Option<Box<dyn File>>> {
    match storage.open(Dir::Log, &name.to_string(), Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}
