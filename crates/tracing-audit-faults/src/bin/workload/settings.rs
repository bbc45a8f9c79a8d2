//! The command line of a run.

use std::time::Duration;

use tracing_audit::{AuditLog, Builder, FlushMode, OnFull, Retention, Rotation};

use crate::Outcome;

/// The settings of the log, and of the load that `load` starts.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Identifies a run among those on one log. Part of every event.
    pub(crate) run: u64,
    pub(crate) mode: String,
    pub(crate) batch: u32,
    pub(crate) interval: Duration,
    pub(crate) max_bytes: u64,
    pub(crate) max_segments: u32,
    pub(crate) queue_bytes: u64,
    pub(crate) drop_routine: bool,
    pub(crate) wait_bound: Duration,
    pub(crate) threads: u64,
    /// Events of each thread; 0 for no end.
    pub(crate) events: u64,
    pub(crate) pace: Duration,
    /// Bytes of padding in each event.
    pub(crate) size: usize,
    /// One in this many events is critical, or confirmed; 0 for none.
    pub(crate) critical_every: u64,
    pub(crate) confirm_every: u64,
}

impl Settings {
    pub(crate) fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut settings = Self {
            run: 0,
            mode: "hybrid".to_owned(),
            batch: 50,
            interval: Duration::from_millis(100),
            max_bytes: 1 << 20,
            max_segments: 0,
            queue_bytes: 1 << 20,
            drop_routine: false,
            wait_bound: Duration::from_secs(5),
            threads: 1,
            events: 0,
            pace: Duration::ZERO,
            size: 100,
            critical_every: 10,
            confirm_every: 5,
        };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return Err(format!("{pair:?} has no value").into()) };
            settings.set(name, value).map_err(|error| format!("{name} {value}: {error}"))?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Outcome {
        match name {
            "--run" => self.run = value.parse()?,
            "--mode" => value.clone_into(&mut self.mode),
            "--batch" => self.batch = value.parse()?,
            "--interval-ms" => self.interval = Duration::from_millis(value.parse()?),
            "--max-bytes" => self.max_bytes = value.parse()?,
            "--max-segments" => self.max_segments = value.parse()?,
            "--queue-bytes" => self.queue_bytes = value.parse()?,
            "--on-full" => self.drop_routine = value == "drop",
            "--wait-bound-ms" => self.wait_bound = Duration::from_millis(value.parse()?),
            "--threads" => self.threads = value.parse()?,
            "--events" => self.events = value.parse()?,
            "--pace-us" => self.pace = Duration::from_micros(value.parse()?),
            "--size" => self.size = value.parse()?,
            "--critical-every" => self.critical_every = value.parse()?,
            "--confirm-every" => self.confirm_every = value.parse()?,
            _ => return Err("no such setting".into()),
        }
        Ok(())
    }

    fn flush_mode(&self) -> Outcome<FlushMode> {
        Ok(match self.mode.as_str() {
            "immediate" => FlushMode::Immediate,
            "batched" => FlushMode::Batched { size: self.batch, interval: self.interval },
            "hybrid" => FlushMode::Hybrid {
                batch_size: self.batch,
                batch_interval: self.interval,
                critical_immediate: true,
            },
            mode => return Err(format!("no such mode: {mode}").into()),
        })
    }

    pub(crate) fn builder(&self, dir: &std::path::Path) -> Outcome<Builder> {
        let retention = match self.max_segments {
            0 => Retention::keep_all(),
            segments => Retention::keep_all().max_segments(segments),
        };
        Ok(AuditLog::builder(dir)
            .service("workload")
            .flush_mode(self.flush_mode()?)
            .rotation(Rotation::never().max_bytes(self.max_bytes))
            .retention(retention)
            .queue_bytes(self.queue_bytes)
            .wait_bound(self.wait_bound)
            .low_space(0)
            .on_full(if self.drop_routine { OnFull::DropRoutine } else { OnFull::Block }))
    }
}
