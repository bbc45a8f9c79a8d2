//! What a program may do to itself while a log is open, as daemons do at startup: close its descriptors, change its
//! root, change its user. Each scenario runs in its own process.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    os::{
        fd::RawFd,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, Health, NoticeKind, Verdict, read, verify};

use crate::support::{
    child, events, fresh, independent_verdict, is_root, lines_of, open_with_notices, segments, skip,
    wait_for, with_layer,
};

/// Plays the role of the child process. Failures are written to a file, because there may be no stream to print to.
pub(crate) fn play(scenario: &str, path: &Path) {
    let said = path.with_extension("said");
    std::panic::set_hook(Box::new(move |panic| {
        drop(fs::write(&said, panic.to_string()));
        println!("{panic}");
        std::process::exit(1);
    }));
    match scenario {
        "without-standard-streams" => without_standard_streams(path, 0..=2),
        "without-standard-error" => without_standard_streams(path, 2..=2),
        "sockets" => closes_everything(path, Taken::Sockets, false),
        "files" => closes_everything(path, Taken::Files, false),
        "directories" => closes_everything(path, Taken::Directories, true),
        "nothing" => closes_everything(path, Taken::Nothing, true),
        "again" => closes_everything_and_opens_again(path),
        "jail" => goes_into_a_jail(path),
        "jail-removed" => is_removed_while_in_a_jail(path),
        "jail-closed" => closes_everything_in_a_jail(path),
        "user" => becomes_another_user(path),
        other => panic!("no such scenario: {other}"),
    }
    std::process::exit(0);
}

#[track_caller]
fn runs_well(scenario: &str, path: &Path) {
    let output = child("life", path, &[scenario]).output().unwrap();
    let said = fs::read_to_string(path.with_extension("said")).unwrap_or_default();
    assert!(output.status.success(), "{scenario}: {said}{}", String::from_utf8_lossy(&output.stderr));
}

fn emit(log: &AuditLog, action: &str) -> Result<tracing_audit::Receipt, Error> {
    with_layer(log, || log.confirm(|| tracing::info!(target: "audit", action, actor = "b")))
}

/// Returns the number of each open descriptor, and what it refers to.
fn descriptors() -> Vec<(RawFd, PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let entries: Vec<PathBuf> = entries.collect();
    let number = |entry: &Path| entry.file_name().unwrap().to_str().unwrap().parse().unwrap();
    // The descriptor that listed them is closed by now, so its link cannot be read.
    entries.iter().filter_map(|entry| Some((number(entry), fs::read_link(entry).ok()?))).collect()
}

#[track_caller]
fn keeps_off_the_standard_streams(log: &Path) {
    let parent = log.parent().unwrap();
    let ours: Vec<_> = descriptors().into_iter().filter(|(_, file)| file.starts_with(parent)).collect();
    assert!(ours.len() >= 5, "parent, directory, control, lock and segment: {ours:?}");
    assert!(ours.iter().all(|(number, _)| *number > 2), "{ours:?}");
}

// ---- Descriptors 0 to 2.

/// Prints continuously to these descriptors, whatever they are, while the log opens files of every kind.
fn without_standard_streams(path: &Path, numbers: std::ops::RangeInclusive<RawFd>) {
    let close = || numbers.clone().for_each(|number| nix::unistd::close(number).unwrap());
    close();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                println!("a stray line");
                eprintln!("a stray line");
            }
        });
        let log = AuditLog::open(path).unwrap();
        keeps_off_the_standard_streams(path);
        for _ in 0..50 {
            emit(&log, "a").unwrap();
            log.rotate().unwrap();
        }
        keeps_off_the_standard_streams(path);
        // Makes the log take another chain, for which it opens the directory again.
        fs::remove_file(path.join("control/chain-000.lock")).unwrap();
        wait_for("the next chain", || emit(&log, "a").unwrap().chain() == 1);
        keeps_off_the_standard_streams(path);
        let mut records = read(path).unwrap();
        assert!(records.next().is_some());
        keeps_off_the_standard_streams(path);
        log.close().unwrap();
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn output_to_closed_standard_streams_never_ends_up_in_the_log() {
    for scenario in ["without-standard-streams", "without-standard-error"] {
        let (_dir, path) = fresh();
        runs_well(scenario, &path);
        let control = fs::read_dir(path.join("control")).unwrap().map(|entry| entry.unwrap().path());
        for file in segments(&path).into_iter().chain(control) {
            let bytes = fs::read(&file).unwrap();
            let is_stray = bytes.windows(5).any(|part| part == b"stray");
            assert!(!is_stray, "{scenario}: {}: {}", file.display(), String::from_utf8_lossy(&bytes));
        }
        AuditLog::open(&path).unwrap().close().unwrap();
        verify(&path).unwrap().ensure_intact().unwrap();
    }
}

