//! A directory with hostile content, and hostile names.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use tracing_audit::{AuditLog, Error, NoticeKind, Verdict, verify};

use crate::{
    children::SECRET,
    support::{
        child, events, fresh, is_root, lines_of, open_with_notices, receipts, run, segments, skip, wait_for,
        with_layer,
    },
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn emit(log: &AuditLog, action: &str) {
    with_layer(log, || log.confirm(|| tracing::info!(target: "audit", action, actor = "b")).unwrap());
}

/// Creates a log with one closed run.
fn a_log(path: &Path) {
    let log = AuditLog::open(path).unwrap();
    emit(&log, "first");
    log.close().unwrap();
}

/// In a child process, because the umask belongs to the process.
#[test]
fn files_are_private_under_every_umask() {
    for umask in ["000", "022", "077"] {
        let (dir, path) = fresh();
        let command = child("emit", &path, &["immediate", "3"]);
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(command.get_program());
        shell.args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((mode(&path), mode(&path.join("control"))), (0o700, 0o700), "umask {umask}");
        for file in [&segments(&path)[0], &path.join("control/chain-000.lock")] {
            assert_eq!(mode(file), 0o600, "{} under umask {umask}", file.display());
        }
        verify(&path).unwrap().ensure_intact().unwrap();
        drop(dir);
    }
}

/// What can be in the place of a file of the log.
const OBSTACLES: [&str; 5] = ["symlink", "dangling symlink", "hard link", "fifo", "directory"];

fn put(obstacle: &str, at: &Path, precious: &Path) {
    fs::write(precious, "precious").unwrap();
    fs::set_permissions(precious, Permissions::from_mode(0o640)).unwrap();
    match obstacle {
        "symlink" => symlink(precious, at).unwrap(),
        "dangling symlink" => symlink(precious.with_extension("nowhere"), at).unwrap(),
        "hard link" => fs::hard_link(precious, at).unwrap(),
        "fifo" => assert!(run("mkfifo", &[at.to_str().unwrap()])),
        "directory" => fs::create_dir(at).unwrap(),
        other => panic!("{other}"),
    }
}

/// Anything in the place of a file of the log is not opened for writing, not followed, and not changed. Opening never
/// blocks on a pipe.
#[test]
fn obstacles_at_the_names_of_our_files_are_refused_or_skipped() {
    for obstacle in OBSTACLES {
        for name in
            ["audit-000-00000001.jsonl", "audit-000-00000002.jsonl", "control/chain-000.lock", "control"]
        {
            let (dir, path) = fresh();
            if name.ends_with("2.jsonl") {
                a_log(&path);
            } else {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
                if name.starts_with("control/") {
                    fs::create_dir(path.join("control")).unwrap();
                    fs::set_permissions(path.join("control"), Permissions::from_mode(0o700)).unwrap();
                }
            }
            if name == "control" && obstacle == "hard link" {
                continue;
            }
            let (at, precious) = (path.join(name), dir.path().join("precious"));
            put(obstacle, &at, &precious);
            if name == "control" && obstacle == "directory" {
                fs::set_permissions(&at, Permissions::from_mode(0o777)).unwrap();
            }
            let before = fs::symlink_metadata(&at).unwrap();
            if let Ok(log) = AuditLog::open(&path) {
                let written = with_layer(&log, || {
                    log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b"))
                });
                drop(log.rotate());
                drop(log.close());
                if written.is_ok() {
                    assert!(
                        events(&path).iter().any(|event| event.action() == Some("a")),
                        "{obstacle} at {name}"
                    );
                }
            }
            assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{obstacle} at {name}");
            assert_eq!(mode(&precious), 0o640, "{obstacle} at {name}");
            let after = fs::symlink_metadata(&at).unwrap();
            assert_eq!(
                (before.ino(), before.file_type(), before.mode(), before.nlink()),
                (after.ino(), after.file_type(), after.mode(), after.nlink()),
                "{obstacle} at {name} was touched"
            );
            assert!(!precious.with_extension("nowhere").exists(), "{obstacle} at {name}");
        }
    }
}

/// A hard link to the live segment would expose new records in another place. It was once noticed only by the next
/// opener.
#[test]
fn a_second_name_of_the_live_segment_is_noticed_before_the_next_acknowledgement() {
    let (dir, path) = fresh();
    let (log, notices) = open_with_notices(&path);
    emit(&log, "before");
    let copy = dir.path().join("copy");
    fs::hard_link(&segments(&path)[0], &copy).unwrap();
    let length = fs::metadata(&copy).unwrap().len();
    emit(&log, "after");
    assert_eq!(segments(&path).len(), 2, "acknowledged in a new segment");
    wait_for("the notice", || notices.lock().unwrap().contains(&NoticeKind::SegmentTampered));
    emit(&log, "later");
    log.close().unwrap();
    assert!(lines_of(&path, "notice")[0].contains("second name"), "{:?}", lines_of(&path, "notice"));
    assert!(events(&path).iter().map(|event| event.action().unwrap()).eq(["before", "after", "later"]));
    verify(&path).unwrap().ensure_intact().unwrap();
    // The other name gets only what was written until the link was noticed.
    assert!(fs::metadata(&copy).unwrap().len() - length < 2000);
}

/// Such a segment was once continued silently. The permission is somebody's decision, so it is kept.
#[test]
fn a_segment_that_everybody_can_read_gives_a_notice() {
    let (_dir, path) = fresh();
    a_log(&path);
    fs::set_permissions(&segments(&path)[0], Permissions::from_mode(0o644)).unwrap();
    let (log, notices) = open_with_notices(&path);
    wait_for("the notice", || notices.lock().unwrap().contains(&NoticeKind::SegmentExposed));
    emit(&log, "second");
    log.close().unwrap();
    assert!(lines_of(&path, "notice")[0].contains("\"code\":\"segment_exposed\""));
    assert_eq!((segments(&path).len(), mode(&segments(&path)[0])), (1, 0o644));
    verify(&path).unwrap().ensure_intact().unwrap();
    // A file that others can write to is not evidence, and is not continued.
    fs::set_permissions(&segments(&path)[0], Permissions::from_mode(0o646)).unwrap();
    let error = AuditLog::open(&path).unwrap_err();
    assert!(
        error.to_string().contains("write") || matches!(error, Error::InsecureDirectory { .. }),
        "{error}"
    );
}

/// Files are opened below a directory handle, so swapping a parent has no effect.
#[test]
fn a_swapped_parent_does_not_redirect_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (parent, decoy) = (dir.path().join("parent"), dir.path().join("decoy"));
    let path = parent.join("log");
    fs::create_dir_all(decoy.join("log")).unwrap();
    fs::set_permissions(decoy.join("log"), Permissions::from_mode(0o777)).unwrap();
    let log = AuditLog::open(&path).unwrap();
    emit(&log, "before");
    fs::rename(&parent, dir.path().join("moved")).unwrap();
    symlink(&decoy, &parent).unwrap();
    // The directory at the path is insecure now, so nothing may be confirmed in it.
    with_layer(&log, || {
        for _ in 0..3 {
            drop(log.confirm(|| tracing::info!(target: "audit", action = "after", actor = "b")));
            std::thread::sleep(std::time::Duration::from_millis(120));
        }
    });
    drop(log.close());
    assert!(fs::read_dir(decoy.join("log")).unwrap().next().is_none(), "nothing was written to the decoy");
    let moved = dir.path().join("moved/log");
    assert!(events(&moved).iter().any(|event| event.action() == Some("before")));
    assert_ne!(verify(&moved).unwrap().verdict(), Verdict::Damaged);
}

