//! Finds where a locked chain goes on. Decides nothing from bytes that a sync has not covered.

use std::{cell::Cell, io, sync::Arc};

use super::{
    chain_lock::{ChainLock, LockState},
    ledger::{LedgerStart, MAX_FAILED, MAX_FAILED_BEFORE, Story},
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

/// What was found.
#[derive(Debug)]
pub(super) enum Recovered {
    /// The chain can be continued.
    Ready {
        start: Box<LedgerStart>,
        /// Whether its last run ended in order, or there was none.
        closed: bool,
        story: Option<Story>,
        report: Option<ChainRecovery>,
    },
    /// The chain must stay as it is: for good, or until the machine or the software is another one.
    LeftAlone { report: ChainRecovery, is_for_good: bool },
    /// The same, and somebody else has found so before.
    PassedOver(ChainRecovery),
}

/// A chain that is to be recovered, and what is known of it.
#[derive(Debug)]
pub(super) struct Recovery<'a> {
    pub(super) storage: &'a Arc<dyn Storage>,
    /// The lock of the chain, held.
    pub(super) lock: &'a ChainLock,
    /// Its files, oldest first.
    pub(super) names: Vec<SegmentName>,
    /// What is said of it elsewhere: by its noted head, and where there is none, by other chains.
    pub(super) witnessed: &'a [Witness],
    /// Whether the directory could not be synced: then no name that was in it is known to be durable,
    /// of no chain, and the next sync would say that all are.
    pub(super) names_lie: &'a Cell<bool>,
    /// Whether a chain without files begins anew, whoever has seen records of it.
    pub(super) begins_anew: bool,
    pub(super) now: Timestamp,
}

/// No chain goes on behind this: JSON readers elsewhere know no larger whole number exactly.
const LAST_SEQ: u64 = (1 << 53) - (1 << 40);

/// The files behind the last one that counts.
#[derive(Debug, Default)]
struct Rest {
    failed: Vec<u32>,
    /// Those that only the version before can have left, whose first writes held more than one line.
    failed_before: Vec<u32>,
    /// How many bytes they hold.
    void: u64,
    /// The very last, where nothing was ever written to it.
    empty: Option<Segment>,
}

impl Rest {
    fn give_up(&mut self, file: &SegmentFile) {
        let failed = if file.looks_stillborn { &mut self.failed } else { &mut self.failed_before };
        failed.push(file.name.segment);
    }

    /// Whether they cannot all be named in one line.
    fn are_too_many(&self) -> bool {
        self.failed.len() + 1 >= MAX_FAILED || self.failed_before.len() > MAX_FAILED_BEFORE
    }
}

/// The last files of a chain, oldest first: from its newest good first line on.
#[derive(Debug, Default)]
struct Tail {
    files: Vec<SegmentFile>,
    /// The first line of the first of them, where that is good.
    first: Option<SegmentStart>,
    /// The time of the newest good first line.
    begun: Option<Timestamp>,
    /// Whether the first line of the first of them is of a later format.
    is_later: bool,
    /// The last two of them, open.
    open: Vec<Box<dyn File>>,
}

impl Tail {
    /// Lets what they say of each other hold.
    fn settle(&mut self) {
        self.files = Layout::settle(std::mem::take(&mut self.files)).files;
    }
}

