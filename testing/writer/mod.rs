//! The writer against a simulated disk. Which of these tests finds which bug is in `testing/planted/bugs.toml`.

mod closing;
mod crashes;
mod copies;
mod everywhere;
mod exact;
mod life;
#[cfg(any(loom, shuttle))]
mod models;
mod noted;
mod outage;
mod recovery;
mod retention;
mod smoke;
mod threads;
mod trouble;
mod unconfirmed;

use crate::harness::{oracle, world};
