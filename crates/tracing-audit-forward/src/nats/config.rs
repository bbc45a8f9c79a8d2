//! The settings that a stream needs so that it keeps what it acknowledged.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::json;

use super::{
    failure::setup,
    wire::{MAX_HEADERS, Prefix},
};
use crate::sink::SinkError;

/// Settings of a stream with which it can lose what it acknowledged. None is allowed by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NatsAllow {
    /// `memory`: storage in memory, which a restart of the server empties.
    Memory,
    /// `discard-old`: limits at which the stream drops its oldest messages.
    DiscardOld,
    /// `max-age`: messages are removed by age.
    MaxAge,
    /// `interest`: messages are removed once every consumer has them.
    Interest,
    /// `workqueue`: messages are removed once a consumer has them.
    WorkQueue,
    /// `delete`: single messages may be deleted.
    Delete,
    /// `purge`: all messages may be deleted.
    Purge,
    /// `rollup`: a message may replace all messages before it.
    Rollup,
    /// `no-ack`: the stream acknowledges nothing, so every batch waits for its timeout.
    NoAck,
    /// `message-ttl`: a message may set its own lifetime.
    MessageTtl,
    /// `async-persist`: the stream acknowledges before it writes (`persist_mode: async`).
    AsyncPersist,
    /// `small-messages`: the longest lines do not fit. They are refused, one by one.
    SmallMessages,
}

const NAMES: [(&str, NatsAllow); 12] = [
    ("memory", NatsAllow::Memory),
    ("discard-old", NatsAllow::DiscardOld),
    ("max-age", NatsAllow::MaxAge),
    ("interest", NatsAllow::Interest),
    ("workqueue", NatsAllow::WorkQueue),
    ("delete", NatsAllow::Delete),
    ("purge", NatsAllow::Purge),
    ("rollup", NatsAllow::Rollup),
    ("no-ack", NatsAllow::NoAck),
    ("message-ttl", NatsAllow::MessageTtl),
    ("async-persist", NatsAllow::AsyncPersist),
    ("small-messages", NatsAllow::SmallMessages),
];

impl FromStr for NatsAllow {
    type Err = SinkError;

    fn from_str(name: &str) -> Result<Self, SinkError> {
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, allow)| *allow);
        found.ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            setup(format!("a setting to allow is one of {}", names.join(", ")))
        })
    }
}

impl NatsAllow {
    fn name(self) -> &'static str {
        NAMES.iter().find(|(_, allow)| *allow == self).map_or("", |(name, _)| name)
    }
}

/// The configuration of a stream, as far as it matters here. Members that an older server does not know are
/// absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "so it is on the wire")]
pub(super) struct StreamConfig {
    subjects: Vec<String>,
    retention: String,
    max_msgs: i64,
    max_bytes: i64,
    max_age: i64,
    max_msgs_per_subject: i64,
    max_msg_size: i64,
    discard: String,
    discard_new_per_subject: bool,
    storage: String,
    no_ack: bool,
    sealed: bool,
    deny_delete: bool,
    deny_purge: bool,
    allow_rollup_hdrs: bool,
    allow_msg_ttl: bool,
    persist_mode: String,
    mirror: Option<serde_json::Value>,
    subject_transform: Option<serde_json::Value>,
    pub(super) allow_atomic: bool,
}

/// The longest line, without its line feed.
const MAX_LINE: u64 = 60 * 1024 - 1;

impl StreamConfig {
    /// Checks that the stream takes batches for `subject`, and keeps what it takes. `max_payload` is what the
    /// server accepts in one message.
    pub(super) fn check(
        &self,
        stream: &str,
        subject: &str,
        prefix: &Prefix,
        max_payload: u64,
        allow: &[NatsAllow],
    ) -> Result<(), SinkError> {
        if let Some(why) = self.unusable(stream, subject, prefix) {
            return Err(setup(format!("the stream {stream} cannot be used: {why}")));
        }
        let found: Vec<String> = self
            .risks(max_payload)
            .filter(|(danger, _, _)| !allow.contains(danger))
            .map(|(danger, what, cure)| {
                let cure = cure.replace("STREAM", stream);
                format!("{what} ({cure}, or allow={})", danger.name())
            })
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let found = found.join("; ");
        Err(setup(format!("the stream {stream} may lose what it acknowledged, or not take it: {found}")))
    }

    /// Returns the longest line that fits into a message.
    pub(super) fn max_line(&self, max_payload: u64) -> u64 {
        self.room(max_payload).saturating_sub(MAX_HEADERS)
    }

    /// Returns the largest message, including its headers.
    fn room(&self, max_payload: u64) -> u64 {
        let size = u64::try_from(self.max_msg_size).ok().filter(|size| *size > 0);
        size.unwrap_or(u64::MAX).min(max_payload)
    }

    fn unusable(&self, stream: &str, subject: &str, prefix: &Prefix) -> Option<String> {
        if self.mirror.is_some() {
            return Some(
                "it is a mirror, and takes messages from its origin only; name the origin".to_owned(),
            );
        }
        if self.sealed {
            return Some("it is sealed, and takes no message".to_owned());
        }
        if self.subject_transform.is_some() {
            let why = "it stores messages under other subjects (subject_transform), where they would not be found; recreate it without";
            return Some(why.to_owned());
        }
        if !self.subjects.iter().any(|pattern| captures(pattern, subject)) {
            let all = prefix.all();
            return Some(format!(
                "it does not capture {subject}; `nats stream edit {stream} --subjects '{all}'`, or name another prefix"
            ));
        }
        None
    }

