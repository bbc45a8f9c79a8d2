//! One record of a log.

use std::path::Path;

use tracing_audit::{Reader, Record};

/// The record of this number, found without reading what lies before. `None` where it is not there, or cannot be read.
pub(crate) fn record_at(log: &Path, chain: u16, seq: u64) -> Option<Record> {
    let records = Reader::new(log).chain(chain).from_seq(seq).records().ok()?;
    let mut upto = records.filter_map(Result::ok).take_while(|record| record.seq() <= seq);
    upto.find(|record| record.seq() == seq)
}
