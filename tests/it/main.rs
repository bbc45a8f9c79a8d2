//! The promises of the library, on real directories and with real processes.
//!
//! A test that needs mounts or strace reports when it cannot run, and `.ci/run` fails if there are any: see
//! `support::skip`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that meets what it did not expect has failed"
)]

mod api;
mod children;
mod confirm_future;
mod current;
#[cfg(feature = "serde")]
mod data;
mod first_format;
mod forwarding;
mod global;
mod heads;
mod heartbeat;
mod hostile;
mod life;
mod lifecycle;
mod metrics;
mod next_head;
mod place;
mod processes;
mod promises;
mod reader;
mod recipes;
mod refused;
mod removal;
mod severities;
mod support;
mod tampering;
mod traces;
mod trouble;
