//! Shows why the test kit keeps subscribers registered: without them, tracing disables a call site that a thread without
//! a subscriber reaches first. See <https://github.com/tokio-rs/tracing/issues/2874>.
//!
//! When this test fails, tracing has fixed that, and `call_sites.rs` of the kit can be removed. Must be the only test of
//! its process.

use tracing_audit::{AuditLog, audit};
use tracing_subscriber::prelude::*;

#[test]
fn a_lone_subscriber_gets_no_event_of_a_call_site_that_a_thread_without_one_reached_first() {
    fn emit() {
        audit!(action = "a", actor = "b");
    }
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path().join("log")).unwrap();
    let _guard = tracing_subscriber::registry().with(log.layer()).set_default();
    std::thread::spawn(emit).join().unwrap();
    emit();
    assert_eq!(log.stats().accepted_routine, 0);
}
