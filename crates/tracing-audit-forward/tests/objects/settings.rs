//! Settings from the environment, besides the URL. Each test runs itself again, with the variables.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use tracing_audit_forward::{Archive, Objects, Sink as _, SinkError};

use crate::{
    records::events,
    server::{KEY, SECRET, url_at},
};

/// Returns whether this is the process with the variables. Otherwise starts it, and checks that it succeeds.
#[track_caller]
fn has_variables(test: &str, variables: &[(&str, &str)]) -> bool {
    if std::env::var_os("AUDIT_TEST_CHILD").is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("settings::{test}")]).env("AUDIT_TEST_CHILD", "1");
    let output = child.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    false
}

/// Accepts requests, and returns the headers of each.
fn listen() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(client).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            drop(sender.send(head.join("\n").to_ascii_lowercase()));
        }
    });
    (port, heads)
}

#[track_caller]
fn check_refused(url: &str) {
    match Archive::new(url) {
        Err(SinkError::Setup { reason }) => assert!(reason.contains("without TLS"), "{reason}"),
        outcome => panic!("{url}: {outcome:?}"),
    }
}

#[test]
fn an_endpoint_of_the_environment_is_not_reached_without_tls() {
    let variables = [("AWS_ENDPOINT_URL_S3", "http://192.0.2.1:9000"), ("AWS_ENDPOINT", "https://192.0.2.2")];
    if has_variables("an_endpoint_of_the_environment_is_not_reached_without_tls", &variables) {
        check_refused("s3://b?service=web&region=r");
        Archive::new("s3://b?service=web&region=r&allow-http=on").unwrap();
        Archive::new("s3://b?service=web&region=r&endpoint=https://192.0.2.2").unwrap();
        check_refused("s3://b?service=web&region=r&endpoint=HTTP://192.0.2.2");
        check_refused("s3://b?service=web&region=r&endpoint=http://localhost.example:9000");
    }
}

#[test]
fn the_endpoint_of_the_url_takes_precedence_and_no_token_of_another_key_is_sent() {
    let variables = [("AWS_ENDPOINT_URL_S3", "http://192.0.2.1:9000"), ("AWS_SESSION_TOKEN", "T0ken")];
    if has_variables(
        "the_endpoint_of_the_url_takes_precedence_and_no_token_of_another_key_is_sent",
        &variables,
    ) {
        let (port, heads) = listen();
        let builder = Objects::builder(&url_at(port, "b", "")).credentials(KEY, SECRET, None);
        let mut sink = builder.timeout(Duration::from_secs(2)).build().unwrap();
        sink.offer(&events(2)).unwrap_err();
        let head = heads.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(head.contains("authorization:") && !head.contains("x-amz-security-token"), "{head}");
    }
}

#[test]
fn missing_credentials_are_reported_as_such() {
    let variables = [("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1"), ("AWS_EC2_METADATA_DISABLED", "true")];
    if has_variables("missing_credentials_are_reported_as_such", &variables) {
        let mut sink = Objects::builder(&url_at(1, "b", "")).timeout(Duration::from_secs(2)).build().unwrap();
        let reason = sink.offer(&events(2)).unwrap_err().to_string();
        assert!(reason.contains("credentials"), "{reason}");
    }
}

/// What the check of the endpoint misses, the connection detects.
#[test]
fn nothing_is_sent_to_another_machine_without_tls() {
    let variables = [("AWS_METADATA_ENDPOINT", "http://192.0.2.1:1")];
    if has_variables("nothing_is_sent_to_another_machine_without_tls", &variables) {
        let url = "s3://b?service=web&region=r&endpoint=https://192.0.2.1";
        let mut sink = Objects::builder(url).timeout(Duration::from_secs(2)).build().unwrap();
        let reason = sink.offer(&events(2)).unwrap_err().to_string();
        assert!(reason.contains("without TLS"), "{reason}");
    }
}
