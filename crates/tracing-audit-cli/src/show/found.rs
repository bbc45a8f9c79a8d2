//! Finds a record and its neighbours.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result};
use tracing_audit::{Error, ReadItem, Reader, Record, Segment, segments};

use super::{Link, Shown, Wanted};
use crate::{
    directory::explain,
    hash::{DIGITS, HASH, PREV_HASH, body_of, hash_of},
    print_stderr,
    scan::Unconfirmed,
    shell::quoted,
};

/// Length of the longest line that is read, in bytes; the format allows 60 KiB.
const MAX_LINE: u64 = 1 << 20;

/// A record, with the records before and after it.
#[derive(Debug, Default)]
struct Beside {
    previous: Option<Record>,
    record: Option<Record>,
    next: Option<Record>,
    /// The errors of lines that are not records.
    bad: Vec<String>,
    is_gap: bool,
}

/// A line and its position.
#[derive(Debug)]
struct LinePosition {
    file: String,
    line: u64,
    offset: u64,
    /// The line as it is; `None` if it is longer than [`MAX_LINE`].
    text: Option<Vec<u8>>,
}

/// Finds a record. If it is missing, prints why and returns `None`.
pub(super) fn find(log: &Path, wanted: Wanted) -> Result<Option<Shown>> {
    let all = segments(log).map_err(|error| explain(log, error))?;
    let own: Vec<&Segment> = all.iter().filter(|segment| segment.chain() == wanted.chain).collect();
    let beside = look_beside(log, wanted).map_err(|error| explain(log, error))?;
    let position = match &beside.record {
        Some(record) => Some(LinePosition {
            line: line_of(&own, record),
            file: record.file_name(),
            offset: record.offset(),
            text: Some(record.as_json().as_bytes().to_vec()),
        }),
        None => in_place_of(log, &own, wanted, &beside)?,
    };
    let Some(position) = position else {
        print_stderr(&format!("tracing-audit: {}", why_missing(log, &all, wanted, &beside)));
        return Ok(None);
    };
    let is_unconfirmed = is_unconfirmed(log, &all, wanted, beside.record.as_ref())?;
    Ok(Some(shown(log, wanted, &position, &beside, is_unconfirmed)))
}

/// Returns whether a line names the record unconfirmed.
///
/// The reader knows what the record's own chain states. Another chain may name the record anywhere, so with several chains
/// the whole log is searched. So it is for a line that is not a record, which the reader knows nothing about.
fn is_unconfirmed(log: &Path, all: &[Segment], wanted: Wanted, record: Option<&Record>) -> Result<bool> {
    let has_several = all.iter().any(|segment| segment.chain() != wanted.chain);
    match record {
        Some(record) if !has_several || record.is_unconfirmed() => return Ok(record.is_unconfirmed()),
        _ => {}
    }
    Ok(Unconfirmed::named_elsewhere(log)?.names(wanted.chain, wanted.seq))
}

