//! Writers and a forwarder that are killed at random, and what the store has in the end.
//!
//! The processes are this test program itself, started with an environment variable that says what to be.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]
#![cfg(all(unix, feature = "file"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Rotation};
use tracing_audit_forward::{FileSink, Forwarder};
use tracing_subscriber::prelude::*;

const ROLE: &str = "AUDIT_KILLS_ROLE";
const DIR: &str = "AUDIT_KILLS_DIR";
const WRITERS: usize = 4;

fn log_of(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn copy_of(dir: &Path) -> PathBuf {
    dir.join("copy.jsonl")
}

fn open(dir: &Path) -> AuditLog {
    AuditLog::builder(log_of(dir))
        .rotation(Rotation::never().max_bytes(128 << 10))
        .stderr(false)
        .open()
        .unwrap()
}

/// Emits until it is killed, and notes what was confirmed.
fn write(dir: &Path) -> ! {
    let log = open(dir);
    tracing_subscriber::registry().with(log.layer()).init();
    let mut acks = File::create(dir.join(format!("acks-{}", std::process::id()))).unwrap();
    for n in 0_u64.. {
        tracing::info!(target: "audit", action = "item.seen", actor = "mia", n);
        if n % 5 == 0 {
            let receipt = log
                .confirm(|| tracing::info!(target: "audit", action = "item.sold", actor = "mia", n))
                .unwrap();
            acks.write_all(format!("{}\n", receipt.hash()).as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_micros(500));
    }
    unreachable!()
}

/// Forwards until it is killed.
fn forward(dir: &Path) -> ! {
    let builder = Forwarder::builder("copy");
    let _forwarder = builder.start_beside(log_of(dir), FileSink::new(copy_of(dir))).unwrap();
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// No test by itself: what the other one starts.
#[test]
fn a_process_of_the_other_test() {
    let Ok(role) = env::var(ROLE) else { return };
    let dir = PathBuf::from(env::var_os(DIR).unwrap());
    match role.as_str() {
        "write" => write(&dir),
        _ => forward(&dir),
    }
}

fn start(dir: &Path, role: &str) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["a_process_of_the_other_test", "--exact", "--nocapture"]);
    command.env(ROLE, role).env(DIR, dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn every_confirmed_record_reaches_the_store_once() {
    let kills: usize = env::var("AUDIT_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let begun = Instant::now();
    let mut writers: Vec<Child> = (0..WRITERS).map(|_| start(dir, "write")).collect();
    let mut forwarder = start(dir, "forward");
    for number in 0..kills {
        thread::sleep(Duration::from_millis(50 + (number as u64 * 7_919) % 350));
        if number % 3 == 0 {
            kill(std::mem::replace(&mut forwarder, start(dir, "forward")));
        } else {
            let killed = number % WRITERS;
            kill(std::mem::replace(&mut writers[killed], start(dir, "write")));
        }
    }
    writers.into_iter().for_each(kill);
    kill(forwarder);
    // Whoever opens the log recovers what the dead left, and what is durable then goes to the store.
    open(dir).close().unwrap();
    let last = Forwarder::builder("copy").start_beside(log_of(dir), FileSink::new(copy_of(dir))).unwrap();
    last.drain(Duration::from_secs(60)).unwrap();
    let stats = last.stats();
    assert!(stats.stopped.is_empty(), "{:?}", stats.stopped);
    last.close(Duration::from_secs(10)).unwrap();

    let copied = fs::read_to_string(copy_of(dir)).unwrap();
    let mut copied: Vec<&str> = copied.lines().collect();
    let mut logged: BTreeMap<String, u64> = BTreeMap::new();
    for record in tracing_audit::read(log_of(dir)).unwrap() {
        *logged.entry(record.unwrap().as_json().to_owned()).or_default() += 1;
    }
    copied.sort_unstable();
    assert!(copied.is_sorted_by(|one, two| one < two), "a record stands twice in the copy");
    let missing = logged.keys().filter(|line| copied.binary_search(&line.as_str()).is_err()).count();
    assert_eq!((missing, copied.len()), (0, logged.len()), "of {} records", logged.len());
    let hashes: BTreeSet<&str> = copied.iter().map(|line| &line[line.len() - 66..line.len() - 2]).collect();
    let mut confirmed = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("acks-") {
            for hash in
                fs::read_to_string(path).unwrap().split_inclusive('\n').filter(|line| line.ends_with('\n'))
            {
                assert!(hashes.contains(hash.trim_end()), "{hash} was confirmed and is not in the copy");
                confirmed += 1;
            }
        }
    }
    assert!(confirmed > kills && tracing_audit::verify(log_of(dir)).unwrap().is_intact());
    println!(
        "{kills} kills, {} records, {confirmed} confirmed, {:.1} s",
        logged.len(),
        begun.elapsed().as_secs_f64()
    );
}
