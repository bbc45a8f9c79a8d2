//! `export` and `report` of logs that may only be read, and of one that is written at the same time.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tracing_audit::{AuditLog, Rotation};
use tracing_subscriber::prelude::*;

use crate::place::{Place, can_run, skip};

const READING: [&str; 6] = [
    "export log --format csv -o -",
    "export log --format jsonl -o -",
    "export log --format ocsf -o -",
    "export log --format ecs -o -",
    "report log -o -",
    "report log -o out/page.html",
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

/// Whether a command printed what it was asked for, or wrote it.
fn check(place: &Place, line: &str, output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {error}");
    assert!(error.contains("is no") || error.contains("is not the evidence"), "{line}: {error}");
    assert!(!output.stdout.is_empty() || place.path("out/page.html").exists(), "{line}");
    assert!(
        output.stdout.is_empty() || String::from_utf8_lossy(&output.stdout).contains("item.seen"),
        "{line}"
    );
}

fn place_with_out() -> Place {
    let place = Place::new().0;
    copy_of_command(&place);
    fs::create_dir(place.path("out")).unwrap();
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o777)).unwrap();
    place
}

#[test]
fn a_log_on_a_read_only_mount_is_exported() {
    let mount =
        "mount --bind log log && mount -o remount,bind,ro log && ! touch log/x 2>/dev/null && exec \"$@\"";
    let enter = ["unshare", "--mount", "sh", "-c", mount, "sh"];
    let place = place_with_out();
    let mut command = Command::new(enter[0]);
    command.args(&enter[1..]).arg("true").current_dir(place.path(""));
    if !command.output().is_ok_and(|output| output.status.success()) {
        return skip("a_log_on_a_read_only_mount_is_exported", "it needs a mount of its own");
    }
    for line in READING {
        check(&place, line, &run(&place, &enter, line));
    }
}

#[test]
fn a_user_who_may_read_segments_alone_exports_them() {
    let name = "a_user_who_may_read_segments_alone_exports_them";
    if !rustix::process::geteuid().is_root() || !can_run("setpriv", &["--version"]) {
        return skip(name, "it needs root and setpriv to become nobody");
    }
    let place = place_with_out();
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
    for line in READING {
        check(&place, line, &run(&place, &nobody, line));
    }
    let stranger = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    for line in READING {
        let output = run(&place, &stranger, line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{line}: {error}");
        assert!(error.to_lowercase().contains("permission denied"), "{line}: {error}");
    }
}

/// While a program writes and begins segments, every export ends well, and has every record once up to some number.
#[test]
fn a_log_that_is_written_is_exported() {
    let place = Place::new().0;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let builder = AuditLog::builder(place.path("log")).stderr(false);
            let log = builder.rotation(Rotation::never().max_bytes(64 << 10)).open().unwrap();
            tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
                while !is_over.load(Ordering::Relaxed) {
                    tracing::info!(target: "audit", action = "item.seen", actor = "mia");
                    thread::sleep(std::time::Duration::from_micros(200));
                }
            });
            log.close().unwrap();
        });
        let mut last = 0;
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The machine may be busy with other things than writing.
            let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
            let mut grown = 0;
            while grown < 5 && std::time::Instant::now() < end {
                let (code, out, err) = place.run("export log --format jsonl -o -");
                assert_eq!(code, 0, "{err}");
                for (line, seq) in out.lines().zip(1..) {
                    assert!(line.starts_with(&format!("{{\"seq\":{seq},")), "{seq}: {line}");
                }
                let (code, page, err) = place.run("report log -o -");
                assert_eq!(code, 0, "{err}");
                assert!(page.contains("those that were written while the page was made"), "{err}");
                let count = out.lines().count();
                assert!(count >= last, "{count}");
                grown += usize::from(count > last);
                last = count;
            }
            assert_eq!(grown, 5, "the log did not grow");
        }));
        is_over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
