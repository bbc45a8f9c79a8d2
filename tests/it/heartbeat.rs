//! What a sync does to the other tasks on the thread that waits for it.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing_audit::AuditLog;
use tracing_subscriber::prelude::*;

use crate::support::{child, fresh, run, skip};

/// The delay added to each sync.
const SYNC: Duration = Duration::from_millis(500);

/// The longest acceptable gap for a task that runs every 5 ms.
const GAP: Duration = Duration::from_millis(20);

/// The number of rounds, because a busy machine can cause a gap too.
const ROUNDS: usize = 30;

/// Emits a critical event, as a library does that knows nothing of this log.
fn of_a_library() {
    tracing::error!(target: "audit", action = "key.denied", actor = "mallory");
}

/// Returns the longest gap between two beats of a task, on the only thread of a runtime, while another task does this
/// work, and how long the work took.
async fn measure(work: impl Future<Output = ()> + Send + 'static) -> (Duration, Duration) {
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let beats = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while !is_done.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let took = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begun = Instant::now();
        work.await;
        let took = begun.elapsed();
        // The heartbeat needs time for its first beat after the work.
        tokio::time::sleep(Duration::from_millis(20)).await;
        took
    });
    let took = took.await;
    done.store(true, Ordering::Release);
    (beats.await.unwrap(), took.unwrap())
}

/// Plays the role of the child process: measures each form for a number of rounds, or until one round meets an idle machine.
pub(crate) fn beat(path: &Path) {
    let log = AuditLog::open(path).unwrap();
    tracing_subscriber::registry().with(log.layer()).init();
    log.ensure_attached().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let rounds = std::env::var("AUDIT_BEATS").ok().and_then(|rounds| rounds.parse().ok());
    runtime.block_on(async {
        for _ in 0..rounds.unwrap_or(ROUNDS) {
            let (alone, took) = measure(async { of_a_library() }).await;
            println!("\n@macro {} {}", alone.as_micros(), took.as_micros());
            let audit = log.clone();
            let (confirmed, took) = measure(async move {
                audit.confirm_future(async { of_a_library() }).await.unwrap();
            })
            .await;
            println!("\n@confirm_future {} {}", confirmed.as_micros(), took.as_micros());
            if rounds.is_none() && confirmed < GAP {
                break;
            }
        }
    });
    log.close().unwrap();
}

/// Parses the lines of one form: the longest gap and the time of the work, in each round.
fn figures(output: &str, form: &str) -> Vec<(Duration, Duration)> {
    let lines =
        output.lines().filter_map(|line| line.strip_prefix('@')?.strip_prefix(form)?.strip_prefix(' '));
    let micros = |text: &str| Duration::from_micros(text.parse().unwrap());
    lines.map(|line| line.split_once(' ').unwrap()).map(|(gap, took)| (micros(gap), micros(took))).collect()
}

/// A critical event in a task blocked everything else on its thread for the duration of the sync.
#[test]
fn a_sync_blocks_other_tasks_beside_a_plain_macro_but_not_beside_confirm_future() {
    if !run("strace", &["-V"]) {
        return skip(
            "a_sync_blocks_other_tasks_beside_a_plain_macro_but_not_beside_confirm_future",
            "strace is not installed",
        );
    }
    let (dir, log) = fresh();
    let process = child("heartbeat", &log, &[]);
    let mut command = Command::new("strace");
    let delay = format!("inject=fdatasync:delay_enter={}", SYNC.as_micros());
    command.args(["-f", "--seccomp-bpf", "-e", "trace=fdatasync", "-e", &delay, "-o"]);
    command.arg(dir.path().join("trace")).arg(process.get_program()).args(process.get_args());
    for (name, value) in process.get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).unwrap();
    let (alone, confirmed) = (figures(&output, "macro"), figures(&output, "confirm_future"));
    for (form, figures) in [("macro", &alone), ("confirm_future", &confirmed)] {
        let mut gaps: Vec<Duration> = figures.iter().map(|(gap, _)| *gap).collect();
        gaps.sort_unstable();
        let median = gaps[gaps.len() / 2];
        println!(
            "{form}: {} rounds, gaps {:?} to {:?}, median {median:?}",
            gaps.len(),
            gaps[0],
            gaps[gaps.len() - 1]
        );
        assert!(figures.iter().all(|(_, took)| *took >= SYNC), "it did not wait for a sync: {output}");
    }
    assert!(
        alone.iter().all(|(gap, _)| *gap >= SYNC),
        "the macro does not hold the thread any more: {output}"
    );
    assert!(confirmed.iter().any(|(gap, _)| *gap < GAP), "the thread is held: {output}");
}
