//! The `tracing-audit` command.

mod collect;
mod demo;
mod directory;
mod doctor;
mod export;
mod filter;
mod forward;
mod glob;
mod hash;
mod head_file;
mod heads;
mod hold;
mod line;
mod lookup;
mod origin;
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

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{print, print_stderr};

/// Verifies, searches, shows and forwards audit logs written by tracing-audit.
///
/// Commands that read never change a log. Results go to standard output, everything else to standard error.
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
    /// Parses the arguments, or exits with a message about what is wrong with them.
    ///
    /// Characters that a terminal must not get are escaped in that message. An argument may be a name that somebody else
    /// chose, such as a file name from a glob.
    fn read() -> Self {
        let error = match Self::try_parse() {
            Ok(arguments) => return arguments,
            Err(error) => error,
        };
        let given: Vec<String> =
            std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
        // `--help` and `--version` are errors too for clap, but not on standard error. They contain no text of an
        // argument.
        if !error.use_stderr() || !given.iter().any(|text| text.contains(output::is_unsafe)) {
            error.exit();
        }
        if let Err(error) = Self::try_parse_from(given.iter().map(|text| output::escape(text).into_owned())) {
            error.exit();
        }
        // The escaped arguments are valid, so the message has to come from the error about the original ones.
        let text = error.render().to_string();
        // Clap's message has several lines. If an argument may add more, all are printed as one, with the line feeds
        // escaped.
        if given.iter().any(|text| text.contains('\n')) {
            print_stderr(text.trim_end());
        } else {
            text.trim_end().lines().for_each(print_stderr);
        }
        // As clap does for a wrong command line.
        std::process::exit(2)
    }
}

fn main() -> ExitCode {
    // Before clap sees the arguments: the writers of `demo` are no documented command.
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
        // A closed pipe ends the command silently. A command for which that is a success has handled it before.
        if !output::is_broken_pipe(&error) {
            print_stderr(&format!("tracing-audit: {error:#}"));
        }
        ExitCode::from(2)
    });
    // A command must not succeed when part of its output is missing, for example on a full disk.
    match output::failed_write() {
        Some(error) => {
            print_stderr(&format!("tracing-audit: cannot write to standard output: {error}"));
            ExitCode::from(2)
        }
        None => done,
    }
}
