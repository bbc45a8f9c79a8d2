//! The counts, in bounded memory however many different values there are.

use std::collections::{BTreeSet, HashMap};

use tracing_audit::{Record, RecordKind, Severity, Value};

use super::By;
use crate::{export::meaning::Outcome, scan::Hit};

/// Limit of the memory for the values of all tables in all threads, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// Approximate memory for a row besides its value, in bytes.
const ROW: usize = 120;

/// The counts of a group of events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) events: u64,
    pub(crate) critical: u64,
    /// Events whose outcome is a failure.
    pub(crate) failed: u64,
    /// Unconfirmed events: a caller got an error for them.
    pub(crate) unconfirmed: u64,
    /// Events that could not be recorded, according to `gap` records.
    pub(crate) lost: u64,
}

impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.critical += other.critical;
        self.failed += other.failed;
        self.unconfirmed += other.unconfirmed;
        self.lost = self.lost.saturating_add(other.lost);
    }
}

/// The rows of one table. Rare values are folded into one row when there are too many.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) by: By,
    pub(crate) rows: HashMap<String, Count>,
    /// Events without a value.
    pub(crate) none: Count,
    /// Events whose rows were folded.
    pub(crate) others: Count,
    /// Upper bound of what any row in the table may be too low by.
    pub(crate) too_low_by: u64,
    bytes: usize,
    max_bytes: usize,
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) total: Count,
    pub(crate) gaps: u64,
    pub(crate) recoveries: u64,
    pub(crate) chains: BTreeSet<u16>,
    /// The lowest and the highest time.
    pub(crate) times: Option<(String, String)>,
    pub(crate) tables: Vec<Table>,
}

impl Counts {
    /// Makes empty counts for one of `threads` threads, which share the memory limit.
    pub(crate) fn new(by: &[By], threads: usize) -> Self {
        // Each table of each thread gets an equal share, so that the total is bounded whatever the values are.
        let max_bytes = MAX_BYTES / (by.len() * threads).max(1);
        let table = |by: &By| Table {
            by: *by,
            rows: HashMap::new(),
            none: Count::default(),
            others: Count::default(),
            too_low_by: 0,
            bytes: 0,
            max_bytes,
        };
        Self {
            records: 0,
            total: Count::default(),
            gaps: 0,
            recoveries: 0,
            chains: BTreeSet::new(),
            times: None,
            tables: by.iter().map(table).collect(),
        }
    }

    pub(crate) fn add(&mut self, hit: &Hit) {
        let record = &hit.record;
        self.records += 1;
        self.chains.insert(record.chain());
        // A `ts` that is not a time belongs to no hour or day.
        let time = record.timestamp().filter(|_| record.time().is_some());
        if let Some(time) = time {
            self.note_time(time, time);
        }
        let count = match record.kind() {
            RecordKind::Event => Count {
                events: 1,
                critical: u64::from(record.severity() == Some(Severity::Critical)),
                failed: u64::from(record.outcome().map(Outcome::of_word) == Some(Outcome::Failure)),
                unconfirmed: u64::from(hit.is_unconfirmed),
                lost: 0,
            },
            RecordKind::Gap => {
                self.gaps += 1;
                Count { lost: lost(record), ..Count::default() }
            }
            RecordKind::Recovery => {
                self.recoveries += 1;
                return;
            }
            _ => return,
        };
        self.total.add(count);
        for table in &mut self.tables {
            let value = match table.by {
                // The beginning of a timestamp: `2026-11-21T08` or `2026-11-21`.
                By::Hour => time.and_then(|time| time.get(..13)),
                By::Day => time.and_then(|time| time.get(..10)),
                // A gap counts by time only: it has no actor, action and so on.
                _ if record.kind() == RecordKind::Gap => continue,
                By::Action => record.action(),
                By::Actor => record.actor(),
                By::Resource => record.resource(),
                // The action may have been refused, whatever outcome was recorded.
                By::Outcome if hit.is_unconfirmed => Some("unconfirmed"),
                By::Outcome => record.outcome(),
                By::Severity => record.severity().map(Severity::as_str),
            };
            table.add(value, count);
        }
    }

