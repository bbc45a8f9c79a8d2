//! A directory with a log, and the command run in it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Head};
use tracing_subscriber::prelude::*;

/// A directory with a log, in which the command is run.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// Writes a closed log with ten events. Returns it with its head.
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

    /// Appends an event of each of these actors.
    pub(crate) fn emit_as(&self, actors: &[&str]) {
        let log = AuditLog::builder(self.path("log")).stderr(false).open().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
            for actor in actors {
                tracing::info!(target: "audit", action = "item.seen", actor, outcome = "denied", wide = 1);
            }
        });
        log.close().unwrap();
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        command.args(line.split(' ')).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs the command. Returns its exit code, standard output and standard error.
    pub(crate) fn run(&self, line: &str) -> (i32, String, String) {
        let output = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

// ---- Terminals, and programs that a machine may lack.

/// Notes a test that could not run, so that it is not taken for passed.
#[expect(clippy::print_stderr, reason = "whoever runs the tests must see it")]
pub(crate) fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED {test}: {why}");
    let list = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {why}").unwrap();
}

/// Returns whether a program exists and succeeds.
pub(crate) fn can_run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command on a pseudo-terminal with this width. Returns what it wrote.
pub(crate) fn on_terminal(mut command: Command, columns: u16) -> String {
    use rustix::{fs::Mode, pty, termios};
    use std::{fs::File, io::Read as _};
    let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&master).unwrap();
    pty::unlockpt(&master).unwrap();
    let name = pty::ptsname(&master, Vec::new()).unwrap();
    let terminal =
        rustix::fs::open(name, rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = termios::Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    termios::tcsetwinsize(&terminal, size).unwrap();
    command.stdout(terminal.try_clone().unwrap()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    // Close this end, so that only the command has the terminal open.
    drop(command);
    let mut shown = Vec::new();
    // Reading fails with EIO once the other end is closed.
    drop(File::from(master).read_to_end(&mut shown));
    child.wait().unwrap();
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}
