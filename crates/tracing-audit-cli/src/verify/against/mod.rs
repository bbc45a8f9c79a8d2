//! `verify --against`: compares the records of a log with those of a copy.

mod side;

use std::{cmp::Ordering, collections::BTreeSet, path::Path};

use anyhow::Result;
use serde::Serialize;
use tracing_audit_forward::CopyChecker;

use self::side::{Line, Lines, Side};
use super::neighbours::UnconfirmedLookup;

/// Limit of the findings in the copy itself that are listed.
const MAX_LISTED: usize = 20;

/// The result of comparing a log and a copy.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) copy: String,
    /// Number of records that both have.
    pub(super) same: u64,
    /// Whether they differ anywhere.
    pub(super) parts: bool,
    pub(super) chains: Vec<Chain>,
    /// The first 20 findings in the copy itself.
    pub(super) copy_findings: Vec<String>,
    pub(super) copy_finding_count: u64,
}

/// One chain of both.
#[derive(Debug, Default, Serialize)]
pub(super) struct Chain {
    #[serde(rename = "chain")]
    pub(super) number: u16,
    pub(super) same: u64,
    /// Records before the first or after the last that both have, as ranges of numbers.
    pub(super) only_in_log: Vec<(u64, u64)>,
    pub(super) only_in_copy: Vec<(u64, u64)>,
    pub(super) parting: Option<Parting>,
}

/// The first difference between the two.
#[derive(Debug, Serialize)]
pub(super) struct Parting {
    pub(super) what: String,
    pub(super) log: Option<LinePosition>,
    pub(super) copy: Option<LinePosition>,
}

/// A line of the log or the copy, and its position.
#[derive(Debug, Serialize)]
pub(super) struct LinePosition {
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) offset: u64,
    pub(super) text: String,
    /// Whether the log, or an uncompressed copy, names the record unconfirmed.
    pub(super) unconfirmed: bool,
    #[serde(skip)]
    seq: Option<u64>,
}

impl LinePosition {
    fn of(line: &Line) -> Self {
        Self {
            file: line.file.clone(),
            line: line.number,
            offset: line.offset,
            text: String::from_utf8_lossy(&line.bytes).into_owned(),
            unconfirmed: false,
            seq: line.seq,
        }
    }
}

/// Compares the records that count, chain by chain.
pub(super) fn compare(log: &Path, copy: &Path) -> Result<Comparison> {
    // List the copy first: everything in it was in the log before, but not the other way round.
    let there = Side::list(copy)?;
    let here = Side::list(log)?;
    let chains: BTreeSet<u16> = here.chains().chain(there.chains()).collect();
    let mut checker = CopyChecker::new();
    let mut comparison = Comparison {
        copy: copy.display().to_string(),
        same: 0,
        parts: false,
        chains: Vec::new(),
        copy_findings: Vec::new(),
        copy_finding_count: 0,
    };
    for number in chains {
        let mut pair = Pair::new(number, &here, &there, &mut checker);
        pair.run()?;
        if let (Some(ours), Some(theirs)) = (here.known_id(number), there.known_id(number))
            && ours != theirs
        {
            let what = format!(
                "the copy is of another log: the id of the chain is {ours} in the log, {theirs} in the copy"
            );
            let parting =
                pair.chain.parting.get_or_insert(Parting { what: String::new(), log: None, copy: None });
            parting.what = what;
        }
        comparison.same += pair.chain.same;
        comparison.chains.push(pair.chain);
    }
    look_up_unconfirmed(log, copy, &mut comparison.chains);
    let report = checker.finish();
    let number = |id: &str| there.chains().find(|chain| there.id(*chain) == id).unwrap_or_default();
    let listed = report.findings().iter().take(MAX_LISTED).map(|finding| {
        format!("chain {:03}, record {}: {}", number(&finding.chain_id), finding.seq, finding.kind)
    });
    comparison.copy_findings = listed.collect();
    comparison.copy_finding_count = report.finding_count();
    comparison.parts =
        comparison.copy_finding_count > 0 || comparison.chains.iter().any(|chain| chain.parting.is_some());
    Ok(comparison)
}

/// Looks up whether the records at the first differences are unconfirmed.
fn look_up_unconfirmed(log: &Path, copy: &Path, chains: &mut [Chain]) {
    if chains.iter().all(|chain| chain.parting.is_none()) {
        return;
    }
    let sides = [UnconfirmedLookup::of(log), UnconfirmedLookup::of(copy)];
    for chain in chains {
        let Some(parting) = &mut chain.parting else { continue };
        for place in [&mut parting.log, &mut parting.copy].into_iter().flatten() {
            let name = |seq| sides.iter().any(|side| side.contains(chain.number, seq));
            place.unconfirmed = place.seq.is_some_and(name);
        }
    }
}

/// A chain in both, while it is compared.
struct Pair<'a> {
    chain: Chain,
    log: Lines,
    copy: Lines,
    checker: &'a mut CopyChecker,
    /// The id of the chain in the copy.
    id: String,
    has_begun: bool,
    /// The last numbers read from the log and from the copy.
    last: (u64, u64),
    /// The highest number that the copy states is durable.
    durable: u64,
}

impl<'a> Pair<'a> {
    fn new(number: u16, log: &Side, copy: &Side, checker: &'a mut CopyChecker) -> Self {
        Self {
            chain: Chain { number, ..Chain::default() },
            log: log.lines(number),
            copy: copy.lines(number),
            checker,
            id: copy.id(number),
            has_begun: false,
            last: (0, 0),
            durable: 0,
        }
    }

