//! The statistics and notices of a forwarder.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Counters since the forwarder was started, and its current state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The current state.
    pub state: State,
    /// Records that the store acknowledged.
    pub records: u64,
    /// Bytes of these records, line feeds included.
    pub bytes: u64,
    /// Batches that the store acknowledged.
    pub batches: u64,
    /// Calls of the sink that failed and are repeated, and other failures after which the forwarder pauses.
    pub failures: u64,
    /// Records that the store refused because of their content.
    pub rejections: u64,
    /// Records on the list of refused ones now, also from before this start: neither offered again nor given
    /// up.
    pub rejected: u64,
    /// Records that retention removed before they could be offered.
    pub missed: u64,
    /// How often the store had less than it had acknowledged.
    pub losses: u64,
    /// Chains that are not forwarded any more until somebody acts, with the reason, by number.
    pub stopped: BTreeMap<u16, String>,
    /// Chains whose files cannot be read now, with the reason, by number. They are tried again when the
    /// store is next asked; the others continue.
    pub unreadable: BTreeMap<u16, String>,
    /// Durable records that the store has not acknowledged, as last measured: up to a second ago, or before
    /// the current call of the sink or the current pause.
    pub lag_records: u64,
    /// Bytes of the log after what the store has acknowledged, as measured at the same time.
    pub lag_bytes: u64,
    /// Current age of the oldest durable record that the store had not acknowledged when last measured.
    pub lag: Duration,
    /// Whether a record, or a call of the sink, has waited for longer than [`max_lag`](crate::Builder::max_lag).
    pub is_behind: bool,
    /// The last failure, while it lasts.
    pub trouble: Option<String>,
}

/// What a forwarder is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// Another forwarder of this name runs: this one waits for it to end.
    Waiting,
    /// The forwarder asks the store what it has.
    #[default]
    Connecting,
    /// Records are being forwarded, or the forwarder waits for more.
    Forwarding,
    /// The store does not answer, or asks to be tried later; or a file of the log or of the forwarder cannot be
    /// read or written.
    Unavailable,
    /// Somebody has to change something: credentials, a schema, a certificate.
    Setup,
    /// The forwarder has ended.
    Closed,
}

impl State {
    /// Every value, in the order of declaration. A later version may add values.
    pub const ALL: &'static [Self] =
        &[Self::Waiting, Self::Connecting, Self::Forwarding, Self::Unavailable, Self::Setup, Self::Closed];

    /// Returns the stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Forwarding => "forwarding",
            Self::Unavailable => "unavailable",
            Self::Setup => "setup",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Stats {
    /// Returns whether all records of all chains reach the store in time.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let are_all_whole = self.stopped.is_empty() && self.unreadable.is_empty() && self.rejected == 0;
        self.state == State::Forwarding && are_all_whole && !self.is_behind
    }

    /// Calls a closure with the name, labels and value of each metric, zeros included. Names that end in
    /// `_total` are counters, all others are gauges.
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    pub fn for_each(&self, mut tell: impl FnMut(&'static str, &[(&'static str, &'static str)], f64)) {
        for (name, value) in [
            ("tracing_audit_forward_records_total", self.records),
            ("tracing_audit_forward_bytes_total", self.bytes),
            ("tracing_audit_forward_batches_total", self.batches),
            ("tracing_audit_forward_failures_total", self.failures),
            ("tracing_audit_forward_rejections_total", self.rejections),
            ("tracing_audit_forward_rejected_records", self.rejected),
            ("tracing_audit_forward_missed_records_total", self.missed),
            ("tracing_audit_forward_store_losses_total", self.losses),
            ("tracing_audit_forward_stopped_chains", self.stopped.len() as u64),
            ("tracing_audit_forward_unreadable_chains", self.unreadable.len() as u64),
            ("tracing_audit_forward_healthy", u64::from(self.is_healthy())),
            ("tracing_audit_forward_lag_records", self.lag_records),
            ("tracing_audit_forward_lag_bytes", self.lag_bytes),
        ] {
            tell(name, &[], value as f64);
        }
        tell("tracing_audit_forward_lag_seconds", &[], self.lag.as_secs_f64());
        for state in State::ALL {
            let is_it = if *state == self.state { 1.0 } else { 0.0 };
            tell("tracing_audit_forward_state", &[("state", state.as_str())], is_it);
        }
    }
}

/// Something that may concern an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// The kind.
    pub kind: NoticeKind,
    /// What happened, in a sentence. It contains no credentials and no content of records.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NoticeKind {
    /// Another forwarder of this name runs.
    Waiting,
    /// The store does not answer. Reported once per outage.
    Unavailable,
    /// Somebody has to change something.
    Setup,
    /// The store answers again, or a chain can be read again.
    Healed,
    /// A record has waited for longer than [`max_lag`](crate::Builder::max_lag).
    Behind,
    /// No record waits for longer than that any more.
    CaughtUp,
    /// The store has less than it had acknowledged: it was restored or lost writes. What is missing is sent again.
    StoreLost,
    /// A chain is not forwarded any more until somebody acts.
    ChainStopped,
    /// The store refused a record because of its content, or did not accept a gap.
    Rejected,
    /// Retention removed records before they could be offered.
    Missed,
    /// A file of the log or of the forwarder cannot be read or written.
    Io,
}

impl NoticeKind {
    /// Returns whether somebody should look into it. Some of these problems end by themselves later, such as a
    /// store that is behind, or a file that cannot be read for a while.
    #[must_use]
    pub const fn needs_action(self) -> bool {
        !matches!(self, Self::Waiting | Self::Unavailable | Self::Healed | Self::CaughtUp)
    }
}
