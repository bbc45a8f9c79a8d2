//! Counts records by time, in at most [`MAX_BUCKETS`] spans of equal width.

use std::collections::BTreeMap;

/// Limit of the spans.
pub(super) const MAX_BUCKETS: i64 = 120;

/// Round widths of a span, in milliseconds.
const WIDTHS: [i64; 25] = [
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    7_200_000,
    21_600_000,
    43_200_000,
    DAY,
    7 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
];
const DAY: i64 = 86_400_000;

/// A kind of entry on the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Routine,
    Critical,
    /// Any other record that the log writes itself.
    Own,
    Gap,
    Recovery,
    Finding,
}

/// The counts of a span, by [`Mark`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; 6]);

impl Counts {
    pub(super) fn of(&self, mark: Mark) -> u64 {
        self.0.get(mark as usize).copied().unwrap_or(0)
    }

    /// Returns the number of events, which the bars show.
    pub(super) fn events(&self) -> u64 {
        self.of(Mark::Routine) + self.of(Mark::Critical)
    }

    fn add(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// The spans, by their number since 1970.
#[derive(Debug)]
pub(super) struct Timeline {
    width: i64,
    buckets: BTreeMap<i64, Counts>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width: WIDTHS.first().copied().unwrap_or(1), buckets: BTreeMap::new() }
    }
}

impl Timeline {
    /// Adds an entry at a time in milliseconds since 1970. Widens all spans when there would be too many.
    pub(super) fn count(&mut self, at: i64, mark: Mark) {
        let mut one = Counts::default();
        if let Some(count) = one.0.get_mut(mark as usize) {
            *count = 1;
        }
        self.buckets.entry(at.div_euclid(self.width)).or_default().add(one);
        // Widening keeps memory bounded even if one record has an absurd time.
        while self.spans() > MAX_BUCKETS {
            self.widen();
        }
    }

    /// Returns the number of spans from the first to the last one with an entry, both included.
    fn spans(&self) -> i64 {
        match (self.buckets.first_key_value(), self.buckets.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last.saturating_sub(*first).saturating_add(1),
            _ => 0,
        }
    }

    fn widen(&mut self) {
        // A width need not be a multiple of the one before it. So an old span goes entirely to the new span of its beginning.
        let wider = WIDTHS.into_iter().find(|width| *width > self.width);
        let wider = wider.unwrap_or(self.width.saturating_mul(2));
        for (number, counts) in std::mem::take(&mut self.buckets) {
            // Saturating, because a hostile time may be near the limits of `i64`.
            let begin = number.saturating_mul(self.width);
            self.buckets.entry(begin.div_euclid(wider)).or_default().add(counts);
        }
        self.width = wider;
    }

    /// Returns the width of a span, in milliseconds.
    pub(super) fn width(&self) -> i64 {
        self.width
    }

    /// Returns the spans from the first to the last, including empty ones, each with its beginning in milliseconds.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (i64, Counts)> {
        let first = self.buckets.first_key_value().map_or(0, |(first, _)| *first);
        (first..first.saturating_add(self.spans())).map(|number| {
            let counts = self.buckets.get(&number).copied().unwrap_or_default();
            (number.saturating_mul(self.width), counts)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_widened_for_long_logs() {
        let mut timeline = Timeline::default();
        for second in 0..2 * 86_400 {
            timeline.count(1_700_000_000_000 + second * 1000, Mark::Routine);
        }
        assert_eq!(timeline.width(), 1_800_000);
        let total: u64 = timeline.buckets().map(|(_, counts)| counts.events()).sum();
        assert_eq!(total, 2 * 86_400);
        // Absurd times, thousands of years apart.
        timeline.count(-62_000_000_000_000, Mark::Gap);
        timeline.count(250_000_000_000_000, Mark::Critical);
        assert!(timeline.buckets().count() <= usize::try_from(MAX_BUCKETS).unwrap());
        let events: u64 = timeline.buckets().map(|(_, counts)| counts.events()).sum();
        assert_eq!(events, 2 * 86_400 + 1);
        let gaps: u64 = timeline.buckets().map(|(_, counts)| counts.of(Mark::Gap)).sum();
        assert_eq!(gaps, 1);
    }
}
