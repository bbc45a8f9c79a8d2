//! The copy in one file, over real logs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]
#![cfg(feature = "file")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tracing_audit::AuditLog;
use tracing_audit_forward::{FileSink, Forwarder, Notice, NoticeKind, StartAt, State};
use tracing_subscriber::prelude::*;

struct App {
    dir: TempDir,
    log: AuditLog,
}

const LONG: Duration = Duration::from_secs(20);

impl App {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::builder(dir.path().join("log")).stderr(false).open().unwrap();
        Self { dir, log }
    }

    fn emit(&self, events: u64) {
        let subscriber = tracing_subscriber::registry().with(self.log.layer());
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..events {
                tracing::info!(target: "audit", action = "item.seen", text = "\"}\n,\"_hash\":\"", n);
            }
        });
        self.log.flush().unwrap();
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("copy.jsonl")
    }

    fn forward(&self) -> (Forwarder, Arc<Mutex<Vec<Notice>>>) {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&notices);
        let builder = Forwarder::builder("copy").on_notice(move |notice| told.lock().unwrap().push(notice));
        (builder.start(&self.log, FileSink::new(self.copy())).unwrap(), notices)
    }

    /// Forwards what is there, and returns the notices.
    fn send(&self) -> Vec<NoticeKind> {
        let (forwarder, notices) = self.forward();
        forwarder.close(LONG).unwrap();
        notices.lock().unwrap().iter().map(|notice| notice.kind).collect()
    }

    /// Checks that the lines of each chain in the copy are those of the log.
    #[track_caller]
    fn assert_whole(&self) {
        let mut copied: Vec<String> =
            fs::read_to_string(self.copy()).unwrap().lines().map(str::to_owned).collect();
        let mut logged = lines(&self.dir.path().join("log"));
        // The log writes one after a second of silence.
        let is_no_mark = |line: &String| !line.contains("\"kind\":\"mark\"");
        copied.retain(is_no_mark);
        logged.retain(is_no_mark);
        copied.sort();
        logged.sort();
        assert!(copied == logged, "{} lines copied, {} logged", copied.len(), logged.len());
    }
}

fn lines(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    names
        .flat_map(|name| fs::read_to_string(name).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_copy_has_the_lines_of_all_chains_once() {
    let app = App::new();
    let other = AuditLog::builder(app.log.path()).stderr(false).open().unwrap();
    for round in 0..4 {
        app.emit(20);
        other.flush().unwrap();
        if round == 2 {
            app.log.rotate().unwrap();
        }
        assert_eq!(app.send(), []);
    }
    other.close().unwrap();
    app.log.close().unwrap();
    assert_eq!(app.send(), []);
    app.assert_whole();
    // Within a chain the order is that of the log.
    let copied = fs::read_to_string(app.copy()).unwrap();
    let first =
        lines(app.log.path()).into_iter().filter(|line| line.contains("item.seen")).collect::<Vec<_>>();
    let in_copy =
        copied.lines().filter(|line| line.contains("item.seen")).map(str::to_owned).collect::<Vec<_>>();
    let (mut sorted, mut expected) = (in_copy.clone(), first);
    let seq = |line: &String| line["{\"seq\":".len()..].split(',').next().unwrap().parse::<u64>().unwrap();
    assert!(in_copy.is_sorted_by_key(seq));
    sorted.sort();
    expected.sort();
    assert!(sorted == expected);
}

#[test]
fn half_a_line_is_cut_off_and_an_older_copy_is_filled_up() {
    let app = App::new();
    app.emit(30);
    assert_eq!(app.send(), []);
    let older = fs::read(app.copy()).unwrap();
    fs::OpenOptions::new().append(true).open(app.copy()).unwrap().write_all(b"{\"seq\":99,\"ts\":").unwrap();
    app.emit(5);
    assert_eq!(app.send(), []);
    app.assert_whole();
    fs::write(app.copy(), &older[..older.len() / 2]).unwrap();
    assert_eq!(app.send(), [NoticeKind::StoreLost]);
    app.assert_whole();
    fs::remove_file(app.copy()).unwrap();
    assert_eq!(app.send(), [NoticeKind::StoreLost]);
    app.assert_whole();
}

#[test]
fn a_file_that_is_not_a_copy_is_left_unchanged() {
    let app = App::new();
    app.emit(3);
    for text in ["a shopping list\n", "{\"seq\":1,\"x\":1}\n", "\n", "a shopping list", "{\"milk\":2}"] {
        fs::write(app.copy(), text).unwrap();
        let (forwarder, notices) = app.forward();
        assert!(forwarder.drain(Duration::from_millis(300)).is_err());
        assert_eq!(forwarder.stats().state, State::Setup);
        let told = notices.lock().unwrap()[0].message.clone();
        assert!(told.contains("line 1 of ") && told.contains("copy.jsonl is not a record"), "{told}");
        drop(forwarder);
        assert_eq!(fs::read_to_string(app.copy()).unwrap(), text);
    }
    fs::remove_file(app.copy()).unwrap();
    fs::create_dir(app.copy()).unwrap();
    let (forwarder, _) = app.forward();
    assert!(forwarder.drain(Duration::from_millis(300)).is_err());
    assert_eq!(forwarder.stats().state, State::Setup);
}

#[test]
fn a_directory_without_a_log_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("log"), dir.path().join("copy.jsonl"));
    drop(AuditLog::builder(&path).stderr(false).open().unwrap());
    let forwarder = Forwarder::builder("copy").start_beside(&path, FileSink::new(&copy)).unwrap();
    forwarder.drain(LONG).unwrap();
    // For a forwarder beside the process, records that the log does not mark as durable have to wait. A
    // `close` marks them.
    let before = fs::read_to_string(&copy).unwrap().lines().count();
    AuditLog::builder(&path).stderr(false).open().unwrap().close().unwrap();
    forwarder.drain(LONG).unwrap();
    assert_eq!(fs::read_to_string(&copy).unwrap().lines().count(), before + 2);
}

/// Forwarding began in the middle of a segment, so the id of the chain is in a file beside the copy.
#[cfg(unix)]
#[test]
fn both_files_of_a_copy_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let app = App::new();
    app.emit(3);
    let builder = Forwarder::builder("copy").start_at(StartAt::Now);
    let forwarder = builder.start(&app.log, FileSink::new(app.copy())).unwrap();
    forwarder.drain(LONG).unwrap();
    app.emit(3);
    forwarder.close(LONG).unwrap();
    for name in ["copy.jsonl", "copy.jsonl.chains"] {
        let mode = fs::metadata(app.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
