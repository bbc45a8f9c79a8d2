//! The command line of the program.

use std::{num::NonZero, thread};

/// The command that runs this program. The library contains the simulation only when built with
/// this flag.
pub(crate) const COMMAND: &str = "RUSTFLAGS='--cfg audit_simulation' CARGO_TARGET_DIR=target/simulation \
    cargo run --release -p tracing-audit-faults";

pub(crate) const HELP: &str = "\
Runs the seeded fault simulation of tracing-audit.

    RUSTFLAGS='--cfg audit_simulation' CARGO_TARGET_DIR=target/simulation \\
        cargo run --release -p tracing-audit-faults -- [options]

    --seeds N     how many seeds to run; default 10000
    --first N     the first seed; default 0
    --threads N   how many to run at the same time; default as many as there are cores
    --seed N      run this seed alone, and print every call to the disk and every file it left
    --help        print this

Exits with 0 if every seed passed, with 1 if any failed, with 2 if they could not be run.
";

/// Which seeds to run, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) seeds: u64,
    pub(crate) first: u64,
    pub(crate) threads: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Run(Arguments),
    Replay(u64),
    Help,
}

pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Task, String> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let mut arguments = Arguments { seeds: 10_000, first: 0, threads: cores };
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            return Ok(Task::Help);
        }
        let mut number = || {
            let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            value.replace('_', "").parse::<u64>().map_err(|_| format!("{word} needs a number, not {value}"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--first" => arguments.first = number()?,
            "--threads" => arguments.threads = number()?.max(1),
            "--seed" => return Ok(Task::Replay(number()?)),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(Task::Run(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str) -> Result<Task, String> {
        parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn words_become_a_task() {
        assert_eq!(
            check("--seeds 1_000_000 --first 7 --threads 2"),
            Ok(Task::Run(Arguments { seeds: 1_000_000, first: 7, threads: 2 }))
        );
        assert_eq!(check("--seed 42"), Ok(Task::Replay(42)));
        assert_eq!(check("--seeds 1 --help"), Ok(Task::Help));
        assert_eq!(check("--seeds"), Err("--seeds needs a number".to_owned()));
        assert_eq!(check("--seeds x"), Err("--seeds needs a number, not x".to_owned()));
        assert_eq!(check("more"), Err("unknown option more".to_owned()));
    }
}
