//! A copy of the log in one file, as JSON Lines.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use fs2::FileExt;
use tracing_audit::Digest;

use crate::{
    copy::{CopiedLine, CopyChecker, CopyReport},
    error::Error,
    kept::Kept,
    position::{is_same, private},
    sink::{Entry, Position, Sink, SinkError},
};

/// A copy of the log in one file: the lines of all chains as they come, byte for byte, each batch synced before it is
/// acknowledged. [`verify_file`] checks it.
///
/// Where a chain begins in the middle of a segment, because forwarding began there, its id stands in a file beside the copy:
/// its name with `.chains` behind it.
///
/// The file tells what it has, so that nothing is doubled; it is read once, and again when somebody else was at it. Half a line at its end,
/// which a crash left, is cut off. One process at a time writes it, under a lock on the file. Nobody else may append to it.
pub struct FileSink {
    path: PathBuf,
    copy: Option<Copy>,
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSink").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The open file.
struct Copy {
    file: Kept,
    /// How much of it is synced.
    synced: u64,
    /// What is behind that came to nothing.
    is_in_doubt: bool,
    heads: HashMap<Arc<str>, (u64, Digest)>,
}

impl FileSink {
    /// A copy at this path. The file is made if it is missing, readable by its owner only.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), copy: None }
    }

    fn copy(&mut self) -> Result<&mut Copy, SinkError> {
        // Lets go of one whose descriptor was closed before the next can get its number.
        self.copy = self.copy.take().filter(|copy| copy.file.get().is_ok());
        if self.copy.is_none() {
            self.copy = Some(Copy::open(&self.path)?);
        }
        let copy = self.copy.as_mut().ok_or_else(|| unavailable("open", &self.path, "it is not open"))?;
        copy.settle().map_err(|error| unavailable("repair", &self.path, &error))?;
        Ok(copy)
    }
}

impl Sink for FileSink {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        if let Some(copy) = self.copy.as_mut().filter(|copy| copy.file.get().is_ok()) {
            // A sync that failed once says nothing about what it was to write: that goes first.
            copy.settle().map_err(|error| unavailable("repair", &self.path, &error))?;
            if !copy.is_at(&self.path) {
                // Somebody put back another one.
                self.copy = None;
            }
        }
        let copy = self.copy()?;
        let position = |id: &Arc<str>| {
            let (seq, hash) = *copy.heads.get(id)?;
            Some(Position { chain_id: Arc::clone(id), seq, hash })
        };
        Ok(Some(chain_ids.iter().filter_map(position).collect()))
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        let path = self.path.clone();
        let copy = self.copy()?;
        let mut heads = copy.heads.clone();
        let (mut lines, mut begins) = (Vec::new(), String::new());
        for (index, entry) in batch.iter().enumerate() {
            let (seq, hash) = (entry.record.seq(), entry.record.hash());
            match heads.get(&entry.chain_id) {
                Some((last, stored)) if *last == seq && *stored != hash => {
                    return Err(SinkError::Conflict { index, stored: *stored });
                }
                Some((last, _)) if *last >= seq => continue,
                _ => {}
            }
            begins.extend(begin_of(entry, heads.get(&entry.chain_id)));
            lines.extend_from_slice(entry.record.as_json().as_bytes());
            lines.push(b'\n');
            heads.insert(Arc::clone(&entry.chain_id), (seq, hash));
        }
        note_begins(&path, &begins).map_err(|error| unavailable("write", &chains_of(&path), &error))?;
        copy.append(&lines).map_err(|error| unavailable("write", &path, &error))?;
        copy.heads = heads;
        Ok(())
    }

    fn close(&mut self) {
        self.copy = None;
    }
}

