//! Finds a place in a segment by bisecting its bytes, so that nothing before it is read.

use std::io;

use super::lines::split;
use crate::{
    chain::Digest,
    format::{Line, LineParser, MAX_LINE, is_right},
    storage::{File, read_full},
};

/// Below this distance reading is as cheap as looking once more.
const NEAR: u64 = 64 << 10;

/// How much is read to find two lines: enough for most, then for long ones, then for any.
const PROBES: [usize; 4] = [8 << 10, 32 << 10, 64 << 10, 3 * MAX_LINE];

/// Returns where a line begins with which reading can begin: `is_before` holds for it, unless it is the first. What
/// holds for a line has to hold for those before it. A line behind which none is linked to it counts for nothing: it may
/// be the copy of one that stands elsewhere.
pub(crate) fn seek_line(
    file: &dyn File,
    end: u64,
    mut is_before: impl FnMut(&Line<'_>) -> bool,
) -> io::Result<u64> {
    let mut parser = LineParser::default();
    let mut probe = Vec::new();
    let (mut low, mut high) = (0, end);
    let mut too_short = 0;
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        let mut found = None;
        // Where one was not enough, it is not for the next lines either.
        for wanted in PROBES.into_iter().skip(too_short.min(PROBES.len() - 1)) {
            let room = usize::try_from(high - middle).map_or(wanted, |room| room.min(wanted));
            probe.resize(room, 0);
            let read = read_full(file, &mut probe, middle)?;
            probe.truncate(read);
            let mut before: Option<(Digest, u64, bool)> = None;
            // The first of these lines began before the middle.
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
            // Where no lines are linked nothing is known: what is looked for may stand before it.
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
