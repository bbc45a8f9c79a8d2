//! Collects the records of a fleet.

mod feed;

pub use feed::{Beat, Delivered, Feed, StreamState, What};
