//! Splits a chain into chunks that can be read in any order.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use memchr::{memchr, memrchr};
use tracing_audit::Segment;

/// Size of a chunk in bytes: small enough for a processor cache.
pub(crate) const CHUNK: u64 = 256 << 10;

/// Length of the longest line of the format in bytes, with its line feed.
pub(crate) const LONGEST_LINE: u64 = 60 << 10;

/// Number of bytes after a chunk that are read at first, for the end of its last line.
const BEHIND: u64 = 4 << 10;

/// The durable part of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) segment: Arc<Segment>,
    /// Where the durable part ends, in bytes.
    pub(crate) end: u64,
    /// The highest number that a record in it can have.
    pub(crate) last_seq: u64,
}

/// The numbered chunks of a chain.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// The segments in their order, each with the number of its first chunk.
    spans: Vec<(usize, Span)>,
    count: usize,
    size: u64,
}

/// The lines of a segment that begin between two offsets.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) span: &'a Span,
    start: u64,
    end: u64,
}

impl Span {
    /// Returns whether a record with this number can be in it.
    pub(crate) fn has(&self, seq: u64) -> bool {
        (self.segment.first_seq().unwrap_or(1)..=self.last_seq).contains(&seq)
    }
}

/// The lines of a chunk.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    /// Offset of the first line in the file, in bytes.
    pub(crate) offset: u64,
    /// The lines, each with its line feed.
    pub(crate) bytes: &'a [u8],
    /// Offset of a last line that is longer than the format allows, or does not end in the file.
    pub(crate) unended: Option<u64>,
}

impl Chunks {
    /// Splits segments into chunks of `size` bytes.
    pub(crate) fn new(spans: impl Iterator<Item = Span>, size: u64) -> Self {
        let mut chunks = Self { spans: Vec::new(), count: 0, size };
        for span in spans {
            let of_this = usize::try_from(span.end.div_ceil(size)).unwrap_or(usize::MAX);
            chunks.spans.push((chunks.count, span));
            chunks.count = chunks.count.saturating_add(of_this);
        }
        chunks
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, number: usize) -> Option<Chunk<'_>> {
        // Spans are sorted by their first chunk: the last one that begins at or before this number has it.
        let behind = self.spans.partition_point(|(first, _)| *first <= number);
        let (first, span) = self.spans.get(behind.checked_sub(1)?)?;
        let start = (number - first) as u64 * self.size;
        (start < span.end).then(|| Chunk { span, start, end: (start + self.size).min(span.end) })
    }

    /// Returns the number of the chunk in which a chunk of another size begins.
    pub(crate) fn number_of(&self, chunk: &Chunk<'_>) -> Option<usize> {
        let segment = chunk.span.segment.number();
        let behind = self.spans.partition_point(|(_, span)| span.segment.number() <= segment);
        let (first, _) = self.spans.get(behind.checked_sub(1)?)?;
        first.checked_add(usize::try_from(chunk.start / self.size).ok()?)
    }
}

/// A buffer into which chunks are read, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    /// The file that was read last, kept open.
    open: Option<(PathBuf, File)>,
}

impl Window {
    /// Reads the lines of a chunk. Returns `None` if the file is gone: retention may remove it at any time.
    pub(crate) fn read(&mut self, chunk: &Chunk<'_>) -> io::Result<Option<Lines<'_>>> {
        let path = chunk.span.segment.path();
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            // An open file stays readable after retention has removed it, so chunks of the same file do not fail
            // halfway.
            match File::open(path) {
                Ok(file) => self.open = Some((path.to_owned(), file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some((_, file)) = &self.open else { return Ok(None) };
        // Include the byte before the chunk, which shows whether a line begins with the chunk.
        let from = chunk.start.saturating_sub(1);
        // The last line that begins in the chunk ends at the first line feed at or after the chunk's last byte.
        let last = length(chunk.end - 1 - from);
        let mut end = None;
        // Most lines are short. Only if the last one does not end in the first 4 KiB, read as far as the longest line
        // may reach.
        for behind in [BEHIND, LONGEST_LINE] {
            let wanted = (chunk.end + behind).min(chunk.span.end) - from;
            fill(file, &mut self.bytes, from, length(wanted))?;
            end = self.bytes.get(last..).and_then(|rest| memchr(b'\n', rest)).map(|at| last + at + 1);
            if end.is_some() || chunk.end + behind >= chunk.span.end {
                break;
            }
        }
        let is_ended = end.is_some();
        let end = end.or_else(|| memrchr(b'\n', &self.bytes).map(|at| at + 1)).unwrap_or(0);
        // If no line begins in this chunk, the unended line began in an earlier one, whose reader reports it.
        let unended = (!is_ended && (end > 0 || chunk.start == 0)).then_some(from + end as u64);
        let lines = self.bytes.get(..end).unwrap_or_default();
        if chunk.start == 0 {
            return Ok(Some(Lines { offset: 0, bytes: lines, unended }));
        }
        let begin = memchr(b'\n', lines).map_or(end, |at| at + 1);
        let lines = lines.get(begin..).unwrap_or_default();
        Ok(Some(Lines { offset: from + begin as u64, bytes: lines, unended }))
    }
}

/// Converts a length; what is read at once fits into any `usize`.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Reads `wanted` bytes at an offset, or as many as there are.
fn fill(file: &File, bytes: &mut Vec<u8>, from: u64, wanted: usize) -> io::Result<()> {
    // Grow only if needed: clearing bytes that are overwritten at once would cost time.
    if bytes.len() < wanted {
        bytes.resize(wanted, 0);
    }
    bytes.truncate(wanted);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            // A signal interrupted the read, see signal(7).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::fs;

    use tracing_audit::{AuditLog, segments};
    use tracing_subscriber::prelude::*;

    use super::*;

    #[test]
    fn every_line_is_in_exactly_one_chunk_wherever_chunks_begin() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
            for length in [0, 20_000, 5, 300, 55_000, 1] {
                tracing::info!(target: "audit", action = "a", actor = "b", long = "x".repeat(length));
            }
        });
        log.close().unwrap();
        let segment = Arc::new(segments(dir.path()).unwrap().pop().unwrap());
        let bytes = fs::read(segment.path()).unwrap();
        let end = bytes.len() as u64;
        let span = Span { segment, end, last_seq: u64::MAX };
        let ends = bytes.iter().zip(0_u64..).filter(|(byte, _)| **byte == b'\n').map(|(_, at)| at);
        let mut window = Window::default();
        for cut in ends.flat_map(|at| at.saturating_sub(2)..at + 4).filter(|cut| (1..end).contains(cut)) {
            let mut read = Vec::new();
            for (start, end) in [(0, cut), (cut, end)] {
                let Lines { offset, bytes: lines, unended } =
                    window.read(&Chunk { span: &span, start, end }).unwrap().unwrap();
                assert_eq!(unended, None);
                assert!(lines.is_empty() || offset == read.len() as u64, "{cut}");
                assert!(lines.is_empty() || (start..end).contains(&offset), "{cut}");
                read.extend_from_slice(lines);
            }
            assert!(read == bytes, "{cut}");
        }
    }
}
