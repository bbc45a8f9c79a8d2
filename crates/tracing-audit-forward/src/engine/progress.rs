//! What the store is known to have, and when that is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing_audit::Head;

use crate::{
    error::Error,
    position::{Acknowledged, Files, Known, Refusal},
    sink::Entry,
};

/// How often the position is written while a store that can be asked is kept busy.
const WRITE_AFTER: Duration = Duration::from_secs(1);

/// What the store is known to have of each chain.
#[expect(clippy::struct_excessive_bools, reason = "each is true or not whatever the others are")]
pub(super) struct Progress {
    pub(super) files: Files,
    pub(super) known: Known,
    /// Whether the store can be asked what it has.
    pub(super) is_askable: bool,
    /// Whether there is a position, or it is known where forwarding begins without one.
    pub(super) has_begun: bool,
    /// Whether something has not been written yet.
    pub(super) is_dirty: bool,
    /// Whether the store acknowledged something since it was last asked.
    pub(super) is_unasked: bool,
    written: Instant,
}

impl Progress {
    pub(super) fn new(files: Files) -> Self {
        Self {
            files,
            known: Known::default(),
            is_askable: false,
            has_begun: false,
            is_dirty: false,
            is_unasked: false,
            written: Instant::now(),
        }
    }

    pub(super) fn read(&mut self) -> Result<(), Error> {
        self.known = self.files.read()?;
        self.has_begun = self.files.position().exists();
        Ok(())
    }

    /// Returns the initial state of a chain that begins after a record, or with its first.
    pub(super) fn begun(&self, from: Option<Head>) -> Acknowledged {
        // What the store acknowledges from here on counts for retention once the store reports it.
        let asked = self.is_askable.then(|| from.map_or(0, |head| head.seq()));
        Acknowledged { from, last: from, asked, ..Acknowledged::default() }
    }

    /// Advances the position past a record.
    pub(super) fn passed(&mut self, entry: &Entry) {
        let begun = self.begun(None);
        let known = self.known.chains.entry(Arc::clone(&entry.chain_id)).or_insert(begun);
        known.last = Some(entry.record.head());
        (self.is_dirty, self.is_unasked) = (true, true);
    }

    /// Advances the position past a record that the store refused.
    pub(super) fn refused(&mut self, entry: &Entry) {
        self.passed(entry);
        let seq = entry.record.seq();
        if let Some(known) = self.known.chains.get_mut(&entry.chain_id) {
            known.refused = Some(known.refused.map_or(seq, |first| first.min(seq)));
        }
    }

    /// Relies on the position alone, except for chains that are left out. This store cannot be asked, even if
    /// a previous store could.
    pub(super) fn forget_what_was_asked(&mut self, left_out: &[Arc<str>]) {
        for (id, chain) in &mut self.known.chains {
            let asked = left_out.contains(id).then(|| chain.begun());
            self.is_dirty |= chain.asked != asked;
            chain.asked = asked;
        }
    }

    /// Clears what the store reported of a chain, so that it does not count for retention: it may be of
    /// another log.
    pub(super) fn clear_asked(&mut self, id: &Arc<str>) {
        if let Some(chain) = self.known.chains.get_mut(id) {
            let asked = Some(chain.begun());
            self.is_dirty |= chain.asked != asked;
            chain.asked = asked;
        }
    }

    /// Clears what the store reported of all other chains until it reports them again: it may have less by
    /// then.
    pub(super) fn clear_asked_except(&mut self, ids: &[Arc<str>]) {
        let asked = self.known.chains.iter().filter(|(_, chain)| chain.asked.is_some());
        let asked: Vec<Arc<str>> =
            asked.map(|(id, _)| Arc::clone(id)).filter(|id| !ids.contains(id)).collect();
        for id in &asked {
            self.clear_asked(id);
        }
    }

    /// Takes over the list of refused records.
    pub(super) fn note_refusals(&mut self, refusals: &[Refusal]) {
        for (id, chain) in &mut self.known.chains {
            let of_chain = refusals.iter().filter(|refusal| *refusal.chain_id == **id);
            let first = of_chain.map(|refusal| refusal.record.seq()).min();
            self.is_dirty |= chain.refused != first;
            chain.refused = first;
        }
    }

    /// Returns whether the position has to be written: where a crash would cause much to be sent again, or
    /// twice. Not more often, because its syncs go to the disk of the log.
    pub(super) fn is_due(&self) -> bool {
        self.is_dirty && (!self.is_askable || self.written.elapsed() >= WRITE_AFTER)
    }

    pub(super) fn write(&mut self) -> Result<(), Error> {
        if self.is_dirty && self.has_begun {
            self.written = Instant::now();
            self.files.write(&self.known)?;
            self.is_dirty = false;
        }
        Ok(())
    }
}
