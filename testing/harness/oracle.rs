//! Reads a log back by the rules of the format, and compares it with what was promised. Shares no
//! code with recovery or verification except the parser of a line.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Failure,
    world::{Producer, World},
};
use crate::{
    Report, Severity, Verdict, Verifier,
    chain::{Digest, Head},
    format::{Format, LineParser, RecordKind, SegmentInfo, read_first, read_prune, read_unconfirmed},
    segment_name::{ChainNumber, SegmentName},
    storage::sim::SimDisk,
};

const SEVERITIES: [Severity; 2] = [Severity::Routine, Severity::Critical];

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) seq: u64,
    pub(crate) kind: RecordKind,
    pub(crate) hash: Digest,
    pub(crate) durable: Option<u64>,
    pub(crate) segment: u32,
    /// The number of the event, if it is one.
    pub(crate) number: Option<u64>,
    pub(crate) text: String,
    previous: Digest,
    /// The offset behind it.
    end: u64,
}

/// The part of one chain that counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    pub(crate) lines: Vec<Line>,
    /// The last record that retention removed.
    pub(crate) pruned: u64,
    /// The segments that count, oldest first.
    pub(crate) segments: Vec<u32>,
}

impl Chain {
    pub(crate) fn kinds(&self) -> String {
        let kinds: Vec<&str> = self.lines.iter().map(|line| line.kind.as_str()).collect();
        kinds.join(" ")
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.lines.iter().filter_map(|line| line.number).collect()
    }

    /// Returns the record with this sequence number. What counts has no gaps.
    fn at(&self, seq: u64) -> Option<&Line> {
        let first = self.lines.first()?.seq;
        self.lines.get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    pub(crate) fn of_kind(&self, kind: RecordKind) -> Vec<&Line> {
        self.lines.iter().filter(|line| line.kind == kind).collect()
    }
}

/// A file: its good lines from the start, and the contents of its first line.
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
    for chunk in bytes.split_inclusive(|byte| *byte == b'\n') {
        end += chunk.len() as u64;
        let Some(line) = chunk.strip_suffix(b"\n").and_then(|line| parser.parse(line).ok()) else { break };
        let follows = file
            .lines
            .last()
            .is_none_or(|last: &Line| line.seq == last.seq + 1 && line.previous == last.hash);
        // What counts of a file ends at the first bad line.
        if !line.hash_is_right() || !follows {
            break;
        }
        if file.lines.is_empty() && line.kind == RecordKind::Segment {
            file.info = match line.detail.and_then(read_first) {
                Some(Format::Known(info)) => info.map(|info| *info),
                _ => None,
            };
        }
        let text = String::from_utf8_lossy(line.bytes).into_owned();
        file.lines.push(Line {
            seq: line.seq,
            kind: line.kind,
            hash: line.hash,
            durable: line.durable,
            segment,
            number: if line.kind == RecordKind::Event { member(&text, "n") } else { None },
            text,
            previous: line.previous,
            end,
        });
    }
    file
}

/// Reads every chain.
pub(crate) fn read_log(files: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<u16, Chain>, String> {
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
            // Removed by retention, or lost. The sequence numbers show which.
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
        // Numbers only grow, so this also rules out a cycle.
        if first >= segment {
            return Err(format!("segment {segment} goes on after {first}"));
        }
        for between in files.range(first + 1..segment) {
            let listed = info
                .after
                .iter()
                .any(|after| (after.from.unwrap_or(after.segment)..=after.segment).contains(between.0));
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
            RecordKind::Prune => prune_through(object.as_deref()),
            RecordKind::Segment => {
                line.text.split_once("\"pruned\":").and_then(|(_, rest)| member(rest, "through"))
            }
            _ => None,
        };
        chain.pruned = chain.pruned.max(through.unwrap_or(0));
    }
    check_links(&chain)?;
    Ok(chain)
}

fn check_links(chain: &Chain) -> Result<(), String> {
    // Leftovers of retention may precede the first record.
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
    Ok(())
}

fn prune_through(object: Option<&str>) -> Option<u64> {
    let object = object?;
    let close = object.find('}')?;
    read_prune(object.get(..=close)?.as_bytes()).map(|prune| prune.through)
}

