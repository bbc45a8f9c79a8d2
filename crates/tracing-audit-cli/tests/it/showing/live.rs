//! Following a log that is being written.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Rotation};
use tracing_subscriber::prelude::*;

use super::tail::Tail;
use crate::place::Place;

const LOG: &str = "TRACING_AUDIT_TEST_LOG";
const SECONDS: &str = "TRACING_AUDIT_TEST_SECONDS";
const WRITERS: usize = 4;

fn seconds() -> u64 {
    std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// One of the writers of the test below, which runs this test in processes of their own.
#[test]
fn write_for_a_while() {
    let Ok(path) = std::env::var(LOG) else { return };
    let builder = AuditLog::builder(path).stderr(false).rotation(Rotation::never().max_bytes(64 << 10));
    let log = builder.open().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        let mut n = 0;
        while Instant::now() < end {
            n += 1;
            let padding = "x".repeat(n % 400);
            tracing::info!(target: "audit", action = "item.seen", actor = "mia", n, padding);
            // About 20 KiB a second per writer.
            thread::sleep(Duration::from_millis(25));
        }
    });
    log.close().unwrap();
}

/// Four programs write, segments are rotated, and chains begin: each record is printed once, in the order of its chain.
#[test]
fn a_follower_gets_every_record_once_and_in_order() {
    let place = Place::new().0;
    let mut lines = Tail::start(place.command("tail -f log -n 1000000 --json"));
    let mut text = Tail::start(place.command("tail -f log -n 1000000"));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "showing::live::write_for_a_while"]).env(LOG, place.path("log"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    // One more record, with a text of its own, marks the end.
    place.emit_as(&["the last one"]);
    let written = written(&place.path("log"));
    assert!(written.len() >= WRITERS, "{} chains", written.len());
    let segments = tracing_audit::segments(place.path("log")).unwrap().len();
    assert!(segments > WRITERS + 1, "{segments} segments");
    let all: usize = written.values().map(Vec::len).sum();

    let mut shown: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    while count < all {
        for line in lines.read_until(|_| true) {
            count += 1;
            // A line does not contain its chain, so it must be the next line of one of them.
            let next = written.iter().find(|(chain, lines)| {
                let shown = shown.get(chain).map_or(0, Vec::len);
                lines.get(shown) == Some(&line)
            });
            let Some((chain, _)) = next else { panic!("out of order, or twice: {line}") };
            shown.entry(*chain).or_default().push(line);
        }
    }
    assert_eq!(shown, written);

    let mut positions: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..all {
        let line = text.read_until(|_| true).remove(0);
        let position = line.split_whitespace().nth(2).unwrap();
        let (chain, seq) = position.split_once('/').unwrap_or_else(|| panic!("{line}"));
        let last = positions.entry(chain.to_owned()).or_default();
        *last += 1;
        assert_eq!(last.to_string(), seq, "{line}");
    }
}

fn written(log: &Path) -> BTreeMap<u16, Vec<String>> {
    let mut written: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for record in tracing_audit::read(log).unwrap() {
        let record = record.unwrap();
        written.entry(record.chain()).or_default().push(record.as_json().to_owned());
    }
    written
}
