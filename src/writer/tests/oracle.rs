//! Reads a log back by the rules of the format, and holds it against what was promised. Shares no
//! code with recovery or verification beyond the parser of a line.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Producer, World};
use crate::{
    Severity, Verdict, Verifier,
    chain::{Digest, Head},
    format::{Kind, LineParser, SegmentInfo, read_prune, read_segment},
    segment_name::{ChainNumber, SegmentName},
};

#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) hash: Digest,
    pub(super) durable: Option<u64>,
    pub(super) segment: u32,
    /// Of an event: its number.
    pub(super) number: Option<u64>,
    pub(super) text: String,
    previous: Digest,
    /// The offset behind it.
    end: u64,
}

/// What counts of one chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) lines: Vec<Line>,
    /// The last record that retention removed.
    pub(super) pruned: u64,
    /// The segments that count, oldest first.
    pub(super) segments: Vec<u32>,
}

impl Chain {
    pub(super) fn kinds(&self) -> String {
        let kinds: Vec<&str> = self.lines.iter().map(|line| line.kind.as_str()).collect();
        kinds.join(" ")
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.lines.iter().filter_map(|line| line.number).collect()
    }

    pub(super) fn of_kind(&self, kind: Kind) -> Vec<&Line> {
        self.lines.iter().filter(|line| line.kind == kind).collect()
    }
}

/// One file: its good lines from the start on, and what its first line says.
struct File {
    lines: Vec<Line>,
    info: Option<SegmentInfo>,
    length: u64,
}

fn member(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn read_file(bytes: &[u8], segment: u32) -> File {
    let mut parser = LineParser::default();
    let mut file = File { lines: Vec::new(), info: None, length: bytes.len() as u64 };
    let mut end = 0;
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        end += piece.len() as u64;
        let Some(line) = piece.strip_suffix(b"\n").and_then(|line| parser.parse(line).ok()) else { break };
        let follows = file
            .lines
            .last()
            .is_none_or(|last: &Line| line.seq == last.seq + 1 && line.previous == last.hash);
        if !line.hash_is_right() || !follows {
            break;
        }
        if file.lines.is_empty() && line.kind == Kind::Segment {
            file.info = line.detail.and_then(read_segment);
        }
        let text = String::from_utf8_lossy(line.bytes).into_owned();
        file.lines.push(Line {
            seq: line.seq,
            kind: line.kind,
            hash: line.hash,
            durable: line.durable,
            segment,
            number: if line.kind == Kind::Event { member(&text, "n") } else { None },
            text,
            previous: line.previous,
            end,
        });
    }
    file
}

