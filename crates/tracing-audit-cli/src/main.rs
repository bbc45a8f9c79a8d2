//! The command `tracing-audit`.

mod forward;
mod store;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Verifies and forwards the audit logs that tracing-audit writes.
#[derive(Debug, Parser)]
#[command(name = "tracing-audit", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Verify),
    Forward(forward::Forward),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Verify(verify) => verify.run(),
        Command::Forward(forward) => forward.run(),
    };
    done.unwrap_or_else(|error| {
        say(&format!("tracing-audit: {error:#}"));
        ExitCode::from(2)
    })
}

/// Prints what a command was asked for. A reader that has gone away wants no more.
fn print(text: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Prints what happens beside that.
fn say(text: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "{text}"));
}
