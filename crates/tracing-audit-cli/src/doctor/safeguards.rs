//! Checks of the legal hold, of forwarding, and of heads kept elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use tracing_audit::{Head, Reader, Record, Segment};

use super::{Doctor, Findings, words};
use crate::{head_file::HeadFile, lookup::record_at, shell::quoted};

/// The age up to which records need no kept head: heads are kept daily, and one day may be missed.
const FRESH: Duration = Duration::from_secs(2 * 86_400);

pub(super) fn look(doctor: &Doctor, all: &[Segment], now: SystemTime, findings: &mut Findings) {
    hold(&doctor.log, now, findings);
    forwarding(&doctor.log, findings);
    if let Some(file) = &doctor.heads {
        heads(&doctor.log, all, file, now, findings);
    } else {
        let found = "not known whether heads are kept elsewhere: without one, a truncated or rewritten log is not detected";
        let remedy = "keep one daily (`tracing-audit heads LOG --append FILE` on another machine), and name the \
                      file with --heads";
        findings.warn(HEADS, found, remedy);
    }
}

fn hold(log: &Path, now: SystemTime, findings: &mut Findings) {
    // As in the library, anything with that name is a hold, even a dangling symlink.
    match fs::symlink_metadata(log.join("hold")) {
        Ok(data) => {
            let since = data.modified().ok().and_then(|time| now.duration_since(time).ok());
            let since = since.map(|age| format!(", for {}", words(age))).unwrap_or_default();
            let found = format!("a legal hold is set{since}: retention removes nothing");
            let remedy = format!(
                "`tracing-audit hold {} --release --reason WHY` once it is lifted; watch the free space",
                quoted(log)
            );
            findings.warn("hold", found, remedy);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => findings.ok("hold", "none is set"),
        Err(error) => findings.warn("hold", format!("not known: {error}"), "look again as the owner"),
    }
}

fn forwarding(log: &Path, findings: &mut Findings) {
    const CHECK: &str = "forwarding";
    let required = match tracing_audit_forward::required(log) {
        Ok(required) => required,
        Err(error) => {
            let found = format!("forward-required cannot be used, and counts as a hold: {error}");
            findings.must(CHECK, found, "write one name a line, each 1 to 32 of a-z, 0-9 and hyphen");
            return;
        }
    };
    if required.is_empty() {
        findings.ok(CHECK, "retention waits for no store");
        return;
    }
    // Without access to `control`, the positions of the forwarders are unknown.
    let Ok(status) = tracing_audit_forward::status(log) else {
        let found = format!(
            "not known how far behind the stores are that retention waits for: {}",
            required.join(", ")
        );
        findings.warn(CHECK, found, "look again as the owner of the log");
        return;
    };
    for name in &required {
        let one = status.iter().find(|one| one.name == *name);
        let behind =
            one.map(|one| one.chains.iter().filter_map(|chain| chain.lag_records).max().unwrap_or(0));
        let start = format!("start it: tracing-audit forward {} --to URL --name {name}", quoted(log));
        match (one, behind) {
            (None, _) => {
                findings.must(
                    CHECK,
                    format!("retention waits for `{name}`, whose forwarder has not run here"),
                    start,
                );
            }
            (Some(one), Some(behind)) if !one.is_running => {
                let found = format!(
                    "retention waits for `{name}`, which does not run and is {behind} records behind"
                );
                findings.must(CHECK, found, start);
            }
            (Some(_), behind) => {
                let behind = behind.unwrap_or(0);
                findings.ok(
                    CHECK,
                    format!("retention waits for `{name}`, which runs and is {behind} records behind"),
                );
            }
        }
    }
}

const HEADS: &str = "heads";

/// How well kept heads cover a chain.
enum Coverage {
    /// No record after the newest kept head is older than [`FRESH`]. Has the time of that head, if known.
    Fine(Option<SystemTime>),
    /// Records older than [`FRESH`] are not covered.
    Poor(String),
    /// The log does not have the kept head.
    Broken(String),
}

/// Checks that the log has the newest kept head of each chain, and that only recent records come after it.
fn heads(log: &Path, all: &[Segment], file: &Path, now: SystemTime, findings: &mut Findings) {
    let keep = format!("tracing-audit verify {} --append-heads {}", quoted(log), quoted(file));
    let check = format!("tracing-audit verify {} --heads {}", quoted(log), quoted(file));
    let kept = match HeadFile::read(file) {
        Ok(kept) => kept.heads,
        // A file that cannot be read protects nothing, so this needs doing.
        Err(error) => return findings.must(HEADS, format!("{error:#}"), keep),
    };
    if kept.is_empty() {
        return findings.must(HEADS, format!("{} has no head", file.display()), keep);
    }
    // The newest head of each chain, or several if the file has different ones of the same record.
    let mut last: BTreeMap<u16, BTreeSet<Head>> = BTreeMap::new();
    for head in kept {
        let newest = last.entry(head.chain()).or_default();
        let known = newest.first().map_or(0, Head::seq);
        if head.seq() > known {
            newest.clear();
        }
        if head.seq() >= known {
            newest.insert(head);
        }
    }
    // A chain that only the file knows was removed as a whole, one that only the log knows is not covered.
    let there = all.iter().map(Segment::chain);
    let chains: BTreeSet<u16> = there.chain(last.keys().copied()).collect();
    let (mut newest, mut is_fine) = (None, true);
    for chain in chains {
        let own: Vec<&Segment> = all.iter().filter(|segment| segment.chain() == chain).collect();
        let heads = last.get(&chain);
        let each = match heads {
            Some(heads) => heads.iter().map(|head| coverage(log, &own, *head, now)).collect(),
            None => vec![unkept(log, chain, 1, now)],
        };
        for coverage in each {
            match coverage {
                Coverage::Fine(time) => newest = newest.max(time),
                Coverage::Poor(found) => {
                    is_fine = false;
                    findings.must(HEADS, found, &keep);
                }
                Coverage::Broken(found) => {
                    is_fine = false;
                    findings.must(HEADS, found, &check);
                }
            }
        }
    }
    if is_fine {
        let age = newest.map(|newest| now.duration_since(newest).unwrap_or_default());
        let found = age.map_or_else(
            || "a head of each chain is kept".to_owned(),
            |age| format!("the newest kept head is {} old", words(age)),
        );
        findings.ok(HEADS, found);
    }
}

/// Compares a chain with its newest kept head.
fn coverage(log: &Path, own: &[&Segment], head: Head, now: SystemTime) -> Coverage {
    let (chain, seq) = (head.chain(), head.seq());
    // Retention removed the record, so there is nothing to compare the head with.
    if own.iter().find_map(|segment| segment.first_seq()).is_some_and(|first| seq < first) {
        return match unkept(log, chain, seq + 1, now) {
            Coverage::Poor(found) => {
                Coverage::Poor(format!("{found}; the newest kept head is of a removed record"))
            }
            other => other,
        };
    }
    match record_at(log, chain, seq) {
        None => Coverage::Broken(format!("record {chain:03}/{seq} of the newest kept head is missing")),
        Some(record) if record.hash() != head.hash() => {
            Coverage::Broken(format!("record {chain:03}/{seq} does not have the hash of the kept head"))
        }
        Some(record) => match unkept(log, chain, seq + 1, now) {
            Coverage::Fine(_) => Coverage::Fine(record.time()),
            other => other,
        },
    }
}

/// Checks that the records of a chain from this one on, which no kept head covers, are recent.
fn unkept(log: &Path, chain: u16, from_seq: u64, now: SystemTime) -> Coverage {
    // Heads are of durable records only.
    let records = Reader::new(log).chain(chain).from_seq(from_seq).durable_only(true).records();
    let mut records = records.into_iter().flatten().filter_map(Result::ok);
    let first = records.find(|record| record.seq() >= from_seq);
    let age = first.as_ref().and_then(Record::time).and_then(|time| now.duration_since(time).ok());
    match (first, age) {
        (Some(first), Some(age)) if age > FRESH => Coverage::Poor(format!(
            "no kept head covers chain {chain:03} from record {} on, which is {} old",
            first.seq(),
            words(age)
        )),
        _ => Coverage::Fine(None),
    }
}