/// How strictly a log is compared with what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Every event is in the log at most once.
    Once,
    /// The log changed its chain while records were not acknowledged, so they may be in both.
    OnceOrTwice,
}

/// Checks everything that must hold for a log whose writers have all ended or been recovered.
pub(crate) fn check(world: &World, strictness: Strictness) -> Result<BTreeMap<u16, Chain>, Failure> {
    let chains = read_log(&world.disk.snapshot())?;
    for (number, chain) in &chains {
        for line in &chain.lines {
            if line.durable.is_some_and(|durable| durable >= line.seq) {
                return Err(format!("chain {number}: the mark of record {} names itself", line.seq).into());
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
        return Err(format!("event {event} stands at {found:?}").into());
    }
    for producer in &world.producers {
        check_producer(producer, &chains, &places)?;
    }
    if strictness == Strictness::Once && chains.values().all(|chain| chain.pruned == 0) {
        let gaps = gaps_by_writer(&chains);
        for producer in &world.producers {
            check_count(producer, &places, &gaps)?;
        }
    }
    Ok(chains)
}

/// Returns what the gap records of each run of a writer count, by severity.
fn gaps_by_writer(chains: &BTreeMap<u16, Chain>) -> BTreeMap<(u64, Severity), u64> {
    let mut gaps = BTreeMap::new();
    for chain in chains.values() {
        let mut writer = 0;
        for line in &chain.lines {
            match line.kind {
                RecordKind::Open => writer = writer_of(&line.text).unwrap_or(0),
                RecordKind::Gap => {
                    for severity in SEVERITIES {
                        let count = member(&line.text, severity.as_str()).unwrap_or(0);
                        *gaps.entry((writer, severity)).or_default() += count;
                    }
                }
                _ => {}
            }
        }
    }
    gaps
}

fn writer_of(open: &str) -> Option<u64> {
    let (_, rest) = open.split_once("\"writer\":\"")?;
    u64::from_str_radix(rest.get(..16)?, 16).ok()
}

/// Checks that every event of a run that ended in order is recorded or counted by a gap record. Of
/// any other run, no more may be than were emitted.
fn check_count(
    producer: &Producer,
    places: &BTreeMap<u64, Vec<(u16, u64, usize)>>,
    gaps: &BTreeMap<(u64, Severity), u64>,
) -> Result<(), Failure> {
    for severity in SEVERITIES {
        let emitted = producer.emissions.iter().filter(|emission| emission.severity == severity);
        let written = emitted.clone().filter(|emission| places.contains_key(&emission.number)).count() as u64;
        let gaps = gaps.get(&(producer.writer_id, severity)).copied().unwrap_or(0);
        let emitted = emitted.count() as u64;
        if written + gaps > emitted || (producer.closed && written + gaps < emitted) {
            let id = producer.writer_id;
            return Err(format!(
                "writer {id}: {written} {severity} events + {gaps} in gaps, and {emitted} emitted"
            )
            .into());
        }
    }
    Ok(())
}

/// Returns the record that a head names; `None` if retention removed it.
fn find<'a>(chains: &'a BTreeMap<u16, Chain>, head: &Head) -> Result<Option<&'a Line>, Failure> {
    let Some(chain) = chains.get(&head.chain()) else {
        return Err(Failure::Lost(format!("the chain of {head} is gone")));
    };
    if head.seq() <= chain.pruned {
        return Ok(None);
    }
    match chain.at(head.seq()) {
        Some(line) if line.hash == head.hash() => Ok(Some(line)),
        Some(_) => Err(Failure::Lost(format!("another record stands at {head}"))),
        None => Err(Failure::Lost(format!("{head} was promised and is gone"))),
    }
}

