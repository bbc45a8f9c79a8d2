//! Reads a log: raw lines, and records on top.
//!
//! `reader` is the builder, `items` merges the chains; each is a `cursor` forward or goes `backward`, and begins where
//! `start` finds it. `ahead` is what was read and not handed out yet. `segments` is for who searches files.

mod ahead;
mod backward;
mod cursor;
mod item;
mod items;
mod next;
mod reader;
mod segments;
mod start;
mod stopper;
#[cfg(test)]
#[path = "../../testing/read/mod.rs"]
mod tests;

use std::{fmt, path::Path};

pub use item::ReadItem;
pub use items::ReadItems;
pub use reader::Reader;
pub use segments::{Segment, segments};
pub use stopper::Stopper;

use crate::{error::Error, record::Record};

/// Reads the records of the log in a directory: those of each chain in their order, the chains
/// merged by time. Short for [`Reader::new(dir).records()`](Reader::records).
///
/// Reads on while it is iterated, so that a log of any length takes little memory. It ends with what
/// was there when each file was reached, and works while a writer is at work. What a later segment
/// declares void is passed over; a line that is no record is an [`Error::BadLine`], after which the
/// iteration goes on. Whether the records are the original ones, only [`verify`](crate::verify())
/// says.
///
/// # Errors
///
/// [`Error::NoLog`] where there is no segment, [`Error::Io`] where one cannot be read.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), tracing_audit::Error> {
/// for record in tracing_audit::read("audit-log")? {
///     let record = record?;
///     if record.action() == Some("auth.failure") {
///         println!("{} {}", record.timestamp().unwrap_or_default(), record.actor().unwrap_or("somebody"));
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn read(dir: impl AsRef<Path>) -> Result<Records, Error> {
    Reader::new(dir).records()
}

/// The records of a log, see [`read`] and [`Reader::records`].
pub struct Records(ReadItems);

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Ok(ReadItem::Record(record)) => return Some(Ok(record)),
                Ok(ReadItem::Gap { .. } | ReadItem::Withdrawn { .. }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
