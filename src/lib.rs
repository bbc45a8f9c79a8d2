//! A `tracing-subscriber` layer that turns `tracing` events tagged `audit` into evidence: each becomes
//! one line of JSON, linked to the line before it by SHA-256, and on disk when the program was told
//! that it is.
//!
//! ```no_run
//! use tracing_subscriber::prelude::*;
//!
//! # fn main() -> Result<(), tracing_audit::Error> {
//! let audit = tracing_audit::AuditLog::open("audit-log")?;
//! tracing_subscriber::registry().with(audit.layer()).init();
//! audit.ensure_attached()?;
//!
//! // Queued, written within 10 ms, synced with the next batch:
//! tracing::info!(target: "audit", action = "auth.success", actor = "mia");
//! // Critical, so on disk when this returns:
//! tracing::warn!(target: "audit", action = "auth.failure", actor = "mallory");
//! // On disk, or an error says that it is not:
//! let receipt = audit.confirm(|| tracing::info!(target: "audit", action = "key.export", actor = "mia"))?;
//!
//! let head = audit.close()?;
//! tracing_audit::verify("audit-log")?.ensure_intact()
//! # }
//! ```
//!
//! # Where to begin
//!
//! - [`AuditLog`] opens a log and gives out the layer; [`Builder`] has every setting.
//! - An event is an audit event if its target is `audit` or begins with `audit::`, or if it has a field
//!   `audit` that is not `false`. [`audit!`] and [`audit_critical!`] are shorter.
//! - [`Severity`] says how an event becomes critical, [`FlushMode`] when records are synced and what a
//!   killed process or a power cut can lose.
//! - [`AuditLog::confirm`] is how an application refuses what it could not record, and in tasks
//!   [`AuditLog::confirm_future`], which also keeps critical events from holding the executor's thread.
//! - [`AuditLog::health`], [`AuditLog::stats`] and [`Builder::on_notice`] tell an operator.
//! - [`Stats::for_each`] names the counters for metrics. The feature `serde`, off by default, adds `Config`, every
//!   setting as data, and serialises counters, reports and records.
//! - [`verify`](verify()) and [`Verifier`] check a log, [`read`](read()) and [`Reader`] read it. A [`Head`] that is kept
//!   elsewhere makes a cut or rewritten log detectable.
//!
//! # What is promised
//!
//! A record is *durable* when its bytes and the name of its file have been synced, and the sync that
//! covers them returned success. What is durable is always a prefix of its chain. Nothing is
//! acknowledged from a file whose sync failed; what is not durable stays in memory and is written
//! again, elsewhere. Events that could not be recorded are counted, and a chained `gap` record tells
//! how many. No wait is longer than [`Builder::wait_bound`]. The layer does not panic, emits no events,
//! and does not change what other layers see.
//!
//! The repository's `docs/durability.md` says on what this rests, `docs/format.md` specifies the
//! files, `docs/operations.md` is for who runs it.
//!
//! # What is not
//!
//! The files have no key: who can rewrite all of them can recompute every hash, and who can cut off
//! their end leaves no trace in them. [`Report::not_checked`] says what a verification could not see.
//! Lines are not encrypted; secrets are withheld by the names of their fields only.

#[cfg(windows)]
compile_error!(
    "tracing-audit does not support Windows: it has no way to make the name of a new file durable, \
     so the promise that a returned critical event survives a power cut could not be kept"
);

mod audit_future;
mod bell;
mod builder;
mod capture;
mod chain;
mod chain_reader;
mod clock;
#[cfg(feature = "serde")]
mod config;
mod confirm_future;
mod error;
mod format;
mod gauges;
#[cfg(any(test, audit_simulation))]
#[path = "../testing/harness/mod.rs"]
mod harness;
mod heads;
mod log;
mod metrics;
mod named;
mod notify;
mod queue;
mod read;
mod record;
mod segment_name;
#[cfg(feature = "serde")]
mod serialize;
mod settings;
mod severity;
mod stats;
mod storage;
mod sync;
mod units;
mod verdict;
mod verify;
mod wait;
mod wiring;
mod writer;

pub use audit_future::AuditFuture;
pub use builder::Builder;
pub use capture::{AuditFilter, AuditLayer, Candidate, Enrichment, NotAudit};
pub use chain::{Digest, Head, Receipt};
#[cfg(feature = "serde")]
pub use config::Config;
pub use confirm_future::{ConfirmError, ConfirmFuture};
pub use error::{Error, InsecureReason, NoChainReason, ParseError};
pub use format::{RecordKind, Value};
pub use log::AuditLog;
pub use metrics::{Metric, MetricKind};
pub use read::{ReadItem, ReadItems, Reader, Records, Segment, Stopper, read, segments};
pub use record::Record;
pub use settings::{FlushMode, OnFailure, OnFull, Retention, Rotation};
pub use severity::Severity;
pub use stats::{ChainRecovery, Health, Loss, LossReason, Notice, NoticeCount, NoticeKind, Recovery, Stats};
#[cfg(feature = "fault-injection")]
pub use storage::Faults;
pub use verdict::Verdict;
pub use verify::{
    ChainReport, ChainState, Finding, FindingKind, NotChecked, NotCheckedKind, Note, NoteKind, Report,
    Verifier, verify,
};

/// What the macros expand to; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use tracing;
}

/// Seeded runs on a simulated disk, for the project's own fault harness.
#[cfg(audit_simulation)]
#[doc(hidden)]
pub mod simulation {
    pub use crate::harness::{Failure, Outcome, fuzz, replay, run};
}

#[cfg(any(doc, doctest))]
pub mod docs;

/// The programs of the README and the changelog are compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../CHANGELOG.md")]
mod documents {}
