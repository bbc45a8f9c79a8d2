//! Measures forwarding: `cargo run --release -p tracing-audit-forward --example figures -- [RECORDS]`.
//!
//! Each figure stands beside the plainest loop that does the same, in turns, in one run. With the features `postgres` and
//! `otlp`, and the URLs in `AUDIT_POSTGRES` and `AUDIT_OTLP`, these stores are measured too.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

use std::{
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, OnFull};
use tracing_audit_forward::{Entry, FileSink, Forwarder, Position, Sink, SinkError};
use tracing_subscriber::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let records: u64 = std::env::args().nth(1).map_or(Ok(200_000), |text| text.parse())?;
    let dir = tempfile::tempdir_in(".")?;
    let log = dir.path().join("log");
    let bytes = make_log(&log, records)?;
    println!(
        "{records} records, {:.0} MB; the median of {ROUNDS} rounds, smallest and largest\n",
        bytes as f64 / 1e6
    );

    println!("throughput, records/s: the forwarder, the plainest loop, and the ratio");
    let copy = dir.path().join("copy");
    throughput("file", &log, records, || Ok(FileSink::new(fresh(&copy)?)), || plain_file(&log, &copy))?;
    #[cfg(feature = "postgres")]
    if let Ok(url) = std::env::var("AUDIT_POSTGRES") {
        throughput("postgres", &log, records, || postgres::sink(&url), || postgres::plain(&log, &url))?;
    }
    #[cfg(feature = "otlp")]
    if let Ok(url) = std::env::var("AUDIT_OTLP") {
        throughput("otlp", &log, records, || otlp::sink(&url), || otlp::plain(&log, &url))?;
    }

    lag_under_load(dir.path())?;
    cost_of_an_event(dir.path())?;
    println!("\npeak memory of this process: {}", peak_memory().unwrap_or_else(|| "unknown".to_owned()));
    Ok(())
}

/// Writes a log with so many events; returns its size.
fn make_log(path: &Path, records: u64) -> Result<u64> {
    let audit = AuditLog::builder(path).on_full(OnFull::Block).open()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        for n in 0..records {
            emit(n);
        }
    });
    audit.close()?;
    let sizes =
        fs::read_dir(path)?.flatten().filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file);
    Ok(sizes.map(|data| data.len()).sum())
}

fn emit(n: u64) {
    tracing::info!(
        target: "audit",
        action = "document.read",
        actor = "mia",
        resource = "contract/7481",
        outcome = "success",
        session_id = "s-1907",
        n,
        "read a contract"
    );
}

fn fresh(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(path.to_owned())
}

/// Reads the lines of the log and appends a thousand at a time, each time synced.
fn plain_file(log: &Path, copy: &Path) -> Result<()> {
    let mut file = File::create(fresh(copy)?)?;
    batches(log, |lines| {
        file.write_all(lines.join("\n").as_bytes())?;
        file.write_all(b"\n")?;
        Ok(file.sync_data()?)
    })
}

fn batches(log: &Path, mut take: impl FnMut(&[String]) -> Result<()>) -> Result<()> {
    let mut names: Vec<PathBuf> = fs::read_dir(log)?.flatten().map(|entry| entry.path()).collect();
    names.retain(|name| name.is_file());
    names.sort();
    let mut batch = Vec::new();
    for name in names {
        for line in BufReader::new(File::open(name)?).lines() {
            batch.push(line?);
            if batch.len() == 1_000 {
                take(&batch)?;
                batch.clear();
            }
        }
    }
    if batch.is_empty() { Ok(()) } else { take(&batch) }
}

fn throughput<S: Sink + 'static>(
    name: &str,
    log: &Path,
    records: u64,
    sink: impl Fn() -> Result<S>,
    plain: impl Fn() -> Result<()>,
) -> Result<()> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        forget_positions(log)?;
        let sink = sink()?;
        let begun = Instant::now();
        let forwarder = Forwarder::builder("figures").start_beside(log, sink)?;
        forwarder.drain(LONG)?;
        let our = records as f64 / begun.elapsed().as_secs_f64();
        drop(forwarder);
        let begun = Instant::now();
        plain()?;
        let their = records as f64 / begun.elapsed().as_secs_f64();
        ours.push(our);
        theirs.push(their);
        ratios.push(our / their);
    }
    // The first round warms up.
    let [ours, theirs, ratios] = [ours, theirs, ratios].map(|mut all| Spread::of(all.split_off(1)));
    println!("  {name:9} {ours:.0}  {theirs:.0}  {ratios:.2}");
    Ok(())
}

