//! The contents of lock files: whether a writer holds a chain, and which head it noted.

use std::{os::unix::fs::MetadataExt as _, path::Path, process::Command, time::UNIX_EPOCH};

use super::{Chain, DAMAGED, INTACT, Log, OnDisk, TIME, UNCLEAN, fs, is_there, name, script, started};
use crate::{
    chain::Digest,
    storage::{Access, Dir, Disk, DiskOptions, LockKind, Storage as _},
};

#[test]
fn a_held_lock_excuses_what_a_writer_leaves_open() {
    if !is_there("a_held_lock_excuses_what_a_writer_leaves_open") {
        return;
    }
    let mut unfinished = Log::of(&[&started(true)]);
    unfinished.file(0, 1).extend_from_slice(b"{\"seq\":");
    let mut begun = Log::of(&[&started(true)]);
    begun.files.insert(name(0, 2), b"garb\nage\0".to_vec());
    let mut empty = Log::of(&[&started(true).close()]);
    empty.files.insert(name(0, 2), Vec::new());
    let mut torn = unfinished.clone();
    torn.file(0, 1).extend_from_slice(b"\n");
    let mut damaged = Log::of(&[&started(true)]);
    damaged.edit(0, 1, |lines| lines[1][40] ^= 1);
    for (log, code) in [
        (Log::of(&[&started(true)]), INTACT),
        (unfinished, INTACT),
        (begun, INTACT),
        (empty, INTACT),
        (torn, UNCLEAN),
        (damaged, DAMAGED),
    ] {
        let on_disk = OnDisk::of(&log);
        let disk = Disk::create(on_disk.dir.path(), DiskOptions::default()).unwrap();
        let lock = disk.open(Dir::Control, "chain-000.lock", Access::Lock).unwrap();
        on_disk.is(if code == DAMAGED { DAMAGED } else { UNCLEAN }, &[]);
        assert!(lock.try_lock(LockKind::Exclusive).unwrap());
        on_disk.is(code, &["being written", "live: chain 000: a writer holds the chain"]);
        // If the lock may not be opened, the checker asks the system, that is, /proc/locks.
        let program = "import importlib.util, sys\n\
                       spec = importlib.util.spec_from_file_location('verify', sys.argv[1])\n\
                       verify = importlib.util.module_from_spec(spec)\n\
                       spec.loader.exec_module(verify)\n\
                       print(verify.Lock(sys.argv[2], '000').ask_the_system())";
        let asked = || {
            let mut python = Command::new("python3");
            let output = python.args(["-c", program]).arg(script()).arg(on_disk.dir.path()).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(asked(), "True\n");
        lock.unlock().unwrap();
        assert_eq!(asked(), "False\n");
        // Another checker at the same time is not a writer.
        assert!(lock.try_lock(LockKind::Shared).unwrap());
        assert!(!on_disk.ask(&[]).1.contains("being written"));
        lock.unlock().unwrap();
        // The checker does not keep a writer out either.
        assert!(lock.try_lock(LockKind::Exclusive).unwrap());
    }
    // A lock that cannot be examined.
    let on_disk = OnDisk::of(&Log::of(&[&started(true)]));
    std::os::unix::fs::symlink("chain-000.lock", on_disk.lock(0)).unwrap();
    on_disk.is(
        UNCLEAN,
        &["it is unclean, or still being written", "chain 000: whether a writer holds it, since its lock"],
    );
}

/// Writes a lock file with these two slots, each made from the inode and the birth time of the file itself.
fn write_slots(lock: &Path, slots: [&dyn Fn(u64, u128) -> String; 2]) {
    let block = |text: &str| format!("{text:511}\n");
    fs::write(lock, block("clean") + &block("pid 7 -")).unwrap();
    let stat = fs::metadata(lock).unwrap();
    let birth = stat.created().map_or(0, |born| born.duration_since(UNIX_EPOCH).unwrap().as_nanos());
    let slots = slots.map(|slot| {
        let said = slot(stat.ino(), birth);
        let check =
            if said.is_empty() { String::new() } else { Digest::of_body(said.as_bytes()).to_string() };
        block(format!("{said} {}", check.get(..32).unwrap_or_default()).trim())
    });
    fs::write(lock, block("clean") + &block("pid 7 -") + &slots.concat() + "more\n").unwrap();
}

fn slot(counter: u64, file: (u64, u128), state: &str, chain: &Chain) -> String {
    let ((inode, birth), Chain { id, seq, hash, .. }) = (file, chain);
    let witnessed = "0".repeat(64);
    format!(
        "noted/1 {counter} {inode} {birth} - {state} {id} 1 100 {seq} {hash} {TIME} {TIME} 0 - {witnessed}"
    )
}

#[test]
fn the_noted_head_is_a_witness() {
    if !is_there("the_noted_head_is_a_witness") {
        return;
    }
    let chain = started(true).close();
    let longer = chain.clone().event("more");
    let other = Chain { hash: Digest::of_body(b"x"), ..chain.clone() };
    let stranger = Chain { id: Chain::bare(1).id, ..chain.clone() };
    let nothing = Chain { seq: 0, ..longer.clone() };
    let none = |_: u64, _: u128| String::new();
    let noted = |chain: &Chain, state: &'static str, counter: u64| {
        let chain = chain.clone();
        move |inode: u64, birth: u128| slot(counter, (inode, birth), state, &chain)
    };
    let on_disk = OnDisk::of(&Log::of(&[&chain]));
    let lock = on_disk.lock(0);
    let unknown = "its noted head";
    for state in ["open", "closed", "left"] {
        write_slots(&lock, [&noted(&chain, state, 7), &none]);
        on_disk.is(INTACT, &[]);
        write_slots(&lock, [&none, &noted(&longer, state, 7)]);
        on_disk
            .is(DAMAGED, &["ahead: chain 000, record 6: the chain ends with record 5, but the noted head"]);
    }
    write_slots(&lock, [&noted(&other, "open", 7), &none]);
    on_disk.is(DAMAGED, &["head_mismatch: chain 000, record 5: the hash does not match: the noted head"]);
    write_slots(&lock, [&noted(&stranger, "open", 7), &none]);
    on_disk.is(
        DAMAGED,
        &["missing_chain: chain 000: the noted head in its lock file names a chain with another id"],
    );
    // The slot with the higher counter holds.
    write_slots(&lock, [&noted(&chain, "open", 10), &noted(&longer, "open", 9)]);
    on_disk.is(INTACT, &[]);
    write_slots(&lock, [&noted(&chain, "open", 9), &noted(&longer, "open", 10)]);
    on_disk.is(DAMAGED, &[]);
    // An invalid slot is ignored: one of no record, of another version, with a wrong check, of another state.
    write_slots(&lock, [&noted(&nothing, "open", 7), &none]);
    on_disk.is(INTACT, &[]);
    let with = |from: &'static str, to: &'static str| {
        let slot = noted(&longer, "open", 7);
        move |inode: u64, birth: u128| slot(inode, birth).replace(from, to)
    };
    for (from, to) in [("noted/1", "noted/2"), (" open ", " shut "), (" 0 - ", " 0 -  ")] {
        write_slots(&lock, [&with(from, to), &none]);
        on_disk.is(INTACT, &[]);
    }
    write_slots(&lock, [&noted(&longer, "open", 7), &none]);
    let torn = fs::read_to_string(&lock).unwrap().replace("noted/1 7", "noted/1 8");
    fs::write(&lock, torn).unwrap();
    on_disk.is(INTACT, &[]);
    assert!(!on_disk.ask(&[]).1.contains(unknown));
    // A slot of another file: a copy, or a backup that was restored.
    for (other_inode, other_birth) in [(1, 0), (0, 1)] {
        let slot = noted(&longer, "open", 7);
        let moved = move |inode: u64, birth: u128| slot(inode + other_inode, birth + other_birth);
        write_slots(&lock, [&moved, &none]);
        on_disk.is(INTACT, &["chain 000: its noted head, since its lock file is a copy, or was restored"]);
    }
    // The slot that names this file holds.
    let moved = noted(&chain, "open", 9);
    write_slots(&lock, [&move |inode, birth| moved(inode + 1, birth), &noted(&longer, "open", 7)]);
    on_disk.is(DAMAGED, &[]);
    // A slot of a chain that is missing.
    fs::remove_file(&lock).unwrap();
    write_slots(&on_disk.lock(1), [&noted(&chain, "closed", 7), &none]);
    on_disk
        .is(DAMAGED, &["missing_chain: chain 001, record 5: the noted head in its lock file names record 5"]);
    // A copy without `control`.
    fs::remove_dir_all(on_disk.dir.path().join("control")).unwrap();
    on_disk.is(INTACT, &["the noted heads of the chains, since there is no `control` here"]);
}

#[test]
fn a_torn_end_below_the_noted_head_is_damage() {
    if !is_there("a_torn_end_below_the_noted_head_is_damage") {
        return;
    }
    // Destroyed as by a copy through a tool that converts line ends.
    let chain = started(true).event_marked("last", None);
    let mut log = Log::of(&[&chain]);
    log.edit(0, 1, |lines| {
        for line in &mut lines[1..] {
            line.insert(line.len() - 1, b'\r');
        }
    });
    let on_disk = OnDisk::of(&log);
    on_disk.is(UNCLEAN, &["torn_tail: chain 000, segment 1, line 2"]);
    let noted = |inode, birth| slot(1, (inode, birth), "open", &chain);
    write_slots(&on_disk.lock(0), [&noted, &|_, _| String::new()]);
    on_disk.is(DAMAGED, &["malformed: chain 000, segment 1, line 5"]);
}
