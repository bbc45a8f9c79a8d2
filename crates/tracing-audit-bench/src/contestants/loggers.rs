//! Loggers that are known to be fast, without a chain. They log the same content as text.

use std::{fs::File, path::Path};

use super::Subject;
use crate::{
    Result,
    workload::{Event, as_text},
};

/// A function that ends a logger, and returns when everything is written.
type End = Box<dyn FnOnce() -> Result<()> + Send + Sync>;

struct ThroughLog(End);

impl Subject for ThroughLog {
    fn emit(&self, event: Event<'_>) {
        as_text!(log::info, event.number);
    }

    fn finish(self: Box<Self>) -> Result<()> {
        (self.0)()
    }
}

pub(super) fn ftlog(dir: &Path) -> Result<Box<dyn Subject>> {
    let file = File::create(dir.join("log"))?;
    let guard = ftlog::builder()
        .max_log_level(ftlog::LevelFilter::Info)
        .bounded(100_000, true)
        .root(file)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(Box::new(ThroughLog(Box::new(move || {
        drop(guard);
        Ok(())
    }))))
}

struct Inqjet(inqjet::InqJetGuard);

pub(super) fn inqjet(dir: &Path) -> Result<Box<dyn Subject>> {
    let file = std::io::BufWriter::new(File::create(dir.join("log"))?);
    let guard = inqjet::InqJetBuilder::default()
        .with_writer(file)
        .with_log_level(inqjet::LevelFilter::Info)
        .with_buffer_size(16 << 20)
        .with_timeout(Some(std::time::Duration::from_millis(1)))
        .build()
        .map_err(|error| format!("{error:?}"))?;
    Ok(Box::new(Inqjet(guard)))
}

impl Subject for Inqjet {
    #[expect(clippy::too_many_arguments, reason = "what the macro of inqjet makes")]
    fn emit(&self, event: Event<'_>) {
        as_text!(inqjet::info, event.number);
    }

    fn finish(self: Box<Self>) -> Result<()> {
        drop(self.0);
        Ok(())
    }
}
