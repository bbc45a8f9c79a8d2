//! The ledger: what this process reports to the outside, one line at a time, each written at once.

use std::{
    fs::File,
    io::{IoSlice, Write as _},
    os::fd::AsFd as _,
    time::Instant,
};

use tracing_audit::Receipt;

use crate::Outcome;

/// Standard output, a pipe that outlives this process.
///
/// Lines are written with `writev`, which the log never calls. So `strace` can make every `write`
/// of the log fail and spare the ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pipe: File,
    begun: Instant,
}

impl Ledger {
    pub(crate) fn open() -> Outcome<Self> {
        let pipe = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { pipe, begun: Instant::now() })
    }

    /// Writes a line. Ends the process if the pipe is closed: nobody could check what is
    /// acknowledged then.
    pub(crate) fn say(&self, line: &str) {
        let line = format!("{line}\n");
        if (&self.pipe).write_vectored(&[IoSlice::new(line.as_bytes())]).is_err() {
            std::process::exit(4);
        }
    }

    /// Writes a line with the milliseconds since the process began.
    pub(crate) fn say_when(&self, what: &str, text: &str) {
        self.say(&format!("{what} {} {text}", self.begun.elapsed().as_millis()));
    }

    /// Reports that the log acknowledged an event as durable. Without a receipt, it did so by
    /// returning from the macro.
    pub(crate) fn acknowledge(&self, event: (u64, u64, u64), receipt: Option<Receipt>) {
        let receipt = receipt.map_or_else(|| "-".to_owned(), |receipt| receipt.to_string());
        let (run, thread, number) = event;
        self.say(&format!("ack {run} {thread} {number} {receipt}"));
    }
}
