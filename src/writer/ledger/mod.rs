//! The chain that this process writes: seals drafts, appends them, syncs, and moves to a new segment when it
//! must.
//!
//! What is written but not durable stays in memory (`retained`), as drafts without a place in the chain.
//! After a failure they are sealed again behind the last durable record, with new sequence numbers and
//! hashes. A draft leaves memory only when a sync that began after its line was completely written has
//! succeeded.
//!
//! A failed sync poisons its segment. Linux marks the pages that it could not write as clean, and reports the
//! error once. A second `fsync(2)` of that file may then succeed although the bytes are lost ("fsyncgate",
//! 2018). The segment is therefore never synced or written to again.

mod alone;
mod begin;
mod naming;
mod noting;
mod poison;
mod witnessing;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

pub(super) use begin::{MAX_FAILED, MAX_FAILED_BEFORE};

use super::{
    chain_lock::{ChainLock, LastNamed},
    flush::Unsynced,
    others,
    roll::LiveSegment,
    segment::{CLOSED, Refused, Segment},
};
use naming::Refusals;

use crate::{
    chain::{Digest, Head},
    chain_reader::Point,
    clock::{Moment, TIMESTAMP_LEN, Timestamp},
    format::{Cause, ChainId, LineParser, RecoveryInfo, Times, Witnesses, seal, time_of},
    queue::{DraftBuffer, DraftBuffers, Scope, Ticket},
    segment_name::ChainNumber,
    storage::{Dir, Storage},
};

/// The most memory kept to seal lines in. A new segment that took a whole queue may have needed far more.
const MAX_LINES_KEPT: usize = 1 << 20;

/// One chain, locked and ready to be appended to.
#[derive(Debug)]
pub(super) struct Ledger {
    storage: Arc<dyn Storage>,
    lock: ChainLock,
    id: ChainId,
    /// The last durable record and where it ends. Its segment is 0 before there is one.
    durable: Point,
    /// The sequence number and hash of the last written record.
    written: (u64, Digest),
    live: Option<Segment>,
    next_segment: u32,
    /// Files begun since the last durable record of which nothing counts.
    failed: Vec<u32>,
    /// The same, left by the previous version: their first write may hold more than one line, which it never
    /// does now.
    failed_before: Vec<u32>,
    /// A file that was created but could not be written to yet.
    empty: Option<Segment>,
    poison: Poison,
    out_of_room: bool,
    retained: DraftBuffers,
    unsynced: Unsynced,
    /// The times of the records in the segment of the last durable record.
    times: TimesOf,
    /// Whether damaged bytes follow the last durable record. The first line of the next segment then records
    /// that they are given up.
    damage_behind: bool,
    /// Files begun since a draft last became durable.
    begun_in_vain: usize,
    receipts: Vec<(Arc<Scope>, Ticket, Head)>,
    events: Events,
    recovery_reason: Option<RecoveryReason>,
    refusals: Refusals,
    /// What was done since the counters were last updated.
    done: Done,
    /// The durable heads of other chains, as far as they were read in this run.
    witnesses: Witnesses,
    /// Every other chain that this chain has ever witnessed.
    witnessed: BTreeSet<ChainNumber>,
    /// Those of them whose last named head was looked up in the lines of this chain.
    looked_up: BTreeSet<ChainNumber>,
    /// The last head that this chain named of each of them.
    named: BTreeMap<ChainNumber, LastNamed>,
    run: Run,
    /// The hash of this machine, as in the lock file.
    machine: String,
    /// A new segment whose head could not be noted yet. Nothing may follow in it before that.
    unnoted: Option<Segment>,
    /// Missing chains that were already reported.
    missing: BTreeSet<ChainNumber>,
    pub(super) pruned: Option<(u64, Digest)>,
    lines: Vec<u8>,
}

/// How many events of this log are written and how many are durable. Records that are not events do not
/// count.
#[derive(Debug, Clone, Copy, Default)]
struct Events {
    written: Ticket,
    durable: Ticket,
}

/// What a ledger did, for the counters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// Bytes appended to segments.
    pub(super) appended_bytes: u64,
    /// Successful syncs of segments.
    pub(super) syncs: u64,
    /// Segments whose first line is durable.
    pub(super) segments: u64,
}