// ---- Every descriptor.

/// What occupies the closed descriptor numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Sockets,
    Files,
    Directories,
    Nothing,
}

fn closes_everything(path: &Path, taken: Taken, exclusive: bool) {
    let log = AuditLog::builder(path).exclusive(exclusive).open().unwrap();
    emit(&log, "before").unwrap();
    // Written, but not durable.
    with_layer(&log, || tracing::info!(target: "audit", action = "meanwhile", actor = "b"));
    std::thread::sleep(Duration::from_millis(50));
    let most = descriptors().iter().map(|(number, _)| *number).max().unwrap();
    (3..=most).for_each(|number| nix::unistd::close(number).unwrap_or_default());
    // As many as there were, so that each number of the log is reused.
    let beside = path.parent().unwrap().join("beside");
    fs::create_dir(&beside).unwrap();
    let (mut sockets, mut files) = (Vec::new(), Vec::new());
    for number in 3..=most {
        match taken {
            Taken::Sockets => sockets.push(UnixStream::pair().unwrap()),
            Taken::Files => {
                fs::write(beside.join(number.to_string()), "precious").unwrap();
                let mut how = File::options();
                files.push(how.read(true).write(true).open(beside.join(number.to_string())).unwrap());
            }
            Taken::Directories => files.push(File::open(&beside).unwrap()),
            Taken::Nothing => {}
        }
    }
    emit(&log, "after").unwrap();
    log.rotate().unwrap();
    emit(&log, "later").unwrap();
    assert_eq!(log.health(), Health::Tampered, "its files were changed");
    assert_eq!(log.head().chain(), u16::from(!exclusive), "the lock of the chain was lost");
    log.close().unwrap();
    let left = descriptors().into_iter().find(|(_, file)| file.starts_with(path));
    assert_eq!(left, None, "nothing is left open");
    // The log has closed nothing of the program.
    assert!(files.iter().all(|file| file.metadata().is_ok()));
    for (one, other) in &mut sockets {
        for end in [&mut *one, &mut *other] {
            end.set_nonblocking(true).unwrap();
            let got = end.read(&mut [0; 1]).unwrap_err();
            assert_eq!(got.kind(), ErrorKind::WouldBlock, "an audit line arrived on a socket");
        }
        one.write_all(b"still open").unwrap();
    }
    if taken == Taken::Directories {
        assert_eq!(fs::read_dir(&beside).unwrap().count(), 0, "something was created in another directory");
    }
    for mut file in files.into_iter().filter(|_| taken == Taken::Files) {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "precious");
    }
}

#[test]
fn a_program_that_closes_all_descriptors_gets_no_audit_line_in_another_file() {
    for scenario in ["sockets", "files", "directories", "nothing"] {
        let (_dir, path) = fresh();
        runs_well(scenario, &path);
        let found = events(&path);
        let has = |action: &str| found.iter().any(|event| event.action() == Some(action));
        assert!(["before", "meanwhile", "after", "later"].into_iter().all(has), "{scenario}: {found:?}");
        let told = lines_of(&path, "notice");
        assert!(told.iter().any(|line| line.contains("was closed by this program")), "{scenario}: {told:?}");
        assert_ne!(verify(&path).unwrap().verdict(), Verdict::Damaged, "{scenario}");
        AuditLog::open(&path).unwrap().close().unwrap();
        verify(&path).unwrap().ensure_intact().unwrap();
        assert_eq!(independent_verdict(&path), 0, "{scenario}");
    }
}

