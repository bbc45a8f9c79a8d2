//! The heads of other chains that this chain records, so that no chain can vanish undetected.

use std::collections::BTreeSet;

use super::{super::chain_lock::LastNamed, Ledger};
use crate::{
    chain_reader::Directory,
    format::{Witness, Witnesses},
    segment_name::ChainNumber,
};

impl Ledger {
    /// Returns what this chain witnesses, and its own durable head.
    pub(in crate::writer) fn all_heads(&self) -> Witnesses {
        let mut heads = self.witnesses.clone();
        heads.insert(self.chain(), Witness { id: self.id, seq: self.durable.seq, hash: self.durable.hash });
        heads
    }

    /// Adds heads that are known from elsewhere.
    pub(in crate::writer) fn add_heads<'h>(
        &mut self,
        heads: impl IntoIterator<Item = (&'h ChainNumber, &'h Witness)>,
    ) {
        for (chain, head) in heads {
            self.witnesses.insert(*chain, *head);
            self.witnessed.insert(*chain);
        }
    }

    /// Returns the chains whose last named head this run must look up. They have no head any more,
    /// or end before the one that was named. Each is looked up once.
    pub(in crate::writer) fn must_look_up(
        &mut self,
        heads: &[(ChainNumber, Witness)],
    ) -> BTreeSet<ChainNumber> {
        let went_back = |(chain, head): &&(ChainNumber, Witness)| {
            self.named.get(chain).is_some_and(|named| head.seq < named.seq)
        };
        let shorter = heads.iter().filter(went_back).map(|(chain, _)| chain);
        let has_head = |chain: &ChainNumber| heads.iter().any(|(other, _)| other == chain);
        let gone = self.witnessed.iter().filter(|chain| !has_head(chain));
        let unknown = |chain: &&ChainNumber| {
            !self.witnesses.contains_key(chain) && !self.looked_up.contains(chain) && **chain != self.chain()
        };
        let unsure: BTreeSet<ChainNumber> = shorter.chain(gone).filter(unknown).copied().collect();
        self.looked_up.extend(&unsure);
        unsure
    }

    /// Adds the durable heads of other chains to what this one witnesses. Returns the chains that
    /// were witnessed before, do not exist any more, and were not reported yet.
    pub(in crate::writer) fn witness(
        &mut self,
        heads: Vec<(ChainNumber, Witness)>,
        directory: &Directory,
    ) -> Vec<ChainNumber> {
        let before = self.witnessed.clone();
        for (chain, head) in heads {
            let known = self.witnesses.get(&chain);
            // If a chain went back, or another chain now has its number, the first head that was
            // seen stays. Verification judges the difference.
            if known.is_none_or(|known| known.id == head.id && known.seq <= head.seq) {
                self.witnesses.insert(chain, head);
                self.witnessed.insert(chain);
            }
        }
        let gone = before.into_iter().filter(|chain| !directory.chains.contains_key(chain));
        gone.filter(|chain| self.missing.insert(*chain)).collect()
    }

    /// Returns at most `most` heads of other chains that changed since this chain last named them.
    /// Chains that were never named come first, then those named longest ago. All of them count as
    /// named from now on.
    pub(in crate::writer) fn name_others(&mut self, most: usize) -> Witnesses {
        let is_new = |chain: &ChainNumber, head: &Witness| {
            self.named.get(chain).is_none_or(|named| named.seq != head.seq)
        };
        let mut changed: Vec<(ChainNumber, Witness)> = self
            .witnesses
            .iter()
            .filter(|(chain, head)| is_new(chain, head))
            .map(|(c, h)| (*c, *h))
            .collect();
        changed.sort_by_key(|(chain, _)| self.named.get(chain).map(|named| named.at));
        changed.truncate(most);
        self.mark_named(changed.iter());
        changed.into_iter().collect()
    }

    /// Returns every known head, for a first line. All of them count as named from now on.
    pub(super) fn name_all_others(&mut self) -> Witnesses {
        let all: Vec<_> = self.witnesses.iter().map(|(chain, head)| (*chain, *head)).collect();
        self.mark_named(all.iter());
        self.witnesses.clone()
    }

    fn mark_named<'h>(&mut self, heads: impl Iterator<Item = &'h (ChainNumber, Witness)>) {
        let at = self.written.0 + 1;
        for (chain, head) in heads {
            self.named.insert(*chain, LastNamed { seq: head.seq, at });
        }
    }
}
