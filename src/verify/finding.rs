//! The findings of a verification. They are values in a report, never errors.

use std::fmt;

use crate::{
    chain_reader::{Anomaly, Fault, LinePosition},
    named::named,
    segment_name::ChainNumber,
    verdict::Verdict,
};

/// What is wrong with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A line does not match its own hash.
    Edited,
    /// A line is not a record: its layout, its JSON or its length is wrong.
    Malformed,
    /// Lines are missing.
    Deleted,
    /// A good line is in the wrong place.
    Inserted,
    /// A line occurs a second time.
    Duplicate,
    /// A line does not name the hash of the line before it: one of the two was replaced.
    BrokenLink,
    /// A segment that counts is missing.
    MissingSegment,
    /// The first line of a file belongs to another segment or chain.
    RenamedSegment,
    /// A segment declares records void that were durable.
    Voided,
    /// A file that was given up before anything in it counted holds more bytes now than it can have held then.
    Destroyed,
    /// A chain ends before a record that was durable: it was truncated, or copied before the chain or head that
    /// names this record was written.
    Ahead,
    /// A record has a different hash from the one that was kept for it.
    HeadMismatch,
    /// A chain that another chain or a kept head names is missing.
    MissingChain,
    /// A segment was written by a later version of the format, which this version cannot judge.
    UnsupportedFormat,
    /// The end of a chain was only partly written and was never durable.
    TornTail,
    /// The last run of a chain ended without `close`, and no writer is known to hold the chain.
    NotClosed,
}

impl FindingKind {
    /// Returns the verdict that one finding of this kind leads to.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::UnsupportedFormat | Self::TornTail | Self::NotClosed => Verdict::Unclean,
            _ => Verdict::Damaged,
        }
    }
}

named!(FindingKind, "kind of a finding", [
    Edited => "edited",
    Malformed => "malformed",
    Deleted => "deleted",
    Inserted => "inserted",
    Duplicate => "duplicate",
    BrokenLink => "broken_link",
    MissingSegment => "missing_segment",
    RenamedSegment => "renamed_segment",
    Voided => "voided",
    Destroyed => "destroyed",
    Ahead => "ahead",
    HeadMismatch => "head_mismatch",
    MissingChain => "missing_chain",
    UnsupportedFormat => "unsupported_format",
    TornTail => "torn_tail",
    NotClosed => "not_closed",
]);

/// One thing that is wrong, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub(super) kind: FindingKind,
    pub(super) chain: ChainNumber,
    pub(super) position: Option<LinePosition>,
    pub(super) seq: Option<u64>,
    pub(super) message: String,
}

impl From<Fault> for FindingKind {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Edited => Self::Edited,
            Fault::Malformed => Self::Malformed,
            Fault::Missing => Self::Deleted,
            Fault::Inserted => Self::Inserted,
            Fault::Duplicate => Self::Duplicate,
            Fault::BrokenLink => Self::BrokenLink,
            Fault::Misplaced => Self::RenamedSegment,
            Fault::Voided => Self::Voided,
        }
    }
}

impl Finding {
    pub(super) fn of(anomaly: &Anomaly, chain: ChainNumber) -> Self {
        Self {
            kind: anomaly.fault.into(),
            chain,
            position: Some(anomaly.position),
            seq: anomaly.records.map(|(first, _)| first),
            message: anomaly.message.clone(),
        }
    }