impl Copy {
    fn open(path: &Path) -> Result<Self, SinkError> {
        let setup = |reason: String| SinkError::Setup { reason };
        let refused = |error: io::Error| setup(format!("cannot open {}: {error}", path.display()));
        let kept = open(path).map_err(refused)?;
        let file = kept.get().map_err(refused)?;
        if !file.metadata().map_err(refused)?.is_file() {
            return Err(setup(format!("{} is no regular file", path.display())));
        }
        match file.try_lock_exclusive() {
            Ok(()) => {}
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
                return Err(unavailable("lock", path, "another process writes it"));
            }
            Err(error) => return Err(refused(error)),
        }
        let failed = |error: io::Error| unavailable("read", path, &error);
        // The name has to be there after a crash, too.
        File::open(parent_of(path)).and_then(|parent| parent.sync_all()).map_err(failed)?;
        let end = End::read(file).map_err(failed)?;
        let input = end.behind_the_rest(file).map_err(failed)?;
        let (heads, whole) = read_heads(path, input).map_err(failed)?.map_err(|line| {
            setup(format!(
                "line {line} of {} is no record that follows on one of this file; move it away",
                path.display()
            ))
        })?;
        end.write_again(file).map_err(|error| unavailable("repair", path, &error))?;
        Ok(Self { file: kept, synced: whole, is_in_doubt: true, heads })
    }

    /// Whether it is still what lies at its path, as long as it was left.
    fn is_at(&self, path: &Path) -> bool {
        let same = fs::symlink_metadata(path).and_then(|named| Ok((named, self.file.get()?.metadata()?)));
        same.is_ok_and(|(named, open)| is_same(&named, &open) && open.len() == self.synced)
    }

    /// Cuts off what is not known to be written.
    fn settle(&mut self) -> io::Result<()> {
        if self.is_in_doubt {
            let file = self.file.get()?;
            if file.metadata()?.len() != self.synced {
                #[expect(clippy::disallowed_methods, reason = "it is a copy")]
                file.set_len(self.synced)?;
            }
            // Also where it was cut before and that sync failed.
            file.sync_all()?;
            self.is_in_doubt = false;
        }
        Ok(())
    }

    /// A sync that failed may have dropped what it was to write, so nothing of a batch that failed is kept.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.append_with(lines, File::sync_data)
    }

    fn append_with(&mut self, lines: &[u8], sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = self.file.get()?;
        self.is_in_doubt = true;
        file.seek(SeekFrom::Start(self.synced))?;
        let written = file.write_all(lines).and_then(|()| sync(self.file.get()?));
        if written.is_ok() {
            self.synced += lines.len() as u64;
            self.is_in_doubt = false;
        } else {
            // At once: the process may be killed before the next call. Where it fails, the next call cuts it.
            drop(self.settle());
        }
        written
    }
}

/// As much of the end of a copy as one append may have written: a batch of 1 MiB and a line of 64 KiB, rounded up.
const MAX_APPEND: u64 = 2 << 20;

/// The end of a file, which is written again when the file is opened: the same bytes in place.
///
/// A process may have been killed between a sync that failed and the cut behind it. Linux marks pages clean when their
/// writeback fails (fsync(2); PostgreSQL calls it "fsyncgate"), so another sync would succeed although the bytes are not on
/// the disk. Only a page that is written again is synced again.
struct End {
    begin: u64,
    bytes: Vec<u8>,
}

impl End {
    fn read(mut file: &File) -> io::Result<Self> {
        let begin = file.metadata()?.len().saturating_sub(MAX_APPEND);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.read_to_end(&mut bytes)?;
        Ok(Self { begin, bytes })
    }

    /// The whole file, with these bytes as its end: the page cache may have others once a page was dropped.
    fn behind_the_rest<'a>(&'a self, mut file: &'a File) -> io::Result<impl BufRead + 'a> {
        file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::with_capacity(1 << 20, file.take(self.begin)).chain(self.bytes.as_slice()))
    }

    fn write_again(&self, mut file: &File) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.begin))?;
        file.write_all(&self.bytes)?;
        file.sync_all()
    }
}

fn open(path: &Path) -> io::Result<Kept> {
    Kept::open(private().read(true).write(true).create(true).truncate(false), path)
}

/// Checks the copy in a file: that each line is what it was, and that none is missing between others. Give it a checker that
/// knows which records were rejected or skipped; see [`CopyChecker`].
///
/// # Errors
///
/// [`Error::Io`] where the file cannot be read.
pub fn verify_file(path: impl AsRef<Path>, mut checker: CopyChecker) -> Result<CopyReport, Error> {
    let path = path.as_ref();
    let mut chains = Chains::begun_at(path).map_err(|error| Error::io("read", chains_of(path))(error))?;
    let failed = |error| Error::io("read", path)(error);
    let mut input = BufReader::with_capacity(1 << 20, fs::File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        input.read_until(b'\n', &mut line).map_err(failed)?;
        // Half a line is one that was never acknowledged.
        let Some((b'\n', text)) = line.split_last() else { return Ok(checker.finish()) };
        let found = std::str::from_utf8(text).ok().and_then(Ends::of);
        let id = found.as_ref().and_then(|found| chains.of(found)).or_else(|| chains.likely(found.as_ref()));
        checker.line(id.as_deref().unwrap_or("unknown"), text);
        if let Some((id, found)) = id.zip(found) {
            chains.add(id, &found);
        }
    }
}

