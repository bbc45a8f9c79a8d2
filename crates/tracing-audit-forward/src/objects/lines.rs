//! Reads an object to its end in pieces: its sums, and its lines, decompressed.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use zstd::stream::raw::{self, InBuffer, Operation as _, OutBuffer};

use super::store::{Store, hex};
use crate::sink::SinkError;

/// More than a line of the format has.
const MAX_LINE: usize = 64 << 10;

/// What an object had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sums {
    /// As it is stored.
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Decompressed.
    pub(super) line_bytes: u64,
    pub(super) line_sha256: String,
    /// What is wrong with the object itself, its lines aside.
    pub(super) fault: Option<&'static str>,
}

/// Calls `on_piece` with each piece of the content and `on_line` with each line, without its line feed. `None` where there is no
/// such object. Holds one piece of it, a line, and the window of zstd: 2 MiB where this crate
/// compressed, and 128 MiB at most.
pub(super) async fn read(
    store: &Store,
    key: &str,
    is_compressed: bool,
    sink: impl Content,
) -> Result<Option<Sums>, SinkError> {
    let Some(mut pieces) = store.stream(key).await? else { return Ok(None) };
    let mut lines = Lines::new(sink);
    if !is_compressed {
        while let Some(piece) = next(store, key, &mut pieces).await? {
            lines.take(&piece);
        }
        return lines.end(None, None, store, key).map(Some);
    }
    let mut stored = Counted::default();
    let mut decoder = Decoder::new().map_err(|error| store.unavailable("decompress", key, &error))?;
    while let Some(piece) = next(store, key, &mut pieces).await? {
        stored.add(&piece);
        decoder.run(&piece, &mut lines);
    }
    let fault = (!decoder.is_whole).then_some("it cannot be decompressed");
    lines.end(Some(stored), fault, store, key).map(Some)
}

/// Decompresses what comes in pieces.
struct Decoder {
    inner: raw::Decoder<'static>,
    output: Vec<u8>,
    /// Whether what came ends with a frame.
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

    fn run(&mut self, piece: &[u8], lines: &mut Lines<impl Content>) {
        let mut input = InBuffer::around(piece);
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
            if input.pos() == piece.len() && !is_full {
                return;
            }
        }
    }
}

async fn next(
    store: &Store,
    key: &str,
    pieces: &mut (impl Stream<Item = Result<Bytes, SinkError>> + Unpin),
) -> Result<Option<Bytes>, SinkError> {
    store.within("read", key, 0, pieces.next()).await?.transpose()
}

/// What becomes of the content of an object.
pub(super) trait Content: Send {
    /// A piece, decompressed.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _: &[u8] = bytes;
        Ok(())
    }

    /// A line without its line feed.
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
    /// The content could not be dealt with: that is no fault of the object.
    failed: Option<io::Error>,
}

impl<C: Content> Lines<C> {
    fn new(content: C) -> Self {
        Self { content, counted: Counted::default(), rest: Vec::new(), failed: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.counted.add(bytes);
        if self.failed.is_none() {
            self.failed = self.try_take(bytes).err();
        }
    }

    fn try_take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.piece(bytes)?;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) if self.rest.is_empty() => self.content.line(line)?,
                Some(line) => {
                    self.rest.extend_from_slice(line);
                    self.content.line(&self.rest)?;
                    self.rest.clear();
                }
                None => {
                    self.rest.extend_from_slice(piece);
                    if self.rest.len() > MAX_LINE {
                        // No record, whatever follows.
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
        if !self.rest.is_empty() && fault.is_none() {
            fault = Some("its last line has no end");
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
