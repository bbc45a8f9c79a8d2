//! The writer against a simulated disk.
//!
//! Bugs that were planted to see these tests find them, by the number in faults.md section 6, and
//! what went red first:
//!
//! TABLE

mod crashes;
mod everywhere;
mod oracle;
mod retention;
mod smoke;
mod threads;
mod trouble;
mod world;
