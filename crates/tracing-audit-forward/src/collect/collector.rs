//! Takes the records of a fleet from a stream, checks every chain, and keeps a copy of each log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing_audit::ReadItems;

use super::{
    alarm::{Alarm, AlarmKind, Known},
    chain::{CollectedChain, millis},
    directory::{Directory, has_anything},
    feed::Feed,
    held::Written,
    log::Log,
    table::{self, FORMAT, Fleet},
    take::{Now, mark_of},
};
use crate::{
    error::{Error, with_source},
    origin::Origin,
    sink::SinkError,
};

/// How many messages are taken at once, and how long to wait for them.
const BATCH: usize = 5_000;
const WAIT: Duration = Duration::from_millis(500);

/// How often what was taken is synced and recorded in the table, and after how many bytes at the latest.
/// Where a checkpoint takes long, as with 100,000 chains, the interval is this multiple of its duration.
const CHECKPOINT: Duration = Duration::from_secs(2);
const CHECKPOINT_BYTES: usize = 64 << 20;
const CHECKPOINT_SHARE: u32 = 5;

/// After how many bytes the lines are written to the files. Each write opens a file, so many lines per chain
/// and write are better.
const WRITE_BYTES: usize = 16 << 20;

/// How often the table is written if nothing arrives: it shows that the collector runs.
const REST: Duration = Duration::from_secs(15);

/// How often the heads for `verify` are written.
const HEADS: Duration = Duration::from_secs(10);

/// How long a stream that seems to have more may deliver nothing before it is reopened.
const FRUITLESS: Duration = Duration::from_secs(10);

/// How often the fleet is judged.
const JUDGED: Duration = Duration::from_secs(1);

/// Settings of a collector, before it is opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct CollectorBuilder {
    dir: PathBuf,
    silent_after: Duration,
    behind_after: Duration,
    expected: Vec<Origin>,
}

impl CollectorBuilder {
    /// Sets after how long without a record and without a heartbeat a log that was not closed is silent. The
    /// NATS sink sends a heartbeat every 15 seconds. A log whose forwarder sends none writes something at
    /// least every hour, so set more than that. Default: 45 seconds.
    pub const fn silent_after(mut self, time: Duration) -> Self {
        self.silent_after = time;
        self
    }

    /// Sets for how long the stream may fail, or the collector be behind it, before an alarm is raised.
    /// Default: 45 seconds.
    pub const fn behind_after(mut self, time: Duration) -> Self {
        self.behind_after = time;
        self
    }

    /// Expects this log: if none of its records ever arrives, an alarm is raised.
    pub fn expect(mut self, origin: Origin) -> Self {
        self.expected.push(origin);
        self
    }

    /// Opens the directory, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::CollectorRuns`], [`Error::BadTable`] and [`Error::BadCopy`], and [`Error::Io`].
    pub fn open(self) -> Result<Collector, Error> {
        let directory = Directory::open(&self.dir)?;
        let fleet = match table::read(directory.path())? {
            Some(fleet) => fleet,
            None if has_anything(&directory.logs()) => {
                let reason = "there are logs, and `table.json` is not here".to_owned();
                return Err(Error::BadCopy { path: self.dir, reason });
            }
            // Before the first log, so that a crash never leaves a log without a table.
            None => {
                let fleet =
                    Fleet { format: FORMAT, updated_ms: millis(SystemTime::now()), ..Fleet::default() };
                table::write(directory.path(), &fleet)?;
                fleet
            }
        };
        let now = Instant::now();
        let mut collector = Collector {
            directory,
            settings: self,
            fleet: Fleet::default(),
            logs: HashMap::new(),
            owners: HashMap::new(),
            replays: HashMap::new(),
            listening_since: None,
            fruitless_since: None,
            is_connected: false,
            memory_state: MemoryState::AsTable,
            unwritten: 0,
            unsynced: 0,
            written: Written::default(),
            is_changed: false,
            checkpoint: now,
            checkpoint_took: Duration::ZERO,
            changed_logs: BTreeSet::new(),
            heads_written: now,
            in_step_at: now,
            judged: None,
            records: 0,
            repeats: 0,
        };
        collector.begin(fleet)?;
        Ok(collector)
    }
}

