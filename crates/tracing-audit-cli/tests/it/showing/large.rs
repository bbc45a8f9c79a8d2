//! Nothing is read through that need not be.

use std::{fs, process::Command};

use crate::place::{Place, skip};

const EVENTS: &str = "TRACING_AUDIT_TEST_EVENTS";

/// How many bytes a command reads, with all that loading it takes.
fn read_by(place: &Place, line: &str) -> u64 {
    // What a child read counts for who waited for it.
    let script = "\"$@\" > printed || exit 9; while read name value; do [ $name = rchar: ] && echo $value; done < /proc/$$/io; true";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_tracing-audit")]).args(line.split(' '));
    let output = command.current_dir(place.path("")).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn the_end_and_one_record_of_a_large_log_are_found_without_reading_it_through() {
    let name = "the_end_and_one_record_of_a_large_log_are_found_without_reading_it_through";
    if fs::read_to_string("/proc/self/io").is_err() {
        return skip(name, "the system does not tell what a process reads");
    }
    let events = std::env::var(EVENTS).ok().and_then(|text| text.parse().ok()).unwrap_or(60_000_u64);
    let place = Place::new().0;
    assert_eq!(place.run(&format!("demo large --events {events}")).0, 0);
    let bytes: u64 =
        tracing_audit::segments(place.path("large")).unwrap().iter().map(tracing_audit::Segment::bytes).sum();
    let bound = 6 << 20;
    assert!(bytes > 3 * bound, "{bytes}");
    let middle = events / 3;
    // What one chain says of another may stand anywhere: only a log of one chain is not read through.
    assert!(read_by(&place, "show large 001/5") > bytes / 2);
    for entry in fs::read_dir(place.path("large")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("audit-001-") {
            fs::remove_file(path).unwrap();
        }
    }
    for line in ["tail large -n 10".to_owned(), format!("show large 000/{middle}")] {
        let read = read_by(&place, &line);
        assert!(read < bound, "{line} read {read} of {bytes}");
    }
    // The measure is one: what reads all of it is seen to.
    assert!(read_by(&place, "query large --kind open --count") > bytes / 2);
}