/// Configured names end up in records or in paths, and nowhere else.
#[test]
fn configured_names_are_taken_literally() {
    let dir = tempfile::tempdir().unwrap();
    let service = "../../x\n\u{1b}[31m\"}{\u{2028}\0";
    for name in ["a/../b", "line\nbreak", "caf\u{e9} \u{202e}", "-rf", "%s{}"] {
        let path = dir.path().join(name);
        let log = AuditLog::builder(&path).service(service).open().unwrap();
        emit(&log, "a");
        log.close().unwrap();
        verify(&path).unwrap().ensure_intact().unwrap();
        let open = &lines_of(&path, "open")[0];
        assert!(open.contains(r#""service":"../../x\n\u001b[31m\"}{\u2028\u0000""#), "{open}");
        assert_eq!(open.lines().count(), 1);
    }
    assert!(dir.path().join("b/control").exists(), "`..` means what it means to the system");
    // A path cannot contain a NUL, and bytes that are not Unicode are kept.
    let nul = dir.path().join(OsStr::from_bytes(b"a\0b"));
    assert!(matches!(AuditLog::open(&nul), Err(Error::Io { .. })), "{:?}", AuditLog::open(&nul));
    let odd = dir.path().join(OsStr::from_bytes(b"odd\xFF"));
    a_log(&odd);
    verify(&odd).unwrap().ensure_intact().unwrap();
}

/// As `copytruncate` of logrotate does: copies the file, and truncates the original while it is written.
#[test]
fn copytruncate_is_noticed_and_its_loss_is_detected() {
    let (dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    emit(&log, "before");
    let live = &segments(&path)[0];
    fs::copy(live, dir.path().join("rotated")).unwrap();
    fs::OpenOptions::new().write(true).open(live).unwrap().set_len(0).unwrap();
    emit(&log, "after");
    log.close().unwrap();
    assert!(lines_of(&path, "notice").iter().any(|line| line.contains("was truncated")));
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged);
}

#[test]
fn a_renamed_live_segment_is_abandoned() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    emit(&log, "before");
    let live = segments(&path).remove(0);
    fs::rename(&live, live.with_extension("jsonl.1")).unwrap();
    wait_for("a new segment", || {
        emit(&log, "after");
        !segments(&path).is_empty()
    });
    log.close().unwrap();
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged, "the missing file is detected");
    fs::rename(live.with_extension("jsonl.1"), &live).unwrap();
    let report = verify(&path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
}

/// Needs root, which alone can create a file of another user.
#[test]
fn a_file_of_another_owner_is_not_written_to() {
    let name = "a_file_of_another_owner_is_not_written_to";
    if !is_root() {
        return skip(name, "only root can give files away");
    }
    // Between two runs.
    let (_dir, path) = fresh();
    a_log(&path);
    let segment = segments(&path).remove(0);
    std::os::unix::fs::chown(&segment, Some(65534), Some(65534)).unwrap();
    let before = fs::read(&segment).unwrap();
    let opened = AuditLog::open(&path);
    assert!(matches!(&opened, Err(Error::InsecureDirectory { .. } | Error::Io { .. })), "{opened:?}");
    assert_eq!(fs::read(&segment).unwrap(), before);
    // While it is written.
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    emit(&log, "before");
    let segment = segments(&path).remove(0);
    let theirs = segment.with_extension("theirs");
    fs::copy(&segment, &theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    let length = fs::metadata(&theirs).unwrap().len();
    fs::rename(&theirs, &segment).unwrap();
    wait_for("a new segment", || {
        emit(&log, "after");
        segments(&path).len() > 1
    });
    log.close().unwrap();
    assert_eq!(fs::metadata(&segment).unwrap().len(), length, "nothing was written to it");
    // A directory of another user.
    let (_dir, path) = fresh();
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    let error = AuditLog::open(&path).unwrap_err();
    assert!(error.to_string().contains("another user"), "{error}");
}

/// Returns every file below a directory that contains a text.
fn files_with(text: &[u8], dir: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    let holds = |file: &PathBuf| fs::read(file).unwrap().windows(text.len()).any(|part| part == text);
    let found = files.into_iter().filter(holds);
    found.chain(dirs.iter().flat_map(|dir| files_with(text, dir))).collect()
}

/// In a child process, so that its output can be searched too: notices, panics, receipts.
#[test]
fn a_secret_appears_nowhere() {
    let (dir, path) = fresh();
    let output = child("secrets", &path, &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let secret = SECRET.as_bytes();
    assert_eq!(files_with(secret, dir.path()), Vec::<PathBuf>::new());
    for printed in [&output.stdout, &output.stderr] {
        let is_there = printed.windows(secret.len()).any(|part| part == secret);
        assert!(!is_there, "{}", String::from_utf8_lossy(printed));
    }
    // What is not secret is found, so the search works.
    assert_eq!(files_with(b"plainly-visible", dir.path()), segments(&path));
    assert_eq!(receipts(&output.stdout).len(), 1);
    let line = &lines_of(&path, "event")[0];
    assert_eq!(line.matches("[redacted]").count(), 7, "{line}");
}

/// A process without privileges writes where it may, and gets an error where it may not.
#[test]
fn a_process_without_privileges_writes_its_own_log_and_no_other() {
    let name = "a_process_without_privileges_writes_its_own_log_and_no_other";
    if !is_root() || !run("setpriv", &["--version"]) {
        return skip(name, "it needs root and setpriv to become nobody");
    }
    // The test program may be in a directory that others cannot read.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |log: &PathBuf| {
        let role = child("emit", log, &["immediate", "3"]);
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(role.get_args());
        command.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    };
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    let log = own.join("log");
    let output = as_nobody(&log);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::metadata(&segments(&log)[0]).unwrap().uid(), 65534);
    verify(&log).unwrap().ensure_intact().unwrap();
    // It cannot write to root's log. And root does not write to its log.
    let roots = dir.path().join("roots");
    a_log(&roots);
    let before = fs::read(&segments(&roots)[0]).unwrap();
    assert!(!as_nobody(&roots).status.success());
    assert_eq!(fs::read(&segments(&roots)[0]).unwrap(), before);
    let error = AuditLog::open(&log).unwrap_err();
    assert!(error.to_string().contains("another user"), "{error}");
}
