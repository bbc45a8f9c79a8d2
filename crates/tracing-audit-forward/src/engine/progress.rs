//! What the store is known to have, and when that is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing_audit::Head;

use crate::{
    error::Error,
    position::{Acknowledged, Files, Known},
    sink::Entry,
};

/// How often the position is written while a store that can be asked is kept busy.
const WRITE_AFTER: Duration = Duration::from_secs(1);

/// What the store is known to have of each chain.
pub(super) struct Progress {
    pub(super) files: Files,
    pub(super) known: Known,
    /// Whether the store can be asked.
    pub(super) is_askable: bool,
    /// Whether what is known is not yet written.
    pub(super) is_dirty: bool,
    /// Whether the store acknowledged something since it was asked.
    pub(super) is_unasked: bool,
    written: Instant,
}

impl Progress {
    pub(super) fn new(files: Files) -> Self {
        Self {
            files,
            known: Known::default(),
            is_askable: false,
            is_dirty: false,
            is_unasked: false,
            written: Instant::now(),
        }
    }

    pub(super) fn read(&mut self) -> Result<(), Error> {
        self.known = self.files.read()?;
        Ok(())
    }

    /// What is known of a chain that begins behind a record, or with its first.
    pub(super) fn begun(&self, from: Option<Head>) -> Acknowledged {
        // What the store acknowledges from here on counts for retention once it is asked.
        let asked = self.is_askable.then(|| from.map_or(0, |head| head.seq()));
        Acknowledged { from, last: from, asked, ..Acknowledged::default() }
    }

    /// Nothing more is to be done for a record.
    pub(super) fn passed(&mut self, entry: &Entry) {
        let begun = self.begun(None);
        let known = self.known.chains.entry(Arc::clone(&entry.chain_id)).or_insert(begun);
        known.last = Some(entry.record.head());
        (self.is_dirty, self.is_unasked) = (true, true);
    }

    /// The same for a record that the store refused.
    pub(super) fn refused(&mut self, entry: &Entry) {
        self.passed(entry);
        let seq = entry.record.seq();
        if let Some(known) = self.known.chains.get_mut(&entry.chain_id) {
            known.refused = Some(known.refused.map_or(seq, |first| first.min(seq)));
        }
    }

    /// Believes the position alone: the store cannot be asked, whatever the one before it could.
    pub(super) fn forget_what_was_asked(&mut self) {
        for chain in self.known.chains.values_mut() {
            self.is_dirty |= chain.asked.take().is_some();
        }
    }

    /// Writes the position where a crash would make much be sent again, or twice. Not more often than that: its syncs are
    /// on the disk of the log.
    pub(super) fn write_now_and_then(&mut self) -> Result<(), Error> {
        if self.is_dirty && (!self.is_askable || self.written.elapsed() >= WRITE_AFTER) {
            self.write()?;
        }
        Ok(())
    }

    pub(super) fn write(&mut self) -> Result<(), Error> {
        if self.is_dirty {
            self.files.write(&self.known)?;
            self.is_dirty = false;
            self.written = Instant::now();
        }
        Ok(())
    }
}
