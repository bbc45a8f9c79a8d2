//! The bytes of a file in chunks that are cut at line ends. Memory is bounded whatever the file holds.

use std::io;

use crate::{
    format::MAX_LINE,
    storage::{File, read_full},
};

/// How much is read at once: large enough that system calls cost little, small enough to stay in a cache. The first
/// chunk is smaller because most files of a small log are small. Both are larger than any line.
const CHUNK_BYTES: usize = 256 * 1024;
const FIRST_CHUNK_BYTES: usize = 64 * 1024;

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Whole lines, each with its line feed.
    Lines { offset: u64, bytes: Vec<u8> },
    /// One line that is too long to be a record.
    Overlong { offset: u64, length: u64 },
    /// The bytes behind the last line feed, at the end of the file or of what counts of it.
    Unfinished { offset: u64, length: u64 },
}

/// Reads a region of a file chunk by chunk.
#[derive(Debug)]
pub(crate) struct Chunks {
    file: Box<dyn File>,
    /// Where the next read begins.
    at: u64,
    /// The upper bound of the region; the file may end earlier.
    end: u64,
    /// Bytes before `at` that belong to the next chunk.
    carried: Vec<u8>,
    chunk_bytes: usize,
}

impl Chunks {
    /// Reads the bytes from `from` to `end`, or to the end of the file if that comes first.
    pub(crate) fn new(file: Box<dyn File>, from: u64, end: u64) -> Self {
        Self { file, at: from, end, carried: Vec::new(), chunk_bytes: FIRST_CHUNK_BYTES }
    }

    /// Returns the offset of the next read: every byte before it was returned or is carried over.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// Returns the file, to read another region of it.
    pub(crate) fn into_file(self) -> Box<dyn File> {
        self.file
    }

    /// Returns the next chunk, in a buffer that may have been used before. Its contents are overwritten and need
    /// not be zeroed.
    pub(crate) fn next(&mut self, mut bytes: Vec<u8>) -> io::Result<Option<Chunk>> {
        let offset = self.at - self.carried.len() as u64;
        let is_end = self.fill(&mut bytes)?;
        // The bytes behind the last line feed wait for the next chunk.
        if let Some(last) = memchr::memrchr(b'\n', &bytes) {
            self.carried.extend_from_slice(bytes.split_at(last + 1).1);
            bytes.truncate(last + 1);
            return Ok(Some(Chunk::Lines { offset, bytes }));
        }
        if is_end {
            let length = bytes.len() as u64;
            // This is the end even if the file grows afterwards: what follows half a line is not a line.
            self.end = self.at;
            return Ok(match bytes.len() {
                0 => None,
                // `MAX_LINE` includes the line feed, so as many bytes without one are already too long.
                1..MAX_LINE => Some(Chunk::Unfinished { offset, length }),
                _ => Some(Chunk::Overlong { offset, length }),
            });
        }
        self.skip_line(offset, bytes).map(Some)
    }

    /// Fills `bytes` up to the size of a chunk, beginning with the bytes carried over. Returns whether the region
    /// ended.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let known = self.carried.len();
        let room = self.chunk_bytes.saturating_sub(known);
        let wanted = usize::try_from(self.end.saturating_sub(self.at)).map_or(room, |left| left.min(room));
        bytes.resize(known + wanted, 0);
        let (start, unread) = bytes.split_at_mut(known);
        start.copy_from_slice(&self.carried);
        self.carried.clear();
        let read = read_full(&*self.file, unread, self.at)?;
        bytes.truncate(known + read);
        // At the end of a file that is still written, the next reads return little.
        self.chunk_bytes = if read < wanted { FIRST_CHUNK_BYTES } else { CHUNK_BYTES };
        self.at += read as u64;
        Ok(read < wanted || self.at >= self.end)
    }

    /// Skips a line that is too long to be a record, whether or not it ends.
    fn skip_line(&mut self, offset: u64, mut bytes: Vec<u8>) -> io::Result<Chunk> {
        loop {
            let is_end = self.fill(&mut bytes)?;
            if let Some(end) = memchr::memchr(b'\n', &bytes) {
                self.carried.extend_from_slice(bytes.split_at(end + 1).1);
                let length = self.at - self.carried.len() as u64 - offset;
                return Ok(Chunk::Overlong { offset, length });
            }
            if is_end {
                self.end = self.at;
                return Ok(Chunk::Overlong { offset, length: self.at - offset });
            }
        }
    }
}

/// Returns the lines of a chunk without their line feeds, each with its offset in the chunk.
pub(crate) fn split(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut rest, mut offset) = (bytes, 0);
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let (line, after) = rest.split_at(end);
        let start = offset;
        rest = after.split_at(1).1;
        offset += end as u64 + 1;
        Some((start, line))
    })
}
