//! Tests of settings as data, without a file or a log.

use std::time::Duration;

use tracing_core::Level;

use super::Config;
use crate::{
    log::AuditLog,
    settings::{FlushMode, OnFailure, OnFull, Retention, Rotation},
};

/// Each setting with a value that is not its default.
const EVERYTHING: &str = r#"
    dir = "some/where"
    service = "payments"
    flush_mode = { mode = "hybrid", batch_size = 50, batch_interval = "500ms", critical_immediate = false }
    rotation = { every = "hour", max_bytes = "64MiB" }
    retention = { max_age = "400d", max_bytes = "10GiB", max_segments = 1000, min_age = "90d", require_forwarded = ["archive", "postgres"], unless_free_below = "1GiB" }
    exclusive = true
    wait_for_chain = "1s"
    level = "debug"
    span_level = "trace"
    critical_actions = ["key.export"]
    inherit = ["tenant"]
    inherit_from = ["payments"]
    explicit = ["actor", "action"]
    redact = ["iban"]
    keep = ["token_count"]
    queue_bytes = "32MiB"
    wait_bound = "1m30s"
    low_space = 1000000
    group_readable = true
    allow_network_fs = true
    stderr = false
    on_full = "drop_routine"
    on_failure = "abort"
"#;

fn read(text: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(text)
}

#[track_caller]
fn value_of(setting: &str) -> Config {
    read(&format!("dir = 'x'\n{setting}")).unwrap()
}

/// Returns the message of a refused setting, without the excerpt of the text.
#[track_caller]
fn refusal(setting: &str) -> String {
    read(&format!("dir = 'x'\n{setting}")).unwrap_err().message().to_owned()
}

#[test]
fn every_setting_is_read_and_reaches_the_builder() {
    let config = read(EVERYTHING).unwrap();
    let day = Duration::from_secs(86_400);
    let expected = Config {
        dir: "some/where".into(),
        service: Some("payments".to_owned()),
        flush_mode: Some(FlushMode::Hybrid {
            batch_size: 50,
            batch_interval: Duration::from_millis(500),
            critical_immediate: false,
        }),
        rotation: Some(Rotation::hourly().max_bytes(64 << 20)),
        retention: Some(
            Retention::keep_all()
                .max_age(400 * day)
                .max_bytes(10 << 30)
                .max_segments(1000)
                .min_age(90 * day)
                .require_forwarded(["archive", "postgres"])
                .unless_free_below(1 << 30),
        ),
        exclusive: Some(true),
        wait_for_chain: Some(Duration::from_secs(1)),
        level: Some(Level::DEBUG),
        span_level: Some(Level::TRACE),
        critical_actions: vec!["key.export".to_owned()],
        inherit: vec!["tenant".to_owned()],
        inherit_from: vec!["payments".to_owned()],
        explicit: vec!["actor".to_owned(), "action".to_owned()],
        redact: vec!["iban".to_owned()],
        keep: vec!["token_count".to_owned()],
        queue_bytes: Some(32 << 20),
        wait_bound: Some(Duration::from_secs(90)),
        low_space: Some(1_000_000),
        group_readable: Some(true),
        allow_network_fs: Some(true),
        stderr: Some(false),
        on_full: Some(OnFull::DropRoutine),
        on_failure: Some(OnFailure::Abort),
    };
    assert_eq!(config, expected);
    let by_hand = AuditLog::builder("some/where")
        .service("payments")
        .flush_mode(expected.flush_mode.unwrap())
        .rotation(expected.rotation.unwrap())
        .retention(expected.retention.clone().unwrap())
        .exclusive(true)
        .wait_for_chain(Duration::from_secs(1))
        .level(Level::DEBUG)
        .span_level(Level::TRACE)
        .critical_actions(["key.export"])
        .inherit(["tenant"])
        .inherit_from(["payments"])
        .explicit(["actor", "action"])
        .redact(["iban"])
        .keep(["token_count"])
        .queue_bytes(32 << 20)
        .wait_bound(Duration::from_secs(90))
        .low_space(1_000_000)
        .group_readable(true)
        .allow_network_fs(true)
        .stderr(false)
        .on_full(OnFull::DropRoutine)
        .on_failure(OnFailure::Abort);
    assert_eq!(config.builder().everything(), by_hand.everything());
}

#[test]
fn what_is_left_out_has_the_default_of_the_builder() {
    let config = read("dir = 'x'").unwrap();
    assert_eq!(config, Config::new("x"));
    assert_eq!(format!("{config:?}"), "Config { dir: \"x\" }");
    assert_eq!(config.builder().everything(), AuditLog::builder("x").everything());
}

#[test]
fn what_is_written_is_read_back() {
    for text in [
        "dir = 'x'",
        EVERYTHING,
        "dir = 'x'\nrotation = '256MiB'\nretention = 'keep_all'\nflush_mode = 'batched'",
    ] {
        let config = read(text).unwrap();
        let written = toml::to_string(&config).unwrap();
        assert_eq!(read(&written).unwrap(), config, "{written}");
    }
    assert_eq!(toml::to_string(&Config::new("x")).unwrap(), "dir = \"x\"\n");
}

#[test]
fn only_what_is_set_is_shown() {
    let shown = format!("{:?}", read(EVERYTHING).unwrap());
    for line in EVERYTHING.lines().filter_map(|line| line.split_once(" = ")) {
        assert!(shown.contains(&format!("{}: ", line.0.trim())), "{shown} {line:?}");
    }
}

