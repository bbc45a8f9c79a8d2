//! What is wrong with a fleet, judged from what is known and the current time.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    chain::{CollectedChain, FaultKind},
    held::Held,
    log::Log,
};
use crate::origin::Origin;

/// How long a record that another chain names may be in transit.
const IN_TRANSIT: Duration = Duration::from_secs(30);

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alarm {
    /// The kind.
    pub kind: AlarmKind,
    /// The log, as `service/host`; `None` if the alarm is about the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The id of the chain, if the alarm is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AlarmKind {
    /// Two records arrived under one number: the log was restored, cloned or rewritten.
    Forked,
    /// A line does not fit into its chain, or the copy of a chain is damaged or lacks a record that arrived again.
    Altered,
    /// The forwarder of a log does not forward a chain: the log was truncated or rewound, is damaged, or
    /// cannot be read.
    Stopped,
    /// Records, a chain or a log are known to exist and did not arrive.
    Missing,
    /// A log that was not closed has become silent: neither records nor heartbeats of its forwarder arrive.
    Silent,
    /// The stream cannot be read, or the collector is behind it.
    Behind,
}

impl AlarmKind {
    /// Every value, in the order of declaration. A later version may add values.
    pub const ALL: &'static [Self] =
        &[Self::Forked, Self::Altered, Self::Stopped, Self::Missing, Self::Silent, Self::Behind];

