//! Streams an object in chunks: its checksums, and its lines, decompressed.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use zstd::stream::raw::{self, InBuffer, Operation as _, OutBuffer};

use super::{
    manifest::Sealed,
    store::{Store, hex},
};
use crate::sink::SinkError;

/// Longer than any line of the format.
const MAX_LINE: usize = 64 << 10;

/// The size and checksums of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sums {
    /// As it is stored.
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Decompressed.
    pub(super) line_bytes: u64,
    pub(super) line_sha256: String,
    /// What is wrong with the object itself, apart from its lines.
    pub(super) fault: Option<&'static str>,
}

/// The minimum rate at which an object must arrive, in bytes per second over its whole length.
const MIN_BYTES_PER_SECOND: u64 = 128 << 10;

/// How much of an object is read. Without a limit, a small object could decompress to more than a disk holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Bytes as they are stored.
    pub(super) stored: u64,
    /// Bytes of lines.
    pub(super) lines: u64,
}

impl Limit {
    /// For uncompressed objects, which are no longer than stored.
    pub(super) const NONE: Self = Self { stored: u64::MAX, lines: u64::MAX };

    /// Returns the limit of an object with this many bytes of lines. Compressed, it is hardly larger.
    pub(super) fn of_lines(line_bytes: u64) -> Self {
        Self { stored: line_bytes.saturating_add((line_bytes >> 6) + (64 << 10)), lines: line_bytes }
    }

    pub(super) fn of(sealed: &Sealed) -> Self {
        let Self { stored, lines } = Self::of_lines(sealed.line_bytes);
        Self { stored: stored.max(sealed.bytes), lines }
    }
}

/// Bounds a timeout, so that a sum of times does not overflow.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Passes each chunk of the content and each line, without its line feed, to `sink`. `None` if there is no
/// such object.
///
/// Memory holds one chunk, a line, and the zstd window: 2 MiB where this crate compressed, and 128 MiB at
/// most. Reads no more than `limit`; a longer object has a fault.
pub(super) async fn read(
    store: &Store,
    key: &str,
    is_compressed: bool,
    limit: Limit,
    sink: impl Content,
) -> Result<Option<Sums>, SinkError> {
    let Some((size, mut chunks)) = store.stream(key).await? else { return Ok(None) };
    let mut lines = Lines::new(sink, limit.lines);
    let mut stored = Counted::default();
    // The object is larger than it may be, and is not read.
    if size > limit.stored {
        stored.bytes = size;
        lines.is_cut = true;
        return lines.end(Some(stored), None, store, key).map(Some);
    }
    let allowed =
        store.timeout.saturating_mul(10).saturating_add(Duration::from_secs(size / MIN_BYTES_PER_SECOND));
    let deadline = Instant::now() + allowed.min(MAX_TIMEOUT);
    if !is_compressed {
        while let Some(chunk) = next(store, key, deadline, &mut chunks).await? {
            lines.take(&chunk);
            if lines.is_cut {
                break;
            }
        }
        return lines.end(None, None, store, key).map(Some);
    }
    let mut decoder = Decoder::new().map_err(|error| store.unavailable("decompress", key, &error))?;
    while let Some(chunk) = next(store, key, deadline, &mut chunks).await? {
        stored.add(&chunk);
        decoder.run(&chunk, &mut lines);
        if lines.is_cut {
            break;
        }
    }
    let fault = (!decoder.is_whole).then_some("it cannot be decompressed");
    lines.end(Some(stored), fault, store, key).map(Some)
}

/// Decompresses chunks.
struct Decoder {
    inner: raw::Decoder<'static>,
    output: Vec<u8>,
    /// Whether the input so far ends at the end of a frame.
    is_whole: bool,
    is_broken: bool,
}

impl Decoder {
    fn new() -> io::Result<Self> {
        Ok(Self {
            inner: raw::Decoder::new()?,
            output: vec![0; 128 << 10],
            is_whole: false,
            is_broken: false,
        })
    }

    fn run(&mut self, chunk: &[u8], lines: &mut Lines<impl Content>) {
        let mut input = InBuffer::around(chunk);
        loop {
            let mut output = OutBuffer::around(self.output.as_mut_slice());
            match self.inner.run(&mut input, &mut output) {
                Ok(hint) if !self.is_broken => self.is_whole = hint == 0,
                _ => {
                    (self.is_whole, self.is_broken) = (false, true);
                    return;
                }
            }
            let is_full = output.pos() == output.capacity();
            lines.take(output.as_slice());
            // After the end of a frame, more input would belong to the next one.
            if lines.is_cut || input.pos() == chunk.len() && (!is_full || self.is_whole) {
                return;
            }
        }
    }
}

