//! What the disk allows: one line and one sync, and one sync for all who wait.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

fn create(dir: &Path) -> Result<File> {
    Ok(OpenOptions::new().create_new(true).append(true).open(dir.join("log"))?)
}

/// As many bytes as a line of ours has more than one without hashes.
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

/// A writer thread that takes everything, writes it, syncs, and wakes whoever waited.
struct Group {
    state: Mutex<State>,
    durable: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    last: u64,
    waiting: Vec<(u64, Thread)>,
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

    fn write(&self, mut file: File) {
        let mut lines = Vec::new();
        let mut awake = Vec::new();
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
            let last = state.last;
            drop(state);
            crate::or_exit(file.write_all(&lines).and_then(|()| file.sync_data()));
            self.durable.store(last, Ordering::Release);
            awake.extend(self.lock().waiting.extract_if(.., |(at, _)| *at <= last));
            awake.drain(..).for_each(|(_, thread)| thread.unpark());
        }
    }
}

pub(super) fn group_commit(dir: &Path) -> Result<Box<dyn Subject>> {
    let file = create(dir)?;
    let group = Arc::new(Group { state: Mutex::default(), durable: AtomicU64::new(0) });
    let writer = thread::spawn({
        let group = Arc::clone(&group);
        move || group.write(file)
    });
    Ok(Box::new(GroupCommit { group, writer: Some(writer) }))
}

impl Subject for GroupCommit {
    fn emit(&self, event: Event<'_>) {
        let mine = workload::with_line(event.number, |bytes| {
            let mut state = self.group.lock();
            state.lines.extend_from_slice(&HASHES);
            state.lines.extend_from_slice(bytes);
            state.last += 1;
            let mine = state.last;
            state.waiting.push((mine, thread::current()));
            mine
        });
        if let Some(writer) = &self.writer {
            writer.thread().unpark();
        }
        while self.group.durable.load(Ordering::Acquire) < mine {
            thread::park();
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
