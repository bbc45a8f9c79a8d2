//! `tracing-audit collect`.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use tracing_audit_forward::{
    Alarm, AlarmKind, CollectedChain, Collector, Error, Feed, Fleet, Origin, fleet, retire, settle,
};

use crate::{
    output::{escape, escape_json, grouped},
    print, print_stderr, store,
};

/// Collects the logs of a fleet from a stream, and checks every chain as it arrives.
///
/// In the directory, `logs/SERVICE/HOST` is a copy of each log, byte for byte, for `verify`; `heads/SERVICE/HOST` has the heads
/// for `verify --heads` on that host; `table.json` is the table of heads. The collector may be ended at any moment: the next
/// run continues where this one ended.
///
/// Alarms are printed to standard error when they begin and when they end: a log is missing, forked, altered, stopped by its
/// forwarder, or silent. `collect status` shows the current ones, also in its exit code.
///
/// With `--once` the command exits with 0 if all is well, and with 1 if evidence is in doubt (forked, altered, missing). It
/// does not detect silent logs, and knows stopped ones mainly from an earlier run: both take a collector that keeps running.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Collect {
    #[command(subcommand)]
    about: Option<About>,

    #[command(flatten)]
    run: Option<Run>,
}

#[derive(Debug, Subcommand)]
enum About {
    /// Prints the table of heads, and the alarms.
    ///
    /// Exit codes: 0 all is well, 1 evidence is in doubt (forked, altered, stopped, missing), 3 a log is silent, or the
    /// collector is behind or not running.
    Status(Status),
    /// Clears the alarms that stay until somebody has investigated: forked, altered and missing.
    ///
    /// The collector must not be running.
    Settle {
        /// The directory of the collector.
        dir: PathBuf,
        /// The id of the chain, as printed by `status`.
        #[arg(required_unless_present = "all")]
        chain_id: Option<String>,
        /// Clear all of them.
        #[arg(long, conflicts_with = "chain_id")]
        all: bool,
    },
    /// Ends the alarm of a silent log whose host is gone for good: nothing more is expected of the log.
    ///
    /// Records that arrive all the same are collected. The collector must not be running.
    Retire {
        /// The directory of the collector.
        dir: PathBuf,
        /// The log, as printed by `status`: `SERVICE/HOST`.
        #[arg(value_name = "LOG", value_parser = log_named)]
        log: Origin,
    },
}

#[derive(Debug, Args)]
struct Status {
    /// The directory of the collector.
    dir: PathBuf,

    /// Maximal age of the table in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    max_age: u64,

    /// Print the table as JSON, on one line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Run {
    /// The stream: `nats://HOST/STREAM` or `tls://HOST/STREAM`, with the parameters of `forward --to`. Read access is enough.
    #[arg(long, value_name = "URL")]
    from: String,

    /// The directory to collect into.
    dir: PathBuf,

    /// Collect what the stream has now, then exit.
    #[arg(long)]
    once: bool,

    /// A file of the expected logs, one `SERVICE/HOST` per line, with comments after `#`. One that never sent anything is
    /// reported as missing.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,

    /// Seconds without a record and without a heartbeat of its forwarder after which a log is silent, unless it was closed.
    ///
    /// Forwarders to NATS send a heartbeat every 15 seconds. A log writes a record at least every hour.
    #[arg(long, value_name = "SECONDS", default_value_t = 45)]
    silent_after: u64,

