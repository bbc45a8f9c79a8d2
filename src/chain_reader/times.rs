//! When the records of a file say that they were made.

use std::{io, ops::ControlFlow};

use super::lines_backward::LinesBackward;
use crate::{clock::Timestamp, format::time_of_line, storage::File};

/// Goes back through the records that end before `end`: `each` is told the time of each, the last first. What says no
/// time is passed over, and nothing else of a line is looked at.
pub(crate) fn times_backward(
    file: &dyn File,
    end: u64,
    mut each: impl FnMut(Timestamp) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut lines = LinesBackward::new(end, 0);
    while let Some((_, piece)) = lines.next(file)? {
        if piece.and_then(time_of_line).is_some_and(|at| each(at).is_break()) {
            break;
        }
    }
    Ok(())
}
