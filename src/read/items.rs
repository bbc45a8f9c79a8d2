//! The chains of a log, merged and followed.

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

/// How long a reader that follows pauses before it looks again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// How often a directory is listed again while files in it are removed during opening.
const MAX_LOOKS: usize = 100;

/// The items that a [`Reader`](crate::Reader) reads; see [`Reader::items`](crate::Reader::items).
///
/// The iterator returns `None` at the end. A reader that follows blocks until there is more, and ends when it is
/// [stopped](Self::stopper). After an error, reading continues: after the line that is not a record, with another
/// chain if a file cannot be read, and with another attempt if the log is followed.
pub struct ReadItems {
    storage: Arc<dyn Storage>,
    plan: Plan,
    walks: Vec<Walk>,
    /// The next record of each chain, the one to return first at the top.
    next_records: BinaryHeap<Next>,
    /// The indexes of the chains whose next record was not read yet.
    to_fill: Vec<usize>,
    /// The items to return before the next record.
    due: VecDeque<Result<ReadItem, Error>>,
    /// How many records are still to be returned.
    left: u64,
    pause: Duration,
    /// Whether to pause before the next look, because something could not be read.
    must_rest: bool,
    stopper: Stopper,
}

impl fmt::Debug for ReadItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadItems").field("stopper", &self.stopper).finish_non_exhaustive()
    }
}

/// One chain that is being read.
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
                // Retention may have removed the files that were listed. Before a record is reported missing, the
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
            // The count is not exact: rather return more records than lose one of the last.
            items.left = u64::MAX;
        }
        for (chain, numbers) in &directory.chains {
            if items.plan.wants(*chain) {
                items.add(*chain, numbers, firsts.get(chain).copied())?;
            }
        }
        items.fill();
        // A head that the log does not have must be an error of this call, not of a later item.
        let is_missing = |due: &Result<ReadItem, Error>| matches!(due, Err(Error::NoSuchRecord { .. }));
        match items.due.iter().position(is_missing).and_then(|at| items.due.remove(at)) {
            Some(Err(error)) => Err(error),
            _ => Ok(items),
        }
    }

    fn new(storage: Arc<dyn Storage>, plan: Plan) -> Self {
        let is_bounded = !plan.follows;
        Self {
            storage,
            walks: Vec::new(),
            next_records: BinaryHeap::new(),
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

    /// Reads the next record of each chain that has none waiting. Errors are queued to be returned at once, and reading
    /// continues after them.
    #[inline]
    fn fill(&mut self) {
        let mut to_fill = std::mem::take(&mut self.to_fill);
        for index in to_fill.drain(..) {
            let Some(walk) = self.walks.get_mut(index) else { continue };
            match walk.next(&*self.storage) {
                Some(Ok(head)) => self.next_records.push(head),
                Some(Err(error)) => {
                    self.due.push_back(Err(error));
                    self.to_fill.push(index);
                }
                None => {}
            }
        }
        if self.to_fill.is_empty() {
            // Keeps the allocation for later calls.
            self.to_fill = to_fill;
        }
    }

    /// Returns the next item of what was found at the last look.
    #[inline]
    fn next_here(&mut self) -> Option<Result<ReadItem, Error>> {
        while self.left > 0 {
            if let Some(due) = self.due.pop_front() {
                self.left -= u64::from(matches!(due, Ok(ReadItem::Record(_))));
                return Some(due);
            }
            let next = match self.walks.as_mut_slice() {
                // A single chain needs no merging.
                [walk] if self.next_records.is_empty() && !self.to_fill.is_empty() => {
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
                    let next = self.next_records.pop()?;
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

    /// Lists the directory again: for more in known chains, and for chains that began since.
    fn look_again(&mut self) -> Result<(), Error> {
        let directory = Directory::list_without_holes(&*self.storage)?;
        for (chain, numbers) in &directory.chains {
            if !self.plan.wants(*chain) {
                continue;
            }
            let is_this = |walk: &mut Walk| walk.as_cursor().is_some_and(|cursor| cursor.chain() == *chain);
            // An error in one chain does not stop the others.
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

    /// Returns the next item if there is one within this time. Returns `None` if there is not, if reading has ended,
    /// or if it was [stopped](Stopper::is_stopped). With [`Duration::ZERO`] it looks once and does not wait. Only
    /// waiting is bounded: records that exist and are not wanted are skipped first, however many there are.
    ///
    /// For programs that collect batches; the iterator itself waits without a limit.
    #[doc(alias = "try_next")]
    pub fn next_within(&mut self, bound: Duration) -> Option<Result<ReadItem, Error>> {
        self.wait(Some(bound))
    }

    /// Returns the chains read so far with their ids: 32 hexadecimal digits, drawn when the chain began. An id and a
    /// sequence number identify a durable record permanently. A chain without a readable first line is left out.
    #[must_use]
    pub fn chains(&self) -> Vec<(u16, String)> {
        let chains = self.walks.iter();
        chains.filter_map(|walk| Some((walk.chain().get(), walk.id()?.to_string()))).collect()
    }

    /// Treats this record and all before it in its chain as durable, on the word of
    /// [`AuditLog::head`](crate::AuditLog::head) or a receipt. A reader that follows with
    /// [`durable_only`](crate::Reader::durable_only) then returns them at its next look, without waiting for the mark
    /// in the log. With a head of another log, records may be returned that are not durable.
    pub fn trust(&mut self, head: impl Into<Head>) {
        let head = head.into();
        if let Some(cursor) =
            self.walks.iter_mut().find(|walk| walk.chain() == head.chain).and_then(Walk::as_cursor)
        {
            cursor.trust(head.seq);
        }
    }

    /// Returns a handle that stops this reader from any thread.
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
            // After an I/O error there is a pause first, so that a failing disk is not read in a tight loop.
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

    /// Shortens the next pause after something was found, and forces a pause after an I/O error.
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

    /// Returns the record of each chain with which the last records of the log begin, if they are asked for. They are
    /// found from the end. Also returns whether that count is exact: where lines are damaged, reading forward may
    /// return more.
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
                // Reading forward reports what is wrong.
                Some(_) => is_exact = false,
                None => return Ok((BTreeMap::new(), is_exact)),
            }
        }
        items.left = u64::MAX;
        // Chains without one of the last records are read from behind their newest record.
        while !items.to_fill.is_empty() {
            items.fill();
        }
        for next in items.next_records {
            let head = next.record.head();
            firsts.entry(head.chain).or_insert(head.seq.saturating_add(1));
        }
        Ok((firsts, is_exact))
    }
}
