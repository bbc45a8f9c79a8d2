//! A directory with a log in it, and the command as somebody types it there.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Head};
use tracing_subscriber::prelude::*;

/// A directory with a log in it, and the command run there.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// A log with ten events, closed; and its head.
    pub(crate) fn new() -> (Self, Head) {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let head = place.emit(10);
        (place, head)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn emit(&self, events: u64) -> Head {
        let log = AuditLog::builder(self.path("log")).stderr(false).open().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
            for n in 0..events {
                tracing::info!(target: "audit", action = "item.seen", actor = "mia", n);
            }
        });
        log.close().unwrap()
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        command.args(line.split(' ')).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// The exit code, what it printed, and what it said beside that.
    pub(crate) fn run(&self, line: &str) -> (i32, String, String) {
        let output = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// Says that a test cannot run here, and why, also in a file of which the lines are counted.
#[allow(clippy::print_stderr, reason = "a test that did not run must say so")]
pub(crate) fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED {test}: {why}");
    let list = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {why}").unwrap();
}
