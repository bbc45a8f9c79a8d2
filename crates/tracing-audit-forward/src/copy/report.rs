//! The result of verifying a copy, as data and in sentences.

use std::fmt;

use tracing_audit::Head;

use crate::sink::Position;

/// The result of verifying a copy.
#[derive(Debug, Clone)]
#[must_use]
pub struct CopyReport {
    pub(super) chains: Vec<CopyChain>,
    pub(super) findings: Vec<CopyFinding>,
    pub(super) count: u64,
    pub(super) holes: Vec<CopyHole>,
    pub(super) heads_not_compared: Vec<Head>,
    pub(super) behind: Vec<CopyBehind>,
}

/// A chain that does not reach a record which another chain of the copy names as durable in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyBehind {
    /// The number of the chain in its log.
    pub chain: u16,
    /// The last record of the chain that another chain names.
    pub position: Position,
    /// The last record that the copy has; `None` if it has none.
    pub last_seq: Option<u64>,
}

/// A chain of which the copy has anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyChain {
    /// The id of the chain.
    pub chain_id: String,
    /// The number of the chain in its log, if the copy shows it.
    pub chain: Option<u16>,
    /// The number of records that the copy has, including bad ones.
    pub records: u64,
    /// The first record.
    pub first_seq: Option<u64>,
    /// The last record, to compare with the log or with a head kept elsewhere. `None` if its hash cannot be
    /// read.
    pub last: Option<Position>,
}

/// A place where a copy is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyFinding {
    /// The id of the chain.
    pub chain_id: String,
    /// The record.
    pub seq: u64,
    /// What is wrong.
    pub kind: CopyFindingKind,
}

/// What is wrong at a place of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyFindingKind {
    /// The line does not match its hash: it was edited.
    Altered,
    /// The line is not a record.
    #[non_exhaustive]
    NotALine {
        /// Why not.
        what: &'static str,
    },
    /// The record does not link to the one before: one of them was replaced.
    Link,
    /// Records are missing without an explanation.
    #[non_exhaustive]
    Missing {
        /// The last one of them.
        through: u64,
    },
    /// The same record is there twice.
    Repeated,
    /// A record is where its number does not belong: it was inserted or moved.
    Extra,
    /// The record belongs to another chain.
    OtherChain,
    /// A column of a table differs from the line.
    #[non_exhaustive]
    Column {
        /// The name of the column.
        name: &'static str,
    },
    /// An object of an archive is missing, was altered, or does not belong there.
    #[non_exhaustive]
    Object {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The record here differs from the one that a head names.
    #[non_exhaustive]
    OtherThanHead {
        /// The head that was expected.
        head: Head,
    },
    /// The record that a head names is not in the copy.
    #[non_exhaustive]
    NoRecordOfHead {
        /// The head that was expected.
        head: Head,
    },
}

/// Records that a copy does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyHole {
    /// The id of the chain.
    pub chain_id: String,
    /// The first missing record.
    pub first_seq: u64,
    /// The last missing record.
    pub last_seq: u64,
    /// The explanation.
    pub reason: HoleReason,
}

/// Why a copy does not have a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoleReason {
    /// The forwarder reported a gap: retention removed the records before they could be copied.
    Gap,
    /// A later record states that retention had removed the records. This also explains records that somebody deletes
    /// from the copy afterwards, so such a deletion is not found.
    Pruned,
    /// The store refused the record.
    Rejected,
    /// There is no explanation; a finding reports it too.
    Unexplained,
}

