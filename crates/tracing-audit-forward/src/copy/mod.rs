//! Verifies a copy of a log, given as the lines that a store returns.

mod line;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use tracing_audit::{Digest, Head};

#[cfg(feature = "nats")]
pub(crate) use self::line::MAX_SEQ;
pub(crate) use self::line::{CopiedLine, Witnessed, digest_of, is_chain_id};
pub use self::report::{
    CopyBehind, CopyChain, CopyFinding, CopyFindingKind, CopyHole, CopyReport, HoleReason,
};
use crate::sink::{Gap, Position};

/// Maximum number of findings that a report lists. All are counted.
const MAX_FINDINGS: usize = 1000;

/// Verifies the lines of a copy: the hash of each, its link to the one before, and that none is missing.
///
/// It takes the lines of each chain in the order of the copy; the lines of different chains may be
/// interleaved. A copy has durable records only, so every hole needs an explanation: a gap that the forwarder
/// reported, records that retention removed before, records that the store refused, or the place where
/// forwarding began.
///
/// What it cannot find: lines missing at the end, and lines rewritten by somebody who knows the format. Give
/// it the heads that were kept elsewhere ([`expect_head`](Self::expect_head)), or compare the last record of
/// each chain with the log.
///
/// Chains of one log name each other's last records. Where the copy does not reach what another chain names,
/// the report says so ([`CopyReport::behind`]), but does not call it damage: a chain that is not forwarded
/// yet, or is late, looks the same as one that somebody removed.
#[derive(Debug, Default)]
pub struct CopyChecker {
    chains: BTreeMap<String, Chain>,
    findings: Vec<CopyFinding>,
    count: u64,
    expected: BTreeSet<Head>,
    /// The numbers of the expected records, so that other lines cost nothing.
    expected_seqs: BTreeSet<u64>,
    /// The highest record of each chain that a line of another chain names as durable, by the id of the
    /// chain.
    witnessed: BTreeMap<String, Witnessed>,
}

/// What is known of a chain so far.
#[derive(Debug, Default)]
struct Chain {
    number: Option<u16>,
    records: u64,
    first: Option<u64>,
    /// The last record that is in place, with its hash if that can be read.
    last: Option<(u64, Option<Digest>)>,
    holes: Vec<Hole>,
    gaps: Vec<(u64, u64)>,
    rejected: BTreeSet<u64>,
    /// `through` and `hash` of each `prune` record, and of each `segment` line that names one.
    pruned: BTreeMap<u64, Option<Digest>>,
    /// The record after which forwarding began.
    begin: Option<u64>,
    /// The hashes of the records for which a head is expected.
    seen: BTreeMap<u64, Digest>,
    /// Hashes of the same records, as the records after them link to them.
    linked: BTreeMap<u64, Digest>,
}

#[derive(Debug)]
struct Hole {
    first: u64,
    last: u64,
    /// The hash that the record after it links to.
    previous: Option<Digest>,
}

impl CopyChecker {
    /// Creates a checker that knows of no gaps, refusals or heads yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the next line of a chain. A line feed at its end is ignored.
    pub fn line(&mut self, chain_id: &str, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match CopiedLine::parse(line) {
            Ok(parsed) => self.parsed(chain_id, &parsed),
            Err(bad) => self.bad(chain_id, None, line, bad),
        }
    }

    /// Adds a gap: these records were removed before they could be copied.
    pub fn gap(&mut self, gap: &Gap) {
        let chain = self.chain(&gap.chain_id);
        chain.number.get_or_insert(gap.chain);
        chain.gaps.push((gap.first_seq, gap.last_seq));
    }

    /// Adds a record that the store refused, as listed in `forward-<name>.rejected.jsonl`.
    pub fn rejected(&mut self, chain_id: &str, seq: u64) {
        self.chain(chain_id).rejected.insert(seq);
    }

    /// Sets the record after which forwarding of a chain began, so that the copy has none before.
    pub fn begins_after(&mut self, chain_id: &str, seq: u64) {
        self.chain(chain_id).begin = Some(seq);
    }

