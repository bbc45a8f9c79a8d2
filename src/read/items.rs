//! The chains of a log, merged, and waited for.

use std::{
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    backward::Backward,
    cursor::{Cursor, Wanted},
    item::ReadItem,
    next::Next,
    reader::Plan,
    start::{From, StartPosition},
    stopper::Stopper,
};
use crate::{
    chain::Head, chain_reader::Directory, clock::Clock, error::Error, format::ChainId,
    segment_name::ChainNumber, storage::Storage,
};

/// How long a reading that follows rests before it looks again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// How often a directory is listed in which files go while it is opened.
const MAX_LOOKS: usize = 100;

/// What a [`Reader`](crate::Reader) reads, item by item; see [`Reader::items`](crate::Reader::items).
///
/// The end is `None`. A reading that follows blocks until there is more, and ends when it is
/// [stopped](Self::stopper). After an error the reading goes on: behind a line that is no record, with another chain
/// where a file cannot be read, and with another try where the log is followed.
pub struct ReadItems {
    storage: Arc<dyn Storage>,
    plan: Plan,
    walks: Vec<Walk>,
    /// The next record of each chain, the first to hand out on top.
    heads: BinaryHeap<Next>,
    /// The chains of which no record is there.
    to_fill: Vec<usize>,
    /// What comes before the next record.
    due: VecDeque<Result<ReadItem, Error>>,
    /// How many records are still wanted.
    left: u64,
    pause: Duration,
    /// Whether to rest before the next look: something could not be read.
    must_rest: bool,
    stopper: Stopper,
}

impl fmt::Debug for ReadItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadItems").field("stopper", &self.stopper).finish_non_exhaustive()
    }
}

/// One chain.
#[derive(Debug)]
enum Walk {
    Forward(Box<Cursor>),
    Backward(Box<Backward>),
}

impl Walk {
    fn next(&mut self, storage: &dyn Storage) -> Option<Result<Next, Error>> {
        match self {
            Self::Forward(cursor) => cursor.next(storage),
            Self::Backward(backward) => backward.next(storage),
        }
    }

    fn chain(&self) -> ChainNumber {
        match self {
            Self::Forward(cursor) => cursor.chain(),
            Self::Backward(backward) => backward.chain(),
        }
    }

    fn id(&self) -> Option<ChainId> {
        match self {
            Self::Forward(cursor) => cursor.id(),
            Self::Backward(backward) => backward.id(),
        }
    }

    fn as_cursor(&mut self) -> Option<&mut Cursor> {
        match self {
            Self::Forward(cursor) => Some(cursor),
            Self::Backward(_) => None,
        }
    }
}

impl ReadItems {
    /// Begins to read as planned.
    pub(super) fn open(storage: &Arc<dyn Storage>, plan: &Plan, dir: &Path) -> Result<Self, Error> {
        let mut looks = 1;
        loop {
            let directory = Directory::list_without_holes(&**storage)?;
            match Self::open_listed(Arc::clone(storage), plan.clone(), dir, &directory) {
                // Retention may have removed the files that were listed: before a record is called missing, the
                // directory is listed again.
                Err(Error::NoSuchRecord { .. })
                    if looks < MAX_LOOKS
                        && Directory::list_without_holes(&**storage)?.chains != directory.chains =>
                {
                    looks += 1;
                }
                opened => return opened,
            }
        }
    }

    fn open_listed(
        storage: Arc<dyn Storage>,
        plan: Plan,
        dir: &Path,
        directory: &Directory,
    ) -> Result<Self, Error> {
        if directory.chains.is_empty() && !plan.follows {
            return Err(Error::NoLog { path: dir.to_owned() });
        }
        let missing = |head: &&Head| plan.wants(head.chain) && !directory.chains.contains_key(&head.chain);
        if let Some(head) = plan.after.iter().find(missing) {
            return Err(Error::NoSuchRecord { path: dir.to_owned(), head: *head });
        }
        let (firsts, is_exact) = plan.firsts(&storage, directory)?;
        let mut items = Self::new(storage, plan);
        if !is_exact {
            // None of the last may be missing: there may be more instead.
            items.left = u64::MAX;
        }
        for (chain, numbers) in &directory.chains {
            if items.plan.wants(*chain) {
                items.add(*chain, numbers, firsts.get(chain).copied())?;
            }
        }
        items.fill();
        let is_lie = |due: &Result<ReadItem, Error>| matches!(due, Err(Error::NoSuchRecord { .. }));
        match items.due.iter().position(is_lie).and_then(|at| items.due.remove(at)) {
            Some(Err(error)) => Err(error),
            _ => Ok(items),
        }
    }

    fn new(storage: Arc<dyn Storage>, plan: Plan) -> Self {
        let is_bounded = !plan.follows;
        Self {
            storage,
            walks: Vec::new(),
            heads: BinaryHeap::new(),
            to_fill: Vec::new(),
            due: VecDeque::new(),
            left: plan.last.filter(|_| is_bounded).unwrap_or(u64::MAX),
            plan,
            pause: FIRST_PAUSE,
            must_rest: false,
            stopper: Stopper::default(),
        }
    }

