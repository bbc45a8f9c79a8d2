//! Logs to verify, intact and tampered with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tracing_audit::AuditLog;
use tracing_subscriber::prelude::*;

/// A directory with a log, in which the command is run.
pub(super) struct Scene {
    pub(super) dir: TempDir,
}

/// The exit code, standard output and standard error of the command.
pub(super) type Said = (i32, String, String);

impl Scene {
    /// Writes a closed log of two chains: the first has three segments with ten events each, the second has one segment and
    /// witnesses the first.
    pub(super) fn new() -> Self {
        // Avoid /tmp, which may be a tmpfs: the log would record a notice about that.
        Self::in_dir(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// Makes the same in a directory that every user may access.
    pub(super) fn for_everybody() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    fn in_dir(dir: TempDir) -> Self {
        let scene = Self { dir };
        let open = || AuditLog::builder(scene.log()).stderr(false).open().unwrap();
        let log = open();
        emit(&log, 10);
        let other = open();
        log.rotate().unwrap();
        emit(&log, 10);
        emit(&other, 3);
        log.rotate().unwrap();
        emit(&log, 10);
        log.close().unwrap();
        other.close().unwrap();
        scene
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path("log")
    }

    pub(super) fn segment(&self, chain: u16, number: u32) -> PathBuf {
        self.log().join(format!("audit-{chain:03}-{number:08}.jsonl"))
    }

    /// Changes the lines of a segment.
    pub(super) fn edit(&self, chain: u16, number: u32, change: impl FnOnce(&mut Vec<String>)) {
        let path = self.segment(chain, number);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        change(&mut lines);
        fs::write(path, lines.concat()).unwrap();
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracing-audit"));
        command.args(arguments).current_dir(self.dir.path());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }
}

pub(super) fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(super) fn emit(log: &AuditLog, events: u64) {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for n in 0..events {
            tracing::info!(target: "audit", action = "item.seen", actor = "mia", n);
        }
    });
    log.flush().unwrap();
}

/// A log that a process abandoned without closing it.
pub(super) fn forget(log: AuditLog) {
    // A copy of the files has no lock, as if the process had ended.
    std::mem::forget(log);
}

/// Copies the files of a directory, without its subdirectories.
pub(super) fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Masks what differs between runs and machines: hashes, times, and lengths, which depend on the process id and host name.
pub(super) fn masked(text: &str) -> String {
    let words =
        text.split_inclusive(|character: char| !(character.is_alphanumeric() || "-:.".contains(character)));
    let mut masked = String::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let end = word.len()
            - word.chars().next_back().map_or(0, |character| {
                if character.is_alphanumeric() || "-:.".contains(character) {
                    0
                } else {
                    character.len_utf8()
                }
            });
        let (word, end) = word.split_at(end);
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let is_length = masked.ends_with("(byte ")
            || words.peek().is_some_and(|next| ["byte ", "bytes ", "bytes)", "more "].contains(next));
        let (date, time) = word.split_once('T').unwrap_or((word, ""));
        masked.push_str(match word {
            _ if is_number && is_length => "N",
            _ if ["pid=", "host=", "filesystem=", "version="].iter().any(|name| masked.ends_with(name)) => {
                "ITS"
            }
            _ if date.len() == 10 && date.matches('-').count() == 2 => {
                if time.is_empty() {
                    "DATE"
                } else {
                    "TIME"
                }
            }
            _ if word.len() == 13 && word.matches(':').count() == 2 => "CLOCK",
            _ => word,
        });
        masked.push_str(end);
    }
    without_hashes(&masked)
}

fn without_hashes(text: &str) -> String {
    let mut masked = String::new();
    let mut word = String::new();
    for character in text.chars().chain(['\0']) {
        if character.is_ascii_hexdigit() {
            word.push(character);
            continue;
        }
        masked.push_str(if word.len() >= 9 { "HASH" } else { &word });
        word.clear();
        if character != '\0' {
            masked.push(character);
        }
    }
    masked
}
