//! What a verification finds: values in a report, never errors.

use std::fmt;

use crate::{
    chain_reader::{Anomaly, Fault, LinePosition},
    named::named,
    segment_name::ChainNumber,
    verdict::Verdict,
};

/// What is wrong at a place of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A line does not match its own hash.
    Edited,
    /// A line is no record: its layout, its JSON or its length is wrong.
    Malformed,
    /// Lines are missing.
    Deleted,
    /// A good line stands where it does not belong.
    Inserted,
    /// A line stands a second time.
    Duplicate,
    /// A line does not name the hash of the line before it: one of the two was replaced.
    BrokenLink,
    /// A segment that counts is not there.
    MissingSegment,
    /// The first line of a file belongs to another segment or chain.
    RenamedSegment,
    /// A segment declares records void that had been durable.
    Voided,
    /// A file that was given up before anything in it counted now holds more than it can have held then.
    Destroyed,
    /// A chain ends before a record that was durable: it was cut, or copied earlier than what names
    /// that record.
    Ahead,
    /// A record has another hash than the one that was kept of it.
    HeadMismatch,
    /// A chain that another chain or a kept head names is not there.
    MissingChain,
    /// A segment was written by a later version of the format, which this version cannot judge.
    UnsupportedFormat,
    /// The end of a chain was written only in part and was never durable.
    TornTail,
    /// The last run of a chain ended without `close`, and nobody holds the chain.
    NotClosed,
}

impl FindingKind {
    /// What one finding of this kind makes of the log.
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

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub(super) kind: FindingKind,
    pub(super) chain: ChainNumber,
    pub(super) place: Option<LinePosition>,
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
            place: Some(anomaly.place),
            seq: anomaly.records.map(|(first, _)| first),
            message: anomaly.message.clone(),
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// The number of the chain.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.chain.get()
    }

    /// The number of the segment, where the finding is about one.
    #[must_use]
    pub fn segment(&self) -> Option<u32> {
        self.place.map(|place| place.segment)
    }

    /// The line in its segment, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.place.map(|place| place.line).filter(|line| *line > 0)
    }

    /// Where the line begins in its segment, in bytes.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.place.filter(|place| place.line > 0).map(|place| place.offset)
    }

    /// The sequence number of the record it is about; of the first, where it is about several.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// What was found, in a sentence. It never contains text of the log itself.
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

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NoteKind {
    /// Bytes that a later segment declares void: a torn write, or records never acknowledged.
    Void,
    /// Void bytes of which no `recovery` record tells: somebody appended them when the segment was
    /// finished, or a power cut took the record.
    Undeclared,
    /// Events that could not be recorded, counted by the chain itself.
    Gap,
    /// Records that are durable although somebody was told that they are not confirmed: what they say may have been
    /// refused.
    Unconfirmed,
    /// The chain went on after a crash, a failure or damage.
    Recovery,
    /// A run ended without `close`, and a later one went on.
    Unclosed,
    /// A file that retention has removed is there again; it is not judged.
    Leftover,
    /// A file without a good line, which counts nothing.
    Stillborn,
    /// A file in the directory that is no part of the log.
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

/// What a verification could not check, by what it would have needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NotCheckedKind {
    /// The end of a chain behind the newest head that was given, or all of it where none was: a head kept elsewhere.
    End,
    /// A head that was given, whose record was removed by retention or is trusted.
    Head,
    /// Records that retention removed.
    Pruned,
    /// Records before a head that the caller trusts.
    Trusted,
    /// Segments of a later format.
    Format,
    /// Whether a writer holds the chain: its lock could not be read, and the system did not tell.
    Lock,
    /// The noted head of a chain: its lock file is a copy, or could not be read.
    NotedHead,
    /// Whole chains that no other chain witnessed: a head of each.
    Chains,
    /// Who wrote the lines: signatures.
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

    /// What could not be checked.
    #[must_use]
    pub fn kind(&self) -> NotCheckedKind {
        self.kind
    }

    /// The number of the chain, where it is about one.
    #[must_use]
    pub fn chain(&self) -> Option<u16> {
        self.chain.map(ChainNumber::get)
    }

    /// What could not be checked and why, in words that go on "it was not checked …".
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

/// Something an auditor should know that is no fault of the evidence.
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

    /// What the note is about.
    #[must_use]
    pub fn kind(&self) -> NoteKind {
        self.kind
    }

    /// The number of the chain, where the note is about one.
    #[must_use]
    pub fn chain(&self) -> Option<u16> {
        self.chain.map(ChainNumber::get)
    }

    /// What there is to know, in a sentence.
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