/// A time in its printed form. Compares in the same order as the time.
type Printed = [u8; TIMESTAMP_LEN];

/// The lowest and the highest time of the records of one segment: of those written, and of those durable.
#[derive(Debug, Clone, Copy, Default)]
struct TimesOf {
    written: Option<(Printed, Printed)>,
    durable: Option<(Printed, Printed)>,
}

impl TimesOf {
    fn known(times: Option<Times>) -> Self {
        let times = times.map(|(from, to)| (from.to_bytes(), to.to_bytes()));
        Self { written: times, durable: times }
    }

    fn note(&mut self, payload: &[u8]) {
        let Some(at) = time_of(payload) else { return };
        let (from, to) = self.written.get_or_insert((*at, *at));
        if at < from {
            *from = *at;
        }
        if at > to {
            *to = *at;
        }
    }

    fn durable(&self) -> Option<Times> {
        let (from, to) = self.durable?;
        Timestamp::parse(&from).zip(Timestamp::parse(&to))
    }
}

/// How far this run of the chain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Nothing was written yet.
    Found,
    /// The lock file shows that the chain is being written.
    Open,
    /// The `close` record is durable.
    Closed,
}

/// Whether the lock file must mark the last segment as poisoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    /// The segment can be trusted.
    None,
    /// It must, but that could not be written yet. The log is failing until it is.
    Wanted,
    /// It does. Cleared once a new segment is durable, before anything in that is acknowledged.
    Written,
}

/// Why a new segment begins, for the `recovery` record in it.
#[derive(Debug, Clone)]
pub(super) struct RecoveryReason {
    pub(super) cause: Cause,
    pub(super) segment: u32,
    pub(super) bytes: u64,
    pub(super) void: u64,
    pub(super) message: String,
}

/// A failed operation of the ledger.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Completes "cannot ...".
    pub(super) action: &'static str,
    pub(super) segment: u32,
    pub(super) error: io::Error,
    /// Whether the live segment can still be written to.
    pub(super) old_usable: bool,
    /// Whether the cause is not the system but a change made by somebody else.
    pub(super) is_tampering: bool,
}

/// The state in which recovery found a chain.
#[derive(Debug)]
pub(super) struct LedgerStart {
    pub(super) id: ChainId,
    pub(super) durable: Point,
    pub(super) live: Option<Segment>,
    pub(super) next_segment: u32,
    pub(super) failed: Vec<u32>,
    pub(super) failed_before: Vec<u32>,
    pub(super) empty: Option<Segment>,
    pub(super) is_poisoned: bool,
    pub(super) witnesses: Witnesses,
    pub(super) pruned: Option<(u64, Digest)>,
    /// The times of the part that counts of the segment with the last durable record.
    pub(super) times: Option<Times>,
    /// Whether damaged bytes follow the last durable record.
    pub(super) damage_behind: bool,
}

impl Ledger {
    /// Creates the ledger of a chain whose lock is held.
    pub(super) fn new(storage: Arc<dyn Storage>, lock: ChainLock, start: LedgerStart) -> Self {
        let named = lock.read_named();
        let noted = lock.slots.noted.iter().flat_map(|noted| &noted.witnessed);
        let witnessed = start.witnesses.keys().chain(noted).copied().collect();
        Self {
            machine: others::this_machine(storage.as_ref()),
            storage,
            lock,
            id: start.id,
            durable: start.durable,
            written: (start.durable.seq, start.durable.hash),
            live: start.live,
            next_segment: start.next_segment,
            failed: start.failed,
            failed_before: start.failed_before,
            empty: start.empty,
            poison: if start.is_poisoned { Poison::Written } else { Poison::None },
            out_of_room: false,
            retained: DraftBuffers::default(),
            unsynced: Unsynced::default(),
            times: TimesOf::known(start.times),
            damage_behind: start.damage_behind,
            begun_in_vain: 0,
            receipts: Vec::new(),
            events: Events::default(),
            recovery_reason: None,
            refusals: Refusals::default(),
            done: Done::default(),
            witnessed,
            looked_up: BTreeSet::new(),
            named,
            run: Run::Found,
            unnoted: None,
            witnesses: start.witnesses,
            missing: BTreeSet::new(),
            pruned: start.pruned,
            lines: Vec::new(),
        }
    }

