//! Files that stay open while a program daemonises.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

/// The highest descriptor of a standard stream. A program that closed its standard streams may still print to
/// these numbers.
const STANDARD: RawFd = 2;

/// A file that stays open. It never occupies the descriptor of a standard stream, and is used and closed only
/// while its descriptor still refers to it.
///
/// A program that closes all descriptors, as daemons do when they start, may reuse the number for its next
/// socket.
#[derive(Debug)]
pub(crate) struct Kept {
    /// `None` only during drop.
    file: Option<File>,
    identity: (u64, u64),
    /// Whether the descriptor was found closed. The same file, opened again by somebody else, can get the
    /// same number.
    is_closed: AtomicBool,
}

impl Kept {
    pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        let file = above_standard(options, path)?;
        let identity = identity_of(&file)?;
        Ok(Self { file: Some(file), identity, is_closed: AtomicBool::new(false) })
    }

    /// Returns the file, if its descriptor still refers to it.
    pub(crate) fn get(&self) -> io::Result<&File> {
        let closed = || io::Error::other("the program closed its descriptor; it is opened again");
        let file =
            // Relaxed: the flag is only ever set, and orders no other memory.
            self.file.as_ref().filter(|_| !self.is_closed.load(Ordering::Relaxed)).ok_or_else(closed)?;
        // fstat(2) of a descriptor that was closed and reused returns another device or inode.
        match identity_of(file) {
            Ok(identity) if identity == self.identity => Ok(file),
            _ => {
                self.is_closed.store(true, Ordering::Relaxed);
                Err(closed())
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.get().is_err() {
            // The descriptor is closed or belongs to somebody else: do not close it.
            std::mem::forget(self.file.take());
        }
    }
}

fn identity_of(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn above_standard(options: &OpenOptions, path: &Path) -> io::Result<File> {
    // Occupies the free standard descriptors during the open, so that no writable file has one of them even
    // for a moment.
    let free = || File::open("/").ok().filter(|file| file.as_raw_fd() <= STANDARD);
    let taken: Vec<File> = std::iter::from_fn(free).collect();
    let file = options.open(path)?;
    drop(taken);
    if file.as_raw_fd() > STANDARD {
        return Ok(file);
    }
    // A standard stream was closed in the meantime.
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, STANDARD + 1)?.into())
}
