//! A durable, hash-chained audit log as a `tracing-subscriber` layer.
//!
//! Each `tracing` event tagged `audit` becomes one line of JSON, linked to the line before it by
//! SHA-256. When a call reports that an event is durable, it is on disk.
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
//! // Critical, so it is on disk when this returns:
//! tracing::warn!(target: "audit", action = "auth.failure", actor = "mallory");
//! // On disk, or `confirm` returns an error:
//! let receipt = audit.confirm(|| tracing::info!(target: "audit", action = "key.export", actor = "mia"))?;
//!
//! let head = audit.close()?;
//! tracing_audit::verify("audit-log")?.ensure_intact()
//! # }
//! ```
//!
//! # Where to start
//!
//! - [`AuditLog`] opens a log and returns its layer; [`Builder`] has every setting.
//! - An event is an audit event if its target is `audit` or begins with `audit::`. So is one with a field
//!   `audit` that is not `false`. The macros [`audit!`] and [`audit_critical!`] are shorthand.
//! - [`Severity`] is critical or routine. [`FlushMode`] sets when records are synced, and with it what a
//!   killed process or a power cut can lose.
//! - [`AuditLog::confirm`] lets an application refuse an action that could not be recorded. In tasks, use
//!   [`AuditLog::confirm_future`], in which critical events do not block the executor's thread.
//! - [`AuditLog::health`], [`AuditLog::stats`] and [`Builder::on_notice`] report the state of a running log.
//! - [`Stats::for_each`] reports the counters as metrics.
//! - [`verify`](verify()) and [`Verifier`] check a log; [`read`](read()) and [`Reader`] read it. A [`Head`] kept
//!   elsewhere makes a truncated or rewritten log detectable.
//!
//! # Features
//!
//! Both are off by default, and only add names:
//!
//! - `serde` adds `Config`, which holds every setting as data, and serialises counters, reports and records.
//! - `fault-injection` adds `Builder::faults`, with which the tests of an application make the disk fail, stall or be
//!   full.
//!
//! # What is guaranteed
//!
//! A record is *durable* once its bytes and the name of its file have been synced, and the sync that
//! covers them has succeeded. The durable records are always a prefix of their chain. Nothing is
//! acknowledged from a file whose sync failed: records that are not durable stay in memory and are
//! written again to another file. Events that could not be recorded are counted, and a chained `gap`
//! record holds their number. No wait for the disk is longer than [`Builder::wait_bound`]. Dropping the last handle can
//! take 100 ms more, and so can a line to a standard error that no process reads. The layer does not panic and emits no
//! events. It does not change what other layers see, except in the two cases that [`AuditFilter`] lists.
//!
//! [`docs::durability`] lists the assumptions behind these guarantees, [`docs::format`] specifies the
//! files, and [`docs::operations`] is for operators.
//!
//! # What is not guaranteed
//!
//! The files are not protected by a key. Anyone who can rewrite all of them can recompute every hash, or cut off the
//! end of the log without a trace. [`Report::not_checked`] lists what a verification could not check. Lines are not
//! encrypted, and secrets are withheld by field name only.

#[cfg(windows)]
compile_error!(
    "tracing-audit does not support Windows, which has no way to make the name of a new file durable: \
     a critical event could be lost in a power cut after its macro returned"
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

/// Names that the macros expand to; not for direct use.
#[doc(hidden)]
pub mod __private {
    pub use tracing;
}

/// Seeded runs on a simulated disk, for this project's own fault tests.
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
