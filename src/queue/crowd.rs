//! Whom the writer waits for before it syncs again. Pure: touches nothing.

/// More than so many take so long to come back that nothing is gained.
const MOST: usize = if cfg!(any(loom, shuttle)) { 0 } else { 4 };

/// After so many failures in a row, and more, `2^MAX_FAILURES` crowds are passed over before the next try.
const MAX_FAILURES: u32 = 6;

/// Those who waited when something became durable.
///
/// Threads that emit one durable event after the other come back at once. A sync that begins with the
/// first of them makes the others wait for two syncs; one that begins when all are back serves them all.
/// Where they do not come back at once, whoever did is kept waiting for nothing: so the next attempts become
/// rare.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    awaited: usize,
    failures: u32,
    /// How many crowds are passed over, because the last did not come back.
    rests: u32,
}

impl Crowd {
    /// Something became durable, while so many waited.
    pub(super) fn told(&mut self, waiting: usize) {
        // One alone is no crowd: a sync can begin as soon as it is back.
        let is_crowd = (2..=MOST).contains(&waiting);
        self.awaited = if is_crowd && self.rests == 0 { waiting } else { 0 };
        self.rests = self.rests.saturating_sub(u32::from(is_crowd));
    }

    /// Whether somebody who was told is still worth waiting for, if so many wait now.
    pub(super) fn is_away(&self, waiting: usize) -> bool {
        waiting < self.awaited
    }

    /// They are not waited for any longer; `in_time` if all came back.
    pub(super) fn met(&mut self, in_time: bool) {
        if self.awaited == 0 {
            return;
        }
        self.awaited = 0;
        self.failures = if in_time { 0 } else { MAX_FAILURES.min(self.failures + 1) };
        self.rests = if in_time { 0 } else { 1 << self.failures };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_waited_for_until_all_are_back() {
        let mut crowd = Crowd::default();
        crowd.told(4);
        assert!(crowd.is_away(0) && crowd.is_away(3) && !crowd.is_away(4));
        crowd.met(true);
        assert!(!crowd.is_away(0));
        crowd.told(2);
        assert!(crowd.is_away(1));
    }

    #[test]
    fn one_alone_and_too_many_are_not_waited_for() {
        for waiting in [0, 1, MOST + 1] {
            let mut crowd = Crowd::default();
            crowd.told(waiting);
            assert!(!crowd.is_away(0), "{waiting}");
            crowd.met(false);
            assert_eq!((crowd.failures, crowd.rests), (0, 0));
        }
    }

    #[test]
    fn who_does_not_come_back_is_waited_for_ever_more_rarely() {
        let mut crowd = Crowd::default();
        let mut attempts = Vec::new();
        for sync in 0..300 {
            crowd.told(3);
            if crowd.is_away(2) {
                attempts.push(sync);
            }
            crowd.met(false);
        }
        assert_eq!(attempts, [0, 3, 8, 17, 34, 67, 132, 197, 262]);
        // Once they come back, they are waited for each time again.
        crowd.rests = 0;
        for _ in 0..3 {
            crowd.told(3);
            assert!(crowd.is_away(2));
            crowd.met(true);
        }
    }
}
