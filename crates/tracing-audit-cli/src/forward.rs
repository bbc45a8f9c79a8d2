//! `tracing-audit forward`.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tracing_audit::Head;
use tracing_audit_forward::{
    ChainStatus, Error, Fate, Forwarder, Rejected, StartAt, State, Stats, forwarders, give_up, lift,
    offer_again, rejected, require, skip, status,
};

use crate::{origin::OriginOptions, print, print_stderr, store};

/// Forwards a log to another store, while programs write it.
///
/// All durable records are sent, and sent again until the store acknowledges them. The position is kept in the log, under
/// the name of the forwarder. Ends on SIGTERM and SIGINT, after all durable records were forwarded or `--drain` seconds have
/// passed.
///
/// Exit codes: 0 the store has everything; 1 records remain, because the store did not take them in time or refused them, or
/// a chain was stopped or cannot be read; 2 the command failed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Forward {
    #[command(subcommand)]
    about: Option<About>,

    #[command(flatten)]
    run: Option<Run>,
}

#[derive(Debug, Subcommand)]
enum About {
    /// Prints how far the log was forwarded to each store.
    Status {
        /// The directory of the log.
        log: PathBuf,
    },
    /// Creates the tables that records are forwarded to, if they do not exist.
    #[cfg(feature = "postgres")]
    CreateSchema {
        /// The database, with a role that may create tables.
        #[arg(value_name = "URL")]
        to: String,
    },
    /// Creates the NATS JetStream stream that records are forwarded to, if it does not exist.
    ///
    /// It keeps everything, and refuses messages when it is full: file storage, no limits, no deletes, and atomic batches if
    /// the server has them (2.12). An existing stream is only checked.
    #[cfg(feature = "nats")]
    CreateStream {
        /// The stream, with a user who may create streams.
        #[arg(value_name = "URL")]
        to: String,
        /// Number of servers of the cluster that have a full copy: 1, 3 or 5.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        replicas: u8,
    },
    /// Prints the records that a store refused, each with the reason from the store.
    Rejected(Named),
    /// Sends the refused records again, one by one.
    Retry {
        #[command(flatten)]
        named: Named,
        /// The store.
        #[arg(long, value_name = "URL")]
        to: String,
        /// The service that writes the log, as in `forward`.
        #[arg(long)]
        service: Option<String>,
        /// The host that the service runs on, as in `forward`.
        #[arg(long)]
        host: Option<String>,
    },
    /// Gives up refused records: the store stays without them, and retention no longer waits for them.
    GiveUp {
        #[command(flatten)]
        named: Named,
        /// The records, as printed by `rejected`.
        #[arg(required = true, value_name = "RECORD")]
        records: Vec<Head>,
    },
    /// Continues after a record, whatever the store has up to there.
    ///
    /// For a chain that was stopped because a log or a store was restored or cloned. They then have different records under
    /// the same keys. The store keeps its records; those of the log up to this one never reach it.
    Skip {
        #[command(flatten)]
        named: Named,
        /// The record of the log to continue after.
        record: Head,
    },
    /// Makes retention wait for forwarders: no program removes a segment until the store of each has all of it.
    ///
    /// The names are kept in the log, in `forward-required`, so that programs without the setting obey too.
    Require(Names),
    /// Stops retention from waiting for forwarders.
    ///
    /// A program that requires one in its own settings (`require_forwarded`) still waits for it, and adds the name again
    /// when it next opens the log. Remove it from the settings first.
    Lift(Names),
}

#[derive(Debug, Args)]
struct Names {
    /// The directory of the log.
    log: PathBuf,
    /// The names of the forwarders.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct Named {
    /// The directory of the log.
    log: PathBuf,
    /// The name of the forwarder.
    name: String,
}

#[derive(Debug, Args)]
struct Run {
    /// The directory of the log.
    log: PathBuf,

