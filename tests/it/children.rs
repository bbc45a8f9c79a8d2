//! The roles of child processes of tests. The one test here does nothing unless a role is given.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use tracing_audit::{AuditLog, FlushMode, Retention, Rotation};

use crate::support::with_layer;

#[test]
fn entry() {
    let Ok(role) = std::env::var("AUDIT_TEST_ROLE") else { return };
    let log = PathBuf::from(std::env::var_os("AUDIT_TEST_LOG").unwrap());
    let arguments = std::env::var("AUDIT_TEST_ARGUMENTS").unwrap();
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    match role.as_str() {
        "confirm" => confirm_until_killed(&log, arguments[0].parse().unwrap()),
        "emit" => emit(&log, arguments[0], arguments[1].parse().unwrap()),
        "churn" => churn(&log, arguments[0].parse().unwrap()),
        "hold" => hold(&log),
        "exit" => exit_without_close(&log),
        "secrets" => keep_secrets(&log),
        "again" => open_and_close_repeatedly(&log),
        "mute" => print_to_a_full_pipe(&log),
        "remove" => crate::removal::play(&log),
        "global" => crate::global::play(arguments[0], &log),
        "traces" => crate::traces::play(arguments[0], &log),
        "heartbeat" => crate::heartbeat::beat(&log),
        "life" => crate::life::play(arguments[0], &log),
        "place" => crate::place::play(arguments[0], &log),
        "current" => crate::current::play(&log),
        role => panic!("no such role: {role}"),
    }
}

/// Confirms events on some threads until it is killed, and prints each receipt.
fn confirm_until_killed(log: &Path, threads: usize) {
    let log = AuditLog::builder(log).rotation(Rotation::never().max_bytes(256 << 10)).open().unwrap();
    let out = Mutex::new(std::io::stdout());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (log, out) = (&log, &out);
            scope.spawn(move || {
                with_layer(log, || {
                    for number in 0_u64.. {
                        tracing::info!(target: "audit", action = "noise", actor = "child", thread);
                        let receipt = log.confirm(
                            || tracing::info!(target: "audit", action = "a", actor = "child", thread, number),
                        );
                        let mut out = out.lock().unwrap();
                        writeln!(out, "\n@{}", receipt.unwrap()).unwrap();
                        out.flush().unwrap();
                    }
                });
            });
        }
    });
}

/// Emits events in a flush mode, one after the other, and closes.
fn emit(log: &Path, mode: &str, events: u32) {
    let hour = Duration::from_secs(3600);
    let mode = match mode {
        "immediate" => FlushMode::Immediate,
        "batched" => FlushMode::Batched { size: 50, interval: hour },
        "hybrid" => {
            FlushMode::Hybrid { batch_size: 1_000_000, batch_interval: hour, critical_immediate: true }
        }
        mode => panic!("no such mode: {mode}"),
    };
    let log = AuditLog::builder(log).flush_mode(mode).open().unwrap();
    with_layer(&log, || {
        for number in 0..events {
            // One in ten is critical.
            let action = if number % 10 == 0 { "auth.failure" } else { "auth.success" };
            tracing::info!(target: "audit", action, actor = "child", number);
        }
    });
    log.close().unwrap();
}

/// Writes for some milliseconds to small segments, of which only a few are kept, and closes.
fn churn(log: &Path, milliseconds: u64) {
    let log = AuditLog::builder(log)
        .rotation(Rotation::never().max_bytes(64 << 10))
        .retention(Retention::default().max_segments(4))
        .on_notice(|_| {})
        .open()
        .unwrap();
    let begun = std::time::Instant::now();
    with_layer(&log, || {
        for number in 0_u64.. {
            tracing::info!(target: "audit", action = "noise", actor = "child", number);
            if number.is_multiple_of(50) {
                std::thread::sleep(Duration::from_millis(1));
                tracing::warn!(target: "audit", action = "auth.failure", actor = "child", number);
            }
            if begun.elapsed() > Duration::from_millis(milliseconds) {
                break;
            }
        }
    });
    log.close().unwrap();
}