    /// Begins to read a chain, not before the record `first`.
    fn add(&mut self, chain: ChainNumber, numbers: &[u32], first: Option<u64>) -> Result<(), Error> {
        let index = self.walks.len();
        let plan = &self.plan;
        let after = plan.after.iter().find(|head| head.chain == chain).copied();
        let behind = after.map_or(0, |head| head.seq.saturating_add(1));
        let wanted = Wanted {
            durable_only: plan.durable_only,
            from_seq: plan.from_seq.max(behind).max(first.unwrap_or(0)),
            since: plan.since,
            follows: plan.follows,
        };
        let walk = if plan.is_reverse {
            Walk::Backward(Box::new(Backward::new(&*self.storage, index, chain, numbers, wanted)?))
        } else {
            let from = match (after, plan.since) {
                (Some(head), _) => From::Seq(head.seq),
                (None, _) if wanted.from_seq > 1 => From::Seq(wanted.from_seq),
                (None, Some(since)) => From::Time(since),
                (None, None) => From::Beginning,
            };
            let start =
                StartPosition::find(&*self.storage, chain, numbers, from, after.map_or(0, |head| head.seq))?;
            Walk::Forward(Box::new(Cursor::new(index, chain, start, wanted, after).0))
        };
        self.walks.push(walk);
        self.to_fill.push(index);
        Ok(())
    }

    /// Reads the next record of the chains of which none is there. What cannot be read is said at once, and passed
    /// over.
    #[inline]
    fn fill(&mut self) {
        let mut to_fill = std::mem::take(&mut self.to_fill);
        for index in to_fill.drain(..) {
            let Some(walk) = self.walks.get_mut(index) else { continue };
            match walk.next(&*self.storage) {
                Some(Ok(head)) => self.heads.push(head),
                Some(Err(error)) => {
                    self.due.push_back(Err(error));
                    self.to_fill.push(index);
                }
                None => {}
            }
        }
        if self.to_fill.is_empty() {
            // Its room serves the next record.
            self.to_fill = to_fill;
        }
    }

    /// The next item of what was there at the last look.
    #[inline]
    fn next_here(&mut self) -> Option<Result<ReadItem, Error>> {
        while self.left > 0 {
            if let Some(due) = self.due.pop_front() {
                self.left -= u64::from(matches!(due, Ok(ReadItem::Record(_))));
                return Some(due);
            }
            let next = match self.walks.as_mut_slice() {
                // One chain needs no merging.
                [walk] if self.heads.is_empty() && !self.to_fill.is_empty() => {
                    match walk.next(&*self.storage) {
                        Some(Ok(next)) => next,
                        Some(Err(error)) => return Some(Err(error)),
                        None => {
                            self.to_fill.clear();
                            return None;
                        }
                    }
                }
                _ if !self.to_fill.is_empty() => {
                    self.fill();
                    continue;
                }
                _ => {
                    let next = self.heads.pop()?;
                    self.to_fill.push(next.chain);
                    next
                }
            };
            let record = Ok(ReadItem::Record(next.record));
            if next.before.is_empty() {
                self.left -= 1;
                return Some(record);
            }
            self.due.extend(next.before.into_iter().map(Ok).chain([record]));
        }
        None
    }

    /// Looks what is there now, in chains that are known and in those that began since.
    fn look_again(&mut self) -> Result<(), Error> {
        let directory = Directory::list_without_holes(&*self.storage)?;
        for (chain, numbers) in &directory.chains {
            if !self.plan.wants(*chain) {
                continue;
            }
            let is_this = |walk: &mut Walk| walk.as_cursor().is_some_and(|cursor| cursor.chain() == *chain);
            // What is wrong with one chain keeps nobody from the others.
            let Some(index) = self.walks.iter_mut().position(is_this) else {
                if let Err(error) = self.add_new(*chain, numbers) {
                    self.due.push_back(Err(error));
                }
                continue;
            };
            let cursor = self.walks.get_mut(index).and_then(Walk::as_cursor);
            match cursor.map(|cursor| cursor.look_again(&*self.storage, numbers)) {
                Some(Ok(true)) => self.to_fill.push(index),
                Some(Err(error)) => self.due.push_back(Err(error)),
                Some(Ok(false)) | None => {}
            }
        }
        Ok(())
    }

    /// Begins to read a chain that began after this reading.
    fn add_new(&mut self, chain: ChainNumber, numbers: &[u32]) -> Result<(), Error> {
        self.add(chain, numbers, None)?;
        if let Some(cursor) = self.walks.last_mut().and_then(Walk::as_cursor) {
            cursor.expect_the_first();
        }
        Ok(())
    }

