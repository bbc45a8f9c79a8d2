//! Offers records to the store, and notes what became of them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{Engine, Halt};
use crate::{
    position::Refusal,
    sink::{Entry, SinkError},
    stats::NoticeKind,
};

/// As many records in a row that the store refuses are no matter of what is in them.
const REFUSALS: u32 = 16;

impl Engine {
    /// Offers a batch, and divides it where the store refuses it for what is in it.
    pub(super) fn deliver(&mut self, batch: &[Entry]) -> Result<(), Halt> {
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.lock().stats.lag = age_of(batch);
        match self.sink.offer(batch) {
            Ok(()) => self.acknowledge(batch),
            Err(SinkError::Refused { reason }) => match batch {
                [refused] => self.reject(refused, &reason)?,
                several => {
                    let (older, newer) = several.split_at(several.len() / 2);
                    self.deliver(older)?;
                    self.deliver(newer)?;
                }
            },
            Err(SinkError::Partly { refused }) => {
                if refused.len() < batch.len() {
                    self.refused_in_a_row = 0;
                }
                let mut reasons: BTreeMap<usize, String> = refused.into_iter().collect();
                for (index, entry) in batch.iter().enumerate() {
                    match reasons.remove(&index) {
                        Some(reason) => self.reject(entry, &reason)?,
                        None => self.acknowledge(std::slice::from_ref(entry)),
                    }
                }
            }
            Err(SinkError::Conflict { index, stored }) => {
                let Some(entry) = batch.get(index) else {
                    return Err(Halt::Sink(SinkError::Conflict { index, stored }));
                };
                let (chain, head) = (entry.record.chain(), entry.record.head());
                let why = format!(
                    "the store has another record in the place of {head}, with hash {stored}: a log or a store was restored \
                     or cloned"
                );
                self.stop_chain(chain, why);
                let others: Vec<Entry> =
                    batch.iter().filter(|entry| entry.record.chain() != chain).cloned().collect();
                self.deliver(&others)?;
            }
            Err(failed @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) => {
                return Err(Halt::Sink(failed));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, batch: &[Entry]) {
        self.healed();
        self.refused_in_a_row = 0;
        for entry in batch {
            self.progress.passed(entry);
        }
        let mut state = self.shared.lock();
        state.stats.batches += 1;
        state.stats.records += batch.len() as u64;
        state.stats.bytes += batch.iter().map(|entry| entry.record.as_json().len() as u64 + 1).sum::<u64>();
    }

    fn reject(&mut self, entry: &Entry, reason: &str) -> Result<(), Halt> {
        self.refused_in_a_row += 1;
        if self.refused_in_a_row > REFUSALS && !self.takes_another(entry) {
            let reason = format!("the store refuses every record: {reason}");
            return Err(Halt::Sink(SinkError::Setup { reason }));
        }
        let head = entry.record.head();
        let chain_id = entry.chain_id.to_string();
        self.progress.files.reject(&Refusal { record: head, chain_id, reason: reason.to_owned() })?;
        self.progress.refused(entry);
        self.progress.write()?;
        self.shared.lock().stats.rejected += 1;
        let message = format!(
            "the store refused record {head}: {reason}; it is named in {}",
            self.progress.files.rejected().display()
        );
        self.tell(NoticeKind::Rejected, message);
        Ok(())
    }

    /// Whether the store takes the newest record of the batch: then it is a matter of what is in the others.
    fn takes_another(&mut self, entry: &Entry) -> bool {
        let newest = self.newest.take().filter(|newest| newest.record.head() != entry.record.head());
        let is_taken = newest.is_some_and(|newest| self.sink.offer(&[newest]).is_ok());
        if is_taken {
            self.refused_in_a_row = 0;
        }
        is_taken
    }
}

fn age_of(batch: &[Entry]) -> Duration {
    let oldest = batch.iter().filter_map(|entry| entry.record.time()).min();
    oldest.and_then(|oldest| SystemTime::now().duration_since(oldest).ok()).unwrap_or_default()
}
