//! The promises of the library, on real directories and with real processes.
//!
//! Tests that need root, mounts or strace say so when they cannot run, and are counted: see
//! `support::skip`. `.ci/run` fails when more are skipped than it expects.

mod children;
mod lifecycle;
mod processes;
mod promises;
mod support;
mod tampering;
mod trouble;
