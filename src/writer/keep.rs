//! Which segments retention removes. Pure: told the time, touches nothing.

use std::time::Duration;

use crate::{clock::Timestamp, format::PruneReason, settings::Retention};

/// A segment that is no longer written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) segment: u32,
    pub(super) bytes: u64,
    /// The time of the first line of the segment after it, which is not before its own last.
    pub(super) ended: Timestamp,
}

/// How many of the oldest sealed segments go, of which `allowed` may, and why. `newest_bytes` is the one that always
/// stays.
pub(super) fn removable(
    retention: &Retention,
    sealed: &[Sealed],
    allowed: usize,
    newest_bytes: u64,
    now: Timestamp,
) -> Option<(usize, PruneReason)> {
    let young =
        |age: Option<Duration>, segment: &Sealed| age.is_some_and(|age| now.since(segment.ended) < age);
    let kept_by_age = |segment: &Sealed| young(retention.min_age, segment);
    let mut bytes: u64 = sealed.iter().map(|segment| segment.bytes).sum::<u64>() + newest_bytes;
    let mut segments = sealed.len() as u64 + 1;
    let mut removed = None;
    for (index, segment) in sealed.iter().enumerate().take(allowed) {
        let too_old = retention.max_age.is_some() && !young(retention.max_age, segment);
        let reason = if too_old {
            PruneReason::Age
        } else if retention.max_bytes.is_some_and(|most| bytes > most) {
            PruneReason::Bytes
        } else if retention.max_segments.is_some_and(|most| segments > u64::from(most)) {
            PruneReason::Segments
        } else {
            break;
        };
        if kept_by_age(segment) {
            break;
        }
        bytes -= segment.bytes;
        segments -= 1;
        removed = Some((index + 1, reason));
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(retention: &Retention, allowed: usize, expected: Option<(usize, PruneReason)>) {
        let sealed: Vec<Sealed> = (1..=5)
            .map(|segment| Sealed {
                segment,
                bytes: 100,
                ended: Timestamp::from_unix(i64::from(segment) * 100, 0),
            })
            .collect();
        assert_eq!(removable(retention, &sealed, allowed, 50, Timestamp::from_unix(600, 0)), expected);
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        let keep = Retention::keep_all;
        let age = Duration::from_secs;
        let all = usize::MAX;
        check(&keep(), all, None);
        check(&keep().max_age(age(350)), all, Some((2, PruneReason::Age)));
        check(&keep().max_bytes(250), all, Some((3, PruneReason::Bytes)));
        check(&keep().max_bytes(1), all, Some((5, PruneReason::Bytes)));
        check(&keep().max_segments(2), all, Some((4, PruneReason::Segments)));
        check(&keep().max_segments(1).min_age(age(450)), all, Some((1, PruneReason::Segments)));
        check(&keep().max_bytes(1).min_age(age(1000)), all, None);
    }

    #[test]
    fn the_reason_is_that_of_the_last_one_that_may_go() {
        let retention = Retention::keep_all().max_age(Duration::from_secs(450)).max_segments(2);
        check(&retention, usize::MAX, Some((4, PruneReason::Segments)));
        check(&retention, 1, Some((1, PruneReason::Age)));
        check(&retention, 0, None);
    }
}