/// Takes the records of a fleet from a stream, checks every chain as it arrives, and keeps a copy of each
/// log.
///
/// Its directory contains:
///
/// - `logs/<service>/<host>`: a directory that [`verify`](tracing_audit::verify()) accepts, with the lines of
///   the log, byte for byte;
/// - `heads/<service>/<host>`: the heads for `verify --heads`, to compare with the log on its host;
/// - `table.json`: the table of heads ([`Fleet`]).
///
/// Lines are durable before the table records them, within some two seconds. Whenever the process or the
/// machine stops, the next collector cuts the files to what the table records and continues after its place
/// in the stream. Nothing is lost or duplicated, as long as the stream still has the messages after that
/// place.
///
/// A line that does not follow the one before is not written. It raises an alarm with its place in the
/// stream, which stays until somebody has looked and calls [`settle`]. The other chains continue.
#[derive(Debug)]
pub struct Collector {
    pub(super) directory: Directory,
    settings: CollectorBuilder,
    /// What the table has beside the chains.
    pub(super) fleet: Fleet,
    pub(super) logs: HashMap<Origin, Log>,
    /// The log that a chain first came from.
    pub(super) owners: HashMap<Arc<str>, Origin>,
    /// Readers of chains that a stream delivers again: the next record, and the items from there on.
    pub(super) replays: HashMap<(Origin, Arc<str>), (u64, ReadItems)>,
    listening_since: Option<Instant>,
    /// Since when nothing has arrived although the stream seems to have more.
    fruitless_since: Option<Instant>,
    is_connected: bool,
    pub(super) memory_state: MemoryState,
    /// The bytes that were taken and not yet written, and those written since the last checkpoint.
    pub(super) unwritten: usize,
    unsynced: usize,
    pub(super) written: Written,
    pub(super) is_changed: bool,
    checkpoint: Instant,
    checkpoint_took: Duration,
    pub(super) changed_logs: BTreeSet<String>,
    heads_written: Instant,
    /// When it last had everything that the stream had.
    in_step_at: Instant,
    judged: Option<Instant>,
    pub(super) records: u64,
    pub(super) repeats: u64,
}

/// How the state in memory relates to the table and the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryState {
    /// They are equal.
    AsTable,
    /// More was taken since the last checkpoint.
    Ahead,
    /// A write or a sync failed.
    InDoubt,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The number of messages that were taken.
    pub taken: usize,
    /// Whether there was nothing more in the stream.
    pub is_in_step: bool,
}

