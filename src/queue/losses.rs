//! Counts lost events, and keeps the `gap` records that are still to be written.

use crate::{
    clock::Timestamp,
    format::GapInfo,
    severity::Severity,
    stats::{Loss, LossReason},
};

/// Lost events, by reason and severity.
#[derive(Debug, Default)]
pub(super) struct Losses {
    total: [[u64; Severity::ALL.len()]; LossReason::ALL.len()],
    /// Losses that no `gap` record reports yet.
    pending: [Option<GapInfo>; LossReason::ALL.len()],
    /// Whether there are any. A flag of its own, because every event asks.
    are_pending: bool,
}

impl Losses {
    /// Counts one loss. `can_report` is whether a `gap` record can still report it. Returns whether it is the first loss
    /// for its reason since the last gap.
    pub(super) fn count(
        &mut self,
        reason: LossReason,
        severity: Severity,
        at: Timestamp,
        can_report: bool,
    ) -> bool {
        let index = reason as usize;
        if let Some(count) = self.total.get_mut(index).and_then(|row| row.get_mut(severity as usize)) {
            *count += 1;
        }
        let Some(pending) = self.pending.get_mut(index).filter(|_| can_report) else { return false };
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

    /// Removes the pending losses, and returns the payloads of their `gap` records.
    pub(super) fn take_pending(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        self.are_pending = false;
        self.pending.iter_mut().filter_map(Option::take).map(|gap| gap.payload(now)).collect()
    }

    /// Returns all counts that are not zero.
    pub(super) fn list(&self) -> Vec<Loss> {
        let by_reason = LossReason::ALL.iter().zip(&self.total);
        by_reason.flat_map(|(reason, by_severity)| list(*reason, *by_severity)).collect()
    }
}

/// Returns the losses for one reason that are not zero, from a count for each severity in the order of
/// [`Severity::ALL`].
pub(super) fn list(reason: LossReason, by_severity: [u64; Severity::ALL.len()]) -> Vec<Loss> {
    Severity::ALL
        .iter()
        .zip(by_severity)
        .rev()
        .map(|(severity, events)| Loss { reason, severity: *severity, events })
        .filter(|loss| loss.events > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_reported_once_and_counted_for_ever() {
        let mut losses = Losses::default();
        let at = |second| Timestamp::from_unix(second, 0);
        assert!(losses.count(LossReason::QueueFull, Severity::Routine, at(7), true));
        assert!(!losses.count(LossReason::QueueFull, Severity::Critical, at(5), true));
        assert!(!losses.count(LossReason::Closed, Severity::Critical, at(9), false));
        let gaps = losses.take_pending(at(10));
        assert_eq!(gaps.len(), 1);
        let text = String::from_utf8(gaps[0].clone()).unwrap();
        assert!(text.contains(
            r#""gap":{"reason":"queue_full","critical":1,"routine":1,"first_ts":"1970-01-01T00:00:05"#
        ));
        assert!(!losses.are_pending());
        assert_eq!(losses.list().iter().map(|loss| loss.events).sum::<u64>(), 3);
    }
}
