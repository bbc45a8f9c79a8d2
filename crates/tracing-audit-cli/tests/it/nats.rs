//! `forward` and `verify` with a NATS stream, on a real server.

#![cfg(all(feature = "nats", target_os = "linux"))]

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::place::Place;

/// A server on a free port, which is ended by its process id.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server. Without its program, notes the test as skipped and returns `None`.
    pub(crate) fn start(dir: &Path, test: &str) -> Option<Self> {
        let Some(program) = program() else {
            skip(test);
            return None;
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Some(Self { process: run(&program, dir, port), port })
    }

    /// Kills the server and restarts it, with its data or without.
    pub(crate) fn restart(&mut self, dir: &Path, loses_all: bool) {
        let _killed = (self.process.kill(), self.process.wait());
        if loses_all {
            fs::remove_dir_all(dir.join("nats")).unwrap();
        }
        self.process = run(&program().unwrap(), dir, self.port);
    }
}

fn run(program: &Path, dir: &Path, port: u16) -> Child {
    let mut server = Command::new(program);
    server.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]);
    server.arg(dir.join("nats")).stdout(Stdio::null()).stderr(Stdio::null());
    let process = server.spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(10));
    }
    process
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = (self.process.kill(), self.process.wait());
    }
}

/// Only `ci/services` requires the server.
#[expect(clippy::print_stderr, reason = "whoever runs the tests must see it")]
fn skip(test: &str) {
    eprintln!("SKIPPED {test}: there is no NATS server");
    if let Some(list) = std::env::var_os("AUDIT_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{test}: there is no NATS server").unwrap();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("AUDIT_NATS_SERVER") {
        return Some(program.into());
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/services/nats/bin/nats-server");
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|dir| dir.join("nats-server"));
    [installed].into_iter().chain(in_path).find(|program| program.exists())
}

#[test]
fn a_log_is_forwarded_to_nats_and_verified_there() {
    let (place, head) = Place::new();
    let name = "a_log_is_forwarded_to_nats_and_verified_there";
    let Some(server) = Server::start(&place.path(""), name) else { return };
    let url = format!("nats://127.0.0.1:{}/AUDIT", server.port);
    let (code, _, said) = place.run(&format!("forward log --to {url} --once --drain 1"));
    assert!(code == 1 && said.contains("create-stream"), "{said}");
    for _ in 0..2 {
        let made = place.run(&format!("forward create-stream {url}"));
        assert_eq!(made, (0, "the stream is there\n".into(), String::new()));
    }
    assert_eq!(place.run(&format!("forward log --to {url} --once")), (0, String::new(), String::new()));
    // Service and host come from the log itself.
    let (code, said, error) = place.run(&format!("verify {url} --of log --head {head}"));
    assert!(code == 0 && said.contains("intact"), "{said}{error}");
    assert_eq!(
        place.run("forward status log").1.lines().next(),
        Some("nats: not running, 0 records refused")
    );
    // To another stream, with service and host from the options.
    let other = format!("nats://127.0.0.1:{}/OTHER", server.port);
    let prefix = "prefix=other";
    assert_eq!(place.run(&format!("forward create-stream {other}?{prefix}")).0, 0);
    let forward = format!("forward log --to {other}?{prefix} --name other --service shop --host n9 --once");
    assert_eq!(place.run(&forward), (0, String::new(), String::new()));
    let stored = fs::read_dir(place.path("nats/jetstream/$G/streams/OTHER/msgs")).unwrap();
    let stored: Vec<u8> = stored.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(String::from_utf8_lossy(&stored).contains("other.shop.n9."));
    let (code, said, _) = place.run(&format!("verify {other}?{prefix} -q"));
    assert_eq!((code, said.as_str()), (0, "intact\n"));
    // A head that the copy does not have.
    let elsewhere = head.to_string().replace(|digit: char| digit.is_ascii_lowercase(), "0");
    assert_eq!(place.run(&format!("verify {url} -q --head {elsewhere}")).0, 1);
}

#[test]
fn an_unusable_nats_url_is_reported_without_its_password() {
    let (place, _) = Place::new();
    for (url, expected) in [
        ("nats://u:Secr3t@nats.example/AUDIT", "tls=off"),
        ("nats://u:Secr3t@127.0.0.1", "names no stream"),
        ("tls://u:Secr3t@127.0.0.1/AUDIT?allow=everything", "memory"),
    ] {
        let (code, _, said) = place.run(&format!("forward log --to {url} --once"));
        assert!(code == 2 && said.contains(expected) && !said.contains("Secr3t"), "{said}");
    }
    let (code, _, said) = place.run("forward create-stream file:x");
    assert!(code == 2 && said.contains("only NATS has streams"), "{said}");
}
