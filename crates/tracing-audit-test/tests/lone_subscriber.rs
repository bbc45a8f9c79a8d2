//! What the kit is for: without it, tracing silences a call site that a thread without a subscriber meets first, see
//! <https://github.com/tokio-rs/tracing/issues/2874>. When this test fails, tracing has mended that, and
//! `call_sites.rs` of the kit can go. The only test of its process.

use tracing_audit::{AuditLog, audit};
use tracing_subscriber::prelude::*;

#[test]
fn a_lone_subscriber_loses_what_a_thread_without_one_meets_first() {
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
