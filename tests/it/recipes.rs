//! Runs the commands of the README and the other documents exactly as printed there.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Head, Verifier, verify};

use crate::support::{events, records, segments, skip, wait_for, with_layer};

/// The documents with recipes, as paths in the repository.
const DOCUMENTS: [(&str, &str); 5] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/reading.md", include_str!("../../docs/reading.md")),
    ("docs/format.md", include_str!("../../docs/format.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
    ("docs/durability.md", include_str!("../../docs/durability.md")),
];

/// A code block in a document, with the language after its fence.
struct Block {
    document: &'static str,
    language: &'static str,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (document, text) in DOCUMENTS {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
                blocks.push(Block { document, language, text: text.join("\n") });
            }
        }
    }
    blocks
}

/// Returns the shell blocks that read a log.
fn recipes() -> Vec<Block> {
    let mut blocks = blocks();
    blocks.retain(|block| matches!(block.language, "sh" | "bash" | "shell" | "console"));
    blocks.retain(|block| block.text.contains("audit-0") || block.text.contains("audit-*"));
    blocks
}

/// Returns the only recipe that contains these words.
#[track_caller]
fn recipe(words: &str) -> Block {
    let mut found = recipes();
    found.retain(|block| block.text.contains(words));
    assert_eq!(found.len(), 1, "recipes with {words:?}");
    found.remove(0)
}

/// Creates a working directory for recipes, in which the log is `audit-log`.
fn workplace() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit-log");
    (dir, log)
}

fn emit(log: &AuditLog, action: &str) {
    with_layer(log, || tracing::info!(target: "audit", action, actor = "mia", outcome = "allowed"));
}

fn tear(segment: &Path) {
    let mut file = fs::OpenOptions::new().append(true).open(segment).unwrap();
    file.write_all(
        b"{\"seq\":99,\"ts\":\"2026-11-21T08:00:00.000000000Z\",\"kind\":\"event\",\"action\":\"to",
    )
    .unwrap();
}

/// Creates a log with two chains and a rotation, with one torn line in the middle and one at the end.
fn torn_log(path: &Path) {
    let log = AuditLog::open(path).unwrap();
    (0..3).for_each(|number| emit(&log, &format!("first.{number}")));
    log.close().unwrap();
    tear(&segments(path)[0]);
    let logs = [(); 2].map(|()| AuditLog::open(path).unwrap());
    for (number, log) in logs.iter().enumerate() {
        emit(log, &format!("second.{number}"));
        log.rotate().unwrap();
        emit(log, &format!("third.{number}"));
        log.close().unwrap();
    }
    tear(segments(path).last().unwrap());
    assert_eq!((segments(path).len(), events(path).len()), (5, 7));
}

