//! The oracle: verifies a log, and looks for everything that was acknowledged.
//!
//! Standard input has lines of ledgers, as `run` wrote them. All but `ack` and `flushed` are
//! skipped. Standard output has one name and value per line.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{BufRead as _, Write as _},
    path::Path,
};

use tracing_audit::{AuditLog, Head, Record, RecordKind, Severity, Value, Verifier, read};
use tracing_subscriber::prelude::*;

use crate::Outcome;

/// An event of the workload: run, thread, number.
type Event = (u64, u64, u64);

/// What must be in the log, according to the ledgers.
#[derive(Debug, Default)]
struct Claims {
    acknowledged: Vec<(Event, Option<Head>)>,
    /// Every event of this run and thread up to this number.
    flushed: Vec<Event>,
}

/// What is in the log.
#[derive(Debug, Default)]
struct Found {
    records: u64,
    bad: u64,
    duplicates: u64,
    events: HashMap<Event, Head>,
    /// The number of the last event of each run and thread, and how many are missing before it.
    producers: BTreeMap<(u64, u64), Producer>,
    written: Counts,
    gaps: Counts,
    kinds: BTreeMap<String, u64>,
    /// The first record of each chain. Retention removed what is older.
    first: BTreeMap<u16, u64>,
    /// The last record of each chain that retention removed.
    through: BTreeMap<u16, u64>,
}

#[derive(Debug, Default)]
struct Counts {
    routine: u64,
    critical: u64,
}

#[derive(Debug)]
struct Producer {
    first: u64,
    last: u64,
    events: u64,
}

pub(crate) fn check(dir: &Path, reopen: bool) -> Outcome {
    let claims = read_claims()?;
    if reopen {
        go_on(dir)?;
    }
    let mut verifier = Verifier::new(dir);
    for head in last_heads(&claims) {
        verifier = verifier.expect_head(head);
    }
    let report = verifier.run()?;
    let found = look(dir)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "verdict {}", report.verdict())?;
    for finding in report.findings().iter().take(5) {
        writeln!(out, "finding {finding}")?;
    }
    let pruned = !found.through.is_empty();
    let (missing, excused) = found.missing(&claims, pruned);
    writeln!(out, "records {}", found.records - found.leftovers())?;
    writeln!(out, "counted {}", report.records())?;
    writeln!(out, "bad {}", found.bad)?;
    writeln!(out, "acks {}", claims.acknowledged.len() + claims.flushed.len())?;
    writeln!(out, "missing {}", missing.len())?;
    for (run, thread, number) in missing.iter().take(5) {
        writeln!(out, "lost event {number} of run {run} thread {thread}")?;
    }
    writeln!(out, "pruned {excused}")?;
    writeln!(out, "duplicates {}", found.duplicates)?;
    writeln!(out, "holes {}", found.holes(pruned))?;
    writeln!(out, "routine {}", found.written.routine)?;
    writeln!(out, "critical {}", found.written.critical)?;
    writeln!(out, "gap_routine {}", found.gaps.routine)?;
    writeln!(out, "gap_critical {}", found.gaps.critical)?;
    for (kind, count) in &found.kinds {
        writeln!(out, "kind_{kind} {count}")?;
    }
    for head in report.heads() {
        writeln!(out, "head {head}")?;
    }
    Ok(())
}

/// Checks that the log opens, takes an event and closes, whatever happened to it before.
fn go_on(dir: &Path) -> Outcome {
    let log = AuditLog::builder(dir).service("check").open()?;
    let subscriber = tracing_subscriber::registry().with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        log.confirm(|| tracing::info!(target: "audit", action = "check", actor = "check"))
    })?;
    log.close()?;
    Ok(())
}

fn read_claims() -> Outcome<Claims> {
    let mut claims = Claims::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        if !matches!(kind, "ack" | "flushed") {
            continue;
        }
        let mut number = || words.next().unwrap_or_default().parse::<u64>();
        let event = (number()?, number()?, number()?);
        if kind == "flushed" {
            claims.flushed.push(event);
            continue;
        }
        let receipt = words.next().filter(|receipt| *receipt != "-");
        claims.acknowledged.push((event, receipt.map(str::parse).transpose()?));
    }
    Ok(claims)
}

