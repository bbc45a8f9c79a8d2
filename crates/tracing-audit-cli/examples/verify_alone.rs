//! Verifies a log with the library alone, to compare its speed with the command's: `verify_alone DIR`. See docs/command.md.

#![allow(clippy::print_stdout, reason = "it prints the verdict")]

use std::{process::ExitCode, time::Instant};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Some(dir) = std::env::args().nth(1) else { return Ok(ExitCode::from(2)) };
    let begun = Instant::now();
    let report = tracing_audit::verify(dir)?;
    println!("{} {} records in {:.2} s", report.verdict(), report.records(), begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
