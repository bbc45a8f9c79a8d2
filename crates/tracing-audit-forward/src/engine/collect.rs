//! Reads durable records, and handles what is missing, damaged or cannot be read.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    panic::resume_unwind,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{ReadItem, ReadItems, Record, RecordKind};

use super::{Engine, Halt, chain_of};
use crate::{
    error::{Error, with_source},
    heads::HeadWatch,
    lag,
    sink::{Entry, Gap, SinkError},
    stats::NoticeKind,
};

/// What one call read.
pub(super) struct Reading {
    /// The number of drains requested before reading.
    pub(super) drains_asked: u64,
    records: Vec<Record>,
    bytes: usize,
    /// When its first record was read.
    since: Instant,
    then: Then,
}

/// The limits of one read.
#[derive(Clone, Copy)]
struct Limits {
    records: usize,
    bytes: usize,
}

/// What follows the records.
enum Then {
    /// Nothing now.
    Nothing,
    /// Possibly more of them.
    More,
    /// Something other than a record.
    Other(Result<ReadItem, tracing_audit::Error>),
}

impl Reading {
    /// Returns whether there was nothing more to read.
    pub(super) const fn is_all(&self) -> bool {
        matches!(self.then, Then::Nothing)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns how long the first record has waited for others.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

/// Reads up to a batch of what is there, without the chains that are left out. Continues the batch of
/// `waiting`.
fn read(
    items: &mut ReadItems,
    left_out: &BTreeSet<u16>,
    limits: Limits,
    drains_asked: u64,
    waiting: Option<Reading>,
) -> Reading {
    let waiting = waiting.map(|waiting| (waiting.records, waiting.bytes, waiting.since));
    let (mut records, mut bytes, since) = waiting.unwrap_or_else(|| (Vec::new(), 0, Instant::now()));
    let mut count = records.len();
    let then = loop {
        if count >= limits.records || bytes >= limits.bytes {
            break Then::More;
        }
        match items.next_within(Duration::ZERO) {
            None => break Then::Nothing,
            Some(Ok(ReadItem::Record(record))) => {
                (bytes, count) = (bytes + record.as_json().len(), count + 1);
                if !left_out.contains(&record.chain()) {
                    records.push(record);
                }
            }
            Some(other) => break Then::Other(other),
        }
    };
    // The wait begins with the first record.
    let since = if records.is_empty() { Instant::now() } else { since };
    Reading { drains_asked, records, bytes, since, then }
}

impl Engine {
    pub(super) fn read(&mut self, items: &mut ReadItems, waiting: Option<Reading>) -> Reading {
        let drains_asked = self.before_reading(items);
        read(items, &self.left_out, self.limits(), drains_asked, waiting)
    }

    fn limits(&self) -> Limits {
        Limits { records: self.batch_limit, bytes: self.pace.batch_bytes }
    }

    /// Takes over what must be known before reading: a drain requested later is not served by this read.
    /// Returns the number of drains requested so far.
    fn before_reading(&mut self, items: &mut ReadItems) -> u64 {
        let drains_asked = self.shared.lock().drains_asked;
        self.drains_seen = drains_asked;
        if let Some(head) = self.heads.as_mut().map(HeadWatch::head) {
            items.trust(head);
            self.shared.lock().head = Some(head);
        }
        drains_asked
    }

    /// Delivers what was read. If there may be more, that is read while the store works, and returned.
    pub(super) fn handle_reading(
        &mut self,
        reading: Reading,
        items: &mut ReadItems,
    ) -> Result<Option<Reading>, Halt> {
        let Reading { records, then, .. } = reading;
        if let Then::Other(Ok(ReadItem::Withdrawn { chain, from_seq, .. })) = then
            && !self.is_left_out(chain)
        {
            // Nothing that was read before the withdrawal is offered.
            let why = format!("records from {from_seq} on were durable and are withdrawn; verify the log");
            self.stop_chain(chain, why);
        }
        let batch = self.entries(items, records)?;
        match then {
            Then::Nothing => self.deliver(&batch)?,
            Then::More => return self.deliver_and_read_on(&batch, items).map(Some),
            Then::Other(other) => {
                // What lies before it is delivered first.
                self.deliver(&batch)?;
                self.handle(items, other)?;
            }
        }
        Ok(None)
    }

    fn deliver_and_read_on(&mut self, batch: &[Entry], items: &mut ReadItems) -> Result<Reading, Halt> {
        let drains_asked = self.before_reading(items);
        let (left_out, limits) = (self.left_out.clone(), self.limits());
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("audit-read".to_owned());
            let ahead = thread.spawn_scoped(scope, || read(items, &left_out, limits, drains_asked, None));
            let delivered = self.deliver(batch);
            // Joined even if delivery failed, because the thread borrows the reader. A panic in it
            // continues here.
            let ahead = ahead.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            delivered?;
            ahead.map_err(|error| Error::io("start a thread to read", &self.dir)(error).into())
        })
    }