    /// Reads the next line of the copy, and checks its hash and link.
    ///
    /// The verification has checked the log, but nothing else checks records that only the copy has.
    fn next_of_copy(&mut self) -> Result<Option<Line>> {
        let line = self.copy.next()?;
        if let Some(line) = &line {
            // Retention may have removed the beginning of the copy: its first record has nothing to link to.
            if let Some(seq) = line.seq.filter(|_| !self.has_begun) {
                self.checker.begins_after(&self.id, seq.saturating_sub(1));
            }
            self.has_begun = true;
            self.checker.line(&self.id, &line.bytes);
            self.durable = self.durable.max(line.durable().unwrap_or(0));
        }
        Ok(line)
    }

    fn run(&mut self) -> Result<()> {
        let (mut log, mut copy) = (self.log.next()?, self.next_of_copy()?);
        loop {
            let order = match (&log, &copy) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                // Both are in the order of their numbers, so this is a merge. A line without a number sorts first and
                // is reported.
                (Some(ours), Some(theirs)) => ours.seq.cmp(&theirs.seq),
            };
            if !self.step(order, log.as_ref(), copy.as_ref())? {
                return Ok(());
            }
            // Only the side with the lower number advances.
            if order != Ordering::Greater {
                log = self.log.next()?;
            }
            if order != Ordering::Less {
                copy = self.next_of_copy()?;
            }
        }
    }

    /// Compares the next lines. Returns whether to continue.
    fn step(&mut self, order: Ordering, log: Option<&Line>, copy: Option<&Line>) -> Result<bool> {
        let what = self.what(order, log, copy)?;
        let is_over = what.is_some();
        self.chain.parting = what.map(|what| Parting {
            what,
            log: log.map(LinePosition::of),
            copy: copy.map(LinePosition::of),
        });
        Ok(!is_over)
    }

    /// Describes how the two differ in these lines, if they do.
    fn what(&mut self, order: Ordering, log: Option<&Line>, copy: Option<&Line>) -> Result<Option<String>> {
        let ours = log.map(|line| line.seq.unwrap_or(0));
        let theirs = copy.map(|line| line.seq.unwrap_or(0));
        if ours == Some(0) || theirs == Some(0) {
            let whose = if theirs == Some(0) { "the copy" } else { "the log" };
            // After the end of the copy, this may be the torn tail of the log.
            let may_be_torn = copy.is_none() && log.is_some();
            return Ok((!may_be_torn).then(|| format!("a line of {whose} is not a record")));
        }
        match order {
            Ordering::Equal => {
                let (Some(ours), Some(theirs)) = (log, copy) else { return Ok(None) };
                let seq = ours.seq.unwrap_or(0);
                if seq <= self.last.0 {
                    return Ok(Some(format!("record {seq} comes after record {}", self.last.0)));
                }
                self.last = (seq, seq);
                if ours.bytes != theirs.bytes {
                    return Ok(Some(format!("record {seq} differs in the copy")));
                }
                self.chain.same += 1;
                Ok(None)
            }
            Ordering::Less => Ok(self.only_in_log(ours.unwrap_or(0), theirs)),
            Ordering::Greater => self.only_in_copy(theirs.unwrap_or(0), ours),
        }
    }

    fn only_in_log(&mut self, seq: u64, theirs: Option<u64>) -> Option<String> {
        if seq <= self.last.0 {
            return Some(format!("record {seq} of the log comes after record {}", self.last.0));
        }
        // Before the first common record, the log may have older records than the copy. After it, a gap is a
        // difference.
        if let Some(next) = theirs.filter(|_| self.chain.same > 0) {
            return Some(format!("records {seq} to {} are missing in the copy", next.saturating_sub(1)));
        }
        self.last.0 = seq;
        extend(&mut self.chain.only_in_log, seq);
        None
    }

    fn only_in_copy(&mut self, seq: u64, ours: Option<u64>) -> Result<Option<String>> {
        if seq <= self.last.1 {
            return Ok(Some(format!("record {seq} of the copy comes after record {}", self.last.1)));
        }
        if let Some(next) = ours.filter(|_| self.chain.same > 0) {
            return Ok(Some(format!("records {seq} to {} are missing in the log", next.saturating_sub(1))));
        }
        self.last.1 = seq;
        extend(&mut self.chain.only_in_copy, seq);
        if ours.is_some() {
            return Ok(None);
        }
        // The copy continues after the end of the log. What was durable then must still be in the log.
        let first = seq;
        let mut last = seq;
        while let Some(line) = self.next_of_copy()? {
            last = line.seq.unwrap_or(last).max(last);
            extend(&mut self.chain.only_in_copy, last);
        }
        Ok((first <= self.durable).then(|| {
            if self.last.0 == 0 {
                format!("the log does not have the chain, and the copy has its records {first} to {last}")
            } else {
                format!(
                    "the log ends before record {first}, but in the copy records up to {} are durable",
                    self.durable
                )
            }
        }))
    }
}

/// Adds a number to the last range, or begins a new one.
fn extend(ranges: &mut Vec<(u64, u64)>, seq: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 >= seq.saturating_sub(1) => last.1 = last.1.max(seq),
        _ => ranges.push((seq, seq)),
    }
}
