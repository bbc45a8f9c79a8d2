//! The thread of a forwarder: reads what is durable, offers it, and records what was acknowledged.
//!
//! It connects, forwards until something fails, pauses, and connects again. Each time it asks the store what
//! it has and begins there, so it needs no knowledge of what happened in between.

mod collect;
mod connect;
mod deliver;
mod progress;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing_audit::AuditLog;

use collect::Reading;
use progress::Progress;

use crate::{
    dead::{Dead, segment},
    error::{Error, with_source},
    forwarder::{Builder, Shared},
    heads::HeadWatch,
    kept::Kept,
    lag::{self, Lag},
    pause::Pauses,
    position::Files,
    sink::{Entry, Gap, Pace, Sink, SinkError},
    stats::{Notice, NoticeKind, State, Stats},
};

/// The interval between two looks at an idle log, and between two attempts to take the name.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a store is asked what it has while chains are left out.
const ASK_INTERVAL_LEFT_OUT: Duration = Duration::from_secs(5);

/// Why a connection ended.
enum Halt {
    /// It is time to ask the store what it has.
    AskAgain,
    /// The forwarder was told to end.
    Stopped,
    /// Another forwarder may hold the name.
    NameLost,
    /// A setting is wrong for this log.
    Setting(String),
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

/// The state of the thread.
pub(crate) struct Engine {
    dir: PathBuf,
    progress: Progress,
    sink: Box<dyn Sink>,
    pace: Pace,
    settings: Builder,
    shared: Arc<Shared>,
    heads: Option<HeadWatch>,
    /// The ids of chains, by number.
    ids: BTreeMap<u16, Arc<str>>,
    /// The chains that are left out: those that stopped, and those that cannot be read in this connection.
    left_out: BTreeSet<u16>,
    /// What the sink was last told of them, with the reasons.
    reported_left_out: BTreeMap<Arc<str>, String>,
    refused_in_a_row: u32,
    /// Maximum number of records in one offer. Smaller while some are refused.
    batch_limit: usize,
    /// The record that the store accepted last.
    last_accepted: Option<Entry>,
    pauses: Pauses,
    is_in_trouble: bool,
    lag_measured: Option<Instant>,
    dead: Dead,
    /// Why the chains of dead writers could not be recovered, as last reported.
    dead_trouble: Option<String>,
    is_behind: bool,
    /// The chains that could not be read, with the reason, until they have been read to their ends.
    unreadable: BTreeMap<u16, String>,
    /// The last gap of each chain that was reported.
    reported_gaps: BTreeMap<u16, Gap>,
    /// The lock of the name.
    held: Option<Kept>,
    /// The last drain for which the store was asked what it has.
    drains_asked: u64,
    /// The number of drains requested when the last attempt began.
    drains_seen: u64,
    /// Why the position cannot be written, as last reported.
    position_trouble: Option<String>,
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
        let mut pace = sink.pace();
        pace.batch_records = pace.batch_records.max(1);
        Self {
            dir,
            progress: Progress::new(files),
            sink,
            pace,
            settings,
            shared,
            heads,
            ids: BTreeMap::new(),
            left_out: BTreeSet::new(),
            reported_left_out: BTreeMap::new(),
            refused_in_a_row: 0,
            batch_limit: pace.batch_records,
            last_accepted: None,
            pauses: Pauses::default(),
            is_in_trouble: false,
            lag_measured: None,
            dead: Dead::default(),
            dead_trouble: None,
            is_behind: false,
            unreadable: BTreeMap::new(),
            reported_gaps: BTreeMap::new(),
            held: None,
            drains_asked: 0,
            drains_seen: 0,
            position_trouble: None,
        }
    }

    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // The sink and the closure for notices are foreign code, which may panic.
        let ran = catch_unwind(AssertUnwindSafe(|| self.run_until_the_end()));
        // Dropping also drops the sink, and the handle of the log.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(self)));
        let mut state = shared.lock();
        state.stats.state = State::Closed;
        if ran.and(dropped).is_err() {
            state.stats.trouble =
                Some("its thread panicked, in the sink or the closure for notices".to_owned());
        }
        drop(state);
        shared.changed.notify_all();
    }

    fn run_until_the_end(&mut self) {
        self.held = self.take_name();
        let mut is_read = false;
        while self.held.is_some() && !self.is_stopped() {
            let halt = match self.read_position(&mut is_read).and_then(|()| self.forward()) {
                Err(Halt::Stopped) | Ok(()) => break,
                Err(Halt::NameLost) => {
                    self.held = self.take_name();
                    is_read = false;
                    continue;
                }
                Err(halt) => halt,
            };
            self.rest_after(halt);
        }
        // Without the name, another forwarder may already have written a newer position.
        if self.has_name()
            && let Err(error) = self.progress.write()
        {
            self.notify(NoticeKind::Io, with_source(&error));
        }
        self.sink.close();
        // The name is released last: the next forwarder must not start while this sink is connected.
        self.held = None;
    }

    /// Calls the sink, and records since when the call has been running.
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Sink) -> T) -> T {
        self.shared.lock().call = Some(Instant::now());
        let answer = call(self.sink.as_mut());
        self.shared.lock().call = None;
        answer
    }

    /// Writes the position. A failure only makes retention wait if the store can be asked: after a crash, its
    /// answer replaces the position. On a full disk, forwarding must continue, because it allows retention to
    /// free space.
    fn write_position(&mut self) -> Result<(), Halt> {
        match self.progress.write() {
            Ok(()) => self.position_trouble = None,
            Err(error) if self.progress.is_askable => {
                let why = with_source(&error);
                if self.position_trouble.as_ref() != Some(&why) {
                    self.notify(NoticeKind::Io, format!("{why}; it is tried again"));
                    self.position_trouble = Some(why);
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn write_position_if_due(&mut self) -> Result<(), Halt> {
        if self.progress.is_due() { self.write_position() } else { Ok(()) }
    }

    /// Waits until no other forwarder holds the name.
    fn take_name(&mut self) -> Option<Kept> {
        loop {
            match self.progress.files.take() {
                Ok(Some(held)) => return Some(held),
                Ok(None) => {
                    if self.enter(State::Waiting) {
                        let name = &self.progress.files.name;
                        let message = format!(
                            "another forwarder named {name} is running; this one waits for it to end"
                        );
                        self.notify(NoticeKind::Waiting, message);
                    }
                }
                Err(error) => {
                    self.trouble(NoticeKind::Io, State::Unavailable, &with_source(&error));
                    self.is_in_trouble = true;
                }
            }
            if self.shared.wait(POLL_INTERVAL, |state| state.is_stopped) {
                return None;
            }
        }
    }

    /// Returns whether no other forwarder can take the name.
    fn has_name(&self) -> bool {
        self.held.as_ref().is_some_and(|held| self.progress.files.is_held_by(held))
    }

    /// Reads the position once: only the holder of the name changes it.
    fn read_position(&mut self, is_read: &mut bool) -> Result<(), Halt> {
        if !*is_read {
            self.progress.read()?;
            *is_read = true;
        }
        Ok(())
    }

    /// Runs one connection: from what the store has, until something fails.
    fn forward(&mut self) -> Result<(), Halt> {
        // Asking the store again while all is well is not a change of state.
        if self.shared.lock().stats.state != State::Forwarding {
            self.enter(State::Connecting);
        }
        self.drains_seen = self.shared.lock().drains_asked;
        let connection = self.connect()?;
        let connected = Instant::now();
        self.enter(State::Forwarding);
        self.report_left_out();
        let Some(mut items) = connection else {
            let asked = self.shared.lock().drains_asked;
            self.caught_up(asked)?;
            self.shared.wait(ASK_INTERVAL_LEFT_OUT, |state| state.is_stopped || state.drains_asked > asked);
            return Err(if self.is_stopped() { Halt::Stopped } else { Halt::AskAgain });
        };
        let (mut ahead, mut waiting) = (None, None);
        loop {
            if self.is_stopped() {
                return Err(Halt::Stopped);
            }
            // Somebody may have removed the lock file, and another forwarder may have taken the name
            // since.
            if !self.has_name() {
                return Err(Halt::NameLost);
            }
            self.report_left_out();
            let reading = ahead.take().unwrap_or_else(|| self.read(&mut items, waiting.take()));
            // Not more often than the sink lingers: waiting records would be offered early.
            let ask_every = if self.left_out.is_empty() {
                self.pace.ask_every
            } else {
                ASK_INTERVAL_LEFT_OUT.max(self.pace.linger)
            };
            if self.lingers(&reading) && connected.elapsed() < ask_every {
                self.measure_lag(true);
                self.rest_for(POLL_INTERVAL.min(self.pace.linger.saturating_sub(reading.waited())));
                waiting = Some(reading);
                continue;
            }
            let (asked, is_all, is_idle) = (reading.drains_asked, reading.is_all(), reading.is_empty());
            ahead = self.handle_reading(reading, &mut items)?;
            self.write_position_if_due()?;
            if connected.elapsed() >= ask_every {
                self.write_position()?;
                return Err(Halt::AskAgain);
            }
            if !is_all {
                self.measure_lag(true);
                continue;
            }
            self.read_to_the_end();
            if self.recover_dead_chains() {
                continue;
            }
            self.caught_up(asked)?;
            if is_idle {
                self.rest();
            }
        }
    }

    /// Returns whether records of a dead writer have become durable.
    fn recover_dead_chains(&mut self) -> bool {
        match self.dead.recover(&self.dir) {
            Ok(is_recovered) => is_recovered,
            // The other chains continue.
            Err(error) => {
                let why = with_source(&error);
                if self.dead_trouble.as_ref() != Some(&why) {
                    let message = format!("cannot recover what a dead writer left: {why}; it is tried again");
                    self.notify(NoticeKind::Io, message);
                    self.dead_trouble = Some(why);
                }
                false
            }
        }
    }

    /// Completes drains once everything that was durable at the last look has been delivered.
    fn caught_up(&mut self, asked: u64) -> Result<(), Halt> {
        if self.progress.is_askable {
            self.healed();
        }
        let is_asked = self.shared.lock().drains_done < asked;
        if is_asked {
            self.write_position()?;
            if self.progress.is_askable && self.progress.is_unasked && self.drains_asked < asked {
                // Only what the store itself reports allows retention to continue, so it is asked before the
                // drain ends. Only once: a log that is being written is never completely forwarded.
                let before = std::mem::replace(&mut self.drains_asked, asked);
                self.drained(before);
                return Err(Halt::AskAgain);
            }
        } else {
            self.write_position_if_due()?;
        }
        self.measure_lag(!self.left_out.is_empty());
        self.drained(asked);
        Ok(())
    }

    /// Completes all drains up to this one.
    fn drained(&self, asked: u64) {
        let mut state = self.shared.lock();
        state.drains_done = state.drains_done.max(asked);
        drop(state);
        self.shared.changed.notify_all();
    }

    fn measure_lag(&mut self, is_behind: bool) {
        let is_due = self.lag_measured.is_none_or(|at| at.elapsed() >= POLL_INTERVAL);
        if is_behind && !is_due {
            return;
        }
        let mut lag = Lag::default();
        if is_behind || self.is_in_trouble {
            self.lag_measured = Some(Instant::now());
            let head = self.heads.as_mut().map(HeadWatch::head);
            lag = lag::measure(&self.dir, &self.progress.known, &self.ids, head);
        }
        self.note_lag(&lag);
    }

    /// Stores the lag, and reports when the store falls behind by more than allowed and when it has caught
    /// up.
    fn note_lag(&mut self, lag: &Lag) {
        let is_behind = lag.age > self.settings.max_lag;
        {
            let mut state = self.shared.lock();
            (state.stats.lag_records, state.stats.lag_bytes) = (lag.records, lag.bytes);
            state.oldest = (lag.records > 0).then(|| (Instant::now(), lag.age));
        }
        let Lag { records, bytes, age } = lag;
        match (std::mem::replace(&mut self.is_behind, is_behind), is_behind) {
            (false, true) => self.notify(
                NoticeKind::Behind,
                format!(
                    "{} is behind by {records} records, {bytes} bytes; the oldest has waited for {} s",
                    self.progress.files.name,
                    age.as_secs()
                ),
            ),
            (true, false) => {
                self.notify(
                    NoticeKind::CaughtUp,
                    format!("{} is no longer behind", self.progress.files.name),
                );
            }
            _ => {}
        }
    }

    /// Returns whether what was read waits for more records to be offered with it.
    fn lingers(&self, reading: &Reading) -> bool {
        let nobody_drains = || {
            let state = self.shared.lock();
            state.drains_asked <= state.drains_done
        };
        !reading.is_empty() && reading.is_all() && reading.waited() < self.pace.linger && nobody_drains()
    }

    /// Reports to the sink which chains are not being forwarded, if that has changed.
    fn report_left_out(&mut self) {
        let of = |ids: &BTreeMap<u16, Arc<str>>, state: &Stats| {
            let whys = state.stopped.iter().chain(&state.unreadable);
            // A chain whose first line cannot be read has no id.
            let id_of = |chain: &u16| ids.get(chain).map_or_else(|| format!("{chain:03}").into(), Arc::clone);
            whys.map(|(chain, why)| (id_of(chain), why.clone())).collect()
        };
        let now: BTreeMap<Arc<str>, String> = of(&self.ids, &self.shared.lock().stats);
        if now != self.reported_left_out {
            self.call(|sink| sink.left_out(&now));
            self.reported_left_out = now;
        }
    }

    /// Waits for more records.
    fn rest(&mut self) {
        self.rest_for(POLL_INTERVAL);
    }

    fn rest_for(&mut self, time: Duration) {
        if let Some(heads) = &mut self.heads {
            heads.arm();
        }
        let asked = self.shared.lock().drains_done;
        self.shared.wait(time, |state| state.is_stopped || state.drains_asked > asked || state.is_woken);
        self.shared.lock().is_woken = false;
    }

    fn rest_after(&mut self, halt: Halt) {
        if matches!(halt, Halt::Sink(_)) {
            // The store may come back with less, so retention must not rely on its earlier answers.
            self.progress.clear_asked_except(&[]);
            // It is written again with the next connection.
            drop(self.progress.write());
        }
        let (kind, state, reason, retry_after) = match halt {
            Halt::Stopped | Halt::NameLost | Halt::AskAgain => return,
            Halt::Sink(SinkError::Unavailable { reason, retry_after }) => {
                (NoticeKind::Unavailable, State::Unavailable, reason, retry_after)
            }
            Halt::Setting(reason) => (NoticeKind::Setup, State::Setup, reason, None),
            Halt::Sink(error) => (NoticeKind::Setup, State::Setup, error.to_string(), None),
            Halt::Local(error) if needs_repair(&error) => {
                (NoticeKind::Setup, State::Setup, with_source(&error), None)
            }
            Halt::Local(error) => (NoticeKind::Io, State::Unavailable, with_source(&error), None),
        };
        self.trouble(kind, state, &reason);
        self.is_in_trouble = true;
        self.measure_lag(true);
        let pause = self.pauses.next(state == State::Setup, retry_after);
        // A caller that drains may know that the store is available again, so the pause ends.
        let seen = self.drains_seen;
        self.shared.wait(pause, |state| state.is_stopped || state.drains_asked > seen);
    }

    fn trouble(&mut self, kind: NoticeKind, state: State, reason: &str) {
        let is_known = {
            let mut inner = self.shared.lock();
            inner.stats.failures += 1;
            inner.stats.trouble.replace(reason.to_owned()).is_some_and(|known| known == reason)
        };
        self.enter(state);
        // An outage is reported once, even if its text changes. Anything else is reported whenever it
        // changes.
        let is_reported = is_known || self.is_in_trouble && kind == NoticeKind::Unavailable;
        if !is_reported {
            self.notify(
                kind,
                format!("cannot forward to {}: {reason}; it is tried again", self.progress.files.name),
            );
        }
    }

    fn healed(&mut self) {
        self.pauses = Pauses::default();
        if std::mem::take(&mut self.is_in_trouble) {
            self.shared.lock().stats.trouble = None;
            self.call(|sink| sink.healed());
            self.notify(NoticeKind::Healed, format!("{} answers again", self.progress.files.name));
        }
    }

    fn stop_chain(&mut self, chain: u16, why: String) {
        self.no_longer_read(chain);
        let message = format!("chain {chain:03} is not forwarded any more: {why}");
        self.shared.lock().stats.stopped.insert(chain, why);
        self.notify(NoticeKind::ChainStopped, message);
    }

    /// Continues without the chain that an error is about. A damaged chain stops until somebody acts; one
    /// that cannot be read is tried again when the store is next asked. Any other error ends the connection.
    fn continue_without(&mut self, error: Error) -> Result<(), Halt> {
        let Some((chain, is_damaged)) = chain_of(&error).filter(|(chain, _)| !self.is_left_out(*chain))
        else {
            return Err(error.into());
        };
        let why = with_source(&error);
        if is_damaged {
            self.stop_chain(chain, why);
        } else {
            self.leave_out(chain, why);
        }
        Ok(())
    }

    /// Stops reading a chain. From here on it is unknown whether what the store has of it is of this log.
    fn no_longer_read(&mut self, chain: u16) {
        self.left_out.insert(chain);
        if let Some(id) = self.ids.get(&chain) {
            self.progress.clear_asked(id);
        }
    }

    /// Continues without a chain that cannot be read, and tries it again with the next connection.
    fn leave_out(&mut self, chain: u16, why: String) {
        self.no_longer_read(chain);
        let message = format!(
            "chain {chain:03} is not forwarded for now: {why}; it is tried again when the store is next asked"
        );
        let known = self.unreadable.insert(chain, why.clone());
        if known.as_ref() != Some(&why) {
            self.notify(NoticeKind::Io, message);
        }
        self.shared.lock().stats.unreadable.insert(chain, why);
    }

    /// Reports the chains that can be read again, once all that are not left out were read to their ends.
    fn read_to_the_end(&mut self) {
        let read: Vec<u16> = self.ids.keys().copied().filter(|chain| !self.is_left_out(*chain)).collect();
        for chain in read {
            if self.unreadable.remove(&chain).is_none() {
                continue;
            }
            self.shared.lock().stats.unreadable.remove(&chain);
            self.notify(NoticeKind::Healed, format!("chain {chain:03} can be read again"));
        }
    }

    fn is_left_out(&self, chain: u16) -> bool {
        self.left_out.contains(&chain)
    }

    fn is_stopped(&self) -> bool {
        self.shared.lock().is_stopped
    }

    /// Sets the state. Returns whether it changed.
    fn enter(&self, state: State) -> bool {
        std::mem::replace(&mut self.shared.lock().stats.state, state) != state
    }

    fn notify(&self, kind: NoticeKind, message: String) {
        if let Some(tell) = &self.settings.on_notice {
            tell(Notice { kind, message });
        }
    }
}

/// Returns whether an error remains until somebody changes something.
fn needs_repair(error: &Error) -> bool {
    matches!(error, Error::BadPosition { .. } | Error::BadRejected { .. })
}

/// Returns the chain that an error is about, and whether the chain is damaged rather than unreadable.
fn chain_of(error: &Error) -> Option<(u16, bool)> {
    let of_file = |path: &Path| segment(path.file_name()?.to_str()?);
    match error {
        Error::Log(tracing_audit::Error::BadLine { path, .. }) => Some((of_file(path)?, true)),
        Error::Log(tracing_audit::Error::NoSuchRecord { head, .. }) => Some((head.chain(), true)),
        Error::Log(error) => Some((of_file(error.path()?)?, false)),
        Error::Io { path, .. } => Some((of_file(path)?, false)),
        _ => None,
    }
}
