//! What must hold for any bytes at all. The targets in `fuzz/` hand in what a fuzzer finds, the tests
//! the corpus that is kept, and random changes of it.

mod event;
mod image;
mod line;
mod log;
#[cfg(test)]
mod tests;

pub use event::event;
pub use line::line;
pub use log::{recovery, segment};
