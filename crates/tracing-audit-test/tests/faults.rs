//! Injected disk faults: failing, stalling and full. The log must lose no event that it accepted.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

use std::{
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, Faults, FlushMode, Health};
use tracing_audit_test::{TestLog, capture_with};

const BOUND: Duration = Duration::from_millis(300);

fn log() -> TestLog {
    capture_with(|builder| builder.wait_bound(BOUND))
}

fn emit(action: &str) {
    tracing::info!(target: "audit", action, actor = "b");
}

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "timed out waiting for: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn wait_for_health(audit: &TestLog, health: Health) {
    wait_for(&health.to_string(), || audit.log().health() == health);
}

/// Checks one fault: `confirm` fails, the health of the log is `during`, and after healing every event is recorded.
#[track_caller]
fn check(fault: fn(&Faults), during: Health) {
    let audit = log();
    let _attached = audit.attach();
    audit.log().confirm(|| emit("before")).unwrap();
    fault(audit.faults());
    emit("accepted");
    let refused = audit.log().confirm(|| emit("refused")).unwrap_err();
    assert!(matches!(refused, Error::Unconfirmed { .. }), "{refused}");
    wait_for_health(&audit, during);
    emit("late");
    assert!(audit.log().flush().is_err());
    audit.heal();
    wait_for_health(&audit, Health::Healthy);
    audit.log().confirm(|| emit("after")).unwrap();
    let events = audit.events();
    let actions: Vec<_> = events.iter().filter_map(|event| event.action()).collect();
    assert_eq!(actions, ["before", "accepted", "refused", "late", "after"]);
    assert_eq!(audit.log().stats().lost_total(), 0);
    audit.assert_intact();
}

#[test]
fn a_disk_that_fails_makes_the_log_fail_until_it_is_healed() {
    check(Faults::fail, Health::Failing);
}

#[test]
fn a_disk_that_stalls_makes_the_log_stall_until_it_is_healed() {
    check(Faults::stall, Health::Stalled);
}

#[test]
fn a_disk_that_is_full_makes_the_log_fail_until_there_is_room() {
    check(Faults::fill, Health::Failing);
}

#[test]
fn a_stalled_confirm_ends_at_the_wait_bound() {
    let audit = log();
    let _attached = audit.attach();
    audit.faults().stall();
    let begun = Instant::now();
    audit.log().confirm(|| emit("a")).unwrap_err();
    let waited = begun.elapsed();
    assert!(waited >= BOUND && waited < 10 * BOUND, "{waited:?}");
    assert_eq!(audit.log().health(), Health::Stalled);
    // A stalled log does not make later callers wait.
    let begun = Instant::now();
    audit.log().confirm(|| emit("b")).unwrap_err();
    assert!(begun.elapsed() < BOUND);
}

/// Records written before the disk was full are still synced.
#[test]
fn a_full_disk_keeps_what_was_written() {
    let audit = capture_with(|builder| {
        let interval = Duration::from_secs(3600);
        builder.wait_bound(BOUND).flush_mode(FlushMode::Batched { size: 1000, interval })
    });
    let _attached = audit.attach();
    emit("written");
    wait_for("the event is written", || audit.log().stats().records_since_sync > 0);
    audit.faults().fill();
    audit.log().flush().unwrap();
    audit.log().confirm(|| emit("refused")).unwrap_err();
    wait_for_health(&audit, Health::Failing);
    audit.heal();
    assert_eq!(audit.events().len(), 2);
    audit.assert_intact();
}

#[test]
fn a_log_is_not_opened_on_a_disk_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let open = || AuditLog::builder(dir.path().join("log")).faults(&faults).open();
    for fault in [Faults::fail, Faults::fill] {
        fault(&faults);
        let refused = open().unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused}");
    }
    faults.heal();
    open().unwrap().close().unwrap();
}

/// A fault that a test leaves on does not make it hang.
#[test]
fn a_log_that_stalls_is_closed_and_removed_with_its_test() {
    let audit = capture_with(|builder| builder.wait_bound(Duration::from_secs(60)));
    let path = audit.path().to_owned();
    let attached = audit.attach();
    audit.faults().stall();
    emit("a");
    drop(attached);
    let begun = Instant::now();
    drop(audit);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(!path.exists());
}

/// `rotate` and `close` wait for records that the log writes about itself, not for events. The error must count them.
#[test]
fn a_wait_that_reaches_its_bound_counts_at_least_one_record() {
    let audit = log();
    let _attached = audit.attach();
    emit("a");
    audit.log().flush().unwrap();
    audit.faults().stall();
    for waited in [audit.log().rotate(), audit.log().close().map(drop)] {
        match waited.unwrap_err() {
            Error::Unconfirmed { not_durable, .. } => assert!(not_durable > 0),
            error => panic!("{error}"),
        }
    }
}
