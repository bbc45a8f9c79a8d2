//! Which files a log has, which chain each belongs to, and how many of its bytes count.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    format::{After, Kind, LineParser, MAX_LINE, SegmentInfo, read_format, read_segment},
    segment_name::{ChainNumber, SegmentName},
    storage::{Access, Dir, File, Storage, read_full},
};

/// The names in a log directory.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The segment numbers of each chain, ascending.
    pub(crate) chains: BTreeMap<ChainNumber, Vec<u32>>,
    /// Names that are none of ours.
    pub(crate) foreign: Vec<String>,
}

impl Survey {
    pub(crate) fn take(storage: &dyn Storage) -> Result<Self, Error> {
        let names = storage.list(Dir::Log).map_err(Error::io("list", log_path(storage)))?;
        let mut survey = Self::default();
        for name in names {
            match SegmentName::parse(&name) {
                Some(segment) => survey.chains.entry(segment.chain).or_default().push(segment.segment),
                None if name == "control" || name == "hold" => {}
                None => survey.foreign.push(name),
            }
        }
        survey.chains.values_mut().for_each(|numbers| numbers.sort_unstable());
        survey.foreign.sort_unstable();
        Ok(survey)
    }
}

/// The path of the log itself.
pub(crate) fn log_path(storage: &dyn Storage) -> PathBuf {
    let inside = storage.path(Dir::Log, "x");
    inside.parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// A file of a chain, as its first line and those of later files describe it.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) name: SegmentName,
    /// Its length when it was looked at.
    pub(crate) bytes: u64,
    /// How many of its bytes count, as a later segment says; `None` where none says so: all.
    pub(crate) counted: Option<u64>,
    /// The sequence number of its first line, if that is a good `segment` line of this file.
    pub(crate) first_seq: Option<u64>,
    after: Vec<After>,
}

/// What a segment says of an earlier file that was not looked at, or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) segment: u32,
    /// How many of its bytes count.
    pub(crate) bytes: u64,
    /// The first sequence number of the segment that says so.
    pub(crate) before_seq: u64,
}

/// The files of one chain, oldest first.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) files: Vec<SegmentFile>,
    pub(crate) absent: Vec<Absent>,
}

impl Layout {
    /// Looks at the first line of each file. A file that is gone by now was removed by retention.
    pub(crate) fn of(storage: &dyn Storage, chain: ChainNumber, numbers: &[u32]) -> Result<Self, Error> {
        let mut parser = LineParser::default();
        let mut files = Vec::with_capacity(numbers.len());
        for number in numbers {
            let name = SegmentName { chain, segment: *number };
            files.extend(look_at(storage, name, &mut parser)?);
        }
        Ok(Self::settle(files))
    }

    /// Lets the claims of the files meet, the newest first: what it says wins, and what a file says
    /// that counts nothing is void itself.
    fn settle(mut files: Vec<SegmentFile>) -> Self {
        let mut claims: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for file in files.iter_mut().rev() {
            file.counted = claims.remove(&file.name.segment).map(|(bytes, _)| bytes);
            let after = std::mem::take(&mut file.after);
            let Some(first_seq) = file.first_seq.filter(|_| file.counted != Some(0)) else { continue };
            for claim in after.iter().filter(|claim| claim.segment < file.name.segment) {
                claims.entry(claim.segment).or_insert((claim.bytes, first_seq));
            }
        }
        let absent = claims
            .into_iter()
            .map(|(segment, (bytes, before_seq))| Absent { segment, bytes, before_seq })
            .collect();
        Self { files, absent }
    }
}

/// Opens a segment to read; `None` where it is gone.
pub(crate) fn open_segment(storage: &dyn Storage, name: SegmentName) -> Result<Option<Box<dyn File>>, Error> {
    let text = name.to_string();
    match storage.open(Dir::Log, &text, Access::Read) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", storage.path(Dir::Log, &text))(error)),
    }
}

fn look_at(
    storage: &dyn Storage,
    name: SegmentName,
    parser: &mut LineParser,
) -> Result<Option<SegmentFile>, Error> {
    let path = || storage.path(Dir::Log, &name.to_string());
    let Some(file) = open_segment(storage, name)? else { return Ok(None) };
    let bytes = file.stat().map_err(Error::io("look at", path()))?.bytes;
    let line = first_line(&*file).map_err(Error::io("read", path()))?;
    let info = line.and_then(|line| first_segment(parser, &line, name));
    let (first_seq, after) = match info {
        Some((seq, info)) => (Some(seq), info.after),
        None => (None, Vec::new()),
    };
    Ok(Some(SegmentFile { name, bytes, counted: None, first_seq, after }))
}

/// The first line without its line feed; `None` where there is no whole line that can be a record.
fn first_line(file: &dyn File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // Most first lines are short; the longest possible ones are read in a second step.
    for wanted in [4096, MAX_LINE] {
        let known = bytes.len();
        bytes.resize(wanted, 0);
        let read = read_full(file, bytes.get_mut(known..).unwrap_or_default(), known as u64)?;
        bytes.truncate(known + read);
        if let Some(end) = memchr::memchr(b'\n', &bytes) {
            bytes.truncate(end);
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// What the first line of a file says of it, if it is a good line that belongs to this file.
fn first_segment(parser: &mut LineParser, line: &[u8], name: SegmentName) -> Option<(u64, SegmentInfo)> {
    let line = parser.parse(line).ok()?;
    let detail = line.detail.filter(|_| line.kind == Kind::Segment && line.hash_is_right())?;
    if read_format(detail)? > crate::format::FORMAT_VERSION {
        return None;
    }
    let info = read_segment(detail)?;
    info.is_of(name).then_some((line.seq, info))
}
