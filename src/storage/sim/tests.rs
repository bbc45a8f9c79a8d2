//! The simulation is trusted by every crash test, so it is tested itself: that it keeps what was
//! promised, and that it does take away what was not.

use std::{io, thread};

use super::*;
use crate::storage::{Access, Dir, File, LockKind, Refusal, Storage, is_out_of_room, read_full};

const SEGMENT: &str = "audit-000-00000001.jsonl";
const LOCK: &str = "chain-000.lock";
const SEEDS: u64 = 200;

fn line(length: usize, byte: u8) -> Vec<u8> {
    vec![byte; length]
}

fn create(process: &SimProcess) -> Box<dyn File> {
    process.open(Dir::Log, SEGMENT, Access::Create).expect("create")
}

/// A segment whose name and first bytes are durable.
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

/// How many of the seeds leave a disk that `holds`.
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
fn what_was_synced_survives_every_cut_and_every_append_after_it() {
    let run = |disk: &SimDisk| {
        let file = durable_segment(disk, &line(700, b'a'));
        file.append(&line(900, b'b')).expect("append");
        disk.power_cut();
        // What the first cut left is what the next one keeps.
        let left = disk.contents(SEGMENT);
        disk.power_cut();
        assert_eq!(disk.contents(SEGMENT), left);
    };
    let kept =
        seeds_that(run, |disk| disk.contents(SEGMENT).is_some_and(|c| c.starts_with(&line(700, b'a'))));
    assert_eq!(kept, SEEDS);
}

#[test]
fn what_was_not_synced_is_kept_lost_torn_holed_and_scrambled() {
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
    // The length is there and the bytes are not.
    check_sometimes(outcome(|left, whole| left.len() == whole.len() && left.ends_with(&[0; 512])));
    // A hole, and something after it.
    check_sometimes(outcome(|left, _| {
        let hole = left.iter().position(|byte| *byte == 0);
        hole.is_some_and(|hole| left[hole..].contains(&b'b'))
    }));
    // Bytes that nobody wrote here.
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
fn a_kill_keeps_the_page_cache_and_lets_go_of_locks() {
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
    // Changing the kind let go of the first lock.
    assert!(lock(&*two, LockKind::Exclusive));
    assert!(!lock(&*one, LockKind::Shared));
    two.unlock().expect("unlock");
    assert!(lock(&*one, LockKind::Exclusive));
    drop(one);
    assert!(lock(&*two, LockKind::Exclusive), "a closed file holds no lock");
    // A lock is on the file, not on its name.
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

#[test]
fn a_failed_sync_on_ext4_is_told_once_and_never_made_good() {
    for failure in [SyncFailure::Ext4Ordered, SyncFailure::Xfs] {
        let disk = SimDisk::new(1);
        disk.set_sync_failure(failure);
        let file = durable_segment(&disk, &line(512, b'a'));
        file.append(&line(100, b'b')).expect("append");
        disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
        check_errno(file.sync_data(), Errno::IO);
        file.sync_data().expect("the second sync lies");
        let shown = [line(512, b'a'), line(100, b'b')].concat();
        assert_eq!(disk.contents(SEGMENT), Some(shown), "the page cache shows the new bytes");
        // ext4 makes the length durable, XFS not even that.
        let holed = [line(512, b'a'), line(if failure == SyncFailure::Xfs { 0 } else { 100 }, 0)].concat();
        assert_eq!(disk.durable_contents(SEGMENT).as_ref(), Some(&holed));
        for seed in 0..20 {
            assert_eq!(disk.after_power_cut(seed).contents(SEGMENT).as_ref(), Some(&holed));
        }
        // Written again, the page is dirty again.
        file.append(b"c").expect("append");
        file.sync_data().expect("sync");
        assert_eq!(disk.durable_contents(SEGMENT), disk.contents(SEGMENT));
    }
}

#[test]
fn a_failed_sync_of_many_sectors_loses_at_least_one() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let file = durable_segment(&disk, b"");
        file.append(&line(5000, b'a')).expect("append");
        disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
        check_errno(file.sync_data(), Errno::IO);
        file.sync_data().expect("the second sync lies");
        let left = disk.after_power_cut(seed).contents(SEGMENT).expect("the file");
        assert_eq!(left.len(), 5000);
        assert!(left.chunks(512).any(|sector| sector.iter().all(|byte| *byte == 0)));
    }
}

