//! Finds where a locked chain continues. Decides nothing from bytes that no sync has covered.
//!
//! A reader sees what is in the page cache, and that can include bytes that a dead process wrote and nobody
//! synced. If the chain continued behind such a record, a power cut could still remove it from under its
//! successors. So the directory and the last files are synced before they are read; if that fails, the chain
//! is left alone until the machine restarts.

use std::{cell::Cell, io, sync::Arc};

use super::{
    chain_lock::{ChainLock, LockState},
    ledger::{LedgerStart, MAX_FAILED, MAX_FAILED_BEFORE, RecoveryReason},
    segment::Segment,
};
use crate::{
    chain::Head,
    chain_reader::{
        Beginning, Durable, FirstLine, Follow, GoOn, Last, Layout, Noted, NotedState, Point, SegmentFile,
        SegmentStart, go_on, is_all_torn, kind_at,
    },
    clock::Timestamp,
    error::Error,
    format::{Cause, ChainId, RecordKind, Witness, Witnesses},
    segment_name::SegmentName,
    stats::ChainRecovery,
    storage::{Access, Dir, File, Storage},
};

/// What recovery found.
#[derive(Debug)]
pub(super) enum Recovered {
    /// The chain can be continued.
    Ready {
        start: Box<LedgerStart>,
        /// Whether the last run ended in order, or there was none.
        closed: bool,
        reason: Option<RecoveryReason>,
        report: Option<ChainRecovery>,
    },
    /// The chain must stay as it is: for good, or until the machine or the software changes.
    LeftAlone { report: ChainRecovery, is_for_good: bool },
    /// The same, and an earlier opener has noted it.
    PassedOver(ChainRecovery),
}

/// A chain to be recovered, and what is known of it.
#[derive(Debug)]
pub(super) struct Recovery<'a> {
    pub(super) storage: &'a Arc<dyn Storage>,
    /// The lock of the chain, held.
    pub(super) lock: &'a ChainLock,
    /// Its files, oldest first.
    pub(super) names: Vec<SegmentName>,
    /// The heads that it is known to have had: its noted head or, if there is none, those named by other
    /// chains.
    pub(super) witnessed: &'a [Witness],
    /// Whether a sync of the directory failed. Then no name in it, of any chain, is known to be durable, and
    /// a later sync could succeed without making them so.
    pub(super) names_in_doubt: &'a Cell<bool>,
    /// Whether a chain without files begins anew, even if records of it were witnessed.
    pub(super) begins_anew: bool,
    pub(super) now: Timestamp,
}

/// No chain continues behind this: JSON parsers elsewhere represent no larger integer exactly.
const LAST_SEQ: u64 = (1 << 53) - (1 << 40);

/// The files behind the last one that counts.
#[derive(Debug, Default)]
struct Rest {
    /// Files that hold at most a torn first line.
    failed: Vec<u32>,
    /// Files that only the previous version can have left. Their first writes held more than one line.
    failed_before: Vec<u32>,
    /// How many bytes they hold.
    void: u64,
    /// The very last file, if nothing was ever written to it.
    empty: Option<Segment>,
}

impl Rest {
    fn give_up(&mut self, file: &SegmentFile) {
        let failed = if file.looks_stillborn { &mut self.failed } else { &mut self.failed_before };
        failed.push(file.name.segment);
    }

    /// Returns whether they cannot all be listed in one line.
    fn are_too_many(&self) -> bool {
        self.failed.len() + 1 >= MAX_FAILED || self.failed_before.len() > MAX_FAILED_BEFORE
    }
}

/// The last files of a chain, oldest first, beginning with the one that holds its newest good first line.
#[derive(Debug, Default)]
struct Tail {
    files: Vec<SegmentFile>,
    /// The first line of the oldest of them, if that is good.
    first: Option<SegmentStart>,
    /// The time of the newest good first line.
    begun: Option<Timestamp>,
    /// Whether the first line of the oldest of them has a later format.
    is_later: bool,
    /// The last two of them, open.
    open: Vec<Box<dyn File>>,
}

impl Tail {
    /// Applies to each file what the first lines of later files state about it.
    fn settle(&mut self) {
        self.files = Layout::settle(std::mem::take(&mut self.files)).files;
    }
}

