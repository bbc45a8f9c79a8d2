//! Takes one message after the other.

use std::{sync::Arc, time::Duration};

use tracing_audit::{Digest, ReadItem, Reader};

use super::{
    chain::{CollectedChain, FaultKind, Next},
    collector::Collector,
    feed::{Delivered, What},
    held::Held,
};
use crate::{copy::Witnessed, error::Error, origin::Origin};

/// How many chains are compared with their copy at a time, where a stream brings again what is here.
const COMPARED: usize = 64;

/// How far ahead a record may be to be read from where the one before was.
const COMPARED_ON: u64 = 1_000;

impl Collector {
    pub(super) fn take(&mut self, message: Delivered, now_ms: u64) -> Result<(), Error> {
        let Delivered { place, what } = message;
        if place <= self.fleet.place {
            return Ok(());
        }
        let mark = mark_of(&what);
        match &what {
            What::Line { origin, chain_id, line } if is_id(chain_id) => {
                self.meet(origin, chain_id, place, now_ms);
                self.take_line(origin, chain_id, line, place, now_ms)?;
            }
            What::Gap { origin, gap } if is_id(&gap.chain_id) => {
                self.meet(origin, &gap.chain_id, place, now_ms).gap(gap);
            }
            What::Line { .. } | What::Gap { .. } | What::Stranger => self.fleet.strangers += 1,
        }
        (self.fleet.place, self.fleet.last) = (place, Some(mark));
        self.is_changed = true;
        Ok(())
    }

    /// Notes that a log was heard of, and from where.
    fn meet(&mut self, origin: &Origin, chain_id: &Arc<str>, place: u64, now_ms: u64) -> &mut CollectedChain {
        let name = origin.to_string();
        let held = self.chains.entry(Arc::clone(chain_id)).or_insert_with(|| Held::new(origin, chain_id));
        let row = &mut held.row;
        if (row.service.as_str(), row.host.as_str()) != (origin.service(), origin.host()) {
            let what = format!("the chain comes from {name}, too: the log was cloned, or its host renamed");
            if row.fault.as_ref().is_none_or(|fault| fault.what != what) {
                row.note(FaultKind::Forked, row.seq, place, &what);
            }
        }
        match self.fleet.heard_ms.get_mut(&name) {
            Some(heard) => *heard = now_ms,
            None => drop(self.fleet.heard_ms.insert(name, now_ms)),
        }
        row
    }

    fn take_line(
        &mut self,
        origin: &Origin,
        chain_id: &Arc<str>,
        line: &[u8],
        place: u64,
        now_ms: u64,
    ) -> Result<(), Error> {
        let Some(held) = self.chains.get_mut(chain_id) else { return Ok(()) };
        match held.row.take(line, place, now_ms) {
            Next::Nothing => {}
            Next::Append { begins_segment, witnessed } => {
                if begins_segment {
                    self.give_directory(origin, chain_id);
                }
                if let Some(held) = self.chains.get_mut(chain_id) {
                    held.add(line, begins_segment);
                    if let Some(log) = &held.row.log
                        && !self.changed_logs.contains(log)
                    {
                        self.changed_logs.insert(log.clone());
                    }
                }
                self.unwritten += line.len();
                self.records += 1;
                for other in witnessed {
                    self.take_witness(origin, &other, place, now_ms);
                }
            }
            Next::Compare { seq, hash } => {
                self.repeats += 1;
                let here = self.hash_here(chain_id, seq)?;
                if let Some(held) = self.chains.get_mut(chain_id) {
                    held.row.compared(seq, hash, here, place);
                }
            }
        }
        Ok(())
    }

    fn take_witness(&mut self, origin: &Origin, other: &Witnessed, place: u64, now_ms: u64) {
        let id: Arc<str> = other.id.as_str().into();
        let held = self.chains.entry(Arc::clone(&id)).or_insert_with(|| Held::new(origin, &id));
        held.row.witness(other, place, now_ms);
    }

    /// Finds the directory of the log that a chain belongs to. A number that another chain has there already is that of
    /// another log of the same name, or of one that began anew.
    fn give_directory(&mut self, origin: &Origin, chain_id: &Arc<str>) {
        let Some(held) = self.chains.get_mut(chain_id) else { return };
        let (None, Some(chain)) = (&held.row.log, held.row.chain) else { return };
        let mut log = origin.to_string();
        if self.numbers.get(&(log.clone(), chain)).is_some_and(|other| other != chain_id) {
            log = format!("{log}~{}", chain_id.get(..8).unwrap_or(chain_id));
            let what = format!(
                "the log has a chain {chain:03} of another id already: it began anew, or two logs have one name; this one is \
                 in {log}"
            );
            held.row.note(FaultKind::Forked, held.row.seq, 0, &what);
        }
        self.numbers.insert((log.clone(), chain), Arc::clone(chain_id));
        held.row.log = Some(log);
    }

    /// The hash of a record that is here.
    fn hash_here(&mut self, chain_id: &Arc<str>, seq: u64) -> Result<Option<Digest>, Error> {
        let Some(held) = self.chains.get_mut(chain_id) else { return Ok(None) };
        if seq == held.row.seq {
            return Ok(held.row.hash);
        }
        let (Some(log), Some(chain)) = (held.row.log.clone(), held.row.chain) else { return Ok(None) };
        held.write(&self.directory, &mut self.written)?;
        let (mut at, mut items) = match self.replays.remove(chain_id) {
            Some((next, items)) if next <= seq && seq - next < COMPARED_ON => (next, items),
            _ => match Reader::new(self.directory.log(&log)).chain(chain).from_seq(seq).items() {
                Ok(items) => (seq, items),
                // It was missing when the rest was collected.
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
                Some(Err(_)) | None => break,
            }
        }
        if self.replays.len() >= COMPARED {
            self.replays.clear();
        }
        self.replays.insert(Arc::clone(chain_id), (at, items));
        Ok(found)
    }
}

/// What stands in the table of a message, to know it again.
pub(super) fn mark_of(what: &What) -> String {
    match what {
        What::Line { chain_id, line, .. } => {
            let end = line.get(line.len().saturating_sub(66)..).unwrap_or_default();
            format!("{chain_id} {}", String::from_utf8_lossy(end))
        }
        What::Gap { gap, .. } => format!("{} gap {} {}", gap.chain_id, gap.first_seq, gap.last_seq),
        What::Stranger => "stranger".to_owned(),
    }
}

/// Whether it is the id of a chain: 32 lower-case hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
