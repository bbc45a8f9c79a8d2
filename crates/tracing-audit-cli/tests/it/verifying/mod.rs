//! What is checked and kept: `verify`, `heads` and `hold`.

mod against;
mod corpus;
mod findings;
mod heads;
mod hold;
mod logs;
mod options;
mod readers;
