//! The feature `serde`: settings from data, and counters, reports and records as data.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tracing_audit::{
    AuditLog, Config, Digest, Error, FlushMode, Head, Health, NoticeKind, OnFull, Receipt, Rotation,
    Severity, Verdict, verify,
};

use crate::support::{fresh, open_with_notices, records, segments, wait_for, with_layer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: String,
    audit: Config,
}

/// Reads the settings of docs/settings.md as that page does, with environment variables that override them.
fn settings(environment: &[(&str, &str)]) -> Result<Settings, config::ConfigError> {
    let page = include_str!("../../docs/settings.md");
    let block = page.split("```toml\n").find(|block| block.contains("[audit]")).unwrap();
    let text = block.split("```").next().unwrap();
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let environment: HashMap<String, String> = environment.iter().map(own).collect();
    let source = config::Environment::with_prefix("PAYMENTS").prefix_separator("_").separator("__");
    config::Config::builder()
        .add_source(config::File::from_str(text, config::FileFormat::Toml))
        .add_source(source.source(Some(environment)))
        .build()?
        .try_deserialize()
}

#[test]
fn the_settings_of_the_document_open_a_log() {
    let (_dir, path) = fresh();
    let mut config = settings(&[]).unwrap().audit;
    assert_eq!(config.dir, Path::new("/var/lib/payments/audit-log"));
    config.dir.clone_from(&path);
    let log = AuditLog::from_config(config).unwrap();
    with_layer(&log, || tracing::info!(target: "audit", action = "key.export", actor = "mia"));
    log.close().unwrap();
    let records = records(&path);
    assert_eq!(records[1].get("open").unwrap().get("service").unwrap().as_str(), Some("payments"));
    let event = records.iter().find(|record| record.is_event()).unwrap();
    assert_eq!(event.severity(), Some(Severity::Critical));
}

/// In the environment, every value is text.
#[test]
fn the_environment_overrides_the_file() {
    let settings = settings(&[
        ("PAYMENTS_LISTEN", "[::1]:80"),
        ("PAYMENTS_AUDIT__DIR", "elsewhere"),
        ("PAYMENTS_AUDIT__FLUSH_MODE__BATCH_SIZE", "7"),
        ("PAYMENTS_AUDIT__FLUSH_MODE__CRITICAL_IMMEDIATE", "false"),
        ("PAYMENTS_AUDIT__ROTATION", "hourly"),
        ("PAYMENTS_AUDIT__WAIT_BOUND", "9s"),
        ("PAYMENTS_AUDIT__QUEUE_BYTES", "2000000"),
        ("PAYMENTS_AUDIT__EXCLUSIVE", "true"),
        ("PAYMENTS_AUDIT__ON_FULL", "drop_routine"),
    ])
    .unwrap();
    let audit = settings.audit;
    assert_eq!((settings.listen.as_str(), audit.dir.as_path()), ("[::1]:80", Path::new("elsewhere")));
    let expected = FlushMode::Hybrid {
        batch_size: 7,
        batch_interval: Duration::from_millis(500),
        critical_immediate: false,
    };
    assert_eq!(audit.flush_mode, Some(expected));
    assert_eq!(audit.rotation, Some(Rotation::hourly()));
    assert_eq!((audit.wait_bound, audit.queue_bytes), (Some(Duration::from_secs(9)), Some(2_000_000)));
    assert_eq!((audit.exclusive, audit.on_full), (Some(true), Some(OnFull::DropRoutine)));
}

#[test]
fn an_unknown_key_of_the_environment_is_named() {
    for (key, name) in
        [("PAYMENTS_AUDIT__FLUSHMODE", "flushmode"), ("PAYMENTS_AUDIT__FLUSH_MODE__INTERVALL", "intervall")]
    {
        let error = settings(&[(key, "1s")]).err().unwrap().to_string();
        assert!(error.contains(&format!("`{name}`")), "{error}");
    }
}

#[test]
fn a_value_out_of_range_is_an_error_of_open() {
    let (_dir, path) = fresh();
    for (text, setting) in [
        ("flush_mode = { mode = 'batched', size = 0 }", "flush_mode"),
        ("flush_mode = 'batched 5 0s'", "flush_mode"),
        ("rotation = '1KiB'", "rotation"),
        ("retention = { max_segments = 0 }", "retention"),
        ("queue_bytes = 5", "queue_bytes"),
        ("wait_bound = '2h'", "wait_bound"),
        ("critical_actions = ['--']", "critical_actions"),
        ("redact = ['']", "redact"),
    ] {
        let mut config: Config = toml::from_str(&format!("dir = 'x'\n{text}")).unwrap();
        config.dir.clone_from(&path);
        match config.open() {
            Err(Error::Setting { setting: named, .. }) => assert_eq!(named, setting),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(Config::default().open(), Err(Error::Setting { setting: "dir", .. })));
    assert!(!path.exists());
}

fn json(value: impl Serialize) -> Json {
    serde_json::to_value(value).unwrap()
}

#[test]
fn a_record_serialises_as_the_object_in_its_line() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || {
        tracing::info!(
            target: "audit",
            zebra = 0.1 + 0.2,
            action = "all.values",
            least = f64::from_bits(1),
            most = u64::MAX,
            negative = -9_007_199_254_740_991_i64,
            odd = f64::NAN,
            yes = true,
            text = "quote \" line\n feed \u{202e} \u{1f512}",
            apple = "last",
        );
    });
    log.close().unwrap();
    for record in records(&path) {
        let serialised = serde_json::to_string(&record).unwrap();
        let parsed = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        assert_eq!(parsed(&serialised), parsed(record.as_json()));
        // The order too, which `serde_json::Value` does not keep: without escapes, the output equals the line byte for
        // byte.
        if record.as_json().contains('\\') {
            let place = |name: &str| serialised.find(name).unwrap();
            assert!(place("zebra") < place("apple") && place("apple") < place("_hash"), "{serialised}");
        } else {
            assert_eq!(serialised, record.as_json());
        }
    }
}