/// The last record of each chain, and which chain a line belongs to: what it links to tells.
#[derive(Default)]
struct Chains {
    heads: Heads,
    by_hash: HashMap<Digest, Arc<str>>,
}

impl Chains {
    /// With what the file beside a copy says. Half a line is of a batch that was not written.
    fn begun_at(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(chains_of(path)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let begin = |line: &str| {
            let (previous, id) = line.strip_suffix('\n')?.split_once(' ')?;
            Some((previous.parse().ok()?, Arc::from(id)))
        };
        Ok(Self { heads: Heads::new(), by_hash: text.split_inclusive('\n').filter_map(begin).collect() })
    }

    fn of(&self, line: &Ends<'_>) -> Option<Arc<str>> {
        line.chain_id.map(Arc::from).or_else(|| self.by_hash.get(&line.previous).cloned())
    }

    /// The chain of a line that links to none: the one that it would follow best.
    fn likely(&self, line: Option<&Ends<'_>>) -> Option<Arc<str>> {
        let seq = line.map_or(u64::MAX, |line| line.seq);
        let near = self.heads.iter().min_by_key(|(_, (last, _))| last.abs_diff(seq));
        near.map(|(id, _)| Arc::clone(id))
    }

    fn add(&mut self, id: Arc<str>, line: &Ends<'_>) {
        if let Some((_, last)) = self.heads.insert(Arc::clone(&id), (line.seq, line.hash)) {
            self.by_hash.remove(&last);
        }
        self.by_hash.insert(line.hash, id);
    }
}

/// The file that says to which chains lines belong that link to none in the copy.
fn chains_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".chains");
    PathBuf::from(name)
}

/// What that file must say of a record, if it links to none in the copy.
fn begin_of(entry: &Entry, last: Option<&(u64, Digest)>) -> Option<String> {
    let line = Ends::of(entry.record.as_json())?;
    let is_linked = line.chain_id.is_some() || last.is_some_and(|(_, hash)| *hash == line.previous);
    (!is_linked).then(|| format!("{} {}\n", line.previous, entry.chain_id))
}

/// Durable before the records that need it.
fn note_begins(path: &Path, begins: &str) -> io::Result<()> {
    if begins.is_empty() {
        return Ok(());
    }
    let path = chains_of(path);
    let mut file = private().append(true).create(true).open(&path)?;
    // Behind half a line that a crash left.
    file.write_all(format!("\n{begins}").as_bytes())?;
    file.sync_all()?;
    File::open(parent_of(&path))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// More than any line has.
const MAX_LINE: u64 = 64 << 10;

type Heads = HashMap<Arc<str>, (u64, Digest)>;

/// The last record of each chain, and how many bytes are whole lines. The number of a line that does not belong there is
/// the inner error.
fn read_heads(path: &Path, mut input: impl BufRead) -> io::Result<Result<(Heads, u64), u64>> {
    let mut chains = Chains::begun_at(path)?;
    let (mut line, mut whole, mut number) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        number += 1;
        let Some((b'\n', text)) = line.split_last() else {
            let is_torn = line.iter().zip(b"{\"seq\":").all(|(one, other)| one == other || *one == 0);
            let is_end = (line.len() as u64) < MAX_LINE;
            return Ok(if is_torn && is_end { Ok((chains.heads, whole)) } else { Err(number) });
        };
        let right = std::str::from_utf8(text).ok().filter(|text| CopiedLine::parse(text.as_bytes()).is_ok());
        let Some(found) = right.and_then(Ends::of) else { return Ok(Err(number)) };
        let Some(id) = chains.of(&found) else { return Ok(Err(number)) };
        chains.add(id, &found);
        whole += line.len() as u64;
    }
}

/// What stands at both ends of a line, and the chain's id in the first line of a segment.
struct Ends<'a> {
    seq: u64,
    previous: Digest,
    hash: Digest,
    chain_id: Option<&'a str>,
}