#[test]
fn a_failed_sync_with_journaled_data_is_told_one_sync_late() {
    let disk = SimDisk::new(1);
    disk.set_sync_failure(SyncFailure::Ext4Data);
    let file = durable_segment(&disk, b"a");
    file.append(b"b").expect("append");
    disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
    file.sync_data().expect("success, and yet lost");
    assert_eq!(disk.durable_contents(SEGMENT).as_deref(), Some(b"a".as_slice()));
    check_errno(file.sync_data(), Errno::IO);
    file.sync_data().expect("told once");
}

#[test]
fn a_failed_sync_on_btrfs_shows_the_old_bytes_again() {
    let disk = SimDisk::new(1);
    disk.set_sync_failure(SyncFailure::Btrfs);
    let file = durable_segment(&disk, b"old");
    file.append(b"new").expect("append");
    disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
    check_errno(file.sync_data(), Errno::IO);
    assert_eq!(disk.contents(SEGMENT).as_deref(), Some(b"old".as_slice()));
    assert_eq!(file.stat().expect("stat").bytes, 3);
}

#[test]
fn every_open_file_hears_once_of_a_failed_write_back() {
    let disk = SimDisk::new(1);
    let file = durable_segment(&disk, b"a");
    let process = disk.process();
    let other = process.open(Dir::Log, SEGMENT, Access::Append).expect("open");
    file.append(b"b").expect("append");
    assert!(disk.fail_writeback(SEGMENT, Errno::IO));
    let late = process.open(Dir::Log, SEGMENT, Access::Append).expect("open");
    for file in [&file, &other, &late] {
        check_errno(file.sync_data(), Errno::IO);
        file.sync_data().expect("told once");
    }
    process.open(Dir::Log, SEGMENT, Access::Append).expect("open").sync_data().expect("all were told");
}

#[test]
fn a_lying_sync_makes_nothing_durable() {
    let run = |disk: &SimDisk| {
        let file = durable_segment(disk, b"");
        disk.inject(Fault::lying_sync().and_later());
        file.append(b"line").expect("append");
        file.sync_data().expect("a lie");
        assert_eq!(disk.durable_contents(SEGMENT).as_deref(), Some(b"".as_slice()));
        disk.clear_faults();
    };
    check_sometimes(seeds_that(run, |disk| disk.contents(SEGMENT).as_deref() == Some(b"line")));
}

#[test]
fn a_failed_sync_of_a_directory_leaves_its_names_in_doubt() {
    let run = |disk: &SimDisk| {
        let process = disk.process();
        process.open(Dir::Log, "first", Access::Create).expect("create");
        disk.inject(Fault::error(&[Op::SyncDir], Errno::IO));
        check_errno(process.sync_dir(Dir::Log), Errno::IO);
        process.open(Dir::Log, "second", Access::Create).expect("create");
        process.sync_dir(Dir::Log).expect("sync_dir");
    };
    check_sometimes(seeds_that(run, |disk| disk.contents("first").is_some()));
    assert_eq!(seeds_that(run, |disk| disk.contents("second").is_some()), SEEDS);
}

