//! Which segments retention removes. Pure: the time is passed in, and nothing is touched.

use std::time::Duration;

use crate::{clock::Timestamp, format::PruneReason, settings::Retention};

/// A segment that is no longer written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) segment: u32,
    pub(super) bytes: u64,
    /// The highest of its own times and the time of the first line of the next segment.
    pub(super) ended: Timestamp,
}

/// Returns when each segment ended, corrected where a wrong clock is evident.
///
/// A time is trusted if it is not after `now` and not before that of an older segment. It must not
/// be before `floor` either, the highest time of the removed segments. Otherwise the segment counts
/// as ended with the next one whose time is trusted. So no segment is taken for older than it can
/// be, and a clock that was years ahead does not keep a segment for years.
fn ends(sealed: &[Sealed], floor: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let mut highest = if floor <= now { floor } else { Timestamp::EARLIEST };
    let trusted = sealed.iter().map(|segment| {
        let is_trusted = (highest..=now).contains(&segment.ended);
        highest = if is_trusted { segment.ended } else { highest };
        is_trusted.then_some(segment.ended)
    });
    let trusted: Vec<Option<Timestamp>> = trusted.collect();
    let mut next = now;
    let mut ends: Vec<Timestamp> = trusted
        .into_iter()
        .rev()
        .map(|ended| {
            next = ended.unwrap_or(next);
            next
        })
        .collect();
    ends.reverse();
    ends
}

/// Returns how many of the oldest sealed segments to remove, at most `allowed`, and why.
/// `newest_bytes` is the size of the newest segment, which is never removed.
pub(super) fn removable(
    retention: &Retention,
    sealed: &[Sealed],
    floor: Timestamp,
    allowed: usize,
    newest_bytes: u64,
    now: Timestamp,
) -> Option<(usize, PruneReason)> {
    let young = |age: Option<Duration>, ended: Timestamp| age.is_some_and(|age| now.since(ended) < age);
    let mut bytes: u64 = sealed.iter().map(|segment| segment.bytes).sum::<u64>() + newest_bytes;
    let mut segments = sealed.len() as u64 + 1;
    let mut removed = None;
    for (index, (segment, ended)) in sealed.iter().zip(ends(sealed, floor, now)).enumerate().take(allowed) {
        let too_old = retention.max_age.is_some() && !young(retention.max_age, ended);
        let reason = if too_old {
            PruneReason::Age
        } else if retention.max_bytes.is_some_and(|most| bytes > most) {
            PruneReason::Bytes
        } else if retention.max_segments.is_some_and(|most| segments > u64::from(most)) {
            PruneReason::Segments
        } else {
            break;
        };
        if young(retention.min_age, ended) {
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
        let (floor, now) = (Timestamp::EARLIEST, Timestamp::from_unix(600, 0));
        assert_eq!(removable(retention, &sealed, floor, allowed, 50, now), expected);
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
    fn an_impossible_time_is_bounded_by_what_follows() {
        let at = |second| Timestamp::from_unix(second, 0);
        let check_behind = |floor: i64, ended: &[i64], now: i64, expected: &[i64]| {
            let sealed = ended.iter().map(|ended| Sealed { segment: 1, bytes: 1, ended: at(*ended) });
            let expected: Vec<Timestamp> = expected.iter().map(|ended| at(*ended)).collect();
            assert_eq!(ends(&sealed.collect::<Vec<_>>(), at(floor), at(now)), expected, "{ended:?} {now}");
        };
        let check = |ended: &[i64], now: i64, expected: &[i64]| check_behind(0, ended, now, expected);
        check(&[], 100, &[]);
        check(&[10, 20, 20, 30], 30, &[10, 20, 20, 30]);
        // Ahead of the newest record: one, several, the last, all.
        check(&[10, 900, 20, 30], 50, &[10, 20, 20, 30]);
        check(&[10, 900, 901, 902, 30], 50, &[10, 30, 30, 30, 30]);
        check(&[10, 20, 900], 50, &[10, 20, 50]);
        check(&[900, 901], 50, &[50, 50]);
        // Before an older one. It does not make that one older, and itself counts as the youngest
        // it can be.
        check(&[10, 20, 3, 30], 50, &[10, 20, 30, 30]);
        check(&[10, 20, 3, 4], 50, &[10, 20, 50, 50]);
        check(&[10, 900, 3, 30], 50, &[10, 30, 30, 30]);
        // The times of removed segments still bound those that follow.
        check_behind(10, &[3, 30], 50, &[30, 30]);
        check_behind(10, &[3, 4], 50, &[50, 50]);
        check_behind(900, &[3, 30], 50, &[3, 30]);
        // Once its time has come, a segment that was ahead keeps the following ones no longer than
        // it was ahead.
        check(&[10, 40, 20, 30, 45], 50, &[10, 40, 45, 45, 45]);
    }

    #[test]
    fn the_reason_is_that_of_the_last_one_that_may_go() {
        let retention = Retention::keep_all().max_age(Duration::from_secs(450)).max_segments(2);
        check(&retention, usize::MAX, Some((4, PruneReason::Segments)));
        check(&retention, 1, Some((1, PruneReason::Age)));
        check(&retention, 0, None);
    }
}
