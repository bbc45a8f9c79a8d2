//! Tests of capture as a whole: from events to payloads in the queue.

mod added;
mod attach;
mod bridge;
mod content;
mod filter;
mod inherited;
mod lifecycle;
mod others;
mod payload;
mod spans;

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use serde_json::Value as Json;
use tracing::{Event, Level, Subscriber, dispatcher::DefaultGuard, field::Visit, span};
use tracing_core::{Callsite, Kind, Metadata, callsite::Identifier, field::FieldSet, subscriber::Interest};
use tracing_subscriber::{
    filter::Filtered,
    layer::{Context, Layer, SubscriberExt as _},
    registry::{LookupSpan, Registry},
};

use super::{AuditFilter, AuditLayer, Capture, Rules};
use crate::{
    FlushMode, OnFailure, OnFull, Stats,
    clock::Clock,
    notify::Notifier,
    queue::{DraftBuffers, Queue, QueueSettings},
    stats::Notice,
};

/// A log without a writer.
struct Log {
    capture: Arc<Capture>,
    notices: Arc<Mutex<Vec<Notice>>>,
    /// Callsites and the maximum level are global: a subscriber of one test would affect another.
    _alone: Rc<MutexGuard<'static, ()>>,
}

/// Returns a guard. While it lives, no test on another thread has a log.
fn alone() -> Rc<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    thread_local! {
        static HELD: RefCell<Weak<MutexGuard<'static, ()>>> = const { RefCell::new(Weak::new()) };
    }
    HELD.with_borrow_mut(|held| {
        held.upgrade().unwrap_or_else(|| {
            let alone = Rc::new(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
            *held = Rc::downgrade(&alone);
            alone
        })
    })
}

impl Log {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let alone = alone();
        let settings = QueueSettings {
            bytes: 1 << 40,
            wait_bound: Duration::from_secs(5),
            flush_mode: FlushMode::Batched { size: 100, interval: Duration::from_secs(1) },
            on_full: OnFull::Block,
            on_failure: OnFailure::Continue,
        };
        let clock = Clock::start();
        let notices = Arc::<Mutex<Vec<Notice>>>::default();
        let heard = Arc::clone(&notices);
        let on_notice = Box::new(move |notice: &Notice| heard.lock().unwrap().push(notice.clone()));
        let notifier =
            Notifier::start(Some("test".to_owned()), clock, Some(on_notice), super::mark_own_thread);
        let queue = Arc::new(Queue::new(settings, clock, Arc::default(), notifier.unwrap()));
        Self { capture: Capture::new(queue, rules), notices, _alone: alone }
    }

    fn layer<S>(&self) -> Filtered<AuditLayer, AuditFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        super::layer(&self.capture)
    }

    /// Installs a subscriber with nothing but this log on the calling thread.
    fn install(&self) -> DefaultGuard {
        install(Registry::default().with(self.layer()))
    }

    /// Returns the raw payloads that were queued since the last call.
    fn payloads(&self) -> Vec<Vec<u8>> {
        let mut buffers = DraftBuffers::default();
        self.capture.queue.take(&mut buffers);
        buffers
            .iter()
            .flat_map(crate::queue::DraftBuffer::iter)
            .map(|(_, payload)| payload.to_vec())
            .collect()
    }

    /// Returns the same as JSON, after checking that a strict reader accepts each line.
    #[track_caller]
    fn records(&self) -> Vec<Json> {
        self.payloads().iter().map(|payload| parse(payload)).collect()
    }

    #[track_caller]
    fn only(&self) -> Json {
        let mut records = self.records();
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// Returns the actions of the events that were queued since the last call.
    fn actions(&self) -> Vec<String> {
        let events = self.records().into_iter().filter(|record| record["kind"] == "event");
        events.map(|record| record["action"].as_str().unwrap_or("-").to_owned()).collect()
    }

    fn lost(&self) -> String {
        let mut stats = Stats::default();
        self.capture.queue.fill(&mut stats);
        let lost: Vec<String> = stats
            .lost
            .iter()
            .map(|loss| format!("{} {} {}", loss.events, loss.severity, loss.reason))
            .collect();
        lost.join(", ")
    }
}

#[must_use]
fn install(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    tracing::subscriber::set_default(subscriber)
}

#[track_caller]
fn parse(payload: &[u8]) -> Json {
    assert!(payload.len() <= crate::format::MAX_PAYLOAD, "{}", payload.len());
    let mut line = Vec::new();
    crate::format::seal(&mut line, 1, payload, Some(0), &crate::Digest::ZERO);
    assert_eq!(line.pop(), Some(b'\n'));
    let text = String::from_utf8_lossy(&line).into_owned();
    if let Err(malformed) = crate::format::LineParser::default().parse(&line) {
        panic!("{malformed:?}: {text}");
    }
    serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A layer that notes the message of every event and the name of every span that it receives.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.0.lock().unwrap().push(format!("span {}", attributes.metadata().name()));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" || field.name() == "action" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        // Formatted before the lock is taken: it may emit events itself.
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0.trim_matches('"').to_owned());
    }
}

/// Emits an event with an action through a subscriber, like an event emitted inside another one with a global subscriber.
/// A scoped subscriber does not receive events that are emitted while it handles one.
fn emit_through(dispatch: &tracing::Dispatch, target: &'static str, level: Level, action: &str) {
    struct Site(OnceLock<Metadata<'static>>);
    impl Callsite for Site {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            self.0.get().unwrap()
        }
    }
    let site: &'static Site = Box::leak(Box::new(Site(OnceLock::new())));
    let fields = FieldSet::new(&["action"], Identifier(site));
    let metadata =
        site.0.get_or_init(|| Metadata::new("nested", target, level, None, None, None, fields, Kind::EVENT));
    let field = metadata.fields().field("action").unwrap();
    if !dispatch.register_callsite(metadata).is_never() && dispatch.enabled(metadata) {
        let action: &dyn tracing::Value = &action;
        dispatch.event(&Event::new(metadata, &metadata.fields().value_set(&[(&field, Some(action))])));
    }
}
