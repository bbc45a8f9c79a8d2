//! What is wrong with a fleet: judged from what is known, and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::chain::{CollectedChain, FaultKind};
use crate::origin::Origin;

/// How long a record that another chain names may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alarm {
    /// What it is.
    pub kind: AlarmKind,
    /// The log, as `service/host`; `None` where it is about the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The id of the chain, where it is about one.
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
    /// Two records came under one number: the log was restored, cloned or written anew.
    Forked,
    /// A line is not what its hash says, or does not link to the one before.
    Altered,
    /// The forwarder of a log does not forward a chain: the log was cut or rewound, is damaged, or cannot be read.
    Stopped,
    /// Records, a chain or a log are known to be there and did not come.
    Missing,
    /// A log that was not closed says nothing any more, and its forwarder gives no sign of life.
    Silent,
    /// The stream cannot be read, or the collector is behind it.
    Behind,
}

impl AlarmKind {
    /// Every value, in the order of declaration. A later version may add some.
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

    /// Whether evidence is in doubt, and not only late.
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
    /// An alarm about the stream, or the collector itself.
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
    pub(super) chains: Vec<&'a CollectedChain>,
    /// When each log was heard of last, or when the collector began to listen, if that was later.
    pub(super) heard_ms: &'a BTreeMap<String, u64>,
    pub(super) left_out: &'a BTreeMap<String, BTreeMap<String, String>>,
    pub(super) expected: &'a [Origin],
    pub(super) listening_since_ms: u64,
    pub(super) silent_after: Duration,
    pub(super) now_ms: u64,
}

impl Known<'_> {
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        for chain in &self.chains {
            self.of_chain(chain, &mut alarms);
        }
        self.silent(&mut alarms);
        alarms.sort();
        alarms
    }

    fn of_chain(&self, chain: &CollectedChain, alarms: &mut Vec<Alarm>) {
        let origin = origin_of(chain);
        let mut raise = |kind, message| {
            let (origin, chain_id) = (Some(origin.clone()), Some(chain.chain_id.clone()));
            alarms.push(Alarm { kind, origin, chain_id, message });
        };
        if let Some(fault) = &chain.fault {
            let kind = match fault.kind {
                FaultKind::Forked => AlarmKind::Forked,
                FaultKind::Altered => AlarmKind::Altered,
            };
            raise(
                kind,
                format!(
                    "record {}, message {} of the stream: {}; verify the log on its host with the heads that were collected",
                    fault.seq, fault.place, fault.what
                ),
            );
        }
        if let Some(why) = self.left_out.get(&origin).and_then(|chains| chains.get(&chain.chain_id)) {
            raise(AlarmKind::Stopped, format!("its forwarder does not forward it: {why}"));
        }
        if !chain.missing.is_empty() {
            let ranges: Vec<String> =
                chain.missing.iter().map(|(first, last)| format!("{first} to {last}")).collect();
            raise(
                AlarmKind::Missing,
                format!("records {} are not in the stream; look for them on the host", ranges.join(", ")),
            );
        }
        if let Some(witness) = &chain.witnessed
            && self.has_passed(witness.at_ms, ON_ITS_WAY)
        {
            let (has, seq) = (chain.seq, witness.seq);
            raise(
                AlarmKind::Missing,
                format!(
                    "another chain of the log says that it has record {seq}, and only {has} came; verify the log on its host"
                ),
            );
        }
    }

    /// Logs that say nothing, and expected ones that never did.
    fn silent(&self, alarms: &mut Vec<Alarm>) {
        let mut open = BTreeSet::new();
        let mut known = BTreeSet::new();
        for chain in &self.chains {
            let origin = origin_of(chain);
            if !chain.closed && chain.seq > 0 {
                open.insert(origin.clone());
            }
            known.insert(origin);
        }
        let mut raise = |kind, origin: &str, message| {
            alarms.push(Alarm { kind, origin: Some(origin.to_owned()), chain_id: None, message });
        };
        for origin in &open {
            let heard = self.heard_ms.get(origin).copied().unwrap_or(0).max(self.listening_since_ms);
            if self.has_passed(heard, self.silent_after) {
                raise(
                    AlarmKind::Silent,
                    origin,
                    "it was not closed, and neither a record nor a sign of life came; look at the host and its forwarder"
                        .to_owned(),
                );
            }
        }
        for origin in self.expected.iter().map(ToString::to_string).filter(|origin| !known.contains(origin)) {
            if self.has_passed(self.listening_since_ms, self.silent_after) {
                let what =
                    "it is expected, and no record of it ever came; look at the host and its forwarder";
                raise(AlarmKind::Missing, &origin, what.to_owned());
            }
        }
    }

    fn has_passed(&self, since_ms: u64, time: Duration) -> bool {
        u128::from(self.now_ms.saturating_sub(since_ms)) > time.as_millis()
    }
}

/// The log of a chain, as `service/host`.
pub(super) fn origin_of(chain: &CollectedChain) -> String {
    chain.origin().map_or_else(|| format!("{}/{}", chain.service, chain.host), |origin| origin.to_string())
}