/// Opens a second handle, with the same files at the same numbers, so that to the first one nothing seems changed.
fn closes_everything_and_opens_again(path: &Path) {
    let first = AuditLog::open(path).unwrap();
    emit(&first, "before").unwrap();
    let before = descriptors();
    let most = before.iter().map(|(number, _)| *number).max().unwrap();
    (3..=most).for_each(|number| nix::unistd::close(number).unwrap_or_default());
    let second = AuditLog::open(path).unwrap();
    let lock = |(_, file): &&(RawFd, PathBuf)| file.ends_with("control/chain-000.lock");
    assert_eq!(before.iter().find(lock), descriptors().iter().find(lock), "at the same number");
    for _ in 0..3 {
        emit(&first, "first").unwrap();
        emit(&second, "second").unwrap();
    }
    assert_eq!((second.head().chain(), first.head().chain()), (0, 1));
    assert_eq!((second.health(), first.health()), (Health::Healthy, Health::Tampered));
    // Closing the first handle does not close files of the second.
    first.close().unwrap();
    emit(&second, "second").unwrap();
    second.rotate().unwrap();
    second.close().unwrap();
}

#[test]
fn a_program_that_closes_all_descriptors_and_opens_the_log_again_writes_two_chains() {
    let (_dir, path) = fresh();
    runs_well("again", &path);
    let count = |action: &str| events(&path).iter().filter(|event| event.action() == Some(action)).count();
    assert_eq!(["before", "first", "second"].map(count), [1, 3, 4]);
    verify(&path).unwrap().ensure_intact().unwrap();
    assert_eq!(independent_verdict(&path), 0);
}

// ---- Another root.

/// Returns everything below a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.clone());
        if path.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

/// Creates a jail, in which the path of the log leads to another directory.
fn jail_of(path: &Path) -> PathBuf {
    let jail = path.with_extension("jail");
    let inside = jail.join(path.strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    jail
}

fn go_into(jail: &Path) -> Vec<PathBuf> {
    std::os::unix::fs::chroot(jail).unwrap();
    std::env::set_current_dir("/").unwrap();
    tree(Path::new("/"))
}

fn goes_into_a_jail(path: &Path) {
    let jail = jail_of(path);
    let log = AuditLog::open(path).unwrap();
    emit(&log, "before").unwrap();
    let before = go_into(&jail);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        emit(&log, "inside").unwrap();
    }
    log.rotate().unwrap();
    emit(&log, "rotated").unwrap();
    assert_eq!(log.health(), Health::Healthy);
    assert!(log.stats().free_bytes > 0 && log.stats().notices.is_empty(), "{:?}", log.stats());
    log.close().unwrap();
    assert_eq!(tree(Path::new("/")), before, "something was created in the jail");
}

#[test]
fn a_program_that_enters_a_jail_keeps_its_log_and_creates_nothing_in_the_jail() {
    let name = "a_program_that_enters_a_jail_keeps_its_log_and_creates_nothing_in_the_jail";
    if !is_root() {
        return skip(name, "only root can change its root");
    }
    for is_there_too in [false, true] {
        let (_dir, path) = fresh();
        if is_there_too {
            // A log of another program at the same path.
            let inside = jail_of(&path).join(path.strip_prefix("/").unwrap());
            AuditLog::open(inside).unwrap().close().unwrap();
        }
        runs_well("jail", &path);
        let found = events(&path);
        assert!(found.iter().all(|event| event.chain() == 0), "{found:?}");
        assert_eq!(found.last().unwrap().action(), Some("rotated"));
        assert_eq!(segments(&path).len(), 2);
        verify(&path).unwrap().ensure_intact().unwrap();
    }
}