/// Holds the log until it is killed.
fn hold(log: &Path) {
    let _log = AuditLog::open(log).unwrap();
    println!("\n@holding");
    std::thread::sleep(Duration::from_secs(600));
}

/// Exits without closing the log.
fn exit_without_close(log: &Path) {
    let log = AuditLog::open(log).unwrap();
    with_layer(&log, || {
        tracing::warn!(target: "audit", action = "auth.failure", actor = "child");
        tracing::info!(target: "audit", action = "auth.success", actor = "child");
        std::process::exit(0);
    });
}

/// Opens and closes logs in every way, and checks that the process holds no more resources after many than after a few.
fn open_and_close_repeatedly(path: &Path) {
    let count = |of: &str| std::fs::read_dir(format!("/proc/self/{of}")).unwrap().count();
    let held = || {
        let mut before = (count("task"), count("fd"));
        // A thread that was joined is visible in /proc for a moment longer.
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(2));
            before = before.min((count("task"), count("fd")));
        }
        before
    };
    let round = |number: u64| {
        let log = AuditLog::builder(path)
            .rotation(Rotation::never().max_bytes(64 << 10))
            .retention(Retention::keep_all().max_segments(2))
            .on_notice(|_| {})
            .exclusive(true)
            .open()
            .unwrap();
        with_layer(&log, || {
            for _ in 0..200 {
                tracing::info!(target: "audit", action = "a", actor = "b", number);
            }
            log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")).unwrap();
        });
        // An opener that is refused, and one with an unusable path, leave nothing open either.
        AuditLog::builder(path).exclusive(true).open().unwrap_err();
        AuditLog::open("/proc/version/log").unwrap_err();
        assert_eq!(tracing_audit::verify(path).unwrap().verdict(), tracing_audit::Verdict::Intact);
        assert!(tracing_audit::read(path).unwrap().next().is_some());
        if number.is_multiple_of(2) {
            log.close().unwrap();
        }
    };
    (0..4).for_each(round);
    let few = held();
    (0..30).for_each(round);
    let many = held();
    assert!(many.0 <= few.0 && many.1 <= few.1, "threads and descriptors: {few:?}, then {many:?}");
}

/// The secret to be withheld. It is in this program, and must appear nowhere else.
pub(crate) const SECRET: &str = "correct-horse-battery-staple";

/// Passes a secret to the layer in every form of a value, and prints what the log returns.
fn keep_secrets(log: &Path) {
    /// A value that fails to format, and reveals why.
    struct Broken;

    impl std::fmt::Debug for Broken {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("{SECRET}")
        }
    }

    let log = AuditLog::builder(log)
        .redact(["iban"])
        .inherit(["user.password", "api_key"])
        .on_notice(|notice| println!("{notice:?}"))
        .open()
        .unwrap();
    with_layer(&log, || {
        let span = tracing::info_span!("login", user.password = SECRET, api_key = tracing::field::Empty);
        span.record("api_key", SECRET);
        let receipt = log.confirm(|| {
            span.in_scope(|| {
                tracing::info!(
                    target: "audit",
                    action = "auth.success",
                    actor = "plainly-visible",
                    session_id = "s-1",
                    session_token = SECRET,
                    Authorization = %SECRET,
                    "client-secret" = ?SECRET,
                    IBAN = SECRET,
                    cookie = ?Broken,
                    "signed in"
                );
            });
        });
        println!("\n@{}\n{log:?} {:?}", receipt.unwrap(), log.stats());
    });
    log.close().unwrap();
}

/// Makes the log print a line while standard error blocks.
fn print_to_a_full_pipe(log: &Path) {
    std::thread::spawn(|| {
        // Fills the pipe, and then blocks in `write` while holding the lock of standard error.
        std::io::stderr().lock().write_all(&vec![b'.'; 1 << 20])
    });
    std::thread::sleep(Duration::from_millis(200));
    let log = AuditLog::open(log).unwrap();
    with_layer(&log, || {
        log.close().unwrap();
        let begun = std::time::Instant::now();
        tracing::warn!(target: "audit", action = "auth.failure", actor = "child");
        println!("\n@{}", begun.elapsed().as_millis());
    });
    std::process::exit(0);
}
