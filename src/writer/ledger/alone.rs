//! Records that are a write of their own: the end of a run, and what retention removes.

use super::{Ledger, Run, Trouble};
use crate::{
    chain_reader::NotedState,
    clock::Moment,
    format::{PruneInfo, seal},
};

impl Ledger {
    /// Makes everything durable, then writes the last record of an orderly end. Where it fails, the next attempt makes
    /// another, so that a chain never closes twice. Behind a file that came to nothing, the chain ends where no segment
    /// can be begun only if that is said to be the last attempt: it is found to be unclean then.
    pub(in crate::writer) fn close(
        &mut self,
        payload: &[u8],
        is_last: bool,
        now: &Moment,
    ) -> Result<(), Trouble> {
        self.note_open()?;
        self.sync()?;
        if self.live.is_none() || self.has_idle_files() {
            // A file that came to nothing, with nothing behind it to say so, looks like one that was emptied.
            match self.begin_segment(now) {
                Err(trouble) if trouble.old_goes_on && is_last => {}
                begun => begun?,
            }
        }
        if !self.write_alone(payload)? {
            return Ok(());
        }
        self.run = Run::Closed;
        // Whether a run ended in order its lines decide. Where this fails, the next opener notes it.
        drop(self.lock.write_named(&self.named));
        drop(self.note(NotedState::Closed));
        Ok(())
    }

    /// Makes everything durable, then a record as a write of its own; says whether it is, and there was a segment to
    /// write it to. It is no draft that is retained: where it fails, it is gone, and in another chain it would be wrong.
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

    /// Makes a `prune` record durable; says whether it is. Until then no file goes.
    pub(in crate::writer) fn prune(&mut self, info: &PruneInfo, now: &Moment) -> Result<bool, Trouble> {
        let is_durable = self.write_alone(&info.payload(now.wall))?;
        if is_durable {
            self.pruned = Some((info.through, info.hash));
        }
        Ok(is_durable)
    }
}