#[test]
fn a_setting_is_a_text_or_a_table() {
    let flush_mode = |text: &str| value_of(&format!("flush_mode = {text}")).flush_mode.unwrap();
    assert_eq!(flush_mode("'immediate'"), FlushMode::Immediate);
    assert_eq!(flush_mode("{ mode = 'immediate' }"), FlushMode::Immediate);
    assert_eq!(flush_mode("'hybrid'"), FlushMode::default());
    assert_eq!(flush_mode("{ mode = 'hybrid' }"), FlushMode::default());
    assert_eq!(flush_mode("'batched 100 1s'"), flush_mode("{ mode = 'batched' }"));
    assert_eq!(
        flush_mode("{ interval = '2s', size = 7, mode = 'batched' }"),
        FlushMode::Batched { size: 7, interval: Duration::from_secs(2) }
    );
    let rotation = |text: &str| value_of(&format!("rotation = {text}")).rotation.unwrap();
    assert_eq!(rotation("'daily 256MiB'"), Rotation::default());
    assert_eq!(rotation("{ every = 'day', max_bytes = 268435456 }"), Rotation::default());
    assert_eq!(rotation("{ every = 'hour' }"), Rotation::hourly());
    assert_eq!(rotation("{ every = 'day' }"), Rotation::default());
    assert_eq!(rotation("1_000_000"), Rotation::never().max_bytes(1_000_000));
    let retention = |text: &str| value_of(&format!("retention = {text}")).retention.unwrap();
    assert_eq!(retention("'keep_all'"), Retention::keep_all());
    assert_eq!(retention("{}"), Retention::keep_all());
    assert_eq!(retention("'max_segments 3'"), retention("{ max_segments = 3 }"));
    assert_eq!(
        retention("'require_forwarded archive,postgres unless_free_below 1GiB'"),
        retention("{ require_forwarded = ['archive', 'postgres'], unless_free_below = '1GiB' }")
    );
    assert_eq!(value_of("level = 'WARN'").level, Some(Level::WARN));
}

/// A misspelt key would otherwise be a setting that is silently not applied.
#[test]
fn an_unknown_key_is_named() {
    for (setting, key) in [
        ("flushmode = 'hybrid'", "flushmode"),
        ("flush_mode = { mode = 'hybrid', size_of_batch = 5 }", "size_of_batch"),
        ("flush_mode = { mode = 'hybrid', size = 5 }", "size"),
        ("flush_mode = { mode = 'hybrid', interval = '5s' }", "interval"),
        ("flush_mode = { mode = 'batched', batch_size = 5 }", "batch_size"),
        ("flush_mode = { mode = 'batched', batch_interval = '5s' }", "batch_interval"),
        ("flush_mode = { mode = 'batched', critical_immediate = true }", "critical_immediate"),
        ("flush_mode = { mode = 'immediate', size = 5 }", "size"),
        ("flush_mode = { mode = 'immediate', critical_immediate = true }", "critical_immediate"),
        ("rotation = { every = 'day', bytes = 5 }", "bytes"),
        ("retention = { age = '5d' }", "age"),
    ] {
        let refusal = refusal(setting);
        assert!(refusal.contains(&format!("`{key}`")), "{setting}: {refusal}");
    }
}

#[test]
fn a_value_that_cannot_be_read_says_what_was_expected() {
    for (setting, expected) in [
        ("wait_bound = 5", "cannot read \"5\" as a duration"),
        ("wait_bound = '5 seconds'", "`1h30m`"),
        ("wait_bound = true", "a duration such as \"1s\""),
        ("queue_bytes = '5 megs'", "`256MiB`"),
        ("queue_bytes = -5", "cannot read \"-5\" as a size"),
        ("low_space = 0.5", "a size such as"),
        ("level = 'loud'", "`trace`"),
        ("flush_mode = 'hybrit'", "`hybrid`"),
        ("flush_mode = 5", "`hybrid`"),
        ("flush_mode = ['hybrid']", "as text or as a table"),
        ("flush_mode = { mode = 'hybrit' }", "`hybrid`"),
        ("flush_mode = { size = 5 }", "`mode`"),
        ("rotation = 'weekly'", "`daily`"),
        ("rotation = {}", "`every`"),
        ("rotation = { every = 'week' }", "`day`"),
        ("retention = '90d'", "`keep_all`"),
        ("on_full = 'drop'", "`drop_routine`"),
        ("on_failure = 'panic'", "`abort`"),
        ("exclusive = 'perhaps'", "boolean"),
    ] {
        let refusal = refusal(setting);
        assert!(refusal.contains(expected), "{setting}: {refusal}");
    }
    assert!(read("service = 'x'").unwrap_err().message().contains("`dir`"));
}

/// The example in the documentation of `Config` has every key, with its default as the value, except the lists.
#[test]
fn the_documented_settings_are_complete() {
    let source = include_str!("mod.rs");
    let block = source.split("/// ```toml\n").nth(1).unwrap().split("/// ```").next().unwrap();
    let text: String = block.lines().map(|line| line.trim_start_matches("///").to_owned() + "\n").collect();
    let config = read(&text).unwrap();
    let written = toml::to_string(&config).unwrap();
    let all = toml::to_string(&read(EVERYTHING).unwrap()).unwrap();
    let keys = |text: &str| {
        text.lines().map(|line| line.split(" = ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&written), keys(&all));
    let settled = Config {
        dir: "x".into(),
        service: None,
        retention: None,
        critical_actions: Vec::new(),
        inherit: Vec::new(),
        inherit_from: Vec::new(),
        explicit: Vec::new(),
        redact: Vec::new(),
        keep: Vec::new(),
        // Setting it to its default is not the same as leaving it out, see `Builder::span_level`.
        span_level: None,
        ..config
    };
    assert_eq!(settled.builder().everything(), AuditLog::builder("x").everything());
    // The alternatives in its comments can be read too.
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("# ")) {
        value_of(line);
    }
}
