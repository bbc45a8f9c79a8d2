//! Helpers shared by the tests.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, NoticeKind, Receipt, Record, read};
use tracing_subscriber::prelude::*;

/// Returns a directory that is removed when the test ends, and the path of a log in it.
pub(crate) fn fresh() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    (dir, log)
}

/// Opens a log, and returns it with the kinds of the notices that it gives.
pub(crate) fn open_with_notices(log: &Path) -> (AuditLog, Arc<Mutex<Vec<NoticeKind>>>) {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    let log = AuditLog::builder(log).on_notice(move |notice| heard.lock().unwrap().push(notice.kind)).open();
    (log.unwrap(), notices)
}

/// Runs `emit` with a subscriber that has this log's layer and nothing else.
pub(crate) fn with_layer<T>(log: &AuditLog, emit: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), emit)
}

/// Waits for a condition, for at most 10 s.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns all records of a log.
#[track_caller]
pub(crate) fn records(log: &Path) -> Vec<Record> {
    read(log).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Returns the events of a log.
#[track_caller]
pub(crate) fn events(log: &Path) -> Vec<Record> {
    let mut records = records(log);
    records.retain(Record::is_event);
    records
}

/// Returns the lines of the records of one kind.
#[track_caller]
pub(crate) fn lines_of(log: &Path, kind: &str) -> Vec<String> {
    // Skips errors, so that it can be used on a log with damaged lines.
    read(log)
        .unwrap()
        .filter_map(Result::ok)
        .filter(|record| record.kind().as_str() == kind)
        .map(|record| record.as_json().to_owned())
        .collect()
}

/// Asserts that every receipt names a record in the log.
#[track_caller]
pub(crate) fn assert_all_present(log: &Path, receipts: &[Receipt]) {
    let heads: std::collections::HashSet<_> = records(log).iter().map(Record::head).collect();
    let lost: Vec<_> = receipts.iter().filter(|receipt| !heads.contains(&receipt.head())).collect();
    assert!(lost.is_empty(), "{} of {} confirmed records are missing: {lost:?}", lost.len(), receipts.len());
}

/// Returns the segments of a log, in order.
pub(crate) fn segments(log: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    segments.sort();
    segments
}

/// Returns a command that runs this test program again, in a role of `children`.
pub(crate) fn child(role: &str, log: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["children::entry", "--exact", "--nocapture", "--test-threads=1"])
        .env("AUDIT_TEST_ROLE", role)
        .env("AUDIT_TEST_LOG", log)
        .env("AUDIT_TEST_ARGUMENTS", arguments.join(" "))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Returns the receipts that a child printed. A line cut by the kill is not an acknowledgement.
pub(crate) fn receipts(stdout: &[u8]) -> Vec<Receipt> {
    let whole = stdout.iter().rposition(|byte| *byte == b'\n').map_or(&stdout[..0], |end| &stdout[..end]);
    String::from_utf8_lossy(whole)
        .lines()
        .filter_map(|line| line.strip_prefix('@'))
        .map(|receipt| receipt.parse().unwrap())
        .collect()
}

/// A child that confirms events, with a thread that collects its receipts.
pub(crate) struct Confirming {
    pub(crate) process: Child,
    began: mpsc::Receiver<()>,
    ledger: JoinHandle<Vec<u8>>,
}

impl Confirming {
    pub(crate) fn start(log: &Path, threads: usize) -> Self {
        let mut process = child("confirm", log, &[&threads.to_string()]).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let (begins, began) = mpsc::channel();
        let ledger = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while receipts(&bytes).is_empty() {
                if stdout.read_until(b'\n', &mut bytes).unwrap() == 0 {
                    return bytes;
                }
            }
            begins.send(()).ok();
            stdout.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Self { process, began, ledger }
    }

    /// Waits until the child has a receipt, and therefore a chain.
    pub(crate) fn begun(self) -> Self {
        self.began.recv().unwrap();
        self
    }

    /// Kills the child. Returns what was confirmed until then.
    pub(crate) fn kill(mut self) -> Vec<Receipt> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        receipts(&self.ledger.join().unwrap())
    }
}

/// Reports that a test cannot run here, and why. `.ci/run` counts the lines of the file that this writes.
pub(crate) fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED {test}: {why}");
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {why}").unwrap();
}

/// A mounted file system, unmounted when it is dropped.
pub(crate) struct Mount {
    dir: TempDir,
}

impl Mount {
    /// Mounts a tmpfs of this size. `None` if mounting is not allowed.
    pub(crate) fn tmpfs(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Self { dir };
        let options = format!("size={size},mode=0700");
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", mount.path().to_str().unwrap()])
            .then_some(mount)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", &format!("remount,{options}"), self.path().to_str().unwrap()]));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs a program quietly. Returns whether it succeeded.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Returns the exit code of `docs/verify.py` for a log: 0 intact, 1 damaged, 3 unclean. It shares no code with the
/// library.
#[track_caller]
pub(crate) fn independent_verdict(log: &Path) -> i32 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py");
    let output = Command::new("python3").arg(script).arg(log).output().expect("python3 is needed");
    let code = output.status.code().unwrap();
    assert!(
        matches!(code, 0 | 1 | 3),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    code
}