    fn note_time(&mut self, first: &str, last: &str) {
        match &mut self.times {
            // Times of the format have a fixed width, so they can be compared as text.
            Some((from, to)) => {
                if first < from.as_str() {
                    first.clone_into(from);
                }
                if last > to.as_str() {
                    last.clone_into(to);
                }
            }
            None => self.times = Some((first.to_owned(), last.to_owned())),
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.records += other.records;
        self.total.add(other.total);
        self.gaps += other.gaps;
        self.recoveries += other.recoveries;
        self.chains.extend(other.chains);
        if let Some((first, last)) = other.times {
            self.note_time(&first, &last);
        }
        for (table, other) in self.tables.iter_mut().zip(other.tables) {
            table.others.add(other.others);
            table.none.add(other.none);
            table.too_low_by = table.too_low_by.saturating_add(other.too_low_by);
            for (value, count) in other.rows {
                table.add(Some(&value), count);
            }
        }
    }
}

impl Table {
    fn add(&mut self, value: Option<&str>, count: Count) {
        let Some(value) = value else { return self.none.add(count) };
        if let Some(row) = self.rows.get_mut(value) {
            row.add(count);
            return;
        }
        self.bytes += ROW + value.len();
        self.rows.insert(value.to_owned(), count);
        if self.bytes > self.max_bytes {
            self.fold();
        }
    }

    /// Folds the rarer half of the rows into `others`.
    ///
    /// Frequent values stay. A row lacks at most what was folded of the same value earlier. Each time that was no more than
    /// the largest row folded then. So `too_low_by` is the sum of those maxima.
    fn fold(&mut self) {
        let weight = |count: &Count| count.events.max(count.lost);
        let mut weights: Vec<u64> = self.rows.values().map(weight).collect();
        let middle = weights.len() / 2;
        let limit = *weights.select_nth_unstable(middle).1;
        let half = self.max_bytes / 2;
        let mut folded = 0;
        self.rows.retain(|value, count| {
            let weight = weight(count);
            // Many rows can have the same weight as the median. They are dropped only until half of the memory is
            // free, so that a fold always frees enough, and not everything.
            let is_kept = weight > limit || weight == limit && self.bytes <= half;
            if !is_kept {
                self.bytes -= ROW + value.len();
                self.others.add(*count);
                folded = folded.max(weight);
            }
            is_kept
        });
        self.too_low_by = self.too_low_by.saturating_add(folded);
    }
}

/// Returns the number of lost events that a `gap` record states.
fn lost(record: &Record) -> u64 {
    let number = |name| record.get("gap")?.get(name).and_then(Value::as_u64);
    number("critical").unwrap_or(0).saturating_add(number("routine").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn millions_of_values_take_bounded_memory_and_frequent_ones_are_kept() {
        let one = Count { events: 1, ..Count::default() };
        let mut table = Counts::new(&[By::Actor], 4).tables.pop().unwrap();
        for n in 0..1_000_000 {
            table.add(Some(&format!("rare-{n}")), one);
            table.add(Some(&format!("often-{}", n % 10)), one);
        }
        assert!(table.rows.len() < 60_000, "{}", table.rows.len());
        for n in 0..10 {
            let row = table.rows[&format!("often-{n}")];
            assert!(row.events <= 100_000 && row.events + table.too_low_by >= 100_000, "{row:?}");
        }
        let in_rows: u64 = table.rows.values().map(|row| row.events).sum();
        assert_eq!(in_rows + table.others.events, 2_000_000);
        assert!(table.too_low_by > 0 && table.too_low_by < 1000, "{}", table.too_low_by);
    }
}
