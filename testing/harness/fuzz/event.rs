//! Arbitrary bytes as the fields of an event.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::Value as Json;
use tracing_core::{
    Callsite, Dispatch, Event, Field, Kind, Level, Metadata, callsite::Identifier, field::FieldSet,
    subscriber::Interest,
};
use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

use crate::{
    FlushMode, OnFailure, OnFull,
    capture::{self, Capture, Rules},
    chain::Digest,
    clock::Clock,
    format::{LineParser, MAX_LINE, MAX_PAYLOAD, seal},
    notify::Notifier,
    queue::{DraftBuffer, DraftBuffers, Queue, QueueSettings},
};

/// As many names as a value set built by hand can have, including those that careless or hostile
/// programs use.
const NAMES: [&str; 32] = [
    "message",
    "action",
    "actor",
    "resource",
    "outcome",
    "reason",
    "session_id",
    "request_id",
    "source",
    "trace_id",
    "span_id",
    "severity",
    "audit",
    "seq",
    "ts",
    "kind",
    "durable",
    "_prev_hash",
    "_hash",
    "fields",
    "password",
    "user.token",
    "line\nbreak\"\\",
    "\u{2028}\u{85}",
    "\u{202e}\u{feff}",
    "\u{1b}[31m",
    "",
    "n",
    "n",
    "log.target",
    "log.module_path",
    "r#type",
];

/// The members at the top level of an event's line.
const MEMBERS: [&str; 28] = [
    "seq",
    "ts",
    "kind",
    "severity",
    "level",
    "action",
    "actor",
    "resource",
    "outcome",
    "reason",
    "session_id",
    "request_id",
    "source",
    "trace_id",
    "span_id",
    "message",
    "target",
    "module",
    "fields",
    "incomplete",
    "redacted",
    "repeated",
    "truncated",
    "durable",
    "_prev_hash",
    "_hash",
    "file",
    "line",
];

struct Site(OnceLock<Metadata<'static>>);

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().expect("made before it is used")
    }
}

static SITE: Site = Site(OnceLock::new());

fn metadata() -> &'static Metadata<'static> {
    SITE.0.get_or_init(|| {
        let fields = FieldSet::new(&NAMES, Identifier(&SITE));
        Metadata::new("fuzz", "audit", Level::INFO, None, None, Some("fuzz\n"), fields, Kind::EVENT)
    })
}

thread_local! {
    static LOG: (Arc<Queue>, Dispatch) = log();
}

/// Creates a log without a writer, and the subscriber that leads to it.
fn log() -> (Arc<Queue>, Dispatch) {
    let settings = QueueSettings {
        bytes: 64 << 20,
        wait_bound: Duration::ZERO,
        flush_mode: FlushMode::Batched { size: 100, interval: Duration::from_secs(1) },
        on_full: OnFull::Block,
        on_failure: OnFailure::Continue,
    };
    let clock = Clock::start();
    let notifier = Notifier::start(Some("log".to_owned()), clock, None, || {}).expect("no thread is started");
    let queue = Arc::new(Queue::new(settings, clock, Arc::default(), notifier));
    let capture = Capture::new(Arc::clone(&queue), Rules::default());
    let dispatch = Dispatch::new(Registry::default().with(capture::layer(&capture)));
    (queue, dispatch)
}

/// A value that prints its text, and then may fail or print far more.
struct Printed<'a>(&'a str, u8);

impl fmt::Debug for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        match self.1 % 8 {
            0 => Err(fmt::Error),
            1 => std::iter::repeat_n(self.0, 1 << 20).try_for_each(|text| f.write_str(text)),
            _ => Ok(()),
        }
    }
}

/// Takes the input apart, from its beginning.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes.iter_mut().zip(taken).for_each(|(to, from)| *to = *from);
        bytes
    }
}

