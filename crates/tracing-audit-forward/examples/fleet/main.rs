//! A fleet in one process: how many records a collector takes in a second, and what a chain costs it.
//!
//! ```console
//! $ cargo run --release -p tracing-audit-forward --example fleet
//! ```
//!
//! Hosts with some chains each send records in turn, as a stream would deliver them. Their making is not counted. Each line
//! is a run of its own process, so that memory is that of one size. `fleet DIR HOSTS CHAINS RECORDS` runs one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "an example may end")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "it prints figures")]

mod hosts;

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hosts::Hosts;
use tracing_audit::{Verdict, verify};
use tracing_audit_forward::Collector;

/// Hosts, chains of each, records of each chain.
const SIZES: [(u32, u32, u32); 4] = [(10, 10, 20_000), (100, 10, 2_000), (1_000, 10, 200), (10_000, 10, 20)];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [dir, hosts, chains, records] = &*arguments {
        run(Path::new(dir), hosts.parse().unwrap(), chains.parse().unwrap(), records.parse().unwrap());
        return;
    }
    println!(
        "{:>7} {:>8} {:>9} {:>11} {:>12} {:>12} {:>14} {:>12} {:>10}",
        "hosts", "chains", "records", "records/s", "MB/s", "peak MiB", "bytes/chain", "table KB", "start s"
    );
    for (hosts, chains, records) in SIZES {
        let dir = tempfile::tempdir().unwrap();
        let numbers = [hosts, chains, records].map(|number| number.to_string());
        let done = Command::new(env::current_exe().unwrap()).arg(dir.path()).args(numbers).status();
        assert!(done.unwrap().success());
    }
}

fn run(dir: &Path, hosts: u32, chains: u32, records: u32) {
    let mut feed = Hosts::new(hosts, chains, records);
    let before = peak_bytes();
    let mut collector = Collector::open(dir).unwrap();
    let begun = Instant::now();
    collector.catch_up(&mut feed).unwrap();
    let took = begun.elapsed().saturating_sub(feed.making);
    let peak = peak_bytes();
    let fleet = collector.fleet();
    assert_eq!(fleet.alarms, [], "all is well");
    let all = u64::from(hosts) * u64::from(chains) * u64::from(records);
    assert_eq!(fleet.place, all);
    drop(collector);
    let table = fs::metadata(dir.join("table.json")).unwrap().len();
    let begun = Instant::now();
    drop(Collector::open(dir).unwrap());
    let start = begun.elapsed();
    // One copy is enough.
    let report = verify(dir.join("logs").join(feed.origin(0).to_string())).unwrap();
    assert_ne!(report.verdict(), Verdict::Damaged, "{report}");
    println!(
        "{hosts:>7} {:>8} {all:>9} {:>11.0} {:>12.0} {:>12.0} {:>14.0} {:>12.0} {:>10.2}",
        hosts * chains,
        all as f64 / took.as_secs_f64(),
        feed.bytes as f64 / took.as_secs_f64() / 1e6,
        peak as f64 / f64::from(1 << 20),
        (peak - before) as f64 / f64::from(hosts * chains),
        table as f64 / 1e3,
        start.as_secs_f64(),
    );
    assert!(took > Duration::ZERO);
}

/// Returns the peak memory of this process.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
