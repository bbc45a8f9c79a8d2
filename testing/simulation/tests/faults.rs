//! Failing syncs, full disks, and faults that hit exactly the calls they are set for.

use super::*;

#[test]
fn a_failed_sync_on_ext4_is_reported_once_and_never_repaired() {
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
fn a_failed_sync_with_journaled_data_is_reported_one_sync_late() {
    let disk = SimDisk::new(1);
    disk.set_sync_failure(SyncFailure::Ext4Data);
    let file = durable_segment(&disk, b"a");
    file.append(b"b").expect("append");
    disk.inject(Fault::error(&[Op::SyncData], Errno::IO));
    file.sync_data().expect("success, and yet lost");
    assert_eq!(disk.durable_contents(SEGMENT).as_deref(), Some(b"a".as_slice()));
    check_errno(file.sync_data(), Errno::IO);
    file.sync_data().expect("reported once");
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
fn every_open_file_reports_a_failed_writeback_once() {
    let disk = SimDisk::new(1);
    let file = durable_segment(&disk, b"a");
    let process = disk.process();
    let other = process.open(Dir::Log, SEGMENT, Access::Append).expect("open");
    file.append(b"b").expect("append");
    assert!(disk.fail_writeback(SEGMENT, Errno::IO));
    let late = process.open(Dir::Log, SEGMENT, Access::Append).expect("open");
    for file in [&file, &other, &late] {
        check_errno(file.sync_data(), Errno::IO);
        file.sync_data().expect("reported once");
    }
    process.open(Dir::Log, SEGMENT, Access::Append).expect("open").sync_data().expect("reported to all");
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
fn a_full_disk_takes_a_short_write_and_then_nothing_until_there_is_room() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    let file = durable_segment(&disk, &line(100, b'a'));
    disk.set_free_bytes(50);
    assert_eq!(process.free_bytes().expect("free"), 50);
    assert_eq!(file.append(&line(80, b'b')).expect("a part"), 50);
    let error = file.append(&line(30, b'b')).expect_err("full");
    assert!(is_out_of_room(&error));
    file.sync_data().expect("what is there can be synced");
    // A file that is removed but still open keeps its space.
    let other = process.open(Dir::Log, SEGMENT, Access::Read).expect("open");
    process.remove(Dir::Log, SEGMENT).expect("remove");
    assert_eq!(process.free_bytes().expect("free"), 0);
    drop((file, other));
    assert_eq!(process.free_bytes().expect("free"), 150);
    assert_eq!(create(&process).append(&line(80, b'c')).expect("room"), 80);
}

#[test]
fn a_file_does_not_grow_beyond_the_limit_of_the_process() {
    let disk = SimDisk::new(1);
    disk.set_file_size_limit(Some(10));
    let file = durable_segment(&disk, b"12345678");
    assert_eq!(disk.process().file_size_limit(), Some(10));
    assert_eq!(file.append(b"90ab").expect("a part"), 2);
    check_errno(file.append(b"ab"), Errno::FBIG);
}

#[test]
fn a_fault_hits_the_calls_it_names() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    disk.inject(Fault::error(&[Op::Append], Errno::NOSPC).nth(2).on("audit-000-"));
    disk.inject(Fault::error(&Op::WRITES, Errno::ROFS).nth(5).and_later());
    disk.inject(Fault::error(&[Op::Open], Errno::MFILE).by(&process).on("control/"));
    let file = create(&process);
    file.append(b"1").expect("append");
    check_errno(file.append(b"2"), Errno::NOSPC);
    file.append(b"3").expect("append");
    assert_eq!(disk.faults_hit(), 1);
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
fn a_create_that_is_applied_and_fails_leaves_the_file_and_no_open_handle() {
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
fn an_interrupted_call_is_retried_within() {
    let disk = SimDisk::new(1);
    disk.inject(Fault::error(&Op::ALL, Errno::INTR).and_later());
    let file = durable_segment(&disk, b"line");
    assert!(file.try_lock(LockKind::Exclusive).expect("lock"));
    assert_eq!(disk.faults_hit(), disk.operations());
}

#[test]
fn short_writes_and_reads_transfer_at_least_a_byte() {
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
fn random_faults_occur_at_about_their_rate() {
    let disk = SimDisk::new(9);
    let file = durable_segment(&disk, b"");
    disk.inject(Fault::error(&[Op::Append], Errno::IO).per_mille(100));
    let failed = (0..2000).filter(|_| file.append(b"x").is_err()).count();
    assert!((140..260).contains(&failed), "{failed}");
}

#[test]
fn a_crash_happens_at_its_call_whether_applied_or_not() {
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