/// Checks that one event is one line with the values that it was given, whatever they are.
///
/// # Panics
///
/// Panics if that does not hold.
pub fn event(bytes: &[u8]) {
    let mut input = Input(bytes);
    let fields: Vec<Field> = metadata().fields().iter().collect();
    let mut values: Vec<Option<Box<dyn tracing_core::field::Value + '_>>> = Vec::new();
    let mut texts: Vec<Option<String>> = vec![None; fields.len()];
    for text in &mut texts {
        let (value, expected) = value(&mut input);
        values.push(value);
        *text = expected;
    }
    let pairs: Vec<_> = fields.iter().zip(values.iter().map(Option::as_deref)).collect();
    let pairs: &[_; NAMES.len()] = pairs.as_slice().try_into().expect("one value for each name");
    let payloads = LOG.with(|(queue, dispatch)| {
        // The same event twice.
        for _ in 0..2 {
            let interest = dispatch.register_callsite(metadata());
            assert!(!interest.is_never() && dispatch.enabled(metadata()));
            dispatch.event(&Event::new(metadata(), &metadata().fields().value_set(pairs)));
        }
        let mut chunks = DraftBuffers::default();
        queue.take(&mut chunks);
        // Frees the space for the next event.
        queue.publish(queue.accepted(), 0, || {}).unwrap();
        let payloads = chunks.iter().flat_map(DraftBuffer::iter).map(|(_, payload)| payload.to_vec());
        payloads.collect::<Vec<_>>()
    });
    let bodies: Vec<&[u8]> = payloads.iter().map(|payload| body(payload)).collect();
    if let [first, second] = bodies.as_slice() {
        assert_eq!(first, second, "the same event, and two records");
    } else {
        assert!(bodies.is_empty(), "two events are two records or, with `audit = false`, none");
    }
    if let Some(payload) = payloads.first() {
        check(payload, &texts);
    }
}

/// Returns the payload without the time.
fn body(payload: &[u8]) -> &[u8] {
    payload.get(br#","ts":"2026-11-21T08:00:00.000000000Z""#.len()..).unwrap_or_default()
}

/// Returns a value and, if it is a text, that text.
fn value<'a>(input: &mut Input<'a>) -> (Option<Box<dyn tracing_core::field::Value + 'a>>, Option<String>) {
    let kind = input.byte();
    match kind % 12 {
        0..4 => (None, None),
        4 | 5 => {
            let length = usize::from(input.byte());
            let text = String::from_utf8_lossy(input.take(length)).into_owned();
            (Some(Box::new(text.clone())), Some(text))
        }
        6 => {
            let (length, repeats) = (usize::from(input.byte()), usize::from(input.byte()));
            let text = String::from_utf8_lossy(input.take(length)).repeat(repeats);
            (Some(Box::new(text)), None)
        }
        7 => {
            let length = usize::from(input.byte());
            let text = std::str::from_utf8(input.take(length)).unwrap_or("\u{fffd}");
            (Some(Box::new(tracing_core::field::debug(Printed(text, kind / 12)))), None)
        }
        8 => {
            let length = usize::from(input.byte());
            (Some(Box::new(input.take(length))), None)
        }
        9 => (Some(Box::new(f64::from_le_bytes(input.bytes()))), None),
        10 => (Some(Box::new(u128::from_le_bytes(input.bytes()))), None),
        _ if kind >= 128 => (Some(Box::new(i64::from_le_bytes(input.bytes()))), None),
        _ => (Some(Box::new(kind.is_multiple_of(2))), None),
    }
}

fn check(payload: &[u8], texts: &[Option<String>]) {
    assert!(payload.len() <= MAX_PAYLOAD, "{} bytes", payload.len());
    let mut line = Vec::new();
    seal(&mut line, 1, payload, Some(0), &Digest::ZERO);
    assert!(line.len() <= MAX_LINE && line.pop() == Some(b'\n'));
    let text = std::str::from_utf8(&line).expect("a line is UTF-8");
    assert!(!text.chars().any(is_hostile), "something stands raw in {text:?}");
    let parsed = LineParser::default().parse(&line).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    assert!(parsed.hash_is_right());
    let json: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let members = json.as_object().expect("a line is an object");
    assert!(members.keys().all(|name| MEMBERS.contains(&name.as_str())), "not ours: {text}");
    assert_eq!((members["seq"].as_u64(), members["kind"].as_str()), (Some(1), Some("event")));
    assert_eq!(members["target"].as_str(), Some("audit"));

    let listed = |list: &str, name: &str| {
        members.get(list).is_some_and(|list| {
            list.as_array().is_some_and(|names| names.iter().any(|listed| listed == name || listed == "…"))
                || list.as_object().is_some_and(|names| names.contains_key(name) || names.contains_key("…"))
        })
    };
    // `log.…` fields state where a record of another crate came from, and a repeated field is
    // written once.
    let special = ["severity", "audit", "n", "log.target", "log.module_path", "r#type"];
    for (name, expected) in NAMES.iter().zip(texts).filter(|(name, _)| !special.contains(name)) {
        let Some(expected) = expected else { continue };
        if listed("truncated", name) || listed("redacted", name) || listed("repeated", name) {
            continue;
        }
        let named = MEMBERS[5..16].contains(name);
        let found =
            if named { members.get(*name) } else { members.get("fields").and_then(|all| all.get(name)) };
        assert!(found.and_then(Json::as_str) == Some(expected), "{name:?} is {found:?}: {text}");
    }
}

/// Returns whether a character must never appear raw in a line. Listed here independently, not
/// taken from the library's own list.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}
