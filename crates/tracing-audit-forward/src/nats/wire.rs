//! Subjects, headers and messages, as stored in a stream.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tracing_audit::Digest;

use super::failure::setup;
use crate::{
    copy::{CopiedLine, MAX_SEQ, is_chain_id},
    origin::Origin,
    sink::{Entry, Gap, SinkError},
};

pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
pub(super) const BATCH_ID: &str = "Nats-Batch-Id";
pub(super) const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
pub(super) const BATCH_COMMIT: &str = "Nats-Batch-Commit";
pub(super) const GAP: &str = "Audit-Gap";
pub(super) const CHAIN: &str = "Audit-Chain";
pub(super) const AFTER: &str = "Audit-After";

/// Maximum number of messages of one atomic batch: the default limit of a server.
pub(super) const MAX_BATCH: usize = 1_000;

/// More than the headers of a message take: the ids of a message and of a batch, and numbers.
pub(super) const MAX_HEADERS: u64 = 512;

/// The first part of the subjects of a copy.
#[derive(Debug, Clone)]
pub(super) struct Prefix(String);

impl Prefix {
    /// Parses one or more tokens, separated by dots.
    pub(super) fn new(prefix: &str) -> Result<Self, SinkError> {
        let is_token = |token: &str| {
            !token.is_empty()
                && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if prefix.len() > 100 || !prefix.split('.').all(is_token) {
            return Err(setup(format!(
                "the prefix of subjects is letters, digits, `-` and `_`, with dots between them, and not {prefix:?}"
            )));
        }
        Ok(Self(prefix.to_owned()))
    }

    /// Returns the subject of the records of a chain.
    pub(super) fn subject(&self, origin: &Origin, chain_id: &str) -> String {
        let (service, host) = origin.tokens();
        format!("{}.{service}.{host}.{chain_id}", self.0)
    }

    /// Returns the pattern that a stream has to capture.
    pub(super) fn all(&self) -> String {
        format!("{}.>", self.0)
    }

    /// Returns the subject of the heartbeats of a log.
    pub(super) fn alive(&self, origin: &Origin) -> String {
        let (service, host) = origin.tokens();
        format!("{}-alive.{service}.{host}", self.0)
    }

    pub(super) fn all_alive(&self) -> String {
        format!("{}-alive.>", self.0)
    }

    /// Returns whether a subject, or a pattern, is one of heartbeats.
    pub(super) fn is_alive(&self, text: &str) -> bool {
        text.contains(&format!("\"{}-alive.", self.0))
    }

    /// Returns the log and chain of a subject; `None` if no forwarder writes to it.
    pub(super) fn parse(&self, subject: &str) -> Option<(Origin, Arc<str>)> {
        let mut tokens = subject.strip_prefix(&self.0)?.strip_prefix('.')?.split('.');
        let (service, host, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
        if tokens.next().is_some() || !is_chain_id(id) {
            return None;
        }
        Some((Origin::parse(service, host)?, id.into()))
    }

    /// Returns the log of a heartbeat's subject.
    pub(super) fn parse_alive(&self, subject: &str) -> Option<Origin> {
        let mut tokens = subject.strip_prefix(&self.0)?.strip_prefix("-alive.")?.split('.');
        let (service, host) = (tokens.next()?, tokens.next()?);
        if tokens.next().is_some() { None } else { Origin::parse(service, host) }
    }
}

/// Returns the id of a message. It includes a part of the hash, so that the duplicate window never hides
/// another record. It includes a part of the subject, because the server compares ids across the
/// whole stream, and a message of another host must not hide one of this host.
pub(super) fn message_id(entry: &Entry, subject: &str) -> String {
    let hash = entry.record.hash().to_string();
    let digest: [u8; 32] = Sha256::digest(subject).into();
    let [a, b, c, d, ..] = digest;
    let part = hash.get(..16).unwrap_or_default();
    format!("{}-{}-{part}-{a:02x}{b:02x}{c:02x}{d:02x}", entry.chain_id, entry.record.seq())
}

/// The content of the last message of a chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    /// Its place in the stream; 0 if there is none.
    pub(super) place: u64,
    /// The last record.
    pub(super) record: Option<(u64, Digest)>,
    /// The gap after it.
    pub(super) gap: Option<(u64, u64)>,
}

impl Last {
    pub(super) fn seq(&self) -> u64 {
        self.record.map_or(0, |(seq, _)| seq)
    }
}

/// A message, as returned by the leader of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    pub(super) seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Stored {
    /// Returns what it says of its chain; `None` if it is neither a record nor a gap.
    pub(super) fn read(&self) -> Option<Last> {
        let data = STANDARD.decode(&self.data).ok()?;
        if data.is_empty() {
            let headers = String::from_utf8(STANDARD.decode(&self.hdrs).ok()?).ok()?;
            let get = |name: &str| {
                let mut fields = headers.lines().filter_map(|line| line.split_once(':'));
                fields.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
            };
            let (first, last) = range(get(GAP)?)?;
            let record = match get(AFTER) {
                Some(after) => Some(record(after)?),
                None => None,
            };
            return Some(Last { place: self.seq, record, gap: Some((first, last)) });
        }
        let line = CopiedLine::parse(&data).ok()?;
        Some(Last { place: self.seq, record: Some((line.seq, line.hash)), gap: None })
    }
}

