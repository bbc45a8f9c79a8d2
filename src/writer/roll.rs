//! When to begin a new segment. Pure: the time is passed in, and nothing is touched.

use crate::{
    clock::Timestamp,
    settings::{Period, Rotation},
};

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiveSegment {
    pub(super) bytes: u64,
    /// The time of its first line.
    pub(super) begun: Timestamp,
    /// Whether it holds more than its first line. If not, a new segment would gain nothing.
    pub(super) has_records: bool,
}

/// Returns whether `incoming` bytes belong in a new segment.
pub(super) fn must_roll(rotation: Rotation, live: &LiveSegment, incoming: u64, now: Timestamp) -> bool {
    if !live.has_records {
        return false;
    }
    let too_large = live.bytes.saturating_add(incoming) > rotation.max_bytes;
    let seconds = match rotation.period {
        Some(Period::Hour) => 3600,
        Some(Period::Day) => 86_400,
        None => return too_large,
    };
    let period = |at: Timestamp| at.unix_seconds().div_euclid(seconds);
    too_large || period(now) != period(live.begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_ends_with_its_period_or_its_size() {
        let live = LiveSegment { bytes: 900, begun: Timestamp::from_unix(3_599, 0), has_records: true };
        let at = |seconds| Timestamp::from_unix(seconds, 0);
        assert!(!must_roll(Rotation::never(), &live, 1_000_000, at(1_000_000)));
        assert!(must_roll(Rotation::hourly(), &live, 1, at(3_600)));
        assert!(!must_roll(Rotation::daily(), &live, 1, at(3_600)));
        assert!(must_roll(Rotation::daily(), &live, 1, at(86_400)));
        assert!(must_roll(Rotation::never().max_bytes(1_000), &live, 101, at(3_600)));
        assert!(!must_roll(Rotation::never().max_bytes(1_000), &live, 100, at(3_600)));
        let empty = LiveSegment { has_records: false, ..live };
        assert!(!must_roll(Rotation::hourly().max_bytes(1), &empty, 100, at(86_400)));
    }
}