    /// Hands out the next item if there is one within this time, and `None` if there is not, the reading has ended, or
    /// it was [stopped](Stopper::is_stopped). With [`Duration::ZERO`] it looks once and does not wait. The bound is one of
    /// waiting: records that are there and not wanted are passed over first, however many they are.
    ///
    /// For who collects batches; the iterator itself waits without a bound.
    #[doc(alias = "try_next")]
    pub fn next_within(&mut self, bound: Duration) -> Option<Result<ReadItem, Error>> {
        self.wait(Some(bound))
    }

    /// The chains that are read so far, and the id of each: 32 hexadecimal digits, drawn when the chain began, so that the
    /// id and a sequence number name a record for ever. A chain without a readable first line is left out.
    #[must_use]
    pub fn chains(&self) -> Vec<(u16, String)> {
        let chains = self.walks.iter();
        chains.filter_map(|walk| Some((walk.chain().get(), walk.id()?.to_string()))).collect()
    }

    /// Takes this record for durable, and all before it in its chain, as [`AuditLog::head`](crate::AuditLog::head) or a
    /// receipt says. A reading that follows with [`durable_only`](crate::Reader::durable_only) then hands them out at its next
    /// look, and need not wait for the mark that says so in the log. A head of another log makes it hand out what is not
    /// durable.
    pub fn trust(&mut self, head: impl Into<Head>) {
        let head = head.into();
        if let Some(cursor) =
            self.walks.iter_mut().find(|walk| walk.chain() == head.chain).and_then(Walk::as_cursor)
        {
            cursor.trust(head.seq);
        }
    }

    /// What ends this reading, from any thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    #[inline]
    fn wait(&mut self, bound: Option<Duration>) -> Option<Result<ReadItem, Error>> {
        let mut clock = None;
        while !self.stopper.is_stopped() {
            let item = self.next_here();
            if let Some(item) = &item {
                self.note(item);
            }
            if item.is_some() || !self.plan.follows {
                return item;
            }
            let clock = *clock.get_or_insert_with(Clock::start);
            let left = || bound.map_or(LAST_PAUSE, |bound| bound.saturating_sub(clock.elapsed()));
            if !std::mem::take(&mut self.must_rest) {
                let item = self.look_again().map_or_else(|error| Some(Err(error)), |()| self.next_here());
                if let Some(found) = &item {
                    self.note(found);
                    return item;
                }
            }
            let pause = self.pause.min(left());
            if pause.is_zero() || self.stopper.sleep(pause) {
                return None;
            }
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        }
        None
    }

    /// Looks soon again behind what was found, and not before a rest behind what failed.
    fn note(&mut self, item: &Result<ReadItem, Error>) {
        if matches!(item, Err(Error::Io { .. })) {
            self.must_rest = true;
        } else {
            self.pause = FIRST_PAUSE;
        }
    }
}

impl Iterator for ReadItems {
    type Item = Result<ReadItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait(None)
    }
}

impl Plan {
    fn wants(&self, chain: ChainNumber) -> bool {
        self.chains.is_empty() || self.chains.contains(&chain)
    }

    /// With which record of each chain the last ones of the log begin, if they are asked for: found from the end on.
    /// And whether a reading forward counts as many from there: where lines are damaged it may count more.
    fn firsts(
        &self,
        storage: &Arc<dyn Storage>,
        directory: &Directory,
    ) -> Result<(BTreeMap<ChainNumber, u64>, bool), Error> {
        let (mut firsts, mut is_exact) = (BTreeMap::new(), true);
        let Some(last) = self.last.filter(|_| !self.is_reverse) else { return Ok((firsts, is_exact)) };
        let plan = Self { after: Vec::new(), is_reverse: true, follows: false, ..self.clone() };
        let mut items = ReadItems::new(Arc::clone(storage), plan);
        for (chain, numbers) in directory.chains.iter().filter(|(chain, _)| self.wants(**chain)) {
            let behind = self.after.iter().find(|head| head.chain == *chain);
            items.add(*chain, numbers, behind.map(|head| head.seq.saturating_add(1)))?;
        }
        items.fill();
        let mut left = last;
        while left > 0 {
            match items.next_here() {
                Some(Ok(ReadItem::Record(record))) => {
                    firsts.insert(record.head().chain, record.seq());
                    left -= 1;
                }
                Some(Err(error @ Error::Io { .. })) => return Err(error),
                // What is wrong is told when it is read forward.
                Some(_) => is_exact = false,
                None => return Ok((BTreeMap::new(), is_exact)),
            }
        }
        items.left = u64::MAX;
        // Of chains that have no such record nothing is wanted that is there.
        while !items.to_fill.is_empty() {
            items.fill();
        }
        for next in items.heads {
            let head = next.record.head();
            firsts.entry(head.chain).or_insert(head.seq.saturating_add(1));
        }
        Ok((firsts, is_exact))
    }
}
