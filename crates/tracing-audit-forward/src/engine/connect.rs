//! Where forwarding begins: what the store says that it has, and the place in the log behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing_audit::{Digest, Head, ReadItems, Reader};

use super::{Engine, Halt};
use crate::{dead, error::Error, forwarder::StartAt, lag, position::Acknowledged, stats::NoticeKind};

impl Engine {
    /// Asks the store what it has, and begins to read there.
    pub(super) fn connect(&mut self) -> Result<ReadItems, Halt> {
        self.find_chains()?;
        let ids: Vec<Arc<str>> = self.ids.values().cloned().collect();
        let positions = self.sink.positions(&ids).map_err(Halt::Sink)?;
        self.progress.is_askable = positions.is_some();
        self.progress.is_unasked = false;
        if let Some(positions) = positions {
            let positions = positions.into_iter().map(|at| (at.chain_id, (at.seq, at.hash))).collect();
            self.believe_the_store(&positions)?;
        } else {
            self.progress.forget_what_was_asked();
        }
        self.begin_new_chains()?;
        // Retention must not go on believing what was known before.
        self.progress.write()?;
        let items = self.open()?;
        self.say_what_can_be_read_again();
        Ok(items)
    }

    /// Finds out which chains the log has now. One that cannot be read keeps the id that it had.
    fn find_chains(&mut self) -> Result<(), Halt> {
        let before = std::mem::take(&mut self.ids);
        {
            let mut state = self.shared.lock();
            self.unreadable_before = std::mem::take(&mut state.stats.unreadable);
            self.left_out = state.stats.stopped.keys().copied().collect();
        }
        let chains: Vec<u16> = dead::ends(&self.dir)?.into_keys().collect();
        let unreadable = loop {
            let unreadable = self.shared.lock().stats.unreadable.clone();
            let readable: Vec<u16> =
                chains.iter().copied().filter(|chain| !unreadable.contains_key(chain)).collect();
            if readable.is_empty() {
                break unreadable;
            }
            let reader =
                readable.iter().fold(Reader::new(&self.dir).last(0), |reader, chain| reader.chain(*chain));
            match reader.items() {
                Ok(items) => {
                    let ids = items.chains().into_iter().map(|(chain, id)| (chain, Arc::from(id)));
                    self.ids = ids.collect();
                    break unreadable;
                }
                Err(tracing_audit::Error::NoLog { .. }) => break unreadable,
                Err(error) => self.go_on_without(error.into())?,
            }
        };
        let kept = before.iter().filter(|(chain, _)| unreadable.contains_key(chain));
        self.ids.extend(kept.map(|(chain, id)| (*chain, Arc::clone(id))));
        // A chain that began anew under the same number is another one.
        let is_same = |chain: &u16| before.get(chain) == self.ids.get(chain);
        self.shared.lock().stats.stopped.retain(|chain, _| is_same(chain));
        self.left_out.retain(|chain| unreadable.contains_key(chain) || is_same(chain));
        Ok(())
    }

    fn say_what_can_be_read_again(&mut self) {
        for chain in std::mem::take(&mut self.unreadable_before).into_keys() {
            if !self.is_left_out(chain) {
                self.tell(NoticeKind::Healed, format!("chain {chain:03} can be read again"));
            }
        }
    }

    /// Takes what the store has for what it acknowledged.
    fn believe_the_store(&mut self, positions: &BTreeMap<Arc<str>, (u64, Digest)>) -> Result<(), Error> {
        let refused: BTreeSet<Head> =
            self.progress.files.refusals()?.into_iter().map(|refusal| refusal.record).collect();
        for (chain, id) in self.ids.clone() {
            let known = self.progress.known.chains.get(&id).cloned().unwrap_or_default();
            let begun = [known.from, known.skipped];
            let had = known.last.filter(|last| !begun.contains(&Some(*last))).map_or(0, |last| last.seq());
            let skipped = known.skipped.map_or(0, |skipped| skipped.seq());
            // What it has up to there is of another log.
            let stored = positions.get(&id).filter(|(seq, _)| *seq > skipped);
            let has = stored.map_or(0, |(seq, _)| *seq);
            // What it refused it never had.
            let refused = refused.iter().filter(|head| head.chain() == chain).map(Head::seq);
            let never_had: BTreeSet<u64> = refused.chain(known.given_up.iter().copied()).collect();
            let is_all_refused = has < had && (has + 1..=had).all(|seq| never_had.contains(&seq));
            if has < had && !is_all_refused {
                self.shared.lock().stats.losses += 1;
                let message = format!(
                    "the store has chain {chain:03} up to record {has}, and had acknowledged {had}: it was restored or \
                     lost writes; what is missing is sent again"
                );
                self.tell(NoticeKind::StoreLost, message);
            }
            let last = match stored {
                _ if is_all_refused => known.last,
                Some((seq, hash)) => format!("{chain:03}/{seq}:{hash}").parse().ok(),
                None => known.skipped.or(known.from),
            };
            let asked = Some(last.map_or(0, |last| last.seq()));
            // Behind what it has by now, nobody asks for them any more.
            let given_up = known.given_up.iter().copied().filter(|seq| *seq > has).collect();
            let now = Acknowledged { last, asked, given_up, ..known };
            if self.progress.known.chains.get(&id) != Some(&now) {
                self.progress.known.chains.insert(id, now);
                self.progress.is_dirty = true;
            }
        }
        Ok(())
    }

    /// Notes where forwarding begins in chains of which nothing is known.
    fn begin_new_chains(&mut self) -> Result<(), Halt> {
        if self.progress.files.position().exists() {
            return Ok(());
        }
        for (chain, id) in &self.ids {
            if self.progress.known.last(id).is_some() {
                continue;
            }
            let from = match self.settings.start_at {
                StartAt::Beginning => None,
                StartAt::Now => lag::durable_head(&self.dir, *chain)?,
                StartAt::After(head) => Some(head).filter(|head| head.chain() == *chain),
            };
            let begun = self.progress.begun(from);
            self.progress.known.chains.insert(Arc::clone(id), begun);
        }
        self.progress.is_dirty = true;
        Ok(())
    }

    /// Begins to read behind what was acknowledged.
    fn open(&mut self) -> Result<ReadItems, Halt> {
        loop {
            let mut reader = Reader::new(&self.dir).durable_only(true).follow(true);
            if !self.left_out.is_empty() {
                // Without those that are left out. Chains that begin meanwhile are seen when the store is asked again.
                for chain in self.ids.keys().filter(|chain| !self.is_left_out(**chain)) {
                    reader = reader.chain(*chain);
                }
                if self.ids.keys().all(|chain| self.is_left_out(*chain)) {
                    reader = reader.last(0);
                }
            }
            for (chain, id) in &self.ids {
                let last = self.progress.known.last(id);
                if let Some(head) = last.filter(|_| !self.is_left_out(*chain)) {
                    reader = reader.after(head);
                }
            }
            match reader.items() {
                Ok(items) => return Ok(items),
                Err(tracing_audit::Error::NoSuchRecord { head, .. }) if !self.is_left_out(head.chain()) => {
                    let why = format!(
                        "the store has record {head}, and the log does not: the log was cut, restored or cloned; verify \
                         it with this head"
                    );
                    self.stop_chain(head.chain(), why);
                }
                Err(error) => self.go_on_without(error.into())?,
            }
        }
    }
}
