//! The process under test of `ci/faults`: it writes a log while its environment fails, and prints
//! what was acknowledged. Also the oracle that checks the log afterwards.
//!
//! ```text
//! workload run DIR [--name value]…      opens the log, then obeys the commands on standard input
//! workload check DIR [--reopen yes]     verifies the log, and looks for what standard input acknowledges
//! ```

mod check;
mod ledger;
mod load;
mod run;
mod settings;

use std::{error::Error, path::Path, process::ExitCode};

use settings::Settings;

/// The result of any step. An error ends the program, because nobody could handle it.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first_chunk::<2>() {
        Some(([what, dir], rest)) if what == "run" => {
            Settings::parse(rest).and_then(|settings| run::run(Path::new(dir), &settings))
        }
        Some(([what, dir], rest)) if what == "check" => check::check(Path::new(dir), !rest.is_empty()),
        _ => Err("usage: workload run|check DIR [--name value]…".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_error(&*error);
            ExitCode::from(3)
        }
    }
}

#[expect(clippy::print_stderr, reason = "standard output is the ledger")]
fn eprint_error(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    eprintln!("workload: {text}");
}
