//! tracing-audit in each flush mode.

use std::{any::Any, path::Path, time::Duration};

use tracing_audit::{AuditLog, FlushMode, Rotation, Verifier};
use tracing_subscriber::prelude::*;

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

struct Ours(AuditLog);

fn with(dir: &Path, mode: FlushMode) -> Result<Box<dyn Subject>> {
    let log = AuditLog::builder(dir.join("log"))
        .flush_mode(mode)
        .rotation(Rotation::never().max_bytes(1 << 30))
        .open()?;
    tracing_subscriber::registry().with(log.layer()).init();
    log.ensure_attached()?;
    Ok(Box::new(Ours(log)))
}

pub(super) fn hybrid(dir: &Path) -> Result<Box<dyn Subject>> {
    with(dir, FlushMode::default())
}

pub(super) fn immediate(dir: &Path) -> Result<Box<dyn Subject>> {
    with(dir, FlushMode::Immediate)
}

pub(super) fn batched(dir: &Path) -> Result<Box<dyn Subject>> {
    with(dir, FlushMode::Batched { size: 10_000, interval: Duration::from_secs(1) })
}

pub(super) fn verify(dir: &Path, threads: usize) -> Result<u64> {
    let mut verifier = Verifier::new(dir.join("log"));
    if threads > 0 {
        verifier = verifier.threads(threads);
    }
    verifier.run()?.ensure_intact()?;
    crate::machine::bytes_in(&dir.join("log"))
}

impl Subject for Ours {
    fn enter(&self) -> Box<dyn Any> {
        Box::new(workload::span())
    }

    fn emit(&self, event: Event<'_>) {
        workload::emit(event);
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let stats = self.0.stats();
        if stats.lost_total() + stats.unconfirmed_waits > 0 {
            return Err(format!("events were lost or unconfirmed: {stats:?}").into());
        }
        self.0.close()?;
        Ok(())
    }
}
