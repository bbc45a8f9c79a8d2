//! The fast path for a chunk of a file in which nothing is wrong. A chunk is checked without knowing what precedes it,
//! so several chunks can be checked in parallel.

use super::lines::split;
use crate::{
    chain::Digest,
    format::{Control, LineParser, RecordKind, control_of},
};

/// What a faultless chunk adds to its chain.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) first_seq: u64,
    pub(crate) previous: Digest,
    pub(crate) last_seq: u64,
    pub(crate) last_hash: Digest,
    pub(crate) last_kind: RecordKind,
    pub(crate) lines: u64,
    pub(crate) events: u64,
    /// The highest `durable` mark.
    pub(crate) mark: u64,
    pub(crate) controls: Vec<(u64, Control)>,
}

/// Checks a chunk of whole lines. Returns `None` where anything needs a closer look: then `follow` checks it line by
/// line, with what it knows about the chain. So this function accepts a chunk or leaves it undecided; it never rejects
/// one.
pub(crate) fn summarize(parser: &mut LineParser, bytes: &[u8]) -> Option<Summary> {
    let mut summary: Option<Summary> = None;
    for (_, line) in split(bytes) {
        let line = parser.parse(line).ok()?;
        // `join` refuses a chunk with the first line of a file, so all of it would be checked twice.
        if line.kind == RecordKind::Segment || !line.hash_is_right() {
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
        so_far.events += u64::from(line.kind == RecordKind::Event);
        so_far.mark = so_far.mark.max(line.durable.unwrap_or(0));
        if let Some(control) = control_of(&line, false).ok()? {
            so_far.controls.push((line.seq, control));
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::log::Chain;

    fn summary(bytes: &[u8]) -> Option<Summary> {
        summarize(&mut LineParser::default(), bytes)
    }

    fn lines(chain: &Chain) -> Vec<&[u8]> {
        chain.segments[&1].split_inclusive(|byte| *byte == b'\n').collect()
    }

    #[test]
    fn a_chunk_without_fault_is_summed_up() {
        let chain = Chain::new(0).event("a").gap(1, 2).event_marked("b", None).event("c").mark();
        let summary = summary(&lines(&chain)[2..].concat()).unwrap();
        assert_eq!((summary.first_seq, summary.previous), (3, chain.hashes[&2]));
        assert_eq!((summary.last_seq, summary.last_hash), (7, chain.hash));
        assert_eq!(
            (summary.last_kind, summary.lines, summary.events, summary.mark),
            (RecordKind::Mark, 5, 3, 6)
        );
        let controls: Vec<u64> = summary.controls.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(controls, [4, 7]);
    }

    #[test]
    fn anything_else_needs_a_closer_look() {
        let chain = Chain::new(0).events(5);
        let lines = lines(&chain);
        assert!(summary(&lines[2..].concat()).is_some());
        assert!(summary(b"").is_none());
        // The first line of a file.
        assert!(summary(lines[0]).is_none());
        // A line is missing, occurs twice, is out of order, or is malformed.
        for chunk in [[lines[2], lines[4]], [lines[2], lines[2]], [lines[3], lines[2]], [lines[2], b"x\n"]] {
            assert!(summary(&chunk.concat()).is_none());
        }
        let mut edited = lines[2].to_vec();
        edited[20] ^= 1;
        assert!(summary(&edited).is_none());
        // The number is right and the link is wrong, and the other way round.
        let forged = Chain { hash: Digest::ZERO, ..Chain::new(0).events(1) }.events(1);
        let too_high = Chain { seq: 4, ..Chain::new(0).events(1) }.events(1);
        for chain in [&forged, &too_high] {
            assert!(summary(&self::lines(chain)[2..].concat()).is_none());
        }
    }
}
