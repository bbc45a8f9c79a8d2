//! The writer against a simulated disk. Which of these tests finds which bug is in `testing/planted/bugs.toml`.

mod ages;
mod closing;
mod copies;
mod crashes;
mod everywhere;
mod exact;
mod life;
#[cfg(any(loom, shuttle))]
mod models;
mod noted;
mod outage;
mod passes;
mod recovery;
mod retention;
mod smoke;
mod threads;
mod trouble;
mod unconfirmed;

use crate::harness::{oracle, world};
