//! Each way in which a receiver refuses records.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use tracing_audit_forward::{Entry, Otlp, Sink as _, SinkError};

use crate::{log::with_events, receiver::Receiver};

fn setup(error: &SinkError) -> bool {
    matches!(error, SinkError::Setup { .. })
}

fn refused(error: &SinkError) -> bool {
    matches!(error, SinkError::Refused { .. })
}

fn unavailable(error: &SinkError) -> bool {
    matches!(error, SinkError::Unavailable { retry_after: None, .. })
}

fn sink(receiver: &Receiver) -> Otlp {
    Otlp::builder(&receiver.url()).timeout(Duration::from_secs(2)).build().unwrap()
}

/// Divides a batch as a forwarder does until it knows which records are refused. Returns these.
fn divide(sink: &mut Otlp, batch: &[Entry]) -> Vec<u64> {
    match (sink.offer(batch), batch) {
        (Ok(()), _) => Vec::new(),
        (Err(SinkError::Refused { .. }), [one]) => vec![one.record.seq()],
        (Err(SinkError::Refused { .. }), _) => {
            let (first, second) = batch.split_at(batch.len() / 2);
            let mut refused = divide(sink, first);
            refused.extend(divide(sink, second));
            refused
        }
        (Err(other), _) => panic!("{other}"),
    }
}

/// Returns how often each record arrived.
fn arrivals(receiver: &Receiver) -> BTreeMap<u64, usize> {
    let mut arrivals = BTreeMap::new();
    for record in receiver.records() {
        *arrivals.entry(record["attributes"]["audit.seq"]["int_value"].as_u64().unwrap()).or_default() += 1;
    }
    arrivals
}

