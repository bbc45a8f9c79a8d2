//! The output of the program, and its arguments.

use super::{
    Chain, DAMAGED, INTACT, Log, NO_VERDICT, OnDisk, TIME, ask, fs, is_there, name, open, record, started,
};

#[test]
fn an_unconfirmed_record_is_read_strictly_and_reported() {
    if !is_there("an_unconfirmed_record_is_read_strictly_and_reported") {
        return;
    }
    let with = |object: &str| OnDisk::of(&Log::of(&[&record(started(true), "unconfirmed", object).close()]));
    with(r#""reason":"timeout","records":[[3,3],[1,2]]"#).is(
        INTACT,
        &[
            "    unsure 3 records: a caller got an error, so the actions may have been refused\n",
            "unconfirmed: chain 000: record 5: these records are durable although a caller was told that they are not confirmed \
             (timeout): 3, 1 to 2",
        ],
    );
    let id = "0123456789abcdef".repeat(2);
    let moved = format!(r#""reason":"stalled","records":[[17,19]],"chain":"003","id":"{id}""#);
    with(&moved).is(INTACT, &[&format!("(stalled): 17 to 19 of chain 003 with id {id}")]);
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
        with(object)
            .is(DAMAGED, &["the line is not a record: the object named like its kind cannot be read"]);
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
            code == NO_VERDICT && printed.contains("line 2 of ") && printed.contains("is not a head"),
            "{bad}: {printed}"
        );
        let (code, printed) = on_disk.ask(&[bad]);
        assert!(code == NO_VERDICT && printed.contains("is not a head"), "{bad}: {printed}");
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
    // A directory with the name of a segment.
    fs::create_dir(on_disk.dir.path().join(name(0, 2))).unwrap();
    assert_eq!(on_disk.ask(&[]).0, NO_VERDICT);
}

#[test]
fn a_report_shows_what_the_log_contains() {
    if !is_there("a_report_shows_what_the_log_contains") {
        return;
    }
    // It once printed only `intact` for a log that had lost nearly all of its events.
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
            "    recov. 1 recovery record\n",
            "gap: chain 000: record 5: 8000 critical and 183949 routine events were not recorded (queue_full)",
            "unclosed: chain 000: the run before record 8 ended without `close`",
            "recovery: chain 000: record 9: the chain was continued after a recovery (unclosed)",
            r"foreign: 'what\nis this' is not part of the log",
            "\nnot checked\n  - chain 000: whether its end was cut off",
        ],
    );
}

#[test]
fn at_most_twenty_findings_of_a_kind_are_printed() {
    if !is_there("at_most_twenty_findings_of_a_kind_are_printed") {
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
        printed.contains(malformed) && printed.contains("the line is not a record: it does not begin"),
        "{printed}"
    );
    // Far beyond what is kept.
    log.edit(0, 1, |lines| drop(lines.splice(3..3, std::iter::repeat_n(b"x\n".to_vec(), 5_000))));
    OnDisk::of(&log).is(DAMAGED, &["\nfindings (5,026)\n", "  - and 4,981 more of the kind malformed\n"]);
}

/// Returns a log that is large enough for several processes.
#[test]
fn a_large_log_is_checked_in_chunks() {
    if !is_there("a_large_log_is_checked_in_chunks") {
        return;
    }
    let action = "x".repeat(2_000);
    let chain = (0..4_000).fold(started(true), |chain, _| chain.event(&action)).close();
    let mut log = Log::of(&[&chain]);
    assert!(log.file(0, 1).len() > 8 * 1024 * 1024);
    OnDisk::of(&log).is(INTACT, &["  records  4,005 (4,002 events)\n", &chain.head().to_string()]);
    log.edit(0, 1, |lines| lines[2_500][1_000] ^= 1);
    log.edit(0, 1, |lines| drop(lines.remove(1_500)));
    log.edit(0, 1, |lines| lines[700] = [vec![b'y'; 3 * 1024 * 1024], b"\n".to_vec()].concat());
    let too_long = "the line is not a record: it is longer than 60 KiB (3145729 bytes)";
    OnDisk::of(&log).is(
        DAMAGED,
        &[
            "  records  4,002 (3,999 events)\n",
            "\nfindings (3)\n",
            "malformed: chain 000, segment 1, line 701 (byte ",
            too_long,
            "line 1501",
            "1 record is missing before this line",
            "edited: chain 000, segment 1, line 2500 ",
        ],
    );
    let number = crate::segment_name::ChainNumber::FIRST;
    assert!(OnDisk::of(&log).ask(&[]).1.contains(&format!("chain    {number}: 4,002 records")));
}
