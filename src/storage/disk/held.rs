//! Descriptors that are kept: none of them takes the place of a standard stream, and none is used once the program
//! has closed it.

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

/// The highest number of a standard stream. A program that has closed them prints to these numbers all the same.
const STANDARD: RawFd = 2;

/// Which [`Held`] was opened last at each number. A program that closes all descriptors and opens the same log again gets
/// the same files at the same numbers: that they are not those of the first handle is known only from this. Numbers
/// beyond it are not compared. No lock, since a fork can come at any time.
static OWNERS: [AtomicU64; 1 << 16] = [const { AtomicU64::new(0) }; 1 << 16];

/// What was opened last of all.
static LAST_OPENED: AtomicU64 = AtomicU64::new(0);

/// An open file or directory.
///
/// The program shares its descriptors with us. One that closes all it has, as daemons do when they start, lets the
/// next socket or file have our number. So what stands behind the number is compared with what was opened before it is
/// used, and it is not closed where it belongs to somebody else, or to another handle of a log.
#[derive(Debug)]
pub(super) struct Held {
    /// Shared with nobody, except to keep it open for ever.
    file: Arc<fs::File>,
    identity: Stat,
    /// What stands in `OWNERS` for as long as the number is ours.
    owner: u64,
    /// Whether it was seen to be closed: what is opened anew can get the same number, and be the same file.
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
            owner: LAST_OPENED.fetch_add(1, Ordering::Relaxed) + 1,
            is_closed: AtomicBool::new(false),
        };
        if let Some(owner) = held.owner_of_number() {
            owner.store(held.owner, Ordering::Release);
        }
        Ok(held)
    }

    /// What was opened, if it still is that.
    pub(super) fn get(&self) -> io::Result<&fs::File> {
        self.stat().map(|_| &*self.file)
    }

    /// The same, and what it holds.
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

    /// Asked of the system alone: a file system in user space can answer `EBADF` too.
    fn is_open(&self) -> bool {
        rustix::io::fcntl_getfd(&self.file).is_ok()
    }

    /// Whether nothing else of ours was opened at this number since.
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
            // The number is closed, or somebody else's.
            std::mem::forget(Arc::clone(&self.file));
        }
    }
}

/// Whether a call failed because the program had closed the descriptor that it was made on. A file system in user space
/// can say the same of a read, a write or a sync: `File::stat` says it only where it is so.
pub(crate) fn is_closed_under_us(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADF.raw_os_error())
}

fn above_standard(mut open: impl FnMut() -> rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    // Held while the file is opened, so that not even for a moment a file that can be written to has such a number.
    let free = || rustix::fs::open("/", SEARCH, Mode::empty()).ok();
    let taken: Vec<OwnedFd> =
        std::iter::from_fn(|| free().filter(|number| number.as_raw_fd() <= STANDARD)).collect();
    let opened = retry(|| Ok(open()?))?;
    drop(taken);
    if opened.as_raw_fd() > STANDARD {
        return Ok(opened);
    }
    // A standard stream was closed just now.
    Ok(rustix::io::fcntl_dupfd_cloexec(&opened, STANDARD + 1)?)
}

/// What is open. The live segment is asked this before each write and each acknowledgement, and whoever asks for the
/// times of a file as well makes the next write note a finer one, which a journal must take in too (multigrain
/// timestamps, Linux 6.13).
fn stat_of_open(file: &fs::File) -> io::Result<Stat> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(stat) = stat_without_times(file) {
        return Ok(stat);
    }
    Ok(stat_of(&rustix::fs::fstat(file)?))
}

/// `None` where there is no `statx`, or it does not know all of this.
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

    /// A second handle of the same log: both wrote one chain.
    #[test]
    fn what_is_opened_at_the_number_of_another_takes_it_from_that_one() {
        let open = || rustix::fs::open("/", SEARCH, Mode::empty());
        let (first, other) = (Held::open(open).expect("a directory"), Held::open(open).expect("a directory"));
        // As if the program had closed it, and the system had given the number and the file once more.
        let second = Held::of(Arc::clone(&first.file)).expect("the same");
        assert!(first.get().is_err_and(|error| is_closed_under_us(&error)));
        drop(first);
        assert!(second.get().is_ok() && other.get().is_ok());
        assert!(second.is_open(), "what is not ours is not closed");
    }
}