impl Collector {
    /// Opens a collector with default settings.
    ///
    /// # Errors
    ///
    /// As [`CollectorBuilder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(dir).open()
    }

    /// Returns the settings of a collector.
    pub fn builder(dir: impl AsRef<Path>) -> CollectorBuilder {
        let moment = Duration::from_secs(45);
        CollectorBuilder {
            dir: dir.as_ref().to_owned(),
            silent_after: moment,
            behind_after: moment,
            expected: Vec::new(),
        }
    }

    /// Takes the next messages, at most some thousands, and waits at most half a second for them. Then it
    /// syncs what is due, and judges the fleet.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`] if the stream cannot be read, [`Error::Io`] if the copy cannot be written. Call it
    /// again after a pause: it continues after what is durable. [`Error::BadCopy`] and [`Error::BadTable`]
    /// need somebody to act.
    pub fn step(&mut self, feed: &mut dyn Feed) -> Result<Step, Error> {
        let step = self.try_step(feed);
        self.note_failure(&step);
        match &step {
            Ok(_) => {
                self.fleet.trouble = None;
                // One batch is always in transit.
                if self.fleet.backlog <= BATCH as u64 {
                    self.in_step_at = Instant::now();
                    self.listening_since.get_or_insert(self.in_step_at);
                } else {
                    self.listening_since = None;
                }
            }
            Err(error) => {
                self.listening_since = None;
                let why = with_source(error);
                self.is_changed |= self.fleet.trouble.as_ref() != Some(&why);
                self.fleet.trouble = Some(why);
            }
        }
        self.take_beats(feed);
        if self.judged.is_none_or(|at| at.elapsed() >= JUDGED) {
            self.judge(false);
        }
        if let Err(Error::Stream { .. }) = step {
            // The alarm is for readers of the table.
            let written = self.checkpoint_if_due();
            self.note_failure(&written);
            written?;
        }
        step
    }

    fn try_step(&mut self, feed: &mut dyn Feed) -> Result<Step, Error> {
        if !self.is_connected {
            // After a failure, only what the table records is certain.
            if self.memory_state != MemoryState::AsTable {
                self.load()?;
            }
            self.connect(feed)?;
            self.is_connected = true;
        }
        let taken = feed.next(BATCH, WAIT).map_err(|source| Error::Stream { source })?;
        let count = taken.len();
        let now = Now { instant: Instant::now(), ms: millis(SystemTime::now()) };
        for message in taken {
            self.take(message, now)?;
        }
        if self.unwritten >= WRITE_BYTES {
            self.write()?;
        }
        self.fleet.backlog = self.fleet.backlog.saturating_sub(count as u64);
        if count == 0 || self.checkpoint.elapsed() >= CHECKPOINT {
            let state = feed.state().map_err(|source| Error::Stream { source })?;
            // The messages in between are gone: purged, expired or deleted.
            let is_at_end = count == 0 && feed.is_at_end();
            self.fleet.backlog = if is_at_end { 0 } else { state.last.saturating_sub(self.fleet.place) };
            // A stream can also be replaced while it is being read.
            if state.identity != self.fleet.stream || state.last < self.fleet.place {
                let reason = "the stream is another one, or lost messages; it is read again".to_owned();
                return Err(Error::Stream { source: SinkError::Unavailable { reason, retry_after: None } });
            }
        }
        self.checkpoint_if_due()?;
        if count > 0 || self.fleet.backlog == 0 {
            self.fruitless_since = None;
        } else if self.fruitless_since.get_or_insert_with(Instant::now).elapsed() > FRUITLESS {
            // Reopened, the stream reports how much it still has.
            (self.is_connected, self.fruitless_since) = (false, None);
        }
        Ok(Step { taken: count, is_in_step: count == 0 && self.fleet.backlog == 0 })
    }

    /// Takes everything that the stream has now, and makes it durable.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn catch_up(&mut self, feed: &mut dyn Feed) -> Result<(), Error> {
        let last = feed.state().map_err(|source| Error::Stream { source })?.last;
        // Bounded by the end at the beginning, because a busy stream never ends.
        while !self.step(feed)?.is_in_step && self.fleet.place < last {}
        // Silence can only be judged by a collector that keeps running.
        self.flush_once(true)
    }

    /// Makes everything that was taken durable, with the table and the heads.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.flush_once(false)
    }

    fn flush_once(&mut self, is_once: bool) -> Result<(), Error> {
        if self.memory_state == MemoryState::InDoubt {
            self.load()?;
        }
        self.judge(is_once);
        let written = self.write_checkpoint().and_then(|()| self.write_heads());
        self.note_failure(&written);
        written
    }

    /// Notes a failed write or sync. The files may or may not have the bytes: only what the table records is
    /// certain.
    fn note_failure<T>(&mut self, done: &Result<T, Error>) {
        if done.is_err() {
            self.is_connected = false;
            if !matches!(done, Err(Error::Stream { .. })) {
                self.memory_state = MemoryState::InDoubt;
            }
        }
    }

    /// Returns the current alarms.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.fleet.alarms
    }

    /// Returns how many records were written since it was opened, and how many arrived that were here
    /// already.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.records, self.repeats)
    }

    /// Returns the current table. The one on disk is up to some seconds behind.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        let held = self.logs.values().flat_map(|log| log.chains.values());
        let mut chains: Vec<CollectedChain> = held.map(|held| held.row.clone()).collect();
        chains.sort_by(|one, other| key_of(one).cmp(&key_of(other)));
        let logs = self.logs.values().map(|log| (log.name.clone(), log.row.clone())).collect();
        Fleet { format: FORMAT, updated_ms: millis(SystemTime::now()), logs, chains, ..self.fleet.clone() }
    }

    /// Loads the table again.
    fn load(&mut self) -> Result<(), Error> {
        self.begin(table::read(self.directory.path())?.unwrap_or_default())
    }

    /// Starts from a table. A chain whose file has less than the table records is left out and reported; the
    /// others continue.
    fn begin(&mut self, fleet: Fleet) -> Result<(), Error> {
        let path = self.directory.path();
        let mut logs: HashMap<Origin, Log> = HashMap::new();
        // What arrived last is not in the table, or is older there.
        for (origin, mut log) in self.logs.drain() {
            log.forget_chains();
            logs.insert(origin, log);
        }
        self.owners.clear();
        self.replays.clear();
        let mut place = fleet.place;
        for row in &fleet.chains {
            let no_origin = || Error::BadTable {
                path: path.join("table.json"),
                reason: format!("{}/{} is not a name of a log", row.service, row.host),
            };
            let origin = row.origin().ok_or_else(no_origin)?;
            let damage = self.directory.surplus(row)?.err();
            let log = logs.entry(origin.clone()).or_insert_with(|| Log::new(origin.clone()));
            if log.last_arrival.is_none()
                && let Some(row) = fleet.logs.get(&log.name)
            {
                log.row.clone_from(row);
            }
            self.owners.entry(row.chain_id.as_str().into()).or_insert_with(|| origin.clone());
            self.changed_logs.extend(row.log.clone());
            let mut row = row.clone();
            if damage.is_none() && row.untaken > 0 {
                // The file is back: the messages since are read again, and records that are here already are
                // compared.
                place = place.min(row.untaken - 1);
                row.untaken = 0;
            }
            log.restore(row, damage);
        }
        self.logs = logs;
        let trouble = self.fleet.trouble.take();
        let last = fleet.last.filter(|_| place == fleet.place);
        self.fleet = Fleet { trouble, chains: Vec::new(), logs: BTreeMap::new(), place, last, ..fleet };
        (self.unwritten, self.unsynced, self.written) = (0, 0, Written::default());
        self.memory_state = MemoryState::AsTable;
        Ok(())
    }

    /// Cuts the files to what the table records.
    fn cut(&self, is_in_stream: bool) -> Result<(), Error> {
        let chains = self.logs.values().flat_map(|log| log.chains.values());
        for held in chains.filter(|held| !held.is_damaged) {
            if self.directory.surplus(&held.row)?.is_ok_and(|surplus| surplus > 0) {
                self.directory.cut(&held.row, is_in_stream)?;
            }
        }
        Ok(())
    }

    /// Continues in the stream after what is here, if it is still the same stream there; else with its first
    /// message.
    fn connect(&mut self, feed: &mut dyn Feed) -> Result<(), Error> {
        let failed = |source| Error::Stream { source };
        let state = feed.state().map_err(failed)?;
        let place = self.fleet.place;
        let is_same = state.identity == self.fleet.stream && state.last >= place;
        let is_known = match (is_same, &self.fleet.last) {
            (false, _) => false,
            (true, Some(mark)) if place > 0 && state.first <= place => {
                feed.start(place).map_err(failed)?;
                let found = feed.next(1, Duration::from_secs(5)).map_err(failed)?;
                // If that message is gone, a later one is delivered, and there is nothing to compare: the stream
                // counts as the same.
                found.first().is_some_and(|found| found.place > place || mark_of(&found.what) == *mark)
            }
            (true, _) => true,
        };
        self.cut(is_known && state.first <= place + 1)?;
        if is_known {
            return feed.start(place + 1).map_err(failed);
        }
        self.fleet.stream = state.identity;
        (self.fleet.place, self.fleet.last) = (0, None);
        self.is_changed = true;
        feed.start(state.first).map_err(failed)
    }

    /// Writes the lines that were taken to the files.
    fn write(&mut self) -> Result<(), Error> {
        self.unsynced += std::mem::take(&mut self.unwritten);
        let mut chains = self.logs.values_mut().flat_map(|log| log.chains.values_mut());
        chains.try_for_each(|held| held.write(&self.directory, &mut self.written))
    }

    fn checkpoint_if_due(&mut self) -> Result<(), Error> {
        let interval = CHECKPOINT.max(self.checkpoint_took * CHECKPOINT_SHARE);
        let is_due =
            self.checkpoint.elapsed() >= interval || self.unsynced + self.unwritten >= CHECKPOINT_BYTES;
        if is_due && self.is_changed || self.checkpoint.elapsed() >= REST {
            self.write_checkpoint()?;
        }
        if self.heads_written.elapsed() >= HEADS {
            self.write_heads()?;
        }
        Ok(())
    }

    /// Syncs the files, then writes the table, so that it has only what is durable.
    fn write_checkpoint(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        self.write()?;
        self.directory.sync(&self.written.all, &self.written.begun)?;
        self.written = Written::default();
        table::write(self.directory.path(), &self.fleet())?;
        (self.checkpoint, self.checkpoint_took) = (Instant::now(), begun.elapsed());
        (self.unsynced, self.is_changed) = (0, false);
        Ok(())
    }

    fn write_heads(&mut self) -> Result<(), Error> {
        self.heads_written = Instant::now();
        if self.changed_logs.is_empty() {
            return Ok(());
        }
        let mut logs: BTreeMap<&str, Vec<&CollectedChain>> = BTreeMap::new();
        for chain in self.logs.values().flat_map(|log| log.chains.values()).map(|held| &held.row) {
            if let Some(log) = chain.log.as_deref().filter(|log| self.changed_logs.contains(*log)) {
                logs.entry(log).or_default().push(chain);
            }
        }
        for (log, mut chains) in logs {
            chains.sort_by_key(|chain| key_of(chain));
            self.directory.write_heads(log, &chains)?;
        }
        self.changed_logs.clear();
        Ok(())
    }

    /// Takes over heartbeats, of logs that are known or expected.
    fn take_beats(&mut self, feed: &mut dyn Feed) {
        let (now, now_ms) = (Instant::now(), millis(SystemTime::now()));
        for beat in feed.beats() {
            if self.settings.expected.contains(&beat.origin) && !self.logs.contains_key(&beat.origin) {
                self.logs.insert(beat.origin.clone(), Log::new(beat.origin.clone()));
            }
            // Otherwise anybody could add logs to the table permanently.
            let Some(log) = self.logs.get_mut(&beat.origin) else { continue };
            log.note_arrival(now, now_ms);
            let left_out: BTreeMap<String, String> =
                beat.left_out.into_iter().map(|(id, why)| (id.to_string(), why)).collect();
            // The time alone is written with the next change, so that an idle fleet writes little.
            self.is_changed |= log.row.left_out != left_out || log.row.trouble != beat.trouble;
            (log.row.left_out, log.row.trouble) = (left_out, beat.trouble);
        }
    }

    fn judge(&mut self, is_once: bool) {
        let now = Instant::now();
        self.judged = Some(now);
        let known = Known {
            logs: &self.logs,
            expected: &self.settings.expected,
            listening_since: self.listening_since,
            is_once,
            silent_after: self.settings.silent_after,
            now,
            now_ms: millis(SystemTime::now()),
        };
        let mut alarms = known.alarms();
        let behind = self.in_step_at.elapsed();
        if behind > self.settings.behind_after {
            let message = match &self.fleet.trouble {
                Some(trouble) => format!("the stream was not read for {} s: {trouble}", behind.as_secs()),
                None => format!("the collector is {} messages behind the stream", self.fleet.backlog),
            };
            alarms.push(Alarm::new(AlarmKind::Behind, message));
        }
        if alarms != self.fleet.alarms {
            self.fleet.alarms = alarms;
            self.is_changed = true;
        }
    }
}

