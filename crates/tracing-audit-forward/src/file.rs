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

/// A copy of the log in one file: the lines of all chains in the order of arrival, byte for byte. Each batch
/// is synced before it is acknowledged. [`verify_file`] verifies the copy.
///
/// Where a chain begins in the middle of a segment, because forwarding began there, its id is stored in a
/// file beside the copy, with the same name and `.chains` appended.
///
/// The file shows what it has, so nothing is stored twice. It is read once, and again if somebody else
/// changed it. Half a line at its end, left by a crash, is cut off. One process at a time writes it, under a
/// lock on the file. Nobody else may append to it.
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
    /// The number of bytes that are synced.
    synced: u64,
    /// Whether the file may have bytes after these, of an append that failed.
    is_in_doubt: bool,
    heads: HashMap<Arc<str>, (u64, Digest)>,
}

impl FileSink {
    /// Creates a sink for the file at this path. A missing file is created, readable by its owner only.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), copy: None }
    }

    fn copy(&mut self) -> Result<&mut Copy, SinkError> {
        // Drops a file whose descriptor was closed, before the next one can get the same number.
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
            // Bytes of an append that failed must be cut off before anything is reported.
            copy.settle().map_err(|error| unavailable("repair", &self.path, &error))?;
            if !copy.is_at(&self.path) {
                // Somebody replaced the file.
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
        // A copy, which becomes valid only once the lines are synced.
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
        // Before the lines: after a crash in between, an unused entry does no harm, but a line without
        // its entry could not be assigned to a chain.
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
            return Err(setup(format!("{} is not a regular file", path.display())));
        }
        match file.try_lock_exclusive() {
            Ok(()) => {}
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
                return Err(unavailable("lock", path, "another process writes it"));
            }
            Err(error) => return Err(refused(error)),
        }
        let failed = |error: io::Error| unavailable("read", path, &error);
        // The file name must also survive a crash.
        File::open(parent_of(path)).and_then(|parent| parent.sync_all()).map_err(failed)?;
        let end = End::read(file).map_err(failed)?;
        let input = end.behind_the_rest(file).map_err(failed)?;
        let (heads, whole) = read_heads(path, input).map_err(failed)?.map_err(|line| {
            setup(format!(
                "line {line} of {} is not a record that follows one of this file; move the file away",
                path.display()
            ))
        })?;
        // Only now: a file that is not a copy must not be written to.
        end.write_again(file).map_err(|error| unavailable("repair", path, &error))?;
        Ok(Self { file: kept, synced: whole, is_in_doubt: true, heads })
    }

    /// Returns whether the path still refers to this file, and its length is unchanged.
    fn is_at(&self, path: &Path) -> bool {
        let same = fs::symlink_metadata(path).and_then(|named| Ok((named, self.file.get()?.metadata()?)));
        same.is_ok_and(|(named, open)| is_same(&named, &open) && open.len() == self.synced)
    }

    /// Cuts off everything that is not known to be written.
    fn settle(&mut self) -> io::Result<()> {
        if self.is_in_doubt {
            let file = self.file.get()?;
            if file.metadata()?.len() != self.synced {
                #[expect(clippy::disallowed_methods, reason = "it is a copy")]
                file.set_len(self.synced)?;
            }
            // Also if the length is right: an earlier cut may not have been synced.
            file.sync_all()?;
            self.is_in_doubt = false;
        }
        Ok(())
    }

    /// Appends lines and syncs them. A failed sync may have dropped bytes (fsync(2)), so nothing of a failed
    /// batch is kept.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.append_with(lines, File::sync_data)
    }

    fn append_with(&mut self, lines: &[u8], sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = self.file.get()?;
        // Until the sync succeeds, everything after `synced` is uncertain.
        self.is_in_doubt = true;
        file.seek(SeekFrom::Start(self.synced))?;
        let written = file.write_all(lines).and_then(|()| sync(self.file.get()?));
        if written.is_ok() {
            self.synced += lines.len() as u64;
            self.is_in_doubt = false;
        } else {
            // Now, because the process may be killed before the next call. If this fails, the next call cuts
            // the file.
            drop(self.settle());
        }
        written
    }
}