/// Reads every chain.
pub(super) fn read_log(files: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<u16, Chain>, String> {
    let mut by_chain: BTreeMap<ChainNumber, BTreeMap<u32, File>> = BTreeMap::new();
    for (name, bytes) in files {
        if let Some(name) = SegmentName::parse(name) {
            by_chain.entry(name.chain).or_default().insert(name.segment, read_file(bytes, name.segment));
        }
    }
    by_chain
        .into_iter()
        .map(|(chain, files)| {
            let read = read_chain(&files).map_err(|error| format!("chain {chain}: {error}"))?;
            Ok((chain.get(), read))
        })
        .collect()
}

fn read_chain(files: &BTreeMap<u32, File>) -> Result<Chain, String> {
    let mut parts: Vec<Vec<Line>> = Vec::new();
    let mut chain = Chain::default();
    let newest = files.iter().rev().find(|(_, file)| file.info.is_some()).map(|(segment, _)| *segment);
    let mut next = newest.map(|segment| (segment, None));
    while let Some((segment, bytes)) = next.take() {
        let Some(file) = files.get(&segment) else {
            // Removed by retention, or lost: the sequence numbers will tell.
            break;
        };
        let Some(info) = &file.info else { return Err(format!("segment {segment} has no first line")) };
        let counted: Vec<Line> = match bytes {
            None => file.lines.clone(),
            Some(bytes) => {
                let counted: Vec<Line> =
                    file.lines.iter().filter(|line| line.end <= bytes).cloned().collect();
                if counted.last().is_none_or(|last| last.end != bytes) {
                    let length = file.length;
                    return Err(format!(
                        "{bytes} of {length} bytes of segment {segment} count, and are not all good"
                    ));
                }
                counted
            }
        };
        parts.push(counted);
        chain.segments.push(segment);
        let mut contributing = info.after.iter().filter(|after| after.bytes > 0);
        next = contributing.next().map(|after| (after.segment, Some(after.bytes)));
        if contributing.next().is_some() {
            return Err(format!("segment {segment} goes on after two files"));
        }
        let first = next.map_or(0, |(segment, _)| segment);
        for between in files.range(first + 1..segment) {
            let listed = info.after.iter().any(|after| after.segment == *between.0);
            if !listed && between.1.info.is_some() {
                return Err(format!("segment {segment} does not mention {}", between.0));
            }
        }
    }
    chain.segments.reverse();
    chain.lines = parts.into_iter().rev().flatten().collect();
    for line in &chain.lines {
        let detail = line.text.split_once(&format!("\"{}\":{{", line.kind.as_str())).map(|(_, rest)| rest);
        let object = detail.map(|rest| format!("{{{rest}"));
        let through = match line.kind {
            Kind::Prune => prune_through(object.as_deref()),
            Kind::Segment => {
                line.text.split_once("\"pruned\":").and_then(|(_, rest)| member(rest, "through"))
            }
            _ => None,
        };
        chain.pruned = chain.pruned.max(through.unwrap_or(0));
    }
    // Leftovers of retention may stand before.
    let mut expected: Option<&Line> = None;
    for line in &chain.lines {
        let (seq, link) = expected.map_or((line.seq, line.previous), |last| (last.seq + 1, last.hash));
        if line.seq != seq || line.previous != link {
            return Err(format!(
                "record {} in segment {} does not follow {}",
                line.seq,
                line.segment,
                seq - 1
            ));
        }
        expected = Some(line);
    }
    let first = chain.lines.first().map_or(1, |line| line.seq);
    if first > chain.pruned + 1 {
        return Err(format!("the chain begins with {first}, and {} records were pruned", chain.pruned));
    }
    Ok(chain)
}

fn prune_through(object: Option<&str>) -> Option<u64> {
    let object = object?;
    let close = object.find('}')?;
    read_prune(object.get(..=close)?.as_bytes()).map(|prune| prune.through)
}

/// How strictly a log is held against what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// An event stands once.
    Once,
    /// The chain was changed while records were not acknowledged, so they can stand in both.
    OnceOrTwice,
}

/// Checks everything that must hold of a log whose writers have all ended or been recovered.
pub(super) fn check(world: &World, strictness: Strictness) -> Result<BTreeMap<u16, Chain>, String> {
    let chains = read_log(&world.disk.snapshot())?;
    for (number, chain) in &chains {
        for line in &chain.lines {
            if line.durable.is_some_and(|durable| durable >= line.seq) {
                return Err(format!("chain {number}: the mark of record {} names itself", line.seq));
            }
        }
    }
    let mut places: BTreeMap<u64, Vec<(u16, u64, usize)>> = BTreeMap::new();
    for (number, chain) in &chains {
        for (index, line) in chain.lines.iter().enumerate() {
            if let Some(event) = line.number {
                places.entry(event).or_default().push((*number, line.seq, index));
            }
        }
    }
    if strictness == Strictness::Once
        && let Some((event, found)) = places.iter().find(|(_, found)| found.len() > 1)
    {
        return Err(format!("event {event} stands at {found:?}"));
    }
    for (index, producer) in world.producers.iter().enumerate() {
        check_producer(producer, &chains, &places).map_err(|error| format!("producer {index}: {error}"))?;
    }
    Ok(chains)
}

