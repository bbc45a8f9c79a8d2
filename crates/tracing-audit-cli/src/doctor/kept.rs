//! What is kept: heads, holds, and copies elsewhere.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use tracing_audit::{Head, Reader, Record};

use super::{Doctor, Findings, words};

/// How old the newest head may be that is kept: it is kept daily, and a day may be missed.
const FRESH: Duration = Duration::from_secs(2 * 86_400);

pub(super) fn look(doctor: &Doctor, now: SystemTime, findings: &mut Findings) {
    hold(&doctor.log, now, findings);
    forwarding(&doctor.log, findings);
    if let Some(file) = &doctor.heads {
        heads(&doctor.log, file, now, findings);
    } else {
        let found = "not known whether heads are kept elsewhere: without one, a cut end or a log written anew is not seen";
        let remedy = "keep one daily (`tracing-audit heads LOG --append FILE` on another machine), and name the \
                      file with --heads";
        findings.warn(HEADS, found, remedy);
    }
}

fn hold(log: &Path, now: SystemTime, findings: &mut Findings) {
    match fs::symlink_metadata(log.join("hold")) {
        Ok(data) => {
            let since = data.modified().ok().and_then(|time| now.duration_since(time).ok());
            let since = since.map(|age| format!(", for {}", words(age))).unwrap_or_default();
            let found = format!("a legal hold is set{since}: retention removes nothing");
            findings.warn(
                "hold",
                found,
                "`tracing-audit hold LOG --release` once it is lifted; watch the free space",
            );
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
    // Whoever may not read `control` cannot know how far they are.
    let status = tracing_audit_forward::status(log).unwrap_or_default();
    for name in &required {
        let one = status.iter().find(|one| one.name == *name);
        let behind =
            one.map(|one| one.chains.iter().filter_map(|chain| chain.lag_records).max().unwrap_or(0));
        let start = format!("start it: tracing-audit forward {} --to URL --name {name}", log.display());
        match (one, behind) {
            (None, _) => {
                findings.must(CHECK, format!("retention waits for `{name}`, which is not seen here"), start);
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

/// Whether a head of the last days is among those that are kept.
fn heads(log: &Path, file: &Path, now: SystemTime, findings: &mut Findings) {
    let shown = file.display();
    let keep = format!("tracing-audit verify {} --append-heads {shown}", log.display());
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return findings.must(HEADS, format!("cannot read {shown}: {error}"), keep),
    };
    // A head may stand beside other words, such as the time at which it was kept.
    let words_in = |line: &str| line.split_ascii_whitespace().find_map(|word| word.parse::<Head>().ok());
    let kept: Vec<Head> = text.lines().filter_map(words_in).collect();
    // The last of each chain.
    let mut last: Vec<Head> = Vec::new();
    for head in kept.iter().rev() {
        if !last.iter().any(|known| known.chain() == head.chain()) {
            last.push(*head);
        }
    }
    if last.is_empty() {
        return findings.must(HEADS, format!("{shown} has no head"), keep);
    }
    let mut newest = None;
    for head in &last {
        match record_at(log, *head) {
            Some(record) if record.hash() == head.hash() => newest = newest.max(record.time()),
            Some(_) => {
                let found = format!("record {:03}/{} is not the one that was kept", head.chain(), head.seq());
                findings.must(
                    HEADS,
                    found,
                    format!("tracing-audit verify {} --heads {shown}", log.display()),
                );
            }
            None => {
                let found =
                    format!("record {:03}/{}, which was kept, is not there", head.chain(), head.seq());
                findings.must(
                    HEADS,
                    found,
                    format!("tracing-audit verify {} --heads {shown}", log.display()),
                );
            }
        }
    }
    let Some(newest) = newest else { return };
    let age = now.duration_since(newest).unwrap_or_default();
    let found = format!("the newest that is kept is {} old", words(age));
    let is_at_end =
        last.iter().any(|head| last_of(log, head.chain()).is_some_and(|end| end.hash() == head.hash()));
    if age <= FRESH || is_at_end {
        findings.ok(HEADS, found);
    } else {
        findings.must(HEADS, found, keep);
    }
}

fn record_at(log: &Path, head: Head) -> Option<Record> {
    let mut records = Reader::new(log).chain(head.chain()).from_seq(head.seq()).records().ok()?;
    records.find_map(Result::ok).filter(|record| record.seq() == head.seq())
}

fn last_of(log: &Path, chain: u16) -> Option<Record> {
    Reader::new(log).chain(chain).last(1).records().ok()?.next()?.ok()
}
