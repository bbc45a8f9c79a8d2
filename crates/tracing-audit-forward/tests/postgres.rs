//! The PostgreSQL store against real servers.

#![cfg(all(feature = "postgres", target_os = "linux"))]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that meets what it did not expect has failed"
)]

#[path = "postgres/failures.rs"]
mod failures;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/records.rs"]
mod records;
#[path = "postgres/security.rs"]
mod security;
#[path = "support/postgres.rs"]
mod server;
#[path = "postgres/verification.rs"]
mod verification;

use std::sync::Arc;

use tracing_audit_forward::{CopyChain, Entry, Gap, Position, Postgres, Sink as _, SinkError};

use crate::{
    records::{by_hand, events, hex, logged, read},
    server::Server,
};

/// Returns a store on a server, with its tables.
fn store(server: &Server) -> Postgres {
    let mut store = Postgres::new(&server.boss()).unwrap();
    store.create_schema().unwrap();
    store
}

fn position(entry: &Entry) -> Position {
    let Entry { chain_id, record, .. } = entry;
    Position { chain_id: Arc::clone(chain_id), seq: record.seq(), hash: record.hash() }
}

/// Checks that the table has these records, byte for byte, and nothing else; and that verification agrees.
#[track_caller]
fn check_stored(server: &Server, store: &mut Postgres, expected: &[Entry]) {
    let stored = server.sql("SELECT encode(line, 'hex') FROM audit_records ORDER BY chain_id, seq");
    let mut expected: Vec<&Entry> = expected.iter().collect();
    expected.sort_by_key(|entry| (Arc::clone(&entry.chain_id), entry.record.seq()));
    let lines = expected.iter().map(|entry| hex(entry.record.as_json().as_bytes()));
    assert!(stored.lines().eq(lines));
    let report = store.verify().unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), expected.len() as u64);
}

#[test]
fn records_are_stored_byte_for_byte_whatever_they_contain() {
    let Some(server) = Server::start("records_are_stored_byte_for_byte_whatever_they_contain") else {
        return;
    };
    let mut store = store(&server);
    let entries = logged(|| {
        let every = (0..=0x0010_FFFF).step_by(0x1_01).filter_map(char::from_u32).collect::<String>();
        let long = "é".repeat(40_000);
        tracing::info!(target: "audit", action = "nul\0nul", actor = "\u{1F980} \u{202E}x\u{FEFF}", every, "\0");
        tracing::info!(target: "audit", action = long, actor = "a", resource = "", nan = f64::NAN, inf = f64::INFINITY);
        tracing::error!(target: "audit", action = "n", n = u64::MAX, i = i64::MIN, f = 1e308, g = 5e-324, z = -0.0);
        tracing::info!(target: "audit", action = "n", big = u128::MAX, b = true, text = "NaN", quotes = "'\"\\$$");
    });
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
    let shown = server.sql(
        "SELECT action, actor, message, fields->>'every' <> '' FROM audit_events WHERE action LIKE 'nul%'",
    );
    assert_eq!(shown, "nul\u{2400}nul|\u{1F980} \u{202E}x\u{FEFF}|\u{2400}|t");
    let shown = server.sql("SELECT fields->>'nan', fields->>'n', (fields->>'g')::float8 FROM audit_events WHERE fields ? 'nan' OR fields ? 'g' ORDER BY seq");
    assert_eq!(shown, "NaN||\n|18446744073709551615|5e-324");
    // Nanoseconds are kept, and ordering by both columns is exact.
    let times: Vec<&str> = entries.iter().map(|entry| entry.record.timestamp().unwrap()).collect();
    let stored = server.sql(
        "SELECT to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || lpad(ts_nanos::text, 3, '0') || 'Z' \
         FROM audit_records ORDER BY seq",
    );
    assert!(stored.lines().eq(times));
}