fn holds(chains: &BTreeMap<u16, Chain>, head: &Head) -> Result<bool, String> {
    let Some(chain) = chains.get(&head.chain()) else { return Err(format!("chain of {head} is gone")) };
    if head.seq() <= chain.pruned {
        return Ok(false);
    }
    match chain.lines.iter().find(|line| line.seq == head.seq()) {
        Some(line) if line.hash == head.hash() => Ok(true),
        Some(_) => Err(format!("another record stands at {head}")),
        None => Err(format!("{head} was promised and is gone")),
    }
}

fn check_producer(
    producer: &Producer,
    chains: &BTreeMap<u16, Chain>,
    places: &BTreeMap<u64, Vec<(u16, u64, usize)>>,
) -> Result<(), String> {
    for head in &producer.heads {
        holds(chains, head)?;
    }
    let mut last_present: Option<u64> = None;
    let mut missing: Option<u64> = None;
    let mut last_place: Option<(u16, u64)> = None;
    for emission in producer.emissions.iter().filter(|emission| emission.ticket.is_some()) {
        let number = emission.number;
        if let Some(receipt) = &emission.receipt {
            if holds(chains, receipt)? {
                let chain = &chains[&receipt.chain()];
                let line = chain.lines.iter().find(|line| line.seq == receipt.seq());
                if line.and_then(|line| line.number) != Some(number) {
                    return Err(format!("event {number} is not where its receipt {receipt} says"));
                }
            } else {
                continue;
            }
        }
        let Some(found) = places.get(&number) else {
            if emission.receipt.is_some() {
                return Err(format!("event {number} was acknowledged and is gone"));
            }
            missing.get_or_insert(number);
            continue;
        };
        let place = found.last().map(|(chain, seq, _)| (*chain, *seq));
        if let Some(missing) = missing {
            // What retention removed is missing before everything else.
            let pruned = last_present.is_none() && chains.values().any(|chain| chain.pruned > 0);
            if !pruned {
                return Err(format!("event {number} is there, and {missing} before it is not"));
            }
        }
        if let (Some((chain, seq)), Some((last_chain, last_seq))) = (place, last_place)
            && chain == last_chain
            && seq <= last_seq
        {
            return Err(format!("event {number} stands before the event emitted before it"));
        }
        last_present = Some(number);
        last_place = place;
    }
    Ok(())
}

/// Every event that was emitted by logs that were closed is recorded or counted by a gap record.
pub(super) fn check_counts(world: &World, chains: &BTreeMap<u16, Chain>) -> Result<(), String> {
    for severity in [Severity::Routine, Severity::Critical] {
        let emitted = world.producers.iter().flat_map(|producer| &producer.emissions);
        let emitted = emitted.filter(|emission| emission.severity == severity).count() as u64;
        let lines = || chains.values().flat_map(|chain| &chain.lines);
        let wanted = format!("\"severity\":\"{}\"", severity.as_str());
        let written =
            lines().filter(|line| line.number.is_some() && line.text.contains(&wanted)).count() as u64;
        let gaps: u64 = lines()
            .filter(|line| line.kind == Kind::Gap)
            .map(|line| member(&line.text, severity.as_str()).unwrap_or(0))
            .sum();
        if written + gaps != emitted {
            return Err(format!("{severity}: {written} written + {gaps} in gaps, and {emitted} emitted"));
        }
    }
    Ok(())
}

/// What the verifier says, and that it does not contradict what was promised.
pub(super) fn verify(world: &World) -> Result<(Verdict, String), String> {
    let mut verifier = Verifier::new("/log").threads(1);
    let chains = read_log(&world.disk.snapshot())?;
    let mut heads: BTreeSet<(u16, u64)> = BTreeSet::new();
    for head in world.producers.iter().filter_map(|producer| producer.heads.last()) {
        if chains.get(&head.chain()).is_some_and(|chain| head.seq() > chain.pruned)
            && heads.insert((head.chain(), head.seq()))
        {
            verifier = verifier.expect_head(*head);
        }
    }
    let report = verifier.run_on(&*world.disk.process().storage()).map_err(|error| error.to_string())?;
    match report.verdict() {
        Verdict::Damaged => Err(format!("the verifier sees damage: {report}")),
        verdict => Ok((verdict, report.to_string())),
    }
}