    /// The store: `file:PATH`, `postgres://USER@HOST/DATABASE`, `tls://HOST/STREAM` or `nats://HOST/STREAM`,
    /// `otlp+https://HOST` or `otlp+http://HOST`, `s3://BUCKET/PREFIX` or `archive:DIR`.
    ///
    /// Credentials for S3 are in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`;
    /// docs/forwarding/objects.md has the parameters of an archive.
    ///
    /// `ps` shows the URL, so put credentials into the environment: `PGPASSFILE` or `PGPASSWORD`; `NATS_CREDS`,
    /// `NATS_USER` and `NATS_PASSWORD`, or `NATS_TOKEN`; or `OTEL_EXPORTER_OTLP_HEADERS`.
    ///
    /// For OTLP, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` name the source of the records; set at least the first.
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE` names a PEM file with the authorities to trust, instead of Mozilla's list.
    /// `OTEL_EXPORTER_OTLP_LOGS_HEADERS` and `OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE` replace the general ones.
    #[arg(long, value_name = "URL")]
    to: String,

    /// The service that writes the log, for stores that keep it (NATS, archives), unless the URL names it. Default: from the
    /// newest `open` record of each chain.
    #[arg(long)]
    service: Option<String>,

    /// The host that the service runs on, in the same way.
    #[arg(long)]
    host: Option<String>,

    /// The name of the forwarder: 1 to 32 letters a-z, digits and hyphens. Default: the kind of store.
    #[arg(long)]
    name: Option<String>,

    /// Where to begin if there is no position under this name yet: `start`, `now`, or after a head.
    #[arg(long, value_name = "WHERE", default_value = "start", value_parser = start_at)]
    from: StartAt,

    /// Forward what is in the log now, then exit. Gives up when the store takes nothing for `--drain` seconds.
    #[arg(long)]
    once: bool,

    /// Seconds to wait for the store before exiting.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain: u64,

    /// Seconds that a record may wait for the store before a warning that forwarding is behind.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    max_lag: u64,
}

fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "start" => Ok(StartAt::Beginning),
        "now" => Ok(StartAt::Now),
        head => head.parse::<Head>().map(StartAt::After).map_err(|error| error.to_string()),
    }
}

impl Forward {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match (self.about, self.run) {
            (Some(about), _) => about.run(),
            (None, Some(run)) => run.run(),
            (None, None) => anyhow::bail!("name a log, and a store with --to"),
        }
    }
}

impl About {
    fn run(self) -> Result<ExitCode> {
        match self {
            Self::Status { log } => return print_status(&log),
            #[cfg(feature = "postgres")]
            Self::CreateSchema { to } => {
                let store::Store::Postgres(url) = store::of(&to)? else {
                    anyhow::bail!("only PostgreSQL has a schema");
                };
                tracing_audit_forward::Postgres::new(url)?.create_schema()?;
                print("the tables are there");
            }
            #[cfg(feature = "nats")]
            Self::CreateStream { to, replicas } => {
                let store::Store::Nats(url) = store::of(&to)? else {
                    anyhow::bail!("only NATS has streams");
                };
                tracing_audit_forward::Nats::new(url)?.create_stream(replicas)?;
                print("the stream is there");
            }
            Self::Rejected(Named { log, name }) => {
                for Rejected { record, reason, .. } in rejected(&log, &name)? {
                    print(&format!("{record} {reason}"));
                }
            }
            Self::Retry { named: Named { log, name }, to, service, host } => {
                let origin = OriginOptions { log: &log, service: service.as_deref(), host: host.as_deref() };
                let mut sink = store::of(&to)?.sink(&origin)?;
                let taken = offer_again(&log, &name, &mut sink)?;
                let left = rejected(&log, &name)?.len();
                print(&format!("the store took {taken} records, and refuses {left}"));
                // A failure, so that a script notices the records that remain.
                return Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Self::GiveUp { named: Named { log, name }, records } => {
                let given_up = give_up(&log, &name, &records)?;
                print(&format!("{given_up} records were given up"));
                anyhow::ensure!(
                    given_up == records.len() as u64,
                    "the other records are not on the list of refused ones"
                );
            }
            Self::Skip { named: Named { log, name }, record } => {
                skip(&log, &name, record)?;
                print(&format!("forwarding continues after {record}"));
            }
            Self::Require(Names { log, names }) => {
                print_required(&require(&log, &names)?);
                let known = forwarders(&log)?;
                // Usually a typing error, and then retention would wait forever.
                for name in names.iter().filter(|name| !known.contains(name)) {
                    print(&format!("no forwarder {name} has run here: until one does, nothing is removed"));
                }
            }
            Self::Lift(Names { log, names }) => {
                print_required(&lift(&log, &names)?);
                let again = "a program that opens the log with `require_forwarded` puts its names back";
                print(again);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    /// Waits until the store has everything, for at most `--drain` seconds. With `--once` the time begins again whenever the
    /// store has taken something.
    fn drain(&self, forwarder: &Forwarder, is_over: &impl Fn() -> bool) -> Result<(), Error> {
        let bound = Duration::from_secs(self.drain);
        let mut goal = None;
        loop {
            let before = forwarder.stats().records;
            let drained = forwarder.drain(bound);
            let Err(Error::Remaining { remaining, .. }) = &drained else { return drained };
            let now = forwarder.stats().records;
            // Records written since are left for the next run: a busy log may never be drained completely.
            let goal = *goal.get_or_insert(now + remaining);
            if !self.once || is_over() || now == before || now >= goal {
                return drained;
            }
        }
    }

    fn run(self) -> Result<ExitCode> {
        let store = store::of(&self.to)?;
        let origin =
            OriginOptions { log: &self.log, service: self.service.as_deref(), host: self.host.as_deref() };
        let sink = store.sink(&origin)?;
        // The name identifies the position in the log: two stores of one kind need two names.
        let name = self.name.as_deref().unwrap_or_else(|| store.name());
        let is_asked_to_end = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            // A second signal ends the command at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_asked_to_end))?;
            signal_hook::flag::register(signal, Arc::clone(&is_asked_to_end))?;
        }
        let builder = Forwarder::builder(name).start_at(self.from).max_lag(Duration::from_secs(self.max_lag));
        let builder = builder.on_notice(|notice| print_stderr(&format!("tracing-audit: {notice}")));
        let forwarder = builder
            .start_beside(&self.log, sink)
            .with_context(|| format!("cannot forward {}", self.log.display()))?;
        let is_over = || is_asked_to_end.load(Ordering::Relaxed) || forwarder.stats().state == State::Closed;
        while !self.once && !is_over() {
            // A signal only sets a flag, so that is polled.
            thread::sleep(Duration::from_millis(100));
        }
        let drained = self.drain(&forwarder, &is_over);
        let stats = forwarder.stats();
        // Do not wait again after a failed drain: dropping the forwarder ends it.
        let closed = drained.and_then(|()| forwarder.close(Duration::from_secs(1)));
        // This includes records that were refused in earlier runs.
        let refused = rejected(&self.log, name)?.len();
        let mut remaining = remaining(&stats);
        if refused > 0 {
            let list = format!("`tracing-audit forward rejected {} {name}` prints them", self.log.display());
            remaining.push(format!("records that the store refused: {refused}; {list}"));
        }
        match closed {
            Ok(()) if stats.state == State::Forwarding => {}
            Ok(()) => {
                let trouble = stats.trouble.unwrap_or_else(|| format!("forwarding ended as {}", stats.state));
                remaining.push(trouble);
            }
            Err(error) => remaining.push(error.to_string()),
        }
        for what in &remaining {
            print_stderr(&format!("tracing-audit: {what}"));
        }
        Ok(if remaining.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Lists the chains that have records left, with the reasons.
fn remaining(stats: &Stats) -> Vec<String> {
    let stopped =
        stats.stopped.iter().map(|(chain, why)| format!("chain {chain:03} is not forwarded: {why}"));
    let unreadable = stats.unreadable.iter();
    let unreadable = unreadable.map(|(chain, why)| format!("chain {chain:03} could not be forwarded: {why}"));
    stopped.chain(unreadable).collect()
}

fn print_required(names: &[String]) {
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    print(&format!("required now: {names}"));
}

fn print_status(log: &PathBuf) -> Result<ExitCode> {
    let all = status(log).with_context(|| format!("cannot read the status of {}", log.display()))?;
    if all.is_empty() {
        print("nothing is forwarded from this log");
    }
    for one in all {
        let state = if one.is_running { "running" } else { "not running" };
        print(&format!("{}: {state}, {} records refused", one.name, one.rejected));
        for chain in one.chains {
            let behind = match chain.lag_records {
                Some(records) => format!("{records} durable records after it"),
                None => "the chain cannot be read".to_owned(),
            };
            print(&format!("  chain {:03}: {}; {behind}", chain.chain, reached(&chain)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn reached(chain: &ChainStatus) -> String {
    let Some(last) = chain.last else { return "the store has nothing".to_owned() };
    let last = format!("record {}", last.seq());
    match chain.fate {
        Some(Fate::Acknowledged) => format!("the store has {last}"),
        Some(Fate::Refused) => format!("the store refused {last}, the last that was offered"),
        Some(Fate::BeganAfter) => {
            format!("forwarding began after {last}, and the store has acknowledged nothing since")
        }
        Some(Fate::Skipped) => {
            format!(
                "forwarding skipped everything up to {last}, and the store has acknowledged nothing since"
            )
        }
        _ => format!("forwarding continues after {last}"),
    }
}
