//! Files that stay open.

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

/// The highest number of a standard stream. A program that has closed them prints to these numbers all the same.
const STANDARD: RawFd = 2;

/// A file that stays open: it takes the place of no standard stream, and is used and closed only while it is the one that was
/// opened. A program that closes all descriptors, as daemons do when they start, lets its next socket have our number.
#[derive(Debug)]
pub(crate) struct Kept {
    /// `None` only while it is dropped.
    file: Option<File>,
    identity: (u64, u64),
    /// Whether it was seen to be closed: the same file, opened anew, can get the same number.
    is_closed: AtomicBool,
}

impl Kept {
    pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<Self> {
        let file = above_standard(options, path)?;
        let identity = identity_of(&file)?;
        Ok(Self { file: Some(file), identity, is_closed: AtomicBool::new(false) })
    }

    /// The file, while its descriptor is still that of this file.
    pub(crate) fn get(&self) -> io::Result<&File> {
        let closed = || io::Error::other("the program closed its descriptor; it is opened anew");
        let file =
            self.file.as_ref().filter(|_| !self.is_closed.load(Ordering::Relaxed)).ok_or_else(closed)?;
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
            // The number is closed, or somebody else's.
            std::mem::forget(self.file.take());
        }
    }
}

fn identity_of(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn above_standard(options: &OpenOptions, path: &Path) -> io::Result<File> {
    // Held while the file is opened, so that not even for a moment a file that can be written to has such a number.
    let free = || File::open("/").ok().filter(|file| file.as_raw_fd() <= STANDARD);
    let taken: Vec<File> = std::iter::from_fn(free).collect();
    let file = options.open(path)?;
    drop(taken);
    if file.as_raw_fd() > STANDARD {
        return Ok(file);
    }
    // A standard stream was closed just now.
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, STANDARD + 1)?.into())
}
