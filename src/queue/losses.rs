//! How many events were lost, and the gap records that still have to tell it.

use std::time::Duration;

use crate::{
    Severity,
    clock::Timestamp,
    format::GapInfo,
    stats::{Loss, LossReason},
};

/// Counts by reason and severity.
#[derive(Debug, Default)]
pub(super) struct Losses {
    total: [[u64; Severity::COUNT]; LossReason::ALL.len()],
    /// What no gap record has told yet.
    pending: [Option<GapInfo>; LossReason::ALL.len()],
    /// Whether there is any of that: asked for every event.
    are_pending: bool,
}

impl Losses {
    /// Counts one loss; `told` when a gap record can still tell it. Says whether it is the first
    /// of its reason since the last gap.
    pub(super) fn count(
        &mut self,
        reason: LossReason,
        severity: Severity,
        at: Timestamp,
        told: bool,
    ) -> bool {
        let index = reason as usize;
        if let Some(count) = self.total.get_mut(index).and_then(|row| row.get_mut(severity as usize)) {
            *count += 1;
        }
        let Some(pending) = self.pending.get_mut(index).filter(|_| told) else { return false };
        let first = pending.is_none();
        self.are_pending = true;
        let gap = pending.get_or_insert(GapInfo { reason, critical: 0, routine: 0, first: at, last: at });
        match severity {
            Severity::Critical => gap.critical += 1,
            Severity::Routine => gap.routine += 1,
        }
        gap.first = gap.first.min(at);
        gap.last = gap.last.max(at);
        first
    }

    pub(super) fn are_pending(&self) -> bool {
        self.are_pending
    }

    /// The payloads of the gap records that are due.
    pub(super) fn take_pending(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        self.are_pending = false;
        self.pending.iter_mut().filter_map(Option::take).map(|gap| gap.payload(now)).collect()
    }

    pub(super) fn list(&self) -> Vec<Loss> {
        LossReason::ALL
            .into_iter()
            .zip(&self.total)
            .flat_map(|(reason, row)| {
                list(reason, |severity| row.get(severity as usize).copied().unwrap_or_default())
            })
            .collect()
    }
}

/// The losses of one reason that are not zero.
pub(super) fn list(reason: LossReason, events: impl Fn(Severity) -> u64) -> Vec<Loss> {
    [Severity::Critical, Severity::Routine]
        .into_iter()
        .map(|severity| Loss { reason, severity, events: events(severity) })
        .filter(|loss| loss.events > 0)
        .collect()
}

/// Critical events in each of the last sixty seconds.
#[derive(Debug)]
pub(super) struct CriticalRate {
    seconds: [u32; 60],
    newest: i64,
}

impl Default for CriticalRate {
    fn default() -> Self {
        Self { seconds: [0; 60], newest: 0 }
    }
}

impl CriticalRate {
    pub(super) fn count(&mut self, at: Timestamp) {
        self.forget_before(at);
        if let Some(count) = self.seconds.get_mut(Self::slot(at.unix_seconds())) {
            *count = count.saturating_add(1);
        }
    }

    /// Where the events of a second are counted.
    fn slot(second: i64) -> usize {
        usize::try_from(second.rem_euclid(60)).unwrap_or_default()
    }

    fn forget_before(&mut self, at: Timestamp) {
        let second = at.unix_seconds();
        for passed in (self.newest + 1..=second).rev().take(60) {
            if let Some(count) = self.seconds.get_mut(Self::slot(passed)) {
                *count = 0;
            }
        }
        self.newest = self.newest.max(second);
    }

    /// Events per second over the last minute, or since the log was opened.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    pub(super) fn per_second(&self, now: Timestamp, open_for: Duration) -> f64 {
        let last_minute = (now.unix_seconds() - 59..=self.newest).rev().take(60);
        let events: u64 = last_minute
            .filter_map(|second| self.seconds.get(Self::slot(second)).copied())
            .map(u64::from)
            .sum();
        events as f64 / open_for.as_secs_f64().clamp(1.0, 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_once_and_counted_for_ever() {
        let mut losses = Losses::default();
        let at = |second| Timestamp::from_unix(second, 0);
        assert!(losses.count(LossReason::QueueFull, Severity::Routine, at(7), true));
        assert!(!losses.count(LossReason::QueueFull, Severity::Critical, at(5), true));
        assert!(!losses.count(LossReason::Closed, Severity::Critical, at(9), false));
        let told = losses.take_pending(at(10));
        assert_eq!(told.len(), 1);
        let text = String::from_utf8(told[0].clone()).unwrap();
        assert!(text.contains(
            r#""gap":{"reason":"queue_full","critical":1,"routine":1,"first_ts":"1970-01-01T00:00:05"#
        ));
        assert!(!losses.are_pending());
        assert_eq!(losses.list().iter().map(|loss| loss.events).sum::<u64>(), 3);
    }

    #[test]
    fn the_critical_rate_forgets_after_a_minute() {
        let mut rate = CriticalRate::default();
        for second in 0..120 {
            rate.count(Timestamp::from_unix(1_000 + second, 0));
            rate.count(Timestamp::from_unix(1_000 + second, 999));
        }
        let now = Timestamp::from_unix(1_119, 0);
        assert!((rate.per_second(now, Duration::from_secs(600)) - 2.0).abs() < 1e-9);
        assert!((rate.per_second(now, Duration::from_secs(30)) - 4.0).abs() < 1e-9, "open for half a minute");
        // A second later one second less is part of the last minute.
        let next = Timestamp::from_unix(1_120, 0);
        assert!((rate.per_second(next, Duration::from_secs(600)) - 118.0 / 60.0).abs() < 1e-9);
        let last = Timestamp::from_unix(1_119 + 59, 0);
        assert!((rate.per_second(last, Duration::from_secs(600)) - 2.0 / 60.0).abs() < 1e-9);
        let later = Timestamp::from_unix(1_119 + 60, 0);
        assert!(rate.per_second(later, Duration::from_secs(600)).abs() < 1e-9);
    }
}
