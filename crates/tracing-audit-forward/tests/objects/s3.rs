//! What only a server has: credentials, buckets, retention, lost answers.

use std::{sync::atomic::Ordering, time::Duration};

use tracing_audit_forward::{Archive, Objects, Retention, Sink as _, SinkError};

use crate::{
    Place, check_whole, log_of, position, positions, proxy,
    records::{events, read},
    server::{KEY, SECRET, Server, url_at},
};

#[track_caller]
fn setup<T: std::fmt::Debug>(outcome: Result<T, SinkError>) -> String {
    let Err(SinkError::Setup { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(!reason.contains(SECRET), "{reason}");
    reason
}

#[test]
fn errors_that_need_action_are_setup_errors() {
    let Some(server) = Server::start("errors_that_need_action_are_setup_errors") else { return };
    let entries = events(5);
    let ids = [entries[0].chain_id.clone()];
    let builder = |url: &str, key: &str, secret: &str| {
        Objects::builder(url).credentials(key, secret, None).timeout(Duration::from_secs(10)).build().unwrap()
    };
    let plain = server.url("plain", "");
    let reason = setup(builder(&plain, KEY, "Wr0ng").positions(&ids));
    assert!(reason.contains("SignatureDoesNotMatch") && reason.contains("s3://plain/"), "{reason}");
    let reason = setup(builder(&plain, "nobody", SECRET).offer(&entries));
    assert!(reason.contains("InvalidAccessKeyId"), "{reason}");
    let reason = setup(builder(&server.url("nowhere", ""), KEY, SECRET).positions(&ids));
    assert!(reason.contains("NoSuchBucket"), "{reason}");
    let archive = Objects::builder(&server.url("nowhere", "")).credentials(KEY, SECRET, None).archive();
    assert!(setup(archive.unwrap().verify()).contains("NoSuchBucket"));
    // Retention, on a bucket without object lock.
    let mut locking = server.builder("plain", "&retention=compliance&retain-days=1").build().unwrap();
    let reason = setup(locking.offer(&entries));
    assert!(reason.contains("object lock"), "{reason}");
    // Another machine is not contacted without TLS.
    let url = "s3://b?service=web&region=r&endpoint=http://192.0.2.1:9000";
    assert!(setup(Archive::new(url)).contains("without TLS"));
    Archive::new(&format!("{url}&allow-http=on")).unwrap();
    let closed = url_at(1, "plain", "");
    let outcome = builder(&closed, KEY, SECRET).positions(&ids);
    let Err(SinkError::Unavailable { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("onnect"), "{reason}");
}

/// Returns a header of an answer.
fn header(answer: &str, name: &str) -> Option<String> {
    let is_it = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
    Some(answer.lines().find(is_it)?.split_once(':')?.1.trim().to_owned())
}

#[test]
fn objects_are_under_the_requested_retention() {
    let Some(server) = Server::start("objects_are_under_the_requested_retention") else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 2, 20);
    let entries = read(&log);
    let builder = server.builder("locked/p", "&legal-hold=on").retention(Retention::Compliance, 2);
    let mut sink = builder.build().unwrap();
    sink.offer(&entries).unwrap();
    let chain = format!("web/n1/{}", entries[0].chain_id);
    for key in [
        format!("p/{chain}/00000001.jsonl.zst"),
        format!("p/{chain}/manifest-00000001.json"),
        format!("p/live/{chain}/00000001/00000001.jsonl"),
    ] {
        let answer = server.curl("HEAD", &format!("locked/{key}"), &["--head"]);
        let value = |name: &str| header(&answer, name).unwrap_or_else(|| panic!("{key}: {answer}"));
        assert_eq!(value("x-amz-object-lock-mode"), "COMPLIANCE");
        assert_eq!(value("x-amz-object-lock-legal-hold"), "ON");
        let until = value("x-amz-object-lock-retain-until-date");
        assert!(until.starts_with("20") && until.len() >= 20, "{until}");
        let version = value("x-amz-version-id");
        let answer = server.curl("DELETE", &format!("locked/{key}?versionId={version}"), &[]);
        assert!(answer.contains("AccessDenied"), "{answer}");
    }
    check_whole(&mut server.builder("locked/p", "").archive().unwrap(), &log);
}

#[test]
fn a_lost_answer_duplicates_nothing() {
    let Some(server) = Server::start("a_lost_answer_duplicates_nothing") else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), 3, 100);
    let entries = read(&log);
    let (port, faults) = proxy::start_for(server.port(), b"PUT /");
    let url = url_at(port, "plain/lost", "");
    // Without a proxy in between, because the signature covers the endpoint with its port.
    let mut sink = Objects::builder(&url).credentials(KEY, SECRET, None).build().unwrap();
    let mut taken = 0;
    for batch in entries.chunks(60) {
        for _ in 0..10 {
            faults.cut_after_commit.store(true, Ordering::SeqCst);
            if sink.offer(batch).is_ok() {
                break;
            }
        }
        taken += batch.len();
        assert_eq!(positions(&mut sink, &entries), [position(&entries[taken - 1])]);
    }
    assert!(faults.cuts.load(Ordering::SeqCst) >= 5, "{:?}", faults.cuts);
    check_whole(&mut Place::S3(&server, "plain/lost").archive(), &log);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() {
    let Some(server) = Server::start("a_server_that_does_not_answer_is_given_up_in_time") else { return };
    let (port, faults) = proxy::start_for(server.port(), b"PUT /");
    let builder = Objects::builder(&url_at(port, "plain", "")).credentials(KEY, SECRET, None);
    let mut sink = builder.timeout(Duration::from_secs(5)).build().unwrap();
    let entries = events(5);
    sink.offer(&entries[..2]).unwrap();
    faults.silence.store(true, Ordering::SeqCst);
    let begun = std::time::Instant::now();
    let outcome = sink.offer(&entries[2..]);
    let Err(SinkError::Unavailable { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("no answer within 5 s"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    faults.silence.store(false, Ordering::SeqCst);
    sink.offer(&entries[2..]).unwrap();
}
