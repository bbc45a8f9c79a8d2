//! A `tracing-subscriber` layer that turns `tracing` events tagged `audit` into evidence.

#[cfg(windows)]
compile_error!(
    "tracing-audit does not support Windows: it has no way to make the name of a new file durable, \
     so the promise that a returned critical event survives a power cut could not be kept"
);

mod builder;
mod capture;
mod chain;
mod clock;
mod error;
mod format;
mod gauges;
mod log;
mod notify;
mod queue;
mod read;
mod record;
mod segment_name;
mod settings;
mod severity;
mod stats;
mod storage;
mod verify;
mod wait;
mod writer;

pub use builder::Builder;
pub use capture::{AuditFilter, AuditLayer, Candidate};
pub use chain::{Digest, Head, Receipt};
pub use error::Error;
pub use format::Value;
pub use log::{AuditLog, Confirming};
pub use read::{Records, read};
pub use record::Record;
pub use settings::{FlushMode, OnFailure, OnFull, Retention, Rotation};
pub use severity::Severity;
pub use stats::{ChainRecovery, Health, Loss, LossReason, Notice, NoticeCode, Recovery, Stats};
pub use verify::{Finding, FindingKind, Note, NoteKind, Report, Verdict, Verifier, verify};

/// What the macros expand to; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use tracing;
}
