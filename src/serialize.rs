//! Serde implementations for counters, reports and records. Feature `serde`.
//!
//! Names are those of `as_str`. Digests, heads and receipts are texts, durations are in seconds, and times are RFC 3339.

use std::{
    fmt,
    marker::PhantomData,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{
    Serialize, Serializer,
    de::{Error, Visitor},
    ser::{SerializeMap as _, SerializeStruct as _},
};

use crate::{
    chain::{Digest, Head, Receipt},
    clock::Timestamp,
    format::serialize_line,
    record::Record,
    verify::{ChainReport, Finding, FindingKind, NotChecked, Note, Report},
};

/// A visitor that parses a text, or a number by its text.
pub(crate) struct TextVisitor<T> {
    what: &'static str,
    read: PhantomData<T>,
}

impl<T> TextVisitor<T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, read: PhantomData }
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    // Through the text, so that `wait_bound = 5` gets the parser's error about the missing unit.
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Serialises a type with `Display`, and deserialises it with `FromStr`.
macro_rules! as_text {
    ($type:ty, $what:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::serialize::TextVisitor::new($what))
            }
        }
    };
}

pub(crate) use as_text;

as_text!(Digest, "digest");
as_text!(Head, "head");
as_text!(Receipt, "receipt");

/// Serialises a duration in seconds, for the fields of `Stats`.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Serialises a time as RFC 3339, as in the lines of a log.
pub(crate) fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Timestamp::from_system_time(*time))
}

/// Serialises the line as an object, with its members in order and its numbers exact.
///
/// The output is not what was hashed, because the escaping of texts is not kept. The hashed bytes are those of
/// [`as_json`](Record::as_json).
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_line(self.as_json(), serializer)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 11)?;
        report.serialize_field("verdict", &self.verdict())?;
        report.serialize_field("path", &self.path().to_string_lossy())?;
        report.serialize_field("records", &self.records())?;
        report.serialize_field("events", &self.events())?;
        report.serialize_field("heads", self.heads())?;
        report.serialize_field("chains", self.chains())?;
        report.serialize_field("findings", self.findings())?;
        report.serialize_field("counts", &Counts(self))?;
        report.serialize_field("notes", self.notes())?;
        report.serialize_field("more_notes", &self.more_notes())?;
        report.serialize_field("not_checked", self.not_checked())?;
        report.end()
    }
}

/// Number of findings of each kind, including zeros.
struct Counts<'a>(&'a Report);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut counts = serializer.serialize_map(Some(FindingKind::ALL.len()))?;
        for kind in FindingKind::ALL {
            counts.serialize_entry(kind, &self.0.count(*kind))?;
        }
        counts.end()
    }
}

impl Serialize for ChainReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut chain = serializer.serialize_struct("ChainReport", 12)?;
        chain.serialize_field("chain", &self.chain())?;
        chain.serialize_field("state", &self.state())?;
        chain.serialize_field("first_seq", &self.first_seq())?;
        chain.serialize_field("last_seq", &self.last_seq())?;
        chain.serialize_field("records", &self.records())?;
        chain.serialize_field("events", &self.events())?;
        chain.serialize_field("segments", &self.segments())?;
        chain.serialize_field("head", &self.head())?;
        chain.serialize_field("provisional", &self.provisional())?;
        chain.serialize_field("lost_critical", &self.lost_critical())?;
        chain.serialize_field("lost_routine", &self.lost_routine())?;
        chain.serialize_field("unconfirmed", &self.unconfirmed())?;
        chain.end()
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut finding = serializer.serialize_struct("Finding", 7)?;
        finding.serialize_field("kind", &self.kind())?;
        finding.serialize_field("chain", &self.chain())?;
        finding.serialize_field("segment", &self.segment())?;
        finding.serialize_field("line", &self.line())?;
        finding.serialize_field("offset", &self.offset())?;
        finding.serialize_field("seq", &self.seq())?;
        finding.serialize_field("message", self.message())?;
        finding.end()
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut note = serializer.serialize_struct("Note", 3)?;
        note.serialize_field("kind", &self.kind())?;
        note.serialize_field("chain", &self.chain())?;
        note.serialize_field("message", self.message())?;
        note.end()
    }
}

impl Serialize for NotChecked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut not_checked = serializer.serialize_struct("NotChecked", 3)?;
        not_checked.serialize_field("kind", &self.kind())?;
        not_checked.serialize_field("chain", &self.chain())?;
        not_checked.serialize_field("message", self.message())?;
        not_checked.end()
    }
}