fn forget_positions(log: &Path) -> Result<()> {
    for entry in fs::read_dir(log.join("control"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("forward-") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// 10,000 records a second for ten seconds.
fn lag_under_load(dir: &Path) -> Result<()> {
    let audit = AuditLog::open(dir.join("load"))?;
    let forwarder = Forwarder::start(&audit, "figures", FileSink::new(fresh(&dir.join("load.jsonl"))?))?;
    let mut lags = Vec::new();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        let begun = Instant::now();
        for n in 0..100_000_u64 {
            emit(n);
            if n % 10 == 0 {
                let due = begun + Duration::from_micros(n * 100);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            if n % 500 == 0 && n > 10_000 {
                lags.push(audit.head().seq().saturating_sub(forwarder.stats().records) as f64);
            }
        }
    });
    println!("\nlag at 10,000 records/s, in durable records: {:.0}", Spread::of(lags));
    audit.close()?;
    forwarder.close(LONG)?;
    Ok(())
}

/// A store that is not there, or that does not answer.
struct Bad {
    hangs: bool,
}

impl Sink for Bad {
    fn positions(&mut self, _: &[Arc<str>]) -> std::result::Result<Option<Vec<Position>>, SinkError> {
        Ok(None)
    }

    fn offer(&mut self, _: &[Entry]) -> std::result::Result<(), SinkError> {
        if self.hangs {
            std::thread::sleep(Duration::from_secs(10));
        }
        Err(SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: None })
    }
}

/// What an event costs the thread that emits it, without a forwarder and with one.
fn cost_of_an_event(dir: &Path) -> Result<()> {
    println!("\ncost of an event, ns: 20,000 events at 20,000/s, the median event");
    let mut costs = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        for (which, costs) in costs.iter_mut().enumerate() {
            let path = dir.join(format!("cost-{round}-{which}"));
            let audit = AuditLog::open(&path)?;
            let forwarder = match which {
                0 => None,
                1 => Some(Forwarder::start(&audit, "figures", FileSink::new(path.join("../cost.jsonl")))?),
                _ => Some(Forwarder::start(&audit, "figures", Bad { hangs: which == 3 })?),
            };
            costs.push(median_cost(&audit));
            drop(forwarder);
            audit.close()?;
            fs::remove_dir_all(path)?;
            drop(fs::remove_file(dir.join("cost.jsonl")));
        }
    }
    let names = ["without", "store healthy", "store down", "store hangs"];
    for (name, mut costs) in names.into_iter().zip(costs) {
        println!("  {name:14} {:.0}", Spread::of(costs.split_off(1)));
    }
    Ok(())
}

fn median_cost(audit: &AuditLog) -> f64 {
    let mut costs = Vec::with_capacity(20_000);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        let begun = Instant::now();
        for n in 0..20_000_u64 {
            let before = Instant::now();
            emit(n);
            costs.push(before.elapsed().as_nanos() as f64);
            let due = begun + Duration::from_micros(n * 50);
            if n % 20 == 0 {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    });
    Spread::of(costs).median
}

/// Median, smallest and largest.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(all.len() / 2), least: at(0), most: at(all.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(0);
        write!(f, "{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.least, self.most)
    }
}

fn peak_memory() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find(|line| line.starts_with("VmHWM"))?.split(':').nth(1)?.trim().to_owned())
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::{
        path::Path,
        sync::atomic::{AtomicU32, Ordering},
    };

    use tracing_audit_forward::Postgres;

    use super::{Result, batches};

    /// Each round has tables of its own.
    static ROUND: AtomicU32 = AtomicU32::new(0);

    pub(super) fn sink(url: &str) -> Result<Postgres> {
        let prefix = format!("figures_{}_", ROUND.fetch_add(1, Ordering::Relaxed));
        let mut sink = Postgres::builder(url).prefix(prefix).build()?;
        sink.create_schema()?;
        Ok(sink)
    }

    /// One prepared insert for each line, a transaction for a thousand.
    pub(super) fn plain(log: &Path, url: &str) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute("DROP TABLE IF EXISTS plain; CREATE TABLE plain (line bytea)").await?;
            let insert = client.prepare("INSERT INTO plain (line) VALUES ($1)").await?;
            let mut all: Vec<Vec<String>> = Vec::new();
            batches(log, |lines| {
                all.push(lines.to_vec());
                Ok(())
            })?;
            for lines in all {
                let transaction = client.transaction().await?;
                for line in &lines {
                    transaction.execute(&insert, &[&line.as_bytes()]).await?;
                }
                transaction.commit().await?;
            }
            Ok(())
        })
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::path::Path;

    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;
    use tracing_audit_forward::Otlp;

    use super::{Result, batches};

    pub(super) fn sink(url: &str) -> Result<Otlp> {
        Ok(Otlp::new(url)?)
    }

    /// One request for a thousand lines, each the body of a record.
    pub(super) fn plain(log: &Path, url: &str) -> Result<()> {
        let agent = ureq::Agent::new_with_defaults();
        batches(log, |lines| {
            let record = |line: &String| LogRecord {
                body: Some(AnyValue { value: Some(Value::StringValue(line.clone())) }),
                ..LogRecord::default()
            };
            let log_records = lines.iter().map(record).collect();
            let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
            let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
            let request =
                agent.post(format!("{url}/v1/logs")).header("content-type", "application/x-protobuf");
            request.send(ExportLogsServiceRequest { resource_logs }.encode_to_vec())?;
            Ok(())
        })
    }
}
