//! A NATS server for a test: in its own directory, on a free port, ended by its process id.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectOptions, HeaderMap, Request};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// How long a server may take to start or to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The password of the user `boss`, who may do everything.
pub(crate) const PASSWORD: &str = "Secr3t";

pub(crate) struct Server {
    program: PathBuf,
    pub(crate) dir: TempDir,
    port: u16,
    settings: String,
    sync: &'static str,
    process: Option<Child>,
}

impl Server {
    /// Starts a server. If none can be started, reports that and returns `None`.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, "")
    }

    /// Starts a server with additional configuration, such as further users in `USERS`.
    pub(crate) fn start_with(test: &str, settings: &str) -> Option<Self> {
        match Self::prepare(settings) {
            Ok(mut server) => {
                server.run();
                Some(server)
            }
            Err(why) => {
                skip(test, &why);
                None
            }
        }
    }

    /// Starts a server that syncs every two minutes, as by default.
    #[allow(dead_code, reason = "the figures need it")]
    pub(crate) fn start_lazy(test: &str) -> Option<Self> {
        match Self::prepare("") {
            Ok(mut server) => {
                server.sync = "2m";
                server.run();
                Some(server)
            }
            Err(why) => {
                skip(test, &why);
                None
            }
        }
    }

    /// Prepares a server that does not run yet.
    pub(crate) fn prepare(settings: &str) -> Result<Self, String> {
        let program = program().ok_or("there is no NATS server")?;
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Ok(Self { program, dir, port, settings: settings.to_owned(), sync: "always", process: None })
    }

    /// Starts it on the existing data, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let users = format!("{{ user: boss, password: {PASSWORD} }}");
        let (users, settings) = match self.settings.split_once("USERS:") {
            Some((settings, more)) => (format!("{users}, {more}"), settings),
            None => (users, self.settings.as_str()),
        };
        let config = format!(
            "listen: 127.0.0.1:{}\njetstream {{ store_dir: \"{}\", sync_interval: {}, max_file: 2G, max_mem: 64M }}\n\
             authorization {{ users: [ {users} ] }}\n{settings}\n",
            self.port,
            self.dir.path().join("data").display(),
            self.sync,
        );
        let file = self.dir.path().join("server.conf");
        fs::write(&file, config).unwrap();
        let begun = Instant::now();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut server = Command::new(&self.program);
        server.arg("-c").arg(file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(server.spawn().unwrap());
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < TIMEOUT,
                "the server does not start: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of the stream, as `boss`.
    pub(crate) fn url(&self, stream: &str) -> String {
        self.url_of("boss", stream)
    }

    pub(crate) fn url_of(&self, user: &str, stream: &str) -> String {
        Self::url_at(self.port, user, stream)
    }

    pub(crate) fn url_at(port: u16, user: &str, stream: &str) -> String {
        format!("nats://{user}:{PASSWORD}@127.0.0.1:{port}/{stream}?service=web&host=n1")
    }

    /// A client of the user `boss`.
    pub(crate) fn admin(&self) -> Admin {
        self.admin_of("boss", "_INBOX")
    }

    pub(crate) fn admin_of(&self, user: &str, inbox: &str) -> Admin {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = ConnectOptions::new().user_and_password(user.to_owned(), PASSWORD.to_owned());
        let options = options.custom_inbox_prefix(inbox);
        let client = runtime.block_on(options.connect(format!("127.0.0.1:{}", self.port))).unwrap();
        Admin { runtime, client }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends raw requests to a server.
pub(crate) struct Admin {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
}

impl Admin {
    /// Returns the answer, or `None` if there is none within a second.
    pub(crate) fn try_ask(&self, subject: &str, body: &str, headers: &[(&str, &str)]) -> Option<Value> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let request = Request::new().payload(body.to_owned().into()).timeout(Some(Duration::from_secs(1)));
        let request = if headers.is_empty() { request } else { request.headers(map) };
        let answer = self.runtime.block_on(self.client.send_request(subject.to_owned(), request)).ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }

    #[track_caller]
    pub(crate) fn ask(&self, subject: &str, body: &str) -> Value {
        let answer = self.try_ask(subject, body, &[]).unwrap_or_else(|| panic!("{subject}: no answer"));
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    /// Creates a stream with a safe configuration, except for these members.
    #[track_caller]
    pub(crate) fn make(&self, stream: &str, other: &Value) {
        let subject = format!("$JS.API.STREAM.CREATE.{stream}");
        let begun = Instant::now();
        loop {
            let made = self.try_ask(&subject, &config(stream, other).to_string(), &[]).unwrap();
            let Some(error) = made.get("error") else { return };
            // The files of a deleted stream are not gone yet.
            assert!(error["err_code"] == 10049 && begun.elapsed() < TIMEOUT, "{stream}: {made}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    pub(crate) fn edit(&self, stream: &str, other: &Value) {
        self.ask(&format!("$JS.API.STREAM.UPDATE.{stream}"), &config(stream, other).to_string());
    }

    #[track_caller]
    pub(crate) fn publish(&self, subject: &str, payload: &str, headers: &[(&str, &str)]) -> Value {
        let answer =
            self.try_ask(subject, payload, headers).unwrap_or_else(|| panic!("{subject}: no answer"));
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    pub(crate) fn count(&self, stream: &str) -> u64 {
        self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "")["state"]["messages"].as_u64().unwrap()
    }

    /// Returns subject and message of everything in a stream, in its order.
    #[track_caller]
    pub(crate) fn all(&self, stream: &str) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut next = 1;
        loop {
            let body = json!({ "seq": next, "next_by_subj": ">" }).to_string();
            let answer = self.try_ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &body, &[]).unwrap();
            let Some(message) = answer.get("message") else { return found };
            next = message["seq"].as_u64().unwrap() + 1;
            let data = message.get("data").and_then(Value::as_str).unwrap_or_default();
            found.push((message["subject"].as_str().unwrap().to_owned(), decoded(data)));
        }
    }
}

/// Returns a safe configuration of a stream, with these members instead.
fn config(stream: &str, other: &Value) -> Value {
    let mut config = json!({
        "name": stream, "subjects": ["audit.>"], "storage": "file", "retention": "limits", "discard": "new",
        "num_replicas": 1, "deny_delete": true, "deny_purge": true, "allow_atomic": true,
    });
    for (name, value) in other.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    config
}

/// Decodes base64, as the server writes it.
fn decoded(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0_u32, |bits, byte| bits << 6 | u32::from(value(*byte)));
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}

/// Returns what `ci/services nats` installed, what `AUDIT_NATS_SERVER` names, or the program in `PATH`.
fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("AUDIT_NATS_SERVER") {
        return Some(program.into());
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/services/nats/bin/nats-server");
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|dir| dir.join("nats-server"));
    [installed].into_iter().chain(in_path).find(|program| program.exists())
}

/// Reports that a test could not run, and notes it in the file that `AUDIT_SKIPPED` names.
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(list) = std::env::var_os("AUDIT_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(Path::new(&list)).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
}
