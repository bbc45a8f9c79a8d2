//! Reads a log: raw lines, and records on top.

mod cursor;
#[cfg(test)]
#[path = "../../testing/read.rs"]
mod tests;

use std::{collections::BinaryHeap, fmt, io, path::Path, sync::Arc};

use crate::{
    chain_reader::Directory,
    error::Error,
    record::Record,
    storage::{Disk, Storage},
};

use cursor::{Cursor, Head};

/// Reads the records of the log in a directory: those of each chain in their order, the chains
/// merged by time.
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
    let dir = dir.as_ref();
    match Disk::open_existing(dir) {
        Ok(disk) => Records::of(Arc::new(disk), dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoLog { path: dir.to_owned() }),
        Err(error) => Err(Error::io("open", dir)(error)),
    }
}

/// The records of a log, see [`read`].
pub struct Records {
    storage: Arc<dyn Storage>,
    cursors: Vec<Cursor>,
    /// The next record of each chain, the earliest on top.
    heads: BinaryHeap<Head>,
    /// The cursor that has handed out its head.
    advance: Option<usize>,
    /// Errors that are due before the next record.
    errors: Vec<Error>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Records {
    /// The records of a log wherever it is stored.
    pub(crate) fn of(storage: Arc<dyn Storage>, dir: &Path) -> Result<Self, Error> {
        let directory = Directory::list(&*storage)?;
        if directory.chains.is_empty() {
            return Err(Error::NoLog { path: dir.to_owned() });
        }
        let mut records = Self {
            storage,
            cursors: Vec::new(),
            heads: BinaryHeap::new(),
            advance: None,
            errors: Vec::new(),
        };
        for (index, (chain, numbers)) in directory.chains.iter().enumerate() {
            records.cursors.push(Cursor::new(&*records.storage, *chain, numbers, index)?);
        }
        for index in 0..records.cursors.len() {
            records.fill(index);
        }
        Ok(records)
    }

    /// Reads the next record of a chain. What cannot be read is said at once, and passed over.
    fn fill(&mut self, index: usize) {
        let Some(cursor) = self.cursors.get_mut(index) else { return };
        match cursor.next(&*self.storage) {
            Some(Ok(head)) => self.heads.push(head),
            Some(Err(error)) => {
                self.errors.push(error);
                self.advance = Some(index);
            }
            None => {}
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.errors.pop() {
            return Some(Err(error));
        }
        if let Some(index) = self.advance.take() {
            self.fill(index);
            if let Some(error) = self.errors.pop() {
                return Some(Err(error));
            }
        }
        let head = self.heads.pop()?;
        self.advance = Some(head.cursor);
        Some(Ok(head.record))
    }
}
