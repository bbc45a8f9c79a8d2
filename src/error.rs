//! Everything that can fail, by the party at fault.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{chain::Head, segment_name::ChainNumber, stats::LossReason, verdict::Verdict};

/// An operation that failed, and the path concerned.
///
/// Findings about the content of a log are not errors but data, in a
/// [`Report`](crate::Report). An error of [`verify`](crate::verify()) means that the log could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation on a file or directory of the log.
    #[error("cannot {action} {}", path.display())]
    #[non_exhaustive]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },

    /// The system did not start a thread of the log: the writer's, or the one for `on_notice` or `on_head`.
    #[error("cannot start a thread of the log {}", path.display())]
    #[non_exhaustive]
    Thread {
        /// The directory of the log.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },

    /// The log could not be opened with [`Builder::exclusive`](crate::Builder::exclusive), because another process or
    /// another `AuditLog` of this process holds it.
    #[error("the log {} is held by {}; stop it, or open without `exclusive`", path.display(), holder(*pid))]
    #[non_exhaustive]
    Locked {
        /// The directory of the log.
        path: PathBuf,
        /// The process that holds it, if it could be determined.
        pid: Option<u32>,
    },

    /// Every chain that this log can have is in use or cannot be continued.
    #[error("no chain is free in the log {}: {reason}", path.display())]
    #[non_exhaustive]
    NoChain {
        /// The directory of the log.
        path: PathBuf,
        /// The reason, and what to do about it.
        reason: NoChainReason,
    },

    /// A setting of a builder or a reader has a value that is not allowed, alone or with the other settings.
    #[error("the setting `{setting}` is not valid: {reason}")]
    #[non_exhaustive]
    Setting {
        /// The name of the method that sets it.
        setting: &'static str,
        /// What is wrong with the value, or which values are allowed.
        reason: String,
    },

    /// The directory, or a file in it, is not safe to write evidence to.
    #[error("refusing to use {}: {reason}", path.display())]
    #[non_exhaustive]
    InsecureDirectory {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and how to fix it.
        reason: InsecureReason,
    },

    /// The directory is on a file system whose locks and syncs cannot be relied on.
    #[error(
        "refusing to keep an audit log on {filesystem} at {}: its locks and syncs cannot be relied on; \
         use a local disk, or `allow_network_fs`", path.display()
    )]
    #[non_exhaustive]
    NetworkFileSystem {
        /// The directory of the log.
        path: PathBuf,
        /// The kind of file system.
        filesystem: String,
    },

    /// Audit events do not reach the layer.
    #[error("{reason}")]
    #[non_exhaustive]
    NotAttached {
        /// The directory of the log.
        path: PathBuf,
        /// Why they do not reach it, and how to fix that.
        reason: String,
    },

    /// The layer is in the subscriber more than once, so every audit event would be recorded more than once.
    #[error(
        "every audit event reaches the log {} twice, because its layer is in the subscriber more than once; add \
         `layer()` once", path.display()
    )]
    #[non_exhaustive]
    AttachedTwice {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The closure given to `confirm`, or the future given to `confirm_future`, emitted no event that reached this log.
    #[error(
        "nothing to confirm: no audit event reached the log {}; emit one on the thread that runs the closure \
         or polls the future, and check the filters with `ensure_attached`", path.display()
    )]
    #[non_exhaustive]
    NothingToConfirm {
        /// The directory of the log.
        path: PathBuf,
    },

    /// Some events that had to be recorded were lost before they could be written.
    #[error("cannot record {} in the log {}: {reason}", counted(*lost, "audit event"), path.display())]
    #[non_exhaustive]
    Lost {
        /// The directory of the log.
        path: PathBuf,
        /// How many events were lost, at least 1.
        lost: u64,
        /// Why the last of them was lost.
        reason: LossReason,
    },

    /// Every event of the log is durable, but its `close` record could not be made durable. The next opener finds a
    /// run that did not end cleanly.
    #[error("cannot close the log {} cleanly: its last record could not be made durable", path.display())]
    #[non_exhaustive]
    NotClosed {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The wait bound passed before everything was durable, or the log was stalled and the call did not wait. The
    /// records may still become durable.
    #[error(
        "{} of the log {} could not be made durable: the wait bound of {bound:?} passed, or had passed for an earlier call; \
         what is not durable is kept and retried", counted(*not_durable, "record"), path.display()
    )]
    #[non_exhaustive]
    Unconfirmed {
        /// The directory of the log.
        path: PathBuf,
        /// How many accepted events of the log were not durable, awaited or not. At least 1: if there was none, the wait
        /// was for a record of the log itself, as for `close` and `rotate`.
        not_durable: u64,
        /// The wait bound.
        bound: Duration,
    },

    /// The log was closed, through this handle or a clone of it.
    #[error("the log {} is closed", path.display())]
    #[non_exhaustive]
    Closed {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The calling process is a fork of the one that opened the log.
    #[error("the log {} belongs to the parent process; open it again in the child", path.display())]
    #[non_exhaustive]
    Forked {
        /// The directory of the log.
        path: PathBuf,
    },

    /// There is no log at this path, so nothing could be checked or read.
    #[error("there is no audit log at {}", path.display())]
    #[non_exhaustive]
    NoLog {
        /// The given directory.
        path: PathBuf,
    },

    /// A text could not be parsed.
    #[error(transparent)]
    Parse(#[from] ParseError),

    /// While reading, a line was found that is not a record. A verification reports the details.
    #[error("line {line} of {} is not a record; verify the log", path.display())]
    #[non_exhaustive]
    BadLine {
        /// The segment.
        path: PathBuf,
        /// The number of the line in the segment, counted from 1.
        line: u64,
    },

    /// The log is not intact.
    #[error("the log {} is {verdict}: {summary}", path.display())]
    #[non_exhaustive]
    NotIntact {
        /// The directory of the log.
        path: PathBuf,
        /// The verdict of the verification.
        verdict: Verdict,
        /// The first findings, in a sentence.
        summary: String,
    },

    /// The log does not have the record after which reading was to start.
    ///
    /// The log ends before it, has another record in its place, or does not have its chain. Somebody truncated or
    /// rewrote the log or restored an older copy, or the record was never durable.
    #[error("the log {} does not have the record {head}; verify it with this head", path.display())]
    #[non_exhaustive]
    NoSuchRecord {
        /// The directory of the log.
        path: PathBuf,
        /// The record.
        head: Head,
    },
}

/// Names the files of a chain, for a message that asks to move them.
fn files_of(chain: u16) -> String {
    let named = |chain: ChainNumber| {
        format!("its files ({}) and control/{}", chain.segment_pattern(), chain.lock_name())
    };
    ChainNumber::new(chain).map_or_else(|| "its files".to_owned(), named)
}

fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// Returns a closure for `map_err` that adds the action and the path to a system error.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// Returns whether a wait ended without a result, at the wait bound or because the log is stalled. Nothing is lost
    /// then: the records are kept and may still become durable.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. })
    }

    /// Returns the file or directory concerned, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. }
            | Self::Thread { path, .. }
            | Self::Locked { path, .. }
            | Self::NoChain { path, .. }
            | Self::InsecureDirectory { path, .. }
            | Self::NetworkFileSystem { path, .. }
            | Self::NotAttached { path, .. }
            | Self::AttachedTwice { path }
            | Self::NothingToConfirm { path }
            | Self::Lost { path, .. }
            | Self::NotClosed { path }
            | Self::Unconfirmed { path, .. }
            | Self::Closed { path }
            | Self::Forked { path }
            | Self::NoLog { path }
            | Self::BadLine { path, .. }
            | Self::NoSuchRecord { path, .. }
            | Self::NotIntact { path, .. } => Some(path),
            Self::Setting { .. } | Self::Parse(_) => None,
        }
    }
}

