//! The pieces of a chain's files one after another, told apart by whether they count.

use crate::{
    error::Error,
    segment_name::SegmentName,
    storage::{Dir, File, Storage},
};

use super::{
    first_line::open_segment,
    layout::SegmentFile,
    lines::{Chunk, Chunks},
};

/// What comes next in a chain.
#[derive(Debug)]
pub(crate) enum Part {
    /// A file begins.
    Begin(SegmentName),
    /// Bytes that count.
    Counted(Chunk),
    /// A file ended before what a later segment says it holds.
    TooShort { offset: u64, counted: u64 },
    /// Bytes that a later segment declares void.
    Void(Chunk),
}

/// Where a source stands: it can be kept while the source is not.
#[derive(Debug, Default)]
pub(crate) struct ReadPosition {
    /// The next file, and where to begin in it.
    next: usize,
    offset: u64,
    current: Option<Current>,
    /// Whether a file that was listed was gone when its turn came.
    missed: bool,
    /// Whether bytes that are void are passed over unread.
    skips_void: bool,
    /// Buffers of pieces that are done with. A fresh one is zeroed, and the system hands it out page by
    /// page, each with a fault.
    spare: Vec<Vec<u8>>,
}

impl ReadPosition {
    /// At `offset` of the file `first`, to read what counts from there on.
    pub(crate) fn at(first: usize, offset: u64) -> Self {
        Self { next: first, offset, skips_void: true, ..Self::default() }
    }

    /// Which file the parts are of that were handed out last.
    pub(crate) fn file(&self) -> usize {
        self.next.saturating_sub(1)
    }
}

/// Reads the files of a chain in their order.
#[derive(Debug)]
pub(crate) struct ChainBytes<'a> {
    storage: &'a dyn Storage,
    files: &'a [SegmentFile],
    place: ReadPosition,
}

#[derive(Debug)]
struct Current {
    name: SegmentName,
    pieces: Chunks,
    counted: Option<u64>,
    is_void: bool,
}

impl<'a> ChainBytes<'a> {
    /// Begins at `offset` of the file `first`; says `Begin` for it only from its start on.
    pub(crate) fn new(storage: &'a dyn Storage, files: &'a [SegmentFile], first: usize, offset: u64) -> Self {
        Self::resume(storage, files, ReadPosition { next: first, offset, ..ReadPosition::default() })
    }

    /// Begins at `offset` of the first file, and leaves out what is void: nobody may need those bytes, and a failing
    /// disk may not have them.
    pub(crate) fn of_what_counts(storage: &'a dyn Storage, files: &'a [SegmentFile], offset: u64) -> Self {
        Self::resume(storage, files, ReadPosition { offset, skips_void: true, ..ReadPosition::default() })
    }

    /// Goes on where a source over the same files stood.
    pub(crate) fn resume(storage: &'a dyn Storage, files: &'a [SegmentFile], place: ReadPosition) -> Self {
        Self { storage, files, place }
    }

    pub(crate) fn suspend(self) -> ReadPosition {
        self.place
    }

    /// Takes back the buffer of a piece.
    pub(crate) fn reuse(&mut self, bytes: Vec<u8>) {
        self.place.spare.push(bytes);
    }

    /// Which file the parts are of that were handed out last.
    pub(crate) fn file(&self) -> usize {
        self.place.file()
    }

    /// Whether a file that was listed was gone when its turn came: retention removed it, and the
    /// record that says so stands further on.
    pub(crate) fn has_missed(&self) -> bool {
        self.place.missed
    }

    pub(crate) fn next(&mut self) -> Result<Option<Part>, Error> {
        loop {
            let Some(current) = &mut self.place.current else {
                match self.open_next()? {
                    Some((name, 0)) => return Ok(Some(Part::Begin(name))),
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            let name = current.name;
            let piece = current.pieces.next(self.place.spare.pop().unwrap_or_default());
            let path = || self.storage.path(Dir::Log, &name.to_string());
            if let Some(piece) = piece.map_err(Error::io("read", path()))? {
                return Ok(Some(if current.is_void { Part::Void(piece) } else { Part::Counted(piece) }));
            }
            if let Some(short) = self.end_region() {
                return Ok(Some(short));
            }
        }
    }

    /// Opens the next file that is still there, and says where reading begins in it.
    fn open_next(&mut self) -> Result<Option<(SegmentName, u64)>, Error> {
        while let Some(file) = self.files.get(self.place.next) {
            self.place.next += 1;
            let offset = std::mem::take(&mut self.place.offset);
            let Some(open) = open_segment(self.storage, file.name)? else {
                self.place.missed = true;
                continue;
            };
            let end = file.counted.unwrap_or(u64::MAX);
            let pieces = Chunks::new(open, offset.min(end), end);
            self.place.current =
                Some(Current { name: file.name, pieces, counted: file.counted, is_void: false });
            return Ok(Some((file.name, offset)));
        }
        Ok(None)
    }

    /// Goes on behind what counts of the file, or with the next file.
    fn end_region(&mut self) -> Option<Part> {
        let current = self.place.current.take()?;
        let counted = current.counted.filter(|_| !current.is_void)?;
        let offset = current.pieces.offset();
        if offset < counted {
            return Some(Part::TooShort { offset, counted });
        }
        if self.place.skips_void {
            return None;
        }
        let file: Box<dyn File> = current.pieces.into_file();
        let pieces = Chunks::new(file, counted, u64::MAX);
        self.place.current =
            Some(Current { name: current.name, pieces, counted: Some(counted), is_void: true });
        None
    }
}