#[test]
fn a_full_disk_takes_a_part_and_then_nothing_until_there_is_room() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    let file = durable_segment(&disk, &line(100, b'a'));
    disk.set_free_bytes(50);
    assert_eq!(process.free_bytes().expect("free"), 50);
    assert_eq!(file.append(&line(80, b'b')).expect("a part"), 50);
    let error = file.append(&line(30, b'b')).expect_err("full");
    assert!(is_out_of_room(&error));
    file.sync_data().expect("what is there can be synced");
    // What is removed and still open holds its room.
    let other = process.open(Dir::Log, SEGMENT, Access::Read).expect("open");
    process.remove(Dir::Log, SEGMENT).expect("remove");
    assert_eq!(process.free_bytes().expect("free"), 0);
    drop((file, other));
    assert_eq!(process.free_bytes().expect("free"), 150);
    assert_eq!(create(&process).append(&line(80, b'c')).expect("room"), 80);
}

#[test]
fn a_file_ends_at_the_limit_of_the_process() {
    let disk = SimDisk::new(1);
    disk.set_file_size_limit(Some(10));
    let file = durable_segment(&disk, b"12345678");
    assert_eq!(disk.process().file_size_limit(), Some(10));
    assert_eq!(file.append(b"90ab").expect("a part"), 2);
    check_errno(file.append(b"ab"), Errno::FBIG);
}

#[test]
fn a_fault_strikes_the_calls_it_names() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).nth(2).on("audit-000-"));
    disk.inject(Fault::error(&Op::WRITES, Errno::ROFS).nth(5).and_later());
    disk.inject(Fault::error(&[Op::Open], Errno::MFILE).by(&process).on("control/"));
    let file = create(&process);
    file.append(b"1").expect("append");
    check_errno(file.append(b"2"), Errno::NOSPC);
    file.append(b"3").expect("append");
    assert_eq!(disk.faults_struck(), 1);
    check_errno(file.append(b"4"), Errno::ROFS);
    check_errno(process.remove(Dir::Log, SEGMENT), Errno::ROFS);
    disk.clear_faults();
    disk.inject(Fault::error(&[Op::Open], Errno::MFILE).by(&process).on("control/"));
    disk.process().open(Dir::Control, LOCK, Access::Lock).expect("another process, and a new file");
    check_errno(process.open(Dir::Control, LOCK, Access::Lock), Errno::MFILE);
    disk.inject(Fault::error_applied(&[Op::Remove], Errno::IO));
    check_errno(process.remove(Dir::Log, SEGMENT), Errno::IO);
    assert_eq!(disk.contents(SEGMENT), None);
    assert_eq!((disk.count(Op::Remove), disk.failures(Op::Remove)), (2, 2));
}

#[test]
fn a_create_that_fails_and_was_done_leaves_the_file_and_nothing_open() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    disk.inject(Fault::error_applied(&[Op::Create], Errno::IO));
    check_errno(process.open(Dir::Log, SEGMENT, Access::Create), Errno::IO);
    check_errno(process.open(Dir::Log, SEGMENT, Access::Create), Errno::EXIST);
    disk.set_free_bytes(1);
    let file = process.open(Dir::Log, SEGMENT, Access::Append).expect("open");
    file.append(b"x").expect("append");
    process.remove(Dir::Log, SEGMENT).expect("remove");
    drop(file);
    assert_eq!(process.free_bytes().expect("free"), 1);
}

#[test]
fn an_interrupted_call_is_made_again_within() {
    let disk = SimDisk::new(1);
    disk.inject(Fault::error(&Op::ALL, Errno::INTR).and_later());
    let file = durable_segment(&disk, b"line");
    assert!(file.try_lock(LockKind::Exclusive).expect("lock"));
    assert_eq!(disk.faults_struck(), disk.operations());
}

#[test]
fn short_writes_and_reads_move_at_least_a_byte() {
    let disk = SimDisk::new(1);
    let file = durable_segment(&disk, b"");
    disk.inject(Fault::short_write(0));
    disk.inject(Fault::short_read(2).and_later());
    assert_eq!(file.append(b"line").expect("append"), 1);
    assert_eq!(file.append(b"ine").expect("append"), 3);
    let mut bytes = [0; 8];
    assert_eq!(file.read_at(&mut bytes, 0).expect("read"), 2);
    assert_eq!(read_full(&*file, &mut bytes, 0).expect("read"), 4);
    assert_eq!(&bytes[..4], b"line");
}