async fn next(
    store: &Store,
    key: &str,
    deadline: Instant,
    chunks: &mut (impl Stream<Item = Result<Bytes, SinkError>> + Unpin),
) -> Result<Option<Bytes>, SinkError> {
    let chunk = tokio::time::timeout_at(deadline, store.within("read", key, 0, chunks.next())).await;
    chunk.map_err(|_| store.unavailable("read", key, &"it arrives too slowly"))??.transpose()
}

/// Receives the content of an object.
pub(super) trait Content: Send {
    /// Takes a chunk, decompressed.
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _: &[u8] = bytes;
        Ok(())
    }

    /// Takes a line without its line feed.
    fn line(&mut self, line: &[u8]) -> io::Result<()>;
}

#[derive(Default)]
pub(super) struct Counted {
    pub(super) bytes: u64,
    sum: Sha256,
}

impl Counted {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sum.update(bytes);
    }

    pub(super) fn sha256(self) -> String {
        hex(&self.sum.finalize())
    }
}

/// Divides what is written into lines.
struct Lines<C> {
    content: C,
    counted: Counted,
    rest: Vec<u8>,
    /// How many bytes are accepted, and whether there were more.
    max: u64,
    is_cut: bool,
    /// The receiver of the content failed: that is not a fault of the object.
    failed: Option<io::Error>,
}

impl<C: Content> Lines<C> {
    fn new(content: C, max: u64) -> Self {
        Self { content, counted: Counted::default(), rest: Vec::new(), max, is_cut: false, failed: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        // Bytes beyond the limit are dropped before they are hashed or parsed.
        let left = usize::try_from(self.max - self.counted.bytes).unwrap_or(usize::MAX);
        let (bytes, more) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
        self.is_cut |= !more.is_empty();
        self.counted.add(bytes);
        if self.failed.is_none() {
            self.failed = self.try_take(bytes).err();
        }
    }

    fn try_take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.chunk(bytes)?;
        for chunk in bytes.split_inclusive(|byte| *byte == b'\n') {
            match chunk.strip_suffix(b"\n") {
                Some(line) if self.rest.is_empty() => self.content.line(line)?,
                Some(line) => {
                    self.rest.extend_from_slice(line);
                    self.content.line(&self.rest)?;
                    self.rest.clear();
                }
                None => {
                    self.rest.extend_from_slice(chunk);
                    if self.rest.len() > MAX_LINE {
                        // This cannot be a record, whatever follows.
                        self.content.line(&self.rest)?;
                        self.rest.clear();
                    }
                }
            }
        }
        Ok(())
    }

    fn end(
        self,
        stored: Option<Counted>,
        mut fault: Option<&'static str>,
        store: &Store,
        key: &str,
    ) -> Result<Sums, SinkError> {
        if let Some(failed) = self.failed {
            return Err(store.unavailable("take over", key, &failed));
        }
        if self.is_cut {
            fault = Some("it has more content than expected");
        } else if !self.rest.is_empty() && fault.is_none() {
            fault = Some("its last line has no line feed");
        }
        let line_bytes = self.counted.bytes;
        let line_sha256 = self.counted.sha256();
        let (bytes, sha256) = match stored {
            Some(stored) => (stored.bytes, stored.sha256()),
            None => (line_bytes, line_sha256.clone()),
        };
        Ok(Sums { bytes, sha256, line_bytes, line_sha256, fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ignored;

    impl Content for Ignored {
        fn line(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    fn is_whole(stored: &[u8], chunks: usize) -> bool {
        let mut decoder = Decoder::new().unwrap();
        let mut lines = Lines::new(Ignored, u64::MAX);
        for chunk in stored.chunks(chunks) {
            decoder.run(chunk, &mut lines);
        }
        decoder.is_whole
    }

    /// The output of the decoder is full when its input ends.
    #[test]
    fn the_end_of_a_frame_is_seen_at_every_size() {
        for size in [1, 2, 3, 9].iter().flat_map(|full| [(full << 17) - 1, full << 17, (full << 17) + 1]) {
            let bytes: Vec<u8> = b"an item\n".iter().copied().cycle().take(size).collect();
            let stored = zstd::encode_all(bytes.as_slice(), 3).unwrap();
            for chunks in [stored.len(), 1, 4096] {
                assert!(is_whole(&stored, chunks), "{size} in pieces of {chunks}");
            }
            assert!(!is_whole(&stored[..stored.len() - 1], 4096), "{size}");
            assert!(!is_whole(&[&stored[..], b"x"].concat(), 4096), "{size}");
            assert!(is_whole(&[&stored[..], &stored[..]].concat(), 4096), "{size}");
        }
    }
}
