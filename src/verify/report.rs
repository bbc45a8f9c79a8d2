//! The report: the findings, the notes, and what could not be checked.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    chain::Head, chain_reader::Fault, error::Error, named::named, segment_name::ChainNumber, verdict::Verdict,
};

use super::finding::{Finding, FindingKind, NotChecked, Note};

/// How many findings a report holds; all of them are counted.
const MAX_FINDINGS: usize = 1000;
/// How many items of each section are printed.
const MAX_PRINTED: usize = 20;

/// The findings so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    counts: [u64; FindingKind::ALL.len()],
    verdict: Option<Verdict>,
}

impl Findings {
    /// Counts a finding, and keeps it if there is room.
    pub(super) fn push(&mut self, finding: Finding) {
        if let Some(count) = self.counts.get_mut(finding.kind as usize) {
            *count += 1;
        }
        self.verdict = self.verdict.max(Some(finding.kind.verdict()));
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(finding);
        }
    }

    /// Adds the findings of another chain.
    pub(super) fn append(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.verdict = self.verdict.max(other.verdict);
        let room = MAX_FINDINGS.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
    }

    /// Counts damage of which no details were kept.
    pub(super) fn count_more(&mut self, counts: impl Iterator<Item = (Fault, u64)>) {
        for (fault, more) in counts {
            if let Some(count) = self.counts.get_mut(FindingKind::from(fault) as usize) {
                *count += more;
            }
        }
        self.verdict = Some(Verdict::Damaged);
    }
}

/// How a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ChainState {
    /// Its last run ended with `close`.
    Closed,
    /// A writer holds it.
    Live,
    /// Its last run ended without `close`, and no writer is known to hold it.
    NotClosed,
    /// It was not judged how the chain ends: it is damaged at its end, or of a later format.
    Unknown,
}

named!(ChainState, "state of a chain", [
    Closed => "closed",
    Live => "live",
    NotClosed => "not_closed",
    Unknown => "unknown",
]);

/// One chain in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    pub(super) chain: ChainNumber,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) records: u64,
    pub(super) events: u64,
    pub(super) segments: u64,
    pub(super) head: Option<Head>,
    /// The number of records behind the head.
    pub(super) provisional: u64,
    pub(super) state: ChainState,
    /// Events that, according to the chain, were not recorded: critical and routine.
    pub(super) lost: (u64, u64),
    pub(super) unconfirmed: u64,
}

impl ChainReport {
    /// Returns the number of the chain.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.chain.get()
    }

    /// Returns the sequence number of its first good record. It is higher than 1 if retention removed records, or if
    /// the verification started after a head.
    #[must_use]
    pub fn first_seq(&self) -> Option<u64> {
        self.first
    }

    /// Returns the sequence number of its last good record.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        self.last
    }

    /// Returns the number of its good records, of all kinds.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns how many of the records are audit events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns the number of segments that were read.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Returns its last durable record, if it has one.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Returns the number of good records behind the head, which the log does not state to be durable.
    #[must_use]
    pub fn provisional(&self) -> u64 {
        self.provisional
    }

    /// Returns how the chain ends.
    #[must_use]
    pub fn state(&self) -> ChainState {
        self.state
    }

    /// Returns the number of critical events that, according to the chain, could not be recorded.
    #[must_use]
    pub fn lost_critical(&self) -> u64 {
        self.lost.0
    }

    /// Returns the number of routine events that, according to the chain, could not be recorded.
    #[must_use]
    pub fn lost_routine(&self) -> u64 {
        self.lost.1
    }

    /// Returns the number of records that its `unconfirmed` records name, see
    /// [`Record::is_unconfirmed`](crate::Record::is_unconfirmed).
    #[must_use]
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed
    }
}

/// The result of a verification.
///
/// Prints as text for people: the verdict, the chains and their heads, the findings, the notes, and
/// what could not be checked.
#[derive(Clone)]
#[must_use = "the report may contain damage; call `ensure_intact`"]
pub struct Report {
    pub(super) path: PathBuf,
    pub(super) chains: Vec<ChainReport>,
    pub(super) heads: Vec<Head>,
    pub(super) findings: Findings,
    pub(super) notes: Vec<Note>,
    pub(super) more_notes: u64,
    pub(super) not_checked: Vec<NotChecked>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("path", &self.path)
            .field("verdict", &self.verdict())
            .field("records", &self.records())
            .field("chains", &self.chains.len())
            .field("findings", &self.findings.counts.iter().sum::<u64>())
            .finish_non_exhaustive()
    }
}

