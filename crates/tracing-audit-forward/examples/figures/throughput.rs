//! The forwarder and the simplest loops, in turns.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tracing_audit_forward::Forwarder;

use crate::{ROUNDS, Result, log::forget_positions, spread::Spread, stores::Store};

const LONG: Duration = Duration::from_secs(600);

pub(crate) fn measure(store: &dyn Store, log: &Path, records: u64) -> Result<()> {
    let plain = store.plain();
    let mut ours = Vec::new();
    let mut theirs = vec![(Vec::new(), Vec::new()); plain.len()];
    for _ in 0..=ROUNDS {
        let our = records as f64 / forward(store, log)?.as_secs_f64();
        ours.push(our);
        for ((_, run), (speeds, ratios)) in plain.iter().zip(&mut theirs) {
            let begun = Instant::now();
            run(log)?;
            let their = records as f64 / begun.elapsed().as_secs_f64();
            speeds.push(their);
            ratios.push(our / their);
        }
    }
    println!("  {}: {:.0}", store.name(), Spread::of_rounds(ours));
    for ((what, _), (speeds, ratios)) in plain.iter().zip(theirs) {
        println!("    {what}: {:.0}; ratio {:.2}", Spread::of_rounds(speeds), Spread::of_rounds(ratios));
    }
    Ok(())
}

/// Measures the time until an empty store has the log.
pub(crate) fn forward(store: &dyn Store, log: &Path) -> Result<Duration> {
    forget_positions(log)?;
    let sink = store.empty()?;
    let begun = Instant::now();
    let forwarder = Forwarder::builder("figures").start_beside(log, sink)?;
    forwarder.drain(LONG)?;
    Ok(begun.elapsed())
}
