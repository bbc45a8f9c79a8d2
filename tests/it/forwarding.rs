//! What forwarders require of a log: segments stay until they are forwarded, and the last records are soon marked
//! durable.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tracing_audit::{AuditLog, Error, NoticeKind, Reader, Retention, verify};

use crate::support::{fresh, independent_verdict, lines_of, segments, wait_for, with_layer};

/// Begins `times` segments, each with an event.
fn rotate(log: &AuditLog, times: usize) {
    for _ in 0..times {
        with_layer(log, || log.confirm(|| tracing::info!(target: "audit", action = "a", actor = "b")))
            .unwrap();
        log.rotate().unwrap();
    }
}

/// Creates a closed log of five segments.
fn fill(path: &Path) {
    let log = AuditLog::open(path).unwrap();
    rotate(&log, 4);
    log.close().unwrap();
    assert_eq!(segments(path).len(), 5);
}

/// Opens the log with these limits, which applies them, and closes it. Returns the number of segments left, and the
/// number of notices that some wait.
#[track_caller]
fn apply(path: &Path, retention: &Retention) -> (usize, u64) {
    let log = AuditLog::builder(path).retention(retention.clone()).open().unwrap();
    // After this, the writer has completed a pass.
    log.flush().unwrap();
    log.close().unwrap();
    let report = verify(path).unwrap();
    report.ensure_intact().unwrap_or_else(|error| panic!("{error}\n{report}"));
    assert!(report.notes().iter().all(|note| !note.to_string().contains("forward-required")), "{report}");
    (segments(path).len(), log.stats().noticed(NoticeKind::RetentionWaits))
}

fn keep_one() -> Retention {
    Retention::keep_all().max_segments(1)
}

/// Returns the number of the last record of a segment, with segments counted from 0.
fn last_record(path: &Path, segment: usize) -> u64 {
    let text = fs::read_to_string(&segments(path)[segment]).unwrap();
    let seq = text.lines().last().unwrap().strip_prefix("{\"seq\":").unwrap();
    seq.split_once(',').unwrap().0.parse().unwrap()
}

/// Writes what a forwarder writes when its store has this much of chain 000.
fn note_position(path: &Path, name: &str, seq: u64, refused: Option<u64>) {
    let text = fs::read_to_string(&segments(path)[0]).unwrap();
    let id = text.split_once("\"id\":\"").unwrap().1.split_once('"').unwrap().0;
    let hash = "ab".repeat(32);
    let refused = refused.map_or_else(String::new, |refused| format!(", \"refused\": {refused}"));
    let chain = format!("{{ \"chain\": \"000\", \"seq\": {seq}, \"hash\": \"{hash}\"{refused} }}");
    let text = format!("{{ \"format\": 1, \"chains\": {{ \"{id}\": {chain} }} }}\n");
    fs::write(path.join(format!("control/forward-{name}")), text).unwrap();
}

#[test]
fn retention_removes_a_segment_once_every_named_store_has_all_of_it() {
    let (_dir, path) = fresh();
    fill(&path);
    let keep = keep_one().require_forwarded(["archive", "postgres"]);
    assert_eq!(apply(&path, &keep), (5, 1), "no position at all");
    let last: Vec<u64> = (0..4).map(|segment| last_record(&path, segment)).collect();
    note_position(&path, "archive", last[3], None);
    assert_eq!(apply(&path, &keep), (5, 1), "one of two");
    note_position(&path, "postgres", last[0] - 1, None);
    assert_eq!(apply(&path, &keep), (5, 1), "all but the last record");
    note_position(&path, "postgres", last[0], None);
    assert_eq!(apply(&path, &keep), (4, 1));
    note_position(&path, "postgres", last[3], Some(last[2]));
    assert_eq!(apply(&path, &keep), (3, 1), "a record that was refused is missing");
    note_position(&path, "archive", last[2], None);
    note_position(&path, "postgres", last[3], None);
    assert_eq!(apply(&path, &keep), (2, 1));
    note_position(&path, "archive", last[3], None);
    assert_eq!(apply(&path, &keep), (1, 0));
    let pruned = lines_of(&path, "prune");
    assert!(pruned.last().unwrap().contains(&format!("\"through\":{}", last[3])), "{pruned:?}");
    assert_eq!(independent_verdict(&path), 0);
}

