//! The live segment: appends to it, syncs it, and detects changes made by others.

use std::{io, sync::Arc};

use crate::{
    clock::Timestamp,
    segment_name::SegmentName,
    storage::{Access, Dir, File, Stat, Storage, is_closed_under_us, is_out_of_room},
};

/// How a message describes a file whose descriptor this program closed. The number may refer to
/// something else by now.
pub(super) const CLOSED: &str = "was closed by this program";

/// The one segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its name in the log directory.
    pub(super) name: SegmentName,
    file: Box<dyn File>,
    /// What it was when it was opened.
    identity: Stat,
    /// Bytes of whole lines written.
    pub(super) bytes: u64,
    /// Bytes covered by a successful sync.
    pub(super) synced: u64,
    /// The time of the first line.
    pub(super) begun: Timestamp,
    pub(super) has_records: bool,
}

/// A write that failed.
#[derive(Debug)]
pub(super) struct Refused {
    /// The bytes of whole lines that were written nevertheless.
    pub(super) written: usize,
    /// The bytes of an incomplete line behind them.
    pub(super) fragment: usize,
    /// Whether the only reason was a lack of space. Then what was written can still be synced.
    pub(super) out_of_room: bool,
    pub(super) error: io::Error,
}

impl Segment {
    /// Creates the file. It is empty and its name is not durable: `sync_new` follows the first
    /// write. Fails if it exists, because no number may be used twice (`O_EXCL`, open(2)).
    pub(super) fn create(storage: &Arc<dyn Storage>, name: SegmentName, now: Timestamp) -> io::Result<Self> {
        let file = storage.open(Dir::Log, &name.to_string(), Access::Create)?;
        let identity = file.stat()?;
        Ok(Self { name, file, identity, bytes: 0, synced: 0, begun: now, has_records: false })
    }

    /// Continues a file whose first `bytes` bytes are good lines and durable.
    pub(super) fn resume(
        file: Box<dyn File>,
        name: SegmentName,
        bytes: u64,
        begun: Timestamp,
    ) -> io::Result<Self> {
        let identity = file.stat()?;
        Ok(Self { name, file, identity, bytes, synced: bytes, begun, has_records: true })
    }

    /// Writes whole lines with one `write`, continued if the system took only a part.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Refused> {
        let mut written = 0;
        while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.append(rest) {
                Ok(0) => return Err(self.refused(lines, written, io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) => return Err(self.refused(lines, written, error)),
            }
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Counts what a failed write left in the file.
    fn refused(&mut self, lines: &[u8], written: usize, error: io::Error) -> Refused {
        // Counting more than was written would make later checks look for bytes that do not exist.
        assert!(written <= lines.len(), "a write took more than it was given");
        let whole = memchr::memrchr(b'\n', lines.split_at(written).0).map_or(0, |at| at + 1);
        self.bytes += whole as u64;
        Refused { written: whole, fragment: written - whole, out_of_room: is_out_of_room(&error), error }
    }

    /// Makes the lines written so far durable, with `fdatasync(2)`. After an error this file must
    /// never be synced again: the next call could succeed without writing the lost pages.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.bytes;
        Ok(())
    }

    /// Makes a new file durable, first its bytes and then its name. Until the directory is synced,
    /// a power cut can lose the whole segment.
    pub(super) fn sync_new(&mut self, storage: &Arc<dyn Storage>) -> io::Result<()> {
        self.file.sync_all()?;
        storage.sync_dir(Dir::Log)?;
        self.synced = self.bytes;
        Ok(())
    }

    /// Returns whether a call failed because the program closed the file. Some file systems return
    /// the same error for an open file, so the descriptor itself is checked.
    pub(super) fn was_closed(&self, error: &io::Error) -> bool {
        is_closed_under_us(error) && self.file.stat().is_err_and(|error| is_closed_under_us(&error))
    }

    /// Returns what somebody else did to the open file, if anything. Called before each
    /// acknowledgement.
    pub(super) fn tampering(&self) -> io::Result<Option<&'static str>> {
        let stat = match self.file.stat() {
            Err(error) if is_closed_under_us(&error) => return Ok(Some(CLOSED)),
            stat => stat?,
        };
        Ok(if stat.links == 0 {
            Some("was removed")
        } else if stat.links > 1 {
            // Both names are one file: everything written here would appear under the other name, too.
            Some("was given a second name")
        } else if stat.bytes < self.bytes {
            Some("was truncated")
        } else if stat.bytes > self.bytes {
            Some("was written to by somebody else")
        } else {
            None
        })
    }

    /// Returns whether the file holds exactly the whole lines and the fragment of a failed write.
    pub(super) fn holds_what_was_written(&self, fragment: usize) -> bool {
        self.is_ours_with(self.bytes + fragment as u64)
    }

    /// Returns what somebody else did to the name of the file, if anything.
    pub(super) fn name_tampering(&self, storage: &Arc<dyn Storage>) -> io::Result<Option<&'static str>> {
        Ok(match storage.stat(Dir::Log, &self.name.to_string())? {
            None => Some("was removed or renamed"),
            Some(named) if !named.is_same_file(&self.identity) => Some("was replaced"),
            Some(_) => None,
        })
    }

    /// Returns whether users that the log was not made for can read the file.
    pub(super) fn is_exposed(&self) -> bool {
        self.identity.mode & 0o007 != 0
    }

    /// Returns whether the file is still as it was created, so that it can take another first line.
    pub(super) fn is_empty(&self) -> bool {
        self.is_ours_with(0)
    }

    fn is_ours_with(&self, bytes: u64) -> bool {
        self.file.stat().is_ok_and(|stat| stat.links == 1 && stat.bytes == bytes)
    }
}
