//! Checks how long the free space will last.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use tracing_audit::{ReadItem, Reader, Segment};

use super::Findings;
use crate::output::grouped;

const CHECK: &str = "free space";
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn look(log: &Path, all: &[Segment], now: SystemTime, findings: &mut Findings) {
    // `f_bavail` is what an unprivileged process may use, without the blocks reserved for root, see statvfs(3).
    let Ok(system) = rustix::fs::statvfs(log) else { return };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let whole = system.f_blocks.saturating_mul(system.f_frsize);
    let grown = grown(log, all, now);
    let percent = free.saturating_mul(100).checked_div(whole).unwrap_or(100);
    let days = free.checked_div(grown);
    let left = match days {
        None => "nothing was written in the last 24 h".to_owned(),
        Some(days) if days > 3_650 => format!("{} bytes a day: more than 10 years left", grouped(grown)),
        Some(days) => format!("{} bytes a day: {days} days left, if nothing is removed", grouped(grown)),
    };
    let found = format!("{} MiB ({percent} % of the disk); {left}", grouped(free >> 20));
    let remedy = "make room, set retention in the program, or move the log to a larger disk";
    // File systems without a fixed number of inodes, such as btrfs, report 0 of them.
    if days.is_some_and(|days| days < 3) || free < (64 << 20) || system.f_files > 0 && system.f_favail == 0 {
        findings.must(CHECK, found, remedy);
    } else if days.is_some_and(|days| days < 30) || percent < 5 {
        findings.warn(CHECK, found, remedy);
    } else {
        findings.ok(CHECK, found);
    }
}

/// Returns the number of bytes written in the last 24 hours, extrapolated for a younger log.
fn grown(log: &Path, all: &[Segment], now: SystemTime) -> u64 {
    let since = now.checked_sub(DAY).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut chains: Vec<u16> = all.iter().map(Segment::chain).collect();
    // Segments are sorted by chain, so duplicates are neighbours.
    chains.dedup();
    let written: u64 = chains.iter().map(|chain| written_since(log, all, *chain, since)).sum();
    let first = all.iter().filter_map(Segment::first_time).min();
    let age = first.and_then(|first| now.duration_since(first).ok()).unwrap_or(DAY);
    // The first hours say little about a whole day, so a log counts as at least 6 hours old.
    let age = age.clamp(Duration::from_secs(6 * 3_600), DAY);
    written.saturating_mul(DAY.as_secs()).checked_div(age.as_secs()).unwrap_or(written)
}

fn written_since(log: &Path, all: &[Segment], chain: u16, since: SystemTime) -> u64 {
    let items = Reader::new(log).chain(chain).since(since).items();
    let mut records = items.into_iter().flatten().filter_map(Result::ok).filter_map(ReadItem::into_record);
    let Some(first) = records.next() else { return 0 };
    let name = first.file_name();
    let own = all.iter().filter(|segment| segment.chain() == chain);
    let bytes = own.skip_while(|segment| !segment.path().ends_with(&name)).map(Segment::bytes).sum::<u64>();
    bytes.saturating_sub(first.offset())
}
