//! Descriptors that stay open. None of them takes the number of a standard stream, and none is used
//! after the program has closed it.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{fs::Mode, io::Errno};

use super::{open_dirs::SEARCH, retry, stat_of};
use crate::storage::Stat;

/// The highest number of a standard stream. A program that has closed them still prints to these
/// numbers.
const STANDARD: RawFd = 2;

/// The [`Held`] that was last opened at each descriptor number. A program that closes all
/// descriptors and opens the same log again gets the same files at the same numbers. Only this
/// table shows that they do not belong to the first handle. Higher numbers are not checked. There
/// is no lock, because a fork could come while it is held.
static OWNERS: [AtomicU64; 1 << 16] = [const { AtomicU64::new(0) }; 1 << 16];

/// The last value given to a [`Held`].
static LAST_OPENED: AtomicU64 = AtomicU64::new(0);

/// An open file or directory.
///
/// The program shares its descriptor table with this library. If it closes every descriptor, as
/// daemons do when they start, the next socket or file may get the same number. So before each use,
/// the file behind the number is compared with the one that was opened. A number that belongs to
/// something else now, or to another handle of a log, is not closed either.
#[derive(Debug)]
pub(super) struct Held {
    /// Not shared, except to keep the descriptor open for ever.
    file: Arc<fs::File>,
    identity: Stat,
    /// The entry in `OWNERS` for as long as the number is this one's.
    owner: u64,
    /// Whether it was once seen closed. Kept, because the number may be reused for the same file.
    is_closed: AtomicBool,
}

impl Held {
    /// Opens a file at a number above those of the standard streams.
    pub(super) fn open(open: impl FnMut() -> rustix::io::Result<OwnedFd>) -> io::Result<Self> {
        Self::of(Arc::new(above_standard(open)?.into()))
    }

    fn of(file: Arc<fs::File>) -> io::Result<Self> {
        let identity = stat_of_open(&file)?;
        let held = Self {
            file,
            identity,
            // Relaxed: the counter only has to give each value once. The entries of `OWNERS` are
            // what other threads read, with Acquire.
            owner: LAST_OPENED.fetch_add(1, Ordering::Relaxed) + 1,
            is_closed: AtomicBool::new(false),
        };
        if let Some(owner) = held.owner_of_number() {
            owner.store(held.owner, Ordering::Release);
        }
        Ok(held)
    }

    /// Returns the file, if the descriptor still refers to it.
    pub(super) fn get(&self) -> io::Result<&fs::File> {
        self.stat().map(|_| &*self.file)
    }

    /// Returns the current state of the file, if the descriptor still refers to it.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Errno::BADF.into());
        }
        let stat = match stat_of_open(&self.file) {
            Ok(stat) if !self.is_same_as(&stat) || !self.has_number() => Err(Errno::BADF.into()),
            Err(error) if is_closed_under_us(&error) && self.is_open() => {
                Err(io::Error::other(error.to_string()))
            }
            stat => stat,
        };
        if stat.as_ref().is_err_and(is_closed_under_us) {
            self.is_closed.store(true, Ordering::Relaxed);
        }
        stat
    }

    /// Returns whether the descriptor is open. Only the kernel answers this call; a FUSE file
    /// system can return `EBADF` for others.
    fn is_open(&self) -> bool {
        rustix::io::fcntl_getfd(&self.file).is_ok()
    }

    /// Returns whether nothing else of this library was opened at this number since.
    fn has_number(&self) -> bool {
        self.owner_of_number().is_none_or(|owner| owner.load(Ordering::Acquire) == self.owner)
    }

    fn owner_of_number(&self) -> Option<&'static AtomicU64> {
        OWNERS.get(usize::try_from(self.file.as_raw_fd()).ok()?)
    }

    pub(super) fn is_same_as(&self, other: &Stat) -> bool {
        self.identity.is_same_file(other)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.get());
        if self.is_closed.load(Ordering::Relaxed) {
            // The number is closed or belongs to something else, so closing it would do harm.
            std::mem::forget(Arc::clone(&self.file));
        }
    }
}

/// Returns whether a call failed because the program had closed its descriptor. A FUSE file system
/// can return the same error from a read, a write or a sync. `File::stat` returns it only for a
/// closed descriptor.
pub(crate) fn is_closed_under_us(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADF.raw_os_error())
}

fn above_standard(mut open: impl FnMut() -> rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    // Occupies the free standard numbers while the file is opened. A writable file must not have
    // one of them even for a moment, because the program may print to it.
    let free = || rustix::fs::open("/", SEARCH, Mode::empty()).ok();
    let taken: Vec<OwnedFd> =
        std::iter::from_fn(|| free().filter(|number| number.as_raw_fd() <= STANDARD)).collect();
    let opened = retry(|| Ok(open()?))?;
    drop(taken);
    if opened.as_raw_fd() > STANDARD {
        return Ok(opened);
    }
    // A standard stream was closed in between.
    Ok(rustix::io::fcntl_dupfd_cloexec(&opened, STANDARD + 1)?)
}

/// Returns the state of an open file, without its times. The live segment is checked before each
/// write and each acknowledgement. Reading the times as well would make the next write record a
/// finer one, which costs a journal entry (multigrain timestamps, Linux 6.13).
fn stat_of_open(file: &fs::File) -> io::Result<Stat> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(stat) = stat_without_times(file) {
        return Ok(stat);
    }
    Ok(stat_of(&rustix::fs::fstat(file)?))
}

/// Returns `None` if there is no `statx(2)`, or it does not know all of these members.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn stat_without_times(file: &fs::File) -> Option<Stat> {
    use rustix::fs::{AtFlags, StatxFlags};
    let wanted = StatxFlags::INO | StatxFlags::SIZE | StatxFlags::NLINK | StatxFlags::MODE;
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
    StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted).then(|| Stat {
        device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        bytes: stat.stx_size,
        links: stat.stx_nlink.into(),
        mode: u32::from(stat.stx_mode) & 0o7777,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second handle of the same log: both wrote to one chain.
    #[test]
    fn what_is_opened_at_the_number_of_another_takes_it_from_that_one() {
        let open = || rustix::fs::open("/", SEARCH, Mode::empty());
        let (first, other) = (Held::open(open).expect("a directory"), Held::open(open).expect("a directory"));
        // As if the program had closed it, and the kernel had reused the number for the same file.
        let second = Held::of(Arc::clone(&first.file)).expect("the same");
        assert!(first.get().is_err_and(|error| is_closed_under_us(&error)));
        drop(first);
        assert!(second.get().is_ok() && other.get().is_ok());
        assert!(second.is_open(), "what is not ours is not closed");
    }
}
