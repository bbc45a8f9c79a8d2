//! The lines of a file in reverse order, read in windows of bounded size.

use std::{io, ops::Range};

use crate::{
    format::MAX_LINE,
    storage::{File, read_full},
};

/// The size of the first window, and of the largest.
const FIRST_WINDOW: u64 = 64 << 10;
const LAST_WINDOW: u64 = 4 << 20;

/// Goes through the lines between two offsets of a file, the last line first.
#[derive(Debug)]
pub(crate) struct LinesBackward {
    /// Lines that begin before this offset are not returned.
    start: u64,
    /// Where the next window ends.
    end: u64,
    /// The size of the next window.
    window: u64,
    /// The window, its offset in the file, and the length of the whole lines in it that are still to be returned.
    bytes: Vec<u8>,
    from: u64,
    whole: usize,
    is_first: bool,
}

/// The offset of a line in the file, and the line without its line feed.
pub(crate) type LineBackward<'a> = (u64, Option<&'a [u8]>);

/// The offset of a line in the file, and its range in the window.
type Found = (u64, Option<Range<usize>>);

impl LinesBackward {
    /// Reads the lines between `start` and `end`, beginning at `end`.
    pub(crate) fn new(end: u64, start: u64) -> Self {
        Self { start, end, window: FIRST_WINDOW, bytes: Vec::new(), from: end, whole: 0, is_first: true }
    }

    /// Returns the preceding line: its offset, and its bytes without the line feed. The bytes are `None` if they have
    /// no line feed or are longer than a line can be.
    pub(crate) fn next(&mut self, file: &dyn File) -> io::Result<Option<LineBackward<'_>>> {
        let Some((offset, line)) = self.find(file)? else { return Ok(None) };
        Ok(Some((offset, line.and_then(|line| self.bytes.get(line)))))
    }

    /// Finds the preceding line, and reads further windows as needed.
    fn find(&mut self, file: &dyn File) -> io::Result<Option<Found>> {
        loop {
            if let Some(line) = self.last_line() {
                self.whole = line.start;
                let offset = self.from + line.start as u64;
                return Ok(Some((offset, (line.len() < MAX_LINE).then_some(line))));
            }
            // What is left is the end of a line that begins before the window, or is longer than a line can be.
            let is_overlong = self.whole > MAX_LINE;
            if !is_overlong && self.from > self.start {
                self.end = self.from + self.whole as u64;
            }
            self.whole = 0;
            if is_overlong {
                return Ok(Some((self.from, None)));
            }
            if self.end <= self.start {
                return Ok(None);
            }
            if self.fill(file)? {
                return Ok(Some((self.from + self.whole as u64, None)));
            }
        }
    }

    /// Returns the range of the last line that is left in the window, if the line begins in it.
    fn last_line(&self) -> Option<Range<usize>> {
        let end = self.whole.checked_sub(1)?;
        match memchr::memrchr(b'\n', self.bytes.get(..end)?) {
            Some(before) => Some(before + 1..end),
            None => (self.from == 0).then_some(0..end),
        }
    }

    /// Reads the next window. Returns whether bytes without a line feed follow its last line.
    fn fill(&mut self, file: &dyn File) -> io::Result<bool> {
        self.from = self.end.saturating_sub(self.window).max(self.start);
        // Most callers find what they need near the end; the others read much more.
        self.window = (self.window * 4).min(LAST_WINDOW);
        self.bytes.resize(usize::try_from(self.end - self.from).unwrap_or(usize::MAX), 0);
        let read = read_full(file, &mut self.bytes, self.from)?;
        self.bytes.truncate(read);
        self.whole = memchr::memrchr(b'\n', &self.bytes).map_or(0, |at| at + 1);
        self.end = self.from;
        // In later windows, these bytes are the beginning of an overlong line whose end was already returned.
        Ok(std::mem::replace(&mut self.is_first, false) && self.whole < self.bytes.len())
    }
}
