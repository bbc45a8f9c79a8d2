//! Who may only read.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tracing_audit::AuditLog;

use crate::place::{Place, can_run, skip};

/// The commands that read a log, and how they end.
const READING: [(&str, i32); 5] = [
    ("tail log", 0),
    ("tail log -n 100 --json", 0),
    ("show log 000/5", 0),
    ("show log 000/5 --json", 0),
    ("doctor log", 0),
];

/// A copy of the command, where everybody can run it.
fn copy_of_command(place: &Place) -> PathBuf {
    let copy = place.path("command");
    fs::copy(env!("CARGO_BIN_EXE_tracing-audit"), &copy).unwrap();
    for path in [copy.clone(), place.path("")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

fn run(place: &Place, enter: &[&str], line: &str) -> Output {
    let mut command = Command::new(enter[0]);
    command.args(&enter[1..]).arg(place.path("command")).args(line.split(' '));
    command.current_dir(place.path("")).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_log_on_a_read_only_mount_is_read() {
    let mount =
        "mount --bind log log && mount -o remount,bind,ro log && ! touch log/x 2>/dev/null && exec \"$@\"";
    let enter = ["unshare", "--mount", "sh", "-c", mount, "sh"];
    let place = Place::new().0;
    copy_of_command(&place);
    let mut command = Command::new(enter[0]);
    command.args(&enter[1..]).arg("true").current_dir(place.path(""));
    if !command.output().is_ok_and(|output| output.status.success()) {
        return skip("a_log_on_a_read_only_mount_is_read", "it needs a mount of its own");
    }
    for (line, code) in READING {
        let output = run(&place, &enter, line);
        // A disk may be nearly full, or a tmpfs: that is not what is tested.
        let is_doctor = line.starts_with("doctor");
        assert!(is_doctor || output.status.code() == Some(code), "{line}: {output:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn a_user_who_may_read_segments_alone_reads_them() {
    let name = "a_user_who_may_read_segments_alone_reads_them";
    if !rustix::process::geteuid().is_root() || !can_run("setpriv", &["--version"]) {
        return skip(name, "it needs root and setpriv to become nobody");
    }
    let place = Place::new().0;
    copy_of_command(&place);
    fs::remove_dir_all(place.path("log")).unwrap();
    AuditLog::builder(place.path("log")).group_readable(true).stderr(false).open().unwrap().close().unwrap();
    place.emit_as(&["mia", "tom", "li"]);
    // Each run has its own mode; this is what the first one gave them.
    for entry in fs::read_dir(place.path("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        }
    }
    fs::set_permissions(place.path("log"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(place.path("log/control"), fs::Permissions::from_mode(0o700)).unwrap();
    let group = fs::metadata(place.path("log")).unwrap().gid().to_string();
    let nobody = ["setpriv", "--reuid", "65534", "--regid", &group, "--clear-groups"];
    for (line, code) in READING {
        let output = run(&place, &nobody, line);
        let is_doctor = line.starts_with("doctor");
        assert!(is_doctor || output.status.code() == Some(code), "{line}: {output:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}: {output:?}");
    }
    // That somebody has the log open is nothing that they may know.
    let open = AuditLog::builder(place.path("log")).group_readable(true).stderr(false).open().unwrap();
    fs::set_permissions(place.path("log/control"), fs::Permissions::from_mode(0o700)).unwrap();
    let said = String::from_utf8(run(&place, &nobody, "doctor log").stdout).unwrap();
    assert!(said.contains("WARN  writers       not known: cannot look at the lock files"), "{said}");
    assert!(said.contains("WARN  ends          chain 000 is not closed; not known"), "{said}");
    assert!(!said.contains("DO    ends") && !said.contains("no program"), "{said}");
    open.close().unwrap();
    // Who may not even do that hears of it, and what to do.
    let stranger = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    for (line, _) in READING {
        let output = run(&place, &stranger, line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.contains("run as its owner (uid 0), or as a member of its group"), "{line}: {error}");
        assert!(error.to_lowercase().contains("permission denied"), "{line}: {error}");
    }
}
