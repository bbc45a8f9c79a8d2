//! A PostgreSQL server for a test: in its own directory, on a free port, ended by its process id.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a server may take to start or to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The password of the role `boss`, which may do everything.
pub(crate) const PASSWORD: &str = "Secr3t";

pub(crate) struct Server {
    programs: PathBuf,
    /// The command that starts programs as another user if this one is root: the server refuses to run as
    /// root.
    other_user: Vec<String>,
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Starts a server with a database. If none can be started, reports that and returns `None`.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[])
    }

    /// Starts a server with settings such as `fsync=off`.
    pub(crate) fn start_with(test: &str, settings: &[&str]) -> Option<Self> {
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

    /// Prepares a server that does not run yet.
    pub(crate) fn prepare(settings: &[&str]) -> Result<Self, String> {
        let programs = programs().ok_or("there is no PostgreSQL server")?;
        let other_user = other_user()?;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { programs, other_user, dir, port: free_port(), settings, process: None };
        server.init();
        Ok(server)
    }

    fn init(&mut self) {
        let home = self.dir.path().join("server");
        fs::create_dir(&home).unwrap();
        let password = home.join("password");
        fs::write(&password, PASSWORD).unwrap();
        if let Some(user) = self.user() {
            succeed(Command::new("chown").arg("-R").arg(user).arg(&home));
        }
        let mut init = self.program("initdb");
        init.args(["--username=boss", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        init.arg("--pwfile").arg(password).arg("--pgdata").arg(self.data());
        succeed(&mut init);
    }

    /// Starts it on the existing data, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let begun = Instant::now();
        loop {
            let mut server = self.program("postgres");
            server.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
            let sockets = format!("unix_socket_directories={}", self.dir.path().join("server").display());
            let fixed = ["listen_addresses=127.0.0.1", "shared_buffers=16MB", "max_connections=20", &sockets];
            for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
                server.args(["-c", setting]);
            }
            let log =
                fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
            self.process = Some(server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
            while self.process.as_mut().unwrap().try_wait().unwrap().is_none() {
                if self.try_sql("postgres", "SELECT 1").status.success() {
                    return;
                }
                assert!(begun.elapsed() < TIMEOUT, "the server does not start: {}", self.log());
                thread::sleep(Duration::from_millis(50));
            }
            // After a kill, the shared memory of the old server is in use for a moment.
            assert!(begun.elapsed() < TIMEOUT, "the server ends: {}", self.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills all its processes, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let id = process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        process.kill().unwrap();
        process.wait().unwrap();
        if !children.trim().is_empty() {
            // Some may have ended by themselves.
            let _ended = Command::new("kill").arg("-9").args(children.split_whitespace()).output().unwrap();
        }
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let _asked = Command::new("kill").args(["-INT", &process.id().to_string()]).output();
        let begun = Instant::now();
        while process.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begun.elapsed() > TIMEOUT {
                let _ended = process.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sets settings for the next start.
    pub(crate) fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("server/data")
    }

    /// Returns the name of the user that runs it, if it is another one.
    pub(crate) fn user(&self) -> Option<&str> {
        self.other_user.iter().find_map(|word| word.strip_prefix("--reuid="))
    }

    /// Returns the URL of a role; without a password if that is empty.
    pub(crate) fn url(&self, role: &str, password: &str) -> String {
        Self::url_at(self.port, role, password)
    }

    pub(crate) fn url_at(port: u16, role: &str, password: &str) -> String {
        let colon = if password.is_empty() { "" } else { ":" };
        format!("postgres://{role}{colon}{password}@127.0.0.1:{port}/postgres")
    }

    pub(crate) fn boss(&self) -> String {
        self.url("boss", PASSWORD)
    }

    /// Runs statements as `boss`, and returns what they print: rows, with `|` between columns.
    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) -> String {
        let output = self.try_sql("postgres", statements);
        assert!(output.status.success(), "{statements}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn try_sql(&self, database: &str, statements: &str) -> Output {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "boss",
            "-d",
            database,
        ]);
        psql.args(["-p", &self.port.to_string(), "-c", statements]);
        psql.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10").stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        match self.other_user.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(path);
                command
            }
            None => Command::new(path),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the newest version that Debian installed, or the directory in `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).find(|dir| dir.join("initdb").exists());
    installed.max().or(in_path)
}

fn other_user() -> Result<Vec<String>, String> {
    let id = |arguments: &[&str]| {
        let output =
            Command::new("id").args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if id(&["-u"]).as_deref() != Some("0") {
        return Ok(Vec::new());
    }
    let user = ["postgres", "nobody"].into_iter().find(|user| id(&["-u", user]).is_some());
    let user = user.ok_or("the server does not run as root, and there is no user for it")?;
    let group = id(&["-g", user]).unwrap_or_default();
    // A server does not outlive the test that started it, even if that is killed.
    let words = [
        "setpriv",
        &format!("--reuid={user}"),
        &format!("--regid={group}"),
        "--clear-groups",
        "--pdeathsig=INT",
    ];
    Ok(words.map(str::to_owned).to_vec())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[track_caller]
pub(crate) fn succeed(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Reports that a test could not run, and notes it in the file that `AUDIT_SKIPPED` names.
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(list) = std::env::var_os("AUDIT_SKIPPED") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(Path::new(&list)).unwrap();
        writeln!(list, "{test}: {why}").unwrap();
    }
}
