//! Opening, rotating, retaining and closing, and unusual ways to end.

use std::{fmt, fs, time::Duration};

use tracing_audit::{
    AuditLog, Error, FlushMode, Health, LossReason, Retention, Rotation, Severity, Verdict, audit,
    audit_critical, verify,
};

use crate::support::{child, events, fresh, independent_verdict, lines_of, records, segments, with_layer};

#[test]
fn the_chain_continues_across_restarts_and_rotations() {
    let (_dir, path) = fresh();
    let mut last = 0;
    for run in 0..5 {
        let log = AuditLog::open(&path).unwrap();
        assert!(log.recovery().is_clean());
        assert!(log.head().seq() > last);
        with_layer(&log, || tracing::info!(target: "audit", action = "a", actor = "b", run));
        if run % 2 == 1 {
            log.rotate().unwrap();
        }
        last = log.close().unwrap().seq();
    }
    let records = records(&path);
    assert!(records.iter().map(tracing_audit::Record::seq).eq(1..=last));
    assert_eq!(segments(&path).len(), 3);
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap();
    assert_eq!((report.records(), report.events()), (last, 5));
    assert_eq!(independent_verdict(&path), 0);
}

#[test]
fn a_log_rotates_by_size_and_removes_exactly_what_retention_allows() {
    let (_dir, path) = fresh();
    let emit = |log: &AuditLog, events: u32| {
        with_layer(log, || {
            for number in 0..events {
                let padding = "x".repeat(1_000);
                log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b", number, padding))
                    .unwrap();
            }
        });
    };
    let builder = || AuditLog::builder(&path).rotation(Rotation::never().max_bytes(64 << 10));
    let log = builder().open().unwrap();
    emit(&log, 400);
    log.close().unwrap();
    let before = segments(&path);
    assert!(before.len() >= 7, "{}", before.len());
    assert!(before.iter().all(|segment| fs::metadata(segment).unwrap().len() <= 64 << 10));
    verify(&path).unwrap().ensure_intact().unwrap();

    // Nothing is removed while a hold exists.
    let keep = Retention::keep_all().max_segments(3);
    fs::write(path.join("hold"), "").unwrap();
    let log = builder().retention(keep.clone()).open().unwrap();
    emit(&log, 100);
    log.close().unwrap();
    assert!(segments(&path).len() > before.len());
    fs::remove_file(path.join("hold")).unwrap();

    // Nor anything that is too young.
    let log = builder().retention(keep.clone().min_age(Duration::from_secs(3600))).open().unwrap();
    emit(&log, 100);
    log.close().unwrap();
    assert_eq!(segments(&path)[0], before[0]);

    let log = builder().retention(keep.clone()).open().unwrap();
    emit(&log, 100);
    log.close().unwrap();
    let after = segments(&path);
    assert!((3..=4).contains(&after.len()), "{after:?}");
    assert!(!lines_of(&path, "prune").is_empty());
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
    assert_eq!(independent_verdict(&path), 0);

    // Without a prune record for it, a missing start is damage.
    fs::remove_file(&after[0]).unwrap();
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged);
    assert_eq!(independent_verdict(&path), 1);
}

#[test]
fn close_applies_to_all_clones_and_returns_the_same_head_twice() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let clone = log.clone();
    with_layer(&log, || {
        tracing::info!(target: "audit", action = "a", actor = "b");
        let head = clone.close().unwrap();
        assert_eq!(log.close().unwrap(), head);
        assert_eq!(log.head(), head);
        assert_eq!(log.health(), Health::Closed);
        tracing::info!(target: "audit", action = "late", actor = "b");
        audit_critical!(action = "late", actor = "b");
        assert!(matches!(
            log.confirm(|| audit!(action = "late", actor = "b")),
            Err(Error::Lost { lost: 1, .. })
        ));
        assert!(log.flush().is_ok(), "everything that was accepted is durable");
        assert!(matches!(log.rotate(), Err(Error::Closed { .. })));
    });
    let lost = log.stats().lost;
    assert!(lost.iter().all(|loss| loss.reason == LossReason::Closed));
    assert_eq!(log.stats().lost_total(), 3);
    assert_eq!(events(&path).len(), 1);
    assert_eq!(lines_of(&path, "close").len(), 1);
    verify(&path).unwrap().ensure_intact().unwrap();
}

