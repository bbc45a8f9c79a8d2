//! The writer against a simulated disk.

mod crashes;
mod everywhere;
mod oracle;
mod retention;
mod smoke;
mod threads;
mod trouble;
mod world;
