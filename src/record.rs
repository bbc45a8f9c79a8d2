//! A record as it was read back: with its position in a chain.

use std::{collections::BTreeMap, fmt, sync::OnceLock, time::SystemTime};

use crate::{
    chain::{Digest, Head},
    clock::Timestamp,
    format::{Line, RecordKind, Value, parse_object, text_of},
    segment_name::SegmentName,
    severity::Severity,
};

/// One record of a log: an audit event, or a record that the log writes about itself.
///
/// Its line is well formed and matches its own hash. Reading does not check the links to the lines around it;
/// [`verify`](crate::verify()) does.
#[derive(Clone)]
pub struct Record {
    head: Head,
    kind: RecordKind,
    /// The position of the line: its segment, and its offset there.
    segment: u32,
    offset: u64,
    at: Option<Timestamp>,
    is_provisional: bool,
    is_unconfirmed: bool,
    line: String,
    /// Whether nothing in the line is escaped, so that texts can be borrowed from it directly.
    is_plain: bool,
    /// All members, parsed on first use of one that is not a plain text. Most readers look at only a few
    /// texts of each record.
    members: OnceLock<BTreeMap<String, Value>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what the application recorded, which may be confidential.
        f.debug_struct("Record").field("head", &self.head).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        // Everything else follows from the line.
        (self.head, self.is_provisional, &self.line) == (other.head, other.is_provisional, &other.line)
    }
}

impl Record {
    /// Copies a line that begins at this offset of its segment. `None` if it is not UTF-8, which a parsed line always
    /// is.
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

    /// Returns the number of the chain, `0` for a log written by a single process.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.head.chain()
    }

    /// Returns the sequence number, counted from 1 over the whole chain.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.head.seq
    }

    /// Returns the hash of the record.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.head.hash
    }

    /// Returns the record as a head, to store elsewhere.
    ///
    /// Do not store the head of a [provisional](Self::is_provisional) record. After a power cut, the log may continue
    /// without the record, and an intact log would then be reported as damaged.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Returns whether the log does not state yet that the record is durable.
    ///
    /// A later recovery may withdraw the record, and the next record then gets its number.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.is_provisional
    }

    /// Returns whether this record is in the log although its caller was told that it is not confirmed.
    ///
    /// A `confirm` returned an error, or the macro of a critical event stopped waiting. The application may therefore
    /// have refused the action that the record describes. This is known only if the chain itself records it within the
    /// next 32 MiB. A process that ends before it can write that leaves no trace of it. For records in a chain that was
    /// left for another, [`verify`](crate::verify()) reports it in a note.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.is_unconfirmed
    }

    /// Returns the length of the line in bytes, without the line feed.
    pub(crate) fn length(&self) -> usize {
        self.line.len()
    }

    pub(crate) fn set_unconfirmed(&mut self) {
        self.is_unconfirmed = true;
    }

    /// Returns the time of the event as written in the log: RFC 3339 in UTC, with nine digits after the second. `None`
    /// if the record has none, which this library never writes.
    #[must_use]
    pub fn timestamp(&self) -> Option<&str> {
        self.text("ts")
    }

    /// Returns the time of the event, by the clock of the machine that wrote it. `None` if the record
    /// has no time in this format. Records are ordered by [`seq`](Self::seq), not by time.
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        self.at.map(Timestamp::to_system_time)
    }

    /// Returns the time by which chains are merged.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// Returns the kind of record. For [`RecordKind::Other`], `get("kind")` has the name.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Returns whether the record is an audit event of the application.
    #[must_use]
    pub fn is_event(&self) -> bool {
        self.kind == RecordKind::Event
    }

    /// Returns the severity of the event.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.text("severity")?.parse().ok()
    }

    /// Returns the level of the `tracing` event: `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    #[must_use]
    pub fn level(&self) -> Option<&str> {
        self.text("level")
    }

    /// Returns the action: what was done.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.text("action")
    }

    /// Returns the actor: who did it.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.text("actor")
    }

    /// Returns the resource: what it was done to.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        self.text("resource")
    }

    /// Returns the outcome of the action.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.text("outcome")
    }

    /// Returns the reason for the outcome.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.text("reason")
    }

    /// Returns the id of the session.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.text("session_id")
    }

    /// Returns the id of the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.text("request_id")
    }

    /// Returns the source of the action, such as an address.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.text("source")
    }

    /// Returns the id of the distributed trace.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.text("trace_id")
    }

    /// Returns the id of the span in the distributed trace.
    #[must_use]
    pub fn span_id(&self) -> Option<&str> {
        self.text("span_id")
    }

    /// Returns the message of the event.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.text("message")
    }

    /// Returns the target of the `tracing` event.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.text("target")
    }

    /// Returns every other field of the event, with its name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        let fields = match self.members().get("fields") {
            Some(Value::Object(fields)) => Some(fields),
            _ => None,
        };
        fields.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }

    /// Returns one of the other fields of the event.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.members().get("fields")?.get(name)
    }

    /// Returns any member of the record by its name in the log, e.g. `gap` or `truncated`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members().get(name)
    }

    /// Returns the record as it is in the log: one line of JSON, without the line feed.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.line
    }

    /// Returns the name of the file that contains the record, in the directory of the log.
    #[must_use]
    pub fn file_name(&self) -> String {
        SegmentName { chain: self.head.chain, segment: self.segment }.to_string()
    }

    /// Returns the offset of the line in its [file](Self::file_name), in bytes. It stays valid while the file exists:
    /// segments are not rewritten.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn text(&self, name: &str) -> Option<&str> {
        if self.is_plain { text_of(&self.line, name) } else { self.members().get(name)?.as_str() }
    }

    fn members(&self) -> &BTreeMap<String, Value> {
        // The line was parsed as an object when the record was read, so the default is never used.
        self.members.get_or_init(|| parse_object(self.line.as_bytes()).unwrap_or_default())
    }
}