#[track_caller]
fn run_recipe(recipe: &Block, dir: &Path) -> String {
    let shell = if recipe.language == "bash" { "bash" } else { "sh" };
    let output = Command::new(shell).args(["-euc", &recipe.text]).current_dir(dir).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", recipe.document);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a text with the hash of every head in it replaced by `…`.
fn without_hashes(text: &str) -> String {
    heads_in(text)
        .iter()
        .fold(text.trim_end().to_owned(), |text, head| text.replace(&head.hash().to_string(), "…"))
}

/// tests/tidy.rs checks that this is the program in the README.
#[test]
fn the_readme_shows_what_its_program_prints() {
    let (_dir, path) = workplace();
    let log = AuditLog::open(&path).unwrap();
    let receipt = with_layer(&log, || {
        tracing::info!(target: "audit", action = "auth.success", actor = "mia");
        tracing::warn!(target: "audit", action = "auth.failure", actor = "mallory");
        let (actor, resource) = ("mia", "key/7");
        let export =
            || tracing::info!(target: "audit", action = "key.export", actor, resource, "exported a key");
        log.confirm(export).unwrap()
    });
    let head = log.close().unwrap();
    let report = verify(&path).unwrap().to_string().replace(path.to_str().unwrap(), "audit-log");
    let printed = format!("receipt   {receipt}\nhead      {head}   (keep this somewhere else)\n\n{report}\n");
    let mut shown = blocks();
    shown.retain(|block| {
        block.document == "README.md" && block.language == "text" && block.text.contains("receipt  ")
    });
    assert_eq!(shown.len(), 1);
    // The first line is that of `fmt`.
    let (_, shown) = shown[0].text.split_once('\n').unwrap();
    assert_eq!(without_hashes(&printed), without_hashes(shown));
}

/// A recipe without a test could be wrong for years.
#[test]
fn every_recipe_that_reads_a_log_has_a_test() {
    let known = ["sed -n 2p", "sed -n 3p", "jq", "while"];
    for block in recipes() {
        let count = known.iter().filter(|words| block.text.contains(**words)).count();
        assert!(count > 0, "{} has a recipe that no test types:\n{}", block.document, block.text);
    }
    for words in known {
        recipe(words);
    }
}

/// The recipe once stopped at the first torn line, after five of nine events.
#[test]
fn the_recipe_for_jq_reads_past_torn_lines() {
    if Command::new("jq").arg("--version").output().is_err() {
        return skip("the_recipe_for_jq_reads_past_torn_lines", "there is no jq");
    }
    let (dir, path) = workplace();
    torn_log(&path);
    let printed = run_recipe(&recipe("jq"), dir.path());
    let printed: BTreeSet<Vec<&str>> = printed.lines().map(|line| line.split('\t').collect()).collect();
    let events = events(&path);
    let expected: BTreeSet<Vec<&str>> = events
        .iter()
        .map(|event| vec![event.timestamp().unwrap(), event.action().unwrap(), "mia", "allowed"])
        .collect();
    assert_eq!(expected.len(), 7);
    assert_eq!(printed, expected);
}

#[test]
fn the_recipes_for_a_hash_print_that_of_the_line() {
    let (dir, path) = workplace();
    torn_log(&path);
    let hash = |line: usize| records(&path)[line - 1].hash().to_string();
    let printed = run_recipe(&recipe("sed -n 2p"), dir.path());
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(printed, [format!("{}  -", hash(2)), format!("\"_hash\":\"{}\"", hash(2))]);
    assert_eq!(run_recipe(&recipe("sed -n 3p"), &path), format!("{}  -\n", hash(3)));
}

/// `tail -F` follows the files that its pattern matched at the start, and no others.
#[test]
fn the_recipe_for_following_shows_segments_and_chains_that_start_later() {
    let (dir, path) = workplace();
    torn_log(&path);
    let followed = recipe("while");
    assert_eq!(followed.language, "bash");
    let mut shell = Command::new("bash")
        .args(["-euc", &followed.text])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let lines = BufReader::new(shell.stdout.take().unwrap()).split(b'\n');
    let heard = Arc::clone(&shown);
    let listener = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            heard.lock().unwrap().push(String::from_utf8(line).unwrap());
        }
    });
    let has_shown = |what: &str| shown.lock().unwrap().iter().any(|line: &String| line.contains(what));
    wait_for("what there was", || has_shown("third.1"));
    let logs = [(); 3].map(|()| AuditLog::open(&path).unwrap());
    for (number, log) in logs.iter().enumerate() {
        emit(log, &format!("live.{number}"));
        log.rotate().unwrap();
        emit(log, &format!("rotated.{number}"));
        log.flush().unwrap();
    }
    for number in 0..3 {
        wait_for("a segment or chain that began later", || has_shown(&format!("rotated.{number}")));
    }
    for log in logs {
        log.close().unwrap();
    }
    // Each complete line appears once, and nothing else: a torn line never ends.
    let mut expected: Vec<String> = records(&path).iter().map(|record| record.as_json().to_owned()).collect();
    wait_for("the end", || shown.lock().unwrap().len() >= expected.len());
    shell.kill().unwrap();
    shell.wait().unwrap();
    listener.join().unwrap();
    let mut shown = Arc::into_inner(shown).unwrap().into_inner().unwrap();
    expected.sort();
    shown.sort();
    assert!(shown == expected, "{} lines instead of {}: {shown:#?}", shown.len(), expected.len());
}

/// Returns the heads in a text, each once.
fn heads_in(text: &str) -> Vec<Head> {
    let words =
        text.split(char::is_whitespace).map(|word| word.trim_matches(|end: char| !end.is_ascii_hexdigit()));
    let mut heads: Vec<Head> =
        words.filter_map(|word| word.parse().ok()).filter(|head: &Head| head.seq() > 0).collect();
    heads.sort_by_key(|head| (head.chain(), head.seq()));
    heads.dedup();
    heads
}

/// A user who owns nothing, and is in the group of the directory that contains the log.
struct Auditor {
    dir: TempDir,
    /// The command for cron, as in the document except for the paths.
    command: String,
}

impl Auditor {
    const USER: u32 = 54_321;
    const GROUP: u32 = 54_322;

