//! Events from unexpected places, with a *global* subscriber. It gets events emitted while it works, in destructors and
//! in every thread, which a scoped one does not. Each scenario runs in its own process.

use std::{
    cell::RefCell,
    fmt, fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    pin::Pin,
    process::{Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tracing::Subscriber;
use tracing_audit::{
    AuditLog, Builder, Error, FlushMode, LossReason, OnFailure, OnFull, Severity, Verdict, audit,
    audit_critical, verify,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

use crate::support::{
    assert_all_present, child, events, fresh, independent_verdict, receipts, records, segments, wait_for,
};

/// The signal of `abort`.
const SIGABRT: i32 = 6;

/// How long a child may run before it counts as hanging.
const BOUND: Duration = Duration::from_secs(20);

/// Emits events while it is formatted, and when it is dropped.
struct Talkative(&'static str);

impl fmt::Debug for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        audit!(action = "inner", actor = "debug");
        audit_critical!(action = "inner", actor = "debug");
        f.write_str(self.0)
    }
}

impl fmt::Display for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        audit!(action = "inner", actor = "display");
        f.write_str(self.0)
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        audit!(action = "dropped", actor = self.0);
    }
}

/// A third-party layer that emits an event when a span closes.
struct Closing;

impl<S: Subscriber> Layer<S> for Closing {
    fn on_close(&self, _: tracing::span::Id, _: Context<'_, S>) {
        audit!(action = "closed", actor = "layer");
    }
}

fn install(log: &AuditLog) {
    tracing_subscriber::registry().with(log.layer()).with(Closing).init();
    log.ensure_attached().unwrap();
}

fn opened(builder: Builder) -> AuditLog {
    let log = builder.open().unwrap();
    install(&log);
    log
}

/// Plays the role of the child process.
pub(crate) fn play(scenario: &str, path: &Path) {
    let builder = AuditLog::builder(path);
    match scenario {
        "nested" => nested(&opened(builder)),
        "classifier" => classifier(builder),
        "notice" => notice(builder, OnFull::DropRoutine),
        "notice-full" => notice(builder, OnFull::Block),
        "thread-local" => thread_local_destructor(&opened(builder)),
        "panic" => panics(&opened(builder)),
        "abort" => {
            // As with `panic = "abort"`: the hook runs, and the panic never returns.
            std::panic::set_hook(Box::new(|_| std::process::abort()));
            panics(&opened(builder));
        }
        "exit" => {
            let log = opened(builder);
            emit_both(&log);
            std::process::exit(0);
        }
        "return" => {
            static LOG: OnceLock<AuditLog> = OnceLock::new();
            emit_both(LOG.get_or_init(|| opened(builder)));
        }
        "fork" => forks(&opened(builder)),
        "fork-inside" => forks_inside_confirm(&opened(builder)),
        "current-thread" => current_thread(builder),
        "early" => early(&builder.open().unwrap()),
        "abort-closed" => {
            let log = opened(builder.on_failure(OnFailure::Abort));
            emit_both(&log);
            log.close().unwrap();
            audit!(action = "too late", actor = "b");
            audit_critical!(action = "too late", actor = "b");
        }
        "abort-failing" => {
            let bound = Duration::from_millis(500);
            let log = opened(builder.on_failure(OnFailure::Abort).wait_bound(bound));
            emit_both(&log);
            // The directory cannot be created again where a file is, so the log cannot continue.
            fs::remove_dir_all(path).unwrap();
            fs::write(path, "").unwrap();
            audit_critical!(action = "never", actor = "b");
        }
        "rotate" => rotate_until_killed(&opened(builder)),
        "restart" => restart(builder),
        "twice" => {
            let log = builder.open().unwrap();
            tracing_subscriber::registry().with(log.layer()).with(Closing).with(log.layer()).init();
            println!("\n@{}", log.ensure_attached().unwrap_err());
            log.close().unwrap();
        }
        other => panic!("no such scenario: {other}"),
    }
}

/// Runs a service that is killed: it opens the log, installs its subscriber in the usual way, and works.
fn restart(builder: Builder) {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let log = builder
        .on_notice(|notice| {
            tracing::warn!("heard {}", notice.kind);
            TOLD.fetch_add(1, Ordering::SeqCst);
        })
        .open()
        .unwrap();
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stdout))
        .with(log.layer())
        .init();
    log.ensure_attached().unwrap();
    emit_both(&log);
    if !log.recovery().is_clean() {
        wait_for("the notice", || TOLD.load(Ordering::SeqCst) > 0);
    }
    std::process::exit(0);
}

