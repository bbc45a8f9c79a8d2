//! The seam: the little that the log asks of a file system. The disk is one implementation, the
//! simulation another. Errors here are plain `io::Error`; who calls adds the path.

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

/// Which directory of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dir {
    /// Where the segments are.
    Log,
    /// `control`, where the locks are.
    Control,
}

/// What identifies a file and how much it holds.
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
    /// Whether this is the same file, whatever it holds.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// For readers, who may not be allowed to write.
    Read,
    /// An existing segment, to append and to read back. Refused unless it is a regular file of ours
    /// with one name.
    Append,
    /// A new segment; it must not exist. Append only.
    Create,
    /// A lock file: made when missing, written in place.
    Lock,
}

/// How a lock is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// Held by the one writer of a chain.
    Exclusive,
    /// Taken for a moment by who only wants to know whether a writer holds it.
    Shared,
}

/// One directory that is a log.
pub(crate) trait Storage: Send + Sync + fmt::Debug {
    /// The path of a name, for messages.
    fn path(&self, dir: Dir, name: &str) -> PathBuf;
    /// The names in a directory, in no order. A directory that does not exist is empty.
    fn list(&self, dir: Dir) -> io::Result<Vec<String>>;
    /// Opens or makes a file. Never follows a symlink.
    fn open(&self, dir: Dir, name: &str, access: Access) -> io::Result<Box<dyn File>>;
    /// Removes a file.
    fn remove(&self, dir: Dir, name: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: Dir) -> io::Result<()>;
    /// What has a name now, without following a symlink; `None` where nothing does, as in a directory that was moved
    /// away from its place.
    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>>;
    /// Whether the system tells, of a file that may not be opened, that somebody holds its exclusive lock. It need not
    /// know of all.
    fn is_seen_locked(&self, dir: Dir, name: &str) -> bool;
    /// Opens the directory at the place of the log anew, after it was moved or removed, or closed by the program; makes
    /// it if need be.
    fn reattach(&self) -> io::Result<()>;
    /// The same directories through descriptors of their own, for a thread beside the writer's. An error of writing back
    /// is told to each descriptor once: a sync of the directory over there must not hide one from a new segment here.
    fn apart(&self) -> io::Result<Arc<dyn Storage>>;
    /// Bytes that a user without privileges may still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Changes when the machine starts anew; empty where the system has no such thing.
    fn boot_id(&self) -> String;
    /// Names the machine, or the container, as long as it is not cloned; empty where the system has no such thing.
    fn machine_id(&self) -> String;
    /// The kind of file system, for the `open` record.
    fn filesystem(&self) -> FileSystem;
    /// The largest file the process may write (`RLIMIT_FSIZE`).
    fn file_size_limit(&self) -> Option<u64>;
    /// Random bits for identifiers.
    fn random(&self) -> io::Result<u128>;
    /// The process that writes, for whoever finds a lock held and for the `open` record.
    fn process_id(&self) -> u32 {
        std::process::id()
    }
}

/// One open file. Every method is one system call, or another where the first is not there; `EINTR` is retried. Before
/// that the descriptor is looked at: where it is not the file that was opened any more, because the program closed it,
/// nothing is done, and [`is_closed_under_us`] knows the error.
pub(crate) trait File: Send + Sync + fmt::Debug {
    /// One write at the end; may write less than it was given.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    /// One write in place, for lock files.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// One read; zero at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// `fdatasync`: the bytes, and the length that is needed to read them.
    fn sync_data(&self) -> io::Result<()>;
    /// `fsync`: everything, for a new file.
    fn sync_all(&self) -> io::Result<()>;
    /// What the open file is now, even if its name is gone.
    fn stat(&self) -> io::Result<Stat>;
    /// When the file was made, in nanoseconds since 1970; 0 where the file system does not say.
    fn birth(&self) -> io::Result<u64>;
    /// Tries to take the lock; false when somebody else holds it.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;
    /// Lets go of the lock.
    fn unlock(&self) -> io::Result<()>;
    /// Keeps the file open, and its lock held, as long as the process lives.
    fn keep(self: Arc<Self>);
}

/// Fills `bytes` from `offset` on as far as the file goes; returns how many were read.
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
