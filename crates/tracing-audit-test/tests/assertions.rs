//! The assertions of a test, and their messages when they fail.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets what it did not expect has failed")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::{dispatcher::with_default, info, info_span, instrument::WithSubscriber as _};
use tracing_audit::{AuditLog, FlushMode, Severity, audit, audit_critical};
use tracing_audit_test::{capture, capture_with};

/// Returns the message of an assertion that must fail.
#[track_caller]
fn message_of<T>(assertion: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(assertion()))) else {
        panic!("the assertion holds");
    };
    *panic.downcast::<String>().unwrap()
}

#[test]
fn events_are_found_by_their_members() {
    let audit = capture();
    let _attached = audit.attach();
    info_span!("request", session_id = "s-1", actor = "mia").in_scope(|| {
        audit!(
            action = "a",
            resource = "r",
            outcome = "o",
            n = 3,
            big = u64::MAX,
            yes = true,
            x = 0.5,
            "said"
        );
    });
    audit_critical!(action = "b", actor = "tom");
    info!(action = "c", "not an audit event");
    let found = audit
        .expect()
        .action("a")
        .actor("mia")
        .resource("r")
        .outcome("o")
        .severity(Severity::Routine)
        .member("session_id", "s-1")
        .member("message", "said")
        .field("n", 3)
        .field("big", u64::MAX)
        .field("yes", true)
        .field("x", 0.5)
        .once();
    assert_eq!(found.action(), Some("a"));
    assert_eq!(audit.expect().times(2).len(), 2);
    audit.expect().action("c").never();
    audit.expect().severity(Severity::Critical).action("b").once();
    assert_eq!(
        audit.assert_recorded(|record| record.severity() == Some(Severity::Critical)).actor(),
        Some("tom")
    );
    assert_eq!(audit.events().len(), 2);
    assert!(audit.records().iter().any(|record| record.kind() == tracing_audit::RecordKind::Open));
    audit.assert_intact();
    // A closed log can still be read.
    audit.expect().times(2);
}

#[test]
fn a_failure_shows_the_events_and_how_they_differ() {
    let audit = capture();
    let _attached = audit.attach();
    audit!(action = "auth.failure", actor = "mallory", n = 3);
    let message = message_of(|| audit.expect().action("auth.failure").actor("mia").field("n", "3").once());
    let expected = r#"events with { action = "auth.failure", actor = "mia", n = "3" }: expected 1, found 0"#;
    assert!(message.starts_with(expected), "{message}");
    assert!(message.contains("the log has 1 event:\n  {\"seq\":"), "{message}");
    assert!(message.contains("\n    actor is \"mallory\"\n    n is 3"), "{message}");
    assert!(!message.contains("not attached"), "{message}");
    assert!(message_of(|| audit.expect().action("auth.failure").times(2)).contains("expected 2, found 1"));
    assert!(message_of(|| audit.expect().actor("mallory").never()).contains("expected 0, found 1"));
    let message = message_of(|| audit.assert_recorded(|record| record.actor().is_none()));
    assert!(message.contains("the closure accepts no event") && message.contains("mallory"), "{message}");
    // A member of the record is not a member of its `fields`, and conversely.
    audit.expect().field("actor", "mallory").never();
    audit.expect().member("n", 3).never();
}

#[test]
fn a_failure_says_what_may_explain_it() {
    let audit = capture();
    audit!(action = "unheard", actor = "b");
    let message = message_of(|| audit.expect().action("unheard").once());
    assert!(message.contains("the log has no events\nthe calling thread is not attached"), "{message}");
    let attached = audit.attach();
    audit.log().close().unwrap();
    audit!(action = "late", actor = "b");
    let message = message_of(|| audit.expect().action("late").once());
    assert!(message.contains("\nlost: 1 routine (closed)"), "{message}");
    drop(attached);
    assert!(message_of(|| audit.expect().once()).contains("not attached"));
}

#[test]
fn logs_of_several_tests_do_not_get_each_others_events() {
    let (first, second) = (capture(), capture());
    let outer = first.attach();
    audit!(action = "first", actor = "b");
    {
        let _inner = second.attach();
        audit!(action = "second", actor = "b");
        assert_eq!(AuditLog::current().unwrap().path(), second.path());
    }
    audit!(action = "first", actor = "b");
    with_default(second.dispatch(), || audit!(action = "second", actor = "b"));
    drop(outer);
    audit!(action = "nobody's", actor = "b");
    first.expect().action("first").times(2);
    second.expect().action("second").times(2);
    assert_eq!((first.events().len(), second.events().len()), (2, 2));
}

#[test]
fn a_task_carries_its_subscriber() {
    let audit = capture();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = async {
        AuditLog::current().unwrap().ensure_attached().unwrap();
        audit!(action = "a", actor = "b");
    };
    runtime.block_on(async { tokio::spawn(task.with_subscriber(audit.dispatch().clone())).await.unwrap() });
    audit.expect().action("a").once();
}

#[test]
fn an_application_is_attached_when_its_test_is() {
    let audit =
        capture_with(|builder| builder.flush_mode(FlushMode::Immediate).critical_actions(["key.export"]));
    audit.log().ensure_attached().unwrap_err();
    let attached = audit.attach();
    audit.log().ensure_attached().unwrap();
    audit!(action = "KeyExport", actor = "b");
    audit.expect().severity(Severity::Critical).once();
    drop(attached);
    audit.log().ensure_attached().unwrap_err();
}

#[test]
fn the_directory_is_removed_with_the_log() {
    let audit = capture();
    let (path, clone) = (audit.path().to_owned(), audit.log().clone());
    assert!(path.exists());
    drop(audit);
    assert!(!path.exists());
    assert_eq!(clone.health(), tracing_audit::Health::Closed);
}
