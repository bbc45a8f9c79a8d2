//! What forwarders hold back from removal: the names in `forward-required`, and how complete the
//! store of each is.

use std::{collections::BTreeSet, io, time::Duration};

use crate::{
    clock::Clock,
    format::{ChainId, Position},
    segment_name::{
        FORWARD_REQUIRED, MAX_FORWARD_REQUIRED, is_forwarder_name, is_position_name, position_name,
    },
    storage::{Access, Dir, File, LockKind, Storage, read_full},
};

/// The most bytes read of a file that others may have written.
const MAX_FOREIGN_BYTES: usize = 64 << 10;
/// The most bytes read of a position file. A chain takes some 300 bytes in it.
const MAX_POSITION_BYTES: usize = 4 << 20;

/// How long an opener waits for another that is adding names.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// How long it pauses between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// The forwarders that removal must wait for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Required {
    /// The file cannot be parsed, for this reason, so nothing is removed.
    Hold(String),
    /// Each of these forwarders must have stored a segment before it is removed.
    Names(BTreeSet<String>),
}

/// How much of a chain its forwarders allow to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The last record that may be removed.
    pub(super) through: u64,
    /// Why the records behind it must stay.
    pub(super) kept_by: String,
}

impl Required {
    /// Reads the file. The names in the settings of this process always count.
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
        let reason = "is not a valid list of forwarders; opening the log with `require_forwarded` repairs it";
        Self::Hold(format!("{FORWARD_REQUIRED} {reason}"))
    }

    pub(super) fn is_hold(&self) -> bool {
        matches!(self, Self::Hold(_))
    }

    /// Returns how much of a chain may be removed; `None` if no forwarder is required.
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

/// Returns the last record up to which a store is complete for this chain; 0 if that cannot be
/// read.
fn has_through(storage: &dyn Storage, forwarder: &str, id: ChainId) -> u64 {
    let bytes = read(storage, Dir::Control, &position_name(forwarder), MAX_POSITION_BYTES);
    let position = bytes.ok().flatten().and_then(|read| Position::parse(&read));
    position.map_or(0, |position| position.through(id))
}

/// Returns whether a forwarder runs, or has run, beside the log.
pub(super) fn has_a_forwarder(storage: &dyn Storage) -> bool {
    storage.list(Dir::Control).is_ok_and(|names| names.iter().any(|name| is_position_name(name)))
}

/// Adds names to the file and makes them durable. Never removes a name.
pub(super) fn require(storage: &dyn Storage, names: &[String], clock: Clock) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let file = open_locked(storage, clock)?;
    let old = read_some(file.as_ref(), MAX_FOREIGN_BYTES)?;
    let new = merge(&old, names)?;
    // Written even if no name is new: after a failed sync, the bytes that can be read need not be
    // on the disk. Only pages written again are synced again (fsync(2)).
    let (first, rest) = new.split_at_checked(MAX_FORWARD_REQUIRED).unwrap_or((&new, &[]));
    if !rest.is_empty() {
        // Write blank lines over the foreign contents first. Until the first sector is right, the
        // file counts as `hold`, which is the safe side.
        write_whole(file.as_ref(), rest, MAX_FORWARD_REQUIRED as u64)?;
        file.sync_data()?;
    }
    write_whole(file.as_ref(), first, 0)?;
    file.sync_all()?;
    storage.sync_dir(Dir::Log)
}

/// Opens the file, creates it if necessary, and takes its lock. Two openers that add names at the
/// same time must not overwrite each other's.
fn open_locked(storage: &dyn Storage, clock: Clock) -> io::Result<Box<dyn File>> {
    let mut waited = Duration::ZERO;
    loop {
        let file = storage.open(Dir::Log, FORWARD_REQUIRED, Access::Lock)?;
        if file.try_lock(LockKind::Exclusive)? {
            // The file may have been replaced between open and flock(2).
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

/// Writes with a single call: a second write could leave half a name behind.
fn write_whole(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let written = file.write_at(bytes, offset)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Returns the names in the file. `None` if it has none, if a line is not a name, or if the last
/// line is not terminated. Blank lines at the end are ignored.
fn parse(bytes: &[u8]) -> Option<Vec<&str>> {
    let lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let names: Vec<&str> = lines.trim_end_matches('\n').split('\n').collect();
    names.iter().all(|name| is_forwarder_name(name)).then_some(names)
}

/// Returns the whole file with these names added.
///
/// The file only grows, and earlier names keep their place. So a torn write leaves the old file,
/// the new one, or one that counts as `hold`. From a file that counts as `hold`, every readable
/// name is kept: a name too many keeps segments, a name too few loses them.
fn merge(old: &[u8], names: &[String]) -> io::Result<Vec<u8>> {
    let lines = old.split(|byte| *byte == b'\n');
    let lines: Vec<&str> = lines.map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    // An unterminated last line may be the beginning of a name whose write was torn. If that name
    // is added now, the fragment is dropped.
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

/// Reads a file; `None` if it does not exist.
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
        let reason = format!("it is larger than {most} bytes, the most for a file of this name");
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
    fn only_complete_names_are_read() {
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
    fn names_are_added_and_never_removed() {
        check("", &["b", "a", "b"], "b\na\n");
        check("a\n", &["b"], "a\nb\n");
        check("b\na\n", &["a"], "b\na\n");
        check("a\n\n\n\n\n", &["bc"], "a\nbc\n\n");
        let many: Vec<String> = (0..20).map(|number| format!("{number:032}")).collect();
        merge(b"", &many).unwrap_err();
        merge(b"", &many[..15]).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_parsed_is_repaired_and_keeps_its_names() {
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

    /// Holds whichever prefix of the bytes reached the disk.
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
