//! The live segment: appended to, synced, and watched for what others do to it.

use std::{io, sync::Arc};

use crate::{
    clock::Timestamp,
    segment_name::SegmentName,
    storage::{Access, Dir, File, Stat, Storage, is_closed_under_us, is_out_of_room},
};

/// What a message says of a file whose descriptor this program closed, so that it may be something else by now.
pub(super) const CLOSED: &str = "was closed by this program";

/// A segment that is written to, and nothing else is.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    file: Box<dyn File>,
    identity: Stat,
    /// Bytes of whole lines written.
    pub(super) bytes: u64,
    /// Bytes that a successful sync covers.
    pub(super) synced: u64,
    /// The time of the first line.
    pub(super) begun: Timestamp,
    pub(super) has_records: bool,
}

/// A write that did not succeed.
#[derive(Debug)]
pub(super) struct Refused {
    /// How many bytes of whole lines were written all the same.
    pub(super) written: usize,
    /// How many more, which are a part of a line.
    pub(super) fragment: usize,
    /// Whether there was only no room: then what was written can still be synced.
    pub(super) out_of_room: bool,
    pub(super) error: io::Error,
}

impl Segment {
    /// Makes the file. It is empty and its name not durable: `sync_new` comes after the first write.
    pub(super) fn create(storage: &Arc<dyn Storage>, name: SegmentName, now: Timestamp) -> io::Result<Self> {
        let file = storage.open(Dir::Log, &name.to_string(), Access::Create)?;
        let identity = file.stat()?;
        Ok(Self { name, file, identity, bytes: 0, synced: 0, begun: now, has_records: false })
    }

    /// Goes on in a file whose first `bytes` bytes are good lines and durable.
    pub(super) fn resume(
        file: Box<dyn File>,
        name: SegmentName,
        bytes: u64,
        begun: Timestamp,
    ) -> io::Result<Self> {
        let identity = file.stat()?;
        Ok(Self { name, file, identity, bytes, synced: bytes, begun, has_records: true })
    }

    /// Writes whole lines: one `write`, continued where the system took only a part.
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

    fn refused(&mut self, lines: &[u8], written: usize, error: io::Error) -> Refused {
        // A bug here would count bytes that nobody wrote.
        assert!(written <= lines.len(), "a write took more than it was given");
        let whole = memchr::memrchr(b'\n', lines.split_at(written).0).map_or(0, |at| at + 1);
        self.bytes += whole as u64;
        Refused { written: whole, fragment: written - whole, out_of_room: is_out_of_room(&error), error }
    }

    /// `fdatasync`. After an error this file must never be synced again: the next sync would lie.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.bytes;
        Ok(())
    }

    /// Makes a new file durable, bytes and name. Until the directory is synced, a power cut can
    /// lose the whole segment.
    pub(super) fn sync_new(&mut self, storage: &Arc<dyn Storage>) -> io::Result<()> {
        self.file.sync_all()?;
        storage.sync_dir(Dir::Log)?;
        self.synced = self.bytes;
        Ok(())
    }

    /// Whether a call failed because the program closed the file. A file system can say so of one that is open.
    pub(super) fn was_closed(&self, error: &io::Error) -> bool {
        is_closed_under_us(error) && self.file.stat().is_err_and(|error| is_closed_under_us(&error))
    }

    /// What somebody else did to the open file, if anything: asked before each acknowledgement.
    pub(super) fn tampering(&self) -> io::Result<Option<&'static str>> {
        let stat = match self.file.stat() {
            Err(error) if is_closed_under_us(&error) => return Ok(Some(CLOSED)),
            stat => stat?,
        };
        Ok(if stat.links == 0 {
            Some("was removed")
        } else if stat.links > 1 {
            // What is written here would be written there.
            Some("was given a second name")
        } else if stat.bytes < self.bytes {
            Some("was cut")
        } else if stat.bytes > self.bytes {
            Some("was written to by somebody else")
        } else {
            None
        })
    }

    /// Whether the whole lines are there, the fragment of a refused write behind them, and nothing
    /// else.
    pub(super) fn holds_what_was_written(&self, fragment: usize) -> bool {
        self.is_ours_with(self.bytes + fragment as u64)
    }

    /// The same for its name.
    pub(super) fn name_tampering(&self, storage: &Arc<dyn Storage>) -> io::Result<Option<&'static str>> {
        Ok(match storage.stat(Dir::Log, &self.name.to_string())? {
            None => Some("was removed or renamed"),
            Some(named) if !named.is_same_file(&self.identity) => Some("was replaced"),
            Some(_) => None,
        })
    }

    /// Whether users that the log was not made for can read the file.
    pub(super) fn is_exposed(&self) -> bool {
        self.identity.mode & 0o007 != 0
    }

    /// Whether the file is still as it was created, so that it can take another first line.
    pub(super) fn is_empty(&self) -> bool {
        self.is_ours_with(0)
    }

    fn is_ours_with(&self, bytes: u64) -> bool {
        self.file.stat().is_ok_and(|stat| stat.links == 1 && stat.bytes == bytes)
    }
}
