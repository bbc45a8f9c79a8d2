//! Finds where a locked chain goes on. Decides nothing from bytes that a sync has not covered.

use std::{cell::Cell, io, sync::Arc};

use super::{
    ledger::{MAX_FAILED, Start, Story},
    lock::{ChainLock, Entry, Point},
    scan::{Place, Scan},
    segment::Segment,
    witness::read_first_line,
};
use crate::{
    ChainRecovery, Error, Head,
    chain::Digest,
    format::{ChainId, Witness, Witnesses},
    segment_name::SegmentName,
    storage::{Access, Dir, File, Storage},
};

/// What was found.
#[derive(Debug)]
pub(super) enum Recovered {
    /// The chain can be continued.
    Ready {
        start: Box<Start>,
        /// Whether its last run ended in order, or there was none.
        closed: bool,
        story: Option<Story>,
        report: Option<ChainRecovery>,
    },
    /// The chain must stay as it is.
    LeftAlone(ChainRecovery),
}

/// Recovers the chain whose lock is held. `witnessed` is what other chains say of it; `names_lie` is for
/// all chains that one opener looks at.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    lock: &ChainLock,
    segments: &[SegmentName],
    witnessed: &[Witness],
    names_lie: &Cell<bool>,
) -> Result<Recovered, Error> {
    let names: Vec<SegmentName> = segments.iter().filter(|name| name.chain == lock.chain).copied().collect();
    Recovery { storage, lock, names, witnessed, names_lie, boot: storage.boot_id() }.run()
}

struct Recovery<'a> {
    storage: &'a Arc<dyn Storage>,
    lock: &'a ChainLock,
    names: Vec<SegmentName>,
    witnessed: &'a [Witness],
    /// Whether the directory could not be synced: then no name that was in it is known to be durable,
    /// of no chain, and the next sync would say that all are.
    names_lie: &'a Cell<bool>,
    boot: String,
}

/// No chain goes on behind this: JSON readers elsewhere know no larger whole number exactly.
const LAST_SEQ: u64 = (1 << 53) - (1 << 40);

/// The files behind the last one that counts.
#[derive(Debug, Default)]
struct Rest {
    failed: Vec<u32>,
    /// How many bytes they hold.
    void: u64,
    /// The very last, where nothing was ever written to it.
    empty: Option<Segment>,
}

impl Rest {
    fn add(&mut self, name: SegmentName, bytes: u64) {
        self.failed.push(name.segment);
        self.void += bytes;
    }

    /// Whether they cannot all be named in one line.
    fn are_too_many(&self) -> bool {
        self.failed.len() + 1 >= MAX_FAILED
    }
}

/// The last durable record of a chain that has none.
const NOWHERE: Point = Point { segment: 0, seq: 0, hash: Digest::ZERO, end: 0 };

