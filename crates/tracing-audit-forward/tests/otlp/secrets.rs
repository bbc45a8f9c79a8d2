//! The texts of the sink contain neither credentials nor the content of records.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tracing_audit_forward::{Otlp, Sink as _};

use crate::{log::written, receiver::Receiver};

/// Everything that the HTTP client and its dependencies log in this process, of all tests.
struct Captured(Mutex<String>);

static HEARD: Captured = Captured(Mutex::new(String::new()));

impl log::Log for Captured {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(self.0.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

#[test]
fn no_text_contains_credentials_or_recorded_values() {
    let Some(receiver) = Receiver::start() else { return };
    let heard = Arc::new(Mutex::new(Vec::new()));
    let warnings = Arc::clone(&heard);
    let builder = Otlp::builder(&format!(
        "http://mia:hunter2@127.0.0.1:{}/receiver/tokenInPath?key=tokenInQuery",
        receiver.port
    ))
    .header("authorization", "Bearer tokenInHeader")
    .header("x-api-key", "otherToken")
    .timeout(Duration::from_millis(500))
    .on_warning(move |warning| warnings.lock().unwrap().push(warning.to_owned()));
    let mut texts = vec![format!("{builder:?}")];
    let mut sink = builder.build().unwrap();
    texts.push(format!("{sink:?}"));
    let entries = written(
        |builder| builder,
        || tracing::info!(target: "audit", action = "a", actor = "recordedActor", card = "recordedCard", "recordedText"),
    );

    // A receiver that quotes everything that it got.
    let echo = "no: Bearer tokenInHeader otherToken mia:hunter2 /receiver/tokenInPath/v1/logs?key=tokenInQuery \
                recordedActor recordedCard recordedText";
    let mut settings = vec![json!({"mode": "html"}), json!({"mode": "hang"}), json!({"mode": "cut"})];
    for mode in ["partial", "warn", "refuse_every_third"] {
        for _ in 0..3 {
            settings.push(json!({"mode": mode, "action": "a", "message": echo}));
        }
    }
    for status in [200, 202, 302, 400, 401, 403, 404, 413, 429, 500, 503] {
        settings.push(json!({"mode": "status", "status": status, "text": echo, "headers": {"location": "http://hunter2"}}));
    }
    let mut said = 0;
    for settings in settings {
        receiver.control(&settings);
        if let Err(error) = sink.offer(&entries) {
            texts.push(error.to_string());
            texts.push(format!("{error:?}"));
            said += 1;
        }
    }
    assert!(said >= 15, "{said}");
    assert_eq!(heard.lock().unwrap().len(), 3);
    texts.append(&mut heard.lock().unwrap());
    for text in &texts {
        for secret in ["token", "Token", "hunter2", "recorded", "bWlhOmh1bnRlcjI"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    // The rest of the receiver's text is there.
    assert!(texts.iter().any(|text| text.contains("400 Bad Request: no: … …")), "{texts:#?}");
}

/// The HTTP client dumps what it sends at `trace`, 16 bytes per line, so the secrets here repeat themselves.
#[test]
fn no_log_contains_credentials() {
    let Some(receiver) = Receiver::start() else { return };
    log::set_logger(&HEARD).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let entries = written(|builder| builder, || tracing::info!(target: "audit", action = "a", actor = "mia"));
    let secret = "Zw9".repeat(20);
    for (url, header) in [("", format!("Bearer {secret}")), ("ab:", String::new())] {
        let user = if url.is_empty() { String::new() } else { format!("{url}{secret}@") };
        let mut builder = Otlp::builder(&format!("http://{user}127.0.0.1:{}", receiver.port));
        if user.is_empty() {
            builder = builder.header("authorization", &header);
        }
        let mut sink = builder.header("x-key", &secret).header("x-short", "Zw9").build().unwrap();
        // Also on a connection that is reused, and after a request without an answer.
        sink.offer(&entries).unwrap();
        sink.offer(&entries).unwrap();
        receiver.control(&json!({"mode": "cut"}));
        sink.offer(&entries).unwrap_err();
        receiver.control(&json!({"mode": "ok"}));
        sink.offer(&entries).unwrap();
    }
    log::set_max_level(log::LevelFilter::Off);
    let log = HEARD.0.lock().unwrap();
    assert!(log.contains("ureq_proto::util"));
    for secret in ["Zw9", "Wnc5"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    // They were sent nevertheless.
    let basic = format!("Basic YWI6{}", "Wnc5".repeat(20));
    let expected = [format!("Bearer {secret}"), basic];
    for (index, request) in receiver.requests().iter().enumerate() {
        assert_eq!(request["headers"]["authorization"], expected[index / 4]);
        assert_eq!(request["headers"]["x-key"], secret);
        assert_eq!(request["headers"]["x-short"], "Zw9");
    }
    assert_eq!(receiver.requests().len(), 8);
}

/// The HTTP client gets asterisks for the value of a header. A record with the same asterisks is unchanged,
/// even in a body of many writes.
#[test]
fn a_record_that_looks_like_a_header_is_not_completed() {
    let Some(receiver) = Receiver::start() else { return };
    let text = "\r\nx-key: ********\r\n\r\nPOST /v1/logs HTTP/1.1\r\nx-key: ********\r\n\r\n".repeat(90);
    let entries = written(
        |builder| builder,
        || {
            for _ in 0..100 {
                tracing::info!(target: "audit", action = "a", actor = "mia", text);
            }
        },
    );
    let mut sink = Otlp::builder(&receiver.url()).header("x-key", "recorded").build().unwrap();
    sink.offer(&entries).unwrap();
    let request = receiver.requests().remove(0);
    assert_eq!(request["headers"]["x-key"], "recorded");
    assert!(request["bytes"].as_u64().unwrap() > 1_000_000);
    for (record, entry) in request["records"].as_array().unwrap().iter().zip(&entries) {
        assert_eq!(record["body"], entry.record.as_json());
        if entry.record.is_event() {
            assert_eq!(record["attributes"]["audit.fields.text"]["string_value"], text);
        }
    }
}

#[test]
fn no_error_contains_the_text_of_a_setting() {
    for builder in [
        Otlp::builder("hunter2"),
        Otlp::builder("ftp://mia:hunter2@host"),
        Otlp::builder("http://host").header("x-key", "hunter2\r\nx"),
        Otlp::builder("http://host").header("Bearer hunter2", "x"),
        Otlp::builder("http://mia:hunter2@host").timeout(Duration::ZERO),
        Otlp::builder("http://mia:hunter2@host").timeout(Duration::MAX),
        Otlp::builder("http://mia:hunter2@host").ca_file("/does/not/exist"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
