//! What the disk allows: a sync for each line, and one sync for all waiting threads.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::thread::futex::{self, Flags};

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

fn create(dir: &Path) -> Result<File> {
    Ok(OpenOptions::new().create_new(true).append(true).open(dir.join("log"))?)
}

/// As many bytes as the two hashes and the number add to a line of tracing-audit.
pub(crate) const HASHES: [u8; 166] = [b'x'; 166];

struct Raw(Mutex<(File, Vec<u8>)>);

pub(super) fn raw(dir: &Path) -> Result<Box<dyn Subject>> {
    Ok(Box::new(Raw(Mutex::new((create(dir)?, Vec::new())))))
}

impl Subject for Raw {
    fn emit(&self, event: Event<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, line) = &mut *state;
        line.clear();
        line.extend_from_slice(&HASHES);
        workload::with_line(event.number, |bytes| line.extend_from_slice(bytes));
        crate::or_exit(file.write_all(line).and_then(|()| file.sync_data()));
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A group commit: a writer thread takes everything, writes and syncs it, and wakes all waiting threads with one call.
struct Group {
    state: Mutex<State>,
    durable: AtomicU64,
    /// Counters of the even and the odd turns, incremented when the threads of such a turn are served. Two, so that
    /// threads of the next turn are not woken too.
    served: [AtomicU32; 2],
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    last: u64,
    is_odd_turn: bool,
    is_ended: bool,
}

struct GroupCommit {
    group: Arc<Group>,
    writer: Option<JoinHandle<()>>,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self, is_odd_turn: bool) -> &AtomicU32 {
        let [even, odd] = &self.served;
        if is_odd_turn { odd } else { even }
    }

    fn write(&self, mut file: File) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            if state.lines.is_empty() {
                if state.is_ended {
                    return;
                }
                drop(state);
                thread::park();
                continue;
            }
            lines.clear();
            std::mem::swap(&mut lines, &mut state.lines);
            let (last, turn) = (state.last, state.is_odd_turn);
            state.is_odd_turn = !turn;
            drop(state);
            crate::or_exit(file.write_all(&lines).and_then(|()| file.sync_data()));
            self.durable.store(last, Ordering::Release);
            let served = self.served(turn);
            served.fetch_add(1, Ordering::Release);
            crate::or_exit(futex::wake(served, Flags::PRIVATE, i32::MAX.unsigned_abs()).map_err(Into::into));
        }
    }
}

pub(super) fn group_commit(dir: &Path) -> Result<Box<dyn Subject>> {
    let file = create(dir)?;
    let group =
        Arc::new(Group { state: Mutex::default(), durable: AtomicU64::new(0), served: Default::default() });
    let writer = thread::spawn({
        let group = Arc::clone(&group);
        move || group.write(file)
    });
    Ok(Box::new(GroupCommit { group, writer: Some(writer) }))
}

impl Subject for GroupCommit {
    fn emit(&self, event: Event<'_>) {
        let (mine, turn, mut seen) = workload::with_line(event.number, |bytes| {
            let mut state = self.group.lock();
            state.lines.extend_from_slice(&HASHES);
            state.lines.extend_from_slice(bytes);
            state.last += 1;
            let turn = state.is_odd_turn;
            (state.last, turn, self.group.served(turn).load(Ordering::Relaxed))
        });
        if let Some(writer) = &self.writer {
            writer.thread().unpark();
        }
        let served = self.group.served(turn);
        while self.group.durable.load(Ordering::Acquire) < mine {
            // The wait may end spuriously, or not start because the counter has changed (futex(2)). Either way, the loop
            // checks again.
            let _cause = futex::wait(served, Flags::PRIVATE, seen, None);
            seen = served.load(Ordering::Acquire);
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.group.lock().is_ended = true;
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            writer.join().map_err(|_| "the writer panicked")?;
        }
        Ok(())
    }
}
