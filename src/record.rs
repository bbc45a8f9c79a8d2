//! A record that has its place in a chain, as it was read back.

use std::{collections::BTreeMap, fmt, sync::OnceLock, time::SystemTime};

use crate::{
    chain::{Digest, Head},
    clock::Timestamp,
    format::{Line, RecordKind, Value, parse_object, text_of},
    segment_name::SegmentName,
    severity::Severity,
};

/// One record of a log: an audit event, or what the log says of itself.
///
/// Its line is well formed and matches its own hash. That it is linked to the lines around it, only
/// [`verify`](crate::verify()) says.
#[derive(Clone)]
pub struct Record {
    head: Head,
    kind: RecordKind,
    /// Where the line stands: its segment, and where it begins in it.
    segment: u32,
    offset: u64,
    at: Option<Timestamp>,
    is_provisional: bool,
    is_unconfirmed: bool,
    line: String,
    /// Whether nothing in the line is escaped, so that texts can be handed out as they stand in it.
    is_plain: bool,
    /// All members, parsed when one is first asked for that is no text: most readers look at a few texts
    /// of each record and go on.
    members: OnceLock<BTreeMap<String, Value>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what the application recorded.
        f.debug_struct("Record").field("head", &self.head).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        // The rest follows from the line.
        (self.head, self.is_provisional, &self.line) == (other.head, other.is_provisional, &other.line)
    }
}

impl Record {
    /// Takes over a line that begins at this offset of its segment. `None` where it is not UTF-8, which a parsed line
    /// always is.
    pub(crate) fn of(name: SegmentName, offset: u64, line: &Line<'_>, durable: u64) -> Option<Self> {
        Some(Self {
            head: Head { chain: name.chain, seq: line.seq, hash: line.hash },
            kind: line.kind,
            segment: name.segment,
            offset,
            at: line.at(),
            is_provisional: line.seq > durable,
            is_unconfirmed: false,
            line: String::from_utf8(line.bytes.to_vec()).ok()?,
            is_plain: memchr::memchr(b'\\', line.bytes).is_none(),
            members: OnceLock::new(),
        })
    }

    /// The number of the chain, `0` for a log that one process alone wrote.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.head.chain()
    }

    /// The sequence number, counted from 1 over the whole chain.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.head.seq
    }

    /// The hash of the record.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.head.hash
    }

    /// The record as a head, to keep elsewhere. Not for a [provisional](Self::is_provisional) record:
    /// a power cut may take it back, and then the head would call an honest log damaged.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Whether the log does not say yet that the record is durable. A later recovery may withdraw
    /// it, and the next record then has its number.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.is_provisional
    }

    /// Whether somebody was told that this record is not confirmed, although it is in the log: a `confirm` returned an
    /// error, or the macro of a critical event stopped waiting. What it says was done may have been refused. Known where the chain
    /// itself says so within the next 32 MiB; a process that ended before it could write that down leaves nothing to
    /// see. Of records in a chain that was left for another, [`verify`](crate::verify()) says it in a note.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.is_unconfirmed
    }

    /// How many bytes its line has, without the line feed.
    pub(crate) fn length(&self) -> usize {
        self.line.len()
    }

    pub(crate) fn set_unconfirmed(&mut self) {
        self.is_unconfirmed = true;
    }

    /// When the event happened, as it stands in the log: RFC 3339 in UTC, nine digits of a second. `None` where the
    /// record does not say it, which this library never writes.
    #[must_use]
    pub fn timestamp(&self) -> Option<&str> {
        self.text("ts")
    }

    /// When the event happened, by the clock of the machine that wrote it; `None` where the record
    /// does not say it in the way of this format. The order of records is [`seq`](Self::seq).
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        self.at.map(Timestamp::to_system_time)
    }

    /// What the merge of chains goes by.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// What the record is. Of [`RecordKind::Other`], `get("kind")` has the name.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Whether the record is an audit event of the application.
    #[must_use]
    pub fn is_event(&self) -> bool {
        self.kind == RecordKind::Event
    }

    /// How critical the event is.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.text("severity")?.parse().ok()
    }

    /// The level of the `tracing` event: `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    #[must_use]
    pub fn level(&self) -> Option<&str> {
        self.text("level")
    }

    /// What was done.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.text("action")
    }

    /// Who did it.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.text("actor")
    }

    /// To what.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        self.text("resource")
    }

    /// With which result.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.text("outcome")
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.text("reason")
    }

    /// In which session.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.text("session_id")
    }

    /// In which request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.text("request_id")
    }

    /// From where.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.text("source")
    }

    /// The distributed trace.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.text("trace_id")
    }

    /// The span in the distributed trace.
    #[must_use]
    pub fn span_id(&self) -> Option<&str> {
        self.text("span_id")
    }

    /// The sentence of the event.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.text("message")
    }

    /// The target of the `tracing` event.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.text("target")
    }

    /// Every other field of the event, with its name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        let fields = match self.members().get("fields") {
            Some(Value::Object(fields)) => Some(fields),
            _ => None,
        };
        fields.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }

    /// One of the other fields of the event.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.members().get("fields")?.get(name)
    }

    /// Any member of the record by its name in the log, e.g. `gap` or `truncated`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members().get(name)
    }

    /// The record as it stands in the log: one line of JSON, without the line feed.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.line
    }

    /// The name of the file in which the record stands, in the directory of the log.
    #[must_use]
    pub fn file_name(&self) -> String {
        SegmentName { chain: self.head.chain, segment: self.segment }.to_string()
    }

    /// Where the line begins in its [file](Self::file_name), in bytes. It is there as long as the file is: segments are
    /// not rewritten.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn text(&self, name: &str) -> Option<&str> {
        if self.is_plain { text_of(&self.line, name) } else { self.members().get(name)?.as_str() }
    }

    fn members(&self) -> &BTreeMap<String, Value> {
        // A line that was parsed is an object.
        self.members.get_or_init(|| parse_object(self.line.as_bytes()).unwrap_or_default())
    }
}
