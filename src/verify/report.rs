//! The report: what was found, what is worth knowing, and what could not be checked.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    chain::Head, chain_reader::Fault, error::Error, named::named, segment_name::ChainNumber, verdict::Verdict,
};

use super::finding::{Finding, FindingKind, NotChecked, Note};

/// How many findings a report holds; all are counted.
const MAX_FINDINGS: usize = 1000;
/// How many findings, notes and so on are printed.
const MAX_PRINTED: usize = 20;

/// Findings as they are made.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    counts: [u64; FindingKind::ALL.len()],
    verdict: Option<Verdict>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        if let Some(count) = self.counts.get_mut(finding.kind as usize) {
            *count += 1;
        }
        self.verdict = self.verdict.max(Some(finding.kind.verdict()));
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(finding);
        }
    }

    /// Takes in the findings of another chain.
    pub(super) fn append(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.verdict = self.verdict.max(other.verdict);
        let room = MAX_FINDINGS.saturating_sub(self.kept.len());
        self.kept.extend(other.kept.into_iter().take(room));
    }

    /// Counts damage of which nothing more was kept.
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
    /// Its last run ended in order.
    Closed,
    /// A writer holds it.
    Live,
    /// Its last run ended without `close`, and nobody holds it.
    NotClosed,
    /// It is damaged at its end, or of a later format: how it ends was not judged.
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
    /// How many records stand behind the head.
    pub(super) provisional: u64,
    pub(super) state: ChainState,
    /// Events that the chain says were not recorded: critical and routine.
    pub(super) lost: (u64, u64),
    pub(super) unconfirmed: u64,
}

impl ChainReport {
    /// The number of the chain.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.chain.get()
    }

    /// The sequence number of its first good record; higher than 1 where retention removed some, or where the
    /// verification started after a head.
    #[must_use]
    pub fn first_seq(&self) -> Option<u64> {
        self.first
    }

    /// The sequence number of its last good record.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        self.last
    }

    /// How many good records it has, of all kinds.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many of the records are audit events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many segments were read.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Its last durable record, if it has any.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// How many good records stand behind the head, of which the log does not say that they are durable.
    #[must_use]
    pub fn provisional(&self) -> u64 {
        self.provisional
    }

    /// How it ends.
    #[must_use]
    pub fn state(&self) -> ChainState {
        self.state
    }

    /// How many critical events it says could not be recorded.
    #[must_use]
    pub fn lost_critical(&self) -> u64 {
        self.lost.0
    }

    /// How many routine events it says could not be recorded.
    #[must_use]
    pub fn lost_routine(&self) -> u64 {
        self.lost.1
    }

    /// How many records its `unconfirmed` records name, see [`Record::is_unconfirmed`](crate::Record::is_unconfirmed).
    #[must_use]
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed
    }
}

/// What a verification found.
///
/// Prints as text for people: the verdict, the chains and their heads, the findings, the notes, and
/// what could not be checked.
#[derive(Clone)]
#[must_use = "a verification that nobody looks at protects nothing; call `ensure_intact`"]
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
    /// What the log was found to be.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.verdict.unwrap_or(Verdict::Intact)
    }

    /// Whether the verdict is [`Verdict::Intact`].
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.verdict() == Verdict::Intact
    }

    /// Turns everything but an intact log into an error.
    ///
    /// # Errors
    ///
    /// [`Error::NotIntact`] when the verdict is not [`Verdict::Intact`].
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

    /// How many good records the log has, of all kinds, without torn tails and leftovers.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.chains.iter().map(|chain| chain.records).sum()
    }

    /// How many of the records are audit events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.chains.iter().map(|chain| chain.events).sum()
    }

    /// The last durable record of each chain, by chain number. A chain that has no durable record
    /// is not in it. Keep these elsewhere, and hand them to
    /// [`Verifier::expect_head`](crate::Verifier::expect_head) the next time; of a log that is not
    /// intact they are only what there is.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The first 1,000 findings; [`count`](Self::count) knows how many there are.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings.kept
    }

    /// How many findings of a kind there are.
    #[must_use]
    pub fn count(&self, kind: FindingKind) -> u64 {
        self.findings.counts.get(kind as usize).copied().unwrap_or(0)
    }

    /// What an auditor should know that is no fault of the evidence: the first 1,000 of each chain.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// How many notes there are beyond [`notes`](Self::notes).
    #[must_use]
    pub fn more_notes(&self) -> u64 {
        self.more_notes
    }

    /// The chains, by their numbers.
    #[must_use]
    pub fn chains(&self) -> &[ChainReport] {
        &self.chains
    }

    /// The directory that was verified.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this verification could not check.
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

/// A number with commas between its thousands.
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
    fn thousands_are_set_apart() {
        let printed =
            [0, 7, 999, 1_000, 12_345, 123_456, 1_234_567].map(|number| Grouped(number).to_string());
        assert_eq!(printed, ["0", "7", "999", "1,000", "12,345", "123,456", "1,234,567"]);
    }
}
