//! Arbitrary bytes as the files of a log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::image;
use crate::{
    FlushMode, Head, OnFailure, OnFull, Report, Retention, Rotation, Severity, Verdict, Verifier,
    clock::{Clock, Moment, Simulated, Timestamp},
    format::{Payload, RecordKind},
    gauges::Gauges,
    notify::Notifier,
    queue::{Draft, Queue, QueueSettings, Scope, Stage},
    storage::sim::SimDisk,
    writer::{self, Former, Next, Writer, WriterSettings},
};

const SECOND: Duration = Duration::from_secs(1);

/// 2026-11-21T08:00:00Z.
const START: i64 = 1_795_248_000;

/// Checks that verification and reading terminate, agree with each other, and do not depend on the
/// number of threads.
///
/// # Panics
///
/// Panics if that does not hold.
pub fn segment(image: &[u8]) {
    let disk = SimDisk::with_files(7, &image::files(image));
    let Some(report) = verify(&disk, 1) else { return };
    let parallel = verify(&disk, 2).expect("verified before");
    assert_eq!(report.to_string(), parallel.to_string());
    let read = read(&disk);
    if report.is_intact() {
        assert_eq!(read.bad, 0, "intact, and cannot be read: {report}");
        assert_eq!(read.durable.len() as u64 + read.provisional, report.records(), "{report}");
    }
}

/// Checks that a log can be opened whatever is in its directory, or that the reason is returned as
/// an error. Records that counted as durable before are still there, damage stays damage, and no
/// damage is added.
///
/// # Panics
///
/// Panics if that does not hold.
pub fn recovery(image: &[u8]) {
    let _clock = Simulated::begin(Timestamp::from_unix(1_795_248_000, 0));
    let files = image::files(image);
    let disk = SimDisk::with_files(7, &files);
    let first = verify(&disk, 1);
    let before = first.as_ref().map(Report::verdict);
    let report_before = first.map_or_else(|| "no log".to_owned(), |report| report.to_string());
    let durable = read(&disk).durable;
    let Some(opened) = open_write_close(&disk) else { return };
    assert!(opened, "a log on a disk without faults is never closed");

    let report = verify(&disk, 1).expect("a log that was written is one");
    match before {
        Some(Verdict::Damaged) => {
            assert_eq!(
                report.verdict(),
                Verdict::Damaged,
                "damage is hidden: {report}\nbefore: {report_before}"
            );
        }
        _ => assert_ne!(
            report.verdict(),
            Verdict::Damaged,
            "damage is added: {report}\nbefore: {report_before}"
        ),
    }
    if before != Some(Verdict::Damaged) {
        let after = read(&disk).durable;
        for (place, hash) in &durable {
            assert_eq!(after.get(place), Some(hash), "{place:?} was durable and is gone");
        }
    }
    // The old contents of every file stay, whatever they are.
    let now = disk.snapshot();
    for (name, bytes) in files.iter().filter(|(name, _)| !name.starts_with("control/")) {
        assert!(now.get(name).is_some_and(|now| now.starts_with(bytes)), "{name} was changed");
    }
    // Verified and read first, as above, because the machine numbers its processes.
    let again = SimDisk::with_files(7, &files);
    verify(&again, 1);
    read(&again);
    open_write_close(&again);
    assert!(again.snapshot() == now, "the same directory was opened twice, with different results");
}

fn verify(disk: &SimDisk, threads: usize) -> Option<Report> {
    Verifier::new("/log").threads(threads).run_on(&*disk.process().storage()).ok()
}

/// The outcome of reading.
#[derive(Default)]
struct Read {
    durable: BTreeMap<(u16, u64), Head>,
    provisional: u64,
    bad: u64,
}

fn read(disk: &SimDisk) -> Read {
    let mut read = Read::default();
    let Ok(records) = crate::Reader::new("/log").records_of(disk.process().storage()) else { return read };
    for record in records {
        match record {
            Ok(record) if record.is_provisional() => read.provisional += 1,
            Ok(record) => drop(read.durable.insert((record.chain(), record.seq()), record.head())),
            Err(_) => read.bad += 1,
        }
    }
    read
}

/// Opens the log, writes two events and closes it. Returns `None` if it cannot be opened, and false
/// if it is not closed.
fn open_write_close(disk: &SimDisk) -> Option<bool> {
    let storage = disk.process().storage();
    let clock = Clock::hurried();
    let mut now = Moment { elapsed: SECOND, wall: Timestamp::from_unix(START, 0) };
    let opened = writer::open(&storage, &writer_settings(), &Former::default(), clock, &now).ok()?;
    let notifier = Notifier::start(Some("log".to_owned()), clock, None, || {}).expect("no thread is started");
    let queue = Arc::new(Queue::new(queue_settings(), clock, Arc::new(Gauges::default()), notifier));
    let mut writer = Writer::new(storage, Arc::clone(&queue), writer_settings(), opened, now);
    for severity in [Severity::Routine, Severity::Critical] {
        let mut payload = Vec::new();
        Payload::begin(&mut payload, now.wall, RecordKind::Event).raw("action", b"\"fuzz\"");
        // In a scope, so that this thread does not wait.
        let draft = Draft { payload: &payload, severity, at: now.wall };
        queue.submit(&draft, Some(&Scope::new(None)));
    }
    queue.end(Stage::Closing);
    for _ in 0..100 {
        if writer.step(&now, clock) == Next::Ended {
            return Some(queue.not_durable() == 0);
        }
        now.elapsed += SECOND;
    }
    Some(false)
}

fn writer_settings() -> WriterSettings {
    WriterSettings {
        flush_mode: FlushMode::default(),
        rotation: Rotation::never().max_bytes(64 << 10),
        retention: Retention::keep_all(),
        low_space: 0,
        exclusive: false,
        wait_for_chain: Duration::from_millis(250),
        service: "fuzz".to_owned(),
        host: "host".to_owned(),
        writer_id: 7,
    }
}

fn queue_settings() -> QueueSettings {
    QueueSettings {
        bytes: 1 << 20,
        wait_bound: Duration::ZERO,
        flush_mode: FlushMode::default(),
        on_full: OnFull::DropRoutine,
        on_failure: OnFailure::Continue,
    }
}
