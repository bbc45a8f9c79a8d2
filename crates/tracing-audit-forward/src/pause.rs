//! How long a forwarder pauses after a failure.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(30);
const FIRST_SETUP: Duration = Duration::from_secs(5);
const LAST_SETUP: Duration = Duration::from_secs(300);

/// Exponential backoff with jitter: each pause is a random time between half of its maximum and its maximum,
/// so that many forwarders do not return at once.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    failed: u32,
}

impl Pauses {
    /// Returns the next pause: at least what the store asked for, up to five minutes.
    pub(crate) fn next(&mut self, needs_action: bool, asked: Option<Duration>) -> Duration {
        let (first, last) = if needs_action { (FIRST_SETUP, LAST_SETUP) } else { (FIRST, LAST) };
        let most = first.saturating_mul(1 << self.failed.min(16)).min(last);
        self.failed += 1;
        let chance = u32::try_from(RandomState::new().hash_one(self.failed) >> 32).unwrap_or(0);
        let pause = most / 2 + (most / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        pause.max(asked.unwrap_or_default().min(LAST_SETUP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_shorter_than_asked() {
        let mut pauses = Pauses::default();
        let mut most = FIRST;
        for _ in 0..20 {
            let pause = pauses.next(false, None);
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (most * 2).min(LAST);
        }
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(false, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(pauses.next(false, Some(Duration::from_secs(86_400))), LAST_SETUP);
        assert!(Pauses::default().next(true, None) >= FIRST_SETUP / 2);
    }
}
