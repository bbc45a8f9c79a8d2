//! The bounded queue between application threads and the writer: in order, with a part reserved for critical events.
//!
//! Emitters add drafts; the writer takes them and publishes what became durable. Losses are counted under the
//! lock under which drafts are queued, so a `gap` record is exactly where events are missing. Apart from the
//! gauges, which the writer only publishes, and the notifier, this is where application threads and the writer share state.

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

/// The number of an accepted event of this log, counted from 1 in the order of the queue.
pub(crate) type Ticket = u64;

/// An encoded event that has no place in the chain yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    /// The bytes that `format::Payload` wrote.
    pub(crate) payload: &'a [u8],
    pub(crate) severity: Severity,
    pub(crate) at: Timestamp,
}

/// Capacity, limits and modes of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueSettings {
    pub(crate) bytes: u64,
    pub(crate) wait_bound: Duration,
    pub(crate) flush_mode: FlushMode,
    pub(crate) on_full: OnFull,
    pub(crate) on_failure: OnFailure,
}

/// Queued bytes at which a dozing writer is woken: as much as one write carries.
const WAKE_BYTES: u64 = 512 * 1024;

/// The same once a caller has waited for an event. A wait lasts until everything queued before its event is
/// sealed, written and synced, so less is left to accumulate.
const EAGER_WAKE_BYTES: u64 = 64 * 1024;

/// For how many takes of the writer `EAGER_WAKE_BYTES` applies after such a wait.
const EAGER_TAKES: u32 = 1000;

/// The most wakers kept while the log is stalled. New waits return at once then, and earlier ones end at their bound.
/// Without a limit, the wakers of tasks that gave up would accumulate.
const MAX_STALLED_WAITERS: usize = 4096;

/// The queue of one log, shared by emitters, waiters and the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    settings: QueueSettings,
    clock: Clock,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) notifier: Arc<Notifier>,
    /// Guards everything that emitters and the writer share. Held to copy one draft or to swap buffers, never during
    /// I/O, formatting, or code of the application.
    state: Mutex<State>,
    /// Signalled when records became durable and so made room.
    room: Condvar,
    /// Wake the groups of `sleepers`.
    bells: [Bell; Group::COUNT],
    /// The thread to wake, once it runs.
    writer: OnceLock<Thread>,
    /// The last event that is durable. Written with release under `state`, so a wait that holds the lock sees the newest
    /// value. The fast path reads it with acquire, and does not lock.
    durable: AtomicU64,
    /// Whether a wait reached its bound and no sync has succeeded since. Changed under `state`.
    stalled: AtomicBool,
    /// Detects that this process is a child of the one that opened the log.
    fork: forkguard::Guard,
    /// Events lost in a forked child, by severity. Atomic, because `state` may be locked for ever there.
    lost_in_child: [AtomicU64; Severity::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    /// The drafts that the writer has not taken.
    buffers: DraftBuffers,
    /// Bytes queued, and bytes taken but not yet durable: what the setting `queue_bytes` bounds.
    held_bytes: u64,
    /// Bytes in `buffers`.
    queued_bytes: u64,
    /// The last event that was accepted.
    accepted: Ticket,
    accepted_critical: u64,
    /// The event up to which a caller wants durability now.
    wanted: Ticket,
    /// For how many more takes the writer is woken early.
    eager: u32,
    /// How many waits ended without a confirmation.
    unconfirmed: u64,
    /// Events that were reported as not confirmed, and which the writer has not taken over yet.
    refused: Refused,
    losses: Losses,
    /// Tasks that wait for an event to be durable; under `Ticket::MAX`, waits for the end of the log.
    waiters: Vec<(Ticket, Waker)>,
    /// Waits for any further event to be durable that request no sync, each under a number of its own.
    watchers: BTreeMap<u64, Waker>,
    /// The number given last in `watchers`.
    watched: u64,
    /// Threads that wait for an event to be durable.
    sleepers: Sleepers,
    /// Threads that wait for room and were not woken since they began.
    blocked: u32,
    /// How often room was made and all blocked threads were woken.
    room_made: u64,
    /// What the writer's thread does now.
    pause: Pause,
    /// Waits for a rotation, by its number.
    rotate: Vec<(u64, Waker)>,
    /// How many rotations were requested.
    rotations_wanted: u64,
    /// How many of those the writer knows of.
    rotations_seen: u64,
    rotations_done: u64,
    /// The oldest event in `buffers`.
    oldest_queued: Option<Timestamp>,
    /// The oldest event that the writer has taken and that is not durable.
    oldest_taken: Option<Timestamp>,
    last_take: Take,
    /// Whether the writer has work that is not in the queue.
    nudged: bool,
    stage: Stage,
}

/// The events that the writer took last.
#[derive(Debug, Clone, Copy, Default)]
struct Take {
    /// The last event before them.
    after: Ticket,
    /// The last of them.
    through: Ticket,
    /// When the first of them was emitted.
    oldest: Option<Timestamp>,
}

/// How the writer's thread pauses while nothing is urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pause {
    /// Not at all: the writer is running and looks at the queue again by itself.
    #[default]
    None,
    /// For a few milliseconds, while drafts accumulate. Only urgent work or a nudge ends it early.
    Doze,
    /// Until something happens: the queue is empty.
    Sleep,
    /// After a failure, before the next attempt. Only a later stage or a nudge ends it early.
    Backoff,
}

/// The stage in the life of a log. It only ever increases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    #[default]
    Open,
    /// Takes no more events; the writer makes the rest durable and writes `close`.
    Closing,
    /// Closing, and no caller waits any more: what cannot be written is given up.
    Abandoned,
    /// The process is about to abort, after a last attempt of the writer.
    Aborting,
    Closed,
}

/// The work of the writer, as of one look at the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    /// Everything up to this event is to be made durable now.
    pub(crate) wanted: Ticket,
    /// A thread waits for room, which only a sync makes.
    pub(crate) room_wanted: bool,
    /// How many rotations were requested since the log was opened.
    pub(crate) rotations: u64,
    pub(crate) stage: Stage,
    /// When the oldest of the drafts taken with this look was emitted.
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

    /// Returns the timestamp for an event that is emitted now.
    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(crate) fn wait_bound(&self) -> Duration {
        self.settings.wait_bound
    }

    /// Returns whether this process is a child of the one that opened the log. It has no writer, because fork(2) copies
    /// only the calling thread, and `state` may be locked for ever.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.clone().detected_fork()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a waker once, however often its task is polled.
fn register(wakers: &mut Vec<(u64, Waker)>, number: u64, waker: &Waker) {
    if !wakers.iter().any(|(known, registered)| *known == number && registered.will_wake(waker)) {
        wakers.push((number, waker.clone()));
    }
}

/// The wait ended without the event being durable.
#[derive(Debug)]
pub(crate) struct NotDurable;

/// The events of a wait, which are reported as not confirmed if it ends too early.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiter<'a> {
    /// Everything so far, but no event in particular: none is reported.
    All,
    /// The event that the thread has just emitted.
    Event(Ticket),
    /// The events of one `confirm`.
    Scope(&'a Scope),
}

impl State {
    /// Queues a payload; `severity` is `None` for a gap.
    fn put(&mut self, payload: &[u8], severity: Option<Severity>, scope: Option<Arc<Scope>>) {
        self.held_bytes += payload.len() as u64;
        self.queued_bytes += payload.len() as u64;
        self.buffers.push(payload, severity, scope);
    }

    /// Queues `gap` records for losses since the last one, before the next event that is not lost.
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
