//! `forward`, `verify` and `restore` with an archive in a directory.

use std::fs;

use tracing_audit::AuditLog;
use tracing_subscriber::prelude::*;

use crate::place::Place;

#[test]
fn a_log_is_archived_verified_and_restored() {
    let (place, _) = Place::new();
    let url = "archive:archive?service=web&host=n1";
    assert_eq!(place.run(&format!("forward log --to {url} --once")), (0, String::new(), String::new()));
    let head = place.emit(5);
    assert_eq!(place.run(&format!("forward log --to {url} --once")).0, 0);
    let (code, said, _) = place.run("forward status log");
    assert!(code == 0 && said.starts_with("archive: not running, 0 records refused"), "{said}");
    let (code, said, _) = place.run(&format!("verify archive:archive --head {head}"));
    assert!(code == 0 && said.starts_with("intact: 20 records, 1 chain"), "{said}");
    let (code, said, error) = place.run(&format!("restore {url} back"));
    assert!(code == 0 && said.contains("web/n1: 1 segments") && said.contains("\nintact"), "{said} {error}");
    let file = "audit-000-00000001.jsonl";
    let (log, back) = (place.path("log").join(file), place.path("back").join(file));
    assert!(fs::read(&log).unwrap() == fs::read(back).unwrap());
    assert_eq!(place.run(&format!("verify back -q --head {head}")).0, 0);

    let (code, said, error) = place.run(&format!("restore {url} back"));
    assert!((code, said.as_str()) == (2, "") && error.contains("back is not empty"), "{error}");
    let (code, _, error) = place.run("restore file:copy.jsonl back");
    assert!(code == 2 && error.contains("only an archive can be restored"), "{error}");
    let (code, _, error) = place.run("verify archive:nowhere");
    assert!(code == 2 && error.contains("nowhere"), "{error}");
    // The service comes from the log itself.
    let (code, _, error) = place.run("forward log --to archive:other --name other --once");
    assert!(code == 0 && place.run("verify archive:other").0 == 0, "{error}");
}

#[test]
fn a_log_that_is_still_being_written_is_restored_unclean() {
    let (place, _) = Place::new();
    let log = AuditLog::builder(place.path("log")).stderr(false).open().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        // The second record notes that the first is durable.
        for n in 0..2 {
            log.confirm(|| tracing::info!(target: "audit", action = "item.seen", actor = "mia", n)).unwrap();
        }
    });
    place.run("forward log --to archive:archive?service=web --once");
    let (code, said, _) = place.run("restore archive:archive back");
    assert!(code == 3 && said.contains("unclean: the log has no end"), "{code} {said}");
    log.close().unwrap();
}

/// Forwarding of a second chain began in the middle of a segment, so nothing in the archive has its number.
#[test]
fn a_chain_with_an_unknown_number_is_left_out_and_reported() {
    let (place, _) = Place::new();
    let url = "archive:archive?service=web&host=n1";
    assert_eq!(place.run(&format!("forward log --to {url} --once")).0, 0);
    let chain = fs::read_dir(place.path("archive/live/web/n1")).unwrap().next().unwrap().unwrap().path();
    let other = chain.with_file_name("f".repeat(32)).join("00000001");
    fs::create_dir_all(&other).unwrap();
    let part = fs::read_to_string(chain.join("00000001/00000001.jsonl")).unwrap();
    let rest: String = part.split_inclusive('\n').skip(1).collect();
    fs::write(other.join("00000001.jsonl"), rest).unwrap();
    let (code, said, error) = place.run(&format!("restore {url} back"));
    assert!(code == 2 && said.contains("\nchain ffffffff"), "{code} {said} {error}");
    assert!(said.contains("is left out") && place.path("back/audit-000-00000001.jsonl").exists(), "{said}");
    fs::create_dir(place.path("empty")).unwrap();
    let (code, said, error) = place.run("verify archive:empty");
    assert!((code, said.as_str()) == (2, "") && error.contains("has no log"), "{error}");
}