#[track_caller]
fn is_text<T: Serialize + DeserializeOwned + ToString + PartialEq + std::fmt::Debug>(value: &T) {
    let text = json(value);
    assert_eq!(text, Json::String(value.to_string()));
    assert_eq!(serde_json::from_value::<T>(text).unwrap(), *value);
    assert!(serde_json::from_str::<T>("\"no such thing\"").is_err());
}

#[test]
fn heads_receipts_digests_and_names_are_their_text() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    let receipt: Receipt =
        with_layer(&log, || log.confirm(|| tracing::info!(target: "audit", action = "a")).unwrap());
    log.close().unwrap();
    is_text::<Receipt>(&receipt);
    is_text::<Head>(&receipt.head());
    is_text::<Digest>(&receipt.hash());
    is_text::<Health>(&Health::LowSpace);
    is_text::<Severity>(&Severity::Critical);
    is_text::<Verdict>(&Verdict::Damaged);
    is_text::<NoticeKind>(&NoticeKind::VolatileFileSystem);
}

#[test]
fn a_report_has_the_same_content_as_data_and_as_text() {
    let (_dir, path) = fresh();
    let log = AuditLog::open(&path).unwrap();
    with_layer(&log, || tracing::info!(target: "audit", action = "a", actor = "mia"));
    let head = log.close().unwrap();
    let intact = json(verify(&path).unwrap());
    assert_eq!(intact["verdict"], "intact");
    assert_eq!(intact["path"], path.to_str().unwrap());
    assert_eq!((&intact["records"], &intact["events"]), (&json(4), &json(1)));
    assert_eq!(intact["heads"], json([head.to_string()]));
    let chain = &intact["chains"][0];
    assert_eq!(
        (&chain["state"], &chain["head"], &chain["last_seq"]),
        (&json("closed"), &json(head), &json(4))
    );
    assert_eq!((&intact["findings"], &intact["counts"]["edited"]), (&json([(); 0]), &json(0)));
    assert_eq!(intact["not_checked"][0]["kind"], "end");

    let segment = &segments(&path)[0];
    fs::write(segment, fs::read_to_string(segment).unwrap().replace("mia", "eve")).unwrap();
    fs::write(path.join("foreign"), "").unwrap();
    let report = verify(&path).unwrap();
    let damaged = json(&report);
    assert_eq!((&damaged["verdict"], &damaged["counts"]["edited"]), (&json("damaged"), &json(1)));
    let found = &report.findings()[0];
    let expected = serde_json::json!({
        "kind": "edited", "chain": 0, "segment": 1, "line": 3, "offset": found.offset(), "seq": found.seq(),
        "message": found.message(),
    });
    assert_eq!(damaged["findings"][0], expected);
    let note = &report.notes()[0];
    let expected = serde_json::json!({ "kind": "foreign", "chain": null, "message": note.message() });
    assert_eq!((&damaged["notes"][0], &damaged["more_notes"]), (&expected, &json(0)));
}

#[test]
fn counters_and_notices_serialise_under_their_names_and_units() {
    let (_dir, path) = fresh();
    let (log, _) = open_with_notices(&path);
    with_layer(&log, || tracing::warn!(target: "audit", action = "auth.failure", actor = "mia"));
    wait_for("the sync", || log.stats().durable > 0);
    log.close().unwrap();
    with_layer(&log, || tracing::info!(target: "audit", action = "too.late", actor = "mia"));
    let stats = log.stats();
    let data = json(&stats);
    let expected = serde_json::json!([{ "reason": "closed", "severity": "routine", "events": 1 }]);
    assert_eq!((&data["accepted_critical"], &data["lost"]), (&json(1), &expected));
    assert_eq!(data["last_sync_duration_seconds"], json(stats.last_sync.as_secs_f64()));
    assert_eq!(data["oldest_not_durable_seconds"], json(stats.oldest_not_durable.as_secs_f64()));
    // The name of every plain counter and gauge has the same unit as its metric.
    let members = data.as_object().unwrap();
    stats.for_each(|name, labels, value| {
        let short = name.strip_prefix("tracing_audit_").unwrap();
        if labels.is_empty() && (short.ends_with("_seconds") || short.ends_with("_bytes")) {
            assert!((members[short].as_f64().unwrap() - value).abs() < 1e-9, "{short}");
        }
    });
    drop(log);

    // An earlier run that did not end cleanly is reported when the log is opened.
    let segment = &segments(&path)[0];
    let mut lines = fs::read_to_string(segment).unwrap();
    lines.push_str("{\"torn");
    fs::write(segment, lines).unwrap();
    let log = AuditLog::open(&path).unwrap();
    let recovery = json(log.recovery());
    let notice = &recovery["notices"][0];
    assert_eq!(notice["kind"], log.recovery().notices[0].kind.as_str());
    let time = notice["time"].as_str().unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    assert_eq!(json(log.health()), "healthy");
    log.close().unwrap();
}
