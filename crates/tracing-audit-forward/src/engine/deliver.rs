//! Offers records to the store, and records the outcome.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing_audit::Reader;

use super::{Engine, Halt};
use crate::{
    pause::Pauses,
    position::Refusal,
    sink::{Entry, SinkError},
    stats::NoticeKind,
};

/// How many refusals in a row are taken as refusals of single records.
const REFUSALS: u32 = 16;

impl Engine {
    /// Offers a batch, and divides it if the store refuses it because of its content.
    pub(super) fn deliver(&mut self, batch: &[Entry]) -> Result<(), Halt> {
        if batch.is_empty() {
            return Ok(());
        }
        // For `Forwarder::stats` while the call below hangs.
        self.shared.lock().oldest = Some((Instant::now(), age_of(batch)));
        match self.call(|sink| sink.offer(batch)) {
            Ok(()) => self.acknowledge(batch),
            Err(SinkError::Refused { reason }) => self.divide(batch, &reason)?,
            Err(SinkError::Partly { refused }) => self.deliver_in_part(batch, refused)?,
            Err(SinkError::Conflict { index, stored }) => {
                let at = batch.get(index).map(|entry| entry.record.head().to_string()).unwrap_or_default();
                let why = format!(
                    "the store has another record in the place of {at}, with hash {stored}: a log or a store was restored or \
                     cloned"
                );
                self.deliver_without(batch, index, why, SinkError::Conflict { index, stored })?;
            }
            Err(SinkError::Chain { index, reason }) => {
                self.deliver_without(batch, index, reason.clone(), SinkError::Chain { index, reason })?;
            }
            Err(failed @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) => {
                return Err(Halt::Sink(failed));
            }
        }
        Ok(())
    }

    /// Stops the chain of this record, and offers the others.
    fn deliver_without(
        &mut self,
        batch: &[Entry],
        index: usize,
        why: String,
        error: SinkError,
    ) -> Result<(), Halt> {
        let Some(entry) = batch.get(index) else { return Err(Halt::Sink(error)) };
        let chain = entry.record.chain();
        self.stop_chain(chain, why);
        let others: Vec<Entry> =
            batch.iter().filter(|entry| entry.record.chain() != chain).cloned().collect();
        self.deliver(&others)
    }

    fn divide(&mut self, batch: &[Entry], reason: &str) -> Result<(), Halt> {
        if let [refused] = batch {
            return self.reject(refused, reason);
        }
        let (older, newer) = batch.split_at(batch.len() / 2);
        // The limit also applies to the next connection. Otherwise, if calls keep failing in between, the
        // search would start over each time and never reach the record.
        self.batch_limit = older.len();
        self.deliver(older)?;
        self.deliver(newer)
    }

    fn deliver_in_part(&mut self, batch: &[Entry], refused: Vec<(usize, String)>) -> Result<(), Halt> {
        let count = refused.len();
        let reasons: BTreeMap<usize, String> = refused.into_iter().collect();
        let are_of_the_batch = reasons.last_key_value().is_some_and(|(last, _)| *last < batch.len());
        if !are_of_the_batch || reasons.len() != count {
            let reason = "the sink names refused records that are not in the batch, or twice".to_owned();
            return Err(Halt::Sink(SinkError::Setup { reason }));
        }
        if self.progress.is_askable {
            // After a kill at this point, the store would report a position beyond the records that it
            // refused.
            let reason = reasons.into_values().next().unwrap_or_default();
            return self.divide(batch, &reason);
        }
        if let Some((_, accepted)) = batch.iter().enumerate().find(|(index, _)| !reasons.contains_key(index))
        {
            self.accepted(accepted);
        }
        let mut begin = 0;
        for (index, reason) in reasons {
            if let (Some(accepted @ [_, ..]), Some(entry)) = (batch.get(begin..index), batch.get(index)) {
                self.acknowledge(accepted);
                self.reject(entry, &reason)?;
            } else if let Some(entry) = batch.get(index) {
                self.reject(entry, &reason)?;
            }
            begin = index + 1;
        }
        if let Some(accepted @ [_, ..]) = batch.get(begin..) {
            self.acknowledge(accepted);
        }
        Ok(())
    }

    fn accepted(&mut self, entry: &Entry) {
        self.refused_in_a_row = 0;
        self.batch_limit = self.batch_limit.saturating_mul(2).min(self.pace.batch_records);
        self.last_accepted = Some(entry.clone());
    }