#[test]
fn random_faults_come_at_about_their_rate() {
    let disk = SimDisk::new(9);
    let file = durable_segment(&disk, b"");
    disk.inject(Fault::error(&[Op::Append], Errno::IO).per_mille(100));
    let failed = (0..2000).filter(|_| file.append(b"x").is_err()).count();
    assert!((140..260).contains(&failed), "{failed}");
}

#[test]
fn a_crash_comes_at_its_call_which_was_done_or_not() {
    let workload = |disk: &SimDisk| {
        let process = disk.process();
        let run = || -> io::Result<()> {
            let file = process.open(Dir::Log, SEGMENT, Access::Create)?;
            file.append(&line(100, b'a'))?;
            file.sync_all()?;
            process.sync_dir(Dir::Log)
        };
        (run().is_ok(), process.is_alive())
    };
    let disk = SimDisk::new(1);
    assert_eq!(workload(&disk), (true, true));
    assert_eq!(disk.changes(), 4);
    for nth in 1..=4 {
        let disk = SimDisk::new(nth);
        disk.cut_power_at(nth, Applied::Seeded);
        assert_eq!(workload(&disk), (false, false), "{nth}");
        assert_eq!((disk.power_cuts(), disk.crashes_to_come()), (1, 0));
    }
    for (applied, length) in [(Applied::Fully, 100), (Applied::NotAtAll, 0)] {
        let disk = SimDisk::new(1);
        let process = disk.process();
        process.kill_at(2, applied);
        let file = create(&process);
        check_errno(file.append(&line(100, b'a')), Errno::IO);
        assert!(!process.is_alive() && disk.process().is_alive());
        assert_eq!(disk.contents(SEGMENT).map(|contents| contents.len()), Some(length));
    }
    let lengths: std::collections::BTreeSet<_> = (0..SEEDS)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let process = disk.process();
            process.kill_at(2, Applied::Seeded);
            create(&process).append(&line(100, b'a')).expect_err("killed");
            disk.contents(SEGMENT).map(|contents| contents.len())
        })
        .collect();
    assert!(lengths.len() > 5, "a killed process may have written a part: {lengths:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.record_trace();
        disk.inject(Fault::error(&[Op::SyncData], Errno::IO).per_mille(200));
        disk.inject(Fault::short_write(7).per_mille(300));
        for _ in 0..3 {
            let process = disk.process();
            let file = process.open(Dir::Control, LOCK, Access::Lock).expect("open");
            let mut names = process.list(Dir::Log).expect("list");
            names.truncate(1);
            for n in 0..20 {
                file.write_at(names.concat().as_bytes(), n * 300).expect("write");
                file.sync_data().ok();
            }
            file.write_at(&process.random().expect("random").to_le_bytes(), 0).expect("write");
            process.sync_dir(Dir::Control).expect("sync_dir");
            disk.power_cut();
        }
        (disk.trace_hash(), disk.trace(), disk.snapshot())
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed).0, run(seed + 1).0);
    }
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    let disk = SimDisk::new(1);
    let file = durable_segment(&disk, b"");
    file.append(b"before").expect("append");
    disk.hold(Op::SyncData);
    let bound = Duration::from_secs(30);
    thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        assert!(disk.wait_until_held(1, bound));
        file.append(b"after").expect("append");
        disk.release();
        sync.join().expect("join").expect("sync");
    });
    assert_eq!(disk.durable_contents(SEGMENT).as_deref(), Some(b"before".as_slice()));
    assert_eq!(disk.contents(SEGMENT).as_deref(), Some(b"beforeafter".as_slice()));
    disk.hold(Op::SyncData);
    thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        assert!(disk.wait_until_held(1, bound));
        disk.power_cut();
        check_errno(sync.join().expect("join"), Errno::IO);
    });
}