/// Reads from the record before the wanted one to the one after it.
fn look_beside(log: &Path, wanted: Wanted) -> Result<Beside, Error> {
    let items = Reader::new(log).chain(wanted.chain).from_seq(wanted.seq.saturating_sub(1).max(1)).items()?;
    let mut beside = Beside::default();
    for item in items {
        match item {
            Ok(ReadItem::Record(record)) if record.seq() < wanted.seq => beside.previous = Some(record),
            Ok(ReadItem::Record(record)) if record.seq() == wanted.seq => beside.record = Some(record),
            Ok(ReadItem::Record(record)) => {
                beside.next = Some(record);
                break;
            }
            Ok(ReadItem::Gap { first_seq, last_seq, .. }) => {
                beside.is_gap |= (first_seq..=last_seq).contains(&wanted.seq);
            }
            Err(error @ Error::BadLine { .. }) => beside.bad.push(error.to_string()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(beside)
}

/// Computes the line of a record in its file from its number: each line is a record.
///
/// If lines before it were inserted or deleted, the result is wrong.
fn line_of(own: &[&Segment], record: &Record) -> u64 {
    let name = record.file_name();
    let segment = own.iter().find(|segment| segment.path().ends_with(&name));
    let first = segment.and_then(|segment| segment.first_seq()).unwrap_or(1);
    (record.seq() + 1).saturating_sub(first).max(1)
}

/// Returns the line in the place of a missing record: after the record before it, or at the beginning of the chain.
///
/// Returns `None` if there is no such line.
fn in_place_of(
    log: &Path,
    own: &[&Segment],
    wanted: Wanted,
    beside: &Beside,
) -> Result<Option<LinePosition>> {
    let (file, offset, line) = match &beside.previous {
        Some(previous) if previous.seq() + 1 == wanted.seq => {
            let end = previous.offset() + previous.as_json().len() as u64 + 1;
            (previous.file_name(), end, line_of(own, previous) + 1)
        }
        None if wanted.seq == 1 => match own.first() {
            Some(first) => (name_of(first), 0, 1),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    if beside.next.as_ref().is_some_and(|next| next.file_name() == file && next.offset() == offset) {
        // The next record follows immediately, so the line was deleted.
        return Ok(None);
    }
    let path = log.join(&file);
    let text = read_line(&path, offset).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((text.as_ref().is_none_or(|text| !text.is_empty())).then_some(LinePosition {
        file,
        line,
        offset,
        text,
    }))
}

fn name_of(segment: &Segment) -> String {
    segment.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads a line without its line feed. Returns `None` if it is longer than [`MAX_LINE`].
fn read_line(path: &Path, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    // One byte more than allowed, to recognise a longer line.
    BufReader::new(io::Read::take(file, MAX_LINE + 1)).read_until(b'\n', &mut text)?;
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok((text.len() as u64 <= MAX_LINE).then_some(text))
}

/// Returns the hash after the last member with this name.
fn digits_behind<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.rsplit_once(name)?;
    rest.get(..DIGITS)
}

fn shown(log: &Path, wanted: Wanted, position: &LinePosition, beside: &Beside, unconfirmed: bool) -> Shown {
    let text = position.text.as_ref().map(|text| String::from_utf8_lossy(text).into_owned());
    // The line may be anything, so `_hash` is taken from its end by text and not by parsing.
    let line = text.as_deref().unwrap_or_default();
    let written = digits_behind(line, HASH).map(str::to_owned);
    let computed = position.text.as_ref().map(|text| hash_of(body_of(text)));
    Shown {
        chain: wanted.chain,
        seq: wanted.seq,
        hash_is_right: written.is_some() && written == computed,
        // Compared with the computed hash, because the one in the line may be forged.
        is_the_one: wanted.hash.map(|hash| Some(hash.to_string()) == computed),
        previous: link_back(line, wanted.seq, beside),
        next: link_on(computed.as_deref(), wanted.seq, beside.next.as_ref()),
        provisional: beside.record.as_ref().map(Record::is_provisional),
        unconfirmed,
        check: text.is_some().then(|| check(log, position)),
        file: position.file.clone(),
        line: position.line,
        offset: position.offset,
        bytes: position.text.as_ref().map(|text| text.len() as u64),
        hash: written,
        computed,
        text,
    }
}

fn link_back(text: &str, seq: u64, beside: &Beside) -> Link {
    let linked = digits_behind(text, PREV_HASH).unwrap_or_default();
    match &beside.previous {
        Some(previous) if previous.seq() + 1 == seq => {
            let hash = previous.hash().to_string();
            let is_right = hash == linked;
            let says = if is_right { "its hash is in this record" } else { "another hash is in this record" };
            Link {
                seq: Some(previous.seq()),
                hash: Some(hash),
                is_right: Some(is_right),
                says: says.to_owned(),
            }
        }
        // The first record of a chain links to 64 zeros, see docs/format.md.
        _ if seq == 1 => {
            let is_right = linked == "0".repeat(DIGITS);
            let says =
                if is_right { "the first record of its chain" } else { "the first record links to another" };
            Link { seq: None, hash: None, is_right: Some(is_right), says: says.to_owned() }
        }
        _ => {
            let says = "missing: removed by retention, or no longer a record";
            Link { seq: None, hash: None, is_right: None, says: says.to_owned() }
        }
    }
}

fn link_on(computed: Option<&str>, seq: u64, next: Option<&Record>) -> Link {
    let Some(next) = next else {
        let says = "none yet: this is the last record of its chain";
        return Link { seq: None, hash: None, is_right: None, says: says.to_owned() };
    };
    let (number, hash) = (Some(next.seq()), Some(next.hash().to_string()));
    if next.seq() != seq + 1 {
        let says = "the record after this one is missing".to_owned();
        return Link { seq: number, hash, is_right: Some(false), says };
    }
    // Compared with the computed hash, so that an altered line with its old hash is found.
    let is_right = digits_behind(next.as_json(), PREV_HASH).is_some_and(|linked| Some(linked) == computed);
    let says = if is_right { "has the hash of this record" } else { "has another hash for this record" };
    Link { seq: number, hash, is_right: Some(is_right), says: says.to_owned() }
}

/// Returns the shell command that prints the hash of a line, by the rule of docs/format.md.
fn check(log: &Path, position: &LinePosition) -> String {
    let quoted = quoted(&log.join(&position.file));
    let first = position.offset + 1;
    format!(
        r"tail -c +{first} {quoted} | head -n 1 | {{ printf '\0'; head -c -77; printf '}}'; }} | sha256sum"
    )
}

fn why_missing(log: &Path, all: &[Segment], wanted: Wanted, beside: &Beside) -> String {
    let Wanted { chain, seq, .. } = wanted;
    let here = format!("there is no record {chain:03}/{seq} in {}", log.display());
    if !all.iter().any(|segment| segment.chain() == chain) {
        let mut chains: Vec<String> = all.iter().map(|segment| format!("{:03}", segment.chain())).collect();
        chains.dedup();
        return format!("{here}: it has no chain {chain:03}, but {}", chains.join(", "));
    }
    if let Some(bad) = beside.bad.first() {
        return format!("{here}: {bad}; run `tracing-audit verify {}` to see what happened", quoted(log));
    }
    match &beside.next {
        Some(next) if beside.previous.is_none() && !beside.is_gap => {
            format!("{here}: its chain begins with record {}, retention removed those before", next.seq())
        }
        Some(next) => format!("{here}: it is missing before record {}", next.seq()),
        None => format!("{here}: {}", end_of(log, chain)),
    }
}

fn end_of(log: &Path, chain: u16) -> String {
    let last = Reader::new(log).chain(chain).last(1).records().ok();
    match last.and_then(|mut records| records.next()?.ok()) {
        Some(last) => format!("chain {chain:03} ends with record {}", last.seq()),
        None => "it is missing".to_owned(),
    }
}