#[test]
fn an_unreadable_position_counts_as_not_forwarded() {
    let (_dir, path) = fresh();
    fill(&path);
    let keep = keep_one().require_forwarded(["archive"]);
    let position = path.join("control/forward-archive");
    for text in ["", "{", "{\"format\":2,\"chains\":{}}", "{\"format\":1,\"chains\":{}}"] {
        fs::write(&position, text).unwrap();
        assert_eq!(apply(&path, &keep), (5, 1), "{text}");
    }
    // The position is of another chain.
    note_position(&path, "archive", 1 << 40, None);
    let text = fs::read_to_string(&position).unwrap();
    let (before, id) = text.split_once("\": { \"chain\"").unwrap();
    fs::write(&position, format!("{}{}\": {{ \"chain\"{id}", &before[..before.len() - 32], "0".repeat(32)))
        .unwrap();
    assert_eq!(apply(&path, &keep), (5, 1));
    fs::remove_file(&position).unwrap();
    fs::create_dir(&position).unwrap();
    assert_eq!(apply(&path, &keep), (5, 1));
}

#[test]
fn a_program_without_the_setting_obeys_the_file_in_the_directory() {
    let (_dir, path) = fresh();
    fill(&path);
    let required = path.join("forward-required");
    apply(&path, &Retention::keep_all().require_forwarded(["postgres"]));
    assert_eq!(fs::read_to_string(&required).unwrap(), "postgres\n");
    assert_eq!(apply(&path, &keep_one()), (5, 1));
    // Names are added, but never removed.
    apply(&path, &Retention::keep_all().require_forwarded(["archive", "postgres"]));
    apply(&path, &Retention::keep_all().require_forwarded(["archive"]));
    assert_eq!(fs::read_to_string(&required).unwrap(), "postgres\narchive\n");
    note_position(&path, "archive", last_record(&path, 1), None);
    assert_eq!(apply(&path, &keep_one()), (5, 1));
    // An operator lifts one requirement, and then the other.
    fs::write(&required, "archive\n").unwrap();
    assert_eq!(apply(&path, &keep_one()), (3, 1));
    fs::remove_file(&required).unwrap();
    assert_eq!(apply(&path, &keep_one()), (1, 0));
    assert!(!required.exists());
}

#[test]
fn a_list_that_cannot_be_parsed_is_a_hold_until_it_is_fixed() {
    let (_dir, path) = fresh();
    fill(&path);
    let required = path.join("forward-required");
    let large = "\0".repeat(2000);
    for text in ["", "\n", "post", "post\ngres", "# nobody\n", "Postgres\n", "post\r\n", "\0\0\0\0", &large] {
        fs::write(&required, text).unwrap();
        assert_eq!(apply(&path, &keep_one()), (5, 1), "{text:?}");
        // Not even if space is low, because it is unknown who would miss the records.
        assert_eq!(fs::read_to_string(&required).unwrap(), text);
        let roomy = Retention::keep_all().require_forwarded(["archive"]);
        apply(&path, &roomy);
        let mended = fs::read_to_string(&required).unwrap();
        assert!(mended.ends_with('\n') && mended.lines().any(|name| name == "archive"), "{mended:?}");
        assert_eq!(apply(&path, &keep_one()), (5, 1), "{text:?}");
    }
    assert_eq!(fs::read_to_string(&required).unwrap().trim_end_matches('\n'), "archive");
    note_position(&path, "archive", last_record(&path, 3), None);
    fs::write(&required, "").unwrap();
    assert_eq!(apply(&path, &keep_one()), (5, 1));
    assert_eq!(apply(&path, &keep_one().require_forwarded(["archive"])), (1, 0));
}

#[test]
fn a_list_that_cannot_be_written_is_an_error_of_open() {
    let (_dir, path) = fresh();
    fill(&path);
    let required = path.join("forward-required");
    let keep = keep_one().require_forwarded(["archive"]);
    fs::create_dir(&required).unwrap();
    let error = AuditLog::builder(&path).retention(keep.clone()).open().unwrap_err();
    assert!(error.to_string().contains("forward-required"), "{error}");
    assert_eq!(segments(&path).len(), 5);
    let log = AuditLog::builder(&path).retention(keep_one()).open().unwrap();
    log.close().unwrap();
    assert_eq!(log.stats().noticed(NoticeKind::RetentionWaits), 1);
    assert_eq!(segments(&path).len(), 5);
    fs::remove_dir(&required).unwrap();
    // Fifteen of the longest names fit.
    let many: Vec<String> = (0..16).map(|number| format!("{number:032}")).collect();
    let retention = |names: &[String]| Retention::keep_all().require_forwarded(names.to_vec());
    let error = AuditLog::builder(&path).retention(retention(&many)).open().unwrap_err();
    assert!(matches!(error, Error::Setting { setting: "retention", .. }), "{error}");
    assert!(!required.exists());
    apply(&path, &retention(&many[..15]));
    let error = AuditLog::builder(&path).retention(retention(&many[15..])).open().unwrap_err();
    assert!(error.to_string().contains("forward-required"), "{error}");
    assert_eq!(fs::read_to_string(&required).unwrap().lines().count(), 15);
}

