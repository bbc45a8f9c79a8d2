//! Kills writers, a forwarder and a server at random, and checks what the store has in the end.
//!
//! The processes are this test program itself, started with an environment variable that selects their role.
//! `AUDIT_KILLS` sets the number of kills, 20 by default.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "for who measures")]
#![cfg(all(target_os = "linux", feature = "file"))]

#[cfg(feature = "postgres")]
#[path = "support/postgres.rs"]
#[allow(dead_code, clippy::print_stderr, reason = "this test needs less of it")]
mod server;

#[cfg(feature = "nats")]
#[path = "support/nats.rs"]
#[allow(dead_code, clippy::print_stderr, reason = "this test needs less of it")]
mod nats;
#[cfg(feature = "objects")]
#[path = "support/s3.rs"]
#[allow(dead_code, clippy::print_stderr, reason = "this test needs less of it")]
mod s3;

#[cfg(feature = "otlp")]
#[path = "otlp/receiver.rs"]
#[allow(dead_code, reason = "this test needs less of it")]
mod receiver;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tracing_audit::{AuditLog, Retention, Rotation};
use tracing_audit_forward::{CopyChecker, CopyReport, FileSink, Forwarder, Sink, verify_file};
use tracing_subscriber::prelude::*;

const ROLE: &str = "AUDIT_KILLS_ROLE";
const DIR: &str = "AUDIT_KILLS_DIR";
/// The URL of a server; without it the store is a file.
const URL: &str = "AUDIT_KILLS_URL";
const WRITERS: usize = 4;

