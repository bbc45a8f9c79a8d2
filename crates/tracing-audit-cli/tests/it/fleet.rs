//! `collect`, and the drills of docs/forwarding/fleet.md, on a real NATS server.

#![cfg(all(feature = "nats", target_os = "linux"))]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Rotation};
use tracing_subscriber::prelude::*;

use crate::{nats::Server, place::Place};

const LONG: Duration = Duration::from_secs(60);

/// A directory with a NATS server and a stream.
struct Fleet {
    place: Place,
    server: Server,
    url: String,
}

impl Fleet {
    fn start(test: &str) -> Option<Self> {
        let (place, _) = Place::new();
        let server = Server::start(&place.path(""), test)?;
        let url = format!("nats://127.0.0.1:{}/AUDIT", server.port);
        let fleet = Self { place, server, url };
        fleet.create_stream();
        Some(fleet)
    }

    fn create_stream(&self) {
        assert_eq!(self.place.run(&format!("forward create-stream {}", self.url)).0, 0);
    }

    /// Opens the log of a host.
    fn log(&self, host: &str) -> AuditLog {
        let rotation = Rotation::never().max_bytes(64 << 10);
        AuditLog::builder(self.place.path(host))
            .rotation(rotation)
            .service("web")
            .stderr(false)
            .open()
            .unwrap()
    }

    #[track_caller]
    fn forward(&self, host: &str) {
        let to = format!("forward {host} --to {} --service web --host {host} --once", self.url);
        assert_eq!(self.place.run(&to), (0, String::new(), String::new()));
    }