#[test]
fn lines_that_this_library_would_not_write_are_stored_too() {
    let Some(server) = Server::start("lines_that_this_library_would_not_write_are_stored_too") else {
        return;
    };
    let mut store = store(&server);
    let entries = by_hand(&[
        r#""ts":"0000-01-01T00:00:00.000000000Z","kind":"event","fields":{"a":1e308,"b":-1.5e-300,"c":1E-400,"d":[1e99,{"\u0000":"\u0000"}]}"#,
        r#""ts":"9999-12-31T23:59:59.999999999Z","kind":"event","fields":{"n":123456789012345678901234567890,"":null}"#,
        r#""kind":"event","action":5,"actor":null,"fields":[]"#,
        r#""ts":"yesterday","kind":"\u0000","fields":{"a\u0000":1,"a␀":2,"_hash":"x"},"unknown":{"deep":[[[[[]]]]]}"#,
        r#""ts":"2026-02-30T00:00:00.000000000Z","message":"\ud83e\udd80\uffff\ufffe","fields":{"d":1.000000000000000000000000001}"#,
    ]);
    assert_eq!(entries.len(), 6);
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
    let shown = server.sql(
        "SELECT seq, ts, CASE WHEN seq = 2 THEN (fields->>'a')::float8 END, fields->>'n', action FROM audit_records WHERE seq > 1 ORDER BY seq",
    );
    let expected = [
        "2|0001-01-01 00:00:00+00 BC|1e+308||",
        "3|9999-12-31 23:59:59.999999+00||123456789012345678901234567890|",
        "4|-infinity|||",
        "5|-infinity|||",
        "6|-infinity|||",
    ];
    assert!(shown.lines().eq(expected), "{shown}");
}

#[test]
fn what_is_offered_again_is_not_duplicated() {
    let Some(server) = Server::start("what_is_offered_again_is_not_duplicated") else { return };
    let mut store = store(&server);
    let entries = events(50);
    store.offer(&entries[..20]).unwrap();
    store.offer(&entries[..20]).unwrap();
    store.offer(&entries[10..40]).unwrap();
    let twice: Vec<Entry> = entries.iter().chain(&entries).cloned().collect();
    store.offer(&twice).unwrap();
    store.offer(&[]).unwrap();
    check_stored(&server, &mut store, &entries);
    // Also through another connection, and if the tables exist already.
    let mut other = Postgres::new(&server.boss()).unwrap();
    other.create_schema().unwrap();
    other.offer(&entries).unwrap();
    check_stored(&server, &mut other, &entries);
}

#[test]
fn another_record_under_the_same_key_is_a_conflict() {
    let Some(server) = Server::start("another_record_under_the_same_key_is_a_conflict") else { return };
    let mut store = store(&server);
    let (entries, others) = (events(10), events(12));
    store.offer(&entries[..5]).unwrap();
    // A log that was restored and then diverged.
    let mut forked = entries.clone();
    forked[3] = Entry::new(Arc::clone(&entries[3].chain_id), others[3].record.clone());
    let outcome = store.offer(&forked);
    assert_eq!(outcome, Err(SinkError::Conflict { index: 3, stored: entries[3].record.hash() }));
    // Nothing of it was stored, and the connection is still usable.
    check_stored(&server, &mut store, &entries[..5]);
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
}

#[test]
fn positions_are_the_last_records_of_the_chains() {
    let Some(server) = Server::start("positions_are_the_last_records_of_the_chains") else { return };
    let mut store = store(&server);
    let (one, two) = (events(30), events(3));
    store.offer(&[&one[..7], &two[..]].concat()).unwrap();
    let unknown: Arc<str> = "f".repeat(32).into();
    let asked = [Arc::clone(&one[0].chain_id), Arc::clone(&two[0].chain_id), unknown];
    let mut positions = store.positions(&asked).unwrap().unwrap();
    positions.sort_by_key(|position| position.seq);
    let mut expected = [position(&one[6]), position(two.last().unwrap())];
    expected.sort_by_key(|position| position.seq);
    assert_eq!(positions, expected);
    assert_eq!(store.positions(&[]).unwrap(), Some(Vec::new()));
}

#[test]
fn gaps_are_stored_once_and_explain_holes() {
    let Some(server) = Server::start("gaps_are_stored_once_and_explain_holes") else { return };
    let mut store = store(&server);
    let entries = events(20);
    let [first, .., last] = &entries[4..9] else { unreachable!() };
    store.offer(&entries[..4]).unwrap();
    let Entry { chain_id, record, .. } = first;
    let gap = Gap::new(Arc::clone(chain_id), record.chain(), record.seq()..=last.record.seq());
    store.gap(&gap).unwrap();
    store.gap(&gap).unwrap();
    store.offer(&entries[9..]).unwrap();
    assert_eq!(server.sql("SELECT count(*) FROM audit_gaps"), "1");
    let report = store.verify().unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.holes().len(), 1, "{report}");
    assert!(report.to_string().contains("records 5 to 9 are not here"), "{report}");
    let CopyChain { chain, last, .. } = &report.chains()[0];
    assert_eq!((*chain, last.as_ref()), (Some(0), Some(&position(entries.last().unwrap()))));
}

