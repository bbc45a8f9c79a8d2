//! The fast path: a piece of a file in which nothing is wrong, checked without knowing what stands
//! before it, so that pieces can be checked at the same time.

use crate::{
    chain::Digest,
    format::{Control, Kind, LineParser, control_of},
    read::lines::split,
};

/// What a faultless piece is to its chain.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) first_seq: u64,
    pub(super) previous: Digest,
    pub(super) last_seq: u64,
    pub(super) last_hash: Digest,
    pub(super) last_kind: Kind,
    pub(super) lines: u64,
    pub(super) events: u64,
    /// The highest `durable` mark.
    pub(super) mark: u64,
    pub(super) controls: Vec<(u64, Control)>,
}

/// Checks a piece of whole lines. `None` where anything needs a closer look, which the scan takes
/// with what it knows of the chain; so this says only yes, or nothing.
pub(super) fn summarize(parser: &mut LineParser, bytes: &[u8]) -> Option<Summary> {
    let mut summary: Option<Summary> = None;
    for (_, line) in split(bytes) {
        let line = parser.parse(line).ok()?;
        // Where a file begins the scan looks for itself: what follows would be checked twice.
        if line.kind == Kind::Segment || !line.hash_is_right() {
            return None;
        }
        let so_far = summary.get_or_insert(Summary {
            first_seq: line.seq,
            previous: line.previous,
            last_seq: line.seq.checked_sub(1)?,
            last_hash: line.previous,
            last_kind: line.kind,
            lines: 0,
            events: 0,
            mark: 0,
            controls: Vec::new(),
        });
        if so_far.last_seq.checked_add(1) != Some(line.seq) || so_far.last_hash != line.previous {
            return None;
        }
        so_far.last_seq = line.seq;
        so_far.last_hash = line.hash;
        so_far.last_kind = line.kind;
        so_far.lines += 1;
        so_far.events += u64::from(line.kind == Kind::Event);
        so_far.mark = so_far.mark.max(line.durable.unwrap_or(0));
        if let Some(control) = control_of(&line).ok()? {
            so_far.controls.push((line.seq, control));
        }
    }
    summary
}
