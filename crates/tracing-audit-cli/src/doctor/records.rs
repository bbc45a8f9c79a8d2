//! Checks of the newest records and the oldest.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime},
};

use tracing_audit::{Error, Reader, Record, RecordKind, Segment};

use super::{Findings, locks::Writers, words};
use crate::shell::quoted;

/// Number of records that are read from the end of each chain.
const RECENT: usize = 10_000;

/// How long a running program may write nothing: it writes a mark each hour.
const SILENCE: Duration = Duration::from_secs(70 * 60);

/// How long a record may not be known to be durable: a mark notes that after a minute.
const UNSYNCED: Duration = Duration::from_secs(120);

/// By how much times may go back: an event gets its time before its position in the chain.
const STEP: Duration = Duration::from_secs(2);

/// How long after `--max-age` a segment may still exist before retention is considered not to work.
const SLACK: Duration = Duration::from_secs(2 * 86_400);

pub(super) fn look(
    log: &Path,
    all: &[Segment],
    writers: &Writers,
    max_age: Option<Duration>,
    now: SystemTime,
    findings: &mut Findings,
) {
    let chains: BTreeSet<u16> = all.iter().map(Segment::chain).collect();
    let mut newest = None;
    // A chain that cannot be read must not hide the others.
    for chain in chains {
        let recent = match recent(log, chain) {
            Ok(recent) => recent,
            Err(error) => {
                let remedy = format!("tracing-audit verify {}", quoted(log));
                findings.must("records", format!("chain {chain:03}: {error}"), remedy);
                continue;
            }
        };
        newest = newest.max(recent.iter().filter_map(|one| one.time).max());
        // Unknown is not the same as free: without certainty no crash is reported.
        let is_held = match chain {
            chain if writers.held.contains(&chain) => Some(true),
            chain if writers.unknown.contains(&chain) => None,
            _ => Some(false),
        };
        let chain = Chain { number: chain, recent, is_held, now };
        chain.age(findings);
        chain.ends(log, all, findings);
        chain.unsynced(findings);
        chain.clock(findings);
        chain.losses(findings);
    }
    if let Some(newest) = newest {
        let age = now.duration_since(newest).unwrap_or_default();
        findings.ok("last record", format!("{} ago", words(age)));
    }
    // All chains without a finding share one line per check.
    for (check, found) in [
        ("ends", "each run was closed, or its program is running"),
        ("unsynced", "nothing waits for a sync for long"),
        ("clock", "the times of recent records do not go back"),
        ("losses", "no gaps in the recent records"),
    ] {
        if findings.is_fine(check) {
            findings.ok(check, found);
        }
    }
    oldest(all, max_age, now, findings);
}

/// What is kept of a record in memory: whole records have up to 60 KiB.
struct Recent {
    position: (u16, u64),
    kind: RecordKind,
    time: Option<SystemTime>,
    is_provisional: bool,
    segment: u32,
    /// Offset at which the line ends, in bytes.
    end: u64,
    /// The reason of a gap, or the cause of a recovery.
    why: Option<String>,
}

impl Recent {
    fn of(record: &Record) -> Self {
        let kind = record.kind();
        let name = if kind == RecordKind::Gap { "reason" } else { "cause" };
        let has_reason = matches!(kind, RecordKind::Gap | RecordKind::Recovery);
        let why =
            || record.get(kind.as_str())?.get(name)?.as_str().map(|why| why.chars().take(100).collect());
        let number =
            record.file_name().rsplit('-').next().and_then(|rest| rest.split('.').next()?.parse().ok());
        Self {
            position: (record.chain(), record.seq()),
            kind,
            time: record.time(),
            is_provisional: record.is_provisional(),
            segment: number.unwrap_or(0),
            end: record.offset() + record.as_json().len() as u64 + 1,
            why: has_reason.then(why).flatten(),
        }
    }

    fn why(&self) -> &str {
        self.why.as_deref().unwrap_or("unknown")
    }
}

fn position(recent: &Recent) -> String {
    let (chain, seq) = recent.position;
    format!("{chain:03}/{seq}")
}

/// Reads the newest records of a chain, newest first. Bad lines are left to `verify`.
fn recent(log: &Path, chain: u16) -> Result<Vec<Recent>, Error> {
    let records = Reader::new(log).chain(chain).reverse(true).records()?;
    let records = records.take(RECENT).filter(|record| !matches!(record, Err(Error::BadLine { .. })));
    records.map(|record| Ok(Recent::of(&record?))).collect()
}

struct Chain {
    number: u16,
    /// Newest first.
    recent: Vec<Recent>,
    /// Whether a program has the chain locked; `None` if that is unknown.
    is_held: Option<bool>,
    now: SystemTime,
}

impl Chain {
    fn age(&self, findings: &mut Findings) {
        let Some(last) = self.recent.first().and_then(|last| last.time) else { return };
        let age = self.now.duration_since(last).unwrap_or_default();
        // Without a running program, silence is normal.
        if self.is_held == Some(true) && age > SILENCE {
            let found =
                format!("chain {:03}: its program has written nothing for {}", self.number, words(age));
            let remedy =
                "check whether the program hangs, and `AuditLog::health`: it should write a mark each hour";
            findings.must("last record", found, remedy);
        }
    }