#[test]
fn the_names_of_a_process_apply_even_after_the_list_is_deleted() {
    let (_dir, path) = fresh();
    let log = AuditLog::builder(&path).retention(keep_one().require_forwarded(["archive"])).open().unwrap();
    fs::remove_file(path.join("forward-required")).unwrap();
    rotate(&log, 4);
    log.close().unwrap();
    assert_eq!(segments(&path).len(), 5);
}

#[test]
fn retention_removes_waiting_segments_when_space_is_low() {
    let (_dir, path) = fresh();
    fill(&path);
    let keep = keep_one().require_forwarded(["archive"]);
    assert_eq!(apply(&path, &keep.clone().unless_free_below(1)), (5, 1));
    fs::write(path.join("hold"), "").unwrap();
    assert_eq!(apply(&path, &keep.clone().unless_free_below(u64::MAX)), (5, 0));
    fs::remove_file(path.join("hold")).unwrap();
    // The other limits still apply.
    let three =
        Retention::keep_all().max_segments(3).require_forwarded(["archive"]).unless_free_below(u64::MAX);
    assert_eq!(apply(&path, &three), (3, 0));
    assert_eq!(apply(&path, &keep), (3, 1));
    assert_eq!(apply(&path, &keep.unless_free_below(u64::MAX)), (1, 0));
}

#[test]
fn one_notice_is_given_until_no_segment_waits() {
    let (_dir, path) = fresh();
    let keep = keep_one().require_forwarded(["archive"]);
    let log = AuditLog::builder(&path).retention(keep).open().unwrap();
    let told = || log.stats().noticed(NoticeKind::RetentionWaits);
    rotate(&log, 3);
    wait_for("the notice", || told() == 1);
    rotate(&log, 3);
    note_position(&path, "archive", 1 << 40, None);
    rotate(&log, 1);
    wait_for("the removal", || segments(&path).len() == 1);
    assert_eq!(told(), 1);
    fs::remove_file(path.join("control/forward-archive")).unwrap();
    rotate(&log, 1);
    wait_for("the second notice", || told() == 2);
    let head = log.close().unwrap();
    let notices = lines_of(&path, "notice");
    let said =
        "which retention would remove: the store of forwarder archive is not known to have any record of it";
    assert!(notices.iter().all(|notice| notice.contains("retention_waits")), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains(said)), "{notices:?} {head}");
    assert!(NoticeKind::RetentionWaits.needs_action());
}

#[test]
fn settings_that_cannot_be_met_are_refused() {
    let (_dir, path) = fresh();
    let long = "a".repeat(33);
    for name in ["", "Archive", "a b", "a/b", "../a", "a_b", "a,b", &long] {
        let retention = Retention::keep_all().require_forwarded([name]);
        let error = AuditLog::builder(&path).retention(retention).open().unwrap_err();
        assert!(matches!(error, Error::Setting { setting: "retention", .. }), "{error}");
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
    let retention = keep_one().unless_free_below(1 << 30);
    let error = AuditLog::builder(&path).retention(retention).open().unwrap_err();
    assert!(error.to_string().contains("`require_forwarded`"), "{error}");
    assert!(!path.exists());
}

/// A forwarder passes on only durable records, and only a later record states that the last one is durable.
#[test]
fn the_last_event_before_a_pause_is_seen_as_durable_within_three_seconds() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    fs::write(path.join("control/forward-archive"), "").unwrap();
    let begun = Instant::now();
    with_layer(&log, || tracing::info!(target: "audit", action = "last", actor = "b"));
    let is_seen = || {
        let items = Reader::new(&path).durable_only(true).records().unwrap();
        items.filter_map(Result::ok).any(|record| record.action() == Some("last"))
    };
    wait_for("the last event", is_seen);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    log.close().unwrap();
    assert_eq!(lines_of(&path, "mark").len(), 1);
}
