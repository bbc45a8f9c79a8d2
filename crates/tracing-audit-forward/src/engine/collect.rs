//! Reads the records that are durable, and meets what is missing, damaged or cannot be read.

use std::{fs::File, sync::Arc, time::Duration};

use tracing_audit::{ReadItem, ReadItems, Record, RecordKind};

use super::{Engine, Halt, chain_of, said};
use crate::{
    error::Error,
    lag,
    sink::{Entry, Gap},
    stats::NoticeKind,
};

/// How much is offered at once, at most.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

impl Engine {
    /// Reads what is there, up to a batch. Says whether that was all.
    pub(super) fn collect(&mut self, items: &mut ReadItems, batch: &mut Vec<Entry>) -> Result<bool, Halt> {
        let mut bytes = 0;
        while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            match items.next_within(Duration::ZERO) {
                None => return Ok(true),
                Some(Ok(ReadItem::Record(record))) => {
                    let chain = record.chain();
                    if self.is_left_out(chain) {
                        continue;
                    }
                    let Some(chain_id) = self.id_of(items, chain) else { continue };
                    if record.kind() == RecordKind::Close
                        && let Err(error) = self.sync(&record)
                    {
                        // A second sync that succeeds would say nothing of what the first one lost.
                        self.stop_chain(chain, said(&error));
                        continue;
                    }
                    bytes += record.as_json().len();
                    batch.push(Entry::new(chain_id, record));
                }
                Some(Ok(ReadItem::Gap { chain, first_seq, last_seq, .. })) => {
                    if !self.is_left_out(chain) {
                        // What lies before it goes first.
                        self.deliver(batch)?;
                        batch.clear();
                        self.meet_gap(items, chain, first_seq, last_seq)?;
                    }
                }
                Some(Ok(ReadItem::Withdrawn { chain, from_seq, .. })) => {
                    self.stop_chain(
                        chain,
                        format!("records from {from_seq} on were durable and are withdrawn; verify the log"),
                    );
                    batch.retain(|entry| entry.record.chain() != chain);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    // What was read goes on its way.
                    self.deliver(batch)?;
                    batch.clear();
                    let error = Error::from(error);
                    if !chain_of(&error).is_some_and(|(chain, _)| self.is_left_out(chain)) {
                        self.go_on_without(error)?;
                    }
                }
            }
        }
        Ok(false)
    }

    fn id_of(&mut self, items: &ReadItems, chain: u16) -> Option<Arc<str>> {
        if let Some(id) = self.ids.get(&chain) {
            return Some(Arc::clone(id));
        }
        self.ids.extend(items.chains().into_iter().map(|(chain, id)| (chain, Arc::from(id))));
        self.ids.get(&chain).map(Arc::clone)
    }

    /// A `close` can be read a moment before it is durable, and a power cut in that moment takes it back.
    fn sync(&self, record: &Record) -> Result<(), Error> {
        let path = self.dir.join(record.file_name());
        let synced = File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(Error::io("sync", path))
    }

    /// Records are missing: retention removed them, or somebody else did.
    fn meet_gap(&mut self, items: &ReadItems, chain: u16, first_seq: u64, last_seq: u64) -> Result<(), Halt> {
        let pruned = match lag::pruned_through(&self.dir, chain) {
            Ok(pruned) => pruned,
            Err(error) => return self.go_on_without(error),
        };
        if pruned.is_none_or(|through| through < last_seq) {
            let why = format!(
                "records {first_seq} to {last_seq} are missing, and retention did not remove them; verify the log"
            );
            self.stop_chain(chain, why);
            return Ok(());
        }
        let Some(chain_id) = self.id_of(items, chain) else { return Ok(()) };
        let gap = Gap { chain_id, chain, first_seq, last_seq };
        self.sink.gap(&gap).map_err(Halt::Sink)?;
        if self.told_gaps.insert(chain, gap.clone()).is_some_and(|told| told == gap) {
            return Ok(());
        }
        self.shared.lock().stats.missed += last_seq - first_seq + 1;
        let message = format!(
            "retention removed records {first_seq} to {last_seq} of chain {chain:03} before they were forwarded"
        );
        self.tell(NoticeKind::Missed, message);
        Ok(())
    }
}
