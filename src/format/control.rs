//! The records that are not events: their contents, and how these are encoded in a line.

use std::{collections::BTreeMap, fmt};

use serde_json::Value as Json;

use super::{After, FORMAT_VERSION, Payload, RecordKind, escape_into};
use crate::{
    chain::Digest,
    clock::Timestamp,
    segment_name::{ChainNumber, SegmentName},
    stats::LossReason,
};

/// 128 random bits, drawn with a chain's first segment: (`id`, `seq`) identifies a durable record permanently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChainId(pub(crate) u128);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl ChainId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(lower_hex))
            .then(|| u128::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

/// The durable head of another chain, as a chain saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) id: ChainId,
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
}

/// The heads of all other chains that a chain witnesses.
pub(crate) type Witnesses = BTreeMap<ChainNumber, Witness>;

/// The content of the first line of each segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) id: ChainId,
    pub(crate) chain: ChainNumber,
    pub(crate) segment: u32,
    pub(crate) after: Vec<After>,
    pub(crate) chains: Witnesses,
    /// The last record that retention had removed, and its hash: the chain continues after it.
    pub(crate) pruned: Option<(u64, Digest)>,
}

/// The content of the first record of a run.
#[derive(Debug)]
pub(crate) struct OpenInfo<'a> {
    pub(crate) writer: u64,
    pub(crate) service: &'a str,
    pub(crate) host: &'a str,
    pub(crate) pid: u32,
    /// A hash of the machine's identity and `host`.
    pub(crate) machine: &'a str,
    pub(crate) flush_mode: &'a str,
    pub(crate) filesystem: &'a str,
    pub(crate) chains: &'a Witnesses,
}

/// Events that could not be recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GapInfo {
    pub(crate) reason: LossReason,
    pub(crate) critical: u64,
    pub(crate) routine: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// A notice to the operator.
#[derive(Debug)]
pub(crate) struct NoticeInfo<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
}

/// Why a chain does not simply continue after its last line.
#[derive(Debug)]
pub(crate) struct RecoveryInfo<'a> {
    pub(crate) cause: Cause,
    /// The segment concerned, and how many of its bytes count.
    pub(crate) segment: u32,
    pub(crate) bytes: u64,
    /// How many of its bytes are void.
    pub(crate) void: u64,
    pub(crate) message: &'a str,
}

/// What retention removed: every record up to and including `through`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PruneInfo {
    pub(crate) through: u64,
    pub(crate) hash: Digest,
    /// The segments removed with this record: the first and the last number.
    pub(crate) files: (u32, u32),
    pub(crate) reason: String,
}

/// The content of the last record of a run that was closed.
#[derive(Debug)]
pub(crate) struct CloseInfo<'a> {
    /// Events of this run that are durable.
    pub(crate) events: u64,
    pub(crate) chains: &'a Witnesses,
}

/// Why a chain does not simply continue after its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The previous run ended without `close`.
    Unclosed,
    /// A write was not finished.
    Torn,
    /// A write or sync had failed, and the process ended before it could begin a new segment.
    Poisoned,
    /// A write failed.
    WriteFailed,
    /// A write failed for lack of space.
    OutOfRoom,
    /// A sync failed.
    SyncFailed,
    /// A durable record is bad or missing.
    Damage,
    /// Somebody else changed the live segment.
    Replaced,
}

impl Cause {
    /// All causes, for the test of docs/format.md.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Unclosed,
        Self::Torn,
        Self::Poisoned,
        Self::WriteFailed,
        Self::OutOfRoom,
        Self::SyncFailed,
        Self::Damage,
        Self::Replaced,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unclosed => "unclosed",
            Self::Torn => "torn",
            Self::Poisoned => "poisoned",
            Self::WriteFailed => "write_failed",
            Self::OutOfRoom => "out_of_room",
            Self::SyncFailed => "sync_failed",
            Self::Damage => "damage",
            Self::Replaced => "replaced",
        }
    }
}

/// The limit for which segments were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PruneReason {
    Age,
    Bytes,
    Segments,
}

impl PruneReason {
    /// All reasons, for the test of docs/format.md.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Age, Self::Bytes, Self::Segments];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Age => "max_age",
            Self::Bytes => "max_bytes",
            Self::Segments => "max_segments",
        }
    }
}

impl SegmentInfo {
    /// Returns whether this is the first line of the file with this name.
    pub(crate) fn is_of(&self, name: SegmentName) -> bool {
        (self.chain, self.segment) == (name.chain, name.segment)
    }

    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Segment, |object| {
            object.number("format", FORMAT_VERSION);
            object.text("id", &self.id.to_string());
            object.text("chain", &self.chain.to_string());
            object.number("segment", u64::from(self.segment));
            let after: Vec<String> = self.after.iter().map(After::json).collect();
            object.raw("after", &format!("[{}]", after.join(",")));
            object.witnesses(&self.chains);
            if let Some((through, hash)) = self.pruned {
                object.raw("pruned", &format!("{{\"through\":{through},\"hash\":\"{hash}\"}}"));
            }
        })
    }
}