impl Recovery<'_> {
    pub(super) fn run(&self) -> Result<Recovered, Error> {
        let last_number = self.names.last().map(|name| name.segment);
        if let Some(noted) = self.lock.slots.noted.as_ref().filter(|noted| noted.state == NotedState::Left)
            && last_number.unwrap_or(0) == noted.point.segment
            && self.length_of_newest()?.unwrap_or(0) == noted.point.end
        {
            return Ok(Recovered::PassedOver(
                self.report_of_left(false, "it was left alone before, and is as it was"),
            ));
        }
        if last_number == Some(SegmentName::MAX_SEGMENT) {
            return Ok(self.leave_for_good(
                false,
                "its newest file has the last number there is, so that no file can follow",
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
            // Once the head is noted in a later segment, what the entry says is of the past.
            LockState::Poison { boot, point } if boot == now && self.noted_segment() <= point.segment => {
                self.after_poison(point)
            }
            _ => self.after_scan(),
        }
    }

    fn length_of_newest(&self) -> Result<Option<u64>, Error> {
        let Some(newest) = self.names.last() else { return Ok(None) };
        let stat = self.storage.stat(Dir::Log, &newest.to_string());
        Ok(stat.map_err(Error::io("inspect", self.path(*newest)))?.map(|stat| stat.bytes))
    }

    /// The noted head and its kind, where the record stands where it was noted: what lies before it need not be read.
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

    /// A write or sync failed under this boot: the pages of that segment lie, so the entry decides.
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
        let story = Story {
            cause: Cause::Poisoned,
            segment: point.segment,
            bytes: point.end,
            void: 0,
            message: "a write or sync had failed and the process ended before it could begin a new segment"
                .into(),
        };
        let start = self.start(first.info.id, point, None, rest, true, &follow);
        let report = self.report(&start, 0, false, &story.message);
        Ok(Recovered::Ready {
            start: Box::new(start),
            closed: false,
            story: Some(story),
            report: Some(report),
        })
    }

    /// Follows the chain from its noted head on, or from its newest good first line: what stands before that counts as
    /// it says.
    fn after_scan(&self) -> Result<Recovered, Error> {
        if self.names.is_empty() {
            return self.begin(Rest::default(), false);
        }
        // Otherwise one would decide on names, and on data, that a dead process never made durable.
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
                "a record of it is another one than its lock file or other chains name",
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
        // What lies in an earlier file than the noted head is below it, whatever number it has: it may be void, and the
        // segment that said so destroyed.
        match go_on(&follow, &durable, &tail.files).filter(|cut| cut.segment >= self.noted_segment()) {
            Some(cut) => self.go_on(&cut, &first, &follow, tail),
            None => Ok(self.ends_early()),
        }
    }

    /// Puts a file before those that are known to be the end of the chain. Says whether nothing before it is needed: it
    /// has the noted head, or, where none is known, a good first line, or one that must not be judged.
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
        // The newest may be empty, and then the one before it may go on; no other is written to.
        if tail.open.len() < 2 {
            tail.open.insert(0, file);
        }
        let is_enough = noted.map_or(tail.first.is_some(), |(noted, _)| name.segment == noted.point.segment);
        Ok(tail.is_later || is_enough)
    }

    /// How many bytes a file has, and how it begins.
    fn look_at(&self, name: SegmentName, file: &dyn File) -> Result<(u64, Beginning), Error> {
        let bytes = file.stat().map_err(Error::io("inspect", self.path(name)))?.bytes;
        let first = Beginning::read(file, name, bytes).map_err(Error::io("read", self.path(name)))?;
        Ok((bytes, first))
    }

    fn follow(&self, tail: &Tail, noted: Option<(&Noted, RecordKind)>) -> Result<Follow, Error> {
        Follow::through(self.storage.as_ref(), self.lock.chain, &tail.files, noted, self.witnessed)
    }

    /// The files behind the place where what counts ends.
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
            // Its maker had no room to write to it, and ended: the next first line can go there.
            let empty = Segment::resume(open, file.name, 0, self.now);
            rest.empty = Some(empty.map_err(Error::io("inspect", self.path(file.name)))?);
            rest.failed.pop();
        }
        Ok(rest)
    }

    /// The segment of the noted head, or 0. With `left`, the point is another one.
    fn noted_segment(&self) -> u32 {
        let noted = self.lock.slots.noted.as_ref().filter(|noted| noted.state != NotedState::Left);
        noted.map_or(0, |noted| noted.point.segment)
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.names_lie.get() {
            return Err(io::Error::other("the directory could not be synced before"));
        }
        let synced = self.storage.sync_dir(Dir::Log);
        self.names_lie.set(synced.is_err());
        synced
    }

    /// A chain without any record so far.
    fn begin(&self, rest: Rest, is_poisoned: bool) -> Result<Recovered, Error> {
        if !self.witnessed.is_empty() && !self.begins_anew {
            return Ok(self.leave_for_good(
                true,
                "its records are missing, and its lock file or other chains know of them",
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
            return Ok(Recovered::Ready { start: Box::new(start), closed: true, story: None, report: None });
        }
        let message = "it ended before its first record was durable".to_owned();
        let report = self.report(&start, void, false, &message);
        let story = Story { cause: Cause::Torn, segment: last, bytes: 0, void, message };
        Ok(Recovered::Ready {
            start: Box::new(start),
            closed: false,
            story: Some(story),
            report: Some(report),
        })
    }

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
            return Ok(self.leave_for_good(true, "another chain stands where its number was seen before"));
        }
        if cut.last.seq >= LAST_SEQ {
            return Ok(self.leave_for_good(false, "every sequence number is used"));
        }
        let durable = Point { segment: cut.segment, seq: cut.last.seq, hash: cut.last.hash, end: cut.end };
        let name = SegmentName { chain: self.lock.chain, segment: cut.segment };
        // A segment without a bad byte goes on, unless something stands behind it; else a new one begins.
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
        // An empty file behind the end belongs to nobody until a segment line uses it or names it.
        let closed = ended_in_order && rest.empty.is_none();
        let void = rest.void;
        let (cause, message) = match (cut.damaged, void > 0) {
            (Some(seq), _) => (
                Cause::Damage,
                format!("record {seq} had been durable and is bad or missing; verify the log"),
            ),
            (None, true) => {
                (Cause::Torn, format!("{void} bytes of a write that was not finished do not count"))
            }
            (None, false) => (Cause::Unclosed, "the run before ended without close".to_owned()),
        };
        let damage_behind = cut.damaged.is_some();
        let start = LedgerStart { damage_behind, ..self.start(id, durable, live, rest, false, follow) };
        if ended_in_order {
            return Ok(Recovered::Ready { start: Box::new(start), closed, story: None, report: None });
        }
        let report = self.report(&start, void, cut.damaged.is_some(), &message);
        let story = Story { cause, segment: cut.segment, bytes: cut.end, void, message };
        Ok(Recovered::Ready { start: Box::new(start), closed, story: Some(story), report: Some(report) })
    }

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

    /// The last segment could not be synced: nothing is decided from it until the machine restarts.
    fn unsynced(&self, error: &io::Error) -> Result<Recovered, Error> {
        let path = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        self.lock
            .write(&LockState::Unsynced { boot: self.storage.boot_id() })
            .map_err(Error::io("write to", path))?;
        let why = format!("its last segment could not be synced: {error}; {}", self.when_again());
        Ok(self.leave_alone(false, &why))
    }

    /// When a chain is tried again whose last segment could not be synced, and what to do where that is never.
    fn when_again(&self) -> String {
        let lock = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        let by_hand = format!("restart the machine, then remove {} while no program writes", lock.display());
        match self.storage.boot_id().as_str() {
            "" => format!("without a boot id no restart is noticed: {by_hand}"),
            id => format!(
                "it is tried again under another boot id than {id}, which a restart of the machine gives and one of a \
                 container does not; where it never changes, {by_hand}"
            ),
        }
    }

    fn ends_early(&self) -> Recovered {
        self.leave_for_good(true, "it ends before records that had been durable")
    }

    fn too_many(&self) -> Recovered {
        self.leave_for_good(false, "too many files behind its last record count nothing")
    }

    fn later_format(&self) -> Recovered {
        self.leave_alone(
            false,
            "a later version of the format stands there, which this version must not go on with",
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
