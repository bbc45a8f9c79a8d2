//! Where forwarding begins: what the store reports, and the place in the log after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing_audit::{Digest, Head, ReadItems, Reader};

use super::{Engine, Halt, chain_of};
use crate::{
    dead,
    error::{Error, with_source},
    forwarder::StartAt,
    heads::HeadWatch,
    lag,
    position::{Acknowledged, Refusal},
    stats::NoticeKind,
};

impl Engine {
    /// Asks the store what it has, and opens the log there. `None` if nothing can be read.
    pub(super) fn connect(&mut self) -> Result<Option<ReadItems>, Halt> {
        if !self.has_name() {
            return Err(Halt::NameLost);
        }
        self.find_chains()?;
        let ids: Vec<Arc<str>> = self.ids.values().cloned().collect();
        let positions = self.call(|sink| sink.positions(&ids)).map_err(Halt::Sink)?;
        self.progress.is_askable = positions.is_some();
        self.progress.is_unasked = false;
        let refusals = self.progress.files.refusals()?;
        self.shared.lock().stats.rejected = refusals.len() as u64;
        let (left_out, read) = self.left_out_and_read();
        if let Some(positions) = positions {
            let positions = positions.into_iter().map(|at| (at.chain_id, (at.seq, at.hash))).collect();
            self.adopt_positions(&positions, &refusals);
            // The store was not asked about the others, or what it has of them may be of another log.
            self.progress.clear_asked_except(&read);
            // The store may also have lost the record that it accepted last.
            self.last_accepted = None;
        } else {
            self.progress.forget_what_was_asked(&left_out);
        }
        self.progress.note_refusals(&refusals);
        self.begin_new_chains()?;
        // What the store has may be of another log. Opening finds out, so the position is written only
        // afterwards.
        let items = self.open();
        self.write_position()?;
        items
    }

    /// Returns the ids of the chains that are left out, and those of the others.
    fn left_out_and_read(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let ids = |left_out: bool| {
            let chains = self.ids.iter().filter(move |(chain, _)| self.is_left_out(**chain) == left_out);
            chains.map(|(_, id)| Arc::clone(id)).collect()
        };
        (ids(true), ids(false))
    }

    /// Finds the chains that the log has now. A chain that cannot be read keeps the id that it had.
    fn find_chains(&mut self) -> Result<(), Halt> {
        let chains: Vec<u16> = dead::ends(&self.dir)?.into_keys().collect();
        self.left_out = self.shared.lock().stats.stopped.keys().copied().collect();
        let mut failed = BTreeSet::new();
        let found: BTreeMap<u16, Arc<str>> = loop {
            let readable: Vec<u16> = chains.iter().copied().filter(|chain| !failed.contains(chain)).collect();
            if readable.is_empty() {
                break BTreeMap::new();
            }
            let reader =
                readable.iter().fold(Reader::new(&self.dir).last(0), |reader, chain| reader.chain(*chain));
            match reader.items() {
                Ok(items) => {
                    break items.chains().into_iter().map(|(chain, id)| (chain, id.into())).collect();
                }
                Err(tracing_audit::Error::NoLog { .. }) => break BTreeMap::new(),
                Err(error) => {
                    let error = Error::from(error);
                    let Some((chain, is_damaged)) =
                        chain_of(&error).filter(|(chain, _)| failed.insert(*chain))
                    else {
                        return Err(error.into());
                    };
                    if !is_damaged {
                        self.leave_out(chain, with_source(&error));
                    } else if !self.is_left_out(chain) {
                        self.stop_chain(chain, with_source(&error));
                    }
                }
            }
        };
        let before = std::mem::replace(&mut self.ids, found);
        let kept = before.iter().filter(|(chain, _)| failed.contains(chain));
        self.ids.extend(kept.map(|(chain, id)| (*chain, Arc::clone(id))));
        // A new chain under the same number is a different chain.
        let is_same = |chain: &u16| {
            chains.contains(chain) && (failed.contains(chain) || before.get(chain) == self.ids.get(chain))
        };
        self.left_out.retain(is_same);
        let stats = &mut self.shared.lock().stats;
        stats.stopped.retain(|chain, _| is_same(chain));
        // A stopped chain is not read any further, so it is not unreadable.
        let is_read = |chain: &u16| !failed.contains(chain) && stats.stopped.contains_key(chain);
        self.unreadable.retain(|chain, _| chains.contains(chain) && !is_read(chain));
        stats.unreadable.clone_from(&self.unreadable);
        Ok(())
    }

