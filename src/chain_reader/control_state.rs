//! The state that the good lines of a chain add up to beyond their links. It holds the identity of the chain, how far
//! it was durable, what retention removed, and the heads that it witnessed of other chains.

use std::collections::BTreeMap;

use crate::{
    chain::Digest,
    format::{ChainId, Control, Witness, Witnesses},
    segment_name::ChainNumber,
};

/// How many witnessed heads of one chain are kept. An honest log has one for each other chain.
const MAX_WITNESSED: usize = 4096;

/// The state that the good lines of one chain add up to.
#[derive(Debug, Default)]
pub(crate) struct ControlState {
    pub(crate) id: Option<ChainId>,
    /// The highest `durable` mark or `through`, whatever it claims.
    pub(crate) mark: u64,
    /// The last record that retention removed, and its hash.
    pub(crate) pruned: Option<(u64, Digest)>,
    /// The highest head that this chain witnesses of each other chain.
    pub(crate) witnessed: BTreeMap<(ChainNumber, u128), Witness>,
    /// The last head that it named of each other chain.
    pub(crate) seen: Witnesses,
    /// Whether the previous version of this library wrote the last run.
    pub(crate) is_old: bool,
}

impl ControlState {
    /// Takes in the content of line `seq` of the chain.
    pub(crate) fn absorb(&mut self, seq: u64, control: &Control) {
        match control {
            Control::Segment(info) => {
                if let Some((through, hash)) = info.pruned {
                    self.prune(seq, through, hash);
                }
                self.witness(&info.chains);
            }
            Control::Open { seen, is_old } => {
                self.is_old = *is_old;
                self.witness(seen);
            }
            Control::Mark(seen) | Control::Close(seen) => self.witness(seen),
            Control::Prune { through, hash } => self.prune(seq, *through, *hash),
            Control::Later(_) | Control::Gap { .. } | Control::Recovery { .. } | Control::Unconfirmed(_) => {}
        }
    }

    /// Takes in the statement of line `seq` that retention removed every record up to `through`.
    fn prune(&mut self, seq: u64, through: u64, hash: Digest) {
        self.mark = self.mark.max(through);
        // A record cannot remove itself or a later one, so such a claim is ignored. So is one that removes nothing.
        if through > 0 && through < seq && self.pruned.is_none_or(|(known, _)| known < through) {
            self.pruned = Some((through, hash));
        }
    }

    /// Takes in heads of other chains, and keeps the highest of each.
    fn witness(&mut self, witnesses: &Witnesses) {
        self.seen.extend(witnesses);
        for (chain, witness) in witnesses {
            let key = (*chain, witness.id.0);
            let room = self.witnessed.len() < MAX_WITNESSED;
            match self.witnessed.get_mut(&key) {
                Some(known) if known.seq < witness.seq => *known = *witness,
                None if room => drop(self.witnessed.insert(key, *witness)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(word: &str) -> Digest {
        Digest::of_bytes(word.as_bytes())
    }

    fn number(chain: u16) -> ChainNumber {
        ChainNumber::new(chain).unwrap()
    }

    fn prunes(prunes: &[(u64, u64, &str)]) -> ControlState {
        let mut state = ControlState::default();
        for (seq, through, word) in prunes {
            state.absorb(*seq, &Control::Prune { through: *through, hash: hash(word) });
        }
        state
    }

    #[test]
    fn the_highest_cut_counts_and_of_equal_ones_the_first() {
        let state = prunes(&[(9, 3, "a"), (10, 5, "b"), (11, 5, "c"), (12, 4, "d")]);
        assert_eq!((state.pruned, state.mark), (Some((5, hash("b"))), 5));
    }

    #[test]
    fn a_cut_of_nothing_or_of_itself_is_ignored() {
        let state = prunes(&[(9, 0, "a"), (10, 10, "b"), (10, 11, "c")]);
        assert_eq!((state.pruned, state.mark), (None, 11));
        assert_eq!(prunes(&[(10, 9, "a"), (10, 1, "b")]).pruned, Some((9, hash("a"))));
        assert_eq!(prunes(&[(10, 1, "a")]).pruned, Some((1, hash("a"))));
    }

    fn witness(state: &mut ControlState, chain: u16, id: u128, seq: u64, word: &str) {
        let witness = Witness { id: ChainId(id), seq, hash: hash(word) };
        state.absorb(9, &Control::Mark(Witnesses::from([(number(chain), witness)])));
    }

    #[test]
    fn the_highest_head_of_each_other_chain_counts() {
        let mut state = ControlState::default();
        for (seq, word) in [(5, "a"), (7, "b"), (7, "c"), (6, "d")] {
            witness(&mut state, 1, 11, seq, word);
        }
        witness(&mut state, 1, 12, 2, "e");
        let known: Vec<_> = state
            .witnessed
            .iter()
            .map(|((chain, id), head)| (chain.get(), *id, head.seq, head.hash))
            .collect();
        assert_eq!(known, [(1, 11, 7, hash("b")), (1, 12, 2, hash("e"))]);
    }

    #[test]
    fn the_number_of_heads_kept_is_limited() {
        let mut state = ControlState::default();
        for id in 0..MAX_WITNESSED as u128 + 3 {
            witness(&mut state, 1, id, 1, "a");
        }
        assert_eq!(state.witnessed.len(), MAX_WITNESSED);
        // Chains that are known already are still updated.
        witness(&mut state, 1, 7, 4, "b");
        assert_eq!(state.witnessed[&(number(1), 7)].seq, 4);
        assert_eq!(state.witnessed.len(), MAX_WITNESSED);
    }
}