    /// A file for metrics in the text format of Prometheus, replaced every 10 seconds.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

impl Collect {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match (self.about, self.run) {
            (Some(About::Status(status)), _) => status.run(),
            (Some(About::Settle { dir, chain_id, .. }), _) => {
                let settled = settle(&dir, chain_id.as_deref())?;
                print(&format!("the alarms of {settled} chains were cleared"));
                // Nothing to clear means a wrong id or directory.
                Ok(if settled > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            (Some(About::Retire { dir, log }), _) => {
                let retired = retire(&dir, &log)?;
                print(&format!("{retired} chains of {log} were open, and nothing more is expected of them"));
                Ok(if retired > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            (None, Some(run)) => run.run(),
            (None, None) => bail!("name a stream with --from, and a directory"),
        }
    }
}

/// How often metrics are written.
const METRICS: Duration = Duration::from_secs(10);

/// Limit of the backoff after failures, which doubles each time.
const MAX_PAUSE: Duration = Duration::from_secs(15);

impl Run {
    fn run(self) -> Result<ExitCode> {
        let mut feed = feed_of(&self.from)?;
        let mut builder = Collector::builder(&self.dir).silent_after(Duration::from_secs(self.silent_after));
        for origin in self.expect.as_deref().map(expected).transpose()?.unwrap_or_default() {
            builder = builder.expect(origin);
        }
        let mut collector = builder.open()?;
        if self.once {
            collector
                .catch_up(feed.as_mut())
                .with_context(|| format!("cannot collect into {}", self.dir.display()))?;
            self.write_metrics(&collector)?;
            let fleet = collector.fleet();
            print(&summary(&fleet));
            fleet.alarms.iter().for_each(|alarm| print(&escape(&alarm.to_string())));
            return Ok(ExitCode::from(exit_code_of(&fleet.alarms)));
        }
        let is_asked_to_end = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            // A second signal ends the command at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_asked_to_end))?;
            signal_hook::flag::register(signal, Arc::clone(&is_asked_to_end))?;
        }
        self.collect(&mut collector, feed.as_mut(), &is_asked_to_end)?;
        collector.flush()?;
        self.write_metrics(&collector)?;
        Ok(ExitCode::SUCCESS)
    }

    fn collect(&self, collector: &mut Collector, feed: &mut dyn Feed, is_over: &AtomicBool) -> Result<()> {
        let mut printed = BTreeSet::new();
        let mut trouble = None;
        let mut pause = Duration::ZERO;
        let mut metrics_written: Option<Instant> = None;
        while !is_over.load(Ordering::Relaxed) {
            match collector.step(feed) {
                Ok(_) => {
                    pause = Duration::ZERO;
                    if trouble.take().is_some() {
                        print_stderr("tracing-audit: collecting again");
                    }
                }
                // The collector's own files are damaged: retrying cannot help, and writing on could make it worse.
                Err(error @ (Error::BadCopy { .. } | Error::BadTable { .. })) => return Err(error.into()),
                Err(error) => {
                    let why = format!("{:#}", anyhow::Error::from(error));
                    // Print an error once, not with each retry.
                    if trouble.as_ref() != Some(&why) {
                        print_stderr(&format!("tracing-audit: {why}; retrying"));
                        trouble = Some(why);
                    }
                    pause = (pause * 2).clamp(Duration::from_millis(500), MAX_PAUSE);
                }
            }
            print_changes(&mut printed, collector.alarms());
            if metrics_written.is_none_or(|at| at.elapsed() >= METRICS) {
                // A disk that is full for a while must not end the collector.
                if let Err(error) = self.write_metrics(collector) {
                    print_stderr(&format!("tracing-audit: {error:#}"));
                }
                metrics_written = Some(Instant::now());
            }
            let until = Instant::now() + pause;
            // Sleep in short steps, so that a signal is noticed soon.
            while Instant::now() < until && !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100).min(pause));
            }
        }
        Ok(())
    }

    fn write_metrics(&self, collector: &Collector) -> Result<()> {
        match &self.metrics {
            Some(path) => replace(path, collector.fleet().metrics().as_bytes())
                .with_context(|| format!("cannot write {}", path.display())),
            None => Ok(()),
        }
    }
}

/// Replaces a file atomically, so that a reader sees the old or the new one. Any user may read it, for the metrics agent.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tracing-audit-").suffix(".tmp").permissions(fs::Permissions::from_mode(0o644));
    let mut file = builder.tempfile_in(parent)?;
    file.write_all(text)?;
    // Not synced: metrics are written again in 10 seconds.
    file.persist(path)?;
    Ok(())
}

/// Prints which alarms are new, and which have ended.
fn print_changes(printed: &mut BTreeSet<Alarm>, now: &[Alarm]) {
    // Messages are not compared: they contain numbers that change while the alarm lasts.
    let is_same = |one: &Alarm, other: &Alarm| {
        (one.kind, &one.origin, &one.chain_id) == (other.kind, &other.origin, &other.chain_id)
    };
    for alarm in now.iter().filter(|alarm| !printed.iter().any(|known| is_same(known, alarm))) {
        print_stderr(&format!("tracing-audit: {alarm}"));
    }
    for alarm in printed.iter().filter(|alarm| !now.iter().any(|known| is_same(known, alarm))) {
        print_stderr(&format!("tracing-audit: no longer {alarm}"));
    }
    *printed = now.iter().cloned().collect();
}

fn feed_of(url: &str) -> Result<Box<dyn Feed>> {
    match store::of(url)? {
        #[cfg(feature = "nats")]
        store::Store::Nats(url) => Ok(Box::new(tracing_audit_forward::NatsFeed::new(url)?)),
        _ => bail!("logs can only be collected from a NATS stream: nats://HOST/STREAM or tls://HOST/STREAM"),
    }
}