impl Recovery<'_> {
    fn run(&self) -> Result<Recovered, Error> {
        let lock_path = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        match self.lock.read().map_err(Error::io("read", lock_path))? {
            Entry::Unsynced { boot } if boot == self.boot => Ok(self.leave_alone(
                false,
                "its last segment could not be synced since the machine started; it is tried again after a restart",
            )),
            Entry::Poison { boot, point } if boot == self.boot && !planted!(PoisonIgnored) => self.after_poison(point),
            _ => self.after_scan(),
        }
    }

    /// A write or sync failed under this boot: the pages of that segment lie, so the entry decides.
    fn after_poison(&self, point: Point) -> Result<Recovered, Error> {
        let failed: Vec<u32> =
            self.names.iter().map(|name| name.segment).filter(|number| *number > point.segment).collect();
        let rest = Rest { failed, ..Rest::default() };
        if point.seq == 0 {
            return self.begin(rest, true);
        }
        let name = SegmentName { chain: self.lock.chain, segment: point.segment };
        let path = self.path(name);
        if !self.names.contains(&name) {
            return Ok(self.leave_alone(true, "the segment of its last durable record is gone"));
        }
        let file = self.open(name, Access::Read)?;
        let scan = Scan::run(file.as_ref(), name, point.end).map_err(Error::io("read", path))?;
        if scan.is_later {
            return Ok(self.later_format());
        }
        let expected = Place { seq: point.seq, hash: point.hash, end: point.end };
        if scan.last != Some(expected) {
            return Ok(self.leave_alone(true, "its last durable record is not where its lock file says"));
        }
        if rest.are_too_many() {
            return Ok(self.too_many());
        }
        let Some(id) = self.id(&scan)? else { return Ok(self.no_identity()) };
        let story = Story {
            cause: "poisoned",
            segment: point.segment,
            bytes: point.end,
            void: 0,
            message: "a write or sync had failed and the process ended before it could begin a new segment"
                .into(),
        };
        let start = self.start(id, point, None, rest, true, &scan);
        let report = self.report(&start, 0, false, &story.message);
        Ok(Recovered::Ready {
            start: Box::new(start),
            closed: false,
            story: Some(story),
            report: Some(report),
        })
    }

    fn after_scan(&self) -> Result<Recovered, Error> {
        if self.names.is_empty() {
            return self.begin(Rest::default(), false);
        }
        let mut witnessed = self.witnessed.iter().map(|witness| witness.seq).max().unwrap_or(0);
        let mut rest = Rest::default();
        // Otherwise one would decide on names, and on data, that a dead process never made durable.
        if let Err(error) = self.sync_names() {
            return self.unsynced(&error);
        }
        for name in self.names.iter().rev() {
            let file = self.open(*name, Access::Append)?;
            if let Err(error) = file.sync_all()
                && !planted!(TailNotSynced)
            {
                return self.unsynced(&error);
            }
            let mut scan =
                Scan::run(file.as_ref(), *name, u64::MAX).map_err(Error::io("read", self.path(*name)))?;
            if scan.is_later {
                return Ok(self.later_format());
            }
            if scan.length == 0
                && !planted!(EmptyFileNotUsed)
                && rest.failed.is_empty()
                && rest.empty.is_none()
            {
                // Its maker had no room to write to it, and ended: the next first line can go there.
                let now = crate::clock::Timestamp::now();
                rest.empty = Some(
                    Segment::resume(file, *name, 0, now).map_err(Error::io("inspect", self.path(*name)))?,
                );
                continue;
            }
            if !scan.has_good_line() {
                rest.add(*name, scan.length);
                continue;
            }
            let Some(cut) = scan.cut(witnessed) else {
                return Ok(self.ends_early());
            };
            let Some(place) = cut.place else {
                witnessed = witnessed.max(scan.durable);
                rest.add(*name, scan.length);
                continue;
            };
            rest.failed.reverse();
            return self.go_on(*name, file, &scan, place, cut.torn, cut.damaged, rest);
        }
        if witnessed > 0 {
            return Ok(self.ends_early());
        }
        rest.failed.reverse();
        self.begin(rest, false)
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
        if !self.witnessed.is_empty() {
            return Ok(self.leave_alone(true, "its records are missing, and other chains have seen them"));
        }
        if rest.are_too_many() {
            return Ok(self.too_many());
        }
        let log = self.storage.path(Dir::Log, "");
        let id = ChainId(self.storage.random().map_err(Error::io("draw random bits for", log))?);
        let last = self.names.last().map_or(0, |name| name.segment);
        let void = rest.void;
        let start = Start {
            id,
            durable: NOWHERE,
            live: None,
            next_segment: self.next_segment(),
            failed: rest.failed,
            empty: rest.empty,
            is_poisoned,
            witnesses: Witnesses::new(),
            pruned: None,
        };
        if self.names.is_empty() {
            return Ok(Recovered::Ready { start: Box::new(start), closed: true, story: None, report: None });
        }
        let message = "it ended before its first record was durable".to_owned();
        let report = self.report(&start, void, false, &message);
        let story = Story { cause: "torn", segment: last, bytes: 0, void, message };
        Ok(Recovered::Ready {
            start: Box::new(start),
            closed: false,
            story: Some(story),
            report: Some(report),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one finding, taken apart once")]
    fn go_on(
        &self,
        name: SegmentName,
        file: Box<dyn File>,
        scan: &Scan,
        place: Place,
        torn: bool,
        damaged: Option<u64>,
        rest: Rest,
    ) -> Result<Recovered, Error> {
        if rest.are_too_many() {
            return Ok(self.too_many());
        }
        let Some(id) = self.id(scan)? else { return Ok(self.no_identity()) };
        if self.witnessed.iter().any(|witness| witness.id != id) {
            return Ok(self.leave_alone(true, "another chain stands where its number was seen before"));
        }
        if place.seq >= LAST_SEQ {
            return Ok(self.leave_alone(false, "every sequence number is used"));
        }
        // Damaged bytes stay within what counts: our own software never declares an edit void.
        let end = if damaged.is_some() && !torn { scan.length } else { place.end };
        let durable = Point { segment: name.segment, seq: place.seq, hash: place.hash, end };
        let whole = !torn && damaged.is_none() && rest.failed.is_empty();
        let begun = scan.begun.unwrap_or_else(crate::clock::Timestamp::now);
        let live = if whole {
            let resumed = Segment::resume(file, name, place.end, begun);
            Some(resumed.map_err(Error::io("inspect", self.path(name)))?)
        } else {
            None
        };
        let closed = scan.closed && whole;
        let void = scan.length - end + rest.void;
        let (cause, message) = match (damaged, torn) {
            (Some(seq), _) => {
                ("damage", format!("record {seq} had been durable and is bad or missing; verify the log"))
            }
            (None, true) => ("torn", format!("{void} bytes of a write that was not finished do not count")),
            (None, false) => ("unclosed", "the run before ended without close".to_owned()),
        };
        let start = self.start(id, durable, live, rest, false, scan);
        if closed {
            return Ok(Recovered::Ready { start: Box::new(start), closed, story: None, report: None });
        }
        let report = self.report(&start, void, damaged.is_some(), &message);
        let story = Story { cause, segment: name.segment, bytes: end, void, message };
        Ok(Recovered::Ready { start: Box::new(start), closed, story: Some(story), report: Some(report) })
    }

    fn start(
        &self,
        id: ChainId,
        durable: Point,
        live: Option<Segment>,
        rest: Rest,
        is_poisoned: bool,
        scan: &Scan,
    ) -> Start {
        Start {
            id,
            durable,
            live,
            next_segment: self.next_segment(),
            failed: rest.failed,
            empty: rest.empty,
            is_poisoned,
            witnesses: scan.witnesses.clone(),
            pruned: scan.pruned,
        }
    }

    fn next_segment(&self) -> u32 {
        self.names.last().map_or(1, |name| name.segment + 1)
    }

    /// The identity of the chain: in the first line of the segment, or of one before it.
    fn id(&self, scan: &Scan) -> Result<Option<ChainId>, Error> {
        if let Some(info) = &scan.info {
            return Ok(Some(info.id));
        }
        for name in self.names.iter().rev() {
            let file = self.open(*name, Access::Read)?;
            if let Some(first) =
                read_first_line(file.as_ref(), *name).map_err(Error::io("read", self.path(*name)))?
            {
                return Ok(Some(first.info.id));
            }
        }
        Ok(None)
    }

    /// The last segment could not be synced: nothing is decided from it until the machine restarts.
    fn unsynced(&self, error: &io::Error) -> Result<Recovered, Error> {
        let path = self.storage.path(Dir::Control, &self.lock.chain.lock_name());
        self.lock.write(&Entry::Unsynced { boot: self.boot.clone() }).map_err(Error::io("write to", path))?;
        Ok(self.leave_alone(false, &format!("its last segment could not be synced: {error}")))
    }

    fn ends_early(&self) -> Recovered {
        self.leave_alone(true, "it ends before records that had been durable")
    }

    fn too_many(&self) -> Recovered {
        self.leave_alone(false, "too many files behind its last record count nothing")
    }

    fn later_format(&self) -> Recovered {
        self.leave_alone(
            false,
            "a later version of the format stands there, which this version must not go on with",
        )
    }

    fn no_identity(&self) -> Recovered {
        self.leave_alone(true, "no first line of its segments is readable")
    }

    fn leave_alone(&self, damaged: bool, why: &str) -> Recovered {
        Recovered::LeftAlone(ChainRecovery {
            chain: self.lock.chain.get(),
            head: None,
            torn_bytes: 0,
            damaged,
            left_alone: true,
            message: format!("chain {} is left alone: {why}", self.lock.chain),
        })
    }

    fn report(&self, start: &Start, torn_bytes: u64, damaged: bool, message: &str) -> ChainRecovery {
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
