//! The bytes of a chain's files in order, as chunks, separated into those that count and those that are void.

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

/// The next part of a chain.
#[derive(Debug)]
pub(crate) enum Part {
    /// A file begins.
    Begin(SegmentName),
    /// Bytes that count.
    Counted(Chunk),
    /// A file is shorter than a later segment states.
    TooShort { offset: u64, counted: u64 },
    /// Bytes that a later segment declares void.
    Void(Chunk),
}

/// The position of a [`ChainBytes`]. It can be kept while the reader itself is dropped.
#[derive(Debug, Default)]
pub(crate) struct ReadPosition {
    /// The index of the next file, and the offset at which to begin in it.
    next: usize,
    offset: u64,
    current: Option<Current>,
    /// Whether a listed file no longer existed when its turn came.
    missed: bool,
    /// Whether void bytes are skipped without being read.
    skips_void: bool,
    /// Buffers of chunks that are no longer in use. A new buffer has to be zeroed, and each of its pages costs a
    /// page fault.
    spare: Vec<Vec<u8>>,
}

impl ReadPosition {
    /// Returns the position at `offset` of the file `first`, from which only what counts is read.
    pub(crate) fn at(first: usize, offset: u64) -> Self {
        Self { next: first, offset, skips_void: true, ..Self::default() }
    }

    /// Returns the index of the file to which the last part belongs.
    pub(crate) fn file(&self) -> usize {
        self.next.saturating_sub(1)
    }
}

/// Reads the files of a chain in order.
#[derive(Debug)]
pub(crate) struct ChainBytes<'a> {
    storage: &'a dyn Storage,
    files: &'a [SegmentFile],
    position: ReadPosition,
}

#[derive(Debug)]
struct Current {
    name: SegmentName,
    chunks: Chunks,
    counted: Option<u64>,
    is_void: bool,
}

impl<'a> ChainBytes<'a> {
    /// Begins at `offset` of the file `first`. The part `Begin` of that file is returned only if `offset` is 0.
    pub(crate) fn new(storage: &'a dyn Storage, files: &'a [SegmentFile], first: usize, offset: u64) -> Self {
        Self::resume(storage, files, ReadPosition { next: first, offset, ..ReadPosition::default() })
    }

    /// Begins at `offset` of the first file, and skips void bytes. They may not be needed, and a failing disk may no
    /// longer be able to read them.
    pub(crate) fn of_what_counts(storage: &'a dyn Storage, files: &'a [SegmentFile], offset: u64) -> Self {
        Self::resume(storage, files, ReadPosition { offset, skips_void: true, ..ReadPosition::default() })
    }

    /// Resumes at the position of an earlier reader over the same files.
    pub(crate) fn resume(storage: &'a dyn Storage, files: &'a [SegmentFile], position: ReadPosition) -> Self {
        Self { storage, files, position }
    }

    /// Ends reading and returns the position at which [`resume`](Self::resume) continues.
    pub(crate) fn suspend(self) -> ReadPosition {
        self.position
    }

    /// Takes back the buffer of a chunk for reuse.
    pub(crate) fn reuse(&mut self, bytes: Vec<u8>) {
        self.position.spare.push(bytes);
    }

    /// Returns the index of the file to which the last part belongs.
    pub(crate) fn file(&self) -> usize {
        self.position.file()
    }

    /// Returns whether a listed file no longer existed when its turn came. Retention removed it, and a later record
    /// says so.
    pub(crate) fn has_missed(&self) -> bool {
        self.position.missed
    }

    /// Returns the next part, or `None` at the end of the last file.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, Error> {
        loop {
            let Some(current) = &mut self.position.current else {
                match self.open_next()? {
                    Some((name, 0)) => return Ok(Some(Part::Begin(name))),
                    // Reading begins inside this file, so there is no `Begin` for it.
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            let name = current.name;
            let chunk = current.chunks.next(self.position.spare.pop().unwrap_or_default());
            let path = || self.storage.path(Dir::Log, &name.to_string());
            if let Some(chunk) = chunk.map_err(Error::io("read", path()))? {
                return Ok(Some(if current.is_void { Part::Void(chunk) } else { Part::Counted(chunk) }));
            }
            if let Some(short) = self.end_region() {
                return Ok(Some(short));
            }
        }
    }

    /// Opens the next file that still exists; returns its name and the offset at which reading begins in it.
    fn open_next(&mut self) -> Result<Option<(SegmentName, u64)>, Error> {
        while let Some(file) = self.files.get(self.position.next) {
            self.position.next += 1;
            let offset = std::mem::take(&mut self.position.offset);
            let Some(open) = open_segment(self.storage, file.name)? else {
                self.position.missed = true;
                continue;
            };
            // Without a claim, the file is read to its end, even if it has grown since it was listed.
            let end = file.counted.unwrap_or(u64::MAX);
            let chunks = Chunks::new(open, offset.min(end), end);
            self.position.current =
                Some(Current { name: file.name, chunks, counted: file.counted, is_void: false });
            return Ok(Some((file.name, offset)));
        }
        Ok(None)
    }

    /// Continues with the void bytes behind what counts of the file, or with the next file.
    fn end_region(&mut self) -> Option<Part> {
        let current = self.position.current.take()?;
        // Without a claim, or behind the void bytes, the file is done.
        let counted = current.counted.filter(|_| !current.is_void)?;
        let offset = current.chunks.offset();
        if offset < counted {
            return Some(Part::TooShort { offset, counted });
        }
        if self.position.skips_void {
            return None;
        }
        let file: Box<dyn File> = current.chunks.into_file();
        let chunks = Chunks::new(file, counted, u64::MAX);
        self.position.current =
            Some(Current { name: current.name, chunks, counted: Some(counted), is_void: true });
        None
    }
}
