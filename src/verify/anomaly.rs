//! What does not fit, before it is known whether it was durable. Only when a chain has been read to
//! its end is it known how far it was durable; until then everything odd is kept with its position.

use crate::{chain::Digest, format::Kind, segment_name::ChainNumber};

use super::finding::{Finding, FindingKind, Place};

/// How many anomalies of one chain are kept; the others are counted.
const MAX_KEPT: usize = 4096;

/// The last good line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) seq: u64,
    pub(super) hash: Digest,
    pub(super) kind: Kind,
}

/// How far a chain was good: what a torn tail takes it back to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Good {
    pub(super) records: u64,
    pub(super) events: u64,
    pub(super) last: Option<Last>,
}

/// Something that does not fit.
#[derive(Debug, Clone)]
pub(super) struct Anomaly {
    pub(super) kind: FindingKind,
    /// Its position in the chain: it is damage if this record was durable.
    pub(super) at: u64,
    /// The records it is about, the first and the last.
    pub(super) records: Option<(u64, u64)>,
    pub(super) place: Place,
    pub(super) message: String,
    /// What was good before it.
    pub(super) before: Good,
    /// A later segment was written after it and does not declare it void: damage, however high.
    pub(super) is_certain: bool,
    /// Only a last line without its end: what an unfinished write looks like.
    pub(super) is_unfinished: bool,
    /// For missing records: what the record behind them links to.
    pub(super) link: Option<Digest>,
    /// For a line out of place: its hash.
    pub(super) hash: Option<Digest>,
}

impl Anomaly {
    pub(super) fn finding(&self, chain: ChainNumber) -> Finding {
        Finding {
            kind: self.kind,
            chain,
            place: Some(self.place),
            sequence: self.records.map(|(first, _)| first),
            message: self.message.clone(),
        }
    }
}

/// The anomalies of one chain in the order of their positions.
#[derive(Debug, Default)]
pub(super) struct Anomalies {
    kept: Vec<Anomaly>,
    /// Up to here they are known to be certain.
    certain: usize,
    /// How many more there were, by kind, and the lowest position among them.
    beyond: [u64; FindingKind::COUNT],
    beyond_at: Option<u64>,
    beyond_is_certain: bool,
}

impl Anomalies {
    pub(super) fn push(&mut self, anomaly: Anomaly) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(anomaly);
            return;
        }
        if let Some(count) = self.beyond.get_mut(anomaly.kind as usize) {
            *count += 1;
        }
        self.beyond_at = Some(self.beyond_at.unwrap_or(anomaly.at).min(anomaly.at));
        self.beyond_is_certain |= anomaly.is_certain;
    }

    /// The number of anomalies so far: a name for the next one.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Anomaly> {
        self.kept.get_mut(number)
    }

    /// A later segment does not void what stands before it: all of it is damage.
    pub(super) fn make_certain(&mut self) {
        for anomaly in self.kept.iter_mut().skip(self.certain) {
            anomaly.is_certain = true;
        }
        self.certain = self.kept.len();
        self.beyond_is_certain |= self.beyond_at.is_some();
    }

    pub(super) fn kept(&self) -> &[Anomaly] {
        &self.kept
    }

    /// What was not kept, if it is damage given how far the chain was durable.
    pub(super) fn damage_beyond(&self, durable: u64) -> Option<&[u64; FindingKind::COUNT]> {
        let is_damage = self.beyond_at? <= durable || self.beyond_is_certain;
        is_damage.then_some(&self.beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anomaly(kind: FindingKind, at: u64, is_certain: bool) -> Anomaly {
        Anomaly {
            kind,
            at,
            records: None,
            place: Place { segment: 1, line: 1, offset: 0 },
            message: String::new(),
            before: Good::default(),
            is_certain,
            is_unfinished: false,
            link: None,
            hash: None,
        }
    }

    /// As many as are kept, at record 1.
    fn full() -> Anomalies {
        let mut anomalies = Anomalies::default();
        (0..MAX_KEPT).for_each(|_| anomalies.push(anomaly(FindingKind::Edited, 1, false)));
        anomalies
    }

    fn counts(edited: u64, malformed: u64) -> [u64; FindingKind::COUNT] {
        let mut counts = [0; FindingKind::COUNT];
        (counts[FindingKind::Edited as usize], counts[FindingKind::Malformed as usize]) = (edited, malformed);
        counts
    }

    #[test]
    fn what_is_not_kept_is_counted_by_kind() {
        let mut anomalies = full();
        assert_eq!((anomalies.len(), anomalies.damage_beyond(u64::MAX)), (MAX_KEPT, None));
        for (kind, at) in
            [(FindingKind::Malformed, 90), (FindingKind::Edited, 50), (FindingKind::Malformed, 70)]
        {
            anomalies.push(anomaly(kind, at, false));
        }
        assert_eq!((anomalies.len(), anomalies.kept().len()), (MAX_KEPT, MAX_KEPT));
        assert!(anomalies.get_mut(MAX_KEPT - 1).is_some() && anomalies.get_mut(MAX_KEPT).is_none());
        assert_eq!(anomalies.damage_beyond(49), None);
        assert_eq!(anomalies.damage_beyond(50), Some(&counts(1, 2)));
        assert_eq!(anomalies.damage_beyond(51), Some(&counts(1, 2)));
    }

    #[test]
    fn what_is_certain_is_damage_however_high() {
        let mut anomalies = full();
        anomalies.push(anomaly(FindingKind::Edited, 50, false));
        anomalies.push(anomaly(FindingKind::Malformed, 50, true));
        anomalies.push(anomaly(FindingKind::Edited, 50, false));
        assert_eq!(anomalies.damage_beyond(0), Some(&counts(2, 1)));
        let mut anomalies = full();
        anomalies.make_certain();
        assert!(anomalies.kept().iter().all(|anomaly| anomaly.is_certain));
        // There was nothing beyond those that are kept.
        anomalies.push(anomaly(FindingKind::Edited, 50, false));
        assert_eq!(anomalies.damage_beyond(49), None);
        anomalies.make_certain();
        assert_eq!(anomalies.damage_beyond(49), Some(&counts(1, 0)));
        anomalies.make_certain();
        assert_eq!(anomalies.damage_beyond(49), Some(&counts(1, 0)));
    }

    #[test]
    fn what_comes_after_a_segment_line_is_not_certain() {
        let mut anomalies = Anomalies::default();
        anomalies.push(anomaly(FindingKind::Edited, 5, false));
        anomalies.make_certain();
        anomalies.push(anomaly(FindingKind::Edited, 6, false));
        let certain: Vec<bool> = anomalies.kept().iter().map(|anomaly| anomaly.is_certain).collect();
        assert_eq!(certain, [true, false]);
    }
}