#[test]
fn files_are_opened_as_the_disk_opens_them() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    let open = |name, access| process.open(Dir::Log, name, access);
    check_errno(open(SEGMENT, Access::Append), Errno::NOENT);
    check_errno(open(SEGMENT, Access::Read), Errno::NOENT);
    let file = open(SEGMENT, Access::Create).expect("create");
    check_errno(open(SEGMENT, Access::Create), Errno::EXIST);
    // Opened to append, a write in place appends.
    file.write_at(b"ab", 0).expect("write");
    file.write_at(b"cd", 0).expect("write");
    assert_eq!(disk.contents(SEGMENT).as_deref(), Some(b"abcd".as_slice()));
    let reader = open(SEGMENT, Access::Read).expect("open");
    check_errno(reader.append(b"x"), Errno::BADF);
    check_errno(reader.write_at(b"x", 0), Errno::BADF);
    let mut byte = [0; 1];
    assert_eq!(reader.read_at(&mut byte, 4).expect("read"), 0);

    let refused =
        |error: io::Error| error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Refusal>);
    assert!(disk.hard_link(SEGMENT, "second"));
    assert_eq!(file.stat().expect("stat").links, 2);
    assert!(open("second", Access::Append).is_err_and(refused));
    assert!(disk.make_unsafe(SEGMENT, "somebody else can write to it"));
    assert!(open(SEGMENT, Access::Append).is_err_and(refused));
    disk.put_symlink("link");
    check_errno(open("link", Access::Read), Errno::LOOP);
    let mut names = process.list(Dir::Log).expect("list");
    names.sort();
    assert_eq!(names, [SEGMENT, "control", "link", "second"]);
}

#[test]
fn what_somebody_does_to_a_file_is_seen_in_it() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    let file = durable_segment(&disk, b"line");
    let before = file.stat().expect("stat");
    assert!(disk.append_foreign(SEGMENT, b"foreign"));
    assert_eq!(file.stat().expect("stat").bytes, 11);
    assert!(disk.truncate(SEGMENT, 2) && disk.flip_bit(SEGMENT, 1, 0));
    assert!(!disk.flip_bit(SEGMENT, 2, 0));
    file.append(b"x").expect("append");
    assert_eq!(disk.contents(SEGMENT).as_deref(), Some(b"lhx".as_slice()));
    assert_eq!(disk.durable_contents(SEGMENT).as_deref(), Some(b"lh".as_slice()));
    disk.replace(SEGMENT, b"another");
    let at_path = process.stat(Dir::Log, SEGMENT).expect("stat").expect("a file");
    assert!(!at_path.is_same_file(&before));
    assert_eq!(file.stat().expect("stat").links, 0);
    assert!(disk.remove_behind_back(SEGMENT) && !disk.remove_behind_back(SEGMENT));
    assert_eq!(process.stat(Dir::Log, SEGMENT).expect("stat"), None);
    file.sync_data().expect("nothing notices");

    disk.replace("control/chain-000.lock", b"pid");
    let image = disk.snapshot();
    assert_eq!(image.into_keys().collect::<Vec<_>>(), ["control/chain-000.lock"]);
    assert_eq!(SimDisk::with_files(2, &disk.snapshot()).snapshot(), disk.snapshot());
}

#[test]
fn a_directory_that_was_removed_or_moved_is_followed_on_request_only() {
    for removed in [true, false] {
        let disk = SimDisk::new(1);
        let process = disk.process();
        let file = create(&process);
        if removed {
            disk.remove_directory();
        } else {
            disk.move_directory_away();
        }
        file.append(b"line").expect("append");
        file.sync_data().expect("nothing notices");
        assert_eq!(file.stat().expect("stat").links, u64::from(!removed));
        assert_eq!(process.stat(Dir::Log, SEGMENT).expect("stat"), None);
        match process.open(Dir::Log, "next", Access::Create) {
            Err(error) if removed => check_errno::<()>(Err(error), Errno::NOENT),
            made => assert!(made.is_ok() && !removed),
        }
        process.reattach().expect("reattach");
        create(&process);
        assert_eq!(disk.snapshot().len(), 1);
    }
}