    fn acknowledge(&mut self, batch: &[Entry]) {
        self.healed();
        if let Some(newest) = batch.last() {
            self.accepted(newest);
        }
        for entry in batch {
            self.progress.passed(entry);
        }
        let mut state = self.shared.lock();
        state.stats.batches += 1;
        state.stats.records += batch.len() as u64;
        state.stats.bytes += batch.iter().map(|entry| entry.record.as_json().len() as u64 + 1).sum::<u64>();
    }

    fn reject(&mut self, entry: &Entry, reason: &str) -> Result<(), Halt> {
        if !self.is_about_the_record()? {
            let reason = format!("the store refuses every record: {reason}");
            return Err(Halt::Sink(SinkError::Setup { reason }));
        }
        // The store answers, and this record is settled.
        self.pauses = Pauses::default();
        let head = entry.record.head();
        let chain_id = entry.chain_id.to_string();
        let refusal = Refusal { record: head, chain_id, reason: reason.to_owned() };
        // Listed durably before the position passes it. A crash in between offers the record again, and
        // the list has each record only once.
        let on_list = self.progress.files.reject(&refusal)?;
        self.progress.refused(entry);
        self.write_position()?;
        {
            let stats = &mut self.shared.lock().stats;
            stats.rejections += 1;
            stats.rejected = on_list;
        }
        let message = format!(
            "the store refused record {head}: {reason}; it is named in {}",
            self.progress.files.rejected().display()
        );
        self.notify(NoticeKind::Rejected, message);
        Ok(())
    }

    /// Returns whether the store refuses this record because of its content, rather than every record.
    ///
    /// A store that accepted nothing for a while must accept a record again that it already has. For a store
    /// that never accepted anything, this test is impossible, so a few refusals are taken as they are.
    fn is_about_the_record(&mut self) -> Result<bool, Halt> {
        self.refused_in_a_row += 1;
        if self.last_accepted.is_some() && self.refused_in_a_row <= REFUSALS {
            return Ok(true);
        }
        // Not a newer record: forwarding continues after the last one that the store has.
        let Some(known) = self.last_accepted.clone().or_else(|| self.last_that_it_has()) else {
            return Ok(self.progress.files.refusals()?.len() < REFUSALS as usize);
        };
        match self.call(|sink| sink.offer(std::slice::from_ref(&known))) {
            Ok(()) => {
                self.accepted(&known);
                Ok(true)
            }
            Err(failed @ (SinkError::Unavailable { .. } | SinkError::Setup { .. })) => {
                Err(Halt::Sink(failed))
            }
            // The store distinguishes records, so it does not refuse everything.
            Err(SinkError::Conflict { .. } | SinkError::Chain { .. }) => Ok(true),
            Err(SinkError::Refused { .. } | SinkError::Partly { .. }) => Ok(false),
        }
    }

    /// Returns a record that the store acknowledged at any time, and that the log still has.
    fn last_that_it_has(&self) -> Option<Entry> {
        let refused = self.progress.files.refusals().ok()?;
        let read = self.ids.iter().filter(|(chain, _)| !self.is_left_out(**chain));
        read.filter_map(|(_, id)| Some((id, self.progress.known.chains.get(id)?))).find_map(|(id, chain)| {
            let last = chain.last?;
            let is_refused = |seq: u64| {
                let is_it = |refusal: &Refusal| refusal.record.seq() == seq && *refusal.chain_id == **id;
                chain.given_up.contains(&seq) || refused.iter().any(is_it)
            };
            let accepted = (chain.begun() + 1..=last.seq()).rev().find(|seq| !is_refused(*seq))?;
            let items = Reader::new(&self.dir).chain(last.chain()).from_seq(accepted).items();
            let record = items.ok()?.find_map(|item| item.ok()?.into_record())?;
            let is_it = record.seq() == accepted && (accepted < last.seq() || record.head() == last);
            is_it.then(|| Entry::new(Arc::clone(id), record))
        })
    }
}

fn age_of(batch: &[Entry]) -> Duration {
    let oldest = batch.iter().filter_map(|entry| entry.record.time()).min();
    oldest.and_then(|oldest| SystemTime::now().duration_since(oldest).ok()).unwrap_or_default()
}
