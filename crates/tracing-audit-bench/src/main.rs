//! Measures tracing-audit beside other logs and stores, in one run.
//!
//! `cargo run --release --manifest-path crates/tracing-audit-bench/Cargo.toml` measures everything and writes
//! `docs/benchmarks.md`. `--help` lists what else it can do.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::format_push_string,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a program that prints tables of figures"
)]

mod bursts;
mod charts;
mod contestants;
mod figures;
mod growth;
mod judge;
mod machine;
mod measure;
mod plan;
mod removal;
mod report;
mod rounds;
mod special;
mod tables;
mod workload;

use std::{error::Error, path::Path, process::ExitCode};

use measure::{Measure, Scale};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const HELP: &str = "\
Measures tracing-audit beside other logs and stores. A full run needs 40 GB of free space.

cargo run --release --manifest-path crates/tracing-audit-bench/Cargo.toml -- [OPTIONS] [NAME…]

  bursts DIR    many short processes, many chains, and opening large segments, in new directories below DIR

  removal DIR   a critical event while retention removes thousands of segments, in new directories below DIR

  NAME          runs only these contestants or measures, and writes nothing; default: all
  --list        lists contestants and measures
  --rounds N    number of rounds; default: 5
  --quick       takes a tenth of the time, to see whether everything runs; the figures mean nothing
  --write       writes docs/benchmarks.md and its charts even for a partial or quick run
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["child", contestant, measure, dir, quick] => {
            let contestant = contestants::find(contestant).ok_or("no such contestant")?;
            let measure = Measure::parse(measure).ok_or("no such measure")?;
            let scale = Scale { is_quick: *quick == "quick" };
            print!("{}", measure::run(contestant, measure, Path::new(dir), scale)?);
            // `exit`, because the global logger of a contestant may still have threads.
            std::process::exit(0);
        }
        ["short", dir, "killed"] => bursts::killed_run(dir),
        ["short", dir, kind] => {
            println!("{}", bursts::short_run(dir, *kind == "exclusive")?);
            Ok(())
        }
        ["bursts", root] => bursts::measure(Path::new(root)),
        ["removal", root] => removal::measure(Path::new(root)),
        ["worker", task, amount, dir] => special::work(task, Path::new(dir), amount.parse()?),
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["--list"] => {
            for contestant in contestants::ALL {
                println!("{:<20} {}", contestant.name, contestant.about);
            }
            println!();
            Measure::all().for_each(|measure| println!("{}", measure.name()));
            Ok(())
        }
        words => {
            let plan = plan::Plan::parse(words)?;
            let results = rounds::run(&plan)?;
            print!("{}", report::for_terminal(&results));
            if plan.writes {
                report::write(&plan, &results)?;
            }
            for failure in &results.failures {
                eprintln!("failed: {failure}");
            }
            Ok(())
        }
    }
}

/// The environment variable that passes the number of threads to a child.
const THREADS: &str = "BENCH_THREADS";

fn threads_asked() -> Option<usize> {
    std::env::var(THREADS).ok()?.parse().ok()
}

/// Ends the process on an I/O error, because figures from a failing disk are worthless.
fn or_exit<T>(result: std::io::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1)
    })
}