    /// Expects a record with this hash, as named by a head that was kept elsewhere. A copy that has another
    /// record in its place, or none, is damaged. Call it before the first [`line`](Self::line).
    ///
    /// If the record is in an explained hole, or the copy begins after it, the record after it may show its
    /// hash. Otherwise the head is one of [`CopyReport::heads_not_compared`].
    pub fn expect_head(&mut self, head: impl Into<Head>) {
        let head = head.into();
        self.expected_seqs.insert(head.seq());
        self.expected.insert(head);
    }

    /// Begins a second copy of a chain, such as that of a log whose host was renamed: it is checked
    /// separately. Returns the name to use in place of the chain's id from there on.
    #[cfg(feature = "objects")]
    pub(crate) fn another(&mut self, chain_id: &str, of: &crate::origin::Origin) -> String {
        let first = self.chain(chain_id);
        let begun = Chain { begin: first.begin, rejected: first.rejected.clone(), ..Chain::default() };
        let name = format!("{chain_id} of {of}");
        self.chains.insert(name.clone(), begun);
        name
    }

    /// Adds what a store finds by itself, such as a column that differs from the line.
    pub fn finding(&mut self, chain_id: &str, seq: u64, kind: CopyFindingKind) {
        self.count += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(CopyFinding { chain_id: chain_id.to_owned(), seq, kind });
        }
    }

    /// Returns the number of a chain, if its lines have shown it.
    #[cfg(feature = "postgres")]
    pub(crate) fn number(&self, chain_id: &str) -> Option<u16> {
        self.chains.get(chain_id)?.number
    }

    /// Explains the holes, compares the heads, and returns the report.
    pub fn finish(mut self) -> CopyReport {
        let mut chains = Vec::new();
        let mut holes = Vec::new();
        let found = std::mem::take(&mut self.chains);
        let mut heads_not_compared = Vec::new();
        for head in std::mem::take(&mut self.expected) {
            match compare(head, &found) {
                Compared::Same => {}
                Compared::NotHere => heads_not_compared.push(head),
                Compared::Finding(id, kind) => self.finding(&id, head.seq(), kind),
            }
        }
        let behind = behind(std::mem::take(&mut self.witnessed), &found);
        for (id, chain) in found {
            for hole in &chain.holes {
                if chain.contradicts(hole) {
                    self.finding(&id, hole.last.saturating_add(1), CopyFindingKind::Link);
                }
                for (range, reason) in chain.explain(hole) {
                    let (first_seq, last_seq) = range.into_inner();
                    if reason == HoleReason::Unexplained {
                        self.finding(&id, first_seq, CopyFindingKind::Missing { through: last_seq });
                    }
                    holes.push(CopyHole { chain_id: id.clone(), first_seq, last_seq, reason });
                }
            }
            let last = chain
                .last
                .and_then(|(seq, hash)| Some(Position { chain_id: id.as_str().into(), seq, hash: hash? }));
            let Chain { number, records, first: first_seq, .. } = chain;
            chains.push(CopyChain { chain_id: id, chain: number, records, first_seq, last });
        }
        CopyReport { chains, findings: self.findings, count: self.count, holes, heads_not_compared, behind }
    }

    fn chain(&mut self, chain_id: &str) -> &mut Chain {
        self.chains.entry(chain_id.to_owned()).or_default()
    }

    pub(crate) fn parsed(&mut self, chain_id: &str, line: &CopiedLine<'_>) {
        for witnessed in line.witnessed() {
            let is_higher = |known: &Witnessed| known.seq < witnessed.seq;
            if self.witnessed.get(&witnessed.id).is_none_or(is_higher) {
                self.witnessed.insert(witnessed.id.clone(), witnessed);
            }
        }
        let is_expected = self.expected_seqs.contains(&line.seq);
        let before = line.seq - 1;
        let is_before_expected = self.expected_seqs.contains(&before);
        let chain = self.chain(chain_id);
        // The first one counts: another one in the same place is a finding in itself.
        if is_expected {
            chain.seen.entry(line.seq).or_insert(line.hash);
        }
        if is_before_expected {
            chain.linked.entry(before).or_insert(line.previous);
        }
        let found = chain.place(line.seq, Some(line.hash), Some(line.previous));
        let is_of_chain = chain.learn(chain_id, line);
        if let Some(kind) = found {
            self.finding(chain_id, line.seq, kind);
        }
        if !is_of_chain {
            self.finding(chain_id, line.seq, CopyFindingKind::OtherChain);
        }
    }

    /// Handles a bad line under its key, or in the place of the record that belongs there: the number in the
    /// line cannot be trusted.
    pub(crate) fn bad(&mut self, chain_id: &str, key: Option<u64>, line: &[u8], bad: CopyFindingKind) {
        let chain = self.chain(chain_id);
        let seq = key.unwrap_or_else(|| chain.expected());
        // The next record may still link to the hash that the line claims.
        let found = chain.place(seq, line::claimed_hash(line), None);
        self.finding(chain_id, seq, bad);
        if let Some(kind) = found {
            self.finding(chain_id, seq, kind);
        }
    }
}

