//! The logs that are forwarded.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use tracing_audit::{AuditLog, OnFull};
use tracing_subscriber::prelude::*;

use crate::Result;

/// Writes a log with this many events; returns its size.
pub(crate) fn make(path: &Path, records: u64) -> Result<u64> {
    let audit = AuditLog::builder(path).on_full(OnFull::Block).open()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        for n in 0..records {
            emit(n);
        }
    });
    audit.close()?;
    Ok(segments(path)?.iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum())
}

pub(crate) fn emit(n: u64) {
    tracing::info!(
        target: "audit",
        action = "document.read",
        actor = "mia",
        resource = "contract/7481",
        outcome = "success",
        session_id = "s-1907",
        n,
        "read a contract"
    );
}

fn segments(log: &Path) -> Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = fs::read_dir(log)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "jsonl"));
    names.sort();
    Ok(names)
}

/// Reads the lines of a log, a thousand at a time.
pub(crate) fn batches(log: &Path, mut take: impl FnMut(&[String]) -> Result<()>) -> Result<()> {
    let mut batch = Vec::new();
    for name in segments(log)? {
        for line in BufReader::new(File::open(name)?).lines() {
            batch.push(line?);
            if batch.len() == 1_000 {
                take(&batch)?;
                batch.clear();
            }
        }
    }
    if batch.is_empty() { Ok(()) } else { take(&batch) }
}

/// Makes every forwarder begin with the first record.
pub(crate) fn forget_positions(log: &Path) -> Result<()> {
    let control = log.join("control");
    for entry in fs::read_dir(control).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("forward-") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
