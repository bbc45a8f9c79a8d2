//! The log or the copy in a comparison: its records that count, by chain, from plain and compressed segments.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use zstd::stream::read::Decoder;

use crate::{directory::segment_of, scan::LONGEST_LINE};

/// A segment, plain or compressed.
#[derive(Debug, Clone)]
struct SegmentFile {
    number: u32,
    name: String,
    path: PathBuf,
    /// Number of its bytes that count, if a later segment states it.
    counted: Option<u64>,
}

/// A directory of segments.
#[derive(Debug)]
pub(super) struct Side {
    chains: BTreeMap<u16, VecDeque<SegmentFile>>,
    /// The ids of the chains, from their segments.
    ids: BTreeMap<u16, String>,
}

/// Number of bytes that are read at once.
const BUFFER: usize = 1 << 17;

/// Returns the extension of a file name.
fn ends(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, end)| end)
}

/// Parses the name of a plain or compressed segment into its chain and number.
fn parse_name(name: &str) -> Option<(u16, u32)> {
    segment_of(name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name))
}

impl Side {
    /// Lists a directory. If a segment is there both plain and compressed, the plain one is used.
    pub(super) fn list(dir: &Path) -> Result<Self> {
        if dir.is_file() {
            bail!("{} is a file: name the directory that holds the segments", dir.display());
        }
        let mut chains: BTreeMap<u16, BTreeMap<u32, SegmentFile>> = BTreeMap::new();
        for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some((chain, number)) = parse_name(&name) else { continue };
            let is_plain = ends(&name) == "jsonl";
            let segment = SegmentFile { number, name, path: entry.path(), counted: None };
            let known = chains.entry(chain).or_default();
            // The compressed one may be an incomplete copy of the other.
            if is_plain || !known.contains_key(&number) {
                known.insert(number, segment);
            }
        }
        if chains.is_empty() {
            bail!("there is no segment in {}, neither plain nor as .gz or .zst", dir.display());
        }
        let mut side = Self { chains: BTreeMap::new(), ids: BTreeMap::new() };
        for (chain, files) in chains {
            let mut files: VecDeque<SegmentFile> = files.into_values().collect();
            side.ids.extend(count(files.make_contiguous())?.map(|id| (chain, id)));
            side.chains.insert(chain, files);
        }
        Ok(side)
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = u16> {
        self.chains.keys().copied()
    }

    /// Returns the id of a chain, or its number if no segment has the id.
    pub(super) fn id(&self, chain: u16) -> String {
        self.ids.get(&chain).cloned().unwrap_or_else(|| format!("{chain:03}"))
    }

    /// Returns the id of a chain, if a segment has it.
    pub(super) fn known_id(&self, chain: u16) -> Option<&str> {
        self.ids.get(&chain).map(String::as_str)
    }

    /// Returns the lines of a chain that count.
    pub(super) fn lines(&self, chain: u16) -> Lines {
        Lines { files: self.chains.get(&chain).cloned().unwrap_or_default(), open: None }
    }
}

/// Sets how many bytes of each segment count, from what later segments state. Returns the id of the chain.
///
/// The newest segment comes first: one of which no bytes count is ignored. The id is that of the oldest segment that has it.
fn count(files: &mut [SegmentFile]) -> Result<Option<String>> {
    let mut id = None;
    for at in (0..files.len()).rev() {
        let (older, from_here) = files.split_at_mut(at);
        let Some(file) = from_here.first().filter(|file| file.counted != Some(0)) else { continue };
        let first = match open(file)? {
            Some(mut lines) => read_line(&mut *lines, LONGEST_LINE, file)?,
            None => continue,
        };
        let Ok(first) = serde_json::from_slice::<Value>(&first) else { continue };
        id = first.pointer("/segment/id").and_then(Value::as_str).map(str::to_owned).or(id);
        let claims = first.pointer("/segment/after").and_then(Value::as_array);
        for claim in claims.into_iter().flatten() {
            let number = |name: &str| claim.get(name).and_then(Value::as_u64);
            let (Some(last), Some(bytes)) = (number("segment"), number("bytes")) else { continue };
            let from = number("from").unwrap_or(last);
            // The first claim found is that of the newest segment, which is the one that holds.
            for file in older.iter_mut().filter(|file| (from..=last).contains(&u64::from(file.number))) {
                file.counted.get_or_insert(bytes);
            }
        }
    }
    Ok(id)
}

