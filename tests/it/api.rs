//! Properties of the public types: `Send` and `Sync`, `Debug`, and the data that they carry.

use std::time::{Duration, SystemTime};

use tracing_audit::{
    AuditFilter, AuditFuture, AuditLayer, AuditLog, Builder, ChainRecovery, ChainReport, ChainState,
    ConfirmError, ConfirmFuture, Digest, Error, Finding, FindingKind, FlushMode, Head, Health, Loss,
    LossReason, NotChecked, NotCheckedKind, Note, NoteKind, Notice, NoticeKind, OnFailure, OnFull,
    ParseError, ReadItem, ReadItems, Reader, Receipt, Record, RecordKind, Records, Recovery, Report,
    Retention, Rotation, Severity, Stats, Stopper, Value, Verdict, Verifier, read, verify,
};

use crate::support::{fresh, with_layer};

fn is_send<T: Send + 'static>() {}
fn is_shared<T: Send + Sync + 'static>() {}

#[test]
fn everything_can_be_sent_to_another_thread() {
    is_shared::<AuditLog>();
    is_shared::<AuditLayer>();
    is_shared::<AuditFilter>();
    is_shared::<(ChainRecovery, Digest, Error, Finding, FindingKind, FlushMode, Head, Health)>();
    is_shared::<(ChainReport, ChainState, NotChecked, NotCheckedKind, ParseError, RecordKind)>();
    is_shared::<(Loss, LossReason, Note, NoteKind, Notice, NoticeKind, OnFailure, OnFull)>();
    is_shared::<(
        Receipt,
        Record,
        Recovery,
        Report,
        Retention,
        Rotation,
        Severity,
        Stats,
        Stopper,
        Value,
        Verdict,
    )>();
    is_shared::<(ReadItem, Reader, Stopper)>();
    is_send::<(Builder, ReadItems, Records, Verifier)>();
    is_send::<AuditFuture<()>>();
    is_send::<ConfirmFuture<std::future::Ready<std::cell::Cell<u8>>>>();
    is_shared::<ConfirmError<u8>>();
}

/// What a program prints about itself must not leak the audit trail, nor wait for a lock that emitters hold.
#[test]
fn debug_is_short_and_shows_no_content() {
    const SECRET: &str = "what-nobody-should-see";
    let (_dir, path) = fresh();
    let mode = FlushMode::Batched { size: u32::MAX, interval: Duration::from_secs(3600) };
    let log = AuditLog::builder(&path).flush_mode(mode).open().unwrap();
    let layer = log.layer::<tracing_subscriber::Registry>();
    with_layer(&log, || {
        for _ in 0..1000 {
            tracing::info!(target: "audit", action = "a", actor = SECRET, value = SECRET);
        }
        let printed = [
            format!("{log:?}"),
            format!("{layer:?}"),
            format!("{:?}", log.flush_async()),
            format!("{:?}", log.confirm_future(std::future::ready(SECRET))),
            format!("{:?}", log.stats()),
            format!("{:?}", log.recovery()),
            format!("{:?}", AuditLog::builder(&path)),
        ];
        for text in printed {
            assert!(!text.contains(SECRET) && text.len() < 2_000, "{text}");
        }
    });
    log.close().unwrap();
    let records = read(&path).unwrap();
    let printed = format!("{records:?} {:?}", verify(&path).unwrap());
    assert!(printed.len() < 1_000, "{printed}");
    for record in read(&path).unwrap() {
        let text = format!("{:?}", record.unwrap());
        assert!(!text.contains(SECRET) && text.len() < 400, "{text}");
    }
}

