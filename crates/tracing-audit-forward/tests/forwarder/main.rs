//! A forwarder over real logs, and stores that fail in every way that a store can.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod app;
mod delivery;
mod endings;
mod pace;
mod refusals;
mod trouble;