    /// Replaces what the store acknowledged by what it reports.
    fn adopt_positions(&mut self, positions: &BTreeMap<Arc<str>, (u64, Digest)>, refusals: &[Refusal]) {
        for (chain, id) in self.ids.clone() {
            let known = self.progress.known.chains.get(&id).cloned().unwrap_or_default();
            let begun = [known.from, known.skipped];
            let had = known.last.filter(|last| !begun.contains(&Some(*last))).map_or(0, |last| last.seq());
            let skipped = known.skipped.map_or(0, |skipped| skipped.seq());
            // Up to there, the store has records of another log.
            let stored = positions.get(&id).filter(|(seq, _)| *seq > skipped);
            let has = stored.map_or(0, |(seq, _)| *seq);
            // The store never had the records that it refused.
            let refused = refusals.iter().filter(|refusal| *refusal.chain_id == *id);
            let refused = refused.map(|refusal| refusal.record.seq());
            let never_had: BTreeSet<u64> = refused.chain(known.given_up.iter().copied()).collect();
            // Nor those before the place where forwarding began.
            let first_missing = has.max(known.begun()) + 1;
            let is_all_refused = has < had && (first_missing..=had).all(|seq| never_had.contains(&seq));
            if has < had && !is_all_refused {
                self.shared.lock().stats.losses += 1;
                let message = format!(
                    "the store has chain {chain:03} up to record {has}, and had acknowledged {had}: it was restored or \
                     lost writes; what is missing is sent again"
                );
                self.notify(NoticeKind::StoreLost, message);
            }
            let last = match stored {
                _ if is_all_refused => known.last,
                Some((seq, hash)) => format!("{chain:03}/{seq}:{hash}").parse().ok(),
                None => known.skipped.or(known.from),
            };
            let asked = Some(last.map_or(0, |last| last.seq()));
            // Up to there, refused records no longer matter.
            let given_up = known.given_up.iter().copied().filter(|seq| *seq > has).collect();
            let now = Acknowledged { last, asked, given_up, ..known };
            if self.progress.known.chains.get(&id) != Some(&now) {
                self.progress.known.chains.insert(id, now);
                self.progress.is_dirty = true;
            }
        }
    }

    /// Records where forwarding begins in chains of which nothing is known.
    fn begin_new_chains(&mut self) -> Result<(), Halt> {
        if self.progress.has_begun {
            return Ok(());
        }
        if let StartAt::After(head) = self.settings.start_at {
            // Without the record of the head, nothing would reveal that records before it are missing.
            let items = match Reader::new(&self.dir).chain(head.chain()).after(head).items() {
                Err(tracing_audit::Error::NoSuchRecord { .. } | tracing_audit::Error::NoLog { .. }) => None,
                items => Some(items.map_err(Error::from)?),
            };
            let has_chain = |items: ReadItems| items.chains().iter().any(|(chain, _)| *chain == head.chain());
            if !items.is_some_and(has_chain) {
                return Err(Halt::Setting(format!(
                    "the log {} has no record {head}, after which forwarding was told to begin; name one that it has",
                    self.dir.display()
                )));
            }
        }
        let own_head = self.heads.as_mut().map(HeadWatch::head);
        for (chain, id) in &self.ids {
            if self.progress.known.last(id).is_some() {
                continue;
            }
            let from = match self.settings.start_at {
                StartAt::Beginning => None,
                StartAt::Now => {
                    // Of the program's own chain, the log itself shows the durable head only later.
                    let own = own_head.filter(|head| head.chain() == *chain);
                    [lag::durable_head(&self.dir, *chain)?, own].into_iter().flatten().max_by_key(Head::seq)
                }
                StartAt::After(head) => Some(head).filter(|head| head.chain() == *chain),
            };
            let begun = self.progress.begun(from);
            self.progress.known.chains.insert(Arc::clone(id), begun);
        }
        (self.progress.has_begun, self.progress.is_dirty) = (true, true);
        Ok(())
    }

    /// Opens the log after the last acknowledged record of each chain.
    fn open(&mut self) -> Result<Option<ReadItems>, Halt> {
        loop {
            // A chain without an id is reported when it is read.
            let mut wanted: Vec<u16> = dead::ends(&self.dir)?.into_keys().collect();
            wanted.retain(|chain| !self.is_left_out(*chain));
            if !self.left_out.is_empty() && wanted.is_empty() {
                return Ok(None);
            }
            let mut reader = Reader::new(&self.dir).durable_only(true).follow(true);
            if !self.left_out.is_empty() {
                // Without those that are left out. New chains are noticed when the store is next asked.
                for chain in wanted {
                    reader = reader.chain(chain);
                }
            }
            for (chain, id) in &self.ids {
                let last = self.progress.known.last(id);
                if let Some(head) = last.filter(|_| !self.is_left_out(*chain)) {
                    reader = reader.after(head);
                }
            }
            match reader.items() {
                Ok(items) => return Ok(Some(items)),
                Err(tracing_audit::Error::NoSuchRecord { head, .. }) if !self.is_left_out(head.chain()) => {
                    let why = format!(
                        "the store has record {head}, and the log does not: the log was cut, restored or cloned; verify \
                         it with this head"
                    );
                    self.stop_chain(head.chain(), why);
                }
                Err(error) => self.continue_without(error.into())?,
            }
        }
    }
}