#[test]
fn dropping_the_last_handle_closes_the_log() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path)
        .flush_mode(FlushMode::Batched { size: u32::MAX, interval: Duration::from_secs(3600) })
        .open()
        .unwrap();
    let clone = log.clone();
    with_layer(&log, || tracing::info!(target: "audit", action = "a", actor = "b"));
    drop(log);
    assert!(lines_of(&path, "close").is_empty());
    drop(clone);
    assert_eq!(lines_of(&path, "close").len(), 1);
    verify(&path).unwrap().ensure_intact().unwrap();
}

#[test]
fn closed_logs_leave_no_thread_and_no_descriptor() {
    let (_dir, path) = fresh();
    let output = child("again", &path, &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Emits an audit event while it is formatted.
struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::warn!(target: "audit", action = "auth.failure", actor = "inner");
        f.write_str("chatty")
    }
}

struct Panicking;

impl fmt::Debug for Panicking {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("of the application")
    }
}

#[test]
fn an_event_or_panic_inside_debug_does_not_lose_the_outer_event() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    // A global subscriber re-enters layers where a scoped one drops the event. Both must work.
    with_layer(&log, || {
        tracing::info!(target: "audit", action = "outer", actor = "b", inner = ?Chatty);
        tracing::info!(target: "audit", action = "outer", actor = "b", before = 1, bad = ?Panicking);
        tracing::info!(target: "audit", action = "after", actor = "b");
    });
    log.close().unwrap();
    let events = events(&path);
    assert_eq!(events.len(), 3);
    assert!(events[0].as_json().contains("\"inner\":\"chatty\""), "{}", events[0].as_json());
    assert!(events[1].as_json().contains("\"before\":1"), "{}", events[1].as_json());
    verify(&path).unwrap().ensure_intact().unwrap();
}

#[test]
fn a_forked_child_writes_nothing_to_its_parents_log() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        tracing::info!(target: "audit", action = "parent", actor = "b");
        log.flush().unwrap();
        let before = fs::read(&segments(&path)[0]).unwrap();
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                // No assertions here: a panic would run the test harness a second time.
                tracing::info!(target: "audit", action = "child", actor = "b");
                audit_critical!(action = "child", actor = "b");
                let refused = log.confirm(|| audit!(action = "child", actor = "b")).is_err();
                let counted = log.stats().lost.iter().map(|loss| loss.events).sum::<u64>() == 3;
                let detached = matches!(log.ensure_attached(), Err(Error::Forked { .. }))
                    && matches!(log.ensure_attached_for(["audit::child"]), Err(Error::Forked { .. }));
                let closed = log.health() == Health::Closed && log.close().is_err() && log.flush().is_err();
                std::process::exit(i32::from(!(refused && counted && closed && detached)));
            }
            fork::Fork::Parent(child) => {
                let mut status = String::new();
                crate::support::wait_for("the child", || {
                    status = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
                    status.is_empty() || status.contains(") Z ")
                });
                // The exit code is the last field of the line (proc_pid_stat(5)), shifted by eight bits.
                if let Some(code) = status.split_whitespace().last() {
                    assert_eq!(code, "0", "the child found something wrong");
                }
            }
        }
        assert_eq!(fs::read(&segments(&path)[0]).unwrap(), before);
        tracing::info!(target: "audit", action = "parent", actor = "b");
        log.close().unwrap();
    });
    assert!(events(&path).iter().all(|event| event.action() == Some("parent")));
    verify(&path).unwrap().ensure_intact().unwrap();
}

#[test]
fn a_routine_flood_leaves_room_for_critical_events() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path)
        .queue_bytes(1 << 20)
        .on_full(tracing_audit::OnFull::DropRoutine)
        .open()
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                with_layer(&log, || {
                    for _ in 0..20_000 {
                        tracing::info!(target: "audit", action = "flood", actor = "b");
                    }
                });
            });
        }
        with_layer(&log, || {
            for _ in 0..200 {
                audit_critical!(action = "important", actor = "b");
            }
        });
    });
    let stats = log.stats();
    assert!(stats.lost.iter().all(|loss| loss.severity == Severity::Routine), "{stats:?}");
    let lost = stats.lost_total();
    log.close().unwrap();
    let events = events(&path);
    assert_eq!(events.iter().filter(|event| event.action() == Some("important")).count(), 200);
    assert_eq!(events.len() as u64 + lost, 80_200);
    let told: i64 =
        records(&path).iter().filter_map(|record| record.get("gap")?.get("routine")?.as_i64()).sum();
    assert_eq!(u64::try_from(told).unwrap(), lost);
}
