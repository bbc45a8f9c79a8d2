//! Reads a log: as raw lines, and as records.
//!
//! `reader` is the builder, and `items` merges the chains. Each chain is read forward by a `cursor` or `backward`, from
//! the position that `start` finds. `ahead` holds what was read and not returned yet. `segments` is for programs that
//! search the files themselves.

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

/// Reads the records of the log in a directory: those of each chain in order, the chains merged by
/// time. Short for [`Reader::new(dir).records()`](Reader::records).
///
/// The log is read while it is iterated, so a log of any length takes little memory. The iteration
/// ends with what each file held when it was reached, and works while a writer appends. What a later
/// segment declares void is skipped. A line that is not a record is an [`Error::BadLine`], after which
/// the iteration continues. Only [`verify`](crate::verify()) checks that the records are the original
/// ones.
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