fn check_producer(
    producer: &Producer,
    chains: &BTreeMap<u16, Chain>,
    places: &BTreeMap<u64, Vec<(u16, u64, usize)>>,
) -> Result<(), Failure> {
    for head in &producer.heads {
        find(chains, head)?;
    }
    let mut last_present: Option<u64> = None;
    let mut missing: Option<u64> = None;
    let mut last_place: Option<(u16, u64)> = None;
    for emission in producer.emissions.iter().filter(|emission| emission.ticket.is_some()) {
        let number = emission.number;
        if let Some(receipt) = &emission.receipt {
            let Some(line) = find(chains, receipt)? else { continue };
            if line.number != Some(number) {
                let what = format!("event {number} is not at the position in its receipt {receipt}");
                return Err(Failure::Lost(what));
            }
        }
        let Some(found) = places.get(&number) else {
            if emission.receipt.is_some() {
                return Err(Failure::Lost(format!("event {number} was acknowledged and is gone")));
            }
            missing.get_or_insert(number);
            continue;
        };
        // If a log moved while it was not durable, its records are written again behind the old
        // ones.
        let place = found.first().map(|(chain, seq, _)| (*chain, *seq));
        if let Some(missing) = missing {
            // Records removed by retention are missing at the beginning.
            let pruned = last_present.is_none() && chains.values().any(|chain| chain.pruned > 0);
            if !pruned {
                return Err(format!("event {number} is there, and {missing} before it is not").into());
            }
        }
        if let (Some((chain, seq)), Some((last_chain, last_seq))) = (place, last_place)
            && chain == last_chain
            && seq <= last_seq
        {
            return Err(format!("event {number} stands before the event emitted before it").into());
        }
        last_present = Some(number);
        last_place = place;
    }
    Ok(())
}

/// Checks that every event emitted by logs that were closed is recorded or counted by a gap record.
pub(crate) fn check_counts(world: &World, chains: &BTreeMap<u16, Chain>) -> Result<(), String> {
    for severity in SEVERITIES {
        let emitted = world.producers.iter().flat_map(|producer| &producer.emissions);
        let emitted = emitted.filter(|emission| emission.severity == severity).count() as u64;
        let lines = || chains.values().flat_map(|chain| &chain.lines);
        let wanted = format!("\"severity\":\"{}\"", severity.as_str());
        let written =
            lines().filter(|line| line.number.is_some() && line.text.contains(&wanted)).count() as u64;
        let gaps: u64 = lines()
            .filter(|line| line.kind == RecordKind::Gap)
            .map(|line| member(&line.text, severity.as_str()).unwrap_or(0))
            .sum();
        if written + gaps != emitted {
            return Err(format!("{severity}: {written} written + {gaps} in gaps, and {emitted} emitted"));
        }
    }
    Ok(())
}

/// The number and hash of each event by its position. Two recoveries must agree on these.
pub(crate) type Places = BTreeMap<(u16, u64), (u64, Digest)>;

pub(crate) fn places(chains: &BTreeMap<u16, Chain>) -> Places {
    let lines = chains.iter().flat_map(|(number, chain)| chain.lines.iter().map(move |line| (*number, line)));
    lines.filter_map(|(chain, line)| Some(((chain, line.seq), (line.number?, line.hash)))).collect()
}

pub(crate) fn has_no_good_line(bytes: &[u8]) -> bool {
    let mut parser = LineParser::default();
    !bytes.split(|byte| *byte == b'\n').any(|line| parser.parse(line).is_ok_and(|line| line.hash_is_right()))
}

/// Returns the last record of a file that is good from its start to there.
pub(crate) fn last_good_record(bytes: &[u8]) -> Option<u64> {
    read_file(bytes, 0).lines.last().map(|line| line.seq)
}

/// Checks that no notice accuses anybody of a change, because nobody changed a file. If a lock was
/// lost, all descriptors may have been closed with it.
pub(crate) fn check_notices(chains: &BTreeMap<u16, Chain>, lost_a_lock: bool) -> Result<(), Failure> {
    let accusing = |line: &&Line| {
        let has_code = |code| line.text.contains(&format!("\"code\":\"{code}\""));
        line.kind == RecordKind::Notice
            && (has_code("segment_tampered")
                && !(lost_a_lock && line.text.contains("was closed by this program"))
                || has_code("chain_missing")
                || has_code("damage")
                || has_code("lock_replaced") && !lost_a_lock)
    };
    match chains.values().flat_map(|chain| &chain.lines).find(accusing) {
        Some(line) => Err(Failure::FalseAlarm(line.text.clone())),
        None => Ok(()),
    }
}

