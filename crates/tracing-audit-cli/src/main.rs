//! The command `tracing-audit`.

mod collect;
mod demo;
mod directory;
mod doctor;
mod export;
mod filter;
mod forward;
mod glob;
mod hash;
mod heads;
mod hold;
mod kept;
mod line;
mod lookup;
mod output;
mod output_file;
mod query;
mod report;
#[cfg(feature = "objects")]
mod restore;
mod scan;
mod shell;
mod show;
mod stats;
mod store;
mod tail;
mod time;
mod verify;
mod whose;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{print, say};

/// Verifies, searches, shows and forwards the audit logs that tracing-audit writes.
///
/// Commands that read never change a log. What a log says is printed to standard output, everything else to standard error.
#[derive(Debug, Parser)]
#[command(name = "tracing-audit", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Verify),
    Heads(heads::Heads),
    Query(query::Query),
    Tail(tail::Tail),
    Show(show::Show),
    Stats(stats::Stats),
    Export(export::Export),
    Report(report::Report),
    Doctor(doctor::Doctor),
    Hold(hold::Hold),
    Forward(forward::Forward),
    Collect(collect::Collect),
    #[cfg(feature = "objects")]
    Restore(restore::Restore),
    Demo(demo::Demo),
    Completions(shell::Completions),
    Man(shell::Man),
}

impl Arguments {
    /// Reads the arguments. What is wrong with them is said with what a terminal must not get escaped: an argument may be a
    /// name that somebody else chose.
    fn read() -> Self {
        let error = match Self::try_parse() {
            Ok(arguments) => return arguments,
            Err(error) => error,
        };
        let given: Vec<String> =
            std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
        if !error.use_stderr() || !given.iter().any(|text| text.contains(output::is_unsafe)) {
            error.exit();
        }
        if let Err(error) = Self::try_parse_from(given.iter().map(|text| output::escape(text).into_owned())) {
            error.exit();
        }
        // Escaped, they would do.
        let text = error.render().to_string();
        if given.iter().any(|text| text.contains('\n')) {
            say(text.trim_end());
        } else {
            text.trim_end().lines().for_each(say);
        }
        std::process::exit(2)
    }
}

fn main() -> ExitCode {
    if let Some(done) = demo::run_as_writer() {
        return done;
    }
    let done = match Arguments::read().command {
        Command::Verify(verify) => verify.run(),
        Command::Heads(heads) => heads.run(),
        Command::Query(query) => query.run(),
        Command::Tail(tail) => tail.run(),
        Command::Show(show) => show.run(),
        Command::Stats(stats) => stats.run(),
        Command::Export(export) => export.run(),
        Command::Report(report) => report.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Hold(hold) => hold.run(),
        Command::Forward(forward) => forward.run(),
        Command::Collect(collect) => collect.run(),
        #[cfg(feature = "objects")]
        Command::Restore(restore) => restore.run(),
        Command::Demo(demo) => demo.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    let done = done.unwrap_or_else(|error| {
        if !output::is_broken_pipe(&error) {
            say(&format!("tracing-audit: {error:#}"));
        }
        ExitCode::from(2)
    });
    match output::failed_write() {
        Some(error) => {
            say(&format!("tracing-audit: cannot write to standard output: {error}"));
            ExitCode::from(2)
        }
        None => done,
    }
}
