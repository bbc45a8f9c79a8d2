//! Runs jobs on several threads and returns the results in order.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use crate::error::Error;

/// Takes jobs from `produce`, runs `work` on them on `threads` threads including the caller's, and passes the results
/// to `join` in the order of the jobs. Each thread has a tool of its own. At most two jobs per thread are in
/// progress, which bounds the memory.
pub(super) fn run<Tool, Job: Send, Done: Send>(
    threads: usize,
    tool: impl Fn() -> Tool + Sync,
    mut produce: impl FnMut() -> Result<Option<Job>, Error>,
    work: impl Fn(&mut Tool, Job) -> Done + Sync,
    mut join: impl FnMut(Done) -> Result<(), Error>,
) -> Result<(), Error> {
    let (jobs, inbox) = mpsc::channel::<(u64, Job)>();
    let (outbox, results) = mpsc::channel::<(u64, thread::Result<Done>)>();
    // Guards the receiving end from which the threads take jobs. A thread holds it while it waits for a job.
    let inbox = &Mutex::new(inbox);
    let (tool, work) = (&tool, &work);
    thread::scope(|scope| {
        let mut started = 1_u64;
        for _ in 1..threads {
            let outbox = outbox.clone();
            let worker = move || {
                let mut tool = tool();
                loop {
                    let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, job)) = next else { return };
                    // If a job had no result, the caller would wait forever.
                    let done = catch_unwind(AssertUnwindSafe(|| work(&mut tool, job)));
                    let has_panicked = done.is_err();
                    if outbox.send((number, done)).is_err() || has_panicked {
                        return;
                    }
                }
            };
            // Where the system refuses a thread, there are fewer of them.
            started += u64::from(thread::Builder::new().spawn_scoped(scope, worker).is_ok());
        }
        drop(outbox);
        // A single thread needs only one buffer, which then stays in the cache.
        let room = if started == 1 { 1 } else { 2 * started };
        // Dropped before the scope joins its threads: the closed channel ends them.
        let jobs = jobs;
        let mut tool = tool();
        let (mut sent, mut joined, mut is_end) = (0_u64, 0_u64, false);
        let mut early = BTreeMap::new();
        loop {
            early.extend(results.try_iter());
            while let Some(done) = early.remove(&joined) {
                join(done.unwrap_or_else(|panic| resume_unwind(panic)))?;
                joined += 1;
            }
            while !is_end && sent - joined < room {
                match produce()? {
                    Some(job) => is_end = jobs.send((sent, job)).is_err(),
                    None => is_end = true,
                }
                sent += u64::from(!is_end);
            }
            if joined == sent {
                return Ok(());
            }
            // Works itself rather than wait. If another thread holds the lock, that thread takes the next job
            // or waits for one.
            let next = inbox.try_lock().ok().and_then(|inbox| inbox.try_recv().ok());
            let (number, done) = match next {
                Some((number, job)) => (number, Ok(work(&mut tool, job))),
                None => match results.recv() {
                    Ok(done) => done,
                    // A worker sends a result before it ends, unless the jobs have ended.
                    Err(_) => return Ok(()),
                },
            };
            early.insert(number, done);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn results_come_in_the_order_of_their_jobs_and_few_are_in_progress() {
        for (threads, room) in [(1, 1), (2, 4), (3, 6)] {
            let (produced, mut joined) = (Cell::new(0_u64), Vec::new());
            // How many jobs there were when the first result came.
            let mut at_first = 0;
            let mut most = 0;
            let produce = || {
                let job = produced.get();
                produced.set(job + 1);
                Ok((job < 100).then_some(job))
            };
            let join = |done| {
                most = most.max(produced.get().min(100) - joined.len() as u64);
                at_first = if joined.is_empty() { produced.get() } else { at_first };
                joined.push(done);
                Ok(())
            };
            run(threads, || (), produce, |(), job| job * 2, join).unwrap();
            let expected: Vec<u64> = (0..100).map(|job| job * 2).collect();
            assert_eq!((joined, at_first, most), (expected, room, room));
            assert_eq!(produced.get(), 101, "asked once more, and never again");
        }
    }

    #[test]
    fn without_jobs_it_returns_at_once() {
        run(2, || (), || Ok(None::<u64>), |(), job| job, |_| unreachable!()).unwrap();
    }

    /// The caller once waited forever for the result of a job whose thread had panicked, while another thread was still
    /// running.
    #[test]
    fn a_panic_of_a_thread_ends_the_caller() {
        for threads in [3, 4] {
            let (over, ended) = mpsc::channel();
            thread::spawn(move || {
                let (caller, mut job) = (thread::current().id(), 0..50_u32);
                let (has_waited, has_panicked) = (AtomicBool::new(false), AtomicBool::new(false));
                let (panics, panicked) = mpsc::channel();
                let panicked = Mutex::new(panicked);
                let work = |(): &mut (), _| {
                    if thread::current().id() == caller {
                        // Once, so that another thread is certain to get a job.
                        if !has_waited.swap(true, Ordering::Relaxed) {
                            panicked.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
                        }
                    } else if !has_panicked.swap(true, Ordering::Relaxed) {
                        panics.send(()).unwrap();
                        panic!("a thread panics");
                    }
                };
                let all = AssertUnwindSafe(|| run(threads, || (), || Ok(job.next()), work, |()| Ok(())));
                over.send(catch_unwind(all).is_err()).unwrap();
            });
            assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true), "{threads} threads");
        }
    }
}
