//! The lines of a file from its end on, in windows of bounded size.

use std::{io, ops::Range};

use crate::{
    format::MAX_LINE,
    storage::{File, read_full},
};

/// How much is read at first, and at most at once.
const FIRST_WINDOW: u64 = 64 << 10;
const LAST_WINDOW: u64 = 4 << 20;

/// Goes through the lines between two offsets of a file, the last first.
#[derive(Debug)]
pub(crate) struct LinesBackward {
    /// Nothing is told of a line that begins before this.
    start: u64,
    /// Where the next window ends.
    end: u64,
    /// How large the next window is.
    window: u64,
    /// The window, where it begins in the file, and how much of it is still to be told: whole lines.
    bytes: Vec<u8>,
    from: u64,
    whole: usize,
    is_first: bool,
}

/// Where a line begins in the file, and the line without its line feed.
pub(crate) type LineBackward<'a> = (u64, Option<&'a [u8]>);

/// Where a line begins in the file, and where it stands in the window.
type Found = (u64, Option<Range<usize>>);

impl LinesBackward {
    pub(crate) fn new(end: u64, start: u64) -> Self {
        Self { start, end, window: FIRST_WINDOW, bytes: Vec::new(), from: end, whole: 0, is_first: true }
    }

    /// The line before, where it begins and without its line feed; `None` in its place for what has no line feed
    /// behind it or is longer than a line can be.
    pub(crate) fn next(&mut self, file: &dyn File) -> io::Result<Option<LineBackward<'_>>> {
        let Some((offset, line)) = self.find(file)? else { return Ok(None) };
        Ok(Some((offset, line.and_then(|line| self.bytes.get(line)))))
    }

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

    /// Where the last line stands in what is left of the window, if it begins there.
    fn last_line(&self) -> Option<Range<usize>> {
        let end = self.whole.checked_sub(1)?;
        match memchr::memrchr(b'\n', self.bytes.get(..end)?) {
            Some(before) => Some(before + 1..end),
            None => (self.from == 0).then_some(0..end),
        }
    }

    /// Reads the next window. Says whether something without a line feed stands at the end.
    fn fill(&mut self, file: &dyn File) -> io::Result<bool> {
        self.from = self.end.saturating_sub(self.window).max(self.start);
        self.window = (self.window * 4).min(LAST_WINDOW);
        self.bytes.resize(usize::try_from(self.end - self.from).unwrap_or(usize::MAX), 0);
        let read = read_full(file, &mut self.bytes, self.from)?;
        self.bytes.truncate(read);
        self.whole = memchr::memrchr(b'\n', &self.bytes).map_or(0, |at| at + 1);
        self.end = self.from;
        // Behind the first window it is the beginning of an overlong line, whose end was passed over.
        Ok(std::mem::replace(&mut self.is_first, false) && self.whole < self.bytes.len())
    }
}
