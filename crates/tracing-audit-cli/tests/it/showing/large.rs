//! Commands do not read a whole log without need.

use std::{fs, process::Command};

use crate::place::{Place, skip};

const EVENTS: &str = "TRACING_AUDIT_TEST_EVENTS";

/// Returns the number of bytes that a command reads, including its own program file and libraries.
fn read_by(place: &Place, line: &str) -> u64 {
    // `rchar` of a process includes the children that it has waited for, see proc_pid_io(5).
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
    // With several chains the whole log is read, since one may name records of another anywhere. So keep only one chain.
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
    // The measurement works: a command that reads everything is seen to do so.
    assert!(read_by(&place, "query large --kind open --count") > bytes / 2);
}