    /// Returns the records to offer, each with the id of its chain.
    fn entries(&mut self, items: &ReadItems, records: Vec<Record>) -> Result<Vec<Entry>, Halt> {
        let mut batch = Vec::with_capacity(records.len());
        for record in records {
            let chain = record.chain();
            // The chain may have stopped since the record was read.
            if self.is_left_out(chain) {
                continue;
            }
            let Some(chain_id) = self.id_of(items, chain) else {
                // Nothing that follows in this chain is offered either.
                self.leave_out(
                    chain,
                    "its first line cannot be read: a later version may write it".to_owned(),
                );
                continue;
            };
            if record.kind() == RecordKind::Close && !self.sync(&record)? {
                continue;
            }
            batch.push(Entry::new(chain_id, record));
        }
        Ok(batch)
    }

    fn handle(
        &mut self,
        items: &ReadItems,
        other: Result<ReadItem, tracing_audit::Error>,
    ) -> Result<(), Halt> {
        match other {
            Ok(ReadItem::Gap { chain, first_seq, last_seq, .. }) if !self.is_left_out(chain) => {
                self.handle_gap(items, chain, first_seq, last_seq)
            }
            Ok(_) => Ok(()),
            Err(error) => {
                let error = Error::from(error);
                let is_known = chain_of(&error).is_some_and(|(chain, _)| self.is_left_out(chain));
                if is_known { Ok(()) } else { self.continue_without(error) }
            }
        }
    }

    fn id_of(&mut self, items: &ReadItems, chain: u16) -> Option<Arc<str>> {
        if let Some(id) = self.ids.get(&chain) {
            return Some(Arc::clone(id));
        }
        self.ids.extend(items.chains().into_iter().map(|(chain, id)| (chain, Arc::from(id))));
        self.ids.get(&chain).map(Arc::clone)
    }

    /// Syncs a `close`, which can be read a moment before it is durable: a power cut in that moment withdraws
    /// it. Returns whether it is durable now.
    fn sync(&mut self, record: &Record) -> Result<bool, Halt> {
        let path = self.dir.join(record.file_name());
        let file = match File::open(&path) {
            Ok(file) => file,
            // What retention removes is durable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => {
                self.continue_without(Error::io("open", path)(error))?;
                return Ok(false);
            }
        };
        if let Err(error) = file.sync_data() {
            // A second sync that succeeds would not show what the first one lost (fsync(2)).
            self.stop_chain(record.chain(), with_source(&Error::io("sync", path)(error)));
            return Ok(false);
        }
        Ok(true)
    }

    /// Handles missing records: retention removed them, or somebody else did.
    fn handle_gap(
        &mut self,
        items: &ReadItems,
        chain: u16,
        first_seq: u64,
        last_seq: u64,
    ) -> Result<(), Halt> {
        let pruned = match lag::pruned_through(&self.dir, chain) {
            Ok(pruned) => pruned,
            Err(error) => return self.continue_without(error),
        };
        // Only a `prune` record of the log itself explains missing records.
        if pruned.is_none_or(|through| through < last_seq) {
            let why = format!(
                "records {first_seq} to {last_seq} are missing, and retention did not remove them; verify the log"
            );
            self.stop_chain(chain, why);
            return Ok(());
        }
        let Some(chain_id) = self.id_of(items, chain) else { return Ok(()) };
        let gap = Gap { chain_id, chain, first_seq, last_seq };
        let answer = self.call(|sink| sink.gap(&gap));
        if let Err(failed @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) = answer {
            return Err(Halt::Sink(failed));
        }
        // The same gap is met again whenever the log is read again. It counts once.
        if self.reported_gaps.insert(chain, gap.clone()).is_some_and(|reported| reported == gap) {
            return Ok(());
        }
        if let Err(refused) = answer {
            let message = format!(
                "the store did not accept that records {first_seq} to {last_seq} of chain {chain:03} are missing: {refused}"
            );
            self.notify(NoticeKind::Rejected, message);
        }
        self.shared.lock().stats.missed += last_seq - first_seq + 1;
        let message = format!(
            "retention removed records {first_seq} to {last_seq} of chain {chain:03} before they were forwarded"
        );
        self.notify(NoticeKind::Missed, message);
        Ok(())
    }
}