    /// Returns each risky setting that is not allowed: its name, what it means, and what to change.
    fn risks(&self, max_payload: u64) -> impl Iterator<Item = (NatsAllow, String, &'static str)> {
        let room = self.room(max_payload);
        let small = (room < MAX_LINE + MAX_HEADERS).then(|| {
            let what = format!(
                "a message of {room} bytes is the longest, and a line needs up to {}",
                MAX_LINE + MAX_HEADERS
            );
            let cure = "`nats stream edit STREAM --max-msg-size=-1`, and max_payload of the server";
            (NatsAllow::SmallMessages, what, cure)
        });
        let others = RISKS.iter().filter(|(is_there, ..)| is_there(self));
        others.map(|(_, danger, what, cure)| (*danger, (*what).to_owned(), *cure)).chain(small)
    }

    fn drops_old(&self) -> bool {
        let has_limits = self.max_msgs > 0 || self.max_bytes > 0;
        let by_subject =
            self.max_msgs_per_subject > 0 && !(self.discard == "new" && self.discard_new_per_subject);
        (self.discard != "new" && has_limits) || by_subject
    }
}

type Risk = (fn(&StreamConfig) -> bool, NatsAllow, &'static str, &'static str);

/// For each risky setting: whether it is set, what it means, and what to change.
const RISKS: [Risk; 11] = [
    (
        |config| config.storage == "memory",
        NatsAllow::Memory,
        "its storage is memory",
        "recreate it with --storage=file",
    ),
    (
        StreamConfig::drops_old,
        NatsAllow::DiscardOld,
        "at its limits it drops old messages",
        "`nats stream edit STREAM --discard=new --max-msgs-per-subject=-1`",
    ),
    (
        |config| config.max_age > 0,
        NatsAllow::MaxAge,
        "it drops messages by age",
        "`nats stream edit STREAM --max-age=-1`",
    ),
    (
        |config| config.retention == "interest",
        NatsAllow::Interest,
        "it drops what every consumer has",
        "recreate it with --retention=limits",
    ),
    (
        |config| config.retention == "workqueue",
        NatsAllow::WorkQueue,
        "it drops what a consumer has",
        "recreate it with --retention=limits",
    ),
    (
        |config| !config.deny_delete,
        NatsAllow::Delete,
        "its messages may be deleted",
        "`nats stream edit STREAM --deny-delete`",
    ),
    (
        |config| !config.deny_purge,
        NatsAllow::Purge,
        "it may be purged",
        "`nats stream edit STREAM --deny-purge`",
    ),
    (
        |config| config.allow_rollup_hdrs,
        NatsAllow::Rollup,
        "a message may replace all before it",
        "`nats stream edit STREAM --no-allow-rollup`",
    ),
    (
        |config| config.no_ack,
        NatsAllow::NoAck,
        "it acknowledges nothing",
        "`nats stream edit STREAM` with \"no_ack\": false",
    ),
    (
        |config| config.allow_msg_ttl,
        NatsAllow::MessageTtl,
        "messages may set their own lifetime",
        "recreate it without allow_msg_ttl",
    ),
    (
        |config| config.persist_mode == "async",
        NatsAllow::AsyncPersist,
        "it acknowledges before it writes",
        "recreate it without persist_mode",
    ),
];

/// Returns a configuration that keeps everything, and refuses messages when the stream is full.
pub(super) fn safe_config(
    stream: &str,
    prefix: &Prefix,
    replicas: u8,
    knows_batches: bool,
) -> serde_json::Value {
    let mut config = json!({
        "name": stream,
        "subjects": [prefix.all()],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "num_replicas": replicas,
        "deny_delete": true,
        "deny_purge": true,
    });
    if knows_batches && let Some(members) = config.as_object_mut() {
        members.insert("allow_atomic".to_owned(), true.into());
    }
    config
}

/// Returns whether a subject with wildcards covers one without.
fn captures(pattern: &str, subject: &str) -> bool {
    let (mut tokens, mut rest) = (pattern.split('.'), subject.split('.'));
    loop {
        match (tokens.next(), rest.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_captures_what_the_server_says() {
        for (pattern, subject, expected) in [
            ("a.>", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            (">", "a", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.b.c.d", "a.b.c", false),
            ("a.b", "a.c", false),
        ] {
            assert_eq!(captures(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn the_created_stream_is_safe() {
        let prefix = Prefix::new("audit").unwrap();
        let config: StreamConfig = serde_json::from_value(safe_config("A", &prefix, 1, true)).unwrap();
        config.check("A", "audit.web.n1.x", &prefix, 1 << 20, &[]).unwrap();
        assert!(config.allow_atomic);
        let error = config.check("A", "other.web.n1.x", &prefix, 1 << 20, &[]).unwrap_err();
        assert!(error.to_string().contains("does not capture"), "{error}");
    }
}