    /// Returns what is wrong.
    #[must_use]
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// Returns the number of the chain.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.chain.get()
    }

    /// Returns the number of the segment, if the finding is about one.
    #[must_use]
    pub fn segment(&self) -> Option<u32> {
        self.position.map(|position| position.segment)
    }

    /// Returns the number of the line in its segment, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.position.map(|position| position.line).filter(|line| *line > 0)
    }

    /// Returns the offset of the line in its segment, in bytes.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.position.filter(|position| position.line > 0).map(|position| position.offset)
    }

    /// Returns the sequence number of the record concerned, or of the first one if there are several.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// Returns a sentence that says what was found. It never contains text from the log itself.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: chain {}", self.kind, self.chain)?;
        if let Some(segment) = self.segment() {
            write!(f, ", segment {segment}")?;
        }
        if let (Some(line), Some(offset)) = (self.line(), self.offset()) {
            write!(f, ", line {line} (byte {offset})")?;
        }
        if let Some(seq) = self.seq {
            write!(f, ", record {seq}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The subject of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NoteKind {
    /// Bytes that a later segment declares void: a torn write, or records never acknowledged.
    Void,
    /// Void bytes that no `recovery` record mentions: they were appended after the segment was finished, or a power
    /// cut took the record.
    Undeclared,
    /// Events that could not be recorded, counted in the chain itself.
    Gap,
    /// Records that are durable although a caller was told that they are not confirmed: the actions that they describe
    /// may have been refused.
    Unconfirmed,
    /// The chain was continued after a crash, a failure or damage.
    Recovery,
    /// A run ended without `close`, and a later one continued the chain.
    Unclosed,
    /// A file that retention had removed exists again; it is not judged.
    Leftover,
    /// A file without a good line, which counts nothing.
    Stillborn,
    /// A file in the directory that does not belong to the log.
    Foreign,
    /// A writer holds the chain.
    Live,
}

named!(NoteKind, "kind of a note", [
    Void => "void",
    Undeclared => "undeclared",
    Gap => "gap",
    Unconfirmed => "unconfirmed",
    Recovery => "recovery",
    Unclosed => "unclosed",
    Leftover => "leftover",
    Stillborn => "stillborn",
    Foreign => "foreign",
    Live => "live",
]);

/// What a verification could not check. The variants also name what the check would have needed, where that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NotCheckedKind {
    /// Whether a chain was cut off or rewritten after the newest head that was given; without a head, anywhere. Needs a
    /// head kept elsewhere.
    End,
    /// A head that was given, but whose record was removed by retention or is trusted.
    Head,
    /// Records that retention removed.
    Pruned,
    /// Records before a head that the caller trusts.
    Trusted,
    /// Segments of a later format.
    Format,
    /// Whether a writer holds the chain: its lock could not be read, and the system did not show it.
    Lock,
    /// The noted head of a chain: its lock file is a copy, or could not be read.
    NotedHead,
    /// Whole chains that no other chain witnessed. Needs a head of each.
    Chains,
    /// Who wrote the lines. Needs signatures.
    Author,
}

named!(NotCheckedKind, "kind of what was not checked", [
    End => "end",
    Head => "head",
    Pruned => "pruned",
    Trusted => "trusted",
    Format => "format",
    Lock => "lock",
    NotedHead => "noted_head",
    Chains => "chains",
    Author => "author",
]);

/// Something that a verification could not check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotChecked {
    kind: NotCheckedKind,
    chain: Option<ChainNumber>,
    message: String,
}

impl NotChecked {
    pub(super) fn of(kind: NotCheckedKind, chain: Option<ChainNumber>, message: impl Into<String>) -> Self {
        Self { kind, chain, message: message.into() }
    }

    /// Returns what kind of check was not possible.
    #[must_use]
    pub fn kind(&self) -> NotCheckedKind {
        self.kind
    }

    /// Returns the number of the chain, if it is about one.
    #[must_use]
    pub fn chain(&self) -> Option<u16> {
        self.chain.map(ChainNumber::get)
    }

    /// Returns what could not be checked and why, as a phrase that completes "not checked: …".
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for NotChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(chain) = self.chain {
            write!(f, "chain {chain}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Something that an auditor should know although it is not damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub(super) kind: NoteKind,
    pub(super) chain: Option<ChainNumber>,
    pub(super) message: String,
}

impl Note {
    pub(super) fn of(kind: NoteKind, chain: ChainNumber, message: String) -> Self {
        Self { kind, chain: Some(chain), message }
    }

    /// Returns the kind of the note.
    #[must_use]
    pub fn kind(&self) -> NoteKind {
        self.kind
    }

    /// Returns the number of the chain, if the note is about one.
    #[must_use]
    pub fn chain(&self) -> Option<u16> {
        self.chain.map(ChainNumber::get)
    }

    /// Returns the note as a sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chain {
            Some(chain) => write!(f, "{}: chain {chain}: {}", self.kind, self.message),
            None => write!(f, "{}: {}", self.kind, self.message),
        }
    }
}
