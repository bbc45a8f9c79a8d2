//! Files that were given up, were destroyed, or never had a good line.

use super::{
    Chain, DAMAGED, INTACT, Log, OnDisk, TIME, UNCLEAN, counts, is_there, name, open, segment, started,
};

/// Returns a log whose files 2 to 4 were given up, which `rows` names.
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
    let garbage = [&line[..], b"\0\0"].concat();
    let (too_much, most) = (vec![b'x'; 61_441], vec![b'x'; 61_440]);
    for (bytes, is_destroyed) in [
        (&b""[..], false),
        (b"half a li", false),
        (b"one bad line\n", false),
        (&line[..], false),
        (&two[..], true),
        (&garbage[..], true),
        (b"two\nlines\n", true),
        (b"two\r\nlines", true),
        (b"two\nlines\0", false),
        (b"two\nlines\x7f", false),
        (b"two\nlines\x80", false),
        (b"two\nlines\xc3", false),
        (b"two\nlines\xc3\xa9", true),
        (&most[..], false),
        (&too_much[..], true),
    ] {
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        let mut log = given_up(ROW);
        log.files.insert(name(0, 3), bytes.to_vec());
        let (code, printed) = OnDisk::of(&log).ask(&[]);
        assert_eq!(code, if is_destroyed { DAMAGED } else { INTACT }, "{what}: {printed}");
        assert_eq!(printed.contains("destroyed: chain 000, segment 3"), is_destroyed, "{what}: {printed}");
        // The previous version wrote more at once, and named each file separately.
        let each = [2, 3, 4].map(|number| format!(r#"{{"segment":{number},"bytes":0}}"#)).join(",");
        let mut old = given_up(&each);
        old.files.insert(name(0, 3), bytes.to_vec());
        OnDisk::of(&old).is(INTACT, &[]);
    }
    // A file that is not in the row.
    let mut log = given_up(r#"{"segment":3,"bytes":0,"from":3}"#);
    log.files.insert(name(0, 3), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &["destroyed"]);
    let mut log = given_up(r#"{"segment":4,"bytes":0,"from":4},{"segment":2,"bytes":0,"from":2}"#);
    log.files.insert(name(0, 3), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &["malformed: chain 000, segment 3"]);
}

/// If a chain began anew behind its first file, the destruction of that file once did not affect the verdict.
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
    OnDisk::of(&log).is(INTACT, &["void: chain 000: 4 bytes of segment 1 are void"]);
    log.files.insert(name(0, 1), b"two\nlines\n".to_vec());
    OnDisk::of(&log).is(DAMAGED, &["destroyed: chain 000, segment 1"]);
}

#[test]
fn a_row_of_files_is_parsed_as_strictly_as_any_number() {
    if !is_there("a_row_of_files_is_parsed_as_strictly_as_any_number") {
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
    // Times, and a file that is missing although it counts.
    let times = format!(r#"{{"segment":4,"bytes":9,"from":"{TIME}","to":"{TIME}","damage":true}}"#);
    OnDisk::of(&given_up(&times))
        .is(DAMAGED, &["missing_segment: chain 000, segment 4: the file is missing, but 9 bytes"]);
    // The newest claim wins, even over one about a row.
    let chain = started(true);
    let rows = segment(Chain { segment: 4, ..chain.clone() }, &format!("{},{times}", counts(&chain)));
    let after = format!("{ROW},{}", counts(&rows));
    OnDisk::of(&Log::of(&[&segment(rows, &after).close()])).is(INTACT, &[]);
    // Also about a file that exists.
    let chain = started(true);
    let older = format!("{},{}", counts(&chain), r#"{"segment":2,"bytes":4}"#);
    let rows = segment(Chain { segment: 2, ..chain }, &older);
    let after = format!(r#"{{"segment":2,"bytes":0,"from":2}},{}"#, counts(&rows));
    let mut log = Log::of(&[&segment(rows, &after).close()]);
    log.files.insert(name(0, 2), b"half".to_vec());
    OnDisk::of(&log).is(INTACT, &["void: chain 000: 4 bytes of segment 2 are void"]);
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
    // What it holds is damage whatever it looks like, if a witness had seen it.
    let chain = started(true).close();
    let mut log = Log::of(&[&chain]);
    log.files.insert(name(0, 2), b"half".to_vec());
    let kept = chain.clone().event("seen").head().to_string();
    let (code, printed) = OnDisk::of(&log).ask(&[&kept]);
    assert!(code == DAMAGED && printed.contains("malformed: chain 000, segment 2"), "{printed}");
    // A bad first line before good ones is judged like any bad line.
    let mut log = Log::of(&[&segment(started(true), "").close()]);
    log.edit(0, 2, |lines| lines[0][20] ^= 1);
    log.edit(0, 2, |lines| drop(lines.remove(1)));
    OnDisk::of(&log).is(UNCLEAN, &["torn_tail: chain 000, segment 2, line 1"]);
}
