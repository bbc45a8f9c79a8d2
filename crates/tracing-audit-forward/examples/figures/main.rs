//! Measures forwarding: `ci/services figures`, or `cargo run --release -p tracing-audit-forward
//! --all-features --example figures -- [RECORDS [REPLAYED]]`.
//!
//! Each figure is measured in turns with the simplest loop that does the same, in one run. PostgreSQL, NATS
//! and the OTLP receiver of the tests are started for it if they are installed, unless `AUDIT_POSTGRES`,
//! `AUDIT_NATS` and `AUDIT_OTLP` are URLs of others. `AUDIT_FIGURES=collector` measures the collector only.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

#[cfg(feature = "objects")]
mod archive;
#[cfg(feature = "nats")]
mod collect;
mod cost;
mod lag;
mod log;
mod replay;
mod services;
mod spread;
mod stores;
mod throughput;

use std::error::Error;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often everything is measured, after a warm-up round.
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, store, log] = arguments.as_slice()
        && word == replay::CHILD
    {
        return replay::child(store, log.as_ref());
    }
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (records, replayed) = (number(0, 200_000)?, number(1, 1_000_000)?);
    let dir = tempfile::tempdir_in(".")?;
    let services = services::Services::start();
    let stores = stores::all(dir.path(), &services.urls)?;
    println!("the median of {ROUNDS} rounds, smallest and largest\n");

    let log = dir.path().join("log");
    let bytes = log::make(&log, records)?;
    println!("throughput, records/s, of {records} records with {:.0} MB", bytes as f64 / 1e6);
    let is_collector_only = std::env::var_os("AUDIT_FIGURES").is_some_and(|only| only == "collector");
    for store in stores.iter().filter(|_| !is_collector_only) {
        throughput::measure(store.as_ref(), &log, records)?;
    }
    #[cfg(feature = "nats")]
    if let (Some(url), Some(store)) =
        (&services.urls.nats, stores.iter().find(|store| store.name() == "nats"))
    {
        throughput::forward(store.as_ref(), &log)?;
        collect::measure(url, dir.path())?;
    }
    if is_collector_only {
        return Ok(());
    }
    #[cfg(feature = "objects")]
    for store in services.archives(dir.path()) {
        throughput::measure(&store, &log, records)?;
    }

    println!("\nlag at 10,000 records/s for {} s, in records: 10 are 1 ms", lag::SECONDS);
    for store in &stores {
        lag::measure(store.as_ref(), dir.path())?;
    }

    println!(
        "\ncost of an event to its thread: 20,000 events at 20,000/s; beside the run without in the same round"
    );
    cost::measure(&stores, dir.path())?;

    let log = dir.path().join("outage");
    let bytes = log::make(&log, replayed)?;
    println!(
        "\nreplay of {replayed} records with {:.0} MB, each in a process of its own",
        bytes as f64 / 1e6
    );
    for store in &stores {
        replay::measure(store.name(), &log, replayed, &services.urls)?;
    }
    Ok(())
}
