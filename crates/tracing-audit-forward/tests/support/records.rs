//! Records to offer: from a real log, or written by hand if the library would not write such a line.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc};

use sha2::{Digest as _, Sha256};
use tracing_audit::{AuditLog, Reader};
use tracing_audit_forward::Entry;
use tracing_subscriber::prelude::*;

/// Returns the records of a log in which `emit` ran.
pub(crate) fn logged(emit: impl FnOnce()) -> Vec<Entry> {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path().join("log")).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), emit);
    log.close().unwrap();
    read(&dir.path().join("log"))
}

/// Returns this many records of events.
pub(crate) fn events(count: u64) -> Vec<Entry> {
    logged(|| {
        for number in 0..count {
            tracing::info!(target: "audit", action = "item.read", actor = "mia", number, "read an item");
        }
    })
}

/// Returns everything in a log, in the order of each chain.
pub(crate) fn read(dir: &Path) -> Vec<Entry> {
    let mut ids: BTreeMap<u16, Arc<str>> = BTreeMap::new();
    let mut entries = Vec::new();
    for record in Reader::new(dir).records().unwrap() {
        let record = record.unwrap();
        if let Some(id) = record.get("segment").and_then(|segment| segment.get("id")?.as_str()) {
            ids.insert(record.chain(), id.into());
        }
        entries.push(Entry::new(Arc::clone(&ids[&record.chain()]), record));
    }
    entries
}

/// Returns a log of these members, each the text between `seq` and `_prev_hash`, after a `segment` line.
pub(crate) fn by_hand(members: &[&str]) -> Vec<Entry> {
    const SEGMENT: &str = r#""ts":"2026-01-01T00:00:00.000000001Z","kind":"segment","segment":{"format":1,"id":"0123456789abcdef0123456789abcdef","chain":"000","segment":1,"after":[],"chains":{}}"#;
    let dir = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    let mut previous = "0".repeat(64);
    for (seq, members) in (1..).zip([SEGMENT].iter().chain(members)) {
        let (line, hash) = sealed(seq, members, &previous);
        lines.push_str(&line);
        lines.push('\n');
        previous = hash;
    }
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("log/audit-000-00000001.jsonl"), lines).unwrap();
    read(&dir.path().join("log"))
}

/// Returns a line, without its line feed, and its hash.
pub(crate) fn sealed(seq: u64, members: &str, previous: &str) -> (String, String) {
    let body = format!(r#"{{"seq":{seq},{members},"_prev_hash":"{previous}""#);
    let hash = hex(&Sha256::digest(format!("\0{body}}}")));
    (format!(r#"{body},"_hash":"{hash}"}}"#), hash)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
