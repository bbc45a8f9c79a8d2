//! Anomalies: lines that do not fit, kept with their positions. How far a chain was durable is known only at its
//! end, and only then is it decided whether an anomaly is damage.

use crate::{chain::Digest, format::RecordKind};

/// The ways in which a line of a chain can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not match its own hash.
    Edited,
    /// It is not a record: its layout, its JSON or its length is wrong.
    Malformed,
    /// Records are missing before it.
    Missing,
    /// It is valid in itself, but in the wrong place.
    Inserted,
    /// It occurs a second time.
    Duplicate,
    /// It does not name the hash of the line before it.
    BrokenLink,
    /// It does not name its file, or it names one where it must not.
    Misplaced,
    /// It declares records void that were durable.
    Voided,
}

impl Fault {
    /// All faults, in the order of their declaration.
    const ALL: [Self; 8] = [
        Self::Edited,
        Self::Malformed,
        Self::Missing,
        Self::Inserted,
        Self::Duplicate,
        Self::BrokenLink,
        Self::Misplaced,
        Self::Voided,
    ];

    /// Returns whether the line is valid in itself and takes the place of another.
    pub(super) fn is_out_of_place(self) -> bool {
        matches!(self, Self::Inserted | Self::Duplicate)
    }
}

/// The position of a line in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinePosition {
    pub(crate) segment: u32,
    pub(crate) line: u64,
    pub(crate) offset: u64,
}

/// How many anomalies of one chain are kept; the rest are only counted.
const MAX_KEPT: usize = 4096;

/// The last good line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Last {
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
    pub(crate) kind: RecordKind,
}

/// How far a chain was good. A torn tail takes the chain back to this.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Good {
    pub(crate) records: u64,
    pub(crate) events: u64,
    pub(crate) last: Option<Last>,
}

/// A line that does not fit, or a place where lines are missing.
#[derive(Debug, Clone)]
pub(crate) struct Anomaly {
    pub(crate) fault: Fault,
    /// Its position in the chain: it is damage if the record at this position was durable.
    pub(crate) at: u64,
    /// The first and the last of the records concerned.
    pub(crate) records: Option<(u64, u64)>,
    pub(crate) position: LinePosition,
    pub(crate) message: String,
    /// What was good before it.
    pub(crate) before: Good,
    /// Whether a later segment was written and does not declare it void: then it is damage, however high its position.
    pub(crate) is_certain: bool,
    /// Whether it is only a last line without a line feed, as an unfinished write leaves it.
    pub(crate) is_unfinished: bool,
    /// For missing records: the hash to which the record behind them links.
    pub(crate) link: Option<Digest>,
    /// For a line out of place: its hash.
    pub(crate) hash: Option<Digest>,
}

/// The anomalies of one chain, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Anomalies {
    kept: Vec<Anomaly>,
    /// How many of them, from the first on, are already marked as certain.
    certain: usize,
    /// How many more there were, by kind, and the lowest position among them.
    beyond: [u64; Fault::ALL.len()],
    beyond_at: Option<u64>,
    beyond_is_certain: bool,
    /// The lowest position of the anomalies added since this was last taken.
    lowest_new: Option<u64>,
}

impl Anomalies {
    /// Adds an anomaly. Beyond [`MAX_KEPT`] it is only counted.
    pub(crate) fn push(&mut self, anomaly: Anomaly) {
        // A certain anomaly is damage however far the chain was durable. A line out of place may be a durable record
        // that belongs further up.
        let own =
            anomaly.records.filter(|_| anomaly.fault.is_out_of_place()).map_or(anomaly.at, |(seq, _)| seq);
        let at = if anomaly.is_certain { 0 } else { anomaly.at.min(own) };
        self.lowest_new = Some(self.lowest_new.map_or(at, |lowest| lowest.min(at)));
        if self.kept.len() < MAX_KEPT {
            self.kept.push(anomaly);
            return;
        }
        if let Some(count) = self.beyond.get_mut(anomaly.fault as usize) {
            *count += 1;
        }
        self.beyond_at = Some(self.beyond_at.unwrap_or(anomaly.at).min(anomaly.at));
        self.beyond_is_certain |= anomaly.is_certain;
    }

    /// Returns the lowest position of the anomalies added since the last call, if there are any. They are damage if the
    /// record at that position was durable, and torn otherwise. 0 if one of them is damage in any case.
    pub(crate) fn take_lowest_new(&mut self) -> Option<u64> {
        self.lowest_new.take()
    }

