//! Runs the command on a read-only mount, and as users who may read less.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::place::{Place, can_run};

/// The program and arguments that run a command on a read-only mount of the log.
pub(crate) const ON_READ_ONLY_MOUNT: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind log log && mount -o remount,bind,ro log && ! touch log/x 2>/dev/null && exec \"$@\"",
    "sh",
];

/// A user who is in no group of the log.
pub(crate) const STRANGER: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// Returns whether tests can become another user.
pub(crate) fn can_be_nobody() -> bool {
    rustix::process::geteuid().is_root() && can_run("setpriv", &["--version"])
}

/// Copies the command to a directory where every user can run it.
pub(crate) fn share_command(place: &Place) {
    let copy = place.path("command");
    fs::copy(env!("CARGO_BIN_EXE_tracing-audit"), &copy).unwrap();
    for path in [copy, place.path("")] {
        set_mode(&path, 0o755);
    }
}

/// Runs the shared command through another program, such as `setpriv`.
pub(crate) fn run_by(place: &Place, enter: &[&str], line: &str) -> Output {
    let mut command = Command::new(enter[0]);
    command.args(&enter[1..]).arg(place.path("command")).args(line.split(' '));
    command.current_dir(place.path("")).stdin(Stdio::null()).output().unwrap()
}

/// Returns whether this machine lets tests mount file systems.
pub(crate) fn can_mount(place: &Place) -> bool {
    let mut command = Command::new(ON_READ_ONLY_MOUNT[0]);
    command.args(&ON_READ_ONLY_MOUNT[1..]).arg("true").current_dir(place.path(""));
    command.output().is_ok_and(|output| output.status.success())
}

/// Lets the group of the log read its segments, and nothing else. Returns the group id.
pub(crate) fn let_group_read(place: &Place) -> String {
    for entry in fs::read_dir(place.path("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            set_mode(&path, 0o640);
        }
    }
    set_mode(&place.path("log"), 0o750);
    set_mode(&place.path("log/control"), 0o700);
    fs::metadata(place.path("log")).unwrap().gid().to_string()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
