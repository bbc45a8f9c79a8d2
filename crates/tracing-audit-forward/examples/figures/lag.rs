//! How far the store lags behind under a steady load.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tracing_audit::AuditLog;
use tracing_audit_forward::Forwarder;
use tracing_subscriber::prelude::*;

use crate::{Result, log::emit, spread::Spread, stores::Store};

pub(crate) const SECONDS: u64 = 10;

pub(crate) fn measure(store: &dyn Store, dir: &Path) -> Result<()> {
    let path = dir.join("load");
    let audit = AuditLog::open(&path)?;
    let forwarder = Forwarder::start(&audit, "figures", store.empty()?)?;
    let (mut durable, mut emitted) = (Vec::new(), Vec::new());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(audit.layer()), || {
        let begun = Instant::now();
        for n in 0..SECONDS * 10_000 {
            emit(n);
            if n % 10 == 0 {
                let due = begun + Duration::from_micros(n * 100);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            // The first second is warm-up.
            if n % 500 == 0 && n > 10_000 {
                let stored = forwarder.stats().records;
                durable.push(audit.head().seq().saturating_sub(stored) as f64);
                emitted.push((n + 1).saturating_sub(stored) as f64);
            }
        }
    });
    println!(
        "  {}: behind what is durable {:.0}, behind what was emitted {:.0}",
        store.name(),
        Spread::of(durable),
        Spread::of(emitted)
    );
    audit.close()?;
    forwarder.close(Duration::from_secs(600))?;
    Ok(fs::remove_dir_all(path)?)
}