/// Returns the gap in these headers.
pub(super) fn gap_of<'a>(chain_id: &Arc<str>, get: impl Fn(&str) -> Option<&'a str>) -> Option<Gap> {
    let (first, last) = range(get(GAP)?)?;
    let chain = get(CHAIN)?.parse().ok()?;
    Some(Gap::new(Arc::clone(chain_id), chain, first..=last))
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last && last <= MAX_SEQ).then_some((first, last))
}

fn record(text: &str) -> Option<(u64, Digest)> {
    let (seq, hash) = text.split_once(':')?;
    Some((seq.parse().ok()?, hash.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_written_and_read_back() {
        let prefix = Prefix::new("corp.audit").unwrap();
        let origin = Origin::new("web shop", "n1.example").unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let subject = prefix.subject(&origin, id);
        assert_eq!(subject, format!("corp.audit.web%20shop.n1%2Eexample.{id}"));
        assert_eq!(prefix.parse(&subject), Some((origin.clone(), id.into())));
        assert_eq!(prefix.parse_alive(&prefix.alive(&origin)), Some(origin.clone()));
        for strange in [
            format!("corp.audit.web.n1.{}", &id[1..]),
            format!("corp.audit.web.n1.{}", id.to_uppercase()),
            format!("corp.audit.web.n1.{id}.x"),
            format!("corp.auditx.web.n1.{id}"),
            format!("corp.audit.we%62.n1.{id}"),
            "corp.audit".to_owned(),
        ] {
            assert_eq!(prefix.parse(&strange), None, "{strange}");
        }
        assert_eq!(prefix.parse_alive("corp.audit-alive.web.n1.x"), None);
        for bad in ["", "a..b", ".a", "a.", "a b", "a.*", ">", "$JS", "é"] {
            assert!(Prefix::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_records_and_gaps_are_parsed() {
        let stored = |data: &str, headers: &str| {
            let stored = Stored { seq: 7, hdrs: STANDARD.encode(headers), data: STANDARD.encode(data) };
            stored.read().map(|last| (last.place, last.seq(), last.gap))
        };
        let hash = "ab".repeat(32);
        let head = "NATS/1.0\r\n";
        assert_eq!(stored("", &format!("{head}Audit-Gap: 5-9\r\n\r\n")), Some((7, 0, Some((5, 9)))));
        let after = format!("{head}Audit-Gap: 5-9\r\nAudit-After: 4:{hash}\r\n\r\n");
        assert_eq!(stored("", &after), Some((7, 4, Some((5, 9)))));
        for bad in
            ["Audit-Gap: 9-5", "Audit-Gap: 0-5", "Audit-Gap: x", "Audit-Gap: 1-2\r\nAudit-After: 4", "X: 1"]
        {
            assert_eq!(stored("", &format!("{head}{bad}\r\n\r\n")), None, "{bad}");
        }
        assert_eq!(stored("{}", head), None);
    }
}
