//! Takes one message after another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing_audit::{Digest, ReadItem, Reader};

use super::{
    chain::{FaultKind, Next},
    collector::{Collector, MemoryState},
    feed::{Delivered, What},
    held::Held,
    log::Log,
};
use crate::{copy::is_chain_id, error::Error, origin::Origin};

/// How many chains are compared with their copies at a time, when a stream delivers again what is here.
const MAX_COMPARED: usize = 64;

/// How many records may be skipped before a new reader is opened.
const MAX_SKIPPED: u64 = 1_000;

/// The time at which a message was taken, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) ms: u64,
}

impl Collector {
    pub(super) fn take(&mut self, message: Delivered, now: Now) -> Result<(), Error> {
        let Delivered { place, what } = message;
        // Delivered again after a new start.
        if place <= self.fleet.place {
            return Ok(());
        }
        // Before anything changes: if a call below fails, memory no longer matches the table.
        self.memory_state = MemoryState::Ahead;
        match &what {
            What::Line { origin, chain_id, line } if is_chain_id(chain_id) => {
                self.take_line(origin, chain_id, line, place, now)?;
            }
            What::Gap { origin, gap } if is_chain_id(&gap.chain_id) => {
                if let Some(held) = self.note_message(origin, &gap.chain_id, place, now) {
                    held.row.gap(gap, now.ms);
                }
            }
            What::Line { .. } | What::Gap { .. } | What::Stranger => self.fleet.strangers += 1,
        }
        (self.fleet.place, self.fleet.last) = (place, Some(mark_of(&what)));
        self.is_changed = true;
        Ok(())
    }

    /// Records that something of a log arrived. Returns the chain, unless the log has too many.
    fn note_message(
        &mut self,
        origin: &Origin,
        chain_id: &Arc<str>,
        place: u64,
        now: Now,
    ) -> Option<&mut Held> {
        if !self.logs.contains_key(origin) {
            self.logs.insert(origin.clone(), Log::new(origin.clone()));
        }
        let log = self.logs.get_mut(origin)?;
        log.note_arrival(now.instant, now.ms);
        let (held, is_new) = log.chain(chain_id)?;
        if is_new {
            let owner = self.owners.entry(Arc::clone(chain_id)).or_insert_with(|| origin.clone());
            if owner != origin {
                let what =
                    format!("the chain comes from {owner}, too: the log was cloned, or its host renamed");
                held.row.note(FaultKind::Forked, 0, place, &what);
            }
        }
        Some(held)
    }

    fn take_line(
        &mut self,
        origin: &Origin,
        chain_id: &Arc<str>,
        line: &[u8],
        place: u64,
        now: Now,
    ) -> Result<(), Error> {
        let Some(held) = self.note_message(origin, chain_id, place, now) else { return Ok(()) };
        // Its copy was damaged.
        if held.is_damaged {
            if held.row.untaken == 0 {
                held.row.untaken = place;
            }
            return Ok(());
        }
        match held.row.take(line, place, now.ms) {
            Next::Nothing => {}
            Next::Append { begins_segment, witnessed } => {
                let Some(log) = self.logs.get_mut(origin) else { return Ok(()) };
                if begins_segment {
                    log.give_directory(chain_id);
                }
                if let Some(held) = log.chains.get_mut(chain_id) {
                    held.add(line, begins_segment);
                    if let Some(dir) = &held.row.log
                        && !self.changed_logs.contains(dir)
                    {
                        self.changed_logs.insert(dir.clone());
                    }
                }
                for other in &witnessed {
                    log.witness(other, place, now.ms);
                }
                self.unwritten += line.len();
                self.records += 1;
            }
            Next::Compare { seq, hash } => {
                self.repeats += 1;
                let here = self.hash_here(origin, chain_id, seq)?;
                if let Some(held) = self.logs.get_mut(origin).and_then(|log| log.chains.get_mut(chain_id)) {
                    held.row.compared(seq, hash, here, place);
                }
            }
        }
        Ok(())
    }

    /// Returns the hash of a record in the copy.
    fn hash_here(&mut self, origin: &Origin, chain_id: &Arc<str>, seq: u64) -> Result<Option<Digest>, Error> {
        let held = self.logs.get_mut(origin).and_then(|log| log.chains.get_mut(chain_id));
        let Some(held) = held else { return Ok(None) };
        if seq == held.row.seq {
            return Ok(held.row.hash);
        }
        let (Some(log), Some(chain)) = (held.row.log.clone(), held.row.chain) else { return Ok(None) };
        // The reader below reads the files, so the pending lines go there first.
        held.write(&self.directory, &mut self.written)?;
        let key = (origin.clone(), Arc::clone(chain_id));
        let (mut at, mut items) = match self.replays.remove(&key) {
            Some((next, items)) if next <= seq && seq - next < MAX_SKIPPED => (next, items),
            _ => match Reader::new(self.directory.log(&log)).chain(chain).from_seq(seq).items() {
                Ok(items) => (seq, items),
                Err(error @ tracing_audit::Error::Io { .. }) => return Err(error.into()),
                // The copy has a hole there, or is damaged.
                Err(_) => return Ok(None),
            },
        };
        let mut found = None;
        while at <= seq {
            match items.next_within(Duration::ZERO) {
                Some(Ok(ReadItem::Record(record))) => {
                    at = record.seq() + 1;
                    if record.seq() == seq {
                        found = Some(record.hash());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error @ tracing_audit::Error::Io { .. })) => return Err(error.into()),
                Some(Err(_)) | None => break,
            }
        }
        // Bounds the number of open files. A reader that is dropped is opened again when it is needed.
        if self.replays.len() >= MAX_COMPARED {
            self.replays.clear();
        }
        self.replays.insert(key, (at, items));
        Ok(found)
    }
}

/// Returns the text by which the table recognises a message.
pub(super) fn mark_of(what: &What) -> String {
    match what {
        What::Line { chain_id, line, .. } => {
            // The last 66 bytes are the hash and the end of the object, which identify the line.
            let end = line.get(line.len().saturating_sub(66)..).unwrap_or_default();
            format!("{chain_id} {}", String::from_utf8_lossy(end))
        }
        What::Gap { gap, .. } => format!("{} gap {} {}", gap.chain_id, gap.first_seq, gap.last_seq),
        What::Stranger => "stranger".to_owned(),
    }
}
