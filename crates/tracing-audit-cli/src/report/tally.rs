//! Counts that are made while the log is read once, in bounded memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tracing_audit::{Finding, Record, RecordKind, Severity};

use super::timeline::{Mark, Timeline};
use crate::{export::meaning::Outcome, scan::Hit};

/// Limit of the names that are counted one by one; later ones are counted together.
const MAX_NAMES: usize = 10_000;
/// Length at which names are cut, in bytes. Longer names with the same beginning count as one.
const MAX_NAME: usize = 160;
/// Limit of the unconfirmed records that are listed.
const MAX_UNCONFIRMED: usize = 50;

/// The number of events, and how many of them failed or are unconfirmed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) events: u64,
    pub(super) failed: u64,
    pub(super) unconfirmed: u64,
}

impl Count {
    /// Returns the sum of both.
    fn and(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            failed: self.failed + other.failed,
            unconfirmed: self.unconfirmed + other.unconfirmed,
        }
    }

    fn add(&mut self, outcome: Outcome<'_>) {
        self.events += 1;
        self.failed += u64::from(outcome == Outcome::Failure);
        self.unconfirmed += u64::from(outcome == Outcome::Unconfirmed);
    }
}

/// Counts by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    counts: HashMap<String, Count>,
    /// Events with a name beyond [`MAX_NAMES`].
    pub(super) others: Count,
    /// Events without a name.
    pub(super) unnamed: Count,
}

impl Names {
    fn add(&mut self, name: Option<&str>, outcome: Outcome<'_>) {
        let Some(name) = name else { return self.unnamed.add(outcome) };
        let name = cut(name);
        if let Some(count) = self.counts.get_mut(name) {
            count.add(outcome);
        } else if self.counts.len() < MAX_NAMES {
            self.counts.entry(name.to_owned()).or_default().add(outcome);
        } else {
            self.others.add(outcome);
        }
    }

    /// Returns the `most` most frequent names, the number of other names, and the sum of all other events.
    pub(super) fn top(&self, most: usize) -> (Vec<(&str, Count)>, usize, Count) {
        let mut all: Vec<(&str, Count)> =
            self.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_by(|(a, left), (b, right)| right.events.cmp(&left.events).then_with(|| a.cmp(b)));
        let more = all.len().saturating_sub(most);
        let rest = all.iter().skip(most).fold(self.others, |rest, (_, count)| rest.and(*count));
        all.truncate(most);
        (all, more, rest)
    }

    /// Returns the number of names that are counted one by one.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns whether there were more than [`MAX_NAMES`] names.
    pub(super) fn is_full(&self) -> bool {
        self.others.events > 0
    }
}

/// Cuts a name to at most [`MAX_NAME`] bytes, at the end of a character.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// An unconfirmed record for the list on the page.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    pub(super) position: String,
    pub(super) time: String,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) outcome: String,
    pub(super) place: String,
}

/// All counts of a log.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) kinds: BTreeMap<&'static str, u64>,
    pub(super) severities: [u64; 2],
    pub(super) actors: Names,
    pub(super) actions: Names,
    pub(super) outcomes: Names,
    pub(super) resources: Names,
    pub(super) sources: Names,
    /// The first unconfirmed records.
    pub(super) unconfirmed: Vec<Unconfirmed>,
    /// Number of all unconfirmed records.
    pub(super) unconfirmed_records: u64,
    pub(super) provisional: u64,
    /// The earliest and the latest time.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    pub(super) timeline: Timeline,
    pub(super) bad_lines: u64,
    pub(super) missing: u64,
    /// Number of findings with no place on the timeline.
    pub(super) without_time: u64,
    /// By chain: the sequence numbers of findings that reading has not reached yet, and the time of the last record.
    waiting: BTreeMap<u16, (VecDeque<u64>, Option<i64>)>,
}

impl Tally {
    /// Makes an empty tally. The findings get their times from the records at their numbers, as these are counted.
    pub(super) fn new(findings: &[Finding]) -> Self {
        let mut tally = Self::default();
        for finding in findings {
            match finding.seq() {
                Some(seq) => tally.waiting.entry(finding.chain()).or_default().0.push_back(seq),
                None => tally.without_time += 1,
            }
        }
        for (waiting, _) in tally.waiting.values_mut() {
            // Findings are in the order of their detection, records come in the order of their numbers.
            waiting.make_contiguous().sort_unstable();
        }
        tally
    }