#[test]
fn one_state_can_be_cut_in_many_ways() {
    let disk = SimDisk::new(1);
    let file = durable_segment(&disk, b"");
    file.append(&line(600, b'a')).expect("append");
    let left: std::collections::BTreeSet<_> =
        (0..50).map(|seed| disk.after_power_cut(seed).contents(SEGMENT).expect("the file").len()).collect();
    assert!(left.contains(&0) && left.contains(&600) && left.len() > 3, "{left:?}");
    file.sync_data().expect("the first machine goes on");
    disk.sync_everything();
    assert_eq!(disk.after_power_cut(1).snapshot(), disk.snapshot());
}

/// What the writer of the next test does wrong, so that the cuts can show it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Planted {
    Nothing,
    AcknowledgedBeforeSync,
    DirectoryNotSynced,
    ShortWriteNotContinued,
    SyncTriedAgain,
}

/// A small log: numbered lines of 100 bytes, a new file every five; returns what was acknowledged.
fn write_lines(storage: &dyn Storage, planted: Planted) -> u32 {
    let mut acknowledged = 0;
    let mut run = || -> io::Result<()> {
        for file_number in 0..4 {
            let file = storage.open(Dir::Log, &format!("{file_number}"), Access::Create)?;
            if planted != Planted::DirectoryNotSynced {
                storage.sync_dir(Dir::Log)?;
            }
            for line in 0..5 {
                let number = file_number * 5 + line;
                let text = format!("{number:099}\n");
                let mut rest = text.as_bytes();
                while !rest.is_empty() {
                    let written = file.append(rest)?;
                    rest = &rest[written..];
                    if planted == Planted::ShortWriteNotContinued {
                        break;
                    }
                }
                if planted == Planted::AcknowledgedBeforeSync {
                    acknowledged = number + 1;
                }
                match file.sync_data() {
                    Err(_) if planted == Planted::SyncTriedAgain => file.sync_data()?,
                    synced => synced?,
                }
                acknowledged = number + 1;
            }
        }
        Ok(())
    };
    run().ok();
    acknowledged
}

/// How many lines can be read back, without a hole.
fn lines_left(disk: &SimDisk) -> u32 {
    let bytes = (0..4).map_while(|n| disk.contents(&n.to_string())).flatten().collect::<Vec<u8>>();
    let lines = bytes.chunks(100).zip(0..).take_while(|(line, n)| *line == format!("{n:099}\n").as_bytes());
    lines.count().try_into().expect("few")
}

#[test]
fn cuts_find_each_planted_bug_and_none_in_an_honest_writer() {
    let losses = |planted: Planted| {
        (0..1000)
            .filter(|seed| {
                let disk = SimDisk::new(*seed);
                let mut prng = Prng::new(*seed);
                disk.inject(Fault::short_write(60).per_mille(100));
                disk.inject(Fault::error(&[Op::SyncData], Errno::IO).per_mille(20));
                disk.cut_power_at(1 + prng.next() % 50, Applied::Seeded);
                let process = disk.process();
                let acknowledged = write_lines(&*process.storage(), planted);
                if process.is_alive() {
                    disk.power_cut();
                }
                lines_left(&disk) < acknowledged
            })
            .count()
    };
    assert_eq!(losses(Planted::Nothing), 0);
    for planted in [
        Planted::AcknowledgedBeforeSync,
        Planted::DirectoryNotSynced,
        Planted::ShortWriteNotContinued,
        Planted::SyncTriedAgain,
    ] {
        let found = losses(planted);
        assert!(found > 10, "{planted:?}: {found}");
    }
}
