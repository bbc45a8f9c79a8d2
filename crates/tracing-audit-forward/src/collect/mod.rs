//! Collects the records of a fleet.

mod alarm;
mod chain;
mod collector;
mod directory;
mod feed;
mod held;
mod log;
mod metrics;
mod table;
mod take;

pub use alarm::{Alarm, AlarmKind};
pub use chain::{CollectedChain, Fault, FaultKind};
pub use collector::{Collector, CollectorBuilder, Step, retire, settle};
pub use feed::{Beat, Delivered, Feed, StreamState, What};
pub use table::{CollectedLog, Fleet, fleet};
