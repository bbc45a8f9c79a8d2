//! Every crash test relies on the simulation, so it is tested itself. It must keep what was
//! promised, and it must take away what was not.

mod faults;
mod whole;

use std::{io, thread};

use super::*;
use crate::error::InsecureReason;
use crate::storage::{Access, Dir, File, LockKind, Storage, is_out_of_room, read_full};

const SEGMENT: &str = "audit-000-00000001.jsonl";
const LOCK: &str = "chain-000.lock";
const SEEDS: u64 = 200;

fn line(length: usize, byte: u8) -> Vec<u8> {
    vec![byte; length]
}

fn create(process: &SimProcess) -> Box<dyn File> {
    process.open(Dir::Log, SEGMENT, Access::Create).expect("create")
}

/// Creates a segment whose name and first bytes are durable.
fn durable_segment(disk: &SimDisk, bytes: &[u8]) -> Box<dyn File> {
    let process = disk.process();
    let file = create(&process);
    assert_eq!(file.append(bytes).expect("append"), bytes.len());
    file.sync_all().expect("sync");
    process.sync_dir(Dir::Log).expect("sync_dir");
    file
}

#[track_caller]
fn check_errno<T: fmt::Debug>(result: io::Result<T>, errno: Errno) {
    assert_eq!(result.expect_err("an error").raw_os_error(), Some(errno.raw_os_error()));
}

/// Counts the seeds whose disk `holds`.
fn seeds_that(run: impl Fn(&SimDisk), holds: impl Fn(&SimDisk) -> bool) -> u64 {
    (0..SEEDS)
        .filter(|seed| {
            let disk = SimDisk::new(*seed);
            run(&disk);
            disk.power_cut();
            holds(&disk)
        })
        .count() as u64
}

#[track_caller]
fn check_sometimes(seeds: u64) {
    assert!(seeds > SEEDS / 20 && seeds < SEEDS - SEEDS / 20, "{seeds} of {SEEDS}");
}

#[test]
fn synced_bytes_survive_every_power_cut_and_every_later_append() {
    let run = |disk: &SimDisk| {
        let file = durable_segment(disk, &line(700, b'a'));
        file.append(&line(900, b'b')).expect("append");
        disk.power_cut();
        // What survived the first cut survives the next one.
        let left = disk.contents(SEGMENT);
        disk.power_cut();
        assert_eq!(disk.contents(SEGMENT), left);
    };
    let kept =
        seeds_that(run, |disk| disk.contents(SEGMENT).is_some_and(|c| c.starts_with(&line(700, b'a'))));
    assert_eq!(kept, SEEDS);
}

#[test]
fn unsynced_bytes_are_kept_lost_torn_holed_and_scrambled() {
    let start = line(700, b'a');
    let whole = [start.clone(), line(3000, b'b')].concat();
    let run = |disk: &SimDisk| {
        let file = durable_segment(disk, &start);
        file.append(&line(3000, b'b')).expect("append");
    };
    let outcome = |holds: fn(&[u8], &[u8]) -> bool| {
        seeds_that(run, |disk| holds(&disk.contents(SEGMENT).expect("the file"), &whole))
    };
    check_sometimes(outcome(|left, whole| left == whole));
    check_sometimes(outcome(|left, _| left.len() == 700));
    check_sometimes(outcome(|left, whole| left.len() < whole.len() && left.len() > 700));
    // The length arrived and the bytes did not.
    check_sometimes(outcome(|left, whole| left.len() == whole.len() && left.ends_with(&[0; 512])));
    // A hole, and data after it.
    check_sometimes(outcome(|left, _| {
        let hole = left.iter().position(|byte| *byte == 0);
        hole.is_some_and(|hole| left[hole..].contains(&b'b'))
    }));
    // Bytes that were never written here.
    check_sometimes(outcome(|left, _| left[700..].iter().any(|byte| !b"b\0".contains(byte))));
}

#[test]
fn a_name_can_be_lost_although_the_bytes_were_synced() {
    let run = |disk: &SimDisk| {
        let file = create(&disk.process());
        file.append(b"line").expect("append");
        file.sync_all().expect("sync");
    };
    check_sometimes(seeds_that(run, |disk| disk.contents(SEGMENT).is_none()));
    assert_eq!(seeds_that(run, |disk| disk.contents(SEGMENT).is_none_or(|left| left == b"line")), SEEDS);
}

#[test]
fn a_file_whose_name_alone_was_synced_can_be_empty() {
    let run = |disk: &SimDisk| {
        let process = disk.process();
        create(&process).append(b"line").expect("append");
        process.sync_dir(Dir::Log).expect("sync_dir");
    };
    assert_eq!(seeds_that(run, |disk| disk.contents(SEGMENT).is_some()), SEEDS);
    check_sometimes(seeds_that(run, |disk| disk.contents(SEGMENT).as_deref() == Some(b"")));
    check_sometimes(seeds_that(run, |disk| disk.contents(SEGMENT).as_deref() == Some(b"line")));
}

