//! Begins a segment behind the last durable record, with everything that is retained.

use std::io;

use super::{
    super::{
        chain_lock::LockState,
        flush::Unsynced,
        segment::{Refused, Segment},
    },
    Ledger, Poison, TimesOf, Trouble,
};
use crate::{
    chain::Digest,
    chain_reader::{NotedState, Point},
    clock::Moment,
    format::{After, SegmentInfo, seal},
    queue::DraftBuffers,
    segment_name::SegmentName,
    storage::{Dir, is_out_of_room},
};

/// The free space, beyond the first write, that a new segment needs after the disk was full.
const ROOM: u64 = 64 << 10;

/// The most unused files between two segments. The more there are, the longer opening the chain
/// takes.
pub(in crate::writer) const MAX_FAILED: usize = 1000;

/// The most of these that the previous version left. They are listed one by one, and all must fit
/// into one line.
pub(in crate::writer) const MAX_FAILED_BEFORE: usize = 256;

impl Ledger {
    /// Begins a new segment.
    ///
    /// The order of the steps is what makes a crash at any point harmless:
    ///
    /// 1. Write the poison entry if the old segment failed: no opener may trust its pages.
    /// 2. Create the file, and write the `segment` line, which says where the old segment ends.
    /// 3. Sync the file, then the directory: without its name, a power cut loses the file.
    /// 4. Clear the poison entry, which the durable `segment` line replaces.
    /// 5. Note the head in the lock file.
    /// 6. Write and sync what is retained.
    ///
    /// Only then is anything acknowledged.
    pub(in crate::writer) fn begin_segment(&mut self, now: &Moment) -> Result<(), Trouble> {
        // An earlier attempt made this segment durable. Only its note is missing.
        if let Some(segment) = self.unnoted.take() {
            return self.enter(segment, now);
        }
        self.note_open()?;
        let rotates = self.live.is_some();
        if self.poison != Poison::None {
            // Rewritten even if it was written before: a disk that refuses this is not ready for a
            // new file.
            if let Err(error) = self.write_poison() {
                return Err(self.not_begun("mark as failed", self.durable.segment, error, false));
            }
        }
        if !self.failed.is_empty() {
            // Make the names of earlier attempts durable first. A disk that cannot do that would
            // otherwise collect a file with every attempt.
            if let Err(error) = self.storage.sync_dir(Dir::Log) {
                // A name whose sync failed may never become durable, even if the next sync
                // succeeds.
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
        // An empty file may have waited for hours. Its time is that of its first line.
        segment.begun = now.wall;
        let sealed = self.seal_first_line(number, now);
        if let Err(error) = self.check_room() {
            self.empty = Some(segment);
            return Err(self.not_begun("write to", number, error, rotates));
        }
        if let Err(refused) = segment.append(&self.lines) {
            return Err(self.first_write_refused(segment, refused, rotates));
        }
        if let Err(error) = segment.sync_new(&self.storage) {
            self.failed.push(number);
            // On file systems that allocate at the sync, the next attempt must wait for space, too.
            self.out_of_room = is_out_of_room(&error);
            self.poison();
            return Err(self.not_begun("sync", number, error, false));
        }
        if let Err(error) = segment.tampering().and_then(|what| what.map_or(Ok(()), tampered)) {
            // Somebody else may have written anything to it, so it need not look like a file that
            // only our own first write reached.
            self.failed_before.push(number);
            return Err(self.not_begun("trust", number, error, false));
        }
        if self.poison == Poison::Written {
            // If this fails, an opener would still take the entry as valid and give up the new
            // segment. So the new file must not be used either.
            if let Err(error) = self.lock.write(&LockState::Clean) {
                self.failed.push(number);
                self.poison();
                return Err(self.not_begun("unmark", number, error, false));
            }
            self.poison = Poison::None;
        }
        self.done.appended_bytes += self.lines.len() as u64;
        self.done.syncs += 1;
        self.done.segments += 1;
        self.out_of_room = false;
        self.failed.clear();
        self.failed_before.clear();
        self.damage_behind = false;
        self.written = sealed;
        self.durable = Point { segment: number, seq: sealed.0, hash: sealed.1, end: segment.bytes };
        self.times = TimesOf::known(Some((now.wall, now.wall)));
        self.enter(segment, now)
    }

    /// Notes the head, then writes what is retained. The note comes first: nothing in the new
    /// segment may be acknowledged before the lock file points to it.
    fn enter(&mut self, segment: Segment, now: &Moment) -> Result<(), Trouble> {
        if let Err(error) = self.note(NotedState::Open) {
            let number = segment.name.segment;
            self.unnoted = Some(segment);
            return Err(self.not_begun("note the head of", number, error, false));
        }
        // From here on it can be written to: `live` is set for a segment that is durable and noted,
        // and for no other.
        self.live = Some(segment);
        self.write_retained(now)
    }

    /// Writes the reason for the new segment, then what the earlier segments could not make
    /// durable.
    fn write_retained(&mut self, now: &Moment) -> Result<(), Trouble> {
        let mut retained = DraftBuffers::default();
        if let Some(recovery_reason) = self.recovery_reason.take() {
            retained.push(&recovery_reason.as_info().payload(now.wall), None, None);
        }
        self.retained.move_to(&mut retained);
        if retained.is_empty() {
            self.begun_in_vain = 0;
            return Ok(());
        }
        let since = self.unsynced.since;
        self.unsynced = Unsynced { since, ..Unsynced::default() };
        self.append(&mut retained, now)?;
        // Events refused meanwhile are named behind these, so that one sync covers both.
        self.name_refused(now)?;
        self.sync()
    }

    /// Handles a first write that failed. A file that is still empty can be used by the next
    /// attempt.
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

    /// Returns the trouble of a segment that could not be begun. Unless `old_usable`, the live
    /// segment is given up.
    fn not_begun(
        &mut self,
        action: &'static str,
        segment: u32,
        error: io::Error,
        old_usable: bool,
    ) -> Trouble {
        self.events.written = self.events.durable;
        self.receipts.clear();
        if !old_usable {
            // The first line may have reached the new file, and it ends the old segment. So nothing
            // may be appended to that.
            self.live = None;
        }
        Trouble { action, segment, error, old_usable, is_tampering: false }
    }

    /// Creates the next file that does not exist. Numbers are never used twice.
    fn create(&mut self, now: &Moment) -> io::Result<Segment> {
        loop {
            if self.next_segment > SegmentName::MAX_SEGMENT {
                return Err(io::Error::other("every segment number is used"));
            }
            // Recovery applies the same limits: beyond them, no opener would continue the chain.
            if self.failed.len() + 1 >= MAX_FAILED || self.failed_before.len() >= MAX_FAILED_BEFORE {
                return Err(io::Error::other("too many files behind the last record could not be used"));
            }
            let name = SegmentName { chain: self.chain(), segment: self.next_segment };
            match Segment::create(&self.storage, name, now.wall) {
                // Another program created it, and it may hold anything. It is listed one by one, so
                // that it counts nothing.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.failed_before.push(self.next_segment);
                    self.next_segment += 1;
                }
                created => {
                    self.next_segment += u32::from(created.is_ok());
                    self.begun_in_vain += usize::from(created.is_ok());
                    return created;
                }
            }
        }
    }

    /// Seals the `segment` line into `lines`. It is the first write to its file, and a write of its
    /// own. A crash can therefore leave at most this one line unfinished, and a file that lost more
    /// shows it.
    fn seal_first_line(&mut self, number: u32, now: &Moment) -> (u64, Digest) {
        let Point { seq, hash, segment, end } = self.durable;
        let counted =
            After { is_damaged: self.damage_behind, ..After::counted(segment, end, self.times.durable()) };
        let counted = (segment > 0).then_some(counted);
        let before = self.failed_before.iter().map(|segment| After::counted(*segment, 0, None));
        let info = SegmentInfo {
            id: self.id,
            chain: self.chain(),
            segment: number,
            after: counted.into_iter().chain(before).chain(After::rows(&self.failed)).collect(),
            chains: self.name_all_others(),
            pruned: self.pruned,
        };
        self.lines.clear();
        self.events.written = self.events.durable;
        self.receipts.clear();
        (seq + 1, seal(&mut self.lines, seq + 1, &info.payload(now.wall), Some(seq), &hash))
    }

    /// Checks, after the disk was full, that everything retained will fit. Otherwise each attempt
    /// could leave another unfinished segment.
    fn check_room(&self) -> io::Result<()> {
        let needed = self.lines.len() as u64 + self.retained.bytes() + ROOM;
        if self.out_of_room && self.storage.free_bytes()? < needed {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }
}

fn tampered(what: &'static str) -> io::Result<()> {
    Err(io::Error::other(what))
}
