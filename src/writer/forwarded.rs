//! What forwarders hold back: the names in `forward-required`, and how far the store of each is.

use std::{collections::BTreeSet, io, time::Duration};

use crate::{
    clock::Clock,
    format::{ChainId, Position},
    segment_name::{
        FORWARD_REQUIRED, MAX_FORWARD_REQUIRED, is_forwarder_name, is_position_name, position_name,
    },
    storage::{Access, Dir, File, LockKind, Storage, read_full},
};

/// What is read of a file that somebody else may have written.
const MAX_FOREIGN_BYTES: usize = 64 << 10;
/// What is read of a position. A chain takes some 300 bytes in it.
const MAX_POSITION_BYTES: usize = 4 << 20;

/// How long an opener waits for another that adds names, and how long it pauses between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// What removal must obey.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Required {
    /// The file cannot be understood, for this reason, so nothing is removed.
    Hold(String),
    /// Each of these must have a segment before it goes.
    Names(BTreeSet<String>),
}

/// How much of a chain its forwarders let go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The last record that may be removed.
    pub(super) through: u64,
    /// What keeps the records behind it.
    pub(super) kept_by: String,
}

impl Required {
    /// Reads the file. The names of this process count in any case.
    pub(super) fn read(storage: &dyn Storage, own: &[String]) -> Self {
        let mut names: BTreeSet<String> = own.iter().cloned().collect();
        let bytes = match read(storage, Dir::Log, FORWARD_REQUIRED, MAX_FOREIGN_BYTES) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Self::Names(names),
            Err(error) => return Self::Hold(format!("{FORWARD_REQUIRED} cannot be read: {error}")),
        };
        let written = parse(&bytes);
        if let Some(written) = written {
            names.extend(written.into_iter().map(str::to_owned));
            return Self::Names(names);
        }
        let reason = "is no list of forwarders; opening the log with `require_forwarded` mends it";
        Self::Hold(format!("{FORWARD_REQUIRED} {reason}"))
    }

    pub(super) fn is_hold(&self) -> bool {
        matches!(self, Self::Hold(_))
    }

    /// How much of a chain may go; `None` where nobody asks for anything.
    pub(super) fn limit(&self, storage: &dyn Storage, id: ChainId) -> Option<Limit> {
        let names = match self {
            Self::Names(names) => names,
            Self::Hold(reason) => return Some(Limit { through: 0, kept_by: reason.clone() }),
        };
        let limits = names.iter().map(|name| {
            let through = has_through(storage, name, id);
            let kept_by = match through {
                0 => format!("the store of forwarder {name} is not known to have any record of it"),
                through => format!("the store of forwarder {name} is complete up to record {through}"),
            };
            Limit { through, kept_by }
        });
        limits.min_by_key(|limit| limit.through)
    }
}

/// Up to which record a store has all of a chain. What cannot be read says nothing.
fn has_through(storage: &dyn Storage, forwarder: &str, id: ChainId) -> u64 {
    let bytes = read(storage, Dir::Control, &position_name(forwarder), MAX_POSITION_BYTES);
    let position = bytes.ok().flatten().and_then(|read| Position::parse(&read));
    position.map_or(0, |position| position.through(id))
}

/// Whether a forwarder runs, or ran, beside the log.
pub(super) fn has_a_forwarder(storage: &dyn Storage) -> bool {
    storage.list(Dir::Control).is_ok_and(|names| names.iter().any(|name| is_position_name(name)))
}

/// Adds names to the file, and makes them durable. Never takes one out.
pub(super) fn require(storage: &dyn Storage, names: &[String], clock: Clock) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let file = open_locked(storage, clock)?;
    let old = read_some(file.as_ref(), MAX_FOREIGN_BYTES)?;
    let new = merge(&old, names)?;
    // Written also where nothing is new: after a failed sync the bytes that can be read need not be on the disk, and
    // only what is written again is synced again.
    let (first, rest) = new.split_at_checked(MAX_FORWARD_REQUIRED).unwrap_or((&new, &[]));
    if !rest.is_empty() {
        // Blank lines over what somebody else wrote. Until the first sector is right, the file counts as `hold`.
        write_whole(file.as_ref(), rest, MAX_FORWARD_REQUIRED as u64)?;
        file.sync_data()?;
    }
    write_whole(file.as_ref(), first, 0)?;
    file.sync_all()?;
    storage.sync_dir(Dir::Log)
}

/// Opens the file, makes it if need be, and takes its lock: two openers that add names must not overwrite each other.
fn open_locked(storage: &dyn Storage, clock: Clock) -> io::Result<Box<dyn File>> {
    let mut waited = Duration::ZERO;
    loop {
        let file = storage.open(Dir::Log, FORWARD_REQUIRED, Access::Lock)?;
        if file.try_lock(LockKind::Exclusive)? {
            // Somebody may have replaced the file between opening and locking it.
            let stat = file.stat()?;
            if storage.stat(Dir::Log, FORWARD_REQUIRED)?.is_some_and(|named| named.is_same_file(&stat)) {
                return Ok(file);
            }
        }
        if waited >= MAX_WAIT {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock"));
        }
        clock.sleep(PAUSE);
        waited += PAUSE;
    }
}

