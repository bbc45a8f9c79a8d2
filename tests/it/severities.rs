//! The spellings of severities, and what happens to one that is not recognised.

use tracing_audit::{AuditLog, Record, Severity, Value};

use crate::support::{events, fresh, with_layer};

/// Returns the words for a severity in the table of docs/events.md.
fn documented(severity: &str) -> Vec<String> {
    let page = include_str!("../../docs/events.md");
    let row = page.lines().find(|line| line.starts_with(&format!("| *{severity}* |")));
    let row = row.unwrap_or_else(|| panic!("docs/events.md has no row for {severity}"));
    row.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn names(record: &Record, member: &str) -> Vec<String> {
    match record.get(member) {
        Some(Value::List(names)) => {
            names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

fn word(record: &Record) -> Option<String> {
    record.field("severity").and_then(Value::as_str).map(str::to_owned)
}

#[test]
fn common_spellings_of_a_severity_are_recognised() {
    for (name, severity) in [("critical", Severity::Critical), ("routine", Severity::Routine)] {
        let words = documented(name);
        assert!(words.len() > 8, "{words:?}");
        let (_dir, path) = fresh();
        let log = AuditLog::open(&path).unwrap();
        with_layer(&log, || {
            for word in &words {
                let upper = word.to_uppercase();
                // The word decides, whatever the action is.
                tracing::info!(target: "audit", action = "a", actor = "b", severity = word.as_str());
                tracing::info!(target: "audit", action = "auth.failure", actor = "b", severity = upper.as_str());
                tracing::info!(target: "audit", action = "a", actor = "b", severity = %format_args!(" {word} "));
                tracing::info!(target: "audit", action = "a", actor = "b", severity = ?word);
            }
        });
        log.close().unwrap();
        let events = events(&path);
        assert_eq!(events.len(), words.len() * 4);
        for (record, said) in events.iter().zip(words.iter().flat_map(|word| [word; 4])) {
            assert_eq!(record.severity(), Some(severity), "{said}: {}", record.as_json());
            assert_eq!(names(record, "incomplete"), [""; 0], "{said}: {}", record.as_json());
            // The original word is kept if it differs from the name in the log.
            let kept = word(record).map(|kept| kept.trim_matches([' ', '"']).to_lowercase());
            assert_eq!(kept, (said != name).then(|| said.clone()), "{}", record.as_json());
        }
    }
}

#[test]
fn an_unrecognised_severity_is_routine_and_incomplete() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        tracing::info!(target: "audit", action = "a", actor = "b", severity = "purple");
        tracing::info!(target: "audit", action = "a", actor = "b", severity = "");
        tracing::info!(target: "audit", action = "a", actor = "b", severity = 1);
        tracing::info!(target: "audit", action = "a", actor = "b", severity = -2.5);
        tracing::info!(target: "audit", action = "a", actor = "b", severity = true);
        tracing::info!(target: "audit", action = "a", actor = "b", severity = ?Some("critical"));
        tracing::info!(target: "audit", action = "a", actor = "b", severity = "x".repeat(100_000));
        tracing::info!(target: "audit", action = "a", severity = "purple");
        // It is treated as absent, so the next criterion decides.
        tracing::info!(target: "audit", action = "auth.failure", actor = "b", severity = "purple");
        tracing::error!(target: "audit", action = "a", actor = "b", severity = 9);
        // Of several severities, the last one counts.
        tracing::info!(target: "audit", action = "a", actor = "b", severity = "purple", severity = "high");
        tracing::info!(target: "audit", action = "a", actor = "b", severity = "purple", severity = "green");
        tracing::info!(target: "audit", action = "a", actor = "b", severity = "high", severity = "green");
    });
    log.close().unwrap();
    let events = events(&path);
    let critical: Vec<bool> =
        events.iter().map(|record| record.severity() == Some(Severity::Critical)).collect();
    let not_understood = |number: usize| number != 10;
    for (number, record) in events.iter().enumerate() {
        let said = names(record, "incomplete");
        assert_eq!(said.contains(&"severity".to_owned()), not_understood(number), "{}", record.as_json());
        assert_eq!(said.contains(&"actor".to_owned()), number == 7, "{}", record.as_json());
        let repeated = names(record, "repeated");
        assert_eq!(repeated, if number > 9 { &["severity"][..] } else { &[] }, "{}", record.as_json());
    }
    assert_eq!(word(&events[0]).as_deref(), Some("purple"), "the value is kept");
    let expected = [&[false; 8][..], &[true; 3], &[false], &[true]].concat();
    assert_eq!(critical, expected);
}