#[test]
fn each_status_has_its_class() {
    let Some(receiver) = Receiver::start() else { return };
    let entries = with_events(3);
    let mut sink = sink(&receiver);
    let mut check = |statuses: &[u16], is_expected: fn(&SinkError) -> bool| {
        for status in statuses {
            receiver.answer(*status, &json!({}), "because");
            let error = sink.offer(&entries).unwrap_err();
            assert!(is_expected(&error), "{status}: {error:?}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
            assert!(error.to_string().ends_with(": because"), "{error}");
            assert!(is_expected(&sink.gap(&gap()).unwrap_err()));
        }
    };
    check(&[401, 403, 404, 405, 407, 415], setup);
    check(&[400, 409, 413, 422], refused);
    check(&[408, 429, 500, 501, 502, 503, 504], unavailable);
    assert!(receiver.records().is_empty());
    receiver.control(&json!({"mode": "ok"}));
    sink.offer(&entries).unwrap();
    assert_eq!(receiver.records().len(), entries.len());
}

fn gap() -> tracing_audit_forward::Gap {
    tracing_audit_forward::Gap::new("5f1c2a9be07d4c3388a1d6e2b94f7013".into(), 0, 1..=2)
}

#[test]
fn a_pause_is_as_long_as_the_receiver_asks() {
    let Some(receiver) = Receiver::start() else { return };
    let entries = with_events(1);
    let mut sink = sink(&receiver);
    let mut asked = |status: u16, retry_after: &str| {
        receiver.answer(status, &json!({"retry-after": retry_after}), "");
        match sink.offer(&entries) {
            Err(SinkError::Unavailable { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(429, "17"), Some(Duration::from_secs(17)));
    assert_eq!(asked(503, "0"), Some(Duration::ZERO));
    assert_eq!(asked(503, "later"), None);
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
    let pause = asked(503, &date).unwrap();
    assert!(pause > Duration::from_secs(60) && pause <= Duration::from_secs(100), "{pause:?}");
}

#[test]
fn what_is_refused_occasionally_arrives_when_offered_again() {
    let Some(receiver) = Receiver::start() else { return };
    receiver.control(&json!({"mode": "refuse_every_third", "message": "not this one"}));
    let entries = with_events(30);
    let mut sink = sink(&receiver);
    let mut refusals = 0;
    for entry in &entries {
        while let Err(error) = sink.offer(std::slice::from_ref(entry)) {
            assert_eq!(
                error.to_string(),
                format!("http://127.0.0.1:{} answered 400 Bad Request: not this one", receiver.port)
            );
            refusals += 1;
        }
    }
    assert!(refusals >= 10);
    // Each once, and in order: nothing of a refused batch was accepted.
    let bodies: Vec<_> =
        receiver.records().iter().map(|record| record["body"].as_str().unwrap().to_owned()).collect();
    assert!(bodies.iter().map(String::as_str).eq(entries.iter().map(|entry| entry.record.as_json())));
}

/// OTLP does not tell which records were rejected. So the batch is divided, and what was accepted arrives
/// again.
#[test]
fn a_batch_with_a_partial_success_is_divided_until_the_rejected_record_is_found() {
    let Some(receiver) = Receiver::start() else { return };
    receiver.control(&json!({"mode": "partial", "action": "action-5", "message": "too old"}));
    let entries = with_events(12);
    let mut sink = sink(&receiver);
    let error = sink.offer(&entries).unwrap_err();
    assert_eq!(
        error,
        SinkError::Refused {
            reason: format!("http://127.0.0.1:{} rejected 1 of 15 log records: too old", receiver.port)
        }
    );
    let rejected =
        entries.iter().find(|entry| entry.record.action() == Some("action-5")).unwrap().record.seq();
    assert_eq!(divide(&mut sink, &entries), [rejected]);
    let arrivals = arrivals(&receiver);
    for entry in entries.iter().filter(|entry| entry.record.seq() != rejected) {
        assert!(arrivals[&entry.record.seq()] >= 2, "the documents say that they double");
    }
    assert!(!arrivals.contains_key(&rejected));
}

#[test]
fn a_message_without_rejected_records_is_a_warning() {
    let Some(receiver) = Receiver::start() else { return };
    receiver.control(&json!({"mode": "warn", "message": "use a newer version"}));
    let (say, said) = std::sync::mpsc::channel();
    let mut sink = Otlp::builder(&receiver.url())
        .on_warning(move |warning| say.send(warning.to_owned()).unwrap())
        .build()
        .unwrap();
    sink.offer(&with_events(2)).unwrap();
    let expected = format!("http://127.0.0.1:{} warns: use a newer version", receiver.port);
    assert_eq!(said.try_iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_page_acknowledges_nothing() {
    let Some(receiver) = Receiver::start() else { return };
    receiver.control(&json!({"mode": "html"}));
    let error = sink(&receiver).offer(&with_events(1)).unwrap_err();
    assert!(setup(&error));
    assert!(error.to_string().contains("answered 200 with text/html"), "{error}");
}

#[test]
fn a_redirect_is_not_followed() {
    let Some(receiver) = Receiver::start() else { return };
    let mut sink = sink(&receiver);
    for status in [301, 302, 303, 307, 308] {
        let before = receiver.requests().len();
        receiver.answer(status, &json!({"location": "/elsewhere/v1/logs"}), "");
        assert!(setup(&sink.offer(&with_events(1)).unwrap_err()));
        assert_eq!(receiver.requests().len(), before + 1);
    }
}

#[test]
fn a_receiver_that_hangs_is_abandoned_after_the_timeout() {
    let Some(receiver) = Receiver::start() else { return };
    receiver.control(&json!({"mode": "hang"}));
    let mut sink = Otlp::builder(&receiver.url()).timeout(Duration::from_millis(300)).build().unwrap();
    let begun = Instant::now();
    let error = sink.offer(&with_events(1)).unwrap_err();
    assert!(unavailable(&error), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().ends_with("did not answer in time"), "{error}");
}

/// The receiver has the records, and nobody knows it: they are sent again.
#[test]
fn a_connection_that_is_cut_after_the_request_duplicates_the_records() {
    let Some(receiver) = Receiver::start() else { return };
    let entries = with_events(2);
    let mut sink = sink(&receiver);
    receiver.control(&json!({"mode": "cut"}));
    let error = sink.offer(&entries).unwrap_err();
    assert!(unavailable(&error), "{error:?}");
    receiver.control(&json!({"mode": "ok"}));
    sink.offer(&entries).unwrap();
    assert!(arrivals(&receiver).values().all(|arrivals| *arrivals == 2));
}

#[test]
fn a_missing_receiver_is_unavailable() {
    // Nobody listens on a port that was released.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let entries = with_events(1);
    let mut sink = Otlp::new(&format!("http://127.0.0.1:{port}")).unwrap();
    let error = sink.offer(&entries).unwrap_err();
    assert!(unavailable(&error), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    let mut sink = Otlp::new("http://receiver.invalid").unwrap();
    assert!(unavailable(&sink.offer(&entries).unwrap_err()));
}

#[test]
fn what_does_not_speak_http_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n\r\n").unwrap();
        stream
    });
    let mut sink =
        Otlp::builder(&format!("http://127.0.0.1:{port}")).timeout(Duration::from_secs(2)).build().unwrap();
    assert!(unavailable(&sink.offer(&with_events(1)).unwrap_err()));
    drop(server.join().unwrap());
}
