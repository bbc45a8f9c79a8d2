//! The local log as the write-ahead log of a store: `cargo run --example write_ahead`.
//!
//! An application confirms two events and is killed before its store has any. It starts again, and the store
//! gets them. Only then may retention remove them from the log. The store is a file; a database or a
//! collector works in the same way.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tracing_audit::{AuditLog, Retention, read, verify};
use tracing_audit_forward::{
    CopyChecker, Entry, FileSink, Forwarder, Position, Sink, SinkError, verify_file,
};
use tracing_subscriber::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("killed") {
        return application_that_is_killed(Path::new("."));
    }
    let dir = tempfile::tempdir()?;
    let (log, copy) = (dir.path().join("log"), dir.path().join("store.jsonl"));

    println!("1. The application runs. Its store does not answer.");
    let mut application = Command::new(std::env::current_exe()?);
    let said = application.arg("killed").current_dir(dir.path()).stderr(Stdio::inherit()).output()?;
    print!("{}", String::from_utf8(said.stdout)?);
    println!("   killed ({}); the store has {} records\n", said.status, records(&copy));

    println!("2. It starts again, and so does its store.");
    let audit = open(&log)?;
    println!("   recovered: {} records in the log", read(&log)?.count());
    audit.rotate()?;
    println!("   segments now {}: retention keeps one, and waits for the store", segments(&log)?);
    let forwarder = Forwarder::start(&audit, "archive", FileSink::new(&copy))?;
    forwarder.drain(Duration::from_secs(10))?;
    println!("   the store has {} records\n", records(&copy));

    println!("3. What the store has may go.");
    audit.rotate()?;
    println!("   segments now {}: what the store had is gone from the log", segments(&log)?);
    audit.close()?;
    forwarder.close(Duration::from_secs(10))?;
    let exported = fs::read_to_string(&copy)?.lines().filter(|line| line.contains("key.export")).count();
    println!("   the store has {} records, {exported} of them exports of a key\n", records(&copy));

    println!("4. Both can be verified.");
    verify(&log)?.ensure_intact()?;
    println!("   the log   intact");
    print!("{}", verify_file(&copy, CopyChecker::new())?);
    Ok(())
}

fn open(log: &Path) -> Result<AuditLog> {
    let retention = Retention::keep_all().max_segments(1).require_forwarded(["archive"]);
    Ok(AuditLog::builder(log).retention(retention).stderr(false).open()?)
}

/// A store that is down.
struct Down;

impl Sink for Down {
    fn positions(&mut self, _: &[Arc<str>]) -> std::result::Result<Option<Vec<Position>>, SinkError> {
        Err(SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: None })
    }

    fn offer(&mut self, _: &[Entry]) -> std::result::Result<(), SinkError> {
        Err(SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: None })
    }
}

fn application_that_is_killed(dir: &Path) -> Result<()> {
    let audit = open(&dir.join("log"))?;
    tracing_subscriber::registry().with(audit.layer()).init();
    let _forwarder = Forwarder::start(&audit, "archive", Down)?;
    for (actor, resource) in [("mia", "key/7"), ("mallory", "key/8")] {
        let receipt =
            audit.confirm(|| tracing::info!(target: "audit", action = "key.export", actor, resource))?;
        println!("   confirmed {receipt}");
    }
    // As if the process crashed: nothing is closed, flushed or forwarded.
    std::process::abort();
}

/// Returns the number of lines of a copy.
fn records(copy: &Path) -> usize {
    fs::read_to_string(copy).map_or(0, |text| text.lines().count())
}

/// Returns the segments of a log. Retention works between batches, a moment after a segment was begun.
fn segments(log: &Path) -> Result<String> {
    std::thread::sleep(Duration::from_millis(200));
    let names = fs::read_dir(log)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("audit-")).collect();
    names.sort();
    Ok(names.join(", "))
}
