//! What is restored from an archive.

use std::fs;

use tracing_audit::{AuditLog, Retention, Rotation, Verdict};
use tracing_audit_forward::{Sink as _, SinkError};
use tracing_subscriber::prelude::*;

use crate::{
    Place, check_whole, files, log_of,
    records::{events, read},
};

fn restore(place: &Place<'_>) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let back = dir.path().join("back");
    place.archive().restore(&back, &[]).unwrap();
    (dir, back)
}

#[test]
fn a_closed_log_is_intact_and_a_running_one_is_unclean() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 3, 50);
    let entries = read(&log);
    let place = Place::directory();
    let mut sink = place.sink();
    sink.offer(&entries[..entries.len() - 1]).unwrap();
    let (_dir, back) = restore(&place);
    assert_eq!(tracing_audit::verify(&back).unwrap().verdict(), Verdict::Unclean);
    sink.offer(&entries[entries.len() - 1..]).unwrap();
    let (_dir, back) = restore(&place);
    assert_eq!(tracing_audit::verify(&back).unwrap().verdict(), Verdict::Intact);
    assert_eq!(fs::metadata(&back).unwrap().permissions().mode() & 0o777, 0o700);
    for file in files(&back) {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    check_whole(&mut place.archive(), &log);
}

/// Two runs, and between them a writer that was interrupted in the middle of a write.
#[test]
fn a_log_with_a_torn_write_and_one_that_was_pruned_are_restored() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 1, 50);
    let first = log.join("audit-000-00000001.jsonl");
    // Without its `close`, and with half a line.
    let text = fs::read_to_string(&first).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let kept = lines[..lines.len() - 1].join("\n") + "\n{\"seq\":";
    fs::write(&first, kept).unwrap();
    fs::remove_dir_all(log.join("control")).unwrap();
    let place = Place::directory();
    let mut sink = place.sink();
    for keep in [8, 2] {
        let retention = Retention::keep_all().max_segments(keep);
        let builder = AuditLog::builder(&log).rotation(Rotation::never()).retention(retention);
        let again = builder.stderr(false).open().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(again.layer()), || {
            for number in 0..3 {
                again.rotate().unwrap();
                tracing::info!(target: "audit", action = "item.sold", actor = "mia", number);
            }
        });
        again.close().unwrap();
        let entries = read(&log);
        sink.offer(&entries).unwrap();
        let (_dir, back) = restore(&place);
        let report = tracing_audit::verify(&back).unwrap();
        assert_eq!(report.verdict(), Verdict::Intact, "{report}");
        assert!(tracing_audit::verify(&log).unwrap().is_intact());
        // What retention removed from the log is still in the archive.
        assert!(back.join("audit-000-00000001.jsonl").exists());
        assert!(place.archive().verify().unwrap().is_intact());
    }
    assert!(!first.exists(), "retention removed nothing");
}

#[test]
fn what_cannot_be_restored_is_reported() {
    let place = Place::directory();
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 20);
    let entries = read(&log);
    place.sink().offer(&entries).unwrap();
    let reason =
        |outcome: Result<tracing_audit_forward::Restored, SinkError>| outcome.unwrap_err().to_string();
    let back = dir.path().join("back");
    fs::create_dir(&back).unwrap();
    fs::write(back.join("x"), "x").unwrap();
    assert!(reason(place.archive().restore(&back, &[])).contains("is not empty"));
    fs::remove_file(back.join("x")).unwrap();
    assert!(reason(place.archive().restore(&back, &["f".repeat(32)])).contains("has no chain ffff"));
    // The log was begun anew.
    let other = events(5);
    place.sink().offer(&other).unwrap();
    let said = reason(place.archive().restore(&back, &[]));
    assert!(said.contains("are both chain 000") && said.contains("--chain-id"), "{said}");
    let chosen = place.archive().restore(&back, &[entries[0].chain_id.to_string()]).unwrap();
    assert_eq!((chosen.files, chosen.chains.len()), (2, 1));
    assert!(tracing_audit::verify(&back).unwrap().is_intact());
    // Another log below the same prefix.
    let url = format!("archive:{}?service=web%20shop&host=n.2", place.path().display());
    tracing_audit_forward::Objects::new(&url).unwrap().offer(&other).unwrap();
    let mut all =
        tracing_audit_forward::Archive::new(&format!("archive:{}", place.path().display())).unwrap();
    assert_eq!(all.origins().unwrap().len(), 2);
    assert!(reason(all.restore(&back, &[])).contains("has 2 logs"));
    assert!(place.archive().verify().unwrap().is_intact());
    // An object that does not match the manifest.
    let sealed =
        files(&place.path()).into_iter().find(|path| path.to_str().unwrap().ends_with("zst")).unwrap();
    fs::remove_file(&sealed).unwrap();
    fs::write(&sealed, "x").unwrap();
    let again = dir.path().join("again");
    let said = reason(place.archive().restore(&again, &[entries[0].chain_id.to_string()]));
    assert!(said.contains("00000001.jsonl.zst") && said.contains("remove"), "{said}");
}

/// Forwarding of one chain began in the middle of a segment that is not sealed yet.
#[test]
fn a_chain_of_unknown_number_does_not_block_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 20);
    let (entries, begun) = (read(&log), events(30));
    let place = Place::directory();
    place.sink().offer(&entries).unwrap();
    place.sink().offer(&begun[10..]).unwrap();
    let back = dir.path().join("back");
    let restored = place.archive().restore(&back, &[]).unwrap();
    assert_eq!((restored.files, restored.chains.len()), (2, 1));
    assert!(format!("{restored:?}").contains(&*begun[0].chain_id), "{restored:?}");
    assert!(tracing_audit::verify(&back).unwrap().is_intact());
    let alone = place.archive().restore(&dir.path().join("alone"), &[begun[0].chain_id.to_string()]);
    let said = alone.unwrap_err().to_string();
    assert!(said.contains("--chain-id") && said.contains(&*begun[0].chain_id), "{said}");
    // A later segment shows it.
    let place = Place::directory();
    let mut sink = place.sink();
    sink.offer(&entries[5..10]).unwrap();
    sink.offer(&entries[10..20]).unwrap();
    place.archive().restore(&dir.path().join("none"), &[]).unwrap_err();
    sink.offer(&entries[20..]).unwrap();
    place.archive().restore(&dir.path().join("later"), &[]).unwrap();
}

#[test]
fn nothing_is_restored_where_others_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::directory();
    place.sink().offer(&events(5)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o777, 0o770] {
        let back = dir.path().join(format!("{mode:o}"));
        fs::create_dir(&back).unwrap();
        fs::set_permissions(&back, fs::Permissions::from_mode(mode)).unwrap();
        let said = place.archive().restore(&back, &[]).unwrap_err().to_string();
        assert!(said.contains("others may write"), "{said}");
    }
}
