//! The times of the records of a file.

use std::{io, ops::ControlFlow};

use super::lines_backward::LinesBackward;
use crate::{clock::Timestamp, format::time_of_line, storage::File};

/// Goes back through the records that end before `end` and calls `each` with the time of each, the last first. Lines
/// without a time are skipped, and nothing else in a line is checked.
pub(crate) fn times_backward(
    file: &dyn File,
    end: u64,
    mut each: impl FnMut(Timestamp) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut lines = LinesBackward::new(end, 0);
    while let Some((_, line)) = lines.next(file)? {
        if line.and_then(time_of_line).is_some_and(|at| each(at).is_break()) {
            break;
        }
    }
    Ok(())
}
