//! Everything that can fail, by who is at fault.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{chain::Head, verdict::Verdict};

/// What could not be done, and to which path.
///
/// Findings about the content of a log are not errors but data, in a
/// [`Report`](crate::Report); an error of [`verify`](crate::verify()) means "could not check".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation on a file or directory of the log.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The system did not start the thread that writes the log.
    #[error("cannot start the writer thread of the log {}", path.display())]
    Thread {
        /// The directory of the log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Another process, or another `AuditLog` of this one, holds the log that was to be opened with
    /// [`Builder::exclusive`](crate::Builder::exclusive).
    #[error("the log {} is held by {}; stop it, or open without `exclusive`", path.display(), holder(*pid))]
    Locked {
        /// The directory of the log.
        path: PathBuf,
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },

    /// Every chain that this log can have is taken or cannot be continued.
    #[error("no chain is free in the log {}: {reason}", path.display())]
    NoChain {
        /// The directory of the log.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },

    /// A setting of the builder has a value that cannot work.
    #[error("the setting `{setting}` is out of range: {reason}")]
    Setting {
        /// The name of the builder's method.
        setting: &'static str,
        /// What is allowed.
        reason: String,
    },

    /// The directory, or a file in it, is not safe to write evidence to.
    #[error("refusing to use {}: {reason}", path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and how to mend it.
        reason: String,
    },

    /// The directory is on a file system on which locks and syncs cannot be relied on.
    #[error(
        "refusing to keep an audit log on {filesystem} at {}: its locks and syncs cannot be relied on; \
         use a local disk, or `allow_network_fs`", path.display()
    )]
    NetworkFileSystem {
        /// The directory of the log.
        path: PathBuf,
        /// The kind of file system.
        filesystem: String,
    },

    /// Audit events do not reach the layer: the message says which, what hides them, and how to mend it.
    #[error("{0}")]
    NotAttached(String),

    /// Every audit event reaches the log twice, or more often, and would be recorded as often: its layer is in the
    /// subscriber more than once.
    #[error(
        "every audit event reaches the log twice, because its layer is in the subscriber more than once; add \
         `layer()` once"
    )]
    AttachedTwice,

    /// The closure given to `confirm` emitted no event that this log could see.
    #[error(
        "no audit event reached the log {} from the closure given to `confirm`; \
         emit one on the calling thread, and check the filters with `ensure_attached`", path.display()
    )]
    NothingToConfirm {
        /// The directory of the log.
        path: PathBuf,
    },

    /// Some of what had to be recorded was lost before it could be written.
    #[error("audit events could not be recorded in {}: {lost}, because: {reason}", path.display())]
    Lost {
        /// The directory of the log.
        path: PathBuf,
        /// How many events.
        lost: u64,
        /// Why.
        reason: &'static str,
    },

    /// The wait bound passed before everything was durable. The records may still become durable.
    #[error(
        "{not_durable} records of the log {} were not durable within {bound:?}; they are kept and \
         tried again", path.display()
    )]
    Unconfirmed {
        /// The directory of the log.
        path: PathBuf,
        /// How many records were not durable, at least 1: what was waited for, which for `close` and `rotate` is a record
        /// of the log itself.
        not_durable: u64,
        /// The bound that passed.
        bound: Duration,
    },

    /// The log was closed, by this handle or another clone of it.
    #[error("the log {} is closed", path.display())]
    Closed {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The calling process was forked from the one that opened the log.
    #[error("the log {} belongs to the parent process; open it again in the child", path.display())]
    Forked {
        /// The directory of the log.
        path: PathBuf,
    },

    /// There is no log at this path, so nothing could be checked or read.
    #[error("there is no audit log at {}", path.display())]
    NoLog {
        /// The directory that was named.
        path: PathBuf,
    },

    /// A text is not what it was said to be.
    #[error("cannot read {text:?} as a {what}: expected {expected}")]
    Unreadable {
        /// What was to be read.
        what: &'static str,
        /// The text, cut to 100 characters.
        text: String,
        /// What would be right.
        expected: &'static str,
    },

    /// A line of the log that is no record, met while reading. Verification says more.
    #[error("line {line} of {} is not a record; verify the log", path.display())]
    BadLine {
        /// The segment.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },

    /// The log is not intact.
    #[error("the log {} is {verdict}: {summary}", path.display())]
    NotIntact {
        /// The directory of the log.
        path: PathBuf,
        /// What the verification found it to be.
        verdict: Verdict,
        /// The first findings, in a sentence.
        summary: String,
    },

    /// The log does not have the record behind which a reading was to begin: it ends before it, has another one in its
    /// place, or not its chain. Somebody cut it, rewrote it or put back an older copy; or the record was never durable.
    #[error("the log {} does not have the record {head}; verify it with this head", path.display())]
    NoSuchRecord {
        /// The directory of the log.
        path: PathBuf,
        /// The record.
        head: Head,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// For `map_err`: gives a system's refusal its action and its path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn unreadable(what: &'static str, text: &str, expected: &'static str) -> Self {
        Self::Unreadable { what, text: text.chars().take(100).collect(), expected }
    }
}
