//! The cost of an event for the thread that emits it, without a forwarder and with one.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tracing_audit::AuditLog;
use tracing_audit_forward::Forwarder;
use tracing_subscriber::prelude::*;

use crate::{
    ROUNDS, Result,
    log::emit,
    spread::Spread,
    stores::{AnySink, Store},
};

/// A way to run, and its measurements.
struct Way<'a> {
    name: String,
    sink: Box<dyn Fn() -> Result<Option<AnySink>> + 'a>,
    medians: Vec<f64>,
    /// The 99th percentile.
    slow: Vec<f64>,
}

impl<'a> Way<'a> {
    fn new(name: String, sink: impl Fn() -> Result<Option<AnySink>> + 'a) -> Self {
        Self { name, sink: Box::new(sink), medians: Vec::new(), slow: Vec::new() }
    }
}

pub(crate) fn measure(stores: &[Box<dyn Store>], dir: &Path) -> Result<()> {
    let mut ways = vec![Way::new("without".to_owned(), || Ok(None))];
    for store in stores {
        let name = store.name();
        ways.push(Way::new(format!("{name}, well"), || store.empty().map(Some)));
        ways.push(Way::new(format!("{name}, down"), || store.down().map(Some)));
        ways.push(Way::new(format!("{name}, hanging"), || store.hanging().map(Some)));
    }
    // The difference between two equal runs of a round.
    ways.push(Way::new("without, again".to_owned(), || Ok(None)));
    for round in 0..=ROUNDS {
        for (index, way) in ways.iter_mut().enumerate() {
            let path = dir.join(format!("cost-{round}-{index}"));
            let audit = AuditLog::open(&path)?;
            let forwarder = match (way.sink)()? {
                Some(sink) => Some(Forwarder::start(&audit, "figures", sink)?),
                None => None,
            };
            let (median, slow) = costs(&audit);
            way.medians.push(median);
            way.slow.push(slow);
            drop(forwarder);
            audit.close()?;
            fs::remove_dir_all(path)?;
        }
    }
    let [medians, slow] = ways.first().map(|way| [way.medians.clone(), way.slow.clone()]).unwrap_or_default();
    for way in ways {
        let to = |base: &[f64], all: &[f64]| {
            Spread::of_rounds(all.iter().zip(base).map(|(one, base)| one / base).collect())
        };
        println!(
            "  {:18} median {:.0} ns, ratio {:.2}; 99th percentile {:.0} ns, ratio {:.2}",
            way.name,
            Spread::of_rounds(way.medians.clone()),
            to(&medians, &way.medians),
            Spread::of_rounds(way.slow.clone()),
            to(&slow, &way.slow)
        );
    }
    Ok(())
}

/// Returns the median and the 99th percentile, in nanoseconds.
fn costs(audit: &AuditLog) -> (f64, f64) {
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
    costs.sort_by(f64::total_cmp);
    let at = |index: usize| costs.get(index).copied().unwrap_or(f64::NAN);
    (at(10_000), at(19_800))
}