/// Opens a segment for reading. Returns `None` if it is gone: retention may remove it at any time.
fn open(file: &SegmentFile) -> Result<Option<Box<dyn BufRead>>> {
    let cannot = || format!("cannot read {}", file.path.display());
    let opened = match File::open(&file.path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(cannot),
    };
    Ok(Some(match ends(&file.name) {
        // `MultiGzDecoder`, because gzip files may be concatenated (RFC 1952, section 2.2).
        "gz" => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(BufReader::new(opened)))),
        "zst" => Box::new(BufReader::with_capacity(BUFFER, Decoder::new(opened).with_context(cannot)?)),
        _ => Box::new(BufReader::with_capacity(BUFFER, opened)),
    }))
}

/// Reads up to and including a line feed, but at most `limit` bytes.
fn read_line(lines: &mut dyn BufRead, limit: u64, file: &SegmentFile) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = lines.take(limit).read_until(b'\n', &mut bytes);
    read.with_context(|| format!("cannot read {}: is it complete?", file.path.display()))?;
    Ok(bytes)
}

/// A line, and its position.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number, if it is complete and begins like a record.
    pub(super) seq: Option<u64>,
    /// Without the line feed.
    pub(super) bytes: Vec<u8>,
    pub(super) file: String,
    pub(super) number: u64,
    /// Where it begins in the uncompressed segment, in bytes.
    pub(super) offset: u64,
}

impl Line {
    /// Returns the number of the highest record that this line states is durable.
    pub(super) fn durable(&self) -> Option<u64> {
        // A `close` counts as durable itself, although no later line can state that.
        // The kind is near the beginning of a line. Further on, it could be a field with this name.
        let head = self.bytes.get(..self.bytes.len().min(120)).unwrap_or_default();
        if memchr::memmem::find(head, b",\"kind\":\"close\",").is_some() {
            return self.seq;
        }
        // Inside a value the quotes would be escaped, so this can only be the member itself.
        let end = memchr::memmem::rfind(&self.bytes, b",\"_prev_hash\":\"")?;
        let body = std::str::from_utf8(self.bytes.get(..end)?).ok()?;
        let digits = body.len() - body.trim_end_matches(|digit: char| digit.is_ascii_digit()).len();
        let (before, number) = body.split_at_checked(body.len() - digits)?;
        number.parse().ok().filter(|_| before.ends_with(",\"durable\":"))
    }

    /// Returns the number that a line begins with.
    fn seq_of(bytes: &[u8]) -> Option<u64> {
        let rest = bytes.strip_prefix(b"{\"seq\":")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
    }
}

/// An open segment, and how far it has been read.
struct Open {
    file: SegmentFile,
    lines: Box<dyn BufRead>,
    line: u64,
    offset: u64,
}

/// The lines of a chain that count, read one by one, so that memory is bounded.
pub(super) struct Lines {
    files: VecDeque<SegmentFile>,
    open: Option<Open>,
}

impl Lines {
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(line) = open.next(self.files.is_empty())? {
                    return Ok(Some(line));
                }
                self.open = None;
            }
            let Some(file) = self.files.pop_front() else { return Ok(None) };
            if file.counted == Some(0) {
                continue;
            }
            self.open = open(&file)?.map(|lines| Open { file, lines, line: 0, offset: 0 });
        }
    }
}

impl Open {
    fn next(&mut self, is_last: bool) -> Result<Option<Line>> {
        let left = self.file.counted.map_or(u64::MAX, |counted| counted.saturating_sub(self.offset));
        // A limit, so that a hostile file without line feeds cannot fill the memory.
        let mut bytes = read_line(&mut *self.lines, left.min(LONGEST_LINE), &self.file)?;
        let is_whole = bytes.last() == Some(&b'\n');
        // The very last line may be torn, or still being written.
        if bytes.is_empty() || (is_last && !is_whole && (bytes.len() as u64) < LONGEST_LINE) {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        self.line += 1;
        if is_whole {
            bytes.pop();
        }
        let seq = Line::seq_of(&bytes).filter(|_| is_whole);
        Ok(Some(Line { seq, bytes, file: self.file.name.clone(), number: self.line, offset }))
    }
}