/// Returns the highest receipt of each chain, which the verifier must find, too.
fn last_heads(claims: &Claims) -> Vec<Head> {
    let mut last: BTreeMap<u16, Head> = BTreeMap::new();
    for head in claims.acknowledged.iter().filter_map(|(_, head)| *head) {
        let known = last.entry(head.chain()).or_insert(head);
        if head.seq() > known.seq() {
            *known = head;
        }
    }
    last.into_values().collect()
}

fn look(dir: &Path) -> Outcome<Found> {
    let mut found = Found::default();
    for record in read(dir)? {
        match record {
            Ok(record) => found.take(&record),
            Err(_) => found.bad += 1,
        }
    }
    Ok(found)
}

impl Found {
    fn take(&mut self, record: &Record) {
        self.records += 1;
        *self.kinds.entry(record.kind().to_string()).or_default() += 1;
        self.first.entry(record.chain()).or_insert(record.seq());
        let cut = match record.kind() {
            RecordKind::Prune => record.get("prune"),
            RecordKind::Segment => record.get("segment").and_then(|segment| segment.get("pruned")),
            _ => None,
        };
        if let Some(through) = cut.and_then(|cut| number_in(cut, "through")) {
            let known = self.through.entry(record.chain()).or_default();
            *known = through.max(*known);
        }
        if let Some(gap) = record.get("gap") {
            self.gaps.routine += number_in(gap, "routine").unwrap_or_default();
            self.gaps.critical += number_in(gap, "critical").unwrap_or_default();
        }
        let number = |name| record.get("fields").and_then(|fields| number_in(fields, name));
        let (Some(run), Some(thread), Some(number)) = (number("run"), number("thread"), number("number"))
        else {
            return;
        };
        if record.severity() == Some(Severity::Critical) {
            self.written.critical += 1;
        } else {
            self.written.routine += 1;
        }
        if self.events.insert((run, thread, number), record.head()).is_some() {
            self.duplicates += 1;
            return;
        }
        let producer = self.producers.entry((run, thread)).or_insert(Producer {
            first: number,
            last: number,
            events: 0,
        });
        producer.first = producer.first.min(number);
        producer.last = producer.last.max(number);
        producer.events += 1;
    }

    /// Returns what was acknowledged and is not there, and how much of the rest retention excuses.
    fn missing(&self, claims: &Claims, pruned: bool) -> (Vec<Event>, u64) {
        let mut missing = HashSet::new();
        let mut excused = 0;
        for (event, receipt) in &claims.acknowledged {
            let there = self.events.get(event);
            let same = there.is_some_and(|there| receipt.is_none_or(|receipt| receipt == *there));
            if same {
                continue;
            }
            let was_pruned = match receipt {
                Some(receipt) => {
                    self.through.get(&receipt.chain()).is_some_and(|through| receipt.seq() <= *through)
                }
                None => pruned && self.is_before(*event),
            };
            if was_pruned {
                excused += 1;
            } else {
                missing.insert(*event);
            }
        }
        for (run, thread, last) in &claims.flushed {
            let gone = (0..=*last)
                .map(|number| (*run, *thread, number))
                .filter(|event| !self.events.contains_key(event));
            missing.extend(gone.filter(|event| !pruned || !self.is_before(*event)));
        }
        let mut missing: Vec<Event> = missing.into_iter().collect();
        missing.sort_unstable();
        (missing, excused)
    }

    /// Returns whether the event precedes the first that is left of its run and thread. If nothing
    /// is left of the thread, returns whether its run is not after the first run that is left.
    fn is_before(&self, (run, thread, number): Event) -> bool {
        match self.producers.get(&(run, thread)) {
            Some(producer) => number < producer.first,
            None => self.producers.keys().all(|(left, _)| run <= *left),
        }
    }

    /// Counts the records that a `prune` record covers and whose file still exists. Verification
    /// does not count them.
    fn leftovers(&self) -> u64 {
        let first = |chain| self.first.get(chain).copied().unwrap_or(u64::MAX);
        self.through.iter().map(|(chain, through)| (through + 1).saturating_sub(first(chain))).sum()
    }

    /// Counts the events missing before the last of their thread: what is there must be a prefix.
    fn holes(&self, pruned: bool) -> u64 {
        let hole = |producer: &Producer| {
            let first = if pruned { producer.first } else { 0 };
            producer.last + 1 - first - producer.events
        };
        self.producers.values().map(hole).sum()
    }
}

fn number_in(object: &Value, name: &str) -> Option<u64> {
    object.get(name).and_then(Value::as_i64).and_then(|number| u64::try_from(number).ok())
}
