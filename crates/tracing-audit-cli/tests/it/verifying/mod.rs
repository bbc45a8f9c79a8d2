//! `verify`, `heads` and `hold`.

#![allow(
    clippy::disallowed_methods,
    clippy::similar_names,
    clippy::format_push_string,
    reason = "segments are renamed to see that it is found, and a test is short"
)]

mod against;
mod corpus;
mod findings;
mod heads;
mod hold;
mod kept;
mod logs;
mod options;
mod printed;
mod readers;