fn is_removed_while_in_a_jail(path: &Path) {
    let jail = jail_of(path);
    let log = AuditLog::open(path).unwrap();
    emit(&log, "before").unwrap();
    let before = go_into(&jail);
    println!("\n@inside");
    wait_for("the next chain", || emit(&log, "after").is_ok_and(|receipt| receipt.chain() == 1));
    log.close().unwrap();
    assert_eq!(tree(Path::new("/")), before, "something was created in the jail");
}

#[test]
fn a_log_that_is_removed_while_its_program_is_in_a_jail_is_recreated_in_place() {
    let name = "a_log_that_is_removed_while_its_program_is_in_a_jail_is_recreated_in_place";
    if !is_root() {
        return skip(name, "only root can change its root");
    }
    let (_dir, path) = fresh();
    let mut process = child("life", &path, &["jail-removed"]).spawn().unwrap();
    wait_for_line(&mut process, "@inside");
    fs::remove_dir_all(&path).unwrap();
    let status = process.wait().unwrap();
    assert!(status.success(), "{:?}", fs::read_to_string(path.with_extension("said")));
    assert!(events(&path).iter().any(|event| event.action() == Some("after")));
    assert_eq!(verify(&path).unwrap().verdict(), Verdict::Damaged, "the removal is detected");
}

/// Closes everything where the directory cannot be reached any more, so that the log cannot record.
fn closes_everything_in_a_jail(path: &Path) {
    let jail = jail_of(path);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let log = AuditLog::builder(path)
        .wait_bound(Duration::from_millis(300))
        .on_notice(move |notice| heard.lock().unwrap().push((notice.kind, notice.message.clone())))
        .open()
        .unwrap();
    emit(&log, "before").unwrap();
    let most = descriptors().iter().map(|(number, _)| *number).max().unwrap();
    let before = go_into(&jail);
    (3..=most).for_each(|number| nix::unistd::close(number).unwrap_or_default());
    for _ in 0..3 {
        assert!(emit(&log, "after").is_err());
    }
    assert_eq!(log.health(), Health::Failing);
    let error = log.close().unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert_eq!(tree(Path::new("/")), before, "something was created in the jail");
    let told = told.lock().unwrap();
    let message =
        told.iter().find(|(kind, _)| *kind == NoticeKind::Failing).map(|(_, message)| message.as_str());
    let message = message.unwrap_or_default();
    let again = format!("cannot open the log directory {} again: this program closed", path.display());
    let parent = format!("{} does not lead to the directory", path.parent().unwrap().display());
    for words in [again.as_str(), &parent, "restart the program"] {
        assert!(message.contains(words), "{words}: {told:?}");
    }
}

#[test]
fn a_program_in_a_jail_that_closes_all_descriptors_gets_an_error() {
    let name = "a_program_in_a_jail_that_closes_all_descriptors_gets_an_error";
    if !is_root() {
        return skip(name, "only root can change its root");
    }
    for is_there_too in [false, true] {
        let (_dir, path) = fresh();
        if is_there_too {
            let inside = jail_of(&path).join(path.strip_prefix("/").unwrap());
            AuditLog::open(inside).unwrap().close().unwrap();
        }
        runs_well("jail-closed", &path);
        assert_eq!(events(&path).len(), 1);
        AuditLog::open(&path).unwrap().close().unwrap();
        verify(&path).unwrap().ensure_intact().unwrap();
    }
}