fn key_of(chain: &CollectedChain) -> (&str, &str, Option<u16>, &str) {
    (&chain.service, &chain.host, chain.chain, &chain.chain_id)
}

/// Clears the alarms that do not end by themselves: faults and missing records, of one chain, or of all with
/// `None`. Returns how many chains had any.
///
/// # Errors
///
/// [`Error::CollectorRuns`]: end the collector first. Otherwise as [`CollectorBuilder::open`].
pub fn settle(dir: impl AsRef<Path>, chain_id: Option<&str>) -> Result<usize, Error> {
    let mut collector = Collector::open(dir)?;
    let is_meant = |row: &CollectedChain| chain_id.is_none_or(|id| id == row.chain_id) && row.has_alarm();
    let chains = collector.logs.values_mut().flat_map(|log| log.chains.values_mut());
    let mut settled = 0;
    for held in chains.filter(|held| is_meant(&held.row)) {
        held.row.settle();
        settled += 1;
    }
    for log in collector.logs.values_mut().filter(|_| chain_id.is_none()) {
        log.row.is_overfull = false;
    }
    collector.flush()?;
    Ok(settled)
}

/// Stops expecting anything of a log, so that it is no longer silent. If records arrive all the same, they
/// are collected, and the log is expected again. Returns how many of its chains were not closed.
///
/// # Errors
///
/// As [`settle`].
pub fn retire(dir: impl AsRef<Path>, origin: &Origin) -> Result<usize, Error> {
    let mut collector = Collector::open(dir)?;
    let chains = collector.logs.get_mut(origin).into_iter().flat_map(|log| log.chains.values_mut());
    let mut retired = 0;
    for held in chains.filter(|held| !held.row.closed) {
        held.row.closed = true;
        retired += 1;
    }
    collector.flush()?;
    Ok(retired)
}