impl Recovery<'_> {
    /// Finds where the chain continues, if it can.
    pub(super) fn run(&self) -> Result<Recovered, Error> {
        let last_number = self.names.last().map(|name| name.segment);
        if let Some(noted) = self.lock.slots.noted.as_ref().filter(|noted| noted.state == NotedState::Left)
            && last_number.unwrap_or(0) == noted.point.segment
            && self.length_of_newest()?.unwrap_or(0) == noted.point.end
        {
            return Ok(Recovered::PassedOver(
                self.report_of_left(false, "it was left alone before and has not changed"),
            ));
        }
        if last_number == Some(SegmentName::MAX_SEGMENT) {
            return Ok(self.leave_for_good(
                false,
                "its newest file has the last number there is, so no file can follow",
            ));
        }
        let lock_path = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        let now = self.storage.boot_id();
        match self.lock.read().map_err(Error::io("read", lock_path))? {
            LockState::Unsynced { boot } if boot == now => {
                let since = if now.is_empty() { "before" } else { "since the machine started" };
                let why = format!("its last segment could not be synced {since}; {}", self.when_again());
                Ok(self.leave_alone(false, &why))
            }
            // A head noted in a later segment proves that the entry is outdated.
            LockState::Poison { boot, point } if boot == now && self.noted_segment() <= point.segment => {
                self.after_poison(point)
            }
            _ => self.after_scan(),
        }
    }

    /// Returns the length of the newest file.
    fn length_of_newest(&self) -> Result<Option<u64>, Error> {
        let Some(newest) = self.names.last() else { return Ok(None) };
        let stat = self.storage.stat(Dir::Log, &newest.to_string());
        Ok(stat.map_err(Error::io("inspect", self.path(*newest)))?.map(|stat| stat.bytes))
    }

    /// Returns the noted head and the kind of its record, if that record is where it was noted. What lies
    /// before it need not be read then.
    fn noted(&self) -> Result<Option<(&Noted, RecordKind)>, Error> {
        let noted = self.lock.slots.noted.as_ref();
        let Some(noted) = noted.filter(|noted| noted.state != NotedState::Left && noted.point.seq > 0) else {
            return Ok(None);
        };
        let name = SegmentName { chain: self.lock.chain, segment: noted.point.segment };
        if !self.names.contains(&name) {
            return Ok(None);
        }
        let file = self.open(name, Access::Read)?;
        let path = || self.path(name);
        let first = FirstLine::read(file.as_ref(), name).map_err(Error::io("read", path()))?;
        if !first.segment().is_some_and(|first| first.info.id == noted.id) {
            return Ok(None);
        }
        let kind = kind_at(file.as_ref(), &noted.point).map_err(Error::io("read", path()))?;
        Ok(kind.map(|kind| (noted, kind)))
    }

    /// Recovers after a write or sync failed under this boot. The cached pages of that segment cannot be
    /// trusted, so the poison entry decides where the chain continues.
    fn after_poison(&self, point: Point) -> Result<Recovered, Error> {
        let mut rest = Rest::default();
        for name in self.names.iter().filter(|name| name.segment > point.segment) {
            let file = self.open(*name, Access::Read)?;
            let looked_at = self.look_at(*name, file.as_ref())?;
            rest.give_up(&SegmentFile::unclaimed(*name, looked_at.0, &looked_at.1));
        }
        if point.seq == 0 {
            return self.begin(rest, true);
        }
        let name = SegmentName { chain: self.lock.chain, segment: point.segment };
        if !self.names.contains(&name) {
            return Ok(self.leave_for_good(true, "the segment of its last durable record is gone"));
        }
        let noted = self
            .noted()?
            .filter(|(noted, _)| noted.point.end <= point.end || noted.point.segment < point.segment);
        let mut tail = Tail::default();
        for name in self.names.iter().rev().filter(|name| name.segment <= point.segment) {
            let file = self.open(*name, Access::Read)?;
            if self.add(&mut tail, *name, file, noted)? {
                break;
            }
        }
        if tail.is_later {
            return Ok(self.later_format());
        }
        tail.settle();
        if let Some(file) = tail.files.last_mut() {
            file.counted = Some(point.end);
        }
        let follow = self.follow(&tail, noted)?;
        let ends = |last: &Last| (last.seq, last.hash) == (point.seq, point.hash);
        if !(follow.ends_well && follow.good.last.as_ref().is_some_and(ends)) {
            return Ok(self.leave_for_good(true, "its last durable record is not where its lock file says"));
        }
        if rest.are_too_many() {
            return Ok(self.too_many());
        }
        let Some(first) = tail.first else { return Ok(self.no_identity()) };
        let reason = RecoveryReason {
            cause: Cause::Poisoned,
            segment: point.segment,
            bytes: point.end,
            void: 0,
            message: "a write or sync failed, and the process ended before it could begin a new segment"
                .into(),
        };
        let start = self.start(first.info.id, point, None, rest, true, &follow);
        let report = self.report(&start, 0, false, &reason.message);
        Ok(Recovered::Ready {
            start: Box::new(start),
            closed: false,
            reason: Some(reason),
            report: Some(report),
        })
    }

    /// Follows the chain from its noted head, or from its newest good first line. What precedes that counts
    /// as that line states.
    fn after_scan(&self) -> Result<Recovered, Error> {
        if self.names.is_empty() {
            return self.begin(Rest::default(), false);
        }
        // Without this, the decisions below could rest on names and data that a dead process never made
        // durable.
        if let Err(error) = self.sync_names() {
            return self.unsynced(&error);
        }
        let noted = self.noted()?;
        let mut tail = Tail::default();
        for name in self.names.iter().rev() {
            let file = self.open(*name, Access::Append)?;
            if let Err(error) = file.sync_all() {
                return self.unsynced(&error);
            }
            if self.add(&mut tail, *name, file, noted)? {
                break;
            }
            if tail.files.len() > MAX_FAILED {
                return Ok(self.too_many());
            }
        }
        if tail.is_later {
            return Ok(self.later_format());
        }
        tail.settle();
        let follow = self.follow(&tail, noted)?;
        let durable =
            Durable::of(&follow, &tail.files, None, self.witnessed.iter().map(|witness| witness.seq));
        if follow.is_contradicted {
            return Ok(self.leave_for_good(
                true,
                "one of its records differs from the one that its lock file or another chain names",
            ));
        }
        let Some(first) = tail.first.take() else {
            if !self.witnessed.is_empty() {
                return Ok(self.ends_early());
            }
            if !is_all_torn(&follow, &durable) {
                return Ok(self.no_identity());
            }
            return self.begin(self.rest(&mut tail, (0, 0))?, false);
        };
        // A file older than that of the noted head lies below it, whatever its sequence numbers are. It may
        // be void, and the segment that recorded that may be destroyed.
        match go_on(&follow, &durable, &tail.files).filter(|cut| cut.segment >= self.noted_segment()) {
            Some(cut) => self.go_on(&cut, &first, &follow, tail),
            None => Ok(self.ends_early()),
        }
    }

    /// Adds a file in front of those known to be the end of the chain. Returns whether no older file is
    /// needed, because this one holds the noted head. If none is known, a good first line is enough; one of a
    /// later format must not be judged, so it ends the search as well.
    fn add(
        &self,
        tail: &mut Tail,
        name: SegmentName,
        file: Box<dyn File>,
        noted: Option<(&Noted, RecordKind)>,
    ) -> Result<bool, Error> {
        let (bytes, first) = self.look_at(name, file.as_ref())?;
        tail.files.insert(0, SegmentFile::unclaimed(name, bytes, &first));
        tail.is_later = matches!(first.line, FirstLine::Later);
        tail.first = first.line.segment();
        tail.begun = tail.begun.or_else(|| tail.first.as_ref()?.at);
        // If the newest is empty, the one before it may be continued. No other file is written to.
        if tail.open.len() < 2 {
            tail.open.insert(0, file);
        }
        let is_enough = noted.map_or(tail.first.is_some(), |(noted, _)| name.segment == noted.point.segment);
        Ok(tail.is_later || is_enough)
    }

    /// Returns the length and the beginning of a file.
    fn look_at(&self, name: SegmentName, file: &dyn File) -> Result<(u64, Beginning), Error> {
        let bytes = file.stat().map_err(Error::io("inspect", self.path(name)))?.bytes;
        let first = Beginning::read(file, name, bytes).map_err(Error::io("read", self.path(name)))?;
        Ok((bytes, first))
    }

    fn follow(&self, tail: &Tail, noted: Option<(&Noted, RecordKind)>) -> Result<Follow, Error> {
        Follow::through(self.storage.as_ref(), self.lock.chain, &tail.files, noted, self.witnessed)
    }

    /// Returns the files behind the end of what counts.
    fn rest(&self, tail: &mut Tail, (segment, end): (u32, u64)) -> Result<Rest, Error> {
        let mut rest = Rest::default();
        for file in &tail.files {
            let number = file.name.segment;
            if number == segment {
                rest.void += file.bytes.saturating_sub(end);
            } else if number > segment {
                rest.give_up(file);
                rest.void += file.bytes;
            }
        }
        let newest = tail.files.last().filter(|file| file.bytes == 0 && file.name.segment > segment);
        if let Some(file) = newest
            && let Some(open) = tail.open.pop()
        {
            // The process that created it had no space to write to it, and ended. The next first line can go
            // there.
            let empty = Segment::resume(open, file.name, 0, self.now);
            rest.empty = Some(empty.map_err(Error::io("inspect", self.path(file.name)))?);
            rest.failed.pop();
        }
        Ok(rest)
    }

    /// Returns the segment of the noted head, or 0. With `Left`, the noted point is not a head.
    fn noted_segment(&self) -> u32 {
        let noted = self.lock.slots.noted.as_ref().filter(|noted| noted.state != NotedState::Left);
        noted.map_or(0, |noted| noted.point.segment)
    }

    /// Syncs the directory, unless an earlier sync failed: this one could succeed without making the names
    /// durable.
    fn sync_names(&self) -> io::Result<()> {
        if self.names_in_doubt.get() {
            return Err(io::Error::other("the directory could not be synced before"));
        }
        let synced = self.storage.sync_dir(Dir::Log);
        self.names_in_doubt.set(synced.is_err());
        synced
    }

    /// Begins a chain that has no durable record yet.
    fn begin(&self, rest: Rest, is_poisoned: bool) -> Result<Recovered, Error> {
        if !self.witnessed.is_empty() && !self.begins_anew {
            return Ok(self.leave_for_good(
                true,
                "its records are missing, and its lock file or other chains name them",
            ));
        }
        if rest.are_too_many() {
            return Ok(self.too_many());
        }
        let log = self.storage.path(Dir::Log, "");
        let id = ChainId(self.storage.random().map_err(Error::io("draw random bits for", log))?);
        let last = self.names.last().map_or(0, |name| name.segment);
        let void = rest.void;
        let start = LedgerStart {
            id,
            durable: Point::NOWHERE,
            live: None,
            next_segment: self.next_segment(),
            failed: rest.failed,
            failed_before: rest.failed_before,
            empty: rest.empty,
            is_poisoned,
            witnesses: Witnesses::new(),
            pruned: None,
            times: None,
            damage_behind: false,
        };
        if self.names.is_empty() {
            return Ok(Recovered::Ready { start: Box::new(start), closed: true, reason: None, report: None });
        }
        let message = "it ended before its first record was durable".to_owned();
        let report = self.report(&start, void, false, &message);
        let reason = RecoveryReason { cause: Cause::Torn, segment: last, bytes: 0, void, message };
        Ok(Recovered::Ready {
            start: Box::new(start),
            closed: false,
            reason: Some(reason),
            report: Some(report),
        })
    }

    /// Continues a chain behind its last durable record, in the last segment if every byte of that is good.
    fn go_on(
        &self,
        cut: &GoOn,
        first: &SegmentStart,
        follow: &Follow,
        mut tail: Tail,
    ) -> Result<Recovered, Error> {
        let rest = self.rest(&mut tail, (cut.segment, cut.end))?;
        if rest.are_too_many() {
            return Ok(self.too_many());
        }
        let id = first.info.id;
        if self.witnessed.iter().any(|witness| witness.id != id) {
            return Ok(self.leave_for_good(true, "its number was seen before as that of another chain"));
        }
        if cut.last.seq >= LAST_SEQ {
            return Ok(self.leave_for_good(false, "every sequence number is used"));
        }
        let durable = Point { segment: cut.segment, seq: cut.last.seq, hash: cut.last.hash, end: cut.end };
        let name = SegmentName { chain: self.lock.chain, segment: cut.segment };
        // A segment without a bad byte is continued, unless other files follow it. Otherwise a new one
        // begins.
        let is_whole =
            !cut.is_torn && cut.damaged.is_none() && rest.failed.is_empty() && rest.failed_before.is_empty();
        let live = match tail.open.pop().filter(|_| is_whole) {
            Some(file) => {
                let resumed = Segment::resume(file, name, cut.end, tail.begun.unwrap_or(self.now));
                Some(resumed.map_err(Error::io("inspect", self.path(name)))?)
            }
            None => None,
        };
        let ended_in_order = is_whole && cut.last.kind == RecordKind::Close;
        // An empty file behind the end belongs to no segment until a `segment` line uses or lists it.
        let closed = ended_in_order && rest.empty.is_none();
        let void = rest.void;
        let (cause, message) = match (cut.damaged, void > 0) {
            (Some(seq), _) => {
                (Cause::Damage, format!("record {seq} was durable and is damaged or missing; verify the log"))
            }
            (None, true) => (Cause::Torn, format!("{void} bytes of an unfinished write do not count")),
            (None, false) => (Cause::Unclosed, "the previous run ended without close".to_owned()),
        };
        let damage_behind = cut.damaged.is_some();
        let start = LedgerStart { damage_behind, ..self.start(id, durable, live, rest, false, follow) };
        if ended_in_order {
            return Ok(Recovered::Ready { start: Box::new(start), closed, reason: None, report: None });
        }
        let report = self.report(&start, void, cut.damaged.is_some(), &message);
        let reason = RecoveryReason { cause, segment: cut.segment, bytes: cut.end, void, message };
        Ok(Recovered::Ready { start: Box::new(start), closed, reason: Some(reason), report: Some(report) })
    }

    /// Returns the state from which a chain with records continues.
    fn start(
        &self,
        id: ChainId,
        durable: Point,
        live: Option<Segment>,
        rest: Rest,
        is_poisoned: bool,
        follow: &Follow,
    ) -> LedgerStart {
        LedgerStart {
            id,
            durable,
            live,
            next_segment: self.next_segment(),
            failed: rest.failed,
            failed_before: rest.failed_before,
            empty: rest.empty,
            is_poisoned,
            witnesses: follow.control.seen.clone(),
            pruned: follow.control.pruned,
            times: follow
                .files
                .iter()
                .find(|file| file.segment == durable.segment)
                .and_then(|file| file.times),
            damage_behind: false,
        }
    }

    fn next_segment(&self) -> u32 {
        self.names.last().map_or(1, |name| name.segment + 1)
    }

    /// Leaves a chain alone because its last segment could not be synced. Nothing is decided from it until
    /// the machine restarts: only after that is the page cache certain to show what the disk has.
    fn unsynced(&self, error: &io::Error) -> Result<Recovered, Error> {
        let path = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        self.lock
            .write(&LockState::Unsynced { boot: self.storage.boot_id() })
            .map_err(Error::io("write to", path))?;
        let why = format!("its last segment could not be synced: {error}; {}", self.when_again());
        Ok(self.leave_alone(false, &why))
    }

    /// Returns when a chain whose last segment could not be synced is tried again, and what to do if that is
    /// never.
    fn when_again(&self) -> String {
        let lock = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        let by_hand = format!("restart the machine, then remove {} while no program writes", lock.display());
        match self.storage.boot_id().as_str() {
            "" => format!("without a boot id, restarts cannot be detected: {by_hand}"),
            id => format!(
                "it is tried again under another boot id than {id}: restarting the machine changes it, restarting a \
                 container does not; if it never changes, {by_hand}"
            ),
        }
    }

    fn ends_early(&self) -> Recovered {
        self.leave_for_good(true, "it ends before records that were durable")
    }

    fn too_many(&self) -> Recovered {
        self.leave_for_good(false, "too many files behind its last record count nothing")
    }

    fn later_format(&self) -> Recovered {
        self.leave_alone(
            false,
            "it is in a later version of the format, which this version must not continue",
        )
    }

    fn no_identity(&self) -> Recovered {
        self.leave_for_good(true, "no first line of its segments is readable")
    }

    fn leave_alone(&self, damaged: bool, why: &str) -> Recovered {
        Recovered::LeftAlone { report: self.report_of_left(damaged, why), is_for_good: false }
    }

    fn leave_for_good(&self, damaged: bool, why: &str) -> Recovered {
        Recovered::LeftAlone { report: self.report_of_left(damaged, why), is_for_good: true }
    }

    fn report_of_left(&self, damaged: bool, why: &str) -> ChainRecovery {
        ChainRecovery {
            chain: self.lock.chain.get(),
            head: None,
            torn_bytes: 0,
            damaged,
            left_alone: true,
            message: format!("chain {} is left alone: {why}", self.lock.chain),
        }
    }

    fn report(&self, start: &LedgerStart, torn_bytes: u64, damaged: bool, message: &str) -> ChainRecovery {
        let Point { seq, hash, .. } = start.durable;
        ChainRecovery {
            chain: self.lock.chain.get(),
            head: (seq > 0).then_some(Head { chain: self.lock.chain, seq, hash }),
            torn_bytes,
            damaged,
            left_alone: false,
            message: format!("chain {}: {message}", self.lock.chain),
        }
    }

    fn open(&self, name: SegmentName, access: Access) -> Result<Box<dyn File>, Error> {
        self.storage.open(Dir::Log, &name.to_string(), access).map_err(Error::io("open", self.path(name)))
    }

    fn path(&self, name: SegmentName) -> std::path::PathBuf {
        self.storage.path(Dir::Log, &name.to_string())
    }
}
