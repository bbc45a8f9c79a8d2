//! Call sites that are first reached by threads of other tests, which have no subscriber.
//!
//! Must be the only test of its process, because the cached interest of call sites is global.

use std::{sync::Barrier, thread};

use tracing_audit::audit;
use tracing_audit_test::capture;

const THREADS: usize = 16;
const ROUNDS: usize = 16;

/// Defines many call sites, because each can be reached first only once in a process.
macro_rules! call_sites {
    ($($number:literal)*) => {
        const CALL_SITES: &[fn(usize)] =
            &[$(|thread| audit!(action = "met", actor = "b", site = $number, thread)),*];
    };
}

call_sites!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

/// Events used to be lost: all of `of_one_thread`, and all of a call site in `CALL_SITES` that a thread without a
/// subscriber had reached first.
#[test]
fn no_event_is_lost_when_a_thread_without_subscriber_reaches_its_call_site_first() {
    fn of_one_thread() {
        audit!(action = "first", actor = "b");
    }
    let audit = capture();
    let attached = audit.attach();
    thread::spawn(of_one_thread).join().unwrap();
    of_one_thread();
    audit.expect().action("first").once();

    // All threads reach the same call site at once; every other thread has no subscriber.
    assert_eq!(CALL_SITES.len(), ROUNDS);
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (audit, barrier) = (&audit, &barrier);
            scope.spawn(move || {
                let _attached = (thread % 2 == 0).then(|| audit.attach());
                for emit in CALL_SITES {
                    barrier.wait();
                    emit(thread);
                }
            });
        }
    });
    audit.expect().action("met").times(THREADS / 2 * ROUNDS);

    // As the next test in the process, with its own log.
    drop(attached);
    drop(audit);
    thread::spawn(of_one_thread).join().unwrap();
    let audit = capture();
    let _attached = audit.attach();
    of_one_thread();
    audit.expect().action("first").once();
}
