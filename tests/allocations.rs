//! Checks that an event allocates nothing on the thread that emits it, once the buffers have grown.
//!
//! A binary of its own, because it replaces the allocator with one that counts.

#![expect(clippy::unwrap_used, reason = "the helpers of a test")]

use allocation_counter::measure;
use tracing_audit::{AuditLog, FlushMode};
use tracing_subscriber::prelude::*;

fn emit(number: u64) {
    tracing::info!(
        target: "audit",
        action = "order.placed",
        actor = "mia.tanaka",
        resource = "order/2026-11-21/000471",
        outcome = "accepted",
        number,
        share = 0.25,
        paid = true,
        items = ?[1, 2, 3],
        note = "“ünïcode” and\na control",
        "an order was placed by {}",
        "mia"
    );
}

/// Returns the median of this thread's allocations in 41 bursts of 200 events, which fit the buffers that the queue keeps.
///
/// Single bursts can allocate: if the writer is descheduled during a burst, its buffer does not come back in time, and
/// the queue allocates another one. An event that allocated would do so in each burst.
fn allocations(mode: FlushMode) -> u64 {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = AuditLog::builder(dir.path().join("log")).flush_mode(mode).open().unwrap();
    let subscriber = tracing_subscriber::registry().with(log.layer());
    let other = std::cell::OnceCell::new();
    // Most events are in one span. Some alternate with another span, in turns of four and of one.
    let in_turns = |number: u64| {
        let turn = if number < 40 { 4 } else { 1 };
        if number < 80 && (number / turn).is_multiple_of(2) {
            let other =
                other.get_or_init(|| tracing::info_span!("request", session_id = "s-1908", actor = "eve"));
            other.in_scope(|| emit(number));
        } else {
            emit(number);
        }
    };
    let burst = || {
        let counted = measure(|| (0..200).for_each(in_turns)).count_total;
        // The buffers come back before the next burst.
        log.flush().unwrap();
        counted
    };
    let counted = tracing::subscriber::with_default(subscriber, || {
        let _span = tracing::info_span!("request", session_id = "s-1907", request_id = "r-4711").entered();
        (0..20).for_each(|_| assert!(burst() < 1_000));
        let mut bursts: Vec<u64> = (0..41).map(|_| burst()).collect();
        bursts.sort_unstable();
        bursts.get(20).copied()
    });
    log.close().unwrap();
    counted.unwrap()
}

#[test]
fn an_event_allocates_nothing_on_its_caller() {
    let batched = FlushMode::Batched { size: 10_000, interval: std::time::Duration::from_secs(1) };
    for mode in [FlushMode::default(), batched] {
        assert_eq!(allocations(mode), 0, "{mode:?}");
    }
    // The counter works.
    assert!(measure(|| drop(std::hint::black_box(vec![1_u8]))).count_total > 0);
}