/// The result of looking for the record of a head.
enum Compared {
    Same,
    /// The copy legitimately lacks it, and nothing in the copy shows its hash.
    NotHere,
    Finding(String, CopyFindingKind),
}

/// Compares a head with the chains that may be its own: a copy may hold several logs, each with a chain of
/// this number.
fn compare(head: Head, chains: &BTreeMap<String, Chain>) -> Compared {
    let seq = head.seq();
    // A chain that was copied from its middle may not show its number. Its hash covers all records before it.
    let may_be_own = |chain: &Chain| chain.number.is_none_or(|number| number == head.chain());
    let own: Vec<(&String, &Chain)> = chains.iter().filter(|(_, chain)| may_be_own(chain)).collect();
    let hash_in = |chain: &Chain| chain.seen.get(&seq).or_else(|| chain.linked.get(&seq)).copied();
    if own.iter().any(|(_, chain)| hash_in(chain) == Some(head.hash())) {
        return Compared::Same;
    }
    if own.iter().any(|(_, chain)| hash_in(chain).is_none() && chain.is_away(seq)) {
        return Compared::NotHere;
    }
    let other = own
        .iter()
        .find(|(_, chain)| chain.seen.contains_key(&seq))
        .or_else(|| own.iter().find(|(_, chain)| chain.linked.contains_key(&seq)));
    if let Some((id, _)) = other {
        return Compared::Finding((*id).clone(), CopyFindingKind::OtherThanHead { head });
    }
    let id = own.first().map_or_else(|| format!("{:03}", head.chain()), |(id, _)| (*id).clone());
    Compared::Finding(id, CopyFindingKind::NoRecordOfHead { head })
}

/// Returns the chains that do not reach what another one names. Records that were not to be forwarded do not
/// count.
fn behind(witnessed: BTreeMap<String, Witnessed>, chains: &BTreeMap<String, Chain>) -> Vec<CopyBehind> {
    let reached = |id: &str| {
        let chain = chains.get(id)?;
        chain.last.map(|(seq, _)| seq).max(chain.begin)
    };
    let behind = witnessed.into_values().filter_map(|Witnessed { chain, id, seq, hash }| {
        let last_seq = chains.get(&id).and_then(|chain| chain.last).map(|(seq, _)| seq);
        let position = Position { chain_id: id.as_str().into(), seq, hash };
        reached(&id).is_none_or(|reached| reached < seq).then_some(CopyBehind { chain, position, last_seq })
    });
    behind.collect()
}

impl Chain {
    /// Returns whether it is explained that the copy lacks a record.
    fn is_away(&self, seq: u64) -> bool {
        let hole = self.holes.iter().find(|hole| (hole.first..=hole.last).contains(&seq));
        let explained = hole.map(|hole| self.explain(hole)).unwrap_or_default();
        let is_explained = explained
            .iter()
            .any(|(range, reason)| range.contains(&seq) && *reason != HoleReason::Unexplained);
        is_explained || self.begin.is_some_and(|begin| seq <= begin)
    }

    /// Returns the number of the next record.
    fn expected(&self) -> u64 {
        match (self.last, self.begin) {
            (Some((seq, _)), _) | (None, Some(seq)) => seq.saturating_add(1),
            (None, None) => 1,
        }
    }

