//! The usual JSON log of applications: `tracing_subscriber::fmt().json()`.

use std::{any::Any, fs::File, path::Path, sync::Mutex};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

struct Fmt(Option<WorkerGuard>);

pub(super) fn fmt(dir: &Path) -> Result<Box<dyn Subject>> {
    let file = File::create(dir.join("log"))?;
    tracing_subscriber::fmt().json().with_writer(Mutex::new(file)).init();
    Ok(Box::new(Fmt(None)))
}

pub(super) fn lossless(dir: &Path) -> Result<Box<dyn Subject>> {
    let file = File::create(dir.join("log"))?;
    let (writer, guard) = NonBlockingBuilder::default().lossy(false).finish(file);
    tracing_subscriber::fmt().json().with_writer(writer).init();
    Ok(Box::new(Fmt(Some(guard))))
}

impl Subject for Fmt {
    fn enter(&self) -> Box<dyn Any> {
        Box::new(workload::span())
    }

    fn emit(&self, event: Event<'_>) {
        workload::emit(event);
    }

    fn finish(self: Box<Self>) -> Result<()> {
        // Dropping the guard waits for the worker.
        drop(self.0);
        Ok(())
    }
}
