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