fn nested(log: &AuditLog) {
    {
        let value = Talkative("a");
        audit!(action = "outer", actor = "b", shown = ?value, displayed = %value);
        let _span = tracing::info_span!("s", actor = %value).entered();
        audit!(action = "in.span");
    }
    log.close().unwrap();
    let reentrant: u64 = log.stats().lost.iter().map(|loss| loss.events).sum();
    assert_eq!(reentrant, 4, "{:?}", log.stats());
    assert!(log.stats().lost.iter().all(|loss| loss.reason == LossReason::Reentrant));
}

fn classifier(builder: Builder) {
    let log = opened(builder.classify(|_| {
        audit!(action = "inner", actor = "classifier");
        Some(Severity::Routine)
    }));
    for _ in 0..10 {
        audit!(action = "outer", actor = "b");
    }
    log.close().unwrap();
    assert_eq!(log.stats().lost_total(), 10, "{:?}", log.stats());
}

/// Emits events from the notice closure, even while the queue is full and every emitter waits.
fn notice(builder: Builder, on_full: OnFull) {
    let log = builder
        .on_full(on_full)
        .queue_bytes(1 << 20)
        .low_space(u64::MAX)
        .on_notice(|notice| {
            for _ in 0..1000 {
                audit_critical!(action = "heard", actor = "closure", code = %notice.kind);
            }
        })
        .open()
        .unwrap();
    install(&log);
    let emitted_in_vain = || {
        let lost = log.stats().lost;
        lost.iter().filter(|loss| loss.reason == LossReason::Reentrant).map(|loss| loss.events).sum::<u64>()
    };
    let flood = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let padding = "x".repeat(2000);
                while emitted_in_vain() < 1000 {
                    for _ in 0..500 {
                        audit!(action = "flood", actor = "b", padding);
                    }
                    flood.fetch_add(500, Ordering::Relaxed);
                }
            });
        }
    });
    log.close().unwrap();
    println!("\nflood={}", flood.into_inner());
}

fn thread_local_destructor(log: &AuditLog) {
    thread_local! {
        static LAST: RefCell<Option<Talkative>> = const { RefCell::new(None) };
    }
    std::thread::spawn(|| {
        LAST.set(Some(Talkative("thread")));
        audit!(action = "outer", actor = "b");
    })
    .join()
    .unwrap();
    log.close().unwrap();
    assert_eq!(log.stats().lost_total(), 0, "{:?}", log.stats());
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("so far")?;
        panic!("of the application")
    }
}

fn panics(log: &AuditLog) {
    log.confirm(|| audit!(action = "before", actor = "b")).unwrap();
    audit!(action = "outer", actor = "b", first = 1, bad = ?Panics, last = 2);
    audit!(action = "after", actor = "b");
    log.close().unwrap();
}

fn emit_both(_: &AuditLog) {
    audit!(action = "routine", actor = "b");
    audit_critical!(action = "critical", actor = "b");
    audit!(action = "late", actor = "b");
}

fn forks(log: &AuditLog) {
    log.confirm(|| audit!(action = "before", actor = "b")).unwrap();
    if let fork::Fork::Child = fork::fork().unwrap() {
        // No assertions here: a panic would run the test harness a second time.
        audit_critical!(action = "child", actor = "b", value = ?Talkative("child"));
        let refused = log.confirm(|| audit!(action = "child", actor = "b")).is_err();
        std::process::exit(i32::from(!refused));
    }
    for _ in 0..100 {
        log.confirm(|| audit!(action = "parent", actor = "b")).unwrap();
    }
    log.close().unwrap();
}