    pub(super) fn count(&mut self, hit: &Hit) {
        let record = &hit.record;
        self.records += 1;
        self.provisional += u64::from(record.is_provisional());
        *self.kinds.entry(record.kind().as_str()).or_default() += 1;
        self.count_time(record);
        if hit.is_unconfirmed {
            self.list_unconfirmed(record);
        }
        if record.is_event() {
            let outcome = Outcome::of(hit);
            // An unconfirmed event is counted as that, whatever outcome was recorded.
            let word = if outcome == Outcome::Unconfirmed { Some("unconfirmed") } else { record.outcome() };
            self.actors.add(record.actor(), outcome);
            self.actions.add(record.action(), outcome);
            self.outcomes.add(word, outcome);
            self.resources.add(record.resource(), outcome);
            self.sources.add(record.source(), outcome);
            let [routine, critical] = &mut self.severities;
            *(if is_critical(record) { critical } else { routine }) += 1;
        }
    }

    fn count_time(&mut self, record: &Record) {
        let time = record.time().and_then(|time| jiff::Timestamp::try_from(time).ok());
        let Some(at) = time.map(jiff::Timestamp::as_millisecond) else { return };
        let mark = match record.kind() {
            RecordKind::Event if is_critical(record) => Mark::Critical,
            RecordKind::Event => Mark::Routine,
            RecordKind::Gap => Mark::Gap,
            RecordKind::Recovery => Mark::Recovery,
            _ => Mark::Own,
        };
        self.timeline.count(at, mark);
        if let Some((waiting, last)) = self.waiting.get_mut(&record.chain()) {
            *last = Some(at);
            // A finding may be about a missing record, so the next one with a time counts for it.
            while waiting.front().is_some_and(|seq| *seq <= record.seq()) {
                waiting.pop_front();
                self.timeline.count(at, Mark::Finding);
            }
        }
        // Times of the format have a fixed width, so they can be compared as text.
        let Some(time) = record.timestamp() else { return };
        if self.first.as_deref().is_none_or(|first| time < first) {
            self.first = Some(time.to_owned());
        }
        if self.last.as_deref().is_none_or(|last| time > last) {
            self.last = Some(time.to_owned());
        }
    }

    fn list_unconfirmed(&mut self, record: &Record) {
        self.unconfirmed_records += 1;
        if self.unconfirmed.len() >= MAX_UNCONFIRMED {
            return;
        }
        let text = |text: Option<&str>| cut(text.unwrap_or_default()).to_owned();
        self.unconfirmed.push(Unconfirmed {
            position: crate::line::position(record),
            time: record.timestamp().map(crate::time::short).unwrap_or_default(),
            actor: text(record.actor()),
            action: text(record.action()),
            outcome: text(record.outcome()),
            place: format!("{}, byte {}", record.file_name(), record.offset()),
        });
    }

    /// Ends the count: findings after the last record get its time.
    pub(super) fn finish(&mut self) {
        for (waiting, last) in std::mem::take(&mut self.waiting).into_values() {
            for _ in waiting {
                match last {
                    Some(at) => self.timeline.count(at, Mark::Finding),
                    None => self.without_time += 1,
                }
            }
        }
    }
}

fn is_critical(record: &Record) -> bool {
    record.severity() == Some(Severity::Critical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_names_is_counted_in_a_bounded_table() {
        let mut names = Names::default();
        for number in 0..100_000 {
            names.add(Some(&format!("user-{number}")), Outcome::Failure);
        }
        names.add(Some("user-7"), Outcome::Success);
        assert_eq!(names.len(), MAX_NAMES);
        assert_eq!(names.others.events, 100_000 - MAX_NAMES as u64);
        let (top, more, rest) = names.top(1);
        assert_eq!((top[0].0, top[0].1.events, more), ("user-7", 2, MAX_NAMES - 1));
        assert_eq!((rest.events, rest.failed), (99_999, 99_999));
        names.add(Some(&"é".repeat(60_000)), Outcome::Success);
        assert!(names.counts.keys().all(|name| name.len() <= MAX_NAME));
    }
}
