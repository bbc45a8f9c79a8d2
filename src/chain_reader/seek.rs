//! Finds a position in a segment by bisection, without reading what precedes it.

use std::io;

use super::lines::split;
use crate::{
    chain::Digest,
    format::{Line, LineParser, MAX_LINE, is_right},
    storage::{File, read_full},
};

/// Below this distance, reading on is as cheap as another probe.
const NEAR: u64 = 64 << 10;

/// How many bytes are read to find two lines: enough for most, then for long ones, then for any.
const PROBES: [usize; 4] = [8 << 10, 32 << 10, 64 << 10, 3 * MAX_LINE];

/// Returns the offset of a line at which reading can begin: `is_before` holds for it, unless it is the first line.
/// `is_before` must be monotonic: if it holds for a line, it holds for all lines before it. A line is trusted only if
/// the next one links to it, because a single line may be a copy of one elsewhere.
pub(crate) fn seek_line(
    file: &dyn File,
    end: u64,
    mut is_before: impl FnMut(&Line<'_>) -> bool,
) -> io::Result<u64> {
    let mut parser = LineParser::default();
    let mut probe = Vec::new();
    let (mut low, mut high) = (0, end);
    let mut too_short = 0;
    // Invariant: `is_before` holds for the line at `low`, or `low` is 0.
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        let mut found = None;
        // Where a probe size was too small once, it is too small for the neighbouring lines too.
        for wanted in PROBES.into_iter().skip(too_short.min(PROBES.len() - 1)) {
            let room = usize::try_from(high - middle).map_or(wanted, |room| room.min(wanted));
            probe.resize(room, 0);
            let read = read_full(file, &mut probe, middle)?;
            probe.truncate(read);
            let mut before: Option<(Digest, u64, bool)> = None;
            // The first line of the probe began before the middle, so it is incomplete.
            found = split(&probe).skip(1).find_map(|(at, line)| {
                let line = parser.parse(line).ok().filter(|line| is_right(line, false));
                let linked =
                    before.take().filter(|(hash, ..)| line.is_some_and(|line| line.previous == *hash));
                before = line.map(|line| (line.hash, middle + at, is_before(&line)));
                linked.map(|(_, offset, is_before)| (offset, is_before))
            });
            if found.is_some() || room < wanted {
                break;
            }
            too_short += 1;
        }
        match found {
            Some((offset, true)) => low = offset,
            // Without two linked lines nothing is known here: the line that is searched for may precede them.
            Some((_, false)) | None => high = middle,
        }
    }
    Ok(low)
}

/// Counts the lines that end between two offsets.
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
