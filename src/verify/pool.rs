//! Pieces of work done by several threads and handed back in their order.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use crate::{Error, format::LineParser};

/// Draws jobs from `produce`, does `work` on them in `threads` threads, and gives the results to
/// `join` in the order of the jobs. At most two jobs for each thread are under way, which bounds
/// the memory.
pub(super) fn run<Job: Send, Done: Send>(
    threads: usize,
    mut produce: impl FnMut() -> Result<Option<Job>, Error>,
    work: impl Fn(&mut LineParser, Job) -> Done + Sync,
    mut join: impl FnMut(Done) -> Result<(), Error>,
) -> Result<(), Error> {
    if threads <= 1 {
        return alone(&mut produce, &work, &mut join);
    }
    let (jobs, inbox) = mpsc::channel::<(u64, Job)>();
    let (outbox, results) = mpsc::channel::<(u64, Done)>();
    // Guards the end of the channel from which the threads draw; held while one waits for a job.
    let inbox = &Mutex::new(inbox);
    thread::scope(|scope| {
        // Dropped before the scope waits for its threads, which is how they learn that it is over.
        let (jobs, outbox) = (jobs, outbox);
        let work = &work;
        let mut started = 0;
        for _ in 0..threads {
            let outbox = outbox.clone();
            let worker = move || {
                let mut parser = LineParser::default();
                loop {
                    let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, job)) = next else { return };
                    if outbox.send((number, work(&mut parser, job))).is_err() {
                        return;
                    }
                }
            };
            // A system that refuses threads gets fewer; with none, the caller's thread works.
            started += usize::from(thread::Builder::new().spawn_scoped(scope, worker).is_ok());
        }
        drop(outbox);
        if started == 0 {
            return alone(&mut produce, work, &mut join);
        }
        feed(2 * started, &mut produce, &jobs, &results, &mut join)
    })
}

/// The same on the caller's thread.
fn alone<Job, Done>(
    produce: &mut impl FnMut() -> Result<Option<Job>, Error>,
    work: &impl Fn(&mut LineParser, Job) -> Done,
    join: &mut impl FnMut(Done) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut parser = LineParser::default();
    while let Some(job) = produce()? {
        join(work(&mut parser, job))?;
    }
    Ok(())
}

/// Keeps `room` jobs under way until there are no more.
fn feed<Job, Done>(
    room: usize,
    produce: &mut impl FnMut() -> Result<Option<Job>, Error>,
    jobs: &mpsc::Sender<(u64, Job)>,
    results: &mpsc::Receiver<(u64, Done)>,
    join: &mut impl FnMut(Done) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut sent, mut joined, mut is_end) = (0_u64, 0_u64, false);
    let mut early = BTreeMap::new();
    loop {
        while !is_end && sent - joined < room as u64 {
            match produce()? {
                Some(job) => is_end = jobs.send((sent, job)).is_err(),
                None => is_end = true,
            }
            sent += u64::from(!is_end);
        }
        if joined == sent {
            return Ok(());
        }
        while let Some(done) = early.remove(&joined) {
            join(done)?;
            joined += 1;
        }
        if joined < sent {
            let Ok((number, done)) = results.recv() else { return Ok(()) };
            early.insert(number, done);
        }
    }
}
