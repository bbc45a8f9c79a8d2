//! The tests shown in docs/testing.md: a small application, and tests of its audit trail.

use std::time::Duration;

use tracing_audit::{AuditLog, Error, Severity};
use tracing_audit_test::{capture, capture_with};

/// Part of the application.
fn log_in(actor: &str, password: &str) -> bool {
    let is_right = password == "correct horse";
    let action = if is_right { "auth.success" } else { "auth.failure" };
    tracing::info!(target: "audit", action, actor, attempt = 1);
    is_right
}

/// Part of the application: refuses what cannot be recorded.
fn export_key(audit: &AuditLog, actor: &str) -> Result<&'static str, Error> {
    audit.confirm(|| tracing::info!(target: "audit", action = "key.export", actor, outcome = "attempted"))?;
    Ok("the key")
}

#[test]
fn a_failed_login_is_recorded() {
    let audit = capture();
    let _attached = audit.attach();

    assert!(!log_in("mallory", "guess"));

    audit
        .expect()
        .action("auth.failure")
        .actor("mallory")
        .severity(Severity::Critical)
        .field("attempt", 1)
        .once();
    audit.expect().action("auth.success").never();
    audit.assert_recorded(|record| record.actor() == Some("mallory"));
}

#[test]
fn a_key_stays_where_it_is_when_the_disk_is_full() {
    let audit = capture_with(|builder| builder.wait_bound(Duration::from_millis(200)));
    let _attached = audit.attach();
    audit.log().ensure_attached().unwrap();

    audit.faults().fill(); // or `fail()`, or `stall()`
    assert!(matches!(export_key(audit.log(), "mia"), Err(Error::Unconfirmed { .. })));

    audit.heal();
    assert_eq!(export_key(audit.log(), "mia").unwrap(), "the key");
    audit.assert_intact();
}