    /// Puts a record into its place. `previous` is the hash that it links to, if that is to be checked.
    fn place(&mut self, seq: u64, hash: Option<Digest>, previous: Option<Digest>) -> Option<CopyFindingKind> {
        self.records += 1;
        let expected = self.expected();
        // The state does not move back, so that one misplaced record does not make all later ones look
        // wrong.
        if seq < expected && (self.last.is_some() || seq == 0) {
            let is_same = self.last.is_some_and(|last| last == (seq, hash));
            return Some(if is_same { CopyFindingKind::Repeated } else { CopyFindingKind::Extra });
        }
        let before = match self.last {
            Some((_, hash)) => hash,
            // The first record of a chain links to zeros.
            None if seq == 1 => digest_of(&[0; 32]),
            None => None,
        };
        if seq > expected {
            self.holes.push(Hole { first: expected, last: seq - 1, previous });
        }
        self.first.get_or_insert(seq);
        self.last = Some((seq, hash));
        let is_linked = match (before, previous) {
            // After a hole there is nothing to compare with; `contradicts` checks the link where
            // retention named its hash.
            _ if seq > expected => true,
            (Some(before), Some(previous)) => before == previous,
            _ => true,
        };
        (!is_linked).then_some(CopyFindingKind::Link)
    }

    /// Takes from a good line what it says of its chain. Returns `false` if the line is of another chain.
    fn learn(&mut self, chain_id: &str, line: &CopiedLine<'_>) -> bool {
        if let Some((through, hash)) = line.prune()
            && through < line.seq
        {
            self.pruned.insert(through, hash);
        }
        let Some(identity) = line.identity() else { return true };
        // After the id follows the name of the copy, if there are several.
        let is_of_chain = chain_id.split(' ').next() == Some(&*identity.id);
        if is_of_chain {
            self.number.get_or_insert(identity.chain);
        }
        is_of_chain && self.number == Some(identity.chain)
    }

    /// Returns whether the record after a hole links to another record than the last one that retention
    /// removed.
    fn contradicts(&self, hole: &Hole) -> bool {
        match (self.pruned.get(&hole.last), hole.previous) {
            (Some(Some(pruned)), Some(previous)) => *pruned != previous,
            _ => false,
        }
    }

    /// Divides a hole by what explains it.
    fn explain(&self, hole: &Hole) -> Vec<(RangeInclusive<u64>, HoleReason)> {
        let through = self.pruned.last_key_value().map_or(0, |(through, _)| *through);
        let mut parts = Vec::new();
        let mut at = hole.first;
        while at <= hole.last {
            let gap = self.gaps.iter().filter(|(first, last)| (*first..=*last).contains(&at));
            let (end, reason) = if let Some(end) = gap.map(|(_, last)| *last).max() {
                (end, HoleReason::Gap)
            } else if at <= through {
                (self.next_gap(at).min(through), HoleReason::Pruned)
            } else if self.rejected.contains(&at) {
                (at, HoleReason::Rejected)
            } else {
                let rejected = self.rejected.range(at..).next().map_or(u64::MAX, |seq| seq - 1);
                (self.next_gap(at).min(rejected), HoleReason::Unexplained)
            };
            // Each part ends where another explanation may begin, so the parts of a hole never overlap.
            let end = end.min(hole.last);
            parts.push((at..=end, reason));
            at = end.saturating_add(1);
        }
        parts
    }