/// Forks inside of `confirm` and its async forms, while the timer thread of the parent is running.
fn forks_inside_confirm(log: &AuditLog) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let in_child = |refused: bool| {
        println!("\n@@{}", if refused { "refused" } else { "confirmed" });
        std::process::exit(0);
    };
    runtime.block_on(log.confirm_async(|| audit!(action = "before", actor = "b"))).unwrap();
    let forked = std::cell::Cell::new(false);
    let fork = || forked.set(matches!(fork::fork().unwrap(), fork::Fork::Child));
    let confirmed = log.confirm(|| {
        audit!(action = "shared", actor = "b");
        fork();
    });
    if forked.get() {
        in_child(matches!(confirmed, Err(Error::Forked { .. })));
    }
    confirmed.unwrap();
    let confirmed = runtime.block_on(log.confirm_future(async {
        audit!(action = "shared", actor = "b");
        fork();
    }));
    if forked.get() {
        in_child(matches!(confirmed.map_err(Error::from), Err(Error::Forked { .. })));
    }
    confirmed.unwrap();
    // Forks during the wait. The event was accepted by a queue that is not served in the child.
    let mut waiting = log.confirm_async(|| audit!(action = "shared", actor = "b"));
    let (mut polls, begun) = (0, Instant::now());
    let confirmed = runtime.block_on(std::future::poll_fn(|context| {
        polls += 1;
        if polls == 2 {
            fork();
        }
        let polled = Pin::new(&mut waiting).poll(context);
        context.waker().wake_by_ref();
        if polls == 1 { Poll::Pending } else { polled }
    }));
    if forked.get() {
        // The future is polled repeatedly, so it would end at its bound at the latest.
        let at_once = begun.elapsed() < Duration::from_secs(3);
        in_child(at_once && matches!(confirmed, Err(Error::Forked { .. })));
    }
    confirmed.unwrap();
    log.close().unwrap();
}

fn current_thread(builder: Builder) {
    let mode = FlushMode::Batched { size: 10, interval: Duration::from_millis(50) };
    let log = opened(builder.flush_mode(mode).on_full(OnFull::Block).queue_bytes(1 << 20));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let padding = "x".repeat(4000);
        for round in 0..5 {
            for number in 0..500 {
                audit!(action = "flood", actor = "b", round, number, padding);
            }
            let receipt =
                log.confirm_async(|| audit_critical!(action = "confirmed", actor = "b")).await.unwrap();
            println!("\n@{receipt}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        log.flush_async().await.unwrap();
        log.close_async().await.unwrap();
    });
    assert_eq!(log.stats().lost_total(), 0, "{:?}", log.stats());
}

/// Lets a thread without a subscriber reach a call site first, while the only subscriber is a scoped one.
fn early(log: &AuditLog) {
    fn emit() {
        audit!(action = "early", actor = "b");
    }
    let _guard = tracing_subscriber::registry().with(log.layer()).set_default();
    std::thread::spawn(emit).join().unwrap();
    emit();
    assert_eq!(
        log.stats().accepted_routine,
        0,
        "tracing asks every subscriber: is the rebuilding still needed?"
    );
    log.ensure_attached().unwrap();
    emit();
    // On a thread without a subscriber, the check must not disable call sites for the others.
    std::thread::scope(|scope| scope.spawn(|| log.ensure_attached().unwrap_err()).join().unwrap());
    emit();
    log.close().unwrap();
}

fn rotate_until_killed(log: &AuditLog) {
    for number in 0_u64.. {
        let receipt = log.confirm(|| audit!(action = "a", actor = "b", number)).unwrap();
        println!("\n@{receipt}");
        log.rotate().unwrap();
    }
}