    fn start_forwarder(&self, host: &str) -> Child {
        let to = format!("forward {host} --to {} --service web --host {host}", self.url);
        self.place.command(&to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn start_collector(&self, options: &str) -> Child {
        let collect =
            format!("collect --from {} fleet --silent-after 20 --metrics fleet.prom{options}", self.url);
        self.place.command(&collect).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs `collect --once`. Returns the exit code and standard output.
    fn collect(&self) -> (i32, String) {
        let (code, printed, said) = self.place.run(&format!("collect --from {} fleet --once", self.url));
        assert_eq!(said, "");
        (code, printed)
    }

    /// Checks that the copy of a host's log verifies, and is the log byte for byte.
    #[track_caller]
    fn assert_copied(&self, host: &str, code: i32) {
        let copy = format!("fleet/logs/web/{host}");
        let (verified, printed, said) = self.place.run(&format!("verify {copy}"));
        assert_eq!(verified, code, "{printed}{said}");
        assert_eq!(segments(&self.place.path(&copy)), segments(&self.place.path(host)));
    }

    /// Waits until `status` prints this text and exits with this code.
    #[track_caller]
    fn until_status(&self, code: i32, text: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let (is, printed, _) = self.place.run("collect status fleet");
            if is == code && printed.contains(text) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < 2 * LONG, "{is}: {printed}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The segments of a log.
fn segments(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    names
        .filter(|(name, _)| name.starts_with("audit-"))
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

fn emit(log: &AuditLog, actor: &str, events: u32) {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for n in 0..events {
            tracing::info!(target: "audit", action = "item.seen", actor, n);
        }
    });
    log.flush().unwrap();
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_logs_of_a_fleet_are_collected_and_checked_against_their_hosts() {
    let name = "the_logs_of_a_fleet_are_collected_and_checked_against_their_hosts";
    let Some(fleet) = Fleet::start(name) else { return };
    for host in ["n1", "n2.example"] {
        let log = fleet.log(host);
        emit(&log, "mia", 500);
        log.close().unwrap();
        fleet.forward(host);
    }
    let (code, printed) = fleet.collect();
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("of 2 chains in 2 logs"), "{printed}");
    for host in ["n1", "n2.example"] {
        fleet.assert_copied(host, 0);
        assert_eq!(fleet.place.run(&format!("verify {host} -q --heads fleet/heads/web/{host}")).0, 0);
    }
    let (code, printed, _) = fleet.place.run("collect status fleet");
    assert!(code == 0 && printed.contains("all is well") && printed.contains("web/n2.example"), "{printed}");
    let (code, printed, _) = fleet.place.run("collect status fleet --json");
    assert!(code == 0 && printed.starts_with("{\"format\":1,"), "{printed}");
    let (code, printed, _) = fleet.place.run("collect status fleet --max-age 0");
    assert!(code == 3 && printed.contains("is not running"), "{printed}");
    // An expected log that never arrived.
    fs::write(fleet.place.path("hosts"), "# all of them\nweb/n1\nweb/n2.example # the other\nweb/n3\n")
        .unwrap();
    let collect = format!("collect --from {} fleet --once --expect hosts --silent-after 0", fleet.url);
    let (code, printed, _) = fleet.place.run(&collect);
    assert!(code == 1 && printed.contains("missing: web/n3: it is expected"), "{printed}");
    fs::write(fleet.place.path("hosts"), "n1\n").unwrap();
    let (code, _, said) = fleet.place.run(&collect);
    assert!(code == 2 && said.contains("line 1 of hosts is not the name of a log"), "{said}");
}

/// Drill: a host is lost with its disk. Its log is restored from the archive, and is the one that was collected.
#[cfg(feature = "objects")]
#[test]
fn a_restored_log_is_the_one_that_was_collected() {
    let name = "a_restored_log_is_the_one_that_was_collected";
    let Some(fleet) = Fleet::start(name) else { return };
    let log = fleet.log("n1");
    emit(&log, "mia", 500);
    log.close().unwrap();
    fleet.forward("n1");
    let to = "forward n1 --to archive:archive --service web --host n1 --once";
    assert_eq!(fleet.place.run(to), (0, String::new(), String::new()));
    assert_eq!(fleet.collect().0, 0);
    let was = segments(&fleet.place.path("n1"));
    fs::remove_dir_all(fleet.place.path("n1")).unwrap();
    let (code, printed, said) = fleet.place.run("restore archive:archive?service=web&host=n1 n1");
    assert_eq!(code, 0, "{printed}{said}");
    assert_eq!(segments(&fleet.place.path("n1")), was);
    assert_eq!(
        fleet.place.run("verify n1 -q --heads fleet/heads/web/n1"),
        (0, "intact\n".into(), String::new())
    );
    // Forwarding continues from there.
    let log = fleet.log("n1");
    emit(&log, "mia", 5);
    log.close().unwrap();
    fleet.forward("n1");
    assert_eq!(fleet.place.run(to).0, 0);
    assert_eq!(fleet.collect().0, 0);
    fleet.assert_copied("n1", 0);
}

/// Drill: a tampered host. Its log is rewritten with other content; nothing on the host itself shows it.
#[test]
fn a_host_whose_log_was_written_anew_is_found() {
    let Some(fleet) = Fleet::start("a_host_whose_log_was_written_anew_is_found") else { return };
    let log = fleet.log("n1");
    emit(&log, "mallory", 50);
    log.close().unwrap();
    fleet.forward("n1");
    assert_eq!(fleet.collect().0, 0);
    let was = segments(&fleet.place.path("n1"));
    fs::remove_dir_all(fleet.place.path("n1")).unwrap();
    let log = fleet.log("n1");
    emit(&log, "mia", 50);
    log.close().unwrap();
    assert_eq!(fleet.place.run("verify n1 -q").0, 0);
    let (code, printed, _) = fleet.place.run("verify n1 --heads fleet/heads/web/n1");
    assert!(code == 1 && printed.contains("FAIL"), "{printed}");
    fleet.forward("n1");
    let (code, printed) = fleet.collect();
    assert!(code == 1 && printed.contains("forked: web/n1") && printed.contains("begun again"), "{printed}");
    // The collector still has the original.
    assert_eq!(segments(&fleet.place.path("fleet/logs/web/n1")), was);
    let (code, printed, _) = fleet.place.run("collect settle fleet --all");
    assert_eq!((code, printed.as_str()), (0, "the alarms of 1 chains were cleared\n"));
    assert_eq!(fleet.collect().0, 0);
}

/// Drill: a host disappears, and another returns with an older state of its log.
#[test]
fn a_host_that_is_lost_or_rewound_is_named_within_a_minute() {
    let Some(fleet) = Fleet::start("a_host_that_is_lost_or_rewound_is_named_within_a_minute") else { return };
    let (lost, rewound) = (fleet.log("n1"), fleet.log("n2"));
    emit(&rewound, "mia", 10);
    rewound.close().unwrap();
    let copy = |from: &str, to: &str| {
        fs::create_dir(fleet.place.path(to)).unwrap();
        for (name, bytes) in segments(&fleet.place.path(from)) {
            fs::write(fleet.place.path(to).join(name), bytes).unwrap();
        }
    };
    copy("n2", "backup");
    let rewound = fleet.log("n2");
    emit(&rewound, "mallory", 10);
    rewound.close().unwrap();
    emit(&lost, "mia", 10);
    fleet.forward("n2");
    let forwarders = [fleet.start_forwarder("n1"), fleet.start_forwarder("n2")];
    let collector = fleet.start_collector("");
    let begun = Instant::now();
    while !fleet.place.path("fleet/logs/web/n1").exists() {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(100));
    }
    fleet.until_status(0, "web/n1");
    // An idle log with a live forwarder is not silent, even after `--silent-after` seconds.
    thread::sleep(Duration::from_secs(22));
    let (code, printed, _) = fleet.place.run("collect status fleet");
    assert_eq!(code, 0, "{printed}");
    let [first, second] = forwarders;
    end(first);
    assert!(fleet.until_status(3, "silent: web/n1") < LONG);
    end(second);
    fs::remove_dir_all(fleet.place.path("n2")).unwrap();
    copy("backup", "n2");
    let second = fleet.start_forwarder("n2");
    assert!(fleet.until_status(1, "stopped: web/n2") < LONG);
    let (_, printed, _) = fleet.place.run("collect status fleet");
    assert!(printed.contains("was cut, restored or cloned"), "{printed}");
    let metrics = fleet.place.path("fleet.prom");
    let begun = Instant::now();
    while !fs::read_to_string(&metrics).unwrap().contains("tracing_audit_collect_alarms{kind=\"stopped\"} 1")
    {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(200));
    }
    end(second);
    end(collector);
}

/// Drill: the stream is lost with all messages. The hosts send again what it lacks.
#[test]
fn a_lost_stream_is_refilled_without_duplicates_in_the_copies() {
    let name = "a_lost_stream_is_refilled_without_duplicates_in_the_copies";
    let Some(mut fleet) = Fleet::start(name) else { return };
    let log = fleet.log("n1");
    emit(&log, "mia", 300);
    fleet.forward("n1");
    assert_eq!(fleet.collect().0, 0);
    let dir = fleet.place.path("");
    fleet.server.restart(&dir, true);
    fleet.create_stream();
    emit(&log, "mia", 300);
    log.close().unwrap();
    let to = format!("forward n1 --to {} --service web --host n1 --once", fleet.url);
    let (code, _, said) = fleet.place.run(&to);
    assert!(code == 0 && said.contains("what is missing is sent again"), "{said}");
    let (code, printed) = fleet.collect();
    assert_eq!(code, 0, "{printed}");
    fleet.assert_copied("n1", 0);
}

/// The forwarders, the server and the collector are killed at random while two hosts write. In the end each copy equals its
/// log, byte for byte.
#[test]
fn kills_lose_and_duplicate_nothing_on_the_way_to_the_collector() {
    let name = "kills_lose_and_duplicate_nothing_on_the_way_to_the_collector";
    let Some(mut fleet) = Fleet::start(name) else { return };
    let kills: u64 = std::env::var("AUDIT_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let hosts = ["n1", "n2"];
    let logs = hosts.map(|host| fleet.log(host));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for log in &logs {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    emit(log, "mia", 20);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let mut forwarders = hosts.map(|host| fleet.start_forwarder(host));
        let mut collector = fleet.start_collector("");
        for number in 0..kills {
            thread::sleep(Duration::from_millis(300 + number * 7_919 % 900));
            match number % 4 {
                0 | 2 => end(std::mem::replace(&mut collector, fleet.start_collector(""))),
                1 => {
                    let at = usize::try_from(number / 4 % 2).unwrap();
                    end(std::mem::replace(&mut forwarders[at], fleet.start_forwarder(hosts[at])));
                }
                _ => {
                    let dir = fleet.place.path("");
                    fleet.server.restart(&dir, false);
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        forwarders.into_iter().for_each(end);
        end(collector);
    });
    for (log, host) in logs.iter().zip(hosts) {
        log.close().unwrap();
        let to = format!("forward {host} --to {} --service web --host {host} --once --drain 60", fleet.url);
        let (code, _, said) = fleet.place.run(&to);
        assert_eq!(code, 0, "{said}");
    }
    let (code, printed) = fleet.collect();
    assert_eq!(code, 0, "{printed}");
    for host in hosts {
        fleet.assert_copied(host, 0);
    }
}