/// Each wait can be moved to another task, and starts with the call.
#[test]
fn async_forms_borrow_nothing() {
    let (_dir, path) = fresh();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        let confirmed = log.confirm_async(|| tracing::info!(target: "audit", action = "a", actor = "b"));
        let receipt = runtime.block_on(runtime.spawn(confirmed)).unwrap().unwrap();
        let rotated = log.rotate_async();
        runtime.block_on(runtime.spawn(rotated)).unwrap().unwrap();
        let receipt_head: Head = receipt.into();
        assert!(log.head().seq() > receipt_head.seq() && log.stats().segments == 2, "{:?}", log.stats());
        tracing::info!(target: "audit", action = "b", actor = "b");
        let flushed = log.flush_async();
        runtime.block_on(runtime.spawn(flushed)).unwrap().unwrap();
        assert_eq!(log.stats().durable, 2);
    });
    let closing = log.close_async();
    drop(log);
    let head = runtime.block_on(runtime.spawn(closing)).unwrap().unwrap();
    assert_eq!(verify(&path).unwrap().heads(), [head]);
    // A closed log returns an error at once.
    let log = AuditLog::open(&path).unwrap();
    let rotating = log.clone();
    log.close().unwrap();
    let error = runtime.block_on(rotating.rotate_async()).unwrap_err();
    assert!(matches!(error, Error::Closed { .. }) && !error.is_timeout(), "{error}");
    assert_eq!(error.path(), Some(log.path()));
}

/// A notice has a time, and states whether somebody must act.
#[test]
fn notices_say_when_and_whether_somebody_must_act() {
    let (_dir, path) = fresh();
    drop(AuditLog::open(&path).unwrap());
    // As for a copy without its control files.
    std::fs::remove_dir_all(path.join("control")).unwrap();
    let before = SystemTime::now();
    let log = AuditLog::open(&path).unwrap();
    let notices = &log.recovery().notices;
    let unknown = notices.iter().find(|notice| notice.kind == NoticeKind::HeadUnknown).unwrap();
    assert!(unknown.time >= before && unknown.time <= SystemTime::now(), "{unknown:?}");
    assert!(!unknown.kind.needs_action() && NoticeKind::Damage.needs_action());
    log.close().unwrap();
}

#[test]
fn a_report_has_its_chains_as_data() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        log.rotate().unwrap();
    });
    let report = verify(&path).unwrap();
    let [chain] = report.chains() else { panic!("{report}") };
    assert_eq!((chain.chain(), chain.state(), chain.segments()), (0, ChainState::Live, 2));
    assert_eq!((chain.first_seq(), chain.last_seq()), (Some(1), Some(chain.records())));
    assert_eq!(
        (chain.events(), chain.lost_critical(), chain.lost_routine(), chain.unconfirmed()),
        (1, 0, 0, 0)
    );
    assert_eq!((chain.head().as_ref(), report.path()), (report.heads().first(), path.as_path()));
    let head = log.close().unwrap();
    let report = Verifier::new(&path).start_after(chain.head().unwrap()).expect_head(head).run().unwrap();
    assert_eq!(report.chains()[0].state(), ChainState::Closed);
    let about: Vec<_> = report.not_checked().iter().map(|what| (what.kind(), what.chain())).collect();
    assert!(about.contains(&(NotCheckedKind::Trusted, Some(0))), "{about:?}");
    assert!(about.contains(&(NotCheckedKind::Author, None)), "{about:?}");
}

#[test]
fn a_value_has_its_type_and_prints_as_json() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        tracing::info!(target: "audit", action = "a", actor = "b", minus = -7, plus = 7_u64, half = 0.5, yes = true);
    });
    log.close().unwrap();
    let events = crate::support::events(&path);
    let field = |name: &str| events[0].field(name).unwrap();
    assert_eq!((field("minus").as_i64(), field("minus").as_u64()), (Some(-7), None));
    assert_eq!((field("plus").as_u64(), field("plus").as_f64()), (Some(7), Some(7.0)));
    assert_eq!(
        (field("half").as_f64(), field("half").as_i64(), field("yes").as_bool()),
        (Some(0.5), None, Some(true))
    );
    let all = events[0].get("fields").unwrap();
    assert_eq!(all.as_object().unwrap().len(), 4);
    assert_eq!(all.to_string(), r#"{"half":0.5,"minus":-7,"plus":7,"yes":true}"#);
    assert_eq!(format!("{:>3}|{}", field("plus"), field("yes")), "  7|true");
}
