//! Which records were shown, so that what is learnt of them later can be said.

use std::collections::BTreeMap;

/// How many stretches of numbers are kept of a chain: one, if everything is shown.
const MAX_STRETCHES: usize = 100_000;

/// The numbers of the records that were shown, by chain: first and last of each stretch.
#[derive(Debug, Default)]
pub(super) struct Shown(BTreeMap<u16, BTreeMap<u64, u64>>);

impl Shown {
    pub(super) fn add(&mut self, chain: u16, seq: u64) {
        let stretches = self.0.entry(chain).or_default();
        if let Some(mut stretch) = stretches.last_entry()
            && *stretch.get() + 1 == seq
        {
            *stretch.get_mut() = seq;
            return;
        }
        stretches.insert(seq, seq);
        if stretches.len() > MAX_STRETCHES {
            stretches.pop_first();
        }
    }

    /// What a line said by itself needs no second word.
    pub(super) fn forget(&mut self, chain: u16, seq: u64) {
        drop(self.take(chain, &[(seq, seq)]));
    }

    /// Takes out the records from this number on; returns their stretches.
    pub(super) fn withdraw(&mut self, chain: u16, from_seq: u64) -> Vec<(u64, u64)> {
        let Some(stretches) = self.0.get_mut(&chain) else { return Vec::new() };
        let mut withdrawn: Vec<(u64, u64)> = stretches.split_off(&from_seq).into_iter().collect();
        if let Some(mut stretch) = stretches.last_entry()
            && *stretch.get() >= from_seq
        {
            withdrawn.insert(0, (from_seq, *stretch.get()));
            *stretch.get_mut() = from_seq - 1;
        }
        // Stretches that are cut are told as one where nothing is between them.
        withdrawn
    }

    /// Takes out the records of these ranges that were shown; returns their numbers.
    pub(super) fn take(&mut self, chain: u16, ranges: &[(u64, u64)]) -> Vec<u64> {
        let Some(stretches) = self.0.get_mut(&chain) else { return Vec::new() };
        let mut taken = Vec::new();
        for (first, last) in ranges {
            let touched: Vec<(u64, u64)> = stretches
                .range(..=*last)
                .rev()
                .take_while(|(_, end)| *end >= first)
                .map(|(start, end)| (*start, *end))
                .collect();
            for (start, end) in touched.into_iter().rev() {
                stretches.remove(&start);
                if start < *first {
                    stretches.insert(start, first - 1);
                }
                if end > *last {
                    stretches.insert(last + 1, end);
                }
                taken.extend(start.max(*first)..=end.min(*last));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;

    fn shown(ranges: &[(u64, u64)]) -> Shown {
        let mut shown = Shown::default();
        for seq in ranges.iter().flat_map(|(first, last)| *first..=*last) {
            shown.add(0, seq);
        }
        shown
    }

    #[test]
    fn what_was_shown_is_known_until_it_is_taken() {
        let mut one = shown(&[(1, 10), (20, 25)]);
        assert_eq!(one.take(0, &[(9, 21), (25, 40)]), [9, 10, 20, 21, 25]);
        assert_eq!(one.take(0, &[(1, u64::MAX)]), [1, 2, 3, 4, 5, 6, 7, 8, 22, 23, 24]);
        assert!(one.take(0, &[(1, u64::MAX)]).is_empty() && one.take(1, &[(1, 2)]).is_empty());
        let mut two = shown(&[(1, 10), (20, 25)]);
        assert_eq!(two.withdraw(0, 8), [(8, 10), (20, 25)]);
        assert_eq!(two.withdraw(0, 8), []);
        two.add(0, 8);
        assert_eq!(two.withdraw(0, 1), [(1, 8)]);
    }
}
