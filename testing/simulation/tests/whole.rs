//! The simulation as a whole: replay, tampering, and evidence that it finds planted bugs.

use super::*;

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
    // In a file opened with O_APPEND, a write in place appends.
    file.write_at(b"ab", 0).expect("write");
    file.write_at(b"cd", 0).expect("write");
    assert_eq!(disk.contents(SEGMENT).as_deref(), Some(b"abcd".as_slice()));
    let reader = open(SEGMENT, Access::Read).expect("open");
    check_errno(reader.append(b"x"), Errno::BADF);
    check_errno(reader.write_at(b"x", 0), Errno::BADF);
    let mut byte = [0; 1];
    assert_eq!(reader.read_at(&mut byte, 4).expect("read"), 0);

    let refused = |error: io::Error| {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<InsecureReason>)
    };
    assert!(disk.hard_link(SEGMENT, "second"));
    assert_eq!(file.stat().expect("stat").links, 2);
    assert!(open("second", Access::Append).is_err_and(refused));
    assert!(disk.make_insecure(SEGMENT, InsecureReason::WritableFile));
    assert!(open(SEGMENT, Access::Append).is_err_and(refused));
    disk.put_symlink("link");
    check_errno(open("link", Access::Read), Errno::LOOP);
    let mut names = process.list(Dir::Log).expect("list");
    names.sort();
    assert_eq!(names, [SEGMENT, "control", "link", "second"]);
}

#[test]
fn changes_behind_the_back_are_visible_in_the_file() {
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
fn a_removed_or_moved_directory_is_followed_only_on_request() {
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

/// The bug in the writer of the next test, which the power cuts must reveal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Planted {
    Nothing,
    AcknowledgedBeforeSync,
    DirectoryNotSynced,
    ShortWriteNotContinued,
    SyncTriedAgain,
}

/// Writes a small log: numbered lines of 100 bytes, a new file every five. Returns the number
/// acknowledged.
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

/// Returns how many lines can be read back without a hole.
fn lines_left(disk: &SimDisk) -> u32 {
    let bytes = (0..4).map_while(|n| disk.contents(&n.to_string())).flatten().collect::<Vec<u8>>();
    let lines = bytes.chunks(100).zip(0..).take_while(|(line, n)| *line == format!("{n:099}\n").as_bytes());
    lines.count().try_into().expect("few")
}

#[test]
fn power_cuts_reveal_each_planted_bug_and_none_in_an_honest_writer() {
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
