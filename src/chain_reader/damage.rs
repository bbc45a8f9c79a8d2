//! How far a chain was durable, and what that makes of what does not fit: damage, or a torn end.
//!
//! docs/format.md, section 6, has the rules.

use std::borrow::Cow;

use super::{
    anomaly::{Anomaly, Fault, Last},
    follow::{Follow, missing_records},
    layout::SegmentFile,
};
use crate::{chain::Digest, format::Kind};

/// What is known to have been durable of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Durable {
    /// The last record that retention removed or that is trusted, and its hash. The chain is judged from the
    /// one after it on.
    pub(crate) floor: (u64, Digest),
    /// The last record known to have been durable: M in docs/format.md.
    pub(crate) through: u64,
}

impl Durable {
    /// What a chain that was read says itself, what of it is trusted, and what others claim that it had.
    pub(crate) fn of(
        follow: &Follow,
        trusted: Option<(u64, Digest)>,
        claimed: impl IntoIterator<Item = u64>,
    ) -> Self {
        let floor = [follow.facts.pruned, trusted].into_iter().flatten().max_by_key(|(seq, _)| *seq);
        let floor = floor.unwrap_or((0, Digest::ZERO));
        let own = durable_by_itself(follow).max(floor.0);
        Self { floor, through: claimed.into_iter().fold(own, u64::max) }
    }

    /// Whether something that does not fit is damage; else it is part of a torn end.
    pub(crate) fn makes_damage(&self, anomaly: &Anomaly) -> bool {
        anomaly.is_certain || anomaly.at <= self.through
    }

    /// The anomaly, as far as it lies above what is removed or trusted.
    pub(crate) fn above_floor<'a>(&self, anomaly: &'a Anomaly) -> Option<Cow<'a, Anomaly>> {
        let (through, hash) = self.floor;
        if anomaly.at > through {
            return Some(Cow::Borrowed(anomaly));
        }
        let (Fault::Missing, Some((_, last))) = (anomaly.fault, anomaly.records) else { return None };
        let mut rest = anomaly.clone();
        if last > through {
            rest.records = Some((through + 1, last));
            rest.message = missing_records(last - through);
            return Some(Cow::Owned(rest));
        }
        // Missing up to what was removed: the line behind must be the first that was kept.
        (last == through && anomaly.link != Some(hash)).then(|| {
            rest.fault = Fault::BrokenLink;
            rest.message = format!("the line does not link to record {through}, the last that was removed");
            Cow::Owned(rest)
        })
    }
}

/// How far the chain itself says that it was durable: its marks, and a last good `close`.
pub(crate) fn durable_by_itself(follow: &Follow) -> u64 {
    // Nothing is written behind a `close` before it is durable, and it is synced before anybody hears of it.
    let closed = follow.good.last.filter(|last| last.kind == Kind::Close).map_or(0, |last| last.seq);
    follow.facts.mark.max(closed)
}

/// Where a chain goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoOn {
    /// The last record that counts.
    pub(crate) last: Last,
    /// The file in which what counts ends, and how many of its bytes count.
    pub(crate) segment: u32,
    pub(crate) end: u64,
    /// The first record that was durable and is bad or missing.
    pub(crate) damaged: Option<u64>,
    /// Whether anything stands behind what counts.
    pub(crate) is_torn: bool,
}

/// Decides where a chain goes on whose last files were followed, the first of them from its good first line on.
/// `None` where it ends below what was durable, so that it must be left alone.
///
/// Nothing durable becomes void, and nothing that shows damage: then verification says afterwards what it said
/// before.
pub(crate) fn go_on(follow: &Follow, durable: &Durable, files: &[SegmentFile]) -> Option<GoOn> {
    let last = follow.good.last.filter(|last| last.seq >= durable.through)?;
    let mut damaged: Option<u64> = None;
    let mut torn: Option<&Anomaly> = None;
    let mut shows_damage_behind = false;
    for anomaly in follow.anomalies.kept().iter().filter(|anomaly| durable.above_floor(anomaly).is_some()) {
        if durable.makes_damage(anomaly) {
            damaged = Some(damaged.map_or(anomaly.at, |first| first.min(anomaly.at)));
            shows_damage_behind |= torn.is_some();
        } else if is_missing_record(anomaly, damaged, durable) {
            shows_damage_behind |= torn.is_some();
        } else {
            torn = torn.or(Some(anomaly));
        }
    }
    if follow.anomalies.damage_beyond(durable.through).is_some() {
        damaged = damaged.or(Some(durable.through));
        shows_damage_behind = true;
    }
    // Everything from the first bad byte above the mark on is torn, good lines included.
    let cut = torn.filter(|_| !shows_damage_behind).and_then(|torn| {
        let last = torn.before.last.filter(|last| last.seq >= durable.through)?;
        let (segment, end) = end_before(torn, files)?;
        Some(GoOn { last, segment, end, damaged, is_torn: true })
    });
    if cut.is_none() && torn.is_some() && damaged.is_none() {
        // Where nothing is damaged, nothing may count that is torn.
        return None;
    }
    cut.or_else(|| {
        let newest = files.iter().rfind(|file| file.bytes > 0)?;
        Some(GoOn { last, segment: newest.name.segment, end: newest.bytes, damaged, is_torn: false })
    })
}

/// Whether a line out of place is a durable record that may be missing where it belongs: what was durable must not
/// become void. Any other may be what a torn sector held before.
fn is_missing_record(anomaly: &Anomaly, damaged: Option<u64>, durable: &Durable) -> bool {
    let is_out_of_place = matches!(anomaly.fault, Fault::Inserted | Fault::Duplicate);
    let (Some((seq, _)), Some(first)) = (anomaly.records, damaged) else { return false };
    is_out_of_place && first <= seq && seq <= durable.through
}

/// The file and the offset at which what stands before an anomaly ends.
fn end_before(anomaly: &Anomaly, files: &[SegmentFile]) -> Option<(u32, u64)> {
    let place = anomaly.place;
    if place.offset > 0 {
        return Some((place.segment, place.offset));
    }
    let before = files.iter().rfind(|file| file.name.segment < place.segment && file.bytes > 0)?;
    Some((before.name.segment, before.bytes))
}
