//! The storage seam: everything that the log needs of a file system, as two small traits. The disk
//! is one implementation, the simulation another. Errors are plain `io::Error`; the caller adds the
//! path.

mod disk;
#[cfg(feature = "fault-injection")]
mod faults;
mod filesystem;
#[cfg(any(test, audit_simulation))]
#[path = "../../testing/simulation/mod.rs"]
pub(crate) mod sim;

use std::{fmt, io, path::PathBuf, sync::Arc};

pub(crate) use disk::{Disk, DiskOptions, is_closed_under_us, is_out_of_room};
#[cfg(feature = "fault-injection")]
pub use faults::Faults;
#[cfg(feature = "fault-injection")]
pub(crate) use faults::FaultyStorage;
pub(crate) use filesystem::FileSystem;

/// A directory of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dir {
    /// The log directory, which holds the segments.
    Log,
    /// The directory `control`, which holds the locks.
    Control,
}

/// The identity and the size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    pub(crate) links: u64,
    /// The permission bits.
    pub(crate) mode: u32,
}

impl Stat {
    /// Returns whether both are the same file, whatever its contents.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The way in which a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// For readers, who may lack permission to write.
    Read,
    /// An existing segment, to append and to read back. Refused unless it is a regular file of this
    /// user with a single name.
    Append,
    /// A new segment; it must not exist. Append only.
    Create,
    /// A lock file: created if missing, and written in place.
    Lock,
}

/// The kind of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// Held by the one writer of a chain.
    Exclusive,
    /// Taken briefly to find out whether a writer holds the lock.
    Shared,
}

/// The directories of one log.
pub(crate) trait Storage: Send + Sync + fmt::Debug {
    /// Returns the path of a name, for messages.
    fn path(&self, dir: Dir, name: &str) -> PathBuf;
    /// Returns the names in a directory, in no order. A directory that does not exist is empty.
    fn list(&self, dir: Dir) -> io::Result<Vec<String>>;
    /// Opens or creates a file. Never follows a symlink.
    fn open(&self, dir: Dir, name: &str, access: Access) -> io::Result<Box<dyn File>>;
    /// Removes a file.
    fn remove(&self, dir: Dir, name: &str) -> io::Result<()>;
    /// Makes the names in a directory durable. A sync of a new file does not do that (fsync(2)).
    fn sync_dir(&self, dir: Dir) -> io::Result<()>;
    /// Returns the file that has a name now, without following a symlink. `None` if there is none,
    /// or the directory was moved away from its place.
    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>>;
    /// Returns whether the system reports an exclusive lock on a file that may not be opened. It
    /// may not report all locks.
    fn is_seen_locked(&self, dir: Dir, name: &str) -> bool;
    /// Opens the directory at the place of the log again, after it was moved or removed, or its
    /// descriptor was closed by the program. Creates it if necessary.
    fn reattach(&self) -> io::Result<()>;
    /// Opens the same directories through new descriptors, for another thread than the writer's.
    /// The kernel reports a writeback error once to each open file description (fsync(2)). A
    /// directory sync by that thread must not consume an error that the writer's next segment needs
    /// to see.
    fn apart(&self) -> io::Result<Arc<dyn Storage>>;
    /// Returns how many bytes an unprivileged user may still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Returns an id that changes when the machine restarts; empty if the system has none.
    fn boot_id(&self) -> String;
    /// Returns an id of the machine or container, unique unless that is cloned; empty if the system
    /// has none.
    fn machine_id(&self) -> String;
    /// Returns the kind of file system, for the `open` record.
    fn filesystem(&self) -> FileSystem;
    /// Returns the size of the largest file that the process may write (`RLIMIT_FSIZE`,
    /// getrlimit(2)).
    fn file_size_limit(&self) -> Option<u64>;
    /// Returns random bits for identifiers.
    fn random(&self) -> io::Result<u128>;
    /// Returns the id of this process, for the lock file and the `open` record.
    fn process_id(&self) -> u32 {
        std::process::id()
    }
}

/// An open file. Every method is one system call, or a substitute if the system lacks it; `EINTR`
/// is retried. The descriptor is checked first. If the program closed it, so that it no longer
/// refers to the file, nothing is done, and [`is_closed_under_us`] recognises the error.
pub(crate) trait File: Send + Sync + fmt::Debug {
    /// Writes once at the end. May write less than it was given.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Writes once in place, for lock files.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads once. Returns zero at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes the bytes durable, and the length needed to read them (`fdatasync(2)`).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes everything durable, for a new file (`fsync(2)`).
    fn sync_all(&self) -> io::Result<()>;
    /// Returns the state of the open file, even if its name is gone.
    fn stat(&self) -> io::Result<Stat>;
    /// Returns when the file was created, in nanoseconds since 1970; 0 if the file system does not
    /// record it.
    fn birth(&self) -> io::Result<u64>;
    /// Tries to take the lock. Returns false if another process holds it.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;
    /// Releases the lock.
    fn unlock(&self) -> io::Result<()>;
    /// Keeps the file open, and its lock held, for as long as the process lives.
    fn keep(self: Arc<Self>);
}

/// Fills `bytes` from `offset` until the end of the file. Returns how many bytes were read.
pub(crate) fn read_full(file: &dyn File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