    /// Returns the last number before the next gap.
    fn next_gap(&self, at: u64) -> u64 {
        self.gaps
            .iter()
            .filter(|(first, _)| *first > at)
            .map(|(first, _)| first - 1)
            .min()
            .unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    /// Returns the lines of a chain: a `segment` line and this many events.
    fn chain(events: u64) -> Vec<String> {
        let segment = format!(
            r#""kind":"segment","segment":{{"format":1,"id":"{ID}","chain":"007","segment":1,"after":[],"chains":{{}}}}"#
        );
        let members = std::iter::once(segment).chain((0..events).map(|_| r#""kind":"event""#.to_owned()));
        let mut previous = "0".repeat(64);
        let seal = |(seq, members): (u64, String)| {
            let body = format!(r#"{{"seq":{seq},{members},"_prev_hash":"{previous}""#);
            previous = digest_of(&Sha256::digest(format!("\0{body}}}"))).unwrap().to_string();
            format!(r#"{body},"_hash":"{previous}"}}"#)
        };
        (1..).zip(members).map(seal).collect()
    }

    fn report<T: AsRef<[u8]>>(mut checker: CopyChecker, lines: &[T]) -> CopyReport {
        for line in lines {
            checker.line(ID, line.as_ref());
        }
        checker.finish()
    }

    #[track_caller]
    fn check_report(report: &CopyReport, expected: &[(u64, CopyFindingKind)]) {
        let found: Vec<_> =
            report.findings().iter().map(|finding| (finding.seq, finding.kind.clone())).collect();
        assert_eq!(found, expected, "{report}");
        assert_eq!(report.is_intact(), expected.is_empty());
    }

    #[track_caller]
    fn check<T: AsRef<[u8]>>(checker: CopyChecker, lines: &[T], expected: &[(u64, CopyFindingKind)]) {
        check_report(&report(checker, lines), expected);
    }

    #[test]
    fn a_copy_of_every_line_is_intact() {
        let report = report(CopyChecker::new(), &chain(5));
        check_report(&report, &[]);
        assert_eq!((report.records(), report.chains().len()), (6, 1));
        let chain_of = &report.chains()[0];
        assert_eq!((chain_of.chain, chain_of.first_seq), (Some(7), Some(1)));
        assert_eq!(chain_of.last.as_ref().map(|last| last.seq), Some(6));
        let with_line_feeds: Vec<String> = chain(5).iter().map(|line| format!("{line}\n")).collect();
        check(CopyChecker::new(), &with_line_feeds, &[]);
    }

    #[test]
    fn changed_lines_are_found() {
        use CopyFindingKind::{Altered, Extra, Missing, NotALine, Repeated};
        let good = chain(5);
        let changed = |at: usize, line: String| {
            let mut lines = good.clone();
            lines[at] = line;
            lines
        };
        check(CopyChecker::new(), &changed(2, good[2].replace("event", "evant")), &[(3, Altered)]);
        check(CopyChecker::new(), &changed(2, good[2].replace("\"seq\":3", "\"seq\":9")), &[(3, Altered)]);
        let layout = NotALine { what: "it does not have the layout of a record" };
        check(CopyChecker::new(), &changed(2, String::new()), &[(3, layout)]);
        check(
            CopyChecker::new(),
            &changed(2, good[1].clone()),
            &[(2, Repeated), (3, Missing { through: 3 })],
        );
        check(CopyChecker::new(), &[&good[..], &good[2..3]].concat(), &[(3, Extra)]);
        check(CopyChecker::new(), &[&good[..2], &good[4..]].concat(), &[(3, Missing { through: 4 })]);
        check(CopyChecker::new(), &good[1..], &[(1, Missing { through: 1 })]);
        check(CopyChecker::new(), &[vec![0xFF]], &[(1, NotALine { what: "it is not UTF-8" })]);
    }

    #[test]
    fn a_hole_is_divided_by_what_explains_it() {
        let good = chain(20);
        let lines = [&good[..2], &good[15..]].concat();
        let mut checker = CopyChecker::new();
        checker.gap(&Gap::new(ID.into(), 7, 5..=6));
        checker.gap(&Gap::new(ID.into(), 7, 6..=8));
        checker.rejected(ID, 10);
        let missing = |through| CopyFindingKind::Missing { through };
        let report = report(checker, &lines);
        check_report(&report, &[(3, missing(4)), (9, missing(9)), (11, missing(15))]);
        let holes: Vec<_> =
            report.holes().iter().map(|hole| (hole.first_seq, hole.last_seq, hole.reason)).collect();
        let [none, gap, rejected] = [HoleReason::Unexplained, HoleReason::Gap, HoleReason::Rejected];
        assert_eq!(
            holes,
            [(3, 4, none), (5, 6, gap), (7, 8, gap), (9, 9, none), (10, 10, rejected), (11, 15, none)]
        );
    }

    #[test]
    fn forwarding_may_begin_in_the_middle() {
        let mut checker = CopyChecker::new();
        checker.begins_after(ID, 4);
        check(checker, &chain(9)[4..], &[]);
        let mut checker = CopyChecker::new();
        checker.begins_after(ID, 4);
        check(checker, &chain(9)[5..], &[(5, CopyFindingKind::Missing { through: 5 })]);
    }

    /// Returns a record of another chain that names `seq` of the chain as durable.
    fn witness(seq: u64) -> (String, String) {
        let other = "f".repeat(32);
        let zeros = "0".repeat(64);
        let mark = format!(
            r#""kind":"mark","mark":{{"chains":{{"007":{{"id":"{ID}","seq":{seq},"hash":"{zeros}"}}}}}}"#
        );
        let body = format!(r#"{{"seq":1,{mark},"_prev_hash":"{zeros}""#);
        let hash = digest_of(&Sha256::digest(format!("\0{body}}}"))).unwrap();
        (other, format!(r#"{body},"_hash":"{hash}"}}"#))
    }

    #[test]
    fn a_chain_that_does_not_reach_its_witness_is_noted() {
        let check = |seq, lines: &[String], begin: Option<u64>, expected: Option<Option<u64>>| {
            let mut checker = CopyChecker::new();
            if let Some(begin) = begin {
                checker.begins_after(ID, begin);
            }
            for at in [seq - 1, seq, 1] {
                let (other, line) = witness(at);
                checker.line(&other, line.as_bytes());
            }
            let found = report(checker, lines);
            let behind: Vec<_> =
                found.behind().iter().map(|one| (one.chain, one.position.seq, one.last_seq)).collect();
            let expected: Vec<_> = expected.into_iter().map(|last| (7, seq, last)).collect();
            assert_eq!(behind, expected, "{found}");
            assert_eq!(found.to_string().contains("witnessed"), !expected.is_empty(), "{found}");
        };
        let good = chain(9);
        check(10, &good, None, None);
        check(11, &good, None, Some(Some(10)));
        check(5, &[], None, Some(None));
        check(5, &[], Some(5), None);
        check(6, &[], Some(5), Some(None));
    }

    fn head(line: &str, hash_of: &str) -> Head {
        let seq = CopiedLine::parse(line.as_bytes()).unwrap().seq;
        format!("007/{seq}:{}", CopiedLine::parse(hash_of.as_bytes()).unwrap().hash).parse().unwrap()
    }

    fn expecting(heads: &[Head]) -> CopyChecker {
        let mut checker = CopyChecker::new();
        for head in heads {
            checker.expect_head(*head);
        }
        checker
    }

    #[test]
    fn a_head_is_compared_with_its_record_wherever_that_is() {
        let good = chain(9);
        for at in 0..10 {
            check(expecting(&[head(&good[at], &good[at])]), &good, &[]);
            let other = head(&good[at], &good[(at + 1) % 10]);
            let seq = at as u64 + 1;
            check(expecting(&[other]), &good, &[(seq, CopyFindingKind::OtherThanHead { head: other })]);
        }
        let last = head(&good[9], &good[9]);
        check(expecting(&[last]), &good[..9], &[(10, CopyFindingKind::NoRecordOfHead { head: last })]);
        let report = report(expecting(&[last]), &[] as &[&str]);
        check_report(&report, &[(10, CopyFindingKind::NoRecordOfHead { head: last })]);
        assert!(report.to_string().contains("007/10: the record of a head"), "{report}");
        // A record of another chain.
        let other: Head = last.to_string().replace("007/", "008/").parse().unwrap();
        check(expecting(&[other]), &good, &[(10, CopyFindingKind::NoRecordOfHead { head: other })]);
    }

    #[test]
    fn the_head_of_an_explained_hole_is_compared_with_the_link_after_it() {
        let good = chain(9);
        let begun = |heads: &[Head]| {
            let mut checker = expecting(heads);
            checker.begins_after(ID, 4);
            report(checker, &good[4..])
        };
        let (gone, last_gone) = (head(&good[1], &good[1]), head(&good[3], &good[3]));
        let found = begun(&[gone, last_gone]);
        check_report(&found, &[]);
        assert_eq!(found.heads_not_compared(), [gone]);
        assert!(found.to_string().contains(&format!("the head {gone} could not be compared")), "{found}");
        let other = head(&good[3], &good[5]);
        check_report(&begun(&[other]), &[(4, CopyFindingKind::OtherThanHead { head: other })]);
    }
}
