//! What the good lines of a chain say beyond their links: marks, prunes, witnesses, gaps.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    chain::Digest,
    format::{ChainId, Control, Witness, Witnesses},
    segment_name::ChainNumber,
};

use super::finding::{Note, NoteKind};

/// How many notes are kept of one chain; the rest is only counted.
const MAX_NOTES: usize = 1000;
/// How many witnessed heads are kept of one chain. An honest log has one for each other chain.
const MAX_WITNESSED: usize = 4096;

/// What the good lines of one chain add up to.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) id: Option<ChainId>,
    /// The highest `durable` mark, and the highest `through`, whatever they claim.
    pub(super) mark: u64,
    /// Where retention cut the chain last.
    pub(super) pruned: Option<(u64, Digest)>,
    /// The highest head that this chain witnesses of each other chain.
    pub(super) witnessed: BTreeMap<(ChainNumber, u128), Witness>,
    pub(super) lost: (u64, u64),
    pub(super) notes: Vec<Note>,
    pub(super) more_notes: u64,
    /// Segments of which a `recovery` record tells.
    pub(super) recovered: BTreeSet<u32>,
    is_open: bool,
}

impl Facts {
    pub(super) fn note(&mut self, note: Note) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        } else {
            self.more_notes += 1;
        }
    }

    /// Takes in what the line `seq` of the chain says.
    pub(super) fn absorb(&mut self, chain: ChainNumber, seq: u64, control: Control) {
        match control {
            Control::Segment(info) => {
                if let Some((through, hash)) = info.pruned {
                    self.prune(seq, through, hash);
                }
                self.witness(info.chains);
            }
            Control::Later(_) => {}
            Control::Open(witnesses) => {
                if std::mem::replace(&mut self.is_open, true) {
                    let message = format!("the run before record {seq} ended without `close`");
                    self.note(Note::of(NoteKind::Unclosed, chain, message));
                }
                self.witness(witnesses);
            }
            Control::Mark(witnesses) => self.witness(witnesses),
            Control::Close(witnesses) => {
                self.is_open = false;
                self.witness(witnesses);
            }
            Control::Gap { reason, critical, routine } => {
                self.lost = (self.lost.0.saturating_add(critical), self.lost.1.saturating_add(routine));
                let reason = plain(&reason);
                let message = format!(
                    "record {seq}: {critical} critical and {routine} routine events were not recorded \
                     ({reason})"
                );
                self.note(Note::of(NoteKind::Gap, chain, message));
            }
            Control::Recovery { cause, segment } => {
                self.recovered.extend(segment);
                let message = format!("record {seq}: the chain went on after a recovery ({})", plain(&cause));
                self.note(Note::of(NoteKind::Recovery, chain, message));
            }
            Control::Prune { through, hash } => self.prune(seq, through, hash),
        }
    }

    fn prune(&mut self, seq: u64, through: u64, hash: Digest) {
        self.mark = self.mark.max(through);
        // A record cannot remove itself: what claims so excuses nothing. Nor does what removes nothing.
        if through > 0 && through < seq && self.pruned.is_none_or(|(known, _)| known < through) {
            self.pruned = Some((through, hash));
        }
    }

    fn witness(&mut self, witnesses: Witnesses) {
        for (chain, witness) in witnesses {
            let key = (chain, witness.id.0);
            let room = self.witnessed.len() < MAX_WITNESSED;
            match self.witnessed.get_mut(&key) {
                Some(known) if known.seq < witness.seq => *known = witness,
                None if room => drop(self.witnessed.insert(key, witness)),
                _ => {}
            }
        }
    }
}

/// A word from the log that may be printed: short, and nothing but letters, digits and `_`.
fn plain(word: &str) -> String {
    word.chars().filter(|character| character.is_ascii_alphanumeric() || *character == '_').take(32).collect()
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

    fn prunes(prunes: &[(u64, u64, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (seq, through, word) in prunes {
            facts.absorb(number(0), *seq, Control::Prune { through: *through, hash: hash(word) });
        }
        facts
    }

    #[test]
    fn the_highest_cut_counts_and_of_two_the_first() {
        let facts = prunes(&[(9, 3, "a"), (10, 5, "b"), (11, 5, "c"), (12, 4, "d")]);
        assert_eq!((facts.pruned, facts.mark), (Some((5, hash("b"))), 5));
    }

    #[test]
    fn a_cut_of_nothing_or_of_itself_is_none() {
        let facts = prunes(&[(9, 0, "a"), (10, 10, "b"), (10, 11, "c")]);
        assert_eq!((facts.pruned, facts.mark), (None, 11));
        assert_eq!(prunes(&[(10, 9, "a"), (10, 1, "b")]).pruned, Some((9, hash("a"))));
        assert_eq!(prunes(&[(10, 1, "a")]).pruned, Some((1, hash("a"))));
    }

    fn witness(facts: &mut Facts, chain: u16, id: u128, seq: u64, word: &str) {
        let witness = Witness { id: ChainId(id), seq, hash: hash(word) };
        facts.absorb(number(0), 9, Control::Mark(Witnesses::from([(number(chain), witness)])));
    }

    #[test]
    fn the_highest_head_of_each_other_chain_counts() {
        let mut facts = Facts::default();
        for (seq, word) in [(5, "a"), (7, "b"), (7, "c"), (6, "d")] {
            witness(&mut facts, 1, 11, seq, word);
        }
        witness(&mut facts, 1, 12, 2, "e");
        let known: Vec<_> = facts
            .witnessed
            .iter()
            .map(|((chain, id), head)| (chain.get(), *id, head.seq, head.hash))
            .collect();
        assert_eq!(known, [(1, 11, 7, hash("b")), (1, 12, 2, hash("e"))]);
    }

    #[test]
    fn only_so_many_heads_are_kept() {
        let mut facts = Facts::default();
        for id in 0..MAX_WITNESSED as u128 + 3 {
            witness(&mut facts, 1, id, 1, "a");
        }
        assert_eq!(facts.witnessed.len(), MAX_WITNESSED);
        // Those that are there go on.
        witness(&mut facts, 1, 7, 4, "b");
        assert_eq!(facts.witnessed[&(number(1), 7)].seq, 4);
        assert_eq!(facts.witnessed.len(), MAX_WITNESSED);
    }

    #[test]
    fn a_word_of_the_log_is_printed_without_what_is_no_letter_digit_or_underscore() {
        let mut facts = Facts::default();
        let reason = "queue full!\u{1b}[31m_1ü".to_owned() + &"x".repeat(40);
        facts.absorb(number(3), 9, Control::Gap { reason, critical: 1, routine: 2 });
        facts.absorb(number(3), 10, Control::Gap { reason: "x".to_owned(), critical: 3, routine: 5 });
        let printed: Vec<String> = facts.notes.iter().map(ToString::to_string).collect();
        let events = "routine events were not recorded";
        assert_eq!(
            printed,
            [
                format!(
                    "gap: chain 003: record 9: 1 critical and 2 {events} (queuefull31m_1{})",
                    "x".repeat(18)
                ),
                format!("gap: chain 003: record 10: 3 critical and 5 {events} (x)"),
            ]
        );
        assert_eq!(facts.lost, (4, 7));
    }

    #[test]
    fn a_thousand_notes_are_kept_and_the_others_counted() {
        let mut facts = Facts::default();
        for seq in 1..=1003 {
            facts.absorb(number(0), seq, Control::Gap { reason: String::new(), critical: 0, routine: 1 });
        }
        assert_eq!((facts.notes.len(), facts.more_notes), (1_000, 3));
    }
}
