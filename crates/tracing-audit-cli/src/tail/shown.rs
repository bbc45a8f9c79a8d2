//! The records that were shown, so that a later remark can refer to them.

use std::collections::BTreeMap;

/// Limit of the ranges of numbers that are kept of a chain. If everything is shown, there is one.
const MAX_RANGES: usize = 100_000;

/// The records that were shown, as disjoint ranges by chain: the last number, by the first.
#[derive(Debug, Default)]
pub(super) struct Shown(BTreeMap<u16, BTreeMap<u64, u64>>);

impl Shown {
    pub(super) fn add(&mut self, chain: u16, seq: u64) {
        let ranges = self.0.entry(chain).or_default();
        if let Some(mut range) = ranges.last_entry()
            && *range.get() + 1 == seq
        {
            *range.get_mut() = seq;
            return;
        }
        ranges.insert(seq, seq);
        // The oldest range goes: remarks about recent records matter more.
        if ranges.len() > MAX_RANGES {
            ranges.pop_first();
        }
    }

    /// Removes a record that needs no remark any more.
    pub(super) fn forget(&mut self, chain: u16, seq: u64) {
        drop(self.take(chain, &[(seq, seq)]));
    }

    /// Removes the records from this number on. Returns their ranges.
    pub(super) fn withdraw(&mut self, chain: u16, from_seq: u64) -> Vec<(u64, u64)> {
        let Some(ranges) = self.0.get_mut(&chain) else { return Vec::new() };
        let mut withdrawn: Vec<(u64, u64)> = ranges.split_off(&from_seq).into_iter().collect();
        if let Some(mut range) = ranges.last_entry()
            && *range.get() >= from_seq
        {
            withdrawn.insert(0, (from_seq, *range.get()));
            *range.get_mut() = from_seq - 1;
        }
        withdrawn
    }

    /// Removes the records in these ranges. Returns the numbers of those that had been shown.
    pub(super) fn take(&mut self, chain: u16, ranges: &[(u64, u64)]) -> Vec<u64> {
        let Some(shown) = self.0.get_mut(&chain) else { return Vec::new() };
        let mut taken = Vec::new();
        for (first, last) in ranges {
            // Ranges are disjoint, so those that overlap are next to each other, backward from the last number.
            let touched: Vec<(u64, u64)> = shown
                .range(..=*last)
                .rev()
                .take_while(|(_, end)| *end >= first)
                .map(|(start, end)| (*start, *end))
                .collect();
            for (start, end) in touched.into_iter().rev() {
                shown.remove(&start);
                if start < *first {
                    shown.insert(start, first - 1);
                }
                if end > *last {
                    shown.insert(last + 1, end);
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
    fn shown_records_are_kept_until_they_are_taken() {
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