/// Its parents were once created again, wherever the path led.
#[test]
fn a_log_that_is_removed_with_its_parent_is_not_recreated() {
    let (dir, _) = fresh();
    let path = dir.path().join("parent/log");
    let told = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    let log = AuditLog::builder(&path)
        .wait_bound(Duration::from_millis(300))
        .on_notice(move |notice| heard.lock().unwrap().push_str(&notice.message))
        .open()
        .unwrap();
    emit(&log, "before").unwrap();
    fs::remove_dir_all(dir.path().join("parent")).unwrap();
    wait_for("the failure", || emit(&log, "after").is_err() && log.health() == Health::Failing);
    // Nor where somebody else created the parent again.
    fs::create_dir(dir.path().join("parent")).unwrap();
    assert!(emit(&log, "after").is_err());
    assert!(log.close().is_err());
    assert_eq!(tree(dir.path()), [dir.path().join("parent")]);
    let words = format!("{} was removed; restart the program", dir.path().join("parent").display());
    assert!(told.lock().unwrap().contains(&words), "{told:?}");
}

fn wait_for_line(process: &mut std::process::Child, line: &str) {
    use std::io::{BufRead as _, BufReader};
    let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
    let mut said = Vec::new();
    let is_said = lines.any(|read| {
        said.push(read.unwrap());
        said.last().is_some_and(|said| said == line)
    });
    assert!(is_said, "the child ended: {said:?}");
}

/// The log once followed its path to another directory, and wrote there.
#[test]
fn a_log_whose_parent_was_moved_stays_in_the_directory_that_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (parent, moved) = (dir.path().join("parent"), dir.path().join("moved"));
    let (log, _) = open_with_notices(&parent.join("log"));
    emit(&log, "before").unwrap();
    fs::rename(&parent, &moved).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        emit(&log, "after").unwrap();
    }
    log.rotate().unwrap();
    log.close().unwrap();
    assert!(!parent.exists(), "nothing is made at a path");
    assert_eq!(segments(&moved.join("log")).len(), 2);
    verify(moved.join("log")).unwrap().ensure_intact().unwrap();
}

// ---- Another user.

fn becomes_another_user(path: &Path) {
    let log = AuditLog::open(path).unwrap();
    emit(&log, "before").unwrap();
    nix::unistd::setgid(65534.into()).unwrap();
    nix::unistd::setuid(65534.into()).unwrap();
    // Open files keep working.
    emit(&log, "after").unwrap();
    assert_eq!(log.health(), Health::Healthy);
    // Requested, but not waited for.
    drop(log.rotate_async());
    wait_for("the failure", || log.health() == Health::Degraded);
    // Retried every second.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        emit(&log, "degraded").unwrap();
        assert_eq!(log.health(), Health::Degraded);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(log.stats().noticed(NoticeKind::SegmentFailed), 1, "{:?}", log.stats());
    println!("\n@degraded");
    wait_for("a rotation", || {
        emit(&log, "again").unwrap();
        log.health() == Health::Healthy
    });
    log.close().unwrap();
}

#[test]
fn a_program_that_becomes_another_user_gets_one_notice_that_it_cannot_rotate_and_why() {
    let name = "a_program_that_becomes_another_user_gets_one_notice_that_it_cannot_rotate_and_why";
    if !is_root() {
        return skip(name, "only root can become somebody else");
    }
    let (_dir, path) = fresh();
    let mut process = child("life", &path, &["user"]).spawn().unwrap();
    wait_for_line(&mut process, "@degraded");
    assert_eq!(segments(&path).len(), 1);
    let told = lines_of(&path, "notice");
    assert_eq!(told.len(), 1, "{told:?}");
    for words in
        ["cannot create", "user 0 opened the log", "is now user 65534", "the old segment stays in use"]
    {
        assert!(told[0].contains(words), "{words}: {}", told[0]);
    }
    // The advice of the notice works.
    fs::set_permissions(path.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(crate::support::run("chown", &["-R", "65534:65534", path.to_str().unwrap()]));
    let status = process.wait().unwrap();
    assert!(status.success(), "{:?}", fs::read_to_string(path.with_extension("said")));
    assert_eq!(segments(&path).len(), 2);
    assert_eq!(fs::metadata(&segments(&path)[1]).unwrap().uid(), 65534);
    verify(&path).unwrap().ensure_intact().unwrap();
}