/// Checks that every event that a caller was told is not confirmed, and that is in the log, is
/// named as unconfirmed. That must precede the acknowledgement of any later event, and nothing else
/// may be named.
pub(crate) fn check_refusals(world: &World, chains: &BTreeMap<u16, Chain>) -> Result<(), Failure> {
    let mut named = BTreeSet::new();
    for (number, chain) in chains {
        for line in chain.of_kind(RecordKind::Unconfirmed) {
            let detail = line.text.split_once("\"unconfirmed\":{").map(|(_, rest)| format!("{{{rest}"));
            let end = detail.as_deref().and_then(|detail| detail.find('}')).map_or(0, |end| end + 1);
            let refused = detail.and_then(|detail| read_unconfirmed(detail.get(..end)?.as_bytes()));
            let Some(refused) = refused else { return Err(format!("cannot be read: {}", line.text).into()) };
            let of = refused.chain.map_or(*number, |(chain, _)| chain.get());
            let records =
                refused.records.iter().flat_map(|(first, last)| *first..=*last).map(|seq| (of, seq));
            named.extend(records);
        }
    }
    let emissions = || world.producers.iter().flat_map(|producer| &producer.emissions);
    let refused: BTreeSet<u64> = emissions().filter(|one| one.refused).map(|one| one.number).collect();
    let mut is_named: BTreeSet<u64> = BTreeSet::new();
    for (number, chain) in chains {
        for line in chain.lines.iter().filter(|line| named.contains(&(*number, line.seq))) {
            match line.number.filter(|number| refused.contains(number)) {
                Some(number) => drop(is_named.insert(number)),
                None => {
                    return Err(format!("named as unconfirmed, but not refused: {}", line.text).into());
                }
            }
        }
    }
    if chains.values().any(|chain| chain.pruned > 0) {
        // Retention also removes the lines that name records, and an event may be in two chains.
        return Ok(());
    }
    let there: BTreeSet<u64> = chains.values().flat_map(Chain::numbers).collect();
    for producer in &world.producers {
        let last = producer.emissions.iter().rfind(|one| one.receipt.is_some()).and_then(|one| one.ticket);
        for one in producer.emissions.iter().filter(|one| one.refused && there.contains(&one.number)) {
            if one.ticket <= last && !is_named.contains(&one.number) {
                return Err(format!("refused, durable, and not named: {one:?}").into());
            }
        }
    }
    Ok(())
}

/// Returns the verdict of the verifier, which must not contradict what was promised.
pub(crate) fn verify(world: &World) -> Result<(Verdict, String), Failure> {
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
    judge(&verifier.run_on(&*world.disk.process().storage()).map_err(|error| error.to_string())?)
}

/// Returns the verdict on a log that is being written, if it can be read.
pub(crate) fn verify_as_it_is(world: &World) -> Result<Option<Verdict>, Failure> {
    let reader = world.disk.process();
    let report = Verifier::new("/log").threads(1).run_on(&*reader.storage());
    let judged = report.ok().map(|report| judge(&report)).transpose();
    // The reader's machine may have ended meanwhile.
    if reader.is_alive() { Ok(judged?.map(|(verdict, _)| verdict)) } else { Ok(None) }
}

/// Returns the verdict on a log of which nothing was promised.
pub(crate) fn verdict_without_promises(world: &World) -> Option<Verdict> {
    verdict_of(&world.disk)
}

/// Returns the verdict on the log of a disk, if there can be one.
pub(crate) fn verdict_of(disk: &SimDisk) -> Option<Verdict> {
    let report = Verifier::new("/log").threads(1).run_on(&*disk.process().storage());
    report.ok().map(|report| report.verdict())
}

fn judge(report: &Report) -> Result<(Verdict, String), Failure> {
    match report.verdict() {
        Verdict::Damaged => Err(Failure::FalseAlarm(format!("the verifier sees damage: {report}"))),
        verdict => Ok((verdict, report.to_string())),
    }
}
