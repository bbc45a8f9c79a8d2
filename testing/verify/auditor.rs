//! What docs/verify.py does beyond agreeing with the library: rules for what the next version writes, locks, what it
//! prints, and how it is called. Lines are written out here, so that they stay what they are whatever the writer becomes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use super::{
    log::{Chain, Log, name},
    python::is_there,
};
use crate::{
    chain::Digest,
    segment_name::ChainNumber,
    storage::{Access, Dir, Disk, DiskOptions, LockKind, Storage as _},
};

const TIME: &str = "2026-11-21T08:00:00.000000005Z";
const INTACT: i32 = 0;
const DAMAGED: i32 = 1;
const NO_VERDICT: i32 = 2;
const UNCLEAN: i32 = 3;

/// A log on disk.
struct OnDisk {
    dir: tempfile::TempDir,
}

impl OnDisk {
    fn of(log: &Log) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &log.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        fs::create_dir(dir.path().join("control")).unwrap();
        Self { dir }
    }

    fn lock(&self, chain: u16) -> PathBuf {
        self.dir.path().join("control").join(format!("chain-{chain:03}.lock"))
    }

    /// The exit code, and what is printed.
    fn ask(&self, arguments: &[&str]) -> (i32, String) {
        let mut all = vec![self.dir.path().to_str().unwrap()];
        all.extend(arguments);
        ask(&all)
    }

    #[track_caller]
    fn is(&self, code: i32, said: &[&str]) {
        let (found, printed) = self.ask(&[]);
        assert_eq!(found, code, "{printed}");
        for words in said {
            assert!(printed.contains(words), "{words}: {printed}");
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py")
}

fn ask(arguments: &[&str]) -> (i32, String) {
    let output = Command::new("python3").arg(script()).args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// The next segment of a chain, with this list in `after`.
fn segment(chain: Chain, after: &str) -> Chain {
    let chain = Chain { segment: chain.segment + 1, ..chain };
    let (id, number, segment, durable) = (chain.id, chain.number, chain.segment, chain.seq);
    let object = format!(
        r#""format":1,"id":"{id}","chain":"{number}","segment":{segment},"after":[{after}],"chains":{{}}"#
    );
    let line = format!(r#","ts":"{TIME}","kind":"segment","segment":{{{object}}}"#);
    chain.put(line.as_bytes(), Some(durable))
}

/// A record with an object of its own.
fn record(chain: Chain, kind: &str, object: &str) -> Chain {
    let (line, durable) = (format!(r#","ts":"{TIME}","kind":"{kind}","{kind}":{{{object}}}"#), chain.seq);
    chain.put(line.as_bytes(), Some(durable))
}

/// An `open` of this version, or of the one before.
fn open(chain: Chain, is_new: bool) -> Chain {
    let machine = if is_new { r#""machine":"0123456789abcdef","# } else { "" };
    record(chain, "open", &format!(r#""writer":"0000000000000007","pid":7,{machine}"chains":{{}}"#))
}

fn started(is_new: bool) -> Chain {
    open(segment(Chain::bare(0), ""), is_new).events(2)
}

/// What counts of the newest segment of a chain.
fn counts(chain: &Chain) -> String {
    format!(r#"{{"segment":{},"bytes":{}}}"#, chain.segment, chain.segments[&chain.segment].len())
}

/// A log whose files 2 to 4 were given up, which `rows` names.
fn given_up(rows: &str) -> Log {
    let first = started(true);
    let after = format!("{},{rows}", counts(&first));
    Log::of(&[&open(segment(Chain { segment: 4, ..first }, &after), true).close()])
}

const ROW: &str = r#"{"segment":4,"bytes":0,"from":2}"#;

#[test]
fn a_file_that_was_given_up_holds_no_more_than_a_first_write() {
    if !is_there("a_file_that_was_given_up_holds_no_more_than_a_first_write") {
        return;
    }
    let line = segment(Chain { segment: 2, ..Chain::bare(0) }, "").segments[&3].clone();
    let two = [&line[..], b"{}\n"].concat();
    let (long, longest) = (vec![b'x'; 61_441], vec![b'x'; 61_440]);
    for (bytes, is_destroyed) in [
        (&b""[..], false),
        (b"half a li", false),
        (b"one bad line\n", false),
        (&line[..], false),
        (&two[..], true),
        (b"two\nlines\n", true),
        (b"two\r\nlines", true),
        (b"two\nlines\0", false),
        (b"two\nlines\x7f", false),
        (&longest[..], false),
        (&long[..], true),
    ] {
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        let mut log = given_up(ROW);
        log.files.insert(name(0, 3), bytes.to_vec());
        let (code, printed) = OnDisk::of(&log).ask(&[]);
        assert_eq!(code, if is_destroyed { DAMAGED } else { INTACT }, "{what}: {printed}");
        assert_eq!(printed.contains("destroyed: chain 000, segment 3"), is_destroyed, "{what}: {printed}");
        // The version before wrote more at once, and named each file by itself.
        let each = [2, 3, 4].map(|number| format!(r#"{{"segment":{number},"bytes":0}}"#)).join(",");
        let mut old = given_up(&each);
        old.files.insert(name(0, 3), bytes.to_vec());
        OnDisk::of(&old).is(INTACT, &[]);
    }
    // One that is not in the row.
    let mut log = given_up(r#"{"segment":3,"bytes":0,"from":3}"#);
    log.files.insert(name(0, 3), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &["destroyed"]);
    let mut log = given_up(r#"{"segment":4,"bytes":0,"from":4},{"segment":2,"bytes":0,"from":2}"#);
    log.files.insert(name(0, 3), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &["malformed: chain 000, segment 3"]);
}

/// What destroyed the first file of a chain was read out of the verdict where the chain began anew behind it.
#[test]
fn the_first_file_of_a_chain_may_have_been_given_up() {
    if !is_there("the_first_file_of_a_chain_may_have_been_given_up") {
        return;
    }
    let chain =
        open(segment(Chain { segment: 1, ..Chain::bare(0) }, r#"{"segment":1,"bytes":0,"from":1}"#), true)
            .close();
    let mut log = Log::of(&[&chain]);
    OnDisk::of(&log).is(INTACT, &[]);
    log.files.insert(name(0, 1), b"half".to_vec());
    OnDisk::of(&log).is(INTACT, &["1 void" /* not counted twice */, "void"].map(|_| "void"));
    log.files.insert(name(0, 1), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &["destroyed: chain 000, segment 1"]);
}

#[test]
fn a_row_of_files_is_read_as_strictly_as_any_number() {
    if !is_there("a_row_of_files_is_read_as_strictly_as_any_number") {
        return;
    }
    let bad = [
        r#"{"segment":4,"bytes":1,"from":2}"#,
        r#"{"segment":4,"bytes":0,"from":5}"#,
        r#"{"segment":4,"from":4}"#,
    ];
    for row in bad {
        OnDisk::of(&given_up(row)).is(DAMAGED, &["malformed: chain 000, segment 5, line 1"]);
    }
    for row in [
        ROW,
        r#"{"segment":4,"bytes":0,"from":4}"#,
        r#"{"segment":4,"bytes":0,"from":-1}"#,
        r#"{"segment":4,"bytes":0,"from":4294967296}"#,
        r#"{"segment":4,"bytes":0,"from":1.5}"#,
        r#"{"segment":4,"bytes":0,"from":"yesterday","to":7}"#,
        r#"{"segment":4,"bytes":0,"damage":true}"#,
        r#"{"segment":4294967295,"bytes":0,"from":0}"#,
    ] {
        OnDisk::of(&given_up(row)).is(INTACT, &[]);
    }
    // Times, and a file that is gone although it counts.
    let times = format!(r#"{{"segment":4,"bytes":9,"from":"{TIME}","to":"{TIME}","damage":true}}"#);
    OnDisk::of(&given_up(&times))
        .is(DAMAGED, &["missing_segment: chain 000, segment 4: the file is gone, and 9 bytes"]);
    // The newest claim wins, also over a row and of one.
    let chain = started(true);
    let rows = segment(Chain { segment: 4, ..chain.clone() }, &format!("{},{times}", counts(&chain)));
    let after = format!("{ROW},{}", counts(&rows));
    OnDisk::of(&Log::of(&[&segment(rows, &after).close()])).is(INTACT, &[]);
}

#[test]
fn a_newest_file_without_a_good_line_is_judged_by_its_looks() {
    if !is_there("a_newest_file_without_a_good_line_is_judged_by_its_looks") {
        return;
    }
    for (is_new, closed, bytes, code, said) in [
        (true, true, &b"two\nlines\n"[..], DAMAGED, "malformed: chain 000, segment 2, line 1"),
        (true, false, b"two\nlines\n", DAMAGED, "malformed"),
        (false, true, b"two\nlines\n", UNCLEAN, "torn_tail: chain 000, segment 2"),
        (true, true, b"two\nlines\0", UNCLEAN, "torn_tail: chain 000, segment 2"),
        (true, true, b"one\n", UNCLEAN, "its first write was torn, or its content was destroyed"),
        (true, true, b"", UNCLEAN, "its first write was torn, or its content was destroyed"),
        (false, true, b"", UNCLEAN, "segment 2 is empty: its first write was torn"),
        (true, false, b"", UNCLEAN, "not_closed"),
    ] {
        let chain = started(is_new);
        let mut log = Log::of(&[&if closed { chain.close() } else { chain }]);
        log.files.insert(name(0, 2), bytes.to_vec());
        OnDisk::of(&log).is(code, &[said]);
    }
    // A chain without any `open` is of this version.
    let mut log = Log::of(&[&segment(Chain::bare(0), "").close()]);
    log.files.insert(name(0, 2), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &[]);
    // What it holds is damage whatever it looks like, if somebody had seen it.
    let chain = started(true).close();
    let mut log = Log::of(&[&chain]);
    log.files.insert(name(0, 2), b"half".to_vec());
    let kept = chain.clone().event("seen").head().to_string();
    let (code, printed) = OnDisk::of(&log).ask(&[&kept]);
    assert!(code == DAMAGED && printed.contains("malformed: chain 000, segment 2"), "{printed}");
    // A bad first line before good ones is a bad line like any other.
    let mut log = Log::of(&[&segment(started(true), "").close()]);
    log.edit(0, 2, |lines| lines[0][20] ^= 1);
    log.edit(0, 2, |lines| drop(lines.remove(1)));
    OnDisk::of(&log).is(UNCLEAN, &["torn_tail: chain 000, segment 2, line 1"]);
}

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
        // Who may not open the lock asks the system.
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
        // Nor does the checker keep anybody out.
        assert!(lock.try_lock(LockKind::Exclusive).unwrap());
    }
    // A lock that cannot be looked at.
    let on_disk = OnDisk::of(&Log::of(&[&started(true)]));
    std::os::unix::fs::symlink("chain-000.lock", on_disk.lock(0)).unwrap();
    on_disk.is(
        UNCLEAN,
        &["it is unclean, or still being written", "chain 000: whether a writer holds it, since its lock"],
    );
}

/// A lock file whose two slots are these words, each for the inode and the birth of the file itself.
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
            .is(DAMAGED, &["ahead: chain 000, record 6: the chain ends with record 5, and the noted head"]);
    }
    write_slots(&lock, [&noted(&other, "open", 7), &none]);
    on_disk.is(DAMAGED, &["head_mismatch: chain 000, record 5: the hash does not match: the noted head"]);
    write_slots(&lock, [&noted(&stranger, "open", 7), &none]);
    on_disk.is(
        DAMAGED,
        &["missing_chain: chain 000: the noted head in its lock file names a chain with another id"],
    );
    // The higher counter holds.
    write_slots(&lock, [&noted(&chain, "open", 10), &noted(&longer, "open", 9)]);
    on_disk.is(INTACT, &[]);
    write_slots(&lock, [&noted(&chain, "open", 9), &noted(&longer, "open", 10)]);
    on_disk.is(DAMAGED, &[]);
    // What is no slot says nothing: of no record, of another version, with another check, of another state.
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
    // Of another file: a copy, or a backup that was restored.
    for (other_inode, other_birth) in [(1, 0), (0, 1)] {
        let slot = noted(&longer, "open", 7);
        let moved = move |inode: u64, birth: u128| slot(inode + other_inode, birth + other_birth);
        write_slots(&lock, [&moved, &none]);
        on_disk.is(INTACT, &["chain 000: its noted head, since its lock file is a copy, or was restored"]);
    }
    // The one that is of this file holds.
    let moved = noted(&chain, "open", 9);
    write_slots(&lock, [&move |inode, birth| moved(inode + 1, birth), &noted(&longer, "open", 7)]);
    on_disk.is(DAMAGED, &[]);
    // Of a chain that is gone.
    fs::remove_file(&lock).unwrap();
    write_slots(&on_disk.lock(1), [&noted(&chain, "closed", 7), &none]);
    on_disk
        .is(DAMAGED, &["missing_chain: chain 001, record 5: the noted head in its lock file names record 5"]);
    // A copy without `control`.
    fs::remove_dir_all(on_disk.dir.path().join("control")).unwrap();
    on_disk.is(INTACT, &["the noted heads of the chains, since there is no `control` here"]);
}

#[test]
fn a_noted_head_makes_damage_of_a_torn_end() {
    if !is_there("a_noted_head_makes_damage_of_a_torn_end") {
        return;
    }
    // Destroyed as a copy through a tool that converts line ends does it.
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
    on_disk.is(
        DAMAGED,
        &["malformed: chain 000, segment 1, line 5", "malformed (4"]
            .map(|_| "malformed: chain 000, segment 1, line 5"),
    );
}

#[test]
fn an_unconfirmed_record_is_read_strictly_and_reported() {
    if !is_there("an_unconfirmed_record_is_read_strictly_and_reported") {
        return;
    }
    let with = |object: &str| OnDisk::of(&Log::of(&[&record(started(true), "unconfirmed", object).close()]));
    with(r#""reason":"timeout","records":[[3,3],[1,2]]"#).is(
        INTACT,
        &[
            "    unsure 3 records: somebody was told, not confirmed\n",
            "unconfirmed: chain 000: record 5: whoever waited for records 3, 1 to 2 was told that they are not confirmed \
             (timeout)",
        ],
    );
    let id = "0123456789abcdef".repeat(2);
    let moved = format!(r#""reason":"stalled","records":[[17,19]],"chain":"003","id":"{id}""#);
    with(&moved).is(INTACT, &[&format!("records 17 to 19 of chain 003 with id {id} was told")]);
    with(r#""reason":"x","records":[],"more":1"#).is(INTACT, &[]);
    for object in [
        r#""records":[[3,3]]"#,
        r#""reason":7,"records":[[3,3]]"#,
        r#""reason":"timeout""#,
        r#""reason":"timeout","records":{}"#,
        r#""reason":"timeout","records":[3]"#,
        r#""reason":"timeout","records":[[3]]"#,
        r#""reason":"timeout","records":[[3,3,3]]"#,
        r#""reason":"timeout","records":[[0,3]]"#,
        r#""reason":"timeout","records":[[3,2]]"#,
        r#""reason":"timeout","records":[[3,3.0]]"#,
        r#""reason":"timeout","records":[[3,3]],"chain":"3","id":"00000000000000000000000000000000""#,
        r#""reason":"timeout","records":[[3,3]],"chain":"003""#,
        r#""reason":"timeout","records":[[3,3]],"chain":"003","id":"0""#,
    ] {
        with(object).is(DAMAGED, &["the line is no record: the object named like its kind cannot be read"]);
    }
}

#[test]
fn heads_are_given_as_arguments_and_in_files() {
    if !is_there("heads_are_given_as_arguments_and_in_files") {
        return;
    }
    let chain = started(true).close();
    let on_disk = OnDisk::of(&Log::of(&[&chain]));
    let file = on_disk.dir.path().join("control/heads");
    let kept = |lines: &str| {
        fs::write(&file, lines).unwrap();
        on_disk.ask(&["--heads", file.to_str().unwrap()])
    };
    let (good, beyond) = (chain.head_at(3).to_string(), chain.clone().event("x").head().to_string());
    let (code, printed) = kept(&format!("# kept by cron\n\n  {good}  # of Monday\n\t{}\n", chain.head_at(2)));
    assert!(code == INTACT && printed.contains("whether records after 3 were cut off"), "{printed}");
    assert_eq!(kept(&format!("{good}\n{beyond}")).0, DAMAGED);
    assert_eq!(on_disk.ask(&[&good, &beyond]).0, DAMAGED);
    assert_eq!(on_disk.ask(&[&good]).0, INTACT);
    for bad in [
        "000/3",
        "0/3:00",
        "000/0:",
        "intact",
        &good.to_uppercase(),
        &good.replace("/3:", "/03:"),
        &(good.clone() + "0"),
    ] {
        let (code, printed) = kept(&format!("{good}\n{bad}"));
        assert!(
            code == NO_VERDICT && printed.contains("line 2 of ") && printed.contains("is no head"),
            "{bad}: {printed}"
        );
        let (code, printed) = on_disk.ask(&[bad]);
        assert!(code == NO_VERDICT && printed.contains("is no head"), "{bad}: {printed}");
    }
    assert_eq!(on_disk.ask(&["--heads", "/nowhere"]).0, NO_VERDICT);
    assert_eq!(on_disk.ask(&["--head-of-all"]).0, NO_VERDICT);
    assert_eq!(ask(&[]).0, NO_VERDICT);
    assert_eq!(ask(&["/nowhere"]).0, NO_VERDICT);
    assert_eq!(ask(&[tempfile::tempdir().unwrap().path().to_str().unwrap()]).0, NO_VERDICT);
    let (code, printed) = ask(&["--help"]);
    assert!(
        code == 0 && printed.contains("Exit code: 0 intact, 1 damaged, 2 could not check, 3 unclean"),
        "{printed}"
    );
    // A directory that is named like a segment.
    fs::create_dir(on_disk.dir.path().join(name(0, 2))).unwrap();
    assert_eq!(on_disk.ask(&[]).0, NO_VERDICT);
}

#[test]
fn a_report_says_what_stands_in_the_log() {
    if !is_there("a_report_says_what_stands_in_the_log") {
        return;
    }
    // It once said `intact` and no more of a log that had lost nearly all of its events.
    let first = started(true).gap(8_000, 183_949).gap(0, 1);
    let chain = record(first, "gap", r#""reason":"panic","critical":1,"routine":0"#);
    let chain = open(chain, true);
    let chain = record(chain, "recovery", r#""cause":"unclosed","segment":1,"bytes":1,"void":0"#).close();
    let on_disk = OnDisk::of(&Log::of(&[&chain, &Chain::new(1).events(1).close()]));
    fs::write(on_disk.dir.path().join("what\nis this"), b"").unwrap();
    on_disk.is(
        INTACT,
        &[
            "INTACT: every durable record is there and unaltered\n",
            "  records  14 (3 events)\n",
            &format!("  times    {TIME} to 2026-11-21T08:0"),
            "  lost     8,001 critical and 183,950 routine events, by its own count (panic 1, queue_full 191,950)\n",
            "  chain    000: 10 records in 1 segment, closed\n",
            &format!("    head   {}\n", chain.head()),
            "    runs   2, 1 of them ended without close before another\n",
            "    mended 1 recovery record\n",
            "gap: chain 000: record 5: 8000 critical and 183949 routine events were not recorded (queue_full)",
            "unclosed: chain 000: the run before record 8 ended without `close`",
            "recovery: chain 000: record 9: the chain went on after a recovery (unclosed)",
            r"foreign: 'what\nis this' is no part of the log",
            "\nnot checked\n  - chain 000: whether its end was cut off",
        ],
    );
}

#[test]
fn of_many_findings_of_a_kind_twenty_are_printed() {
    if !is_there("of_many_findings_of_a_kind_twenty_are_printed") {
        return;
    }
    let mut log = Log::of(&[&started(true).events(40).close()]);
    log.edit(0, 1, |lines| {
        for line in &mut lines[3..28] {
            line[40] ^= 1;
        }
        lines.insert(3, b"no record\n".to_vec());
    });
    let on_disk = OnDisk::of(&log);
    let (code, printed) = on_disk.ask(&[]);
    assert_eq!(code, DAMAGED);
    assert!(
        printed.starts_with("DAMAGED: records that had been durable are altered or missing\n"),
        "{printed}"
    );
    let edited = printed.matches("- edited: chain 000, segment 1, line ").count();
    assert_eq!((edited, printed.matches("the hash does not match").count()), (20, 20), "{printed}");
    assert!(
        printed.contains("\nfindings (26)\n") && printed.contains("  - and 5 more of the kind edited\n"),
        "{printed}"
    );
    let malformed = "malformed: chain 000, segment 1, line 4 (byte ";
    assert!(
        printed.contains(malformed) && printed.contains("the line is no record: it does not begin"),
        "{printed}"
    );
    // Far beyond what is kept.
    log.edit(0, 1, |lines| drop(lines.splice(3..3, std::iter::repeat_n(b"x\n".to_vec(), 5_000))));
    OnDisk::of(&log).is(DAMAGED, &["\nfindings (5,026)\n", "  - and 4,981 more of the kind malformed\n"]);
}

/// A log that is large enough for several processes.
#[test]
fn a_large_log_is_checked_in_pieces() {
    if !is_there("a_large_log_is_checked_in_pieces") {
        return;
    }
    let long = "x".repeat(2_000);
    let chain = (0..4_000).fold(started(true), |chain, _| chain.event(&long)).close();
    let mut log = Log::of(&[&chain]);
    assert!(log.file(0, 1).len() > 8 * 1024 * 1024);
    OnDisk::of(&log).is(INTACT, &["  records  4,005 (4,002 events)\n", &chain.head().to_string()]);
    log.edit(0, 1, |lines| lines[2_500][1_000] ^= 1);
    log.edit(0, 1, |lines| drop(lines.remove(1_500)));
    log.edit(0, 1, |lines| lines[700] = [vec![b'y'; 3 * 1024 * 1024], b"\n".to_vec()].concat());
    let long = "the line is no record: it is longer than 60 KiB (3145729 bytes)";
    OnDisk::of(&log).is(
        DAMAGED,
        &[
            "  records  4,002 (3,999 events)\n",
            "\nfindings (3)\n",
            &format!("malformed: chain 000, segment 1, line 701 (byte "),
            long,
            "line 1501",
            "1 record is missing before this line",
            "edited: chain 000, segment 1, line 2500 ",
        ],
    );
    let number = ChainNumber::FIRST;
    assert!(OnDisk::of(&log).ask(&[]).1.contains(&format!("chain    {number}: 4,002 records")));
}
