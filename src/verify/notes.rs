//! What an auditor should know about a chain although it is not damage: gaps, recoveries, runs without `close`, and
//! what its files hold besides good lines.

use std::collections::BTreeSet;

use crate::{
    chain_reader::{FileCount, Follow},
    format::{Control, Unconfirmed},
    segment_name::ChainNumber,
};

use super::finding::{Note, NoteKind};

/// How many notes of one chain are kept; the rest are only counted.
const MAX_NOTES: usize = 1000;

/// The notes of one chain, in the order of its lines.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) kept: Vec<Note>,
    pub(super) more: u64,
    /// Events that, according to the chain, were not recorded: critical and routine.
    pub(super) lost: (u64, u64),
    /// Records that are durable although a caller was told that they are not confirmed.
    pub(super) unconfirmed: u64,
    /// Segments that a `recovery` record mentions.
    recovered: BTreeSet<u32>,
    is_open: bool,
}

impl Notes {
    fn push(&mut self, note: Note) {
        if self.kept.len() < MAX_NOTES {
            self.kept.push(note);
        } else {
            self.more += 1;
        }
    }

    /// Takes in the control lines that were followed since the last call.
    pub(super) fn absorb(&mut self, follow: &mut Follow) {
        for (seq, control) in follow.controls.drain(..) {
            self.control(follow.chain, seq, control);
        }
    }

    fn control(&mut self, chain: ChainNumber, seq: u64, control: Control) {
        match control {
            Control::Open { .. } => {
                if std::mem::replace(&mut self.is_open, true) {
                    let message = format!("the run before record {seq} ended without `close`");
                    self.push(Note::of(NoteKind::Unclosed, chain, message));
                }
            }
            Control::Close(_) => self.is_open = false,
            Control::Gap { reason, critical, routine } => {
                self.lost = (self.lost.0.saturating_add(critical), self.lost.1.saturating_add(routine));
                let reason = plain(&reason);
                let message = format!(
                    "record {seq}: {critical} critical and {routine} routine events were not recorded \
                     ({reason})"
                );
                self.push(Note::of(NoteKind::Gap, chain, message));
            }
            Control::Unconfirmed(refused) => {
                let count = |(first, last): &(u64, u64)| last.saturating_sub(*first).saturating_add(1);
                let records = refused.records.iter().map(count).fold(0, u64::saturating_add);
                self.unconfirmed = self.unconfirmed.saturating_add(records);
                let message = format!(
                    "record {seq}: these records are durable although a caller was told that they are not confirmed ({}): {}",
                    plain(&refused.reason),
                    ranges_of(&refused)
                );
                self.push(Note::of(NoteKind::Unconfirmed, chain, message));
            }
            Control::Recovery { cause, segment } => {
                self.recovered.extend(segment);
                let message =
                    format!("record {seq}: the chain was continued after a recovery ({})", plain(&cause));
                self.push(Note::of(NoteKind::Recovery, chain, message));
            }
            Control::Segment(_) | Control::Later(_) | Control::Mark(_) | Control::Prune { .. } => {}
        }
    }

    /// Adds notes about what the files hold besides good lines.
    pub(super) fn note_files(&mut self, chain: ChainNumber, files: &[FileCount]) {
        for file in files {
            let segment = file.segment;
            let message = format!("{} bytes of segment {segment} are void", file.void_bytes);
            if file.void_bytes > 0 && file.good.records > 0 && !self.recovered.contains(&segment) {
                let message = format!("{message}, and no `recovery` record explains them");
                self.push(Note::of(NoteKind::Undeclared, chain, message));
            } else if file.void_bytes > 0 {
                self.push(Note::of(NoteKind::Void, chain, message));
            } else if file.good.records == 0 {
                let what = if file.is_empty { "is empty" } else { "has no good line" };
                self.push(Note::of(NoteKind::Stillborn, chain, format!("segment {segment} {what}")));
            }
        }
    }
}

/// Returns the first records that an `unconfirmed` record names, for a message.
fn ranges_of(refused: &Unconfirmed) -> String {
    const MOST: usize = 8;
    let range = |(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    let mut words: Vec<String> = refused.records.iter().take(MOST).map(range).collect();
    if let Some(more) = refused.records.len().checked_sub(MOST).filter(|more| *more > 0) {
        words.push(format!("and {more} more ranges"));
    }
    let of = refused.chain.map(|(chain, _)| format!(" of chain {chain}")).unwrap_or_default();
    format!("{}{of}", words.join(", "))
}

/// Returns a word from the log in a form that is safe to print: short, and only letters, digits and `_`.
fn plain(word: &str) -> String {
    word.chars().filter(|character| character.is_ascii_alphanumeric() || *character == '_').take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(chain: u16) -> ChainNumber {
        ChainNumber::new(chain).unwrap()
    }

    #[test]
    fn a_word_from_the_log_is_printed_without_anything_but_letters_digits_and_underscores() {
        let mut notes = Notes::default();
        let reason = "queue full!\u{1b}[31m_1ü".to_owned() + &"x".repeat(40);
        notes.control(number(3), 9, Control::Gap { reason, critical: 1, routine: 2 });
        notes.control(number(3), 10, Control::Gap { reason: "x".to_owned(), critical: 3, routine: 5 });
        let printed: Vec<String> = notes.kept.iter().map(ToString::to_string).collect();
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
        assert_eq!(notes.lost, (4, 7));
    }

    #[test]
    fn a_thousand_notes_are_kept_and_the_rest_counted() {
        let mut notes = Notes::default();
        for seq in 1..=1003 {
            notes.control(number(0), seq, Control::Gap { reason: String::new(), critical: 0, routine: 1 });
        }
        assert_eq!((notes.kept.len(), notes.more), (1_000, 3));
    }
}