#[test]
fn names_of_tables_are_quoted() {
    let Some(server) = Server::start("names_of_tables_are_quoted") else { return };
    let entries = events(3);
    for prefix in ["we\"ird", "Großes; DROP TABLE x --", "x_audit_gaps"] {
        let mut store = Postgres::builder(&server.boss()).schema("my schema").prefix(prefix).build().unwrap();
        store.create_schema().unwrap();
        store.create_schema().unwrap();
        store.offer(&entries).unwrap();
        assert!(store.verify().unwrap().is_intact());
    }
    assert_eq!(server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'my schema'"), "6");
}

#[test]
fn calls_work_on_the_threads_of_a_runtime() {
    let Some(server) = Server::start("calls_work_on_the_threads_of_a_runtime") else { return };
    let entries = events(3);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut store = store(&server);
        store.offer(&entries).unwrap();
        assert!(store.verify().unwrap().is_intact());
        store.close();
        store.offer(&entries).unwrap();
    });
}

#[test]
fn long_values_do_not_break_an_index() {
    let Some(server) = Server::start("long_values_do_not_break_an_index") else { return };
    let mut store = store(&server);
    // Random, so that nothing can be compressed.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_u32(0x4E00 + u32::try_from(state >> 52).unwrap()).unwrap()
    };
    let long: String = (0..18_000).map(|_| random()).collect();
    let entries = logged(|| {
        tracing::info!(target: "audit", action = long, actor = long, "long");
        tracing::info!(target: "audit", action = "a", actor = "b", resource = long, "long");
        tracing::info!(target: "audit", action = "a", actor = long, "long");
    });
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
}

#[test]
fn several_chains_of_one_log_are_kept_apart() {
    let Some(server) = Server::start("several_chains_of_one_log_are_kept_apart") else { return };
    let mut store = store(&server);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let logs = [(); 3].map(|()| tracing_audit::AuditLog::open(&path).unwrap());
    for log in &logs {
        use tracing_subscriber::prelude::*;
        let subscriber = tracing_subscriber::registry().with(log.layer());
        tracing::subscriber::with_default(
            subscriber,
            || tracing::info!(target: "audit", action = "a", actor = "b"),
        );
    }
    for log in logs {
        log.close().unwrap();
    }
    let entries = read(&path);
    store.offer(&entries).unwrap();
    check_stored(&server, &mut store, &entries);
    assert_eq!(
        server.sql("SELECT count(DISTINCT chain), count(DISTINCT chain_id) FROM audit_records"),
        "3|3"
    );
}

/// Runs the statements of docs/forwarding/postgres.md in their order. At the end, the table is partitioned.
#[test]
fn the_statements_of_the_documentation_run() {
    let Some(server) = Server::start("the_statements_of_the_documentation_run") else { return };
    let mut store = store(&server);
    let entries = events(30);
    store.offer(&entries[..10]).unwrap();
    let text = include_str!("../../../docs/forwarding/postgres.md");
    let blocks: Vec<&str> =
        text.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 8);
    for block in blocks {
        // The file is in UTF-8.
        let found = server.sql(&format!("SET client_encoding = 'UTF8'; {block}"));
        assert!(!block.contains("sha256") || found.is_empty(), "{found}");
    }
    assert_eq!(server.sql("SELECT relkind FROM pg_class WHERE relname = 'audit_records'"), "p");

    server.sql("ALTER ROLE audit_writer PASSWORD 'pass'");
    let mut writer = Postgres::new(&server.url("audit_writer", "pass")).unwrap();
    writer.offer(&entries[5..20]).unwrap();
    writer.offer(&entries).unwrap();
    check_stored(&server, &mut writer, &entries);
    let last = position(entries.last().unwrap());
    assert_eq!(writer.positions(std::slice::from_ref(&last.chain_id)).unwrap(), Some(vec![last]));
    assert_eq!(server.sql("SELECT count(*) FROM audit_events"), "30");

    // A different record under the same key with another time would be in another partition.
    let event = r#""ts":"2026-11-10T00:00:00.000000000Z","kind":"event","action":"a""#;
    let moved = r#""ts":"2026-12-10T00:00:00.000000000Z","kind":"event","action":"a""#;
    let (one, other) = (by_hand(&[event, event]), by_hand(&[event, moved]));
    writer.offer(&one).unwrap();
    let conflict = SinkError::Conflict { index: 2, stored: one[2].record.hash() };
    assert_eq!(writer.offer(&other), Err(conflict));

    // A missing partition is not the fault of the record.
    server.sql("ALTER TABLE audit_records DETACH PARTITION audit_records_default");
    let outcome = writer.offer(&one);
    let Err(SinkError::Setup { reason }) = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("no partition"), "{reason}");
}
