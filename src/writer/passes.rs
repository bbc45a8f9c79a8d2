//! When a pass of retention runs, and on which thread.
//!
//! A pass has a thread of its own. So no caller that waits for an event waits for files to be
//! removed, and a removal that hangs is not taken for a disk that hangs. In a simulation, the
//! writer runs the pass itself.
//!
//! The thread decides and removes. It cannot write to the writer's chain: it requests the `prune`
//! record, and continues once that is durable.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    Next, Writer,
    ledger::Trouble,
    outage::Halted,
    retention::{InlineHost, Outcome, Pass, PassHost},
};
use crate::{
    clock::{Clock, Moment, Timestamp},
    format::{ChainId, PruneInfo},
    queue::{Pause, Queue, Stage},
    segment_name::ChainNumber,
    stats::NoticeKind,
    storage::{Dir, Storage},
};

/// The longest time that closing waits for a running pass to end by itself. It waits as long again
/// for the current system call of the pass. The next run removes what is left.
const PATIENCE: Duration = Duration::from_secs(1);
/// The divisor of the wait bound that shortens both waits, if that is less.
const PART_OF_BOUND: u32 = 4;

/// The passes of a writer.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Called first on each new thread; `None` if the writer runs the passes itself.
    pub(super) begin_thread: Option<fn()>,
    running: Option<Running>,
    /// Until when closing waits for the running pass to end by itself.
    awaited_until: Option<Duration>,
    /// Whether closing continued without the running pass. No other pass begins then.
    is_abandoned: bool,
    /// The time before the jump that was reported last.
    reported_jump: Option<Timestamp>,
    /// The last failure that was reported. A pass that fails in the same way is not reported again.
    reported_failure: Option<String>,
}

/// A pass on its own thread, seen from the writer.
#[derive(Debug)]
struct Running {
    messages: Receiver<Message>,
    answers: Sender<bool>,
    /// Whether the thread must end. Relaxed ordering is enough: the flag guards no other data.
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A message from the thread to the writer.
#[derive(Debug)]
enum Message {
    /// Requests a record in this chain.
    Prune((ChainNumber, Option<ChainId>), PruneInfo),
    Ended(Outcome),
}

/// What a pass on its own thread has of the writer.
#[derive(Debug)]
struct ThreadHost {
    messages: Sender<Message>,
    answers: Receiver<bool>,
    stop: Arc<AtomicBool>,
    queue: Arc<Queue>,
    clock: Clock,
}

impl ThreadHost {
    /// Sends a message and wakes the writer. Returns whether the writer can still receive it.
    fn send(&self, what: Message) -> bool {
        let is_received = self.messages.send(what).is_ok();
        self.queue.nudge();
        is_received
    }
}

impl PassHost for ThreadHost {
    fn record(&mut self, chain: (ChainNumber, Option<ChainId>), info: PruneInfo) -> bool {
        self.send(Message::Prune(chain, info)) && self.answers.recv().unwrap_or(false)
    }

    fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }
}

impl Running {
    /// Starts the thread of a pass.
    fn begin(mut pass: Pass, queue: &Arc<Queue>, begin_thread: fn()) -> io::Result<Self> {
        let (messages, from_thread) = channel();
        let (answers, to_thread) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut host = ThreadHost {
            messages,
            answers: to_thread,
            stop: Arc::clone(&stop),
            queue: Arc::clone(queue),
            clock: pass.clock,
        };
        let thread = thread::Builder::new().name("audit-retention".to_owned()).spawn(move || {
            begin_thread();
            let outcome = match pass.storage.apart() {
                Ok(storage) => {
                    pass.storage = storage;
                    pass.run(&mut host)
                }
                Err(error) => Outcome::failed(pass.storage.as_ref(), error),
            };
            // Close its descriptors, and release the chain it may hold, before the end is reported.
            drop(pass);
            host.send(Message::Ended(outcome));
        })?;
        Ok(Self { messages: from_thread, answers, stop, thread: Some(thread) })
    }

