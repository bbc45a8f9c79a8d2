//! Beginning a segment: behind the last durable record, with everything that is retained.

use std::io;

use super::{
    super::{
        lock::{Entry, Point},
        segment::{Refused, Segment},
    },
    Ledger, Poison, Trouble,
};
use crate::{
    chain::Digest,
    clock::Moment,
    format::{After, SegmentInfo, seal},
    segment_name::SegmentName,
    storage::{Dir, is_out_of_room},
};

/// Free space beyond the first write that a new segment needs after the disk was full.
const ROOM: u64 = 64 << 10;

/// Files that may stand between two segments and count nothing: all are named in one line.
pub(in crate::writer) const MAX_FAILED: usize = 1000;

impl Ledger {
    /// Begins a new segment.
    ///
    /// In this order: the poison entry, if the old segment lies; create; one write; sync the file;
    /// sync the directory; clear the entry; only then acknowledge.
    pub(in crate::writer) fn begin_segment(&mut self, now: &Moment) -> Result<(), Trouble> {
        let rotates = self.live.is_some();
        if self.poison != Poison::None {
            // Also where it was written before: a disk that refuses this is not ready for a new file.
            if let Err(error) = self.write_poison() {
                return Err(self.not_begun("mark as failed", self.durable.segment, error, false));
            }
        }
        if !self.failed.is_empty() {
            // A disk that cannot make names durable would leave a file behind at each attempt.
            if let Err(error) = self.storage.sync_dir(Dir::Log) {
                // What was named and not synced never will be, whatever the next sync says.
                self.failed.extend(self.empty.take().map(|empty| empty.name.segment));
                self.poison();
                return Err(self.not_begun("sync the directory of", self.next_segment, error, false));
            }
        }
        let mut segment = match self.empty.take() {
            Some(empty) => empty,
            None => match self.create(now) {
                Ok(created) => created,
                Err(error) => return Err(self.not_begun("create", self.next_segment, error, rotates)),
            },
        };
        let number = segment.name.segment;
        segment.begun = now.wall;
        let sealed = self.seal_first_write(number, now);
        if let Err(error) = self.check_room() {
            self.empty = Some(segment);
            return Err(self.not_begun("write to", number, error, rotates));
        }
        if let Err(refused) = segment.append(&self.lines) {
            return Err(self.first_write_refused(segment, refused, rotates));
        }
        if let Err(error) = segment.sync_new(&self.storage) {
            self.failed.push(number);
            // Where room is only given at the sync, the next attempt waits for room too.
            self.out_of_room = is_out_of_room(&error);
            self.poison();
            return Err(self.not_begun("sync", number, error, false));
        }
        if let Err(error) = segment.tampering().and_then(|what| what.map_or(Ok(()), tampered)) {
            self.failed.push(number);
            return Err(self.not_begun("trust", number, error, false));
        }
        if self.poison == Poison::Written {
            if let Err(error) = self.lock.write(&Entry::Clean) {
                self.failed.push(number);
                self.poison();
                return Err(self.not_begun("unmark", number, error, false));
            }
            self.poison = Poison::None;
        }
        self.appended_bytes += self.lines.len() as u64;
        segment.has_records = !self.retained.is_empty();
        self.out_of_room = false;
        self.failed.clear();
        self.written = sealed;
        let end = segment.bytes;
        self.live = Some(segment);
        // The first line and the story have no drafts: they are counted here.
        self.durable.seq += if self.story.take().is_some() { 2 } else { 1 };
        self.commit_through(sealed, end, number);
        Ok(())
    }

    fn first_write_refused(&mut self, segment: Segment, refused: Refused, rotates: bool) -> Trouble {
        let number = segment.name.segment;
        self.out_of_room = refused.out_of_room;
        if refused.out_of_room && segment.is_empty() {
            self.empty = Some(segment);
            return self.not_begun("write to", number, refused.error, rotates);
        }
        self.failed.push(number);
        if !refused.out_of_room {
            self.poison();
        }
        self.not_begun("write to", number, refused.error, false)
    }

    fn not_begun(
        &mut self,
        action: &'static str,
        segment: u32,
        error: io::Error,
        old_goes_on: bool,
    ) -> Trouble {
        self.events.written = self.events.durable;
        self.receipts.clear();
        if !old_goes_on {
            // A first line may have reached the new file, and it says that the old one ends.
            self.live = None;
        }
        Trouble { action, segment, error, old_goes_on, is_tampering: false }
    }

    /// The next file that does not exist; numbers are never used twice.
    fn create(&mut self, now: &Moment) -> io::Result<Segment> {
        loop {
            if self.next_segment > SegmentName::MAX_SEGMENT {
                return Err(io::Error::other("every segment number is used"));
            }
            if self.failed.len() + 1 >= MAX_FAILED {
                return Err(io::Error::other("too many files behind the last record could not be used"));
            }
            let name = SegmentName { chain: self.chain(), segment: self.next_segment };
            match Segment::create(&self.storage, name, now.wall) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.failed.push(self.next_segment);
                    self.next_segment += 1;
                }
                created => {
                    self.next_segment += u32::from(created.is_ok());
                    return created;
                }
            }
        }
    }

    /// The `segment` line, why there is one, and everything retained, sealed into `lines`.
    fn seal_first_write(&mut self, number: u32, now: &Moment) -> (u64, Digest) {
        let counted = (self.durable.segment > 0)
            .then_some(After { segment: self.durable.segment, bytes: self.durable.end });
        let failed = self.failed.iter().map(|segment| After { segment: *segment, bytes: 0 });
        let info = SegmentInfo {
            id: self.id,
            chain: self.chain(),
            segment: number,
            after: counted.into_iter().chain(failed).collect(),
            chains: self.witnesses.clone(),
            pruned: self.pruned,
        };
        self.lines.clear();
        self.events.written = self.events.durable;
        self.receipts.clear();
        let Point { seq, hash, .. } = self.durable;
        let first = seal(&mut self.lines, seq + 1, &info.payload(now.wall), Some(seq), &hash);
        let mut at = (seq + 1, first);
        if let Some(story) = &self.story {
            let payload = story.as_info().payload(now.wall);
            at = (seq + 2, seal(&mut self.lines, seq + 2, &payload, None, &at.1));
        }
        let retained = std::mem::take(&mut self.retained);
        for chunk in retained.iter() {
            at = self.seal_chunk(chunk, at, None);
        }
        self.retained = retained;
        at
    }

    /// After a full disk: waits until the first write surely fits.
    fn check_room(&self) -> io::Result<()> {
        let needed = self.lines.len() as u64 + ROOM;
        if self.out_of_room && self.storage.free_bytes()? < needed {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }
}

fn tampered(what: &'static str) -> io::Result<()> {
    Err(io::Error::other(what))
}