impl OpenInfo<'_> {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Open, |object| {
            object.text("writer", &format!("{:016x}", self.writer));
            object.text("service", self.service);
            object.text("host", self.host);
            object.number("pid", u64::from(self.pid));
            object.text("machine", self.machine);
            object.text("version", env!("CARGO_PKG_VERSION"));
            object.text("flush_mode", self.flush_mode);
            object.text("filesystem", self.filesystem);
            object.witnesses(self.chains);
        })
    }
}

impl GapInfo {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Gap, |object| {
            object.text("reason", self.reason.as_str());
            object.number("critical", self.critical);
            object.number("routine", self.routine);
            object.text("first_ts", &self.first.to_string());
            object.text("last_ts", &self.last.to_string());
        })
    }
}

impl NoticeInfo<'_> {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Notice, |object| {
            object.text("code", self.code);
            object.text("message", self.message);
        })
    }
}

impl RecoveryInfo<'_> {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Recovery, |object| {
            object.text("cause", self.cause.as_str());
            object.number("segment", u64::from(self.segment));
            object.number("bytes", self.bytes);
            object.number("void", self.void);
            object.text("message", self.message);
        })
    }
}

impl PruneInfo {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Prune, |object| {
            object.number("through", self.through);
            object.text("hash", &self.hash.to_string());
            object.raw("files", &format!("[{},{}]", self.files.0, self.files.1));
            object.text("reason", &self.reason);
        })
    }
}

impl CloseInfo<'_> {
    pub(crate) fn payload(&self, at: Timestamp) -> Vec<u8> {
        detail(at, RecordKind::Close, |object| {
            object.number("events", self.events);
            object.witnesses(self.chains);
        })
    }
}

/// Returns the payload of a `mark`.
pub(crate) fn mark_payload(at: Timestamp, chains: &Witnesses) -> Vec<u8> {
    detail(at, RecordKind::Mark, |object| object.witnesses(chains))
}

/// Returns a payload with one object that is named like its kind.
pub(super) fn detail(at: Timestamp, kind: RecordKind, fill: impl FnOnce(&mut Object)) -> Vec<u8> {
    let mut object = Object { json: Vec::new() };
    fill(&mut object);
    if object.json.is_empty() {
        object.json.push(b'{');
    }
    object.json.push(b'}');
    let mut bytes = Vec::with_capacity(object.json.len() + 80);
    Payload::begin(&mut bytes, at, kind).raw(kind.as_str(), &object.json);
    bytes
}

/// A JSON object under construction.
pub(super) struct Object {
    json: Vec<u8>,
}

impl Object {
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.json.push(if self.json.is_empty() { b'{' } else { b',' });
        self.json.push(b'"');
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
        self.json.extend_from_slice(json.as_bytes());
    }

    fn number(&mut self, name: &str, number: u64) {
        self.raw(name, itoa::Buffer::new().format(number));
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.raw(name, "\"");
        escape_into(&mut self.json, text);
        self.json.push(b'"');
    }

    fn witnesses(&mut self, chains: &Witnesses) {
        let entries: Vec<String> = chains
            .iter()
            .map(|(chain, witness)| {
                let Witness { id, seq, hash } = witness;
                format!("\"{chain}\":{{\"id\":\"{id}\",\"seq\":{seq},\"hash\":\"{hash}\"}}")
            })
            .collect();
        self.raw("chains", &format!("{{{}}}", entries.join(",")));
    }
}

/// The format of a `segment` line: a known one, with its content if it could be parsed, or a later one.
#[derive(Debug)]
pub(crate) enum Format {
    Known(Option<Box<SegmentInfo>>),
    Later(u64),
}

/// Parses the object of a `segment` line. Returns `None` if it claims no format.
pub(crate) fn read_first(detail: &[u8]) -> Option<Format> {
    let json: Json = serde_json::from_slice(detail).ok()?;
    let format = format_of(&json)?;
    Some(if format > FORMAT_VERSION {
        Format::Later(format)
    } else {
        Format::Known(segment_of(&json).map(Box::new))
    })
}

/// Returns `None` if the object is not one that this version writes. Unknown members are ignored.
fn segment_of(json: &Json) -> Option<SegmentInfo> {
    let after = json.get("after")?.as_array()?.iter().map(After::read);
    let pruned = match json.get("pruned") {
        Some(pruned) => Some((pruned.get("through")?.as_u64()?, digest(pruned.get("hash")?)?)),
        None => None,
    };
    Some(SegmentInfo {
        id: ChainId::parse(json.get("id")?.as_str()?)?,
        chain: ChainNumber::parse(json.get("chain")?.as_str()?)?,
        segment: small(json.get("segment")?)?,
        after: after.collect::<Option<_>>()?,
        chains: witnesses(json)?,
        pruned,
    })
}