    /// Returns the number of kept anomalies, which is the index of the next one.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns a kept anomaly by its index.
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Anomaly> {
        self.kept.get_mut(number)
    }

    /// Marks all anomalies so far as certain: a later segment was written and does not declare them void.
    pub(crate) fn make_certain(&mut self) {
        for anomaly in self.kept.iter_mut().skip(self.certain) {
            anomaly.is_certain = true;
        }
        self.certain = self.kept.len();
        self.beyond_is_certain |= self.beyond_at.is_some();
    }

    pub(crate) fn kept(&self) -> &[Anomaly] {
        &self.kept
    }

    /// Returns how many anomalies of each kind were not kept, if they are damage given how far the chain was durable.
    pub(crate) fn damage_beyond(&self, durable: u64) -> Option<impl Iterator<Item = (Fault, u64)>> {
        let is_damage = self.beyond_at? <= durable || self.beyond_is_certain;
        is_damage.then(|| Fault::ALL.into_iter().zip(self.beyond))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anomaly(fault: Fault, at: u64, is_certain: bool) -> Anomaly {
        Anomaly {
            fault,
            at,
            records: None,
            position: LinePosition { segment: 1, line: 1, offset: 0 },
            message: String::new(),
            before: Good::default(),
            is_certain,
            is_unfinished: false,
            link: None,
            hash: None,
        }
    }

    /// As many anomalies as are kept, all at record 1.
    fn full() -> Anomalies {
        let mut anomalies = Anomalies::default();
        (0..MAX_KEPT).for_each(|_| anomalies.push(anomaly(Fault::Edited, 1, false)));
        anomalies
    }

    fn beyond(anomalies: &Anomalies, durable: u64) -> Option<(u64, u64)> {
        let counts: Vec<(Fault, u64)> = anomalies.damage_beyond(durable)?.collect();
        let of = |fault| counts.iter().find(|(other, _)| *other == fault).unwrap().1;
        assert_eq!(
            counts.iter().map(|(_, count)| count).sum::<u64>(),
            of(Fault::Edited) + of(Fault::Malformed)
        );
        Some((of(Fault::Edited), of(Fault::Malformed)))
    }

    #[test]
    fn what_is_not_kept_is_counted_by_kind() {
        let mut anomalies = full();
        assert_eq!((anomalies.len(), beyond(&anomalies, u64::MAX)), (MAX_KEPT, None));
        for (fault, at) in [(Fault::Malformed, 90), (Fault::Edited, 50), (Fault::Malformed, 70)] {
            anomalies.push(anomaly(fault, at, false));
        }
        assert_eq!((anomalies.len(), anomalies.kept().len()), (MAX_KEPT, MAX_KEPT));
        assert!(anomalies.get_mut(MAX_KEPT - 1).is_some() && anomalies.get_mut(MAX_KEPT).is_none());
        assert_eq!(beyond(&anomalies, 49), None);
        assert_eq!(beyond(&anomalies, 50), Some((1, 2)));
        assert_eq!(beyond(&anomalies, 51), Some((1, 2)));
    }

    #[test]
    fn a_certain_anomaly_is_damage_however_high() {
        let mut anomalies = full();
        anomalies.push(anomaly(Fault::Edited, 50, false));
        anomalies.push(anomaly(Fault::Malformed, 50, true));
        anomalies.push(anomaly(Fault::Edited, 50, false));
        assert_eq!(beyond(&anomalies, 0), Some((2, 1)));
        let mut anomalies = full();
        anomalies.make_certain();
        assert!(anomalies.kept().iter().all(|anomaly| anomaly.is_certain));
        // So far there was none beyond those that are kept.
        anomalies.push(anomaly(Fault::Edited, 50, false));
        assert_eq!(beyond(&anomalies, 49), None);
        anomalies.make_certain();
        assert_eq!(beyond(&anomalies, 49), Some((1, 0)));
        anomalies.make_certain();
        assert_eq!(beyond(&anomalies, 49), Some((1, 0)));
    }

    #[test]
    fn an_anomaly_after_a_segment_line_is_not_certain() {
        let mut anomalies = Anomalies::default();
        anomalies.push(anomaly(Fault::Edited, 5, false));
        anomalies.make_certain();
        anomalies.push(anomaly(Fault::Edited, 6, false));
        let certain: Vec<bool> = anomalies.kept().iter().map(|anomaly| anomaly.is_certain).collect();
        assert_eq!(certain, [true, false]);
    }
}
