//! The only meeting place of threads: bounded, in order, a part kept for critical events.
//!
//! Emitters put drafts in, the writer takes them out and says what became durable. Losses are
//! counted under the same lock as drafts are queued, so a gap stands exactly where it happened.

mod ask;
mod draft_buffer;
mod emit;
mod losses;
mod refused;
mod scope;
mod serve;
mod sleepers;
#[cfg(test)]
#[path = "../../testing/queue.rs"]
mod tests;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

#[cfg(test)]
pub(crate) use draft_buffer::MADE;
pub(crate) use draft_buffer::{DraftBuffer, DraftBuffers};
pub(crate) use refused::{Refused, Tickets};
pub(crate) use scope::Scope;

use crate::{
    bell::Bell,
    clock::{Clock, Timestamp},
    gauges::Gauges,
    notify::Notifier,
    settings::{FlushMode, OnFailure, OnFull},
    severity::Severity,
    stats::{LossReason, NoticeKind, Stats},
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        thread::{self, Thread},
    },
};
use losses::Losses;
use sleepers::{Group, Sleepers};

/// The how-manieth accepted event of this log, counted from 1.
pub(crate) type Ticket = u64;

/// An event that has no place in the chain yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    /// What `format::Payload` wrote.
    pub(crate) payload: &'a [u8],
    pub(crate) severity: Severity,
    pub(crate) at: Timestamp,
}

/// What the queue is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueSettings {
    pub(crate) bytes: u64,
    pub(crate) wait_bound: Duration,
    pub(crate) flush_mode: FlushMode,
    pub(crate) on_full: OnFull,
    pub(crate) on_failure: OnFailure,
}

/// Queued bytes at which a dozing writer is woken: what one write carries. Whoever waits for an event
/// waits until all that was queued before it is sealed, written and synced, so there is less of that for
/// so many looks of the writer once somebody waited.
const WAKE_BYTES: u64 = 512 * 1024;
const EAGER_WAKE_BYTES: u64 = 64 * 1024;
const EAGER_LOOKS: u32 = 1000;

/// Wakers kept while the log is stalled at most. Nobody waits then, and who waited before ends at
/// the bound: this only keeps tasks that gave up from piling up.
const MAX_STALLED_WAITERS: usize = 4096;

/// The queue of one log, shared by emitters, waiters and the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    settings: QueueSettings,
    clock: Clock,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) notifier: Arc<Notifier>,
    /// Guards everything that emitters and the writer share. Held for a copy of one draft, or to
    /// swap buffers; never during I/O, formatting, or code of the application.
    state: Mutex<State>,
    /// Signalled when records became durable and so made room.
    room: Condvar,
    /// What wakes each group of `sleepers`.
    bells: [Bell; Group::COUNT],
    writer: OnceLock<Thread>,
    durable: AtomicU64,
    stalled: AtomicBool,
    fork: forkguard::Guard,
    lost_in_child: [AtomicU64; Severity::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    chunks: DraftBuffers,
    /// Bytes queued and bytes not yet durable: what `queue_bytes` bounds.
    held_bytes: u64,
    /// Bytes in `chunks`.
    queued_bytes: u64,
    accepted: Ticket,
    accepted_critical: u64,
    /// The event up to which somebody wants durability now.
    wanted: Ticket,
    /// For how many more looks of the writer it is woken early.
    eager: u32,
    unconfirmed: u64,
    /// Events whose waiters were told so, and of which the writer does not know yet.
    refused: Refused,
    losses: Losses,
    /// Tasks that wait for an event to be durable, and whoever waits for the end.
    waiters: Vec<(Ticket, Waker)>,
    /// Whoever waits for more events to be durable and hurries none, each under a number of its own.
    watchers: BTreeMap<u64, Waker>,
    /// The number that was given last.
    watched: u64,
    /// Threads that wait for an event to be durable.
    sleepers: Sleepers,
    /// Threads that wait for room and were not told of any since.
    blocked: u32,
    /// How often room was made, and everybody who waited told.
    room_made: u64,
    pause: Pause,
    rotate: Vec<(u64, Waker)>,
    rotations_wanted: u64,
    /// How many of those the writer knows of.
    rotations_seen: u64,
    rotations_done: u64,
    /// The oldest event in `chunks`, and the oldest that the writer has and is not durable.
    oldest_queued: Option<Timestamp>,
    oldest_taken: Option<Timestamp>,
    last_take: Take,
    /// Whether the writer has something to do that is not in the queue.
    nudged: bool,
    stage: Stage,
}

/// What the writer was given last.
#[derive(Debug, Clone, Copy, Default)]
struct Take {
    /// The last event before it, and its last event.
    after: Ticket,
    through: Ticket,
    oldest: Option<Timestamp>,
}

/// What the writer does while nothing is urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pause {
    /// Not pausing: it will look again by itself.
    #[default]
    None,
    /// For a few milliseconds; routine drafts do not cut it short.
    Doze,
    /// Until something happens.
    Sleep,
    /// After a failure; only an end cuts it short.
    Backoff,
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    #[default]
    Open,
    /// Takes no more events; the writer makes the rest durable and writes `close`.
    Closing,
    /// As closing, but nobody waits any more: what cannot be written is given up.
    Abandoned,
    /// The process ends after a last attempt.
    Aborting,
    Closed,
}

/// What the writer has to do, as of one look at the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    /// Make everything up to this event durable now, where it is not yet.
    pub(crate) wanted: Ticket,
    /// Somebody waits for room, which only a sync makes.
    pub(crate) room_wanted: bool,
    /// How many rotations were asked for.
    pub(crate) rotations: u64,
    pub(crate) stage: Stage,
    /// When the oldest of the drafts that were taken with this look was emitted.
    pub(crate) oldest: Option<Timestamp>,
}

impl Queue {
    pub(crate) fn new(
        settings: QueueSettings,
        clock: Clock,
        gauges: Arc<Gauges>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            settings,
            clock,
            gauges,
            notifier,
            state: Mutex::default(),
            room: Condvar::new(),
            bells: Default::default(),
            writer: OnceLock::new(),
            durable: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            fork: forkguard::new(),
            lost_in_child: Default::default(),
        }
    }

    /// What an event that is emitted now is stamped with.
    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(crate) fn wait_bound(&self) -> Duration {
        self.settings.wait_bound
    }

    /// Whether this process is a child of the one that opened the log: there is no writer here.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.clone().detected_fork()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes a waker once, however often its task is polled.
fn register(wakers: &mut Vec<(u64, Waker)>, number: u64, waker: &Waker) {
    if !wakers.iter().any(|(known, registered)| *known == number && registered.will_wake(waker)) {
        wakers.push((number, waker.clone()));
    }
}

/// The wait bound passed.
#[derive(Debug)]
pub(crate) struct NotDurable;

/// What somebody waits for who can be told that it is not confirmed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiter<'a> {
    /// Everything so far, and no record in particular.
    All,
    /// One's own event.
    Event(Ticket),
    /// The events of one `confirm`.
    Scope(&'a Scope),
}

impl State {
    fn put(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        self.held_bytes += payload.len() as u64;
        self.queued_bytes += payload.len() as u64;
        self.chunks.push(payload, severity, scope);
    }

    /// What was lost stands before the next event that was not.
    #[inline]
    fn put_gaps_before_next(&mut self, clock: Clock) {
        if self.losses.are_pending() {
            self.put_gaps(clock);
        }
    }

    #[cold]
    fn put_gaps(&mut self, clock: Clock) {
        for payload in self.losses.take_pending(clock.wall()) {
            self.put(&payload, None, None);
        }
    }
}