/// Why no chain could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoChainReason {
    /// The log has as many chains as it can have, and each is in use or cannot be continued.
    #[error(
        "it has {chains} chains, the most that a log can have; stop some of the processes that write to it"
    )]
    #[non_exhaustive]
    TooMany {
        /// The largest number of chains that a log can have.
        chains: u16,
    },
    /// Chain 000, the only one that `exclusive` allows, cannot be continued. It is left unchanged.
    #[error("{why}; to start over, move {} aside and keep them", files_of(*chain))]
    #[non_exhaustive]
    LeftAlone {
        /// The number of the chain.
        chain: u16,
        /// The reason, in a sentence.
        why: String,
    },
}

/// Why a directory, or a file in it, is not safe to write evidence to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InsecureReason {
    /// The path of the log is a symbolic link or not a directory.
    #[error("it is a symlink or not a directory; name the directory itself")]
    NotADirectory,
    /// The directory belongs to another user.
    #[error("it belongs to another user; use a directory owned by the user of this process")]
    ForeignDirectory,
    /// Other users can write to the directory.
    #[error("other users can write to it; remove that permission (chmod go-w)")]
    WritableDirectory,
    /// The file system, such as vfat or exfat, stores no owners or modes of files.
    #[error(
        "its file system keeps no permissions, so nothing on it is private; use one that does, such as ext4 or xfs"
    )]
    NoPermissions,
    /// Something other than a regular file has the name of a file of the log.
    #[error("it is not a regular file; move it away")]
    NotAFile,
    /// A file of the log has hard links.
    #[error("it has more than one name; remove the hard links")]
    HardLinked,
    /// A file of the log belongs to another user.
    #[error("it belongs to another user; move it away")]
    ForeignFile,
    /// Other users can write to a file of the log.
    #[error("other users can write to it; find out why, and move it away")]
    WritableFile,
}

/// A text that could not be parsed, such as a head, a digest, a name or a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {text:?} as a {what}: expected {expected}")]
pub struct ParseError {
    what: &'static str,
    /// The text, cut to 100 characters.
    text: String,
    expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str, expected: &'static str) -> Self {
        // By characters, because bytes could cut one in half.
        Self { what, text: text.chars().take(100).collect(), expected }
    }
}
