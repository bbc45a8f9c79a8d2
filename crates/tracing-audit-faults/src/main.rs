//! The seeded fault simulation of tracing-audit, as a program.
//!
//! The library contains the simulated machine only when built with `RUSTFLAGS='--cfg
//! audit_simulation'`. Without that, this program does nothing.

#[cfg(audit_simulation)]
mod arguments;
#[cfg(audit_simulation)]
mod seeds;

use std::process::ExitCode;

#[cfg(audit_simulation)]
fn main() -> ExitCode {
    seeds::main()
}

#[cfg(not(audit_simulation))]
fn main() -> ExitCode {
    use std::io::Write as _;

    let needed = "the simulation is not part of this build: run\n\n    \
        RUSTFLAGS='--cfg audit_simulation' CARGO_TARGET_DIR=target/simulation \\\n        \
        cargo run --release -p tracing-audit-faults -- --help\n";
    // If standard error is closed, the exit code is all that is left.
    drop(std::io::stderr().write_all(needed.as_bytes()));
    ExitCode::from(2)
}