    /// Checks how the chain ends, and how its recent runs ended.
    fn ends(&self, log: &Path, all: &[Segment], findings: &mut Findings) {
        let number = self.number;
        let is_closed = self.recent.first().is_some_and(|last| last.kind == RecordKind::Close);
        if !is_closed && self.is_held.is_none() {
            let found = format!("chain {number:03} is not closed; not known whether a program has it");
            findings.warn("ends", found, "look again as the owner");
        }
        if !is_closed && self.is_held == Some(false) {
            let found =
                format!("chain {number:03} was not closed, and no program has it: killed, or a power cut");
            let remedy =
                "find out why it ended; the next start of the program recovers the chain and records that";
            findings.must("ends", found, remedy);
        }
        if let (Some(last), Some(segment)) =
            (self.recent.first(), all.iter().rev().find(|segment| segment.chain() == number))
        {
            // The library read no record there, so the bytes are torn or damaged.
            let is_longer = last.segment == segment.number() && segment.bytes() > last.end;
            if is_longer && self.is_held == Some(false) {
                let bytes = segment.bytes() - last.end;
                let found = format!("chain {number:03} ends with {bytes} bytes that are no record");
                let remedy = format!("tracing-audit verify {} shows whether a crash left them", quoted(log));
                findings.must("ends", found, remedy);
            }
        }
        let recoveries = self.of_kind(RecordKind::Recovery);
        if let Some(last) = recoveries.first() {
            let cause = last.why();
            let found = format!(
                "chain {number:03}: recent runs that ended without a close: {}, the last before {} ({cause})",
                recoveries.len(),
                position(last)
            );
            findings.warn(
                "ends",
                found,
                "find out what kills the program, and give it time to close the log",
            );
        }
    }

    fn of_kind(&self, kind: RecordKind) -> Vec<&Recent> {
        self.recent.iter().filter(|record| record.kind == kind).collect()
    }

    fn unsynced(&self, findings: &mut Findings) {
        // Provisional records are at the end of a chain, which comes first here.
        let waiting: Vec<&Recent> = self.recent.iter().take_while(|record| record.is_provisional).collect();
        let Some(oldest) = waiting.last().and_then(|record| record.time) else { return };
        let age = self.now.duration_since(oldest).unwrap_or_default();
        if self.is_held == Some(true) && age > UNSYNCED {
            let found = format!(
                "chain {:03}: {} records are not known to be durable, the oldest for {}",
                self.number,
                waiting.len(),
                words(age)
            );
            findings.must(
                "unsynced",
                found,
                "check the disk: syncs take too long or fail (`dmesg`, `iostat -x 1`)",
            );
        }
    }

    fn clock(&self, findings: &mut Findings) {
        let number = self.number;
        // Newest first, so the second of a pair is the earlier record.
        let steps = self.recent.iter().zip(self.recent.iter().skip(1)).filter_map(|(later, earlier)| {
            let back = earlier.time?.duration_since(later.time?).ok()?;
            (back >= STEP).then_some((later, back))
        });
        let steps: Vec<(&Recent, Duration)> = steps.collect();
        if let Some((at, back)) = steps.iter().max_by_key(|(_, back)| *back) {
            let found = format!(
                "chain {number:03}: times go back {} times in the recent records, by {} at {}",
                steps.len(),
                words(*back),
                position(at)
            );
            findings.warn("clock", found, "check the time service (`timedatectl`, `chronyc tracking`)");
        }
        // A record in the future is worse than a step back: retention by age would keep it too long.
        let ahead = self.recent.iter().filter_map(|record| Some((record, record.time?)));
        let ahead = ahead.filter_map(|(record, time)| Some((record, time.duration_since(self.now).ok()?)));
        let ahead = ahead.filter(|(_, by)| *by > STEP).max_by_key(|(_, by)| *by);
        if let Some((record, by)) = ahead {
            let found =
                format!("chain {number:03}: record {} is {} in the future", position(record), words(by));
            findings.must("clock", found, "correct the clock: retention goes by these times");
        }
    }

    fn losses(&self, findings: &mut Findings) {
        let gaps = self.of_kind(RecordKind::Gap);
        let Some(last) = gaps.first() else { return };
        let reason = last.why();
        let found = format!(
            "chain {:03}: {} gaps in the recent records, the last at {} ({reason})",
            self.number,
            gaps.len(),
            position(last)
        );
        findings.warn(
            "losses",
            found,
            "events could not be recorded: `tracing-audit query LOG --kind gap` lists them",
        );
    }
}

fn oldest(all: &[Segment], max_age: Option<Duration>, now: SystemTime, findings: &mut Findings) {
    const CHECK: &str = "retention";
    let Some(oldest) = all.iter().filter_map(Segment::first_time).min() else { return };
    let age = now.duration_since(oldest).unwrap_or_default();
    let found = format!("the oldest record is {} old", words(age));
    // Retention removes a segment when its newest record is too old.
    let newest_of_oldest = all.iter().filter_map(|segment| Some(segment.times()?.1)).min();
    let expired = newest_of_oldest.and_then(|time| now.duration_since(time).ok()).unwrap_or_default();
    match max_age {
        Some(max_age) if expired > max_age + SLACK => {
            let remedy = "nothing removes old segments: check `hold`, `forward-required`, the program's setting \
                          `retention`, and whether it runs";
            findings.must(CHECK, format!("{found}, more than {}", words(max_age)), remedy);
        }
        Some(max_age) => findings.ok(CHECK, format!("{found}; kept for {}", words(max_age))),
        None => findings.ok(CHECK, format!("{found}; give --max-age to compare")),
    }
}
