//! What could not be done, and to which path.

use std::{io, path::PathBuf, time::Duration};

use crate::sink::SinkError;

/// Why forwarding or collecting failed, or why a call about a forwarder did.
///
/// A failure in between is not an error: the forwarder retries, and reports it in [`Stats`](crate::Stats) and
/// notices.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] tracing_audit::Error),

    /// A file of the forwarder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    #[non_exhaustive]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },

    /// The name of a forwarder has characters that are not allowed.
    #[error("the name of a forwarder is 1 to 32 letters a-z, digits or hyphens, and not {name:?}")]
    #[non_exhaustive]
    Name {
        /// The name.
        name: String,
    },

    /// The position file was not written by this version.
    #[error("{} is not a position of a forwarder: {reason}; move it away to start over, and check what the store has", path.display())]
    #[non_exhaustive]
    BadPosition {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The list of refused records cannot be parsed.
    #[error(
        "{} is not a list of refused records: {reason}; restore it, or move it away and give up the records that it names",
        path.display()
    )]
    #[non_exhaustive]
    BadRejected {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// `forward-required` cannot be parsed. Nothing is removed from the log until it can be.
    #[error(
        "{} is not a list of forwarders: {reason}; requiring a forwarder repairs it, and removing the file lifts every requirement",
        path.display()
    )]
    #[non_exhaustive]
    BadRequired {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The requirement to lift is not in the file.
    #[error("{} does not require {name}; it requires {}", path.display(), listed(required))]
    #[non_exhaustive]
    NotRequired {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// The forwarders that the file requires.
        required: Vec<String>,
    },

    /// More names than the file can hold.
    #[error("the names in {} would take more than 512 bytes; lift some first", path.display())]
    #[non_exhaustive]
    TooManyRequired {
        /// The file.
        path: PathBuf,
    },

    /// A forwarder of this name is running, and the call would change its state.
    #[error("a forwarder named {name} is running; end it first")]
    #[non_exhaustive]
    Running {
        /// The name.
        name: String,
    },

    /// The store could not be used while refused records were offered again.
    #[error("cannot offer records to the store of {name}")]
    #[non_exhaustive]
    Store {
        /// The name of the forwarder.
        name: String,
        /// The error of the sink.
        source: SinkError,
    },

    /// The table of a collector was not written by this version.
    #[error("{} is not a table of a collector: {reason}; restore it from a backup, or collect into an empty directory", path.display())]
    #[non_exhaustive]
    BadTable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The files of a collector no longer match its table.
    #[error("{}: {reason}; restore it from a backup, or collect into an empty directory", path.display())]
    #[non_exhaustive]
    BadCopy {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// Another collector holds the directory.
    #[error("another collector writes to {}; end it, or name another directory", path.display())]
    #[non_exhaustive]
    CollectorRuns {
        /// The directory.
        path: PathBuf,
    },

    /// The stream to collect from cannot be read now.
    #[error("cannot read the stream")]
    #[non_exhaustive]
    Stream {
        /// What failed.
        source: SinkError,
    },

    /// The bound of `drain` or `close` has passed. The remaining records stay in the log, and
    /// are forwarded when a forwarder of this name runs again.
    #[error("{remaining} records were not forwarded within {bound:?}; they stay in the log")]
    #[non_exhaustive]
    Remaining {
        /// The number of records.
        remaining: u64,
        /// The bound.
        bound: Duration,
    },

    /// Some chains are not being forwarded; the store has all durable records of the others.
    /// [`Stats::stopped`](crate::Stats::stopped) and [`Stats::unreadable`](crate::Stats::unreadable) hold the
    /// reasons.
    #[error(
        "chains {chains:?} are not being forwarded, with at least {remaining} records; they stay in the log"
    )]
    #[non_exhaustive]
    LeftOut {
        /// The numbers of the chains.
        chains: Vec<u16>,
        /// The number of their records that the store has not acknowledged, as far as they can be read.
        remaining: u64,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Formats an error with its source.
pub(crate) fn with_source(error: &Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
