//! Records that need a write of their own: `close` and `prune`.

use super::{Ledger, Run, Trouble};
use crate::{
    chain_reader::NotedState,
    clock::Moment,
    format::{PruneInfo, seal},
};

impl Ledger {
    /// Makes everything durable, then writes `close`, the last record of an orderly end. Each
    /// attempt writes a new record behind the last durable one, so a chain never closes twice.
    ///
    /// If an unused file lies behind the live segment, `close` needs a new segment first. If none
    /// can be begun either, the chain is closed anyway, but only if `is_last` is set: the next
    /// opener then takes it for unclosed.
    pub(in crate::writer) fn close(
        &mut self,
        payload: &[u8],
        is_last: bool,
        now: &Moment,
    ) -> Result<(), Trouble> {
        self.note_open()?;
        self.sync()?;
        if self.live.is_none() || self.has_idle_files() {
            // An unused file that no later first line lists looks like a segment that was emptied.
            match self.begin_segment(now) {
                Err(trouble) if trouble.old_usable && is_last => {}
                begun => begun?,
            }
        }
        if !self.write_alone(payload)? {
            return Ok(());
        }
        self.run = Run::Closed;
        // The lines alone decide whether a run ended in order. If a note fails, the next opener
        // writes it.
        drop(self.lock.write_named(&self.named));
        drop(self.note(NotedState::Closed));
        Ok(())
    }

    /// Makes everything durable, then writes and syncs one record on its own. Returns whether it is
    /// durable; it is not if there was no segment to write to. The record is not retained: after a
    /// failure it is gone, because in another chain it would be wrong.
    pub(in crate::writer) fn write_alone(&mut self, payload: &[u8]) -> Result<bool, Trouble> {
        self.note_open()?;
        self.sync()?;
        let Some(live) = self.live.take() else { return Ok(false) };
        self.lines.clear();
        let seq = self.written.0 + 1;
        self.times.note(payload);
        let hash = seal(&mut self.lines, seq, payload, Some(self.durable.seq), &self.written.1);
        self.write_lines(live, (seq, hash))?;
        self.sync()?;
        Ok(true)
    }

    /// Makes a `prune` record durable. Returns whether it is: until then, no file may be removed.
    pub(in crate::writer) fn prune(&mut self, info: &PruneInfo, now: &Moment) -> Result<bool, Trouble> {
        let is_durable = self.write_alone(&info.payload(now.wall))?;
        if is_durable {
            self.pruned = Some((info.through, info.hash));
        }
        Ok(is_durable)
    }
}
