//! The chain that this process writes: seals drafts, appends them, syncs, and moves to a new
//! segment when it must.
//!
//! What is written and not durable stays in memory (`retained`), as drafts without a place: after a
//! failure they are sealed again behind the last durable record. A draft leaves when a sync that
//! began after its line was completely written has succeeded.

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

/// Bytes kept to seal lines in: a new segment that took a whole queue may have needed far more.
const MAX_LINES_KEPT: usize = 1 << 20;

/// One chain, locked and ready to be appended to.
#[derive(Debug)]
pub(super) struct Ledger {
    storage: Arc<dyn Storage>,
    lock: ChainLock,
    id: ChainId,
    /// The last durable record and where it ends; segment 0 before there is one.
    durable: Point,
    /// The last written record.
    written: (u64, Digest),
    live: Option<Segment>,
    next_segment: u32,
    /// Files begun since the last durable record that count nothing.
    failed: Vec<u32>,
    /// Those that the version before left, and that hold more than this version writes before it may fail.
    failed_before: Vec<u32>,
    /// A file of ours that nothing could be written to yet.
    empty: Option<Segment>,
    poison: Poison,
    out_of_room: bool,
    retained: DraftBuffers,
    unsynced: Unsynced,
    /// The times of the records in the segment of the last durable record.
    times: TimesOf,
    /// Whether what stands behind the last durable record is damage, and given up in the next segment's first line.
    damage_behind: bool,
    /// Files begun since the last draft became durable.
    begun_in_vain: usize,
    receipts: Vec<(Arc<Scope>, Ticket, Head)>,
    events: Events,
    story: Option<Story>,
    refusals: Refusals,
    /// What was done since this was last asked.
    done: Done,
    /// The durable heads of other chains, as far as they were looked at in this run.
    witnesses: Witnesses,
    /// Every other chain that was ever witnessed.
    witnessed: BTreeSet<ChainNumber>,
    /// Those of them of which was looked up what this chain said.
    looked_up: BTreeSet<ChainNumber>,
    /// What this chain last said of each of them.
    named: BTreeMap<ChainNumber, LastNamed>,
    run: Run,
    /// This machine, as the lock file says it.
    machine: String,
    /// A new segment whose head could not be noted yet: nothing may follow in it.
    unnoted: Option<Segment>,
    /// Chains whose absence has been told.
    missing: BTreeSet<ChainNumber>,
    pub(super) pruned: Option<(u64, Digest)>,
    lines: Vec<u8>,
}

/// How many events of this log, not records, have come how far.
#[derive(Debug, Clone, Copy, Default)]
struct Events {
    written: Ticket,
    durable: Ticket,
}

/// What a ledger did, for the counters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) appended_bytes: u64,
    /// Syncs of segments that succeeded.
    pub(super) syncs: u64,
    /// Segments begun: their first line is durable.
    pub(super) segments: u64,
}

/// A time as it is printed.
type Printed = [u8; TIMESTAMP_LEN];

/// The lowest and the highest time of the records of one segment: of those written, and of those known durable.
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
    /// The lock file says that the chain is written to.
    Open,
    /// The `close` record is durable.
    Closed,
}

/// Whether the lock file must say that the last segment is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    None,
    /// It must, and does not yet: the log is failing until it does.
    Wanted,
    /// It does; cleared once a new segment is durable, before anything is acknowledged.
    Written,
}

/// Why a new segment begins, for the `recovery` record in it.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) cause: Cause,
    pub(super) segment: u32,
    pub(super) bytes: u64,
    pub(super) void: u64,
    pub(super) message: String,
}

/// What the ledger could not do.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) action: &'static str,
    pub(super) segment: u32,
    pub(super) error: io::Error,
    /// Whether the live segment can still be written to.
    pub(super) old_goes_on: bool,
    /// Whether not the system but somebody else is at fault.
    pub(super) is_tampering: bool,
}

/// Where a ledger begins.
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
    /// The times of what counts of the segment of the last durable record.
    pub(super) times: Option<Times>,
    /// Whether what stands behind the last durable record is damage.
    pub(super) damage_behind: bool,
}

impl Ledger {
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
            story: None,
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

    /// Whether this is the chain of that number and id. After an outage the number can be another chain's.
    pub(super) fn is_of(&self, (chain, id): (ChainNumber, Option<ChainId>)) -> bool {
        chain == self.chain() && id == Some(self.id)
    }

    /// The last durable record. An open log has one: its `open` record.
    pub(super) fn head(&self) -> Head {
        let Point { seq, hash, .. } = self.durable;
        Head { chain: self.chain(), seq, hash }
    }

