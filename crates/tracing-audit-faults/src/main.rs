//! The seeded fault simulation of tracing-audit, as a program.
//!
//! The library has the simulated machine only where it is built for it, with
//! `RUSTFLAGS='--cfg audit_simulation'`, so this program is empty without.

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
    // Where standard error is closed there is nobody to tell.
    drop(std::io::stderr().write_all(needed.as_bytes()));
    ExitCode::from(2)
}