    /// Returns the next message of the thread, if there is one. A thread that panicked counts as
    /// ended.
    fn receive(&mut self, storage: &dyn Storage) -> Option<Message> {
        match self.messages.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let error = io::Error::other("the thread that removes them failed");
                Some(Message::Ended(Outcome::failed(storage, error)))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Passes {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Tells the running pass to end after the current file. The writer has moved to another chain,
    /// or no caller waits any more.
    pub(super) fn stop(&self) {
        if let Some(running) = &self.running {
            running.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Begins a pass if one is due, and serves the one that runs.
    pub(super) fn apply_retention(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        if self.settings.retention.is_off() {
            return Ok(());
        }
        self.serve_pass(now, clock)?;
        if self.passes.is_running()
            || self.passes.is_abandoned
            || self.ledger.live().is_none()
            || !self.timers.take_retention(now.elapsed)
        {
            return Ok(());
        }
        if self.ledger.has_idle_files() {
            // The pass would sync the directory. If that sync failed, the ledger would have no record
            // of it, and could begin a segment although the names of these files are in doubt.
            self.timers.retention_soon(now.elapsed);
            return Ok(());
        }
        let pass = Pass {
            storage: Arc::clone(&self.storage),
            retention: self.settings.retention.clone(),
            clock,
            own: self.ledger.chain(),
            pruned: self.ledger.pruned.map_or(0, |(through, _)| through),
            steps: Cell::new(0),
        };
        let Some(begin_thread) = self.passes.begin_thread else {
            let mut host = InlineHost { ledger: &mut self.ledger, now, trouble: None };
            let outcome = pass.run(&mut host);
            let trouble = host.trouble;
            self.report_pass(outcome, now);
            return self.settle(trouble.map_or(Ok(()), Err), now, clock);
        };
        match Running::begin(pass, &self.queue, begin_thread) {
            Ok(running) => self.passes.running = Some(running),
            Err(error) => self.report_pass(Outcome::failed(self.storage.as_ref(), error), now),
        }
        Ok(())
    }

    /// Handles the messages of the running pass.
    fn serve_pass(&mut self, now: &Moment, clock: Clock) -> Result<(), Halted> {
        while let Some(message) =
            self.passes.running.as_mut().and_then(|running| running.receive(self.storage.as_ref()))
        {
            match message {
                Message::Prune(chain, info) => {
                    let recorded = self.record_for_pass(chain, &info, now);
                    let is_durable = matches!(recorded, Ok(true));
                    if let Some(running) = &self.passes.running {
                        // If the thread is gone, it needs no answer.
                        running.answers.send(is_durable).ok();
                    }
                    self.settle(recorded.map(drop), now, clock)?;
                }
                Message::Ended(outcome) => {
                    self.passes.awaited_until = None;
                    let thread = self.passes.running.take().and_then(|mut running| running.thread.take());
                    // The thread has nothing left to do, so this does not block.
                    drop(thread.map(JoinHandle::join));
                    self.report_pass(outcome, now);
                }
            }
        }
        Ok(())
    }

    /// Makes a record durable that a pass requested, if the writer is still in that chain.
    fn record_for_pass(
        &mut self,
        chain: (ChainNumber, Option<ChainId>),
        info: &PruneInfo,
        now: &Moment,
    ) -> Result<bool, Trouble> {
        // A pass that was told to stop may have decided long ago, and about another chain.
        let is_stopped =
            self.passes.running.as_ref().is_none_or(|running| running.stop.load(Ordering::Relaxed));
        if self.ledger.is_of(chain) && !is_stopped { self.ledger.prune(info, now) } else { Ok(false) }
    }

    /// Returns the pause that closing must make for a running pass; `None` if there is nothing to
    /// wait for.
    pub(super) fn wait_for_pass(&mut self, stage: Stage, now: &Moment) -> Option<Next> {
        if !self.passes.is_running() || stage >= Stage::Abandoned {
            return None;
        }
        let patience = PATIENCE.min(self.queue.wait_bound() / PART_OF_BOUND);
        let until = *self.passes.awaited_until.get_or_insert(now.elapsed + patience);
        if now.elapsed < until {
            return Some(Next::Pause(Pause::Backoff, until));
        }
        self.passes.stop();
        if now.elapsed < until + patience {
            return Some(Next::Pause(Pause::Backoff, until + patience));
        }
        // Leaving the thread behind is safe. It has its own descriptors and ends after its current
        // call, without requesting anything more. If it holds the chain of another process, that
        // chain was closed before any file was removed.
        self.passes.running = None;
        self.passes.is_abandoned = true;
        let log = self.storage.path(Dir::Log, "");
        let message = format!(
            "cannot remove the old segments of {}: a system call does not return; the log is closed without it, and the \
             next run continues",
            log.display()
        );
        self.note(NoticeKind::RetentionFailed, &message, now);
        Some(Next::Pause(Pause::None, now.elapsed))
    }

    /// Reports the outcome of a pass: as notices, and in the log.
    fn report_pass(&mut self, outcome: Outcome, now: &Moment) {
        let Outcome { removed, failed, is_refused, is_complete, waits, jumped } = outcome;
        if !removed.is_empty() {
            let files = removed.values().map(|(first, last, count)| match count {
                1 => first.to_string(),
                count => format!("{first} to {last} ({count} files)"),
            });
            let files: Vec<String> = files.collect();
            let message = format!("removed by retention: {}", files.join(", "));
            self.queue.notifier.tell(NoticeKind::Pruned, message);
        }
        if jumped.is_none() {
            self.passes.reported_jump = None;
        }
        if let Some((before, newest)) = jumped
            && self.passes.reported_jump.replace(before) != Some(before)
        {
            let message = format!(
                "record times jump from {before} to {newest}: until they span a day beyond the jump, retention \
                 measures ages at {before}; check the clock"
            );
            self.note(NoticeKind::TimeJumped, &message, now);
        }
        self.report_waits(waits, is_complete, now);
        if is_refused {
            self.timers.retention_soon(now.elapsed);
        }
        if failed.is_empty() {
            self.passes.reported_failure = None;
        } else {
            self.timers.retention_failed(now.elapsed);
            let failed = failed.iter().map(|(what, error)| format!("cannot {what}: {error}"));
            let message = failed.collect::<Vec<_>>().join("; ");
            if self.passes.reported_failure.as_ref() != Some(&message) {
                self.note(NoticeKind::RetentionFailed, &message, now);
                self.passes.reported_failure = Some(message);
            }
        }
    }

    /// Reports each chain once, until a pass finds that it no longer waits.
    fn report_waits(&mut self, waits: BTreeMap<ChainNumber, String>, is_complete: bool, now: &Moment) {
        if is_complete {
            self.waiting.retain(|chain| waits.contains_key(chain));
        }
        for (chain, message) in waits {
            if self.waiting.insert(chain) {
                self.note(NoticeKind::RetentionWaits, &message, now);
            }
        }
    }
}
