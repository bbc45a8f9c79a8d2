//! The OTLP sink against an independent receiver.
//!
//! Tests that need the receiver say so when they cannot run, and `ci/services` fails if there are any.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it did not expect has failed"
)]

mod arrival;
mod log;
#[expect(dead_code, reason = "tests/kills.rs needs more of it")]
mod receiver;
mod refusals;
mod secrets;
mod tls;