impl<'a> Ends<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (seq, rest) = line.strip_prefix("{\"seq\":")?.split_once(',')?;
        let (rest, hash) = split_digest(rest.strip_suffix("\"}")?)?;
        let (rest, previous) = split_digest(rest.strip_suffix("\",\"_hash\":\"")?)?;
        let rest = rest.strip_suffix("\"_prev_hash\":\"")?;
        let is_first = rest.split_once(",\"kind\":\"").is_some_and(|(_, kind)| kind.starts_with("segment\""));
        let id = || rest.split_once("\"segment\":{\"format\":1,\"id\":\"")?.1.get(..32);
        let chain_id = if is_first { Some(id()?) } else { None };
        Some(Self {
            seq: seq.parse().ok()?,
            previous: previous.parse().ok()?,
            hash: hash.parse().ok()?,
            chain_id,
        })
    }
}

/// What stands before the digest at the end of a text, and the digest.
fn split_digest(text: &str) -> Option<(&str, &str)> {
    text.split_at_checked(text.len().checked_sub(64)?)
}

fn unavailable(action: &str, path: &Path, why: impl fmt::Display) -> SinkError {
    SinkError::Unavailable { reason: format!("cannot {action} {}: {why}", path.display()), retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_sync_leaves_is_cut_off_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.jsonl");
        let mut copy = Copy::open(&path).unwrap();
        copy.append(b"kept\n").unwrap();
        let error = copy.append_with(b"lost\n", |_| Err(io::Error::other("no space"))).unwrap_err();
        assert_eq!(error.to_string(), "no space");
        assert_eq!(fs::read(&path).unwrap(), b"kept\n");
        assert!(!copy.is_in_doubt);
        copy.append(b"next\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"kept\nnext\n");
    }

    /// What daemons do when they start: they close every descriptor there is, and the next file gets our number.
    #[test]
    fn nothing_is_written_to_what_took_the_number_of_a_closed_descriptor() {
        use std::os::fd::AsRawFd as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.jsonl");
        let mut copy = Copy::open(&path).unwrap();
        copy.append(b"kept\n").unwrap();
        let number = copy.file.get().unwrap().as_raw_fd();
        nix::unistd::close(number).unwrap();
        let mut others: Vec<File> = Vec::new();
        for name in 0..64 {
            others.push(File::create(dir.path().join(name.to_string())).unwrap());
        }
        let error = copy.append(b"lost\n").unwrap_err();
        assert!(error.to_string().contains("closed its descriptor"), "{error}");
        assert!(copy.settle().is_err() || !copy.is_in_doubt);
        assert!(!copy.is_at(&path));
        drop(copy);
        for (name, mut other) in others.into_iter().enumerate() {
            other.write_all(b"theirs").unwrap();
            assert_eq!(fs::read(dir.path().join(name.to_string())).unwrap(), b"theirs");
        }
        let mut sink = FileSink::new(dir.path().join("another.jsonl"));
        let number = sink.copy().unwrap().file.get().unwrap().as_raw_fd();
        nix::unistd::close(number).unwrap();
        sink.copy().unwrap().append(b"").unwrap();
    }

    /// A hole has no blocks before its bytes are written.
    #[cfg(unix)]
    #[test]
    fn the_end_of_a_copy_is_written_again_when_it_is_opened() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.jsonl");
        let bytes = MAX_LINE - 1;
        #[expect(clippy::disallowed_methods, reason = "it is a copy")]
        open(&path).unwrap().get().unwrap().set_len(bytes).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
        drop(Copy::open(&path).unwrap());
        let data = fs::metadata(&path).unwrap();
        assert!(data.len() == bytes && data.blocks() * 512 >= bytes, "{data:?}");
    }

    #[test]
    fn the_end_has_all_that_one_append_may_have_written_and_follows_on_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.jsonl");
        let text: Vec<u8> = (0_u32..1 << 20).flat_map(u32::to_le_bytes).collect();
        fs::write(&path, &text).unwrap();
        let kept = open(&path).unwrap();
        let file = kept.get().unwrap();
        let end = End::read(file).unwrap();
        assert_eq!((end.begin, end.bytes.len() as u64), (text.len() as u64 - MAX_APPEND, MAX_APPEND));
        let mut whole = Vec::new();
        end.behind_the_rest(file).unwrap().read_to_end(&mut whole).unwrap();
        assert!(whole == text);
        end.write_again(file).unwrap();
        assert!(fs::read(&path).unwrap() == text);
    }
}