#[test]
fn a_removed_file_comes_back_if_the_directory_was_not_synced() {
    let run = |sync: bool| {
        move |disk: &SimDisk| {
            drop(durable_segment(disk, b"line"));
            let process = disk.process();
            process.remove(Dir::Log, SEGMENT).expect("remove");
            assert_eq!(process.stat(Dir::Log, SEGMENT).expect("stat"), None);
            if sync {
                process.sync_dir(Dir::Log).expect("sync_dir");
            }
        }
    };
    check_sometimes(seeds_that(run(false), |disk| disk.contents(SEGMENT).as_deref() == Some(b"line")));
    assert_eq!(seeds_that(run(true), |disk| disk.contents(SEGMENT).is_none()), SEEDS);
}

#[test]
fn names_are_kept_and_lost_in_any_order() {
    let run = |disk: &SimDisk| {
        let process = disk.process();
        for name in ["first", "second"] {
            process.open(Dir::Log, name, Access::Create).expect("create");
        }
    };
    let left = |first: bool, second: bool| {
        seeds_that(run, |disk| {
            (disk.contents("first").is_some(), disk.contents("second").is_some()) == (first, second)
        })
    };
    for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
        check_sometimes(left(first, second));
    }
}

#[test]
fn a_power_cut_ends_every_process_and_changes_the_boot_id() {
    let disk = SimDisk::new(1);
    let file = durable_segment(&disk, b"line");
    let other = disk.process();
    assert!(file.try_lock(LockKind::Exclusive).expect("lock"));
    let before = other.boot_id();
    disk.power_cut();
    check_errno(file.append(b"more"), Errno::IO);
    check_errno(file.sync_data(), Errno::IO);
    check_errno(other.list(Dir::Log), Errno::IO);
    assert!(!other.is_alive());
    let after = disk.process();
    assert_ne!(after.boot_id(), before);
    let file = after.open(Dir::Log, SEGMENT, Access::Append).expect("open");
    assert!(file.try_lock(LockKind::Exclusive).expect("the lock is free"));
    disk.hide_boot_id();
    assert_eq!(after.boot_id(), "");
}

#[test]
fn a_kill_keeps_the_page_cache_and_releases_locks() {
    let disk = SimDisk::new(1);
    let (one, two) = (disk.process(), disk.process());
    let held = one.open(Dir::Control, LOCK, Access::Lock).expect("open");
    let file = create(&one);
    file.append(b"never synced").expect("append");
    assert!(held.try_lock(LockKind::Exclusive).expect("lock"));
    let waiting = two.open(Dir::Control, LOCK, Access::Lock).expect("open");
    assert!(!waiting.try_lock(LockKind::Exclusive).expect("lock"));
    one.kill();
    assert!(waiting.try_lock(LockKind::Exclusive).expect("lock"));
    check_errno(file.append(b"more"), Errno::IO);
    check_errno(one.free_bytes(), Errno::IO);
    assert_eq!(disk.contents(SEGMENT).as_deref(), Some(b"never synced".as_slice()));
    assert!(two.is_alive());
}

#[test]
fn locks_belong_to_the_open_file() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    let open = || process.open(Dir::Control, LOCK, Access::Lock).expect("open");
    let (one, two) = (open(), open());
    let lock = |file: &dyn File, kind| file.try_lock(kind).expect("lock");
    assert!(lock(&*one, LockKind::Shared) && lock(&*two, LockKind::Shared));
    assert!(!lock(&*one, LockKind::Exclusive), "another one shares it");
    // Changing the kind released the first lock.
    assert!(lock(&*two, LockKind::Exclusive));
    assert!(!lock(&*one, LockKind::Shared));
    two.unlock().expect("unlock");
    assert!(lock(&*one, LockKind::Exclusive));
    drop(one);
    assert!(lock(&*two, LockKind::Exclusive), "a closed file holds no lock");
    // A lock is on the open file, not on its name.
    process.remove(Dir::Control, LOCK).expect("remove");
    assert!(lock(&*open(), LockKind::Exclusive));
    assert_eq!(two.stat().expect("stat").links, 0);
}

#[test]
fn a_forked_child_keeps_the_lock_of_its_parent() {
    let disk = SimDisk::new(1);
    let (parent, other) = (disk.process(), disk.process());
    let held = parent.open(Dir::Control, LOCK, Access::Lock).expect("open");
    let waiting = other.open(Dir::Control, LOCK, Access::Lock).expect("open");
    assert!(held.try_lock(LockKind::Exclusive).expect("lock"));
    let child = parent.fork();
    drop(held);
    parent.kill();
    assert!(!waiting.try_lock(LockKind::Exclusive).expect("lock"));
    child.kill();
    assert!(waiting.try_lock(LockKind::Exclusive).expect("lock"));
}
