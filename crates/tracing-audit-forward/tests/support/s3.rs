//! An S3 server for a test: `weed` of `SeaweedFS`, in its own directory, on free ports, ended by its process
//! id. `AUDIT_S3_SERVER` names the program.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing_audit_forward::{Objects, ObjectsBuilder};

/// How long a server may take to start.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const KEY: &str = "AUDITKEY";
pub(crate) const SECRET: &str = "Secr3tSecr3t";

pub(crate) struct Server {
    program: PathBuf,
    dir: TempDir,
    ports: Vec<u16>,
    process: Option<Child>,
}

impl Server {
    /// Starts a server with a bucket `locked`, which has object lock, and one `plain`, which has not. If none
    /// can be started, reports that and returns `None`.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let Some(program) = std::env::var_os("AUDIT_S3_SERVER").map(PathBuf::from) else {
            skip(test, "AUDIT_S3_SERVER names no S3 server");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let identities = format!(
            r#"{{"identities":[{{"name":"boss","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List"]}}]}}"#
        );
        fs::write(dir.path().join("s3.json"), identities).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let mut server = Self { program, dir, ports: free_ports(8), process: None };
        server.run();
        server.curl("PUT", "locked", &["-H", "x-amz-bucket-object-lock-enabled: true"]);
        server.curl("PUT", "plain", &[]);
        // The first object creates volumes, which takes some seconds on a busy machine.
        let begun = Instant::now();
        let first = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--data-binary", "x"];
        while !server.curl("PUT", "plain/first", &first).starts_with("HTTP/1.1 200") {
            assert!(begun.elapsed() < TIMEOUT, "the server takes nothing: {}", server.log());
            thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// Starts it on the existing data, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        // A server does not outlive the test that started it, even if that is killed.
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL").arg(&self.program);
        command.args(["-logtostderr=true", "server", "-filer", "-s3", "-s3.iam=false", "-ip=127.0.0.1"]);
        command.args([
            "-ip.bind=127.0.0.1",
            "-s3.ip.bind=127.0.0.1",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]);
        command.args([
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=0",
        ]);
        let names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"];
        let names = names.into_iter().chain(["filer.port.grpc", "s3.port", "s3.port.grpc"]);
        for (name, port) in names.zip(&self.ports) {
            command.arg(format!("-{name}={port}"));
        }
        command.arg(format!("-dir={}", self.dir.path().join("data").display()));
        command.arg(format!("-s3.config={}", self.dir.path().join("s3.json").display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        // The answer that a bucket does not exist needs all parts of the server.
        while !self.curl("GET", "nowhere", &[]).contains("NoSuchBucket") {
            assert!(begun.elapsed() < TIMEOUT, "the server does not start: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports[6]
    }

    /// Returns the URL of a prefix in a bucket, with more parameters.
    pub(crate) fn url(&self, place: &str, parameters: &str) -> String {
        url_at(self.port(), place, parameters)
    }

    pub(crate) fn builder(&self, place: &str, parameters: &str) -> ObjectsBuilder {
        Objects::builder(&self.url(place, parameters)).credentials(KEY, SECRET, None)
    }

    /// Sends a signed request, and returns the whole answer with its headers.
    pub(crate) fn curl(&self, method: &str, path: &str, arguments: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-i", "--max-time", "10", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
        curl.args(["--user", &format!("{KEY}:{SECRET}"), "-X", method]).args(arguments);
        let output = curl.arg(format!("http://127.0.0.1:{}/{path}", self.port())).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn url_at(port: u16, place: &str, parameters: &str) -> String {
    format!("s3://{place}?service=web&host=n1&region=us-east-1&endpoint=http://127.0.0.1:{port}{parameters}")
}

/// Returns distinct free ports.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Reports that a test could not run, and notes it in the file that `AUDIT_SKIPPED` names.
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(list) = std::env::var_os("AUDIT_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(Path::new(&list)).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
}
