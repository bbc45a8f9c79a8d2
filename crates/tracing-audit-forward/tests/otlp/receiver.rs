//! An independent receiver: a Python process with the official protobuf classes.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// How long a receiver may take to start.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the interpreter, if it is named and has the package.
fn python() -> Option<&'static str> {
    static PYTHON: OnceLock<Option<String>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let python = env::var("AUDIT_OTLP_PYTHON").ok()?;
        let asked = Command::new(&python)
            .args(["-c", "import opentelemetry.proto.collector.logs.v1.logs_service_pb2"])
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success()).then_some(python)
    });
    found.as_deref()
}

/// Reports that a test is skipped, here and in the list that `ci/services` checks.
#[track_caller]
fn skip() {
    let place = std::panic::Location::caller();
    let line = format!(
        "{}:{}: needs AUDIT_OTLP_PYTHON, an interpreter with opentelemetry-proto",
        place.file(),
        place.line()
    );
    println!("skipped: {line}");
    if let Ok(list) = env::var("AUDIT_SKIPPED") {
        let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{line}").unwrap();
    }
}

/// A receiver that runs until this is dropped.
pub(crate) struct Receiver {
    python: &'static str,
    arguments: Vec<String>,
    process: Child,
    pub(crate) port: u16,
    dir: TempDir,
    /// The number of times that it was started.
    lives: usize,
}

impl Receiver {
    /// Starts one on a free port. If that is not possible here, reports it and returns `None`.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with more arguments.
    #[track_caller]
    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        let Some(python) = python() else {
            skip();
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let (process, port) = run(python, &output(&dir, 1), &arguments, 0);
        Some(Self { python, arguments, process, port: port.unwrap(), dir, lives: 1 })
    }

    /// Kills it and starts it again on the same port, with another file: the old one may end with half a
    /// line.
    pub(crate) fn kill_and_restart(&mut self) {
        self.end();
        self.lives += 1;
        let begun = Instant::now();
        loop {
            let (process, port) =
                run(self.python, &output(&self.dir, self.lives), &self.arguments, self.port);
            self.process = process;
            if port.is_some() {
                return;
            }
            // A client that connected may hold the port for a moment.
            self.end();
            assert!(begun.elapsed() < TIMEOUT, "the receiver does not start");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Returns every complete line that it wrote, in all its runs.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for life in 1..=self.lives {
            let text = fs::read_to_string(output(&self.dir, life)).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            lines.extend(whole.map(str::to_owned));
        }
        lines
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets how requests are answered from now on.
    pub(crate) fn control(&self, settings: &Json) {
        ureq::post(format!("{}/control", self.url())).send(settings.to_string()).unwrap();
    }

    /// Answers each request with this status, header and text.
    pub(crate) fn answer(&self, status: u16, headers: &Json, text: &str) {
        self.control(&json!({"mode": "status", "status": status, "headers": headers, "text": text}));
    }

    /// Returns every request so far, with its answer.
    pub(crate) fn requests(&self) -> Vec<Json> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns every log record that was accepted so far.
    pub(crate) fn records(&self) -> Vec<Json> {
        self.requests().iter().flat_map(|request| request["records"].as_array().unwrap().clone()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

fn output(dir: &TempDir, life: usize) -> PathBuf {
    dir.path().join(format!("received-{life}.jsonl"))
}

/// Starts a process, and waits for the port that it prints: none if it could not get this one.
fn run(python: &str, output: &Path, arguments: &[String], port: u16) -> (Child, Option<u16>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/otlp_receiver.py");
    let mut process = Command::new(python)
        .arg(script)
        .arg(output)
        .args(["--port", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let port = said.trim().strip_prefix("listening on ").map(|port| port.parse().unwrap());
    (process, port)
}
