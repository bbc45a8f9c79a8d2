//! Lines of a chain that were taken and are not yet in its files.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    chain::CollectedChain,
    directory::{Directory, append},
};
use crate::error::Error;

/// A chain, and its lines that are not yet in its files.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) row: CollectedChain,
    /// Whether its file differs from the table, so that nothing is appended.
    pub(super) is_damaged: bool,
    pending: Vec<PendingLines>,
}

/// The files that were written since the last sync, and which of them are new.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) all: BTreeSet<PathBuf>,
    pub(super) begun: BTreeSet<PathBuf>,
}

/// Consecutive lines of one segment.
#[derive(Debug)]
pub(super) struct PendingLines {
    file_name: String,
    /// Whether these lines begin the file.
    begins: bool,
    lines: Vec<u8>,
}

impl Held {
    pub(super) const fn of(row: CollectedChain) -> Self {
        Self { row, is_damaged: false, pending: Vec::new() }
    }

    pub(super) fn add(&mut self, line: &[u8], begins: bool) {
        if begins || self.pending.is_empty() {
            self.pending.push(PendingLines { file_name: self.row.file_name(), begins, lines: Vec::new() });
        }
        if let Some(last) = self.pending.last_mut() {
            last.lines.extend_from_slice(line);
            last.lines.push(b'\n');
        }
    }

    pub(super) fn write(&mut self, directory: &Directory, written: &mut Written) -> Result<(), Error> {
        let Some(log) = self.row.log.as_deref().filter(|_| !self.pending.is_empty()) else { return Ok(()) };
        for PendingLines { file_name, begins, lines } in self.pending.drain(..) {
            let path = directory.log(log).join(file_name);
            append(&path, begins, &lines)?;
            if begins {
                written.begun.insert(path.clone());
            }
            written.all.insert(path);
        }
        Ok(())
    }
}
