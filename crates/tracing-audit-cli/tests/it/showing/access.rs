//! Users who may only read a log.

use std::fs;

use tracing_audit::AuditLog;

use crate::{
    place::{Place, skip},
    readers::{
        ON_READ_ONLY_MOUNT, STRANGER, can_be_nobody, can_mount, let_group_read, run_by, set_mode,
        share_command,
    },
};

/// The commands that read a log, with their exit codes.
const READING: [(&str, i32); 5] = [
    ("tail log", 0),
    ("tail log -n 100 --json", 0),
    ("show log 000/5", 0),
    ("show log 000/5 --json", 0),
    ("doctor log", 0),
];

#[test]
fn a_log_on_a_read_only_mount_is_read() {
    let place = Place::new().0;
    share_command(&place);
    if !can_mount(&place) {
        return skip("a_log_on_a_read_only_mount_is_read", "it needs a mount of its own");
    }
    for (line, code) in READING {
        let output = run_by(&place, &ON_READ_ONLY_MOUNT, line);
        // The disk may be nearly full, or a tmpfs, which is not what this tests.
        let is_doctor = line.starts_with("doctor");
        assert!(is_doctor || output.status.code() == Some(code), "{line}: {output:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn a_user_who_may_read_segments_alone_reads_them() {
    let name = "a_user_who_may_read_segments_alone_reads_them";
    if !can_be_nobody() {
        return skip(name, "it needs root and setpriv to become nobody");
    }
    let place = Place::new().0;
    share_command(&place);
    fs::remove_dir_all(place.path("log")).unwrap();
    AuditLog::builder(place.path("log")).group_readable(true).stderr(false).open().unwrap().close().unwrap();
    place.emit_as(&["mia", "tom", "li"]);
    // Files that the first run made have the mode that it gave them.
    let group = let_group_read(&place);
    let nobody = ["setpriv", "--reuid", "65534", "--regid", &group, "--clear-groups"];
    for (line, code) in READING {
        let output = run_by(&place, &nobody, line);
        let is_doctor = line.starts_with("doctor");
        assert!(is_doctor || output.status.code() == Some(code), "{line}: {output:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}: {output:?}");
    }
    // This user may not know whether a process has the log open.
    let open = AuditLog::builder(place.path("log")).group_readable(true).stderr(false).open().unwrap();
    set_mode(&place.path("log/control"), 0o700);
    let said = String::from_utf8(run_by(&place, &nobody, "doctor log").stdout).unwrap();
    assert!(said.contains("WARN  writers       not known: cannot look at the lock files"), "{said}");
    assert!(said.contains("WARN  ends          chain 000 is not closed; not known"), "{said}");
    assert!(!said.contains("DO    ends") && !said.contains("no program"), "{said}");
    open.close().unwrap();
    // A user who may not even read segments gets an error with a remedy.
    for (line, _) in READING {
        let output = run_by(&place, &STRANGER, line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.contains("run as its owner (uid 0), or as a member of its group"), "{line}: {error}");
        assert!(error.to_lowercase().contains("permission denied"), "{line}: {error}");
    }
}