    pub(super) fn chain(&self) -> ChainNumber {
        self.lock.chain
    }

    /// Returns whether this is the chain with that number and id. After an outage, the number may belong to
    /// another chain.
    pub(super) fn is_of(&self, (chain, id): (ChainNumber, Option<ChainId>)) -> bool {
        chain == self.chain() && id == Some(self.id)
    }

    /// Returns the last durable record. An open log has one: its `open` record.
    pub(super) fn head(&self) -> Head {
        let Point { seq, hash, .. } = self.durable;
        Head { chain: self.chain(), seq, hash }
    }

    /// Returns how many files were begun since a draft last became durable or none was waiting.
    pub(super) fn begun_in_vain(&self) -> usize {
        self.begun_in_vain
    }

    pub(super) fn unsynced(&self) -> &Unsynced {
        &self.unsynced
    }

    /// Returns the number of the live segment.
    pub(super) fn live_number(&self) -> Option<u32> {
        self.live.as_ref().map(|live| live.name.segment)
    }

    /// Returns the segment being written; `None` while a new one must be begun.
    pub(super) fn live(&self) -> Option<LiveSegment> {
        self.live.as_ref().map(|live| LiveSegment {
            bytes: live.bytes,
            begun: live.begun,
            has_records: live.has_records,
        })
    }

    /// Returns the path of the live segment if users that the log was not made for can read it.
    pub(super) fn exposed(&self) -> Option<PathBuf> {
        let live = self.live.as_ref().filter(|live| live.is_exposed())?;
        Some(self.storage.path(Dir::Log, &live.name.to_string()))
    }

