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
