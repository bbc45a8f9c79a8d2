//! `export` and `report` of read-only logs, and of one that is being written.

use std::{
    fs,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tracing_audit::{AuditLog, Rotation};
use tracing_subscriber::prelude::*;

use crate::{
    place::{Place, skip},
    readers::{
        ON_READ_ONLY_MOUNT, STRANGER, can_be_nobody, can_mount, let_group_read, run_by, set_mode,
        share_command,
    },
};

const READING: [&str; 6] = [
    "export log --format csv -o -",
    "export log --format jsonl -o -",
    "export log --format ocsf -o -",
    "export log --format ecs -o -",
    "report log -o -",
    "report log -o out/page.html",
];

/// Checks that a command succeeded, with its output printed or written.
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
    share_command(&place);
    fs::create_dir(place.path("out")).unwrap();
    set_mode(&place.path("out"), 0o777);
    place
}

#[test]
fn a_log_on_a_read_only_mount_is_exported() {
    let place = place_with_out();
    if !can_mount(&place) {
        return skip("a_log_on_a_read_only_mount_is_exported", "it needs a mount of its own");
    }
    for line in READING {
        check(&place, line, &run_by(&place, &ON_READ_ONLY_MOUNT, line));
    }
}

#[test]
fn a_user_who_may_read_segments_alone_exports_them() {
    let name = "a_user_who_may_read_segments_alone_exports_them";
    if !can_be_nobody() {
        return skip(name, "it needs root and setpriv to become nobody");
    }
    let place = place_with_out();
    let group = let_group_read(&place);
    let nobody = ["setpriv", "--reuid", "65534", "--regid", &group, "--clear-groups"];
    for line in READING {
        check(&place, line, &run_by(&place, &nobody, line));
    }
    for line in READING {
        let output = run_by(&place, &STRANGER, line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{line}: {error}");
        assert!(error.to_lowercase().contains("permission denied"), "{line}: {error}");
    }
}

/// While a program writes and begins segments, every export succeeds, and has every record up to some number once.
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
            // A busy machine may not have written anything yet.
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
                assert!(page.contains("those written while the page was made"), "{err}");
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