    /// How many files were begun since a draft became durable last, or there was none to write.
    pub(super) fn begun_in_vain(&self) -> usize {
        self.begun_in_vain
    }

    pub(super) fn unsynced(&self) -> &Unsynced {
        &self.unsynced
    }

    /// The number of the live segment.
    pub(super) fn live_number(&self) -> Option<u32> {
        self.live.as_ref().map(|live| live.name.segment)
    }

    /// The segment that is written to; `None` while a new one must be begun.
    pub(super) fn live(&self) -> Option<LiveSegment> {
        self.live.as_ref().map(|live| LiveSegment {
            bytes: live.bytes,
            begun: live.begun,
            has_records: live.has_records,
        })
    }

    /// The live segment, where users that the log was not made for can read it.
    pub(super) fn exposed(&self) -> Option<PathBuf> {
        let live = self.live.as_ref().filter(|live| live.is_exposed())?;
        Some(self.storage.path(Dir::Log, &live.name.to_string()))
    }

    /// How the lock of the chain was lost, if it was.
    pub(super) fn lock_loss(&self) -> io::Result<Option<&'static str>> {
        self.lock.loss()
    }

    /// Whether the program has closed the descriptor that holds the lock.
    pub(super) fn has_closed_lock(&self) -> bool {
        self.lock.is_closed()
    }

    /// Appends drafts, one write for each chunk of them. Whatever happens, the drafts are retained
    /// until they are durable.
    pub(super) fn append(&mut self, batch: &mut DraftBuffers, now: &Moment) -> Result<(), Trouble> {
        let mut result = self.note_open();
        while let Some(chunk) = batch.pop() {
            if result.is_ok() {
                result = self.append_buffer(chunk, now);
            } else {
                self.retain(chunk, now);
            }
        }
        // What durable drafts lay in carries the next ones.
        self.retained.give_spare_to(batch);
        result
    }

    fn append_buffer(&mut self, chunk: DraftBuffer, now: &Moment) -> Result<(), Trouble> {
        let Some(live) = self.live.take() else {
            self.retain(chunk, now);
            return Ok(());
        };
        self.lines.clear();
        self.lines.shrink_to(MAX_LINES_KEPT);
        let sealed = self.seal_buffer(&chunk, self.written, Some(self.durable.seq));
        self.retain(chunk, now);
        self.write_lines(live, sealed)
    }

    /// Writes what `lines` holds, which is sealed up to this record, to the segment that is written to from then on.
    fn write_lines(&mut self, mut live: Segment, sealed: (u64, Digest)) -> Result<(), Trouble> {
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

    /// Seals a chunk's drafts behind `at` into `lines`; the first of a write carries the durable mark.
    fn seal_buffer(
        &mut self,
        chunk: &DraftBuffer,
        mut at: (u64, Digest),
        mut durable: Option<u64>,
    ) -> (u64, Digest) {
        for (entry, payload) in chunk.iter() {
            let seq = at.0 + 1;
            self.times.note(payload);
            at = (seq, seal(&mut self.lines, seq, payload, durable.take(), &at.1));
            if entry.severity.is_some() {
                self.events.written += 1;
                self.refusals.place(self.events.written, seq);
            }
            if let Some(scope) = &entry.scope {
                let head = Head { chain: self.lock.chain, seq, hash: at.1 };
                self.receipts.push((Arc::clone(scope), self.events.written, head));
            }
        }
        at
    }

    fn retain(&mut self, chunk: DraftBuffer, now: &Moment) {
        self.unsynced.records += chunk.len() as u64;
        self.unsynced.bytes += chunk.bytes();
        self.unsynced.since.get_or_insert(now.elapsed);
        self.retained.append(chunk);
    }

    /// A write failed. For want of room: the whole lines before it can still be synced. For any
    /// other reason nothing of the file since the last sync can be trusted.
    fn write_refused(&mut self, mut live: Segment, refused: Refused) -> Trouble {
        let segment = live.name.segment;
        let Refused { written, fragment, out_of_room, error } = refused;
        if live.was_closed(&error) {
            // Nothing is wrong with the file, and what was written to it is there.
            return self.tampered(&live, CLOSED);
        }
        self.out_of_room = out_of_room;
        if out_of_room {
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
        Trouble { action: "write to", segment, error, old_goes_on: false, is_tampering: false }
    }

    /// Forgets the live segment; what counts of it ends with the last durable record.
    fn end_segment(&mut self, live: &Segment, cause: Cause, message: &str) {
        let bytes = if self.durable.segment == live.name.segment { self.durable.end } else { 0 };
        self.story = Some(Story {
            cause,
            segment: live.name.segment,
            bytes,
            void: live.bytes.saturating_sub(bytes),
            message: message.to_owned(),
        });
        self.written = (self.durable.seq, self.durable.hash);
        self.refusals.void_behind(self.durable.seq);
        self.times.written = self.times.durable;
        self.events.written = self.events.durable;
        self.receipts.clear();
    }

    /// Makes everything written durable. One sync serves every record written before it began.
    pub(super) fn sync(&mut self) -> Result<(), Trouble> {
        let Some(mut live) = self.live.take_if(|live| live.bytes > live.synced) else { return Ok(()) };
        let segment = live.name.segment;
        if let Err(error) = live.sync() {
            if live.was_closed(&error) {
                return Err(self.tampered(&live, CLOSED));
            }
            // Never again on this file: Linux has marked the pages clean, and the next call lies.
            self.poison();
            self.end_segment(&live, Cause::SyncFailed, &error.to_string());
            return Err(Trouble { action: "sync", segment, error, old_goes_on: false, is_tampering: false });
        }
        self.done.syncs += 1;
        match live.tampering() {
            Ok(None) => {}
            Ok(Some(what)) => return Err(self.tampered(&live, what)),
            Err(error) => {
                self.end_segment(&live, Cause::SyncFailed, &error.to_string());
                return Err(Trouble {
                    action: "inspect",
                    segment,
                    error,
                    old_goes_on: false,
                    is_tampering: false,
                });
            }
        }
        self.commit_through(self.written, live.bytes, segment);
        self.live = Some(live);
        Ok(())
    }

    /// Somebody else changed the file: what is not durable yet goes to a new one.
    fn tampered(&mut self, live: &Segment, what: &'static str) -> Trouble {
        let segment = live.name.segment;
        let message = format!("{} {what}", self.storage.path(Dir::Log, &live.name.to_string()).display());
        self.end_segment(live, Cause::Replaced, &message);
        Trouble {
            action: "trust",
            segment,
            error: io::Error::other(message),
            old_goes_on: false,
            is_tampering: true,
        }
    }

    /// Whether the path of the live segment still names it.
    pub(super) fn check_name(&mut self) -> Result<(), Trouble> {
        let Some(live) = self.live.take() else { return Ok(()) };
        // Where even that cannot be asked, the next sync decides.
        if let Ok(Some(what)) = live.name_tampering(&self.storage) {
            return Err(self.tampered(&live, what));
        }
        self.live = Some(live);
        Ok(())
    }

    /// Everything up to `at`, which ends at `end`, is durable.
    fn commit_through(&mut self, at: (u64, Digest), end: u64, segment: u32) {
        // Lines that name what was refused have no drafts.
        let undrafted = self.refusals.named_through(at.0);
        let mut records = at.0.saturating_sub(self.durable.seq).saturating_sub(undrafted);
        self.durable = Point { segment, seq: at.0, hash: at.1, end };
        // Where only a part of what was written became durable, these may be wider than need be.
        self.times.durable = self.times.written;
        let (mut events, mut bytes, mut emptied) = (0, 0, 0);
        'drafts: for chunk in self.retained.iter() {
            for (entry, payload) in chunk.iter() {
                if records == 0 {
                    break 'drafts;
                }
                records -= 1;
                emptied += 1;
                events += u64::from(entry.severity.is_some());
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

    /// The drafts that are not durable, for another chain to take over.
    pub(super) fn take_retained(&mut self) -> DraftBuffers {
        std::mem::take(&mut self.retained)
    }

    /// The drafts that are not durable.
    pub(super) fn retained(&self) -> &DraftBuffers {
        &self.retained
    }

    /// Goes on counting where another chain's ledger stopped.
    pub(super) fn continue_events(&mut self, durable: Ticket) {
        self.events = Events { written: durable, durable };
    }

    pub(super) fn durable_events(&self) -> Ticket {
        self.events.durable
    }

    /// What was done since this was last asked.
    pub(super) fn take_done(&mut self) -> Done {
        std::mem::take(&mut self.done)
    }

    /// Whether the `close` record is durable.
    pub(super) fn is_closed(&self) -> bool {
        self.run == Run::Closed
    }
}

impl Story {
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

/// The place in the chain of the last of some lines that we sealed ourselves.
fn last_line(lines: &[u8]) -> Option<(u64, Digest)> {
    let lines = lines.strip_suffix(b"\n")?;
    let start = memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1);
    let line = LineParser::default().parse(lines.get(start..)?).ok()?;
    Some((line.seq, line.hash))
}
