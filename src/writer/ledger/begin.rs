//! Beginning a segment: behind the last durable record, with everything that is retained.

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

/// Free space beyond the first write that a new segment needs after the disk was full.
const ROOM: u64 = 64 << 10;

/// Files that may stand between two segments and count nothing: the more there are, the slower the chain is opened.
pub(in crate::writer) const MAX_FAILED: usize = 1000;

/// Those of them that the version before left, and that are named one by one: all must fit one line.
pub(in crate::writer) const MAX_FAILED_BEFORE: usize = 256;

impl Ledger {
    /// Begins a new segment.
    ///
    /// In this order: the poison entry, if the old segment lies; create; write the `segment` line; sync the file;
    /// sync the directory; clear the entry; note the head; then what is retained; only then acknowledge.
    pub(in crate::writer) fn begin_segment(&mut self, now: &Moment) -> Result<(), Trouble> {
        if let Some(segment) = self.unnoted.take() {
            return self.enter(segment, now);
        }
        self.note_open()?;
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
            // Where room is only given at the sync, the next attempt waits for room too.
            self.out_of_room = is_out_of_room(&error);
            self.poison();
            return Err(self.not_begun("sync", number, error, false));
        }
        if let Err(error) = segment.tampering().and_then(|what| what.map_or(Ok(()), tampered)) {
            // Whatever somebody wrote to it, it need not look as our own writes leave a file.
            self.failed_before.push(number);
            return Err(self.not_begun("trust", number, error, false));
        }
        if self.poison == Poison::Written {
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

    /// Notes the head before anything in a new segment is acknowledged, and writes what is retained.
    fn enter(&mut self, segment: Segment, now: &Moment) -> Result<(), Trouble> {
        if let Err(error) = self.note(NotedState::Open) {
            let number = segment.name.segment;
            self.unnoted = Some(segment);
            return Err(self.not_begun("note the head of", number, error, false));
        }
        self.live = Some(segment);
        self.write_retained(now)
    }

    /// Writes what the segments before could not make durable, and first why there is a new one.
    fn write_retained(&mut self, now: &Moment) -> Result<(), Trouble> {
        let mut retained = DraftBuffers::default();
        if let Some(story) = self.story.take() {
            retained.push(&story.as_info().payload(now.wall), None, None);
        }
        self.retained.move_to(&mut retained);
        if retained.is_empty() {
            self.begun_in_vain = 0;
            return Ok(());
        }
        let since = self.unsynced.since;
        self.unsynced = Unsynced { since, ..Unsynced::default() };
        self.append(&mut retained, now)?;
        // What was refused meanwhile is named behind it, so that one sync is enough.
        self.name_refused(now)?;
        self.sync()
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
            if self.failed.len() + 1 >= MAX_FAILED || self.failed_before.len() >= MAX_FAILED_BEFORE {
                return Err(io::Error::other("too many files behind the last record could not be used"));
            }
            let name = SegmentName { chain: self.chain(), segment: self.next_segment };
            match Segment::create(&self.storage, name, now.wall) {
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

    /// Seals the `segment` line into `lines`. It is the first write of its file, and alone: so a file in which more
    /// was lost than a crash can take shows it.
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

    /// After a full disk: waits until what is retained surely fits.
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
