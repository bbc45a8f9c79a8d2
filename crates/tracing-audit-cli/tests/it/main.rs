//! Tests of the built command.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod archive;
mod exporting;
mod fleet;
mod forward;
mod nats;
mod place;
mod readers;
mod sealed;
mod searching;
mod showing;
mod verifying;