/// The largest end of a copy that one append may have written: a batch of 1 MiB and a line of 64 KiB, rounded
/// up.
const MAX_APPEND: u64 = 2 << 20;

/// The end of a file, which is rewritten in place with the same bytes when the file is opened.
///
/// A process may have been killed between a failed sync and the cut after it. Linux marks pages clean when
/// their writeback fails (fsync(2); PostgreSQL calls it "fsyncgate"), so another sync would succeed although
/// the bytes are not on the disk. Only a page that is written again is synced again.
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

    /// Reads the whole file, with these bytes as its end: if a page was dropped, the page cache may return
    /// other bytes now.
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

/// Verifies the copy in a file: that each line is unaltered, and that none is missing between others. The
/// checker supplies which records were rejected or skipped; see [`CopyChecker`].
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read.
pub fn verify_file(path: impl AsRef<Path>, mut checker: CopyChecker) -> Result<CopyReport, Error> {
    let path = path.as_ref();
    let mut chains = Chains::begun_at(path).map_err(|error| Error::io("read", chains_of(path))(error))?;
    let failed = |error| Error::io("read", path)(error);
    let mut input = BufReader::with_capacity(1 << 20, fs::File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        input.read_until(b'\n', &mut line).map_err(failed)?;
        // Half a line was never acknowledged.
        let Some((b'\n', text)) = line.split_last() else { return Ok(checker.finish()) };
        let found = std::str::from_utf8(text).ok().and_then(Ends::of);
        let id = found.as_ref().and_then(|found| chains.of(found)).or_else(|| chains.likely(found.as_ref()));
        checker.line(id.as_deref().unwrap_or("unknown"), text);
        if let Some((id, found)) = id.zip(found) {
            chains.add(id, &found);
        }
    }
}

/// The last record of each chain. Finds the chain of a line by the hash that it links to.
#[derive(Default)]
struct Chains {
    heads: Heads,
    by_hash: HashMap<Digest, Arc<str>>,
}

impl Chains {
    /// Reads the file beside a copy. Half a line belongs to a batch that was not written.
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

    /// Returns the most likely chain of a line that links to none: the one whose last number is nearest.
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

/// Returns the path of the file that assigns lines without a link in the copy to their chains.
fn chains_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".chains");
    PathBuf::from(name)
}

/// Returns the line that this file needs for a record, if the record does not link to one in the copy.
fn begin_of(entry: &Entry, last: Option<&(u64, Digest)>) -> Option<String> {
    let line = Ends::of(entry.record.as_json())?;
    let is_linked = line.chain_id.is_some() || last.is_some_and(|(_, hash)| *hash == line.previous);
    (!is_linked).then(|| format!("{} {}\n", line.previous, entry.chain_id))
}

/// Adds lines to this file. They are durable before the records that need them.
fn note_begins(path: &Path, begins: &str) -> io::Result<()> {
    if begins.is_empty() {
        return Ok(());
    }
    let path = chains_of(path);
    let mut file = private().append(true).create(true).open(&path)?;
    // On a new line, because a crash may have left half a line.
    file.write_all(format!("\n{begins}").as_bytes())?;
    file.sync_all()?;
    File::open(parent_of(&path))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Longer than any line.
const MAX_LINE: u64 = 64 << 10;

type Heads = HashMap<Arc<str>, (u64, Digest)>;

/// Reads the last record of each chain, and how many bytes are complete lines. The inner error is the number
/// of a line that does not belong there.
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

/// What a line has at both ends, and the chain's id in the first line of a segment.
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

/// Splits a text into what precedes the digest at its end, and the digest.
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

    /// Does what daemons do when they start: closes every descriptor, so that the next file gets a number in
    /// use here.
    #[test]
    fn nothing_is_written_to_a_reused_descriptor() {
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
    fn the_end_covers_one_append_and_follows_the_rest() {
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