/// Runs a scenario to its end, and fails if it hangs.
#[track_caller]
fn run(scenario: &str, path: &Path) -> Output {
    let mut process = child("global", path, &[scenario]).stderr(Stdio::piped()).spawn().unwrap();
    // Read while it runs, so that the child never blocks on a full pipe.
    let (mut out, mut err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let read = |pipe: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || read(&mut out));
        let stderr = scope.spawn(move || read(&mut err));
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > BOUND {
                process.kill().unwrap();
                panic!("{scenario} hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    })
}

#[track_caller]
fn runs_well(scenario: &str, path: &Path) -> Output {
    let output = run(scenario, path);
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn actions(path: &Path) -> Vec<String> {
    events(path).iter().map(|event| event.action().unwrap_or("-").to_owned()).collect()
}

/// Returns the losses in the gap records of a log: critical and routine.
fn told(path: &Path) -> (i64, i64) {
    let records = records(path);
    let gaps = records.iter().filter_map(|record| record.get("gap"));
    let count = |gap: &tracing_audit::Value, name| gap.get(name).unwrap().as_i64().unwrap();
    gaps.fold((0, 0), |sum, gap| (sum.0 + count(gap, "critical"), sum.1 + count(gap, "routine")))
}

#[track_caller]
fn intact(path: &Path) {
    let report = verify(path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
    assert_eq!(independent_verdict(path), 0);
}

#[test]
fn events_emitted_while_formatting_are_counted_and_those_of_drop_and_on_close_recorded() {
    let (_dir, path) = fresh();
    runs_well("nested", &path);
    assert_eq!(actions(&path), ["outer", "in.span", "closed", "dropped"]);
    let events = events(&path);
    assert!(
        events[0].as_json().contains(r#""fields":{"shown":"a","displayed":"a"}"#),
        "{}",
        events[0].as_json()
    );
    assert_eq!(events[1].actor(), Some("a"));
    // `audit_critical!` inside is counted as critical.
    assert_eq!(told(&path), (1, 3));
    intact(&path);
}

#[test]
fn events_of_a_classifier_are_counted() {
    let (_dir, path) = fresh();
    runs_well("classifier", &path);
    assert_eq!((actions(&path).len(), told(&path)), (10, (0, 10)));
    intact(&path);
}

#[test]
fn a_notice_closure_that_emits_blocks_no_one_even_when_the_queue_is_full() {
    for scenario in ["notice", "notice-full"] {
        let (_dir, path) = fresh();
        let output = String::from_utf8(runs_well(scenario, &path).stdout).unwrap();
        let emitted = output.lines().find_map(|line| line.strip_prefix("flood=")).unwrap();
        let flood = actions(&path).iter().filter(|action| *action == "flood").count();
        let is_whole = emitted == flood.to_string();
        assert!(scenario == "notice" || is_whole, "{flood} of {emitted}: nothing is lost when emitters wait");
        assert!(actions(&path).iter().all(|action| action != "heard"));
        intact(&path);
    }
}

#[test]
fn an_event_of_a_thread_local_destructor_is_recorded() {
    let (_dir, path) = fresh();
    runs_well("thread-local", &path);
    assert_eq!(actions(&path), ["outer", "dropped"]);
    intact(&path);
}

#[test]
fn a_panic_in_debug_loses_only_its_own_value() {
    let (_dir, path) = fresh();
    runs_well("panic", &path);
    assert_eq!(actions(&path), ["before", "outer", "after"]);
    let outer = events(&path).remove(1);
    assert!(
        outer.as_json().contains(r#""fields":{"first":1,"bad":"so far","last":2}"#),
        "{}",
        outer.as_json()
    );
    assert!(
        outer.as_json().contains(r#""truncated":{"bad":{"bytes":6,"failed":true}}"#),
        "{}",
        outer.as_json()
    );
    intact(&path);
}

/// If a panic aborts the process, it does so inside the macro. Durable records stay, the log shows that the run did not
/// end cleanly, and the next run continues it.
#[test]
fn a_panic_that_aborts_the_process_leaves_a_log_that_can_be_continued() {
    let (_dir, path) = fresh();
    assert!(!run("abort", &path).status.success());
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Unclean);
    assert_eq!(actions(&path), ["before"]);
    AuditLog::open(&path).unwrap().close().unwrap();
    intact(&path);
}

/// With `OnFailure::Abort`, an application chooses to end rather than to continue without its audit trail.
#[test]
fn a_critical_event_that_cannot_be_recorded_aborts_the_process_if_so_configured() {
    for scenario in ["abort-closed", "abort-failing"] {
        let (_dir, path) = fresh();
        let output = run(scenario, &path);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{scenario}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("tracing-audit: "), "{said}");
        if scenario == "abort-closed" {
            assert_eq!(actions(&path), ["routine", "critical", "late"]);
            intact(&path);
        }
    }
}

#[test]
fn exit_and_the_end_of_main_lose_no_critical_event() {
    for scenario in ["exit", "return"] {
        let (_dir, path) = fresh();
        runs_well(scenario, &path);
        // The sync of the critical event covered the one before it; the one after it had 10 ms to be written.
        assert_eq!(actions(&path)[..2], ["routine", "critical"], "{scenario}");
        assert_eq!(verify(&path).unwrap().verdict(), Verdict::Unclean, "{scenario}");
        AuditLog::open(&path).unwrap().close().unwrap();
        intact(&path);
    }
}

#[test]
fn parent_and_forked_child_both_emit_and_only_the_parent_is_in_its_log() {
    let (_dir, path) = fresh();
    runs_well("fork", &path);
    let actions = actions(&path);
    assert_eq!((actions.len(), actions.iter().filter(|action| *action == "parent").count()), (101, 100));
    intact(&path);
}

/// A task in the child once waited for ever, because neither the writer nor the timer exists there.
#[test]
fn a_child_forked_in_the_middle_of_a_confirm_gets_an_error() {
    let (_dir, path) = fresh();
    let output = runs_well("fork-inside", &path);
    let output = String::from_utf8_lossy(&output.stdout);
    let told: Vec<_> = output.lines().filter(|line| line.starts_with("@@")).collect();
    assert_eq!(told, ["@@refused"; 3], "{output}");
    assert_eq!(actions(&path), ["before", "shared", "shared", "shared"]);
    intact(&path);
}

/// The only thread of the runtime waits for room, and the writer must not depend on it.
#[test]
fn a_single_threaded_runtime_may_wait_for_room() {
    let (_dir, path) = fresh();
    let output = runs_well("current-thread", &path);
    assert_all_present(&path, &receipts(&output.stdout));
    assert_eq!((receipts(&output.stdout).len(), actions(&path).len()), (5, 2505));
    intact(&path);
}

/// Such a call site was silent for ever, and the log still reported that it was attached.
#[test]
fn ensure_attached_enables_call_sites_that_were_reached_too_early() {
    let (_dir, path) = fresh();
    runs_well("early", &path);
    assert_eq!(actions(&path), ["early", "early"]);
    intact(&path);
}

#[test]
fn sigterm_while_segments_are_begun_loses_no_confirmed_event() {
    let (_dir, path) = fresh();
    let mut confirmed = Vec::new();
    for round in 0..12 {
        let mut process = child("global", &path, &["rotate"]).spawn().unwrap();
        let before = segments_of(&path);
        wait_for("segments", || segments_of(&path) > before + 2 + round % 3);
        std::thread::sleep(Duration::from_micros(300 * round as u64));
        assert!(crate::support::run("kill", &["-TERM", &process.id().to_string()]));
        process.wait().unwrap();
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut process.stdout.take().unwrap(), &mut out).unwrap();
        confirmed.extend(receipts(&out));
        assert_ne!(verify(&path).unwrap().verdict(), Verdict::Damaged);
    }
    AuditLog::open(&path).unwrap().close().unwrap();
    assert!(confirmed.len() >= 12);
    assert_all_present(&path, &confirmed);
    intact(&path);
}

fn segments_of(path: &Path) -> usize {
    if fs::exists(path).unwrap() { segments(path).len() } else { 0 }
}

/// Notices of opening were once given before there was a subscriber: only 2 of 20 restarts logged them.
#[test]
fn notices_of_opening_reach_a_subscriber_installed_afterwards() {
    let (_dir, path) = fresh();
    runs_well("restart", &path);
    for restart in 0..20 {
        let output = String::from_utf8(runs_well("restart", &path).stdout).unwrap();
        assert!(output.contains("WARN it::global: heard recovered"), "restart {restart}: {output}");
    }
}

/// Every event was once recorded twice, without an error.
#[test]
fn a_layer_that_is_attached_twice_is_an_error() {
    let (_dir, path) = fresh();
    let output = String::from_utf8(runs_well("twice", &path).stdout).unwrap();
    let said = output.lines().find_map(|line| line.strip_prefix('@')).unwrap();
    assert!(said.contains("twice"), "{said}");
    intact(&path);
    assert_eq!(actions(&path), [""; 0], "a probe was recorded");
}

#[test]
fn a_layer_may_be_dropped_on_another_thread() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(log.layer()));
    tracing::dispatcher::with_default(&dispatch, || {
        let span = tracing::info_span!("s", actor = "b");
        span.in_scope(|| tracing::info!(target: "audit", action = "a"));
    });
    // The handle first: the layer does not keep the log open.
    drop(log);
    std::thread::spawn(move || drop(dispatch)).join().unwrap();
    assert_eq!(actions(&path), ["a"]);
    intact(&path);
}
