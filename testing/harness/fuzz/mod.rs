//! What must hold for arbitrary bytes. The targets in `fuzz/` pass the inputs of a fuzzer. The
//! tests pass the stored corpus, and random changes of it.

mod event;
mod image;
mod line;
mod log;
#[cfg(test)]
mod tests;

pub use event::event;
pub use line::line;
pub use log::{recovery, segment};
