//! Descriptors that are kept: none of them takes the place of a standard stream, and none is used once the program
//! has closed it.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{fs::Mode, io::Errno};

use super::{place::SEARCH, retry, stat_of};
use crate::storage::Stat;

/// The highest number of a standard stream. A program that has closed them prints to these numbers all the same.
const STANDARD: RawFd = 2;

/// An open file or directory.
///
/// The program shares its descriptors with us. One that closes all it has, as daemons do when they start, lets the
/// next socket or file have our number. So what stands behind the number is compared with what was opened before it is
/// used, and it is not closed where it belongs to somebody else.
#[derive(Debug)]
pub(super) struct Held {
    /// Shared with nobody, except to keep it open for ever.
    file: Arc<fs::File>,
    identity: Stat,
    /// Whether it was seen to be closed: what is opened anew can get the same number, and be the same file.
    is_closed: AtomicBool,
}

impl Held {
    /// Opens a file at a number above those of the standard streams.
    pub(super) fn open(open: impl FnMut() -> rustix::io::Result<OwnedFd>) -> io::Result<Self> {
        let file = fs::File::from(above_standard(open)?);
        let identity = stat_of_open(&file)?;
        Ok(Self { file: Arc::new(file), identity, is_closed: AtomicBool::new(false) })
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
            Ok(stat) if !self.is_same_as(&stat) => Err(Errno::BADF.into()),
            stat => stat,
        };
        if stat.as_ref().is_err_and(is_closed_under_us) {
            self.is_closed.store(true, Ordering::Relaxed);
        }
        stat
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

/// Whether a call failed because the program had closed the descriptor that it was made on.
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
