//! Finds a place in a segment by bisecting its bytes, so that nothing before it is read.

use std::io;

use super::lines::split;
use crate::{
    format::{Line, LineParser, MAX_LINE, is_right},
    storage::{File, read_full},
};

/// Below this distance reading is as cheap as looking once more.
const NEAR: u64 = 64 << 10;

/// How much is read to find one line: enough for most, then for long ones, then for any.
const PROBES: [usize; 3] = [8 << 10, 32 << 10, 2 * MAX_LINE];

/// Returns where a line begins with which reading can begin: `is_before` holds for it, unless it is the first. What
/// holds for a line has to hold for those before it.
pub(crate) fn seek_line(
    file: &dyn File,
    end: u64,
    mut is_before: impl FnMut(&Line<'_>) -> bool,
) -> io::Result<u64> {
    let mut parser = LineParser::default();
    let mut probe = Vec::new();
    let (mut low, mut high) = (0, end);
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        let mut found = None;
        for wanted in PROBES {
            let room = usize::try_from(high - middle).map_or(wanted, |room| room.min(wanted));
            probe.resize(room, 0);
            let read = read_full(file, &mut probe, middle)?;
            probe.truncate(read);
            // The first of these lines began before the middle.
            let right = split(&probe).skip(1).find_map(|(at, line)| {
                let line = parser.parse(line).ok().filter(|line| is_right(line, false))?;
                Some((middle + at, is_before(&line)))
            });
            found = right;
            if found.is_some() || room < wanted {
                break;
            }
        }
        match found {
            Some((offset, true)) => low = offset,
            // Where no line is right nothing is known: what is looked for may stand before it.
            Some((_, false)) | None => high = middle,
        }
    }
    Ok(low)
}

/// How many lines end between two offsets.
pub(crate) fn lines_between(file: &dyn File, from: u64, to: u64) -> io::Result<u64> {
    let mut window = vec![0; 256 << 10];
    let (mut at, mut number) = (from, 0);
    while at < to {
        let wanted = usize::try_from(to - at).map_or(window.len(), |left| left.min(window.len()));
        let Some(room) = window.get_mut(..wanted) else { break };
        let read = read_full(file, room, at)?;
        let Some(bytes) = window.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        number += memchr::memchr_iter(b'\n', bytes).count() as u64;
        at += read as u64;
    }
    Ok(number)
}