fn log_of(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Small segments, of which few are kept once they are forwarded.
fn open(dir: &Path) -> AuditLog {
    let retention = Retention::keep_all().max_segments(2).require_forwarded(["store"]);
    let builder = AuditLog::builder(log_of(dir)).rotation(Rotation::never().max_bytes(128 << 10));
    builder.retention(retention).stderr(false).open().unwrap()
}

fn sink(dir: &Path, url: Option<&str>) -> Box<dyn Sink> {
    match url {
        None => Box::new(FileSink::new(dir.join("copy.jsonl"))),
        #[cfg(feature = "otlp")]
        Some(url) if url.starts_with("http://") => Box::new(tracing_audit_forward::Otlp::new(url).unwrap()),
        #[cfg(feature = "nats")]
        Some(url) if url.starts_with("nats://") => Box::new(tracing_audit_forward::Nats::new(url).unwrap()),
        #[cfg(feature = "postgres")]
        Some(url) if url.starts_with("postgres://") => {
            Box::new(tracing_audit_forward::Postgres::new(url).unwrap())
        }
        #[cfg(feature = "objects")]
        Some(url) if url.starts_with("archive:") || url.starts_with("s3://") => {
            let builder = tracing_audit_forward::Objects::builder(url);
            Box::new(builder.credentials(s3::KEY, s3::SECRET, None).build().unwrap())
        }
        Some(url) => panic!("{url}"),
    }
}

struct Any(Box<dyn Sink>);

impl Sink for Any {
    fn positions(
        &mut self,
        ids: &[std::sync::Arc<str>],
    ) -> Result<Option<Vec<tracing_audit_forward::Position>>, tracing_audit_forward::SinkError> {
        self.0.positions(ids)
    }

    fn offer(
        &mut self,
        batch: &[tracing_audit_forward::Entry],
    ) -> Result<(), tracing_audit_forward::SinkError> {
        self.0.offer(batch)
    }

    fn gap(&mut self, gap: &tracing_audit_forward::Gap) -> Result<(), tracing_audit_forward::SinkError> {
        self.0.gap(gap)
    }
}

/// Emits until it is killed, and records what was confirmed.
fn write(dir: &Path) -> ! {
    let log = open(dir);
    tracing_subscriber::registry().with(log.layer()).init();
    let mut acks = File::create(dir.join(format!("acks-{}", std::process::id()))).unwrap();
    for n in 0_u64.. {
        tracing::info!(target: "audit", action = "item.seen", actor = "mia", n);
        if n % 5 == 0 {
            let receipt = log
                .confirm(|| tracing::info!(target: "audit", action = "item.sold", actor = "mia", n))
                .unwrap();
            acks.write_all(format!("{}\n", receipt.hash()).as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_micros(500));
    }
    unreachable!()
}

/// Forwards until it is killed.
fn forward(dir: &Path, url: Option<&str>) -> ! {
    let _forwarder = Forwarder::builder("store").start_beside(log_of(dir), Any(sink(dir, url))).unwrap();
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// Not a test of its own: the other tests start it.
#[test]
fn a_process_of_the_other_tests() {
    let Ok(role) = env::var(ROLE) else { return };
    let dir = PathBuf::from(env::var_os(DIR).unwrap());
    match role.as_str() {
        "write" => write(&dir),
        _ => forward(&dir, env::var(URL).ok().as_deref()),
    }
}

fn start(dir: &Path, role: &str, url: Option<&str>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["a_process_of_the_other_tests", "--exact", "--nocapture"]).env(ROLE, role).env(DIR, dir);
    command.envs(url.map(|url| (URL, url))).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Kills as often as requested, recovers the log, and forwards the rest. Returns the hashes that were
/// confirmed.
fn run(dir: &Path, url: Option<&str>, mut kill_server: impl FnMut()) -> BTreeSet<String> {
    let kills: usize = env::var("AUDIT_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut writers: Vec<Child> = (0..WRITERS).map(|_| start(dir, "write", None)).collect();
    let mut forwarder = start(dir, "forward", url);
    for number in 0..kills {
        thread::sleep(Duration::from_millis(50 + (number as u64 * 7_919) % 350));
        match number % 4 {
            0 => kill(std::mem::replace(&mut forwarder, start(dir, "forward", url))),
            1 => kill_server(),
            _ => kill(std::mem::replace(&mut writers[number % WRITERS], start(dir, "write", None))),
        }
    }
    writers.into_iter().for_each(kill);
    kill(forwarder);
    // Opening the log recovers what the dead writers left, and what is durable then goes to the store. Then
    // retention removes what was forwarded.
    for _ in 0..2 {
        let log = open(dir);
        log.rotate().unwrap();
        thread::sleep(Duration::from_millis(500));
        log.close().unwrap();
        let last = Forwarder::builder("store").start_beside(log_of(dir), Any(sink(dir, url))).unwrap();
        last.drain(Duration::from_secs(120)).unwrap();
        let stats = last.stats();
        assert!(stats.stopped.is_empty() && (stats.rejected, stats.missed) == (0, 0), "{stats:?}");
        last.close(Duration::from_secs(10)).unwrap();
    }
    assert!(tracing_audit::verify(log_of(dir)).unwrap().is_intact());
    let mut confirmed = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("acks-") {
            let text = fs::read_to_string(path).unwrap();
            confirmed.extend(
                text.split_inclusive('\n').filter_map(|line| Some(line.strip_suffix('\n')?.to_owned())),
            );
        }
    }
    assert!(confirmed.len() > kills);
    println!("{kills} kills, {} records confirmed", confirmed.len());
    confirmed
}

/// Checks that the copy is complete and without duplicates, from the first record of each chain to the last
/// of the log, and that retention removed what the copy has.
#[track_caller]
fn check(dir: &Path, report: &CopyReport, hashes: &BTreeSet<String>, confirmed: &BTreeSet<String>) {
    assert!(report.is_intact() && report.holes().is_empty(), "{report}");
    let missing = confirmed.difference(hashes).count();
    assert_eq!(missing, 0, "of {} confirmed records", confirmed.len());
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    for record in tracing_audit::read(log_of(dir)).unwrap() {
        let record = record.unwrap();
        assert!(hashes.contains(&record.hash().to_string()), "{}", record.head());
        first.entry(record.chain()).or_insert(record.seq());
        last.insert(record.chain(), record.seq());
    }
    let copied = report.chains().iter().map(|chain| (chain.chain.unwrap(), chain.last.as_ref().unwrap().seq));
    assert_eq!(copied.collect::<BTreeMap<_, _>>(), last);
    assert!(report.chains().iter().all(|chain| chain.first_seq == Some(1)));
    assert!(first.values().any(|seq| *seq > 1), "retention removed nothing");
}

#[test]
fn every_confirmed_record_reaches_a_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let confirmed = run(dir, None, || {});
    let copy = dir.join("copy.jsonl");
    let report = verify_file(&copy, CopyChecker::new()).unwrap();
    let lines = fs::read_to_string(copy).unwrap();
    let hashes = lines.lines().map(|line| line[line.len() - 66..line.len() - 2].to_owned()).collect();
    check(dir, &report, &hashes, &confirmed);
}

#[cfg(feature = "postgres")]
#[test]
fn every_confirmed_record_reaches_a_server_that_is_killed_once() {
    let Some(server) = server::Server::start("every_confirmed_record_reaches_a_server_that_is_killed_once")
    else {
        return;
    };
    let server = std::cell::RefCell::new(server);
    let url = server.borrow().boss();
    let mut store = tracing_audit_forward::Postgres::new(&url).unwrap();
    store.create_schema().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let confirmed = run(dir.path(), Some(&url), || {
        server.borrow_mut().kill();
        server.borrow_mut().run();
    });
    let report = store.verify().unwrap();
    let hashes = server.borrow().sql("SELECT encode(hash, 'hex') FROM audit_records");
    check(dir.path(), &report, &hashes.lines().map(str::to_owned).collect(), &confirmed);
}

/// With `sync_interval: always`. A kill is not a power cut: the system still has what a server acknowledged
/// before it.
#[cfg(feature = "nats")]
#[test]
fn every_confirmed_record_reaches_a_stream_whose_server_is_killed_once() {
    let name = "every_confirmed_record_reaches_a_stream_whose_server_is_killed_once";
    let Some(server) = nats::Server::start(name) else { return };
    let server = std::cell::RefCell::new(server);
    let url = server.borrow().url("AUDIT");
    let mut store = tracing_audit_forward::Nats::new(&url).unwrap();
    store.create_stream(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let confirmed = run(dir.path(), Some(&url), || {
        server.borrow_mut().kill();
        server.borrow_mut().run();
    });
    let report = store.verify().unwrap();
    let stored = server.borrow().admin().all("AUDIT");
    let hash = |(_, line): &(String, Vec<u8>)| {
        String::from_utf8(line[line.len() - 66..line.len() - 2].to_vec()).unwrap()
    };
    let hashes: BTreeSet<String> = stored.iter().map(hash).collect();
    assert_eq!(hashes.len(), stored.len(), "a record stands there twice");
    check(dir.path(), &report, &hashes, &confirmed);
}

/// The archive is restored, and the restored log has to equal the one that was written.
#[cfg(feature = "objects")]
fn check_archive(dir: &Path, url: &str, confirmed: &BTreeSet<String>) {
    let builder = tracing_audit_forward::Objects::builder(url).credentials(s3::KEY, s3::SECRET, None);
    let mut archive = builder.archive().unwrap();
    let report = archive.verify().unwrap();
    let back = dir.join("back");
    archive.restore(&back, &[]).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for entry in fs::read_dir(&back).unwrap() {
        lines.extend(fs::read_to_string(entry.unwrap().path()).unwrap().lines().map(str::to_owned));
    }
    let hashes: BTreeSet<String> =
        lines.iter().map(|line| line[line.len() - 66..line.len() - 2].to_owned()).collect();
    assert_eq!(hashes.len(), lines.len(), "a record is there twice");
    let restored = tracing_audit::verify(&back).unwrap();
    assert!(restored.is_intact(), "{restored}");
    check(dir, &report, &hashes, confirmed);
}

#[cfg(feature = "objects")]
#[test]
fn every_confirmed_record_reaches_an_archive_in_a_directory_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("archive:{}?service=web&host=n1", dir.path().join("archive").display());
    let confirmed = run(dir.path(), Some(&url), || {});
    check_archive(dir.path(), &url, &confirmed);
}

#[cfg(feature = "objects")]
#[test]
fn every_confirmed_record_reaches_an_archive_on_a_server_that_is_killed_once() {
    let name = "every_confirmed_record_reaches_an_archive_on_a_server_that_is_killed_once";
    let Some(mut server) = s3::Server::start(name) else { return };
    let url = server.url("locked/logs", "");
    let dir = tempfile::tempdir().unwrap();
    let confirmed = run(dir.path(), Some(&url), || {
        server.kill();
        server.run();
    });
    check_archive(dir.path(), &url, &confirmed);
}

/// A receiver cannot be asked what it has, so it may get a record again. The first arrivals are the copy.
#[cfg(feature = "otlp")]
#[test]
fn every_confirmed_record_reaches_a_receiver_that_is_killed_in_order() {
    let Some(mut receiver) = receiver::Receiver::start_with(&["--store"]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = receiver.url();
    let confirmed = run(dir.path(), Some(&url), || receiver.kill_and_restart());
    let lines = receiver.lines();
    let mut copy = CopyChecker::new();
    let mut arrived = BTreeMap::new();
    let mut hashes = BTreeSet::new();
    let mut repeated = 0;
    for line in &lines {
        let (chain_id, line) = line.split_once('\t').unwrap();
        let (seq, _) = line.strip_prefix(r#"{"seq":"#).unwrap().split_once(',').unwrap();
        if let Some(first) = arrived.insert((chain_id, seq), line) {
            assert_eq!(first, line, "another record under the same key");
            repeated += 1;
            continue;
        }
        copy.line(chain_id, line.as_bytes());
        hashes.insert(line[line.len() - 66..line.len() - 2].to_owned());
    }
    println!("{} records arrived, {repeated} of them again", lines.len());
    check(dir.path(), &copy.finish(), &hashes, &confirmed);
}
