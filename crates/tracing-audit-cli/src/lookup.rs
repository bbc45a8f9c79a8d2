//! Looks up a single record.

use std::path::Path;

use tracing_audit::{Reader, Record};

/// Finds a record by its number, without reading the records before it. Returns `None` if it is missing or cannot be read.
pub(crate) fn record_at(log: &Path, chain: u16, seq: u64) -> Option<Record> {
    let records = Reader::new(log).chain(chain).from_seq(seq).records().ok()?;
    // Bad lines are skipped, and reading ends at the first number above the wanted one.
    let mut upto = records.filter_map(Result::ok).take_while(|record| record.seq() <= seq);
    upto.find(|record| record.seq() == seq)
}