/// Parses the name of a log.
fn log_named(text: &str) -> Result<Origin, String> {
    let (service, host) = text.split_once('/').ok_or("a log is SERVICE/HOST, as in `web/n1.example`")?;
    Origin::new(service, host).map_err(|error| error.to_string())
}

/// Reads the file of expected logs.
fn expected(path: &Path) -> Result<Vec<Origin>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut origins = Vec::new();
    for (line, number) in text.lines().zip(1_u64..) {
        let named = line.split('#').next().unwrap_or_default().trim();
        if named.is_empty() {
            continue;
        }
        let place = || format!("line {number} of {} is not the name of a log", path.display());
        origins.push(log_named(named).map_err(anyhow::Error::msg).with_context(place)?);
    }
    Ok(origins)
}

fn exit_code_of(alarms: &[Alarm]) -> u8 {
    if alarms.iter().any(|alarm| alarm.kind.is_about_evidence()) {
        1
    } else if alarms.is_empty() {
        0
    } else {
        3
    }
}

fn summary(fleet: &Fleet) -> String {
    let logs: BTreeSet<&str> = fleet.chains.iter().filter_map(|chain| chain.log.as_deref()).collect();
    // Counted by last numbers, so this includes records that retention has removed.
    let records = fleet.chains.iter().fold(0_u64, |sum, chain| sum.saturating_add(chain.seq));
    format!(
        "{} records of {} chains in {} logs, up to message {} of the stream",
        grouped(records),
        fleet.chains.len(),
        logs.len(),
        grouped(fleet.place)
    )
}

impl Status {
    fn run(self) -> Result<ExitCode> {
        let mut fleet = fleet(&self.dir)?;
        let (now, updated) = (now_ms(), fleet.updated_ms);
        let age_ms = now.saturating_sub(updated);
        // A table from the future would never seem too old, so a clock that was set back must not hide a collector
        // that stopped.
        if updated > now.saturating_add(60_000) {
            let message =
                format!("the table was written {} from now: a clock was set back", span(updated - now));
            fleet.alarms.push(Alarm::new(AlarmKind::Behind, message));
        } else if age_ms > self.max_age.saturating_mul(1000) {
            let message =
                format!("the table is {} old: the collector is not running, or cannot write", span(age_ms));
            fleet.alarms.push(Alarm::new(AlarmKind::Behind, message));
        }
        if self.json {
            print(&escape_json(&serde_json::to_string(&fleet)?));
        } else {
            print(table(&fleet).trim_end());
        }
        Ok(ExitCode::from(exit_code_of(&fleet.alarms)))
    }
}

/// Formats the table, with the alarms below it.
fn table(fleet: &Fleet) -> String {
    let mut rows =
        vec![["LOG", "CHAIN", "RECORD", "GAPS", "TIME", "LAG", "LAST SIGN", "ID"].map(str::to_owned)];
    rows.extend(fleet.chains.iter().map(|chain| row(fleet, chain)));
    let widths: Vec<usize> = (0..rows.first().map_or(0, |row| row.len()))
        .map(|column| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.extend([cells.join("  ").trim_end(), "\n"]);
    }
    text.extend([summary(fleet).as_str(), "\n"]);
    if fleet.alarms.is_empty() {
        text.push_str("all is well\n");
    }
    for alarm in &fleet.alarms {
        text.extend([escape(&alarm.to_string()).as_ref(), "\n"]);
    }
    text
}

fn row(fleet: &Fleet, chain: &CollectedChain) -> [String; 8] {
    let log = chain.origin().map_or_else(String::new, |origin| origin.to_string());
    let heard = fleet.logs.get(&log).and_then(|log| log.heard_ms).map_or_else(
        || "never".to_owned(),
        |at| format!("{} ago", span(fleet.updated_ms.saturating_sub(at))),
    );
    let number = chain.chain.map_or_else(|| "-".to_owned(), |chain| format!("{chain:03}"));
    let ts = chain.ts.as_deref().map_or("-", |ts| ts.get(..19).unwrap_or(ts));
    let heard = if chain.closed { "closed".to_owned() } else { heard };
    [
        chain.log.clone().unwrap_or(log),
        number,
        chain.seq.to_string(),
        chain.gaps.iter().fold(0_u64, |sum, (first, last)| sum.saturating_add(last - first + 1)).to_string(),
        escape(ts).into_owned(),
        span(chain.lag_ms),
        heard,
        chain.chain_id.clone(),
    ]
}

/// Formats a span of time, rounded down.
fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
