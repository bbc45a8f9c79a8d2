//! Keeps call sites enabled across the tests of a process.

use std::sync::OnceLock;

use tracing_core::{
    Event, LevelFilter, Metadata, Subscriber,
    dispatcher::Dispatch,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

/// Keeps two subscribers registered for the rest of the process.
///
/// For each call site, tracing-core caches whether any subscriber is interested. While only one subscriber is
/// registered, it asks the subscriber of the thread that reaches the call site first, not the registered one. If that
/// thread belongs to another test and has no subscriber, the call site is cached as `never` and disabled on every
/// thread. See <https://github.com/tokio-rs/tracing/issues/2874>.
///
/// With these two, a log is never the only subscriber, so tracing-core asks all of them. One would be enough once a log
/// is open; two also cover the moment before.
pub(crate) fn keep_alive() {
    static KEEPERS: OnceLock<[Dispatch; 2]> = OnceLock::new();
    KEEPERS.get_or_init(|| [Dispatch::new(Keeper), Dispatch::new(Keeper)]);
}

/// A subscriber that belongs to no thread and answers `sometimes` for every call site.
struct Keeper;

impl Subscriber for Keeper {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    /// Returns `OFF`, so that the maximum level of the process stays that of the other subscribers.
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