/// One write: a second one could leave half of a name behind.
fn write_whole(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let written = file.write_at(bytes, offset)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The names in the file; `None` where it has none, a line that is no name, or an end that is not that of a line.
/// Blank lines at the end say nothing.
fn parse(bytes: &[u8]) -> Option<Vec<&str>> {
    let lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let names: Vec<&str> = lines.trim_end_matches('\n').split('\n').collect();
    names.iter().all(|name| is_forwarder_name(name)).then_some(names)
}

/// The whole file with these names. It only grows, and what it had stays where it was, so that a write that was torn
/// leaves the old file, the new one, or one that counts as `hold`. Of a file that counts as `hold` the names are kept that
/// can be read: one too many keeps segments, one too few loses them.
fn merge(old: &[u8], names: &[String]) -> io::Result<Vec<u8>> {
    let lines = old.split(|byte| *byte == b'\n');
    let lines: Vec<&str> = lines.map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    // What no line feed ends can be the beginning of a name that was torn, and is written now.
    let (torn, whole) = lines.split_last().map_or(("", &[][..]), |(last, whole)| (*last, whole));
    let torn = Some(torn).filter(|torn| !names.iter().any(|name| name.starts_with(torn)));
    let known = whole.iter().copied().chain(torn).filter(|line| is_forwarder_name(line));
    let mut seen = BTreeSet::new();
    let all = known.chain(names.iter().map(String::as_str)).filter(|name| seen.insert(*name));
    let mut new: Vec<u8> = all.flat_map(|name| [name.as_bytes(), b"\n"]).flatten().copied().collect();
    if new.len() > MAX_FORWARD_REQUIRED {
        let reason =
            format!("the names of all required forwarders take more than {MAX_FORWARD_REQUIRED} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    new.resize(new.len().max(old.len()), b'\n');
    Ok(new)
}

/// A file, or `None` where there is none.
fn read(storage: &dyn Storage, dir: Dir, name: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
    match storage.open(dir, name, Access::Read) {
        Ok(file) => read_some(file.as_ref(), most).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_some(file: &dyn File, most: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.stat()?.bytes).unwrap_or(usize::MAX);
    if length > most {
        let reason = format!("it has more than {most} bytes, which no file of its name has");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut bytes = vec![0; length];
    let read = read_full(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_whole_names_are_read() {
        assert_eq!(parse(b"archive\npostgres\n"), Some(vec!["archive", "postgres"]));
        assert_eq!(parse(b"a\n\n\n"), Some(vec!["a"]));
        for bad in ["", "\n", "\n\n", "a", "a\nb", "a\n\nb\n", "A\n", "a \n", "a\r\n", "a\n\0\0", "a/b\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse(&[0xFF, b'\n']), None);
    }

    #[track_caller]
    fn check(old: &str, added: &[&str], new: &str) {
        assert_eq!(merge(old.as_bytes(), &names(added)).unwrap(), new.as_bytes(), "{old:?}");
    }

    #[test]
    fn names_are_added_and_none_is_taken_out() {
        check("", &["b", "a", "b"], "b\na\n");
        check("a\n", &["b"], "a\nb\n");
        check("b\na\n", &["a"], "b\na\n");
        check("a\n\n\n\n\n", &["bc"], "a\nbc\n\n");
        let many: Vec<String> = (0..20).map(|number| format!("{number:032}")).collect();
        merge(b"", &many).unwrap_err();
        merge(b"", &many[..15]).unwrap();
    }

    #[test]
    fn what_cannot_be_understood_is_mended_and_the_names_in_it_stay() {
        check("\0\0\0\0\0", &["a"], "a\n\n\n\n");
        check("# who\nold\nNot", &["a"], "old\na\n\n\n\n\n\n\n\n");
        check("post\nNOT", &["postgres"], "post\npostgres\n");
        check("old", &["a"], "old\na\n");
        // A torn write of the same name.
        check("old\npost", &["postgres"], "old\npostgres\n");
        let garbage = vec![b'x'; 3 * MAX_FORWARD_REQUIRED];
        let mended = merge(&garbage, &names(&["a"])).unwrap();
        assert_eq!((mended.len(), parse(&mended)), (garbage.len(), Some(vec!["a"])));
    }

    /// Whatever part of the bytes reached the disk.
    #[test]
    fn a_torn_write_never_names_fewer_than_before() {
        let old: &[u8] = b"archive\n";
        let new = merge(old, &names(&["postgres", "s3"])).unwrap();
        for end in 0..=new.len() {
            let zeros = |bytes: &[u8]| [bytes, &vec![0; new.len() - end]].concat();
            for torn in [new[..end].to_vec(), zeros(&new[..end])] {
                let torn = if torn.len() < old.len() { old.to_vec() } else { torn };
                let named = parse(&torn);
                assert!(named.is_none_or(|named| named.contains(&"archive")), "{torn:?}");
            }
        }
    }
}