    /// Returns the stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forked => "forked",
            Self::Altered => "altered",
            Self::Stopped => "stopped",
            Self::Missing => "missing",
            Self::Silent => "silent",
            Self::Behind => "behind",
        }
    }

    /// Returns whether evidence is in doubt, rather than only late.
    #[must_use]
    pub const fn is_about_evidence(self) -> bool {
        !matches!(self, Self::Silent | Self::Behind)
    }
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Alarm {
    /// Creates an alarm about the stream, or the collector itself.
    #[must_use]
    pub const fn new(kind: AlarmKind, message: String) -> Self {
        Self { kind, origin: None, chain_id: None, message }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind)?;
        match (&self.origin, &self.chain_id) {
            (Some(origin), Some(chain_id)) => write!(f, "{origin} chain {chain_id}: ")?,
            (Some(origin), None) => write!(f, "{origin}: ")?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

/// What alarms are judged from.
pub(super) struct Known<'a> {
    pub(super) logs: &'a HashMap<Origin, Log>,
    pub(super) expected: &'a [Origin],
    /// Since when the stream has been read without interruption and without a large backlog. `None` if that
    /// is not so now: then no log is blamed for what did not arrive.
    pub(super) listening_since: Option<Instant>,
    /// Whether this run takes what the stream has once, and then ends.
    pub(super) is_once: bool,
    pub(super) silent_after: Duration,
    pub(super) now: Instant,
    pub(super) now_ms: u64,
}

impl Known<'_> {
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        for log in self.logs.values() {
            for held in log.chains.values() {
                self.of_chain(log, &held.row, &mut alarms);
            }
            self.of_log(log, &mut alarms);
        }
        self.absent(&mut alarms);
        alarms.sort();
        alarms
    }

    /// Returns how long the stream has been read since then, at least.
    fn listened_since(&self, at: Instant) -> Option<Duration> {
        Some(self.now.saturating_duration_since(at.max(self.listening_since?)))
    }

    fn of_chain(&self, log: &Log, chain: &CollectedChain, alarms: &mut Vec<Alarm>) {
        let mut raise = |kind, message| {
            let (origin, chain_id) = (Some(log.name.clone()), Some(chain.chain_id.clone()));
            alarms.push(Alarm { kind, origin, chain_id, message });
        };
        if let Some(fault) = &chain.fault {
            let kind = match fault.kind {
                FaultKind::Forked => AlarmKind::Forked,
                FaultKind::Altered => AlarmKind::Altered,
            };
            let message = format!(
                "record {}, message {} of the stream: {}; verify the log on its host with the heads that were collected",
                fault.seq, fault.place, fault.what
            );
            raise(kind, message);
        }
        if !chain.missing.is_empty() {
            let ranges = listed(&chain.missing);
            raise(AlarmKind::Missing, format!("records {ranges} did not arrive; look for them on the host"));
        }
        if chain.unplaced > 0 {
            let message = format!(
                "{} records arrived from the middle of a segment, and are not collected; forward the log from its start",
                chain.unplaced
            );
            raise(AlarmKind::Missing, message);
        }
        let unexplained = chain.unexplained_gaps();
        if !unexplained.is_empty() && self.is_late(chain.gap_ms.max(chain.received_ms)) {
            let message = format!(
                "its forwarder says that retention removed records {}, but the log does not say so; look for them on the host",
                listed(&unexplained)
            );
            raise(AlarmKind::Missing, message);
        }
        if let Some(witness) = &chain.witnessed
            && self.is_late(witness.at_ms)
        {
            let message = format!(
                "another chain of the log names record {}, and only {} arrived; verify the log on its host",
                witness.seq, chain.seq
            );
            raise(AlarmKind::Missing, message);
        }
    }

    /// Returns whether something announced at that time should have arrived by now.
    fn is_late(&self, announced_ms: u64) -> bool {
        let since_then = Duration::from_millis(self.now_ms.saturating_sub(announced_ms));
        let listening = self.listening_since.map(|since| self.now.saturating_duration_since(since));
        since_then > IN_TRANSIT && (self.is_once || listening.is_some_and(|time| time > IN_TRANSIT))
    }

    fn of_log(&self, log: &Log, alarms: &mut Vec<Alarm>) {
        let mut raise = |kind, chain_id: Option<&str>, message| {
            let (origin, chain_id) = (Some(log.name.clone()), chain_id.map(str::to_owned));
            alarms.push(Alarm { kind, origin, chain_id, message });
        };
        // Also chains of which nothing ever arrived.
        for (id, why) in &log.row.left_out {
            raise(AlarmKind::Stopped, Some(id), format!("its forwarder does not forward it: {why}"));
        }
        if let Some(trouble) = &log.row.trouble {
            raise(AlarmKind::Stopped, None, format!("its forwarder cannot send anything: {trouble}"));
        }
        if log.row.is_overfull {
            let message = "it has more chains than a log can have, and the others are not collected; find out who sends them";
            raise(AlarmKind::Missing, None, message.to_owned());
        }
        let is_open = |held: &Held| !held.row.closed && held.row.seq > 0;
        let last_arrival = log.last_arrival.or(self.listening_since);
        let quiet = last_arrival.and_then(|last_arrival| self.listened_since(last_arrival));
        if !self.is_once
            && log.chains.values().any(is_open)
            && quiet.is_some_and(|quiet| quiet > self.silent_after)
        {
            let message = "it was not closed, and neither a record nor a heartbeat arrived; look at the host and its forwarder";
            raise(AlarmKind::Silent, None, message.to_owned());
        }
    }

    /// Adds an alarm for each expected log of which nothing ever arrived.
    fn absent(&self, alarms: &mut Vec<Alarm>) {
        let has_waited = self.is_once
            || self
                .listening_since
                .is_some_and(|since| self.now.saturating_duration_since(since) > self.silent_after);
        if !has_waited {
            return;
        }
        let has_arrived = |origin: &Origin| {
            self.logs.get(origin).is_some_and(|log| log.chains.values().any(|held| held.row.seq > 0))
        };
        for origin in self.expected.iter().filter(|origin| !has_arrived(origin)) {
            let message =
                "it is expected, and no record of it ever arrived; look at the host and its forwarder"
                    .to_owned();
            let origin = Some(origin.to_string());
            alarms.push(Alarm { kind: AlarmKind::Missing, origin, chain_id: None, message });
        }
    }
}

fn listed(ranges: &[(u64, u64)]) -> String {
    let ranges: Vec<String> = ranges.iter().map(|(first, last)| format!("{first} to {last}")).collect();
    ranges.join(", ")
}