    /// `None` if the test cannot switch to another user.
    fn new(test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let may_become = fs::metadata(dir.path()).unwrap().uid() == 0;
        if !may_become || Command::new("setpriv").arg("--version").output().is_err() {
            skip(test, "becoming another user needs root, and setpriv");
            return None;
        }
        std::os::unix::fs::chown(dir.path(), None, Some(Self::GROUP)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2750)).unwrap();
        let script = dir.path().join("verify.py");
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py"), &script).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();

        let mut found = blocks();
        found.retain(|block| block.document == "docs/operations.md" && block.text.contains("MAILTO="));
        assert_eq!(found.len(), 1);
        let line = found[0].text.lines().find(|line| line.contains(" * ")).unwrap();
        let mut fields = line.split_whitespace().skip(5);
        assert_eq!(fields.next(), Some("auditor"));
        let command = fields.collect::<Vec<_>>().join(" ");
        let (installed, log) = ("/usr/local/lib/audit/verify.py", "/var/lib/myapp/audit-log");
        assert!(command.contains(installed) && command.contains(log), "{command}");
        let command = command
            .replace(installed, script.to_str().unwrap())
            .replace(log, dir.path().join("audit-log").to_str().unwrap());
        Some(Self { dir, command })
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("audit-log")
    }

    /// Returns what cron would mail.
    fn mail(&self) -> String {
        let output = Command::new("setpriv")
            .arg(format!("--reuid={}", Self::USER))
            .arg(format!("--regid={}", Self::USER))
            .arg(format!("--groups={}", Self::GROUP))
            .args(["sh", "-c", &self.command])
            .current_dir("/")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }
}

fn two_events(log: &AuditLog) -> Head {
    with_layer(log, || {
        tracing::info!(target: "audit", action = "routine", actor = "mia");
        log.confirm(|| tracing::info!(target: "audit", action = "confirmed", actor = "mia")).unwrap().head()
    })
}

/// Its user once could not read the files, and it never gave a head of a running service.
#[test]
fn the_recipe_for_cron_gives_heads_of_a_running_service() {
    let Some(auditor) = Auditor::new("the_recipe_for_cron_gives_heads_of_a_running_service") else { return };
    let path = auditor.log();
    // As the document tells the service to open its log.
    let logs = [(); 2].map(|()| AuditLog::builder(&path).group_readable(true).open().unwrap());
    let confirmed = logs.each_ref().map(two_events);
    emit(&logs[0], "not.covered.by.a.mark.yet");
    let mailed = auditor.mail();
    let heads = heads_in(&mailed);
    assert_eq!(heads.iter().map(Head::chain).collect::<Vec<_>>(), [0, 1], "{mailed}");
    // The heads are of durable records, no older than what was synced before the last write.
    for (head, confirmed) in heads.iter().zip(&confirmed) {
        assert!(head.seq() + 2 >= confirmed.seq(), "{head} {confirmed}: {mailed}");
    }
    for log in logs {
        log.close().unwrap();
    }
    let mailed = auditor.mail();
    let closed = heads_in(&mailed);
    assert_eq!(closed, verify(&path).unwrap().heads(), "{mailed}");
    let kept = heads.into_iter().chain(closed);
    let verifier = kept.fold(Verifier::new(&path), Verifier::expect_head);
    verifier.run().unwrap().ensure_intact().unwrap();
}

#[test]
fn an_existing_log_is_made_readable_for_the_group_as_documented() {
    let name = "an_existing_log_is_made_readable_for_the_group_as_documented";
    let Some(auditor) = Auditor::new(name) else { return };
    let open = || AuditLog::open(auditor.log()).unwrap();
    let log = open();
    two_events(&log);
    log.close().unwrap();
    assert_eq!(heads_in(&auditor.mail()), []);
    let (_, operations) = DOCUMENTS.into_iter().find(|(name, _)| *name == "docs/operations.md").unwrap();
    let mut commands = operations.split('`').filter(|code| code.starts_with("chmod g+rx audit-log"));
    let command = commands.next().unwrap().replace('\n', " ");
    let done = Command::new("sh").args(["-euc", &command]).current_dir(auditor.dir.path()).status().unwrap();
    assert!(done.success(), "{command}");
    let mailed = auditor.mail();
    assert_eq!(heads_in(&mailed), verify(auditor.log()).unwrap().heads(), "{mailed}");
    // The program can still open it.
    let log = open();
    assert!(log.recovery().is_clean() && log.recovery().notices.is_empty(), "{:?}", log.recovery());
    log.close().unwrap();
}
