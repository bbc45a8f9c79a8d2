//! The public functions, on real directories.

use super::{
    check,
    log::{Chain, Log, name},
};
use crate::{
    Error, FindingKind, Verdict, read,
    storage::{Access, Dir, Disk, DiskOptions, LockKind, Storage as _},
    verify,
};

/// Writes a log to a real directory.
fn write(log: &Log, dir: &std::path::Path) {
    let disk = Disk::create(dir, DiskOptions::default()).unwrap();
    for (name, bytes) in log.files.iter().filter(|(name, _)| *name != "control") {
        let file = disk.open(Dir::Log, name, Access::Create).unwrap();
        assert_eq!(file.append(bytes).unwrap(), bytes.len());
    }
}

#[test]
fn a_directory_without_a_log_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nothing")] {
        assert!(matches!(verify(&path), Err(Error::NoLog { .. })));
        assert!(matches!(read(&path), Err(Error::NoLog { .. })));
    }
}

#[test]
fn an_unreadable_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    write(&Log::of(&[&Chain::new(0).close()]), &path);
    // A directory with the name of a segment.
    drop(Disk::create(&path.join(name(0, 2)), DiskOptions::default()).unwrap());
    let Err(error @ Error::Io { .. }) = verify(&path) else { panic!() };
    assert!(error.to_string().ends_with("/log/audit-000-00000002.jsonl"), "{error}");
    assert!(matches!(read(&path), Err(Error::Io { .. })));
}

#[test]
fn a_writer_that_holds_the_lock_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = Log::of(&[&Chain::new(0).events(3)]);
    log.file(0, 1).extend_from_slice(b"{\"seq\":");
    write(&log, &path);
    let torn = [FindingKind::TornTail, FindingKind::NotClosed];
    check(&verify(&path).unwrap(), Verdict::Unclean, &torn);
    let disk = Disk::create(&path, DiskOptions::default()).unwrap();
    let lock = disk.open(Dir::Control, "chain-000.lock", Access::Lock).unwrap();
    check(&verify(&path).unwrap(), Verdict::Unclean, &torn);
    assert!(lock.try_lock(LockKind::Exclusive).unwrap());
    check(&verify(&path).unwrap(), Verdict::Intact, &[]);
    assert_eq!(read(&path).unwrap().count(), 5);
    lock.unlock().unwrap();
    let report = verify(&path).unwrap();
    check(&report, Verdict::Unclean, &torn);
    assert!(matches!(report.ensure_intact(), Err(Error::NotIntact { verdict: Verdict::Unclean, .. })));
    // The verification has released the lock.
    assert!(lock.try_lock(LockKind::Exclusive).unwrap());
}