impl Report {
    /// Returns the verdict on the log.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.verdict.unwrap_or(Verdict::Intact)
    }

    /// Returns whether the verdict is [`Verdict::Intact`].
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.verdict() == Verdict::Intact
    }

    /// Returns an error unless the log is intact.
    ///
    /// # Errors
    ///
    /// [`Error::NotIntact`] if the verdict is not [`Verdict::Intact`].
    pub fn ensure_intact(&self) -> Result<(), Error> {
        if self.is_intact() {
            return Ok(());
        }
        let first: Vec<String> = self.findings.kept.iter().take(3).map(ToString::to_string).collect();
        let more = self.findings.counts.iter().sum::<u64>() - first.len() as u64;
        let mut summary = first.join("; ");
        if more > 0 {
            summary = format!("{summary}; and {more} more");
        }
        Err(Error::NotIntact { path: self.path.clone(), verdict: self.verdict(), summary })
    }

    /// Returns the number of good records in the log, of all kinds, without torn tails and leftovers.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.chains.iter().map(|chain| chain.records).sum()
    }

    /// Returns how many of the records are audit events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.chains.iter().map(|chain| chain.events).sum()
    }

    /// Returns the last durable record of each chain, by chain number. A chain without a durable record
    /// is left out. Keep these heads elsewhere and pass them to
    /// [`Verifier::expect_head`](crate::Verifier::expect_head) the next time. For a log that is not
    /// intact, they are only the last records found.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Returns the first 1,000 findings; [`count`](Self::count) returns how many there are.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings.kept
    }

    /// Returns the number of findings of a kind.
    #[must_use]
    pub fn count(&self, kind: FindingKind) -> u64 {
        self.findings.counts.get(kind as usize).copied().unwrap_or(0)
    }

    /// Returns what an auditor should know although it is not damage: the first 1,000 notes of each chain.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Returns the number of notes beyond [`notes`](Self::notes).
    #[must_use]
    pub fn more_notes(&self) -> u64 {
        self.more_notes
    }

    /// Returns the chains in the order of their numbers.
    #[must_use]
    pub fn chains(&self) -> &[ChainReport] {
        &self.chains
    }

    /// Returns the directory that was verified.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what this verification could not check.
    #[must_use]
    pub fn not_checked(&self) -> &[NotChecked] {
        &self.not_checked
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict();
        let meaning = match verdict {
            Verdict::Intact => "every durable record is there and unaltered",
            Verdict::Unclean => "nothing durable is altered, but the log did not end in order",
            Verdict::Damaged => "records that had been durable are altered or missing",
        };
        writeln!(f, "{}: {meaning}", verdict.to_string().to_uppercase())?;
        writeln!(f, "  log      {}", self.path.display())?;
        writeln!(f, "  records  {} ({} events)", Grouped(self.records()), Grouped(self.events()))?;
        for chain in &self.chains {
            chain.fmt(f)?;
        }
        let total: u64 = self.findings.counts.iter().sum();
        if total > 0 {
            writeln!(f, "\nfindings ({})", Grouped(total))?;
            section(f, &self.findings.kept, total)?;
        }
        if !self.notes.is_empty() {
            let total = self.notes.len() as u64 + self.more_notes;
            writeln!(f, "\nnotes ({})", Grouped(total))?;
            section(f, &self.notes, total)?;
        }
        writeln!(f, "\nnot checked")?;
        section(f, &self.not_checked, self.not_checked.len() as u64)
    }
}

impl fmt::Display for ChainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.state {
            ChainState::Closed => "closed",
            ChainState::Live => "being written",
            ChainState::NotClosed => "ended without close",
            ChainState::Unknown => "end not judged",
        };
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        writeln!(
            f,
            "  chain    {}: {} record{} in {} segment{}, {end}",
            self.chain,
            Grouped(self.records),
            plural(self.records),
            Grouped(self.segments),
            plural(self.segments)
        )?;
        if let Some(head) = self.head {
            writeln!(f, "    head   {head}")?;
        }
        if self.provisional > 0 {
            writeln!(f, "    after  {} not known to be durable", Grouped(self.provisional))?;
        }
        if self.lost != (0, 0) {
            let (critical, routine) = self.lost;
            writeln!(
                f,
                "    lost   {} critical and {} routine events, by its own count",
                Grouped(critical),
                Grouped(routine)
            )?;
        }
        Ok(())
    }
}

fn section<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], total: u64) -> fmt::Result {
    for item in items.iter().take(MAX_PRINTED) {
        writeln!(f, "  - {item}")?;
    }
    let printed = items.len().min(MAX_PRINTED) as u64;
    if total > printed {
        writeln!(f, "  - and {} more", Grouped(total - printed))?;
    }
    Ok(())
}

/// A number printed with commas between its thousands.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                write!(f, ",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Grouped;

    #[test]
    fn thousands_are_separated_by_commas() {
        let printed =
            [0, 7, 999, 1_000, 12_345, 123_456, 1_234_567].map(|number| Grouped(number).to_string());
        assert_eq!(printed, ["0", "7", "999", "1,000", "12,345", "123,456", "1,234,567"]);
    }
}
