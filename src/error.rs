//! Everything that can fail, by who is at fault.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{chain::Head, segment_name::ChainNumber, stats::LossReason, verdict::Verdict};

/// What could not be done, and to which path.
///
/// Findings about the content of a log are not errors but data, in a
/// [`Report`](crate::Report); an error of [`verify`](crate::verify()) means "could not check".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation on a file or directory of the log.
    #[error("cannot {action} {}", path.display())]
    #[non_exhaustive]
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
    #[non_exhaustive]
    Thread {
        /// The directory of the log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Another process, or another `AuditLog` of this one, holds the log that was to be opened with
    /// [`Builder::exclusive`](crate::Builder::exclusive).
    #[error("the log {} is held by {}; stop it, or open without `exclusive`", path.display(), holder(*pid))]
    #[non_exhaustive]
    Locked {
        /// The directory of the log.
        path: PathBuf,
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },

    /// Every chain that this log can have is taken or cannot be continued.
    #[error("no chain is free in the log {}: {reason}", path.display())]
    #[non_exhaustive]
    NoChain {
        /// The directory of the log.
        path: PathBuf,
        /// Why, and what to do.
        reason: NoChainReason,
    },

    /// A setting of the builder has a value that cannot work.
    #[error("the setting `{setting}` is out of range: {reason}")]
    #[non_exhaustive]
    Setting {
        /// The name of the builder's method.
        setting: &'static str,
        /// What is allowed.
        reason: String,
    },

    /// The directory, or a file in it, is not safe to write evidence to.
    #[error("refusing to use {}: {reason}", path.display())]
    #[non_exhaustive]
    InsecureDirectory {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and how to mend it.
        reason: InsecureReason,
    },

    /// The directory is on a file system on which locks and syncs cannot be relied on.
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
        /// What hides them, and how to mend it.
        reason: String,
    },

    /// Every audit event reaches the log twice, or more often, and would be recorded as often: its layer is in the
    /// subscriber more than once.
    #[error(
        "every audit event reaches the log {} twice, because its layer is in the subscriber more than once; add \
         `layer()` once", path.display()
    )]
    #[non_exhaustive]
    AttachedTwice {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The closure given to `confirm`, or the future given to `confirm_future`, emitted no event that this log could see.
    #[error(
        "no audit event reached the log {} from what was to be confirmed; emit one on the thread that runs the closure \
         or polls the future, and check the filters with `ensure_attached`", path.display()
    )]
    #[non_exhaustive]
    NothingToConfirm {
        /// The directory of the log.
        path: PathBuf,
    },

    /// Some of what had to be recorded was lost before it could be written.
    #[error("audit events could not be recorded in {}: {lost}, because: {reason}", path.display())]
    #[non_exhaustive]
    Lost {
        /// The directory of the log.
        path: PathBuf,
        /// How many events, at least 1.
        lost: u64,
        /// Why the last of them was lost.
        reason: LossReason,
    },

    /// Every event of the log is durable, but the `close` record could not be made so before the log was given up: the
    /// next opener finds a run that did not end in order.
    #[error("the log {} could not be ended in order: its last record could not be made durable", path.display())]
    #[non_exhaustive]
    NotClosed {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The wait bound passed before everything was durable. The records may still become durable.
    #[error(
        "{not_durable} records of the log {} were not durable within {bound:?}; they are kept and \
         tried again", path.display()
    )]
    #[non_exhaustive]
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
    #[non_exhaustive]
    Closed {
        /// The directory of the log.
        path: PathBuf,
    },

    /// The calling process was forked from the one that opened the log.
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
        /// The directory that was named.
        path: PathBuf,
    },

    /// A text is not what it was said to be.
    #[error(transparent)]
    Parse(#[from] ParseError),

    /// A line of the log that is no record, met while reading. Verification says more.
    #[error("line {line} of {} is not a record; verify the log", path.display())]
    #[non_exhaustive]
    BadLine {
        /// The segment.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },

    /// The log is not intact.
    #[error("the log {} is {verdict}: {summary}", path.display())]
    #[non_exhaustive]
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
    #[non_exhaustive]
    NoSuchRecord {
        /// The directory of the log.
        path: PathBuf,
        /// The record.
        head: Head,
    },
}

/// The files of a chain, for who moves them.
fn files_of(chain: u16) -> String {
    let named = |chain: ChainNumber| {
        format!("its files ({}) and control/{}", chain.segment_pattern(), chain.lock_name())
    };
    ChainNumber::new(chain).map_or_else(|| "its files".to_owned(), named)
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// For `map_err`: gives a system's refusal its action and its path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// Whether the wait bound passed. Nothing is lost then: the records are kept, and may still become durable.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. })
    }

    /// The file or directory that it is about, where it is about one.
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

/// Why no chain could be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoChainReason {
    /// The log has as many chains as it can have, and each is taken or cannot be continued.
    #[error("it has {chains} already; close some of the processes that write it")]
    #[non_exhaustive]
    TooMany {
        /// How many chains a log can have.
        chains: u16,
    },
    /// With `exclusive`: chain 000 is left alone as it is.
    #[error("{why}; to begin it anew, move {} aside, and keep them", files_of(*chain))]
    #[non_exhaustive]
    LeftAlone {
        /// The number of the chain.
        chain: u16,
        /// Why, in a sentence.
        why: String,
    },
}

/// Why a directory, or a file in it, is not safe to write evidence to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InsecureReason {
    /// The path of the log is a symbolic link, or no directory.
    #[error("it is a symlink or not a directory; name the directory itself")]
    NotADirectory,
    /// The directory belongs to another user.
    #[error("it belongs to another user; use a directory owned by the user of this process")]
    ForeignDirectory,
    /// Other users can write to the directory.
    #[error("other users can write to it; remove that permission (chmod go-w)")]
    WritableDirectory,
    /// The file system has no owners and modes of its own for files, as vfat and exfat.
    #[error(
        "its file system keeps no permissions, so nothing on it is private; use one that does, as ext4 or xfs"
    )]
    NoPermissions,
    /// Something that is no regular file has the name of a file of the log.
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

/// A text that is not what it was to be read as: a head, a digest, a name, a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {text:?} as a {what}: expected {expected}")]
pub struct ParseError {
    what: &'static str,
    /// Cut to 100 characters.
    text: String,
    expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str, expected: &'static str) -> Self {
        Self { what, text: text.chars().take(100).collect(), expected }
    }
}
