//! Keeps call sites alive across the tests of a process.

use std::sync::OnceLock;

use tracing_core::{
    Event, LevelFilter, Metadata, Subscriber,
    dispatcher::Dispatch,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

/// Keeps two subscribers registered for the rest of the process.
///
/// tracing-core caches for each call site whether anybody is interested. While it knows of one subscriber only, it does
/// not ask that one but the subscriber of the thread that meets the call site first. If that is a thread of another
/// test, without a subscriber, the call site is cached as `never` and is silent on every thread, see
/// <https://github.com/tokio-rs/tracing/issues/2874>. With these two there are always others, so all are asked. One
/// would do once a log is there; with two there is no moment at which a log is the only one.
pub(crate) fn keep_alive() {
    static KEEPERS: OnceLock<[Dispatch; 2]> = OnceLock::new();
    KEEPERS.get_or_init(|| [Dispatch::new(Keeper), Dispatch::new(Keeper)]);
}

/// A subscriber that is no thread's, and might be interested in everything.
struct Keeper;

impl Subscriber for Keeper {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    /// Raises the highest level of the process for nobody.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
