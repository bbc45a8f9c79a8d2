//! The lines around a finding: the line itself, the one before it, and the one after.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Serialize;
use tracing_audit::{Finding, Record, Segment};

use crate::{
    line::line_with,
    lookup::record_at,
    output::escape,
    scan::{self, LONGEST_LINE},
};

/// Length at which a printed line that is not a record is cut, in characters.
const MAX_SHOWN: usize = 240;

/// The lines around a finding.
#[derive(Debug, Serialize)]
pub(super) struct Neighbours {
    before: Option<Line>,
    here: Option<Line>,
    after: Option<Line>,
}

/// A line in a file, whether or not it is a record.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// Its sequence number, if it is a record that matches its own hash.
    seq: Option<u64>,
    /// The line, with bytes that are not UTF-8 replaced.
    text: String,
    /// Whether the line is longer than the format allows, and was cut.
    is_cut: bool,
    /// Whether it is an unconfirmed record.
    unconfirmed: bool,
    #[serde(skip)]
    record: Option<Box<Record>>,
}

impl Line {
    fn of(segment: &Segment, offset: u64, bytes: &[u8]) -> Self {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let record = segment.record(offset, line).map(Box::new);
        Self {
            seq: record.as_ref().map(|record| record.seq()),
            text: String::from_utf8_lossy(line).into_owned(),
            // The reader stops at the longest length of a line, without a line feed then.
            is_cut: bytes.len() as u64 >= LONGEST_LINE && !bytes.ends_with(b"\n"),
            unconfirmed: false,
            record,
        }
    }

    /// Formats the line for people.
    fn shown(&self) -> String {
        self.record.as_ref().map_or_else(|| raw(&self.text), |record| line_with(record, self.unconfirmed))
    }
}

/// Looks up whether records of a log are unconfirmed, which their own lines never state.
pub(super) struct UnconfirmedLookup {
    dir: PathBuf,
    elsewhere: Option<scan::Unconfirmed>,
}

impl UnconfirmedLookup {
    pub(super) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), elsewhere: scan::Unconfirmed::named_elsewhere(dir).ok() }
    }

    /// Returns whether any chain names a record unconfirmed.
    pub(super) fn contains(&self, chain: u16, seq: u64) -> bool {
        record_at(&self.dir, chain, seq).is_some_and(|record| match &self.elsewhere {
            Some(elsewhere) => elsewhere.hit(record).is_unconfirmed,
            None => record.is_unconfirmed(),
        })
    }
}

/// Formats the beginning of a line that is not a record.
pub(super) fn raw(text: &str) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    let more = text.len().saturating_sub(shown.len());
    match more {
        0 if shown.is_empty() => "an empty line".to_owned(),
        0 => escape(&shown).into_owned(),
        more => format!("{}… and {more} more bytes", escape(&shown)),
    }
}

impl Neighbours {
    /// Reads the lines around a finding. Returns `None` if it is not about a line, or nothing can be read there.
    pub(super) fn of(
        segments: &[Segment],
        unconfirmed: &UnconfirmedLookup,
        finding: &Finding,
    ) -> Option<Self> {
        let mut found = Self::at(segments, finding)?;
        for line in [&mut found.before, &mut found.here, &mut found.after].into_iter().flatten() {
            line.unconfirmed = line.seq.is_some_and(|seq| unconfirmed.contains(finding.chain(), seq));
        }
        Some(found)
    }

    fn at(segments: &[Segment], finding: &Finding) -> Option<Self> {
        let number = finding.segment()?;
        let offset = finding.offset()?;
        // Neighbours may be in other files of the chain.
        let mut chain: Vec<&Segment> =
            segments.iter().filter(|segment| segment.chain() == finding.chain()).collect();
        chain.sort_unstable_by_key(|segment| segment.number());
        let at = chain.iter().position(|segment| segment.number() == number)?;
        let segment = *chain.get(at)?;
        let here = line_at(segment, offset).ok()?;
        let before = match offset {
            // At the beginning of a file, the record before is in the last earlier file whose bytes count.
            0 => chain
                .get(..at)?
                .iter()
                .rev()
                .find(|other| other.counted_bytes() > 0)
                .and_then(|other| line_before(other, other.counted_bytes()).ok()?),
            _ => line_before(segment, offset).ok()?,
        };
        let end = here.as_ref().map_or(offset, |(_, end)| *end);
        let after = line_at(segment, end).ok()?.map(|(line, _)| line);
        // At the end of a file, the line after is in the next file whose bytes count.
        let after = after.or_else(|| {
            let next = chain.get(at + 1..)?.iter().find(|other| other.counted_bytes() > 0)?;
            line_at(next, 0).ok()?.map(|(line, _)| line)
        });
        Some(Self { before, here: here.map(|(line, _)| line), after })
    }

    /// Formats the lines, each with its name.
    pub(super) fn shown(&self) -> [(&'static str, Option<String>); 3] {
        let shown = |line: &Option<Line>| line.as_ref().map(Line::shown);
        [("before", shown(&self.before)), ("here", shown(&self.here)), ("after", shown(&self.after))]
    }
}

/// Reads the line that begins at an offset. Returns it with its end, or `None` at the end of the file.
fn line_at(segment: &Segment, offset: u64) -> io::Result<Option<(Line, u64)>> {
    let mut file = BufReader::new(File::open(segment.path())?);
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    let length = file.take(LONGEST_LINE).read_until(b'\n', &mut bytes)? as u64;
    Ok((length > 0).then(|| (Line::of(segment, offset, &bytes), offset + length)))
}

/// Reads the line that ends at an offset.
fn line_before(segment: &Segment, end: u64) -> io::Result<Option<Line>> {
    let begin = end.saturating_sub(LONGEST_LINE);
    let mut file = File::open(segment.path())?;
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(end - begin).read_to_end(&mut bytes)?;
    // The line feed of the line itself does not separate it from the one before.
    let inside = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let start = memchr::memrchr(b'\n', inside).map_or(0, |at| at + 1);
    let line = bytes.get(start..).filter(|line| !line.is_empty());
    Ok(line.map(|line| Line::of(segment, begin + start as u64, line)))
}
