//! The thread of a forwarder: reads what is durable, offers it, and notes what was acknowledged.
//!
//! It connects, forwards until something fails, rests, and connects again. Each time it asks the store what it has and
//! begins there, so nothing has to be known of what happened in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing_audit::{AuditLog, Head, ReadItem, ReadItems, Reader, Record, RecordKind};

use crate::{
    dead::{Dead, segment},
    error::Error,
    forwarder::{Builder, Shared, StartAt},
    heads::HeadWatch,
    lag,
    pause::Pauses,
    position::{Acknowledged, Files, Known, Refusal},
    sink::{Entry, Gap, Sink, SinkError},
    stats::{Notice, NoticeKind, State},
};

/// How much is offered at once, at most.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// How long the log rests between two looks, and how long who runs beside it waits.
const LOOK: Duration = Duration::from_secs(1);

/// How often the position is written while a store that can be asked is kept busy.
const WRITE_AFTER: Duration = Duration::from_secs(1);

/// How often a store is asked what it has.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// As many records in a row that the store refuses are no matter of what is in them.
const REFUSALS: u32 = 16;

/// Why a connection ended.
enum Halt {
    /// It is time to ask the store what it has.
    AskAgain,
    /// Nothing more is wanted.
    Stopped,
    /// A call of the sink failed.
    Sink(SinkError),
    /// The log or a file of the forwarder cannot be read or written.
    Local(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

/// What the thread has.
pub(crate) struct Engine {
    dir: PathBuf,
    files: Files,
    sink: Box<dyn Sink>,
    settings: Builder,
    shared: Arc<Shared>,
    heads: Option<HeadWatch>,
    known: Known,
    /// The ids of chains by their numbers.
    ids: BTreeMap<u16, Arc<str>>,
    /// Whether the store can be asked.
    is_askable: bool,
    /// Whether what is known is not yet written.
    is_dirty: bool,
    written: Instant,
    refused_in_a_row: u32,
    pauses: Pauses,
    is_in_trouble: bool,
    lag_measured: Option<Instant>,
    dead: Dead,
    /// The last gap of each chain that was told.
    told_gaps: BTreeMap<u16, Gap>,
    /// The newest record of the batch that is on its way.
    newest: Option<Entry>,
}

impl Engine {
    pub(crate) fn new(
        dir: PathBuf,
        audit: Option<AuditLog>,
        files: Files,
        sink: Box<dyn Sink>,
        settings: Builder,
        shared: Arc<Shared>,
    ) -> Self {
        let heads = audit.map(|audit| HeadWatch::new(audit, &shared));
        Self {
            dir,
            files,
            sink,
            settings,
            shared,
            heads,
            known: Known::default(),
            ids: BTreeMap::new(),
            is_askable: false,
            is_dirty: false,
            written: Instant::now(),
            refused_in_a_row: 0,
            pauses: Pauses::default(),
            is_in_trouble: false,
            lag_measured: None,
            dead: Dead::default(),
            told_gaps: BTreeMap::new(),
            newest: None,
        }
    }

    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // A sink and a closure for notices are code of others.
        let ran = catch_unwind(AssertUnwindSafe(|| self.run_until_the_end()));
        // With its handle on the log.
        drop(self);
        let mut state = shared.lock();
        state.stats.state = State::Closed;
        if ran.is_err() {
            state.stats.trouble = Some("the sink or the closure for notices panicked".to_owned());
        }
        drop(state);
        shared.changed.notify_all();
    }

    fn run_until_the_end(&mut self) {
        let held = self.take_name();
        let mut is_read = false;
        while held.is_some() && !self.is_stopped() {
            let halt = match self.read_position(&mut is_read).and_then(|()| self.forward()) {
                Err(Halt::Stopped) | Ok(()) => break,
                Err(halt) => halt,
            };
            self.rest_after(halt);
        }
        if let Err(error) = self.write() {
            self.tell(NoticeKind::Io, error.to_string());
        }
        self.sink.close();
        drop(held);
    }

    /// Waits until no other forwarder has the name.
    fn take_name(&mut self) -> Option<File> {
        loop {
            match self.files.take() {
                Ok(Some(held)) => return Some(held),
                Ok(None) => {
                    if self.enter(State::Waiting) {
                        let name = &self.files.name;
                        let message =
                            format!("another forwarder named {name} runs; this one waits for it to end");
                        self.tell(NoticeKind::Waiting, message);
                    }
                }
                Err(error) => self.trouble(NoticeKind::Io, State::Unavailable, &error.to_string()),
            }
            if self.shared.wait(LOOK, |state| state.is_stopped) {
                return None;
            }
        }
    }

    /// Once, for only its holder changes it.
    fn read_position(&mut self, is_read: &mut bool) -> Result<(), Halt> {
        if !*is_read {
            self.known = self.files.read()?;
            *is_read = true;
        }
        Ok(())
    }

    /// One connection: from what the store has on, until something fails.
    fn forward(&mut self) -> Result<(), Halt> {
        self.enter(State::Connecting);
        let mut items = self.connect()?;
        let connected = Instant::now();
        self.enter(State::Forwarding);
        let mut batch = Vec::new();
        loop {
            if self.is_stopped() {
                return Err(Halt::Stopped);
            }
            let asked = self.shared.lock().drains_asked;
            if let Some(head) = self.heads.as_mut().map(HeadWatch::head) {
                items.trust(head);
            }
            let is_all = self.collect(&mut items, &mut batch)?;
            let is_idle = batch.is_empty();
            self.newest = batch.last().cloned();
            self.deliver(&batch)?;
            batch.clear();
            self.write_now_and_then()?;
            if connected.elapsed() >= ASK_AGAIN {
                self.write()?;
                return Err(Halt::AskAgain);
            }
            if !is_all {
                self.measure_lag(true);
                continue;
            }
            // What a dead writer left is durable now, too.
            if self.dead.recover(&self.dir)? {
                continue;
            }
            self.caught_up(asked)?;
            if is_idle {
                self.rest();
            }
        }
    }

    /// Asks the store what it has, and begins to read there.
    fn connect(&mut self) -> Result<ReadItems, Halt> {
        let ids = self.chains_of_the_log()?;
        let before = std::mem::replace(&mut self.ids, ids);
        // A chain that began anew under the same number is another one.
        self.shared.lock().stats.stopped.retain(|chain, _| before.get(chain) == self.ids.get(chain));
        let ids: Vec<Arc<str>> = self.ids.values().cloned().collect();
        let positions = self.sink.positions(&ids).map_err(Halt::Sink)?;
        self.is_askable = positions.is_some();
        if let Some(positions) = positions {
            let positions = positions.into_iter().map(|at| (at.chain_id, (at.seq, at.hash))).collect();
            self.believe_the_store(&positions)?;
            // Retention must not go on believing the other.
            self.write()?;
        }
        self.begin_new_chains()?;
        self.open()
    }

    /// The ids of the chains that the log has now.
    fn chains_of_the_log(&self) -> Result<BTreeMap<u16, Arc<str>>, Error> {
        match Reader::new(&self.dir).last(0).items() {
            Ok(items) => Ok(items.chains().into_iter().map(|(chain, id)| (chain, id.into())).collect()),
            Err(tracing_audit::Error::NoLog { .. }) => Ok(BTreeMap::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the store has for what it acknowledged.
    fn believe_the_store(
        &mut self,
        positions: &BTreeMap<Arc<str>, (u64, tracing_audit::Digest)>,
    ) -> Result<(), Error> {
        let refused: BTreeSet<Head> =
            self.files.refusals()?.into_iter().map(|refusal| refusal.record).collect();
        for (chain, id) in self.ids.clone() {
            let known = self.known.chains.get(&id).copied().unwrap_or_default();
            let begun = [known.from, known.skipped];
            let had = known.last.filter(|last| !begun.contains(&Some(*last))).map_or(0, |last| last.seq());
            let skipped = known.skipped.map_or(0, |skipped| skipped.seq());
            // What it has up to there is of another log.
            let stored = positions.get(&id).filter(|(seq, _)| *seq > skipped);
            let has = stored.map_or(0, |(seq, _)| *seq);
            if known.last.is_some_and(|last| refused.contains(&last))
                && is_all_refused(&refused, chain, has, had)
            {
                // It never had them.
                continue;
            }
            if has < had {
                self.shared.lock().stats.losses += 1;
                let message = format!(
                    "the store has chain {chain:03} up to record {has}, and had acknowledged {had}: it was restored or \
                     lost writes; what is missing is sent again"
                );
                self.tell(NoticeKind::StoreLost, message);
            }
            let last = match stored {
                Some((seq, hash)) => format!("{chain:03}/{seq}:{hash}").parse().ok(),
                None => known.skipped.or(known.from),
            };
            if last != known.last {
                self.known.chains.insert(id, Acknowledged { last, ..known });
                self.is_dirty = true;
            }
        }
        Ok(())
    }

    /// Notes where forwarding begins in chains of which nothing is known.
    fn begin_new_chains(&mut self) -> Result<(), Halt> {
        if self.files.position().exists() {
            return Ok(());
        }
        for (chain, id) in &self.ids {
            if self.known.last(id).is_some() {
                continue;
            }
            let from = match self.settings.start_at {
                StartAt::Beginning => None,
                StartAt::Now => lag::durable_head(&self.dir, *chain)?,
                StartAt::After(head) => Some(head).filter(|head| head.chain() == *chain),
            };
            let begun = Acknowledged { from, last: from, ..Acknowledged::default() };
            self.known.chains.insert(Arc::clone(id), begun);
        }
        self.files.write(&self.known)?;
        Ok(())
    }

    /// Begins to read behind what was acknowledged.
    fn open(&mut self) -> Result<ReadItems, Halt> {
        loop {
            let mut reader = Reader::new(&self.dir).durable_only(true).follow(true);
            if !self.shared.lock().stats.stopped.is_empty() {
                // Without those that stopped. Chains that begin meanwhile are seen when the store is asked again.
                for chain in self.ids.keys().filter(|chain| !self.is_stopped_chain(**chain)) {
                    reader = reader.chain(*chain);
                }
                if self.ids.keys().all(|chain| self.is_stopped_chain(*chain)) {
                    reader = reader.last(0);
                }
            }
            for (chain, id) in &self.ids {
                let last = self.known.last(id);
                if let Some(head) = last.filter(|_| !self.is_stopped_chain(*chain)) {
                    reader = reader.after(head);
                }
            }
            match reader.items() {
                Ok(items) => return Ok(items),
                Err(tracing_audit::Error::NoSuchRecord { head, .. })
                    if !self.is_stopped_chain(head.chain()) =>
                {
                    let why = format!(
                        "the store has record {head}, and the log does not: the log was cut, restored or cloned; verify \
                         it with this head"
                    );
                    self.stop_chain(head.chain(), why);
                }
                Err(error) => return Err(Error::from(error).into()),
            }
        }
    }

    /// Reads what is there, up to a batch. Says whether that was all.
    fn collect(&mut self, items: &mut ReadItems, batch: &mut Vec<Entry>) -> Result<bool, Halt> {
        let mut bytes = 0;
        while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES && !self.is_stopped() {
            match items.next_within(Duration::ZERO) {
                None => return Ok(true),
                Some(Ok(ReadItem::Record(record))) => {
                    if self.is_stopped_chain(record.chain()) {
                        continue;
                    }
                    let Some(chain_id) = self.id_of(items, record.chain()) else { continue };
                    if record.kind() == RecordKind::Close {
                        self.sync(&record)?;
                    }
                    bytes += record.as_json().len();
                    batch.push(Entry::new(chain_id, record));
                }
                Some(Ok(ReadItem::Gap { chain, first_seq, last_seq, .. })) => {
                    if !self.is_stopped_chain(chain) {
                        // What lies before it goes first.
                        self.deliver(batch)?;
                        batch.clear();
                        self.meet_gap(items, chain, first_seq, last_seq)?;
                    }
                }
                Some(Ok(ReadItem::Withdrawn { chain, from_seq, .. })) => {
                    self.stop_chain(
                        chain,
                        format!("records from {from_seq} on were durable and are withdrawn; verify the log"),
                    );
                    batch.retain(|entry| entry.record.chain() != chain);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let Some(chain) = damaged_chain(&error) else {
                        // What was read goes on its way.
                        self.deliver(batch)?;
                        batch.clear();
                        return Err(Error::from(error).into());
                    };
                    if !self.is_stopped_chain(chain) {
                        self.stop_chain(chain, error.to_string());
                    }
                }
            }
        }
        Ok(false)
    }

    fn id_of(&mut self, items: &ReadItems, chain: u16) -> Option<Arc<str>> {
        if let Some(id) = self.ids.get(&chain) {
            return Some(Arc::clone(id));
        }
        self.ids.extend(items.chains().into_iter().map(|(chain, id)| (chain, Arc::from(id))));
        self.ids.get(&chain).map(Arc::clone)
    }

    /// A `close` can be read a moment before it is durable, and a power cut in that moment takes it back.
    fn sync(&self, record: &Record) -> Result<(), Error> {
        let path = self.dir.join(record.file_name());
        let synced = File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(Error::io("sync", path))
    }

    /// Records are missing: retention removed them, or somebody else did.
    fn meet_gap(&mut self, items: &ReadItems, chain: u16, first_seq: u64, last_seq: u64) -> Result<(), Halt> {
        if lag::pruned_through(&self.dir, chain)?.is_none_or(|through| through < last_seq) {
            let why = format!(
                "records {first_seq} to {last_seq} are missing, and retention did not remove them; verify the log"
            );
            self.stop_chain(chain, why);
            return Ok(());
        }
        let Some(chain_id) = self.id_of(items, chain) else { return Ok(()) };
        let gap = Gap { chain_id, chain, first_seq, last_seq };
        self.sink.gap(&gap).map_err(Halt::Sink)?;
        if self.told_gaps.insert(chain, gap.clone()).is_some_and(|told| told == gap) {
            return Ok(());
        }
        self.shared.lock().stats.missed += last_seq - first_seq + 1;
        let message = format!(
            "retention removed records {first_seq} to {last_seq} of chain {chain:03} before they were forwarded"
        );
        self.tell(NoticeKind::Missed, message);
        Ok(())
    }

    /// Offers a batch, and divides it where the store refuses it for what is in it.
    fn deliver(&mut self, batch: &[Entry]) -> Result<(), Halt> {
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.lock().stats.lag = age_of(batch);
        match self.sink.offer(batch) {
            Ok(()) => self.acknowledge(batch),
            Err(SinkError::Refused { reason }) => match batch {
                [refused] => self.reject(refused, &reason)?,
                several => {
                    let (older, newer) = several.split_at(several.len() / 2);
                    self.deliver(older)?;
                    self.deliver(newer)?;
                }
            },
            Err(SinkError::Partly { refused }) => {
                if refused.len() < batch.len() {
                    self.refused_in_a_row = 0;
                }
                let mut reasons: BTreeMap<usize, String> = refused.into_iter().collect();
                for (index, entry) in batch.iter().enumerate() {
                    match reasons.remove(&index) {
                        Some(reason) => self.reject(entry, &reason)?,
                        None => self.acknowledge(std::slice::from_ref(entry)),
                    }
                }
            }
            Err(SinkError::Conflict { index, stored }) => {
                let Some(entry) = batch.get(index) else {
                    return Err(Halt::Sink(SinkError::Conflict { index, stored }));
                };
                let (chain, head) = (entry.record.chain(), entry.record.head());
                let why = format!(
                    "the store has another record in the place of {head}, with hash {stored}: a log or a store was restored \
                     or cloned"
                );
                self.stop_chain(chain, why);
                let others: Vec<Entry> =
                    batch.iter().filter(|entry| entry.record.chain() != chain).cloned().collect();
                self.deliver(&others)?;
            }
            Err(failed @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) => {
                return Err(Halt::Sink(failed));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, batch: &[Entry]) {
        self.healed();
        self.refused_in_a_row = 0;
        for entry in batch {
            self.passed(entry);
        }
        let mut state = self.shared.lock();
        state.stats.batches += 1;
        state.stats.records += batch.len() as u64;
        state.stats.bytes += batch.iter().map(|entry| entry.record.as_json().len() as u64 + 1).sum::<u64>();
    }

    /// Nothing more is to be done for a record.
    fn passed(&mut self, entry: &Entry) {
        let known = self.known.chains.entry(Arc::clone(&entry.chain_id)).or_default();
        known.last = Some(entry.record.head());
        self.is_dirty = true;
    }

    fn reject(&mut self, entry: &Entry, reason: &str) -> Result<(), Halt> {
        self.refused_in_a_row += 1;
        if self.refused_in_a_row > REFUSALS && !self.takes_another(entry) {
            let reason = format!("the store refuses every record: {reason}");
            return Err(Halt::Sink(SinkError::Setup { reason }));
        }
        let head = entry.record.head();
        let chain_id = entry.chain_id.to_string();
        self.files.reject(&Refusal { record: head, chain_id, reason: reason.to_owned() })?;
        self.passed(entry);
        if let Some(known) = self.known.chains.get_mut(&entry.chain_id) {
            known.refused = Some(known.refused.map_or(head.seq(), |first| first.min(head.seq())));
        }
        self.write()?;
        self.shared.lock().stats.rejected += 1;
        let message = format!(
            "the store refused record {head}: {reason}; it is named in {}",
            self.files.rejected().display()
        );
        self.tell(NoticeKind::Rejected, message);
        Ok(())
    }

    /// Whether the store takes the newest record of the batch: then it is a matter of what is in the others.
    fn takes_another(&mut self, entry: &Entry) -> bool {
        let newest = self.newest.take().filter(|newest| newest.record.head() != entry.record.head());
        let is_taken = newest.is_some_and(|newest| self.sink.offer(&[newest]).is_ok());
        if is_taken {
            self.refused_in_a_row = 0;
        }
        is_taken
    }

    /// Writes the position where a crash would make much be sent again, or twice. Not more often than that: its syncs are
    /// on the disk of the log.
    fn write_now_and_then(&mut self) -> Result<(), Error> {
        if self.is_dirty && (!self.is_askable || self.written.elapsed() >= WRITE_AFTER) {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        if self.is_dirty {
            self.files.write(&self.known)?;
            self.is_dirty = false;
            self.written = Instant::now();
        }
        Ok(())
    }

    /// Everything that was durable at the last look has been dealt with.
    fn caught_up(&mut self, asked: u64) -> Result<(), Error> {
        if self.is_askable {
            self.healed();
        }
        let is_asked = self.shared.lock().drains_done < asked;
        if is_asked {
            self.write()?;
        } else {
            self.write_now_and_then()?;
        }
        self.measure_lag(false);
        let mut state = self.shared.lock();
        state.stats.lag = Duration::ZERO;
        state.drains_done = state.drains_done.max(asked);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn measure_lag(&mut self, is_behind: bool) {
        let is_due = self.lag_measured.is_none_or(|at| at.elapsed() >= LOOK);
        if is_behind && !is_due {
            return;
        }
        let (records, bytes) = if is_behind || self.is_in_trouble {
            self.lag_measured = Some(Instant::now());
            let head = self.heads.as_mut().map(HeadWatch::head);
            lag::measure(&self.dir, &self.known, &self.ids, head)
        } else {
            (0, 0)
        };
        let mut state = self.shared.lock();
        (state.stats.lag_records, state.stats.lag_bytes) = (records, bytes);
    }

    /// Waits for more.
    fn rest(&mut self) {
        if let Some(heads) = &mut self.heads {
            heads.arm();
        }
        let asked = self.shared.lock().drains_done;
        self.shared.wait(LOOK, |state| state.is_stopped || state.drains_asked > asked || state.is_woken);
        self.shared.lock().is_woken = false;
    }

    fn rest_after(&mut self, halt: Halt) {
        let (kind, state, reason, retry_after) = match halt {
            Halt::Stopped | Halt::AskAgain => return,
            Halt::Sink(SinkError::Unavailable { reason, retry_after }) => {
                (NoticeKind::Unavailable, State::Unavailable, reason, retry_after)
            }
            Halt::Sink(error) => (NoticeKind::Setup, State::Setup, error.to_string(), None),
            Halt::Local(error) => (NoticeKind::Io, State::Unavailable, said(&error), None),
        };
        self.trouble(kind, state, &reason);
        self.is_in_trouble = true;
        self.measure_lag(true);
        let pause = self.pauses.next(state == State::Setup, retry_after);
        self.shared.wait(pause, |state| state.is_stopped);
    }

    fn trouble(&mut self, kind: NoticeKind, state: State, reason: &str) {
        let is_known = {
            let mut inner = self.shared.lock();
            inner.stats.failures += 1;
            inner.stats.trouble.replace(reason.to_owned()).is_some_and(|known| known == reason)
        };
        self.enter(state);
        let is_told = is_known || self.is_in_trouble && kind == NoticeKind::Unavailable;
        if !is_told {
            self.tell(kind, format!("cannot forward to {}: {reason}; it is tried again", self.files.name));
        }
    }

    fn healed(&mut self) {
        self.pauses = Pauses::default();
        if std::mem::take(&mut self.is_in_trouble) {
            self.shared.lock().stats.trouble = None;
            self.tell(NoticeKind::Healed, format!("{} answers again", self.files.name));
        }
    }

    fn stop_chain(&mut self, chain: u16, why: String) {
        let message = format!("chain {chain:03} is not forwarded any more: {why}");
        self.shared.lock().stats.stopped.insert(chain, why);
        self.tell(NoticeKind::ChainStopped, message);
    }

    fn is_stopped_chain(&self, chain: u16) -> bool {
        self.shared.lock().stats.stopped.contains_key(&chain)
    }

    fn is_stopped(&self) -> bool {
        self.shared.lock().is_stopped
    }

    /// Says whether that is another state.
    fn enter(&self, state: State) -> bool {
        std::mem::replace(&mut self.shared.lock().stats.state, state) != state
    }

    fn tell(&self, kind: NoticeKind, message: String) {
        if let Some(tell) = &self.settings.on_notice {
            tell(Notice { kind, message });
        }
    }
}

/// Whether all records of a chain behind one, up to another, were refused.
fn is_all_refused(refused: &BTreeSet<Head>, chain: u16, behind: u64, last: u64) -> bool {
    let known =
        refused.iter().filter(|head| head.chain() == chain && (behind + 1..=last).contains(&head.seq()));
    behind < last && known.count() as u64 == last - behind
}

/// An error and what is behind it.
fn said(error: &Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// The chain that an error shows to be damaged.
fn damaged_chain(error: &tracing_audit::Error) -> Option<u16> {
    match error {
        tracing_audit::Error::BadLine { path, .. } => segment(path.file_name()?.to_str()?),
        tracing_audit::Error::NoSuchRecord { head, .. } => Some(head.chain()),
        _ => None,
    }
}

fn age_of(batch: &[Entry]) -> Duration {
    let oldest = batch.iter().filter_map(|entry| entry.record.time()).min();
    oldest.and_then(|oldest| SystemTime::now().duration_since(oldest).ok()).unwrap_or_default()
}