/// Returns the format version that a `segment` line claims.
#[expect(clippy::cast_precision_loss, reason = "only whether it is far beyond matters")]
fn format_of(json: &Json) -> Option<u64> {
    let format = json.get("format")?;
    // A number that is too large for a `u64` is certainly of a later version. Anything else that is not a whole number
    // above zero is not a version.
    let beyond = format.as_f64().filter(|format| *format > u64::MAX as f64).map(|_| u64::MAX);
    format.as_u64().or(beyond).filter(|format| *format > 0)
}

/// Parses what a `segment`, `open`, `mark` or `close` states about other chains.
pub(crate) fn read_witnesses(detail: &[u8]) -> Option<Witnesses> {
    witnesses(&serde_json::from_slice(detail).ok()?)
}

/// Returns whether an `open` names its machine, which the previous version did not write.
pub(crate) fn names_machine(detail: &[u8]) -> bool {
    serde_json::from_slice::<Json>(detail).is_ok_and(|json| json.get("machine").is_some())
}

/// Parses the object of a `prune` record.
pub(crate) fn read_prune(detail: &[u8]) -> Option<PruneInfo> {
    let json: Json = serde_json::from_slice(detail).ok()?;
    let files = json.get("files")?;
    Some(PruneInfo {
        through: json.get("through")?.as_u64()?,
        hash: digest(json.get("hash")?)?,
        files: (small(files.get(0)?)?, small(files.get(1)?)?),
        reason: json.get("reason")?.as_str()?.to_owned(),
    })
}

/// Parses the object of a `gap` record: its reason, and how many critical and routine events it counts.
pub(crate) fn read_gap(detail: &[u8]) -> Option<(String, u64, u64)> {
    let json: Json = serde_json::from_slice(detail).ok()?;
    let count = |name| json.get(name)?.as_u64();
    Some((json.get("reason")?.as_str()?.to_owned(), count("critical")?, count("routine")?))
}

/// Parses the object of a `recovery` record: its cause, and the segment concerned.
pub(crate) fn read_recovery(detail: &[u8]) -> Option<(String, Option<u32>)> {
    let json: Json = serde_json::from_slice(detail).ok()?;
    Some((json.get("cause")?.as_str()?.to_owned(), json.get("segment").and_then(small)))
}

fn witnesses(json: &Json) -> Option<Witnesses> {
    json.get("chains")?
        .as_object()?
        .iter()
        .map(|(chain, witness)| {
            let witness = Witness {
                id: ChainId::parse(witness.get("id")?.as_str()?)?,
                seq: witness.get("seq")?.as_u64()?,
                hash: digest(witness.get("hash")?)?,
            };
            Some((ChainNumber::parse(chain)?, witness))
        })
        .collect()
}

fn digest(json: &Json) -> Option<Digest> {
    Digest::from_hex(json.as_str()?.as_bytes())
}

pub(super) fn small(json: &Json) -> Option<u32> {
    json.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::LineParser, *};

    #[test]
    fn control_records_survive_the_round_trip() {
        let witness = Witness { id: ChainId(5), seq: 500, hash: Digest::of_bytes(b"x") };
        let at = |second| Timestamp::from_unix(second, 0);
        let segment = SegmentInfo {
            id: ChainId(u128::MAX),
            chain: ChainNumber::FIRST,
            segment: 2,
            after: vec![
                After { is_damaged: true, ..After::counted(1, 40961, Some((at(7), at(9)))) },
                After::counted(2, 0, None),
                After::nothing(3, 7),
            ],
            chains: Witnesses::from([(ChainNumber::parse("001").unwrap(), witness)]),
            pruned: Some((3, Digest::of_bytes(b"y"))),
        };
        let mut line = Vec::new();
        super::super::seal(
            &mut line,
            1,
            &segment.payload(Timestamp::from_unix(0, 0)),
            Some(0),
            &Digest::ZERO,
        );
        line.pop();
        let mut parser = LineParser::default();
        let parsed = parser.parse(&line).unwrap();
        assert_eq!(parsed.kind, RecordKind::Segment);
        assert!(
            matches!(read_first(parsed.detail.unwrap()), Some(Format::Known(Some(read))) if *read == segment)
        );
        assert_eq!(read_witnesses(parsed.detail.unwrap()), Some(segment.chains));

        let prune = PruneInfo { through: 9, hash: Digest::ZERO, files: (1, 2), reason: "max_age".into() };
        line.clear();
        super::super::seal(&mut line, 1, &prune.payload(Timestamp::from_unix(0, 0)), None, &Digest::ZERO);
        line.pop();
        assert_eq!(read_prune(parser.parse(&line).unwrap().detail.unwrap()), Some(prune));
    }
}