    /// Returns how the lock of the chain was lost, or `None` if it is held.
    pub(super) fn lock_loss(&self) -> io::Result<Option<&'static str>> {
        self.lock.loss()
    }

    /// Returns whether the program closed the descriptor that holds the lock.
    pub(super) fn has_closed_lock(&self) -> bool {
        self.lock.is_closed()
    }

    /// Appends drafts, with one write for each buffer of them. Whatever happens, they are retained until they
    /// are durable.
    pub(super) fn append(&mut self, batch: &mut DraftBuffers, now: &Moment) -> Result<(), Trouble> {
        let mut result = self.note_open();
        while let Some(buffer) = batch.pop() {
            if result.is_ok() {
                result = self.append_buffer(buffer, now);
            } else {
                self.retain(buffer, now);
            }
        }
        // Buffers whose drafts became durable are reused for the next ones.
        self.retained.give_spare_to(batch);
        result
    }

    /// Seals the drafts of one buffer and writes their lines. Retains them first, because the write may fail.
    fn append_buffer(&mut self, buffer: DraftBuffer, now: &Moment) -> Result<(), Trouble> {
        let Some(live) = self.live.take() else {
            self.retain(buffer, now);
            return Ok(());
        };
        self.lines.clear();
        self.lines.shrink_to(MAX_LINES_KEPT);
        let sealed = self.seal_buffer(&buffer, self.written, Some(self.durable.seq));
        self.retain(buffer, now);
        self.write_lines(live, sealed)
    }

    /// Writes the sealed lines in `lines` to the live segment. `sealed` is the last record in them.
    fn write_lines(&mut self, mut live: Segment, sealed: (u64, Digest)) -> Result<(), Trouble> {
        // The live segment was taken out of `self.live` and is put back only if it can still be trusted.
        match live.append(&self.lines) {
            Ok(()) => {
                self.done.appended_bytes += self.lines.len() as u64;
                self.written = sealed;
                live.has_records = true;
                self.live = Some(live);
                Ok(())
            }
            Err(refused) => Err(self.write_refused(live, refused)),
        }
    }

    /// Seals the drafts of a buffer behind the record `at`, into `lines`. The first line of a write carries
    /// the durable mark. Returns the last record.
    fn seal_buffer(
        &mut self,
        buffer: &DraftBuffer,
        mut at: (u64, Digest),
        mut durable: Option<u64>,
    ) -> (u64, Digest) {
        for (draft, payload) in buffer.iter() {
            let seq = at.0 + 1;
            self.times.note(payload);
            at = (seq, seal(&mut self.lines, seq, payload, durable.take(), &at.1));
            if draft.severity.is_some() {
                self.events.written += 1;
                self.refusals.place(self.events.written, seq);
            }
            if let Some(scope) = &draft.scope {
                let head = Head { chain: self.lock.chain, seq, hash: at.1 };
                self.receipts.push((Arc::clone(scope), self.events.written, head));
            }
        }
        at
    }

    /// Keeps drafts in memory until they are durable.
    fn retain(&mut self, buffer: DraftBuffer, now: &Moment) {
        self.unsynced.records += buffer.len() as u64;
        self.unsynced.bytes += buffer.bytes();
        self.unsynced.since.get_or_insert(now.elapsed);
        self.retained.append(buffer);
    }

    /// Handles a failed write. If there was no space, the whole lines before it can still be synced and
    /// count. After any other error, nothing written to the file since the last sync can be trusted.
    fn write_refused(&mut self, mut live: Segment, refused: Refused) -> Trouble {
        let segment = live.name.segment;
        let Refused { written, fragment, out_of_room, error } = refused;
        if live.was_closed(&error) {
            // Nothing is wrong with the file, and what was written to it is still there. It is not poisoned,
            // but this process can no longer reach it.
            return self.tampered(&live, CLOSED);
        }
        self.out_of_room = out_of_room;
        if out_of_room {
            // The lines before the failure are in the page cache like those of any other write, so the rules
            // of a sync apply to them.
            let last = last_line(self.lines.split_at(written).0);
            let at = last.unwrap_or(self.written);
            if live.sync().is_err() {
                self.poison();
            } else if live.holds_what_was_written(fragment) {
                self.commit_through(at, live.bytes, segment);
            }
        } else {
            self.poison();
        }
        let cause = if out_of_room { Cause::OutOfRoom } else { Cause::WriteFailed };
        self.end_segment(&live, cause, &error.to_string());
        Trouble { action: "write to", segment, error, old_usable: false, is_tampering: false }
    }

    /// Gives up the live segment. What counts of it ends with the last durable record.
    fn end_segment(&mut self, live: &Segment, cause: Cause, message: &str) {
        let bytes = if self.durable.segment == live.name.segment { self.durable.end } else { 0 };
        self.recovery_reason = Some(RecoveryReason {
            cause,
            segment: live.name.segment,
            bytes,
            void: live.bytes.saturating_sub(bytes),
            message: message.to_owned(),
        });
        // What follows the last durable record is void. The retained drafts are sealed again, with these
        // numbers.
        self.written = (self.durable.seq, self.durable.hash);
        self.refusals.void_behind(self.durable.seq);
        self.times.written = self.times.durable;
        self.events.written = self.events.durable;
        self.receipts.clear();
    }

    /// Makes everything written durable. One sync covers every record written before it began.
    pub(super) fn sync(&mut self) -> Result<(), Trouble> {
        let Some(mut live) = self.live.take_if(|live| live.bytes > live.synced) else { return Ok(()) };
        let segment = live.name.segment;
        if let Err(error) = live.sync() {
            if live.was_closed(&error) {
                return Err(self.tampered(&live, CLOSED));
            }
            // Never sync this file again: Linux has marked the failed pages clean, so the next call could
            // succeed without writing them (fsync(2)).
            self.poison();
            self.end_segment(&live, Cause::SyncFailed, &error.to_string());
            return Err(Trouble { action: "sync", segment, error, old_usable: false, is_tampering: false });
        }
        self.done.syncs += 1;
        // The sync covers only what is in the file now. If somebody cut or removed it, the records are gone
        // although the sync succeeded, so look before anything is acknowledged.
        match live.tampering() {
            Ok(None) => {}
            Ok(Some(what)) => return Err(self.tampered(&live, what)),
            Err(error) => {
                self.end_segment(&live, Cause::SyncFailed, &error.to_string());
                return Err(Trouble {
                    action: "inspect",
                    segment,
                    error,
                    old_usable: false,
                    is_tampering: false,
                });
            }
        }
        self.commit_through(self.written, live.bytes, segment);
        self.live = Some(live);
        Ok(())
    }

    /// Gives up a segment that somebody else changed. What is not durable yet goes to a new one.
    fn tampered(&mut self, live: &Segment, what: &'static str) -> Trouble {
        let segment = live.name.segment;
        let message = format!("{} {what}", self.storage.path(Dir::Log, &live.name.to_string()).display());
        self.end_segment(live, Cause::Replaced, &message);
        Trouble {
            action: "trust",
            segment,
            error: io::Error::other(message),
            old_usable: false,
            is_tampering: true,
        }
    }

    /// Checks whether the path of the live segment still names the open file.
    pub(super) fn check_name(&mut self) -> Result<(), Trouble> {
        let Some(live) = self.live.take() else { return Ok(()) };
        // If the path cannot be checked, the next sync decides. The open file may be intact, but a reader
        // would not find it: what is written from here on belongs in a file with a name.
        if let Ok(Some(what)) = live.name_tampering(&self.storage) {
            return Err(self.tampered(&live, what));
        }
        self.live = Some(live);
        Ok(())
    }

    /// Takes everything up to the record `at`, which ends at byte `end`, as durable: frees its drafts and
    /// confirms its scopes.
    fn commit_through(&mut self, at: (u64, Digest), end: u64, segment: u32) {
        // Records that name refused events have no drafts to free.
        let undrafted = self.refusals.named_through(at.0);
        let mut records = at.0.saturating_sub(self.durable.seq).saturating_sub(undrafted);
        // Receipts are confirmed below, but nobody is woken before the writer publishes the new head.
        self.durable = Point { segment, seq: at.0, hash: at.1, end };
        // If only a part of what was written became durable, these may be wider than necessary.
        self.times.durable = self.times.written;
        let (mut events, mut bytes, mut emptied) = (0, 0, 0);
        'drafts: for buffer in self.retained.iter() {
            for (draft, payload) in buffer.iter() {
                if records == 0 {
                    break 'drafts;
                }
                records -= 1;
                emptied += 1;
                events += u64::from(draft.severity.is_some());
                bytes += payload.len() as u64;
            }
        }
        self.retained.remove_first(emptied);
        self.begun_in_vain = if emptied > 0 { 0 } else { self.begun_in_vain };
        self.events.durable += events;
        let durable = self.events.durable;
        for (scope, ticket, head) in self.receipts.extract_if(.., |(_, ticket, _)| *ticket <= durable) {
            scope.confirm(ticket, head);
        }
        self.unsynced.records = self.unsynced.records.saturating_sub(emptied as u64);
        self.unsynced.bytes = self.unsynced.bytes.saturating_sub(bytes);
        if self.retained.is_empty() {
            self.unsynced = Unsynced::default();
        }
    }

    /// Takes the drafts that are not durable, to move them to another chain.
    pub(super) fn take_retained(&mut self) -> DraftBuffers {
        std::mem::take(&mut self.retained)
    }

    /// Returns the drafts that are not durable.
    pub(super) fn retained(&self) -> &DraftBuffers {
        &self.retained
    }

    /// Continues the event count of another chain's ledger.
    pub(super) fn continue_events(&mut self, durable: Ticket) {
        self.events = Events { written: durable, durable };
    }

    pub(super) fn durable_events(&self) -> Ticket {
        self.events.durable
    }

    /// Takes what was done since the last call.
    pub(super) fn take_done(&mut self) -> Done {
        std::mem::take(&mut self.done)
    }

    /// Returns whether the `close` record is durable.
    pub(super) fn is_closed(&self) -> bool {
        self.run == Run::Closed
    }
}

impl RecoveryReason {
    pub(super) fn as_info(&self) -> RecoveryInfo<'_> {
        RecoveryInfo {
            cause: self.cause,
            segment: self.segment,
            bytes: self.bytes,
            void: self.void,
            message: &self.message,
        }
    }
}

/// Returns the last record of lines that this process sealed itself.
fn last_line(lines: &[u8]) -> Option<(u64, Digest)> {
    let lines = lines.strip_suffix(b"\n")?;
    let start = memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1);
    let line = LineParser::default().parse(lines.get(start..)?).ok()?;
    Some((line.seq, line.hash))
}