impl CopyReport {
    /// Returns whether nothing was found: each record is as it was written, and every hole is explained.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.count == 0
    }

    /// Returns how many records the copy has.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.chains.iter().map(|chain| chain.records).sum()
    }

    /// Returns the chains, by their ids.
    #[must_use]
    pub fn chains(&self) -> &[CopyChain] {
        &self.chains
    }

    /// Returns what is wrong: the first 1,000 findings.
    #[must_use]
    pub fn findings(&self) -> &[CopyFinding] {
        &self.findings
    }

    /// Returns how many findings there are, listed or not.
    #[must_use]
    pub fn finding_count(&self) -> u64 {
        self.count
    }

    /// Returns which records the copy does not have, and why.
    #[must_use]
    pub fn holes(&self) -> &[CopyHole] {
        &self.holes
    }

    /// Returns the chains that do not reach what another chain names: they are late, were never forwarded, or
    /// somebody removed their end. These are not findings, because the copy does not show which it is.
    #[must_use]
    pub fn behind(&self) -> &[CopyBehind] {
        &self.behind
    }

    /// Returns the expected heads that were not compared, because the copy legitimately lacks their records.
    #[must_use]
    pub fn heads_not_compared(&self) -> &[Head] {
        &self.heads_not_compared
    }
}

fn in_chains(count: usize) -> String {
    if count == 1 { "1 chain".to_owned() } else { format!("{count} chains") }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_intact() { "intact" } else { "DAMAGED" };
        writeln!(f, "{verdict}: {} records, {}", self.records(), in_chains(self.chains.len()))?;
        for chain in &self.chains {
            write!(f, "  chain {}: {} records", chain.chain_id, chain.records)?;
            match &chain.last {
                Some(last) => writeln!(f, ", the last is {}:{}", last.seq, last.hash)?,
                None => writeln!(f)?,
            }
        }
        for hole in self.holes.iter().filter(|hole| hole.reason != HoleReason::Unexplained) {
            writeln!(f, "  {}", Printed(&hole.chain_id, hole.first_seq, &hole.to_string()))?;
        }
        for head in &self.heads_not_compared {
            writeln!(f, "  the head {head} could not be compared: its record is not here")?;
        }
        for behind in &self.behind {
            let Position { chain_id, seq, .. } = &behind.position;
            writeln!(f, "  {}", Printed(chain_id, *seq, &behind.to_string()))?;
        }
        for finding in &self.findings {
            writeln!(f, "  {}", Printed(&finding.chain_id, finding.seq, &finding.kind.to_string()))?;
        }
        let more = self.count - self.findings.len() as u64;
        if more > 0 { writeln!(f, "  and {more} findings more") } else { Ok(()) }
    }
}

/// A place, and what is said of it.
struct Printed<'a>(&'a str, u64, &'a str);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(chain_id, seq, text) = self;
        write!(f, "{chain_id}/{seq}: {text}")
    }
}

impl fmt::Display for CopyBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record is witnessed by another chain and is not here: ")?;
        match self.last_seq {
            Some(last) => write!(f, "chain {:03} ends with {last}", self.chain)?,
            None => write!(f, "no record of chain {:03} is here", self.chain)?,
        }
        f.write_str("; it is late, was not to be forwarded, or was removed: compare it with the log")
    }
}

impl fmt::Display for CopyHole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.reason {
            HoleReason::Gap => "removed by retention before they were forwarded",
            HoleReason::Pruned => "removed by retention",
            HoleReason::Rejected => "refused by the store",
            HoleReason::Unexplained => "missing",
        };
        write!(f, "records {} to {} are not here: {why}", self.first_seq, self.last_seq)
    }
}

impl fmt::Display for CopyFindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered => f.write_str("the line does not match its hash: it was edited"),
            Self::NotALine { what } => write!(f, "this is not a record: {what}"),
            Self::Link => f.write_str("the record does not link to the one before"),
            Self::Missing { through } => write!(f, "records are missing from here through {through}"),
            Self::Repeated => f.write_str("the record is here twice"),
            Self::Extra => f.write_str("another record belongs here"),
            Self::OtherChain => f.write_str("the record names another chain"),
            Self::OtherThanHead { head } => {
                write!(f, "the record here is not the one that the head {head} names")
            }
            Self::NoRecordOfHead { head } => write!(f, "the record of a head is not here: {head}"),
            Self::Object { key, what } => write!(f, "{key}: {what}"),
            Self::Column { name } => write!(f, "the column {name} differs from the line"),
        }
    }
}
