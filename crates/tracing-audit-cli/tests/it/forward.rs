//! `verify` and `forward`.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::place::Place;
use tracing_audit::{AuditLog, Retention};

#[test]
fn a_log_is_verified() {
    let (place, head) = Place::new();
    let (code, said, _) = place.run("verify log");
    assert!(code == 0 && said.starts_with("PASS: ") && said.contains("10 events"), "{said}");
    assert_eq!(
        place.run(&format!("verify log --quiet --head {head}")),
        (0, "intact\n".into(), String::new())
    );
    let elsewhere = head.to_string().replace(|digit: char| digit.is_ascii_lowercase(), "0");
    assert_eq!(
        place.run(&format!("verify log -q --head {elsewhere}")),
        (1, "damaged\n".into(), String::new())
    );
    let file = place.path("log/audit-000-00000001.jsonl");
    fs::write(&file, fs::read_to_string(&file).unwrap().replacen("mia", "eve", 1)).unwrap();
    assert_eq!(place.run("verify log -q").0, 1);
    let (code, said, error) = place.run("verify nowhere");
    assert_eq!((code, said.as_str()), (2, ""));
    assert!(error.contains("cannot verify nowhere: there is no audit log at nowhere"), "{error}");
    assert_eq!(place.run("verify log --head 7").0, 2);
}

#[test]
fn a_log_is_forwarded_once_and_again() {
    let (place, _) = Place::new();
    let log = || fs::read_to_string(place.path("log/audit-000-00000001.jsonl")).unwrap();
    let copy = || fs::read_to_string(place.path("copy.jsonl")).unwrap();
    assert_eq!(place.run("forward log --to file:copy.jsonl --once"), (0, String::new(), String::new()));
    assert_eq!(copy(), log());
    place.emit(5);
    assert_eq!(place.run("forward log --to file:copy.jsonl --once").0, 0);
    assert_eq!(copy(), log());
    let (code, said, _) = place.run("forward status log");
    assert_eq!(
        (code, said.as_str()),
        (
            0,
            "file: not running, 0 records refused\n  chain 000: the store has record 20; 0 durable records after it\n"
        )
    );
    assert_eq!(place.run("forward log --to file:now.jsonl --name now --from now --once").0, 0);
    assert_eq!(fs::read_to_string(place.path("now.jsonl")).unwrap(), "");
    let (_, said, _) = place.run("forward status log");
    let now = "chain 000: forwarding began after record 20, and the store has acknowledged nothing since; 0 durable records after it\n";
    assert!(said.ends_with(now), "{said}");
    assert_eq!(place.run("forward rejected log file"), (0, String::new(), String::new()));
}

/// One unreadable chain once made all of these commands fail.
#[test]
fn an_unreadable_chain_is_reported_and_stops_no_other_command() {
    let (place, _) = Place::new();
    assert_eq!(place.run("forward log --to file:copy.jsonl --once").0, 0);
    fs::create_dir(place.path("log/audit-001-00000001.jsonl")).unwrap();
    let (code, said, _) = place.run("forward status log");
    let chains = "  chain 000: the store has record 13; 0 durable records after it\n  chain 001: the store has nothing; the chain \
                  cannot be read\n";
    assert!(code == 0 && said.ends_with(chains), "{said}");
    let required = "required now: file\n".to_owned();
    assert_eq!(place.run("forward require log file"), (0, required, String::new()));
    let (code, said, _) = place.run("forward lift log file");
    assert!(code == 0 && said.starts_with("required now: nothing\n"), "{said}");
}

#[test]
fn a_copy_is_verified() {
    let (place, head) = Place::new();
    assert_eq!(place.run("forward log --to file:copy.jsonl --once").0, 0);
    let (code, said, _) = place.run(&format!("verify file:copy.jsonl --of log --head {head}"));
    assert!(code == 0 && said.contains("13"), "{said}");
    // A head that is not the last one is found too.
    let chain = &head.to_string()[..3];
    for (seq, code) in [(7, 1), (12, 1), (99, 1)] {
        let wrong = format!("{chain}/{seq}:{}", "ab".repeat(32));
        let (found, said, _) = place.run(&format!("verify file:copy.jsonl --of log --head {wrong}"));
        assert!(found == code && said.contains(&wrong), "{said}");
    }
    for record in tracing_audit::read(place.path("log")).unwrap().map(Result::unwrap) {
        let line = format!("verify file:copy.jsonl -q --head {}", record.head());
        assert_eq!(place.run(&line).0, 0, "{line}");
    }
    let whole = fs::read_to_string(place.path("copy.jsonl")).unwrap();
    let without = |n: usize| {
        whole.lines().enumerate().filter(move |(at, _)| *at != n).map(|(_, line)| format!("{line}\n"))
    };
    for (what, copy) in [
        ("edited", whole.replacen("mia", "eve", 1)),
        ("a line deleted", without(5).collect()),
        ("the last line deleted", without(12).collect()),
        ("a line twice", whole.clone() + whole.lines().nth(3).unwrap() + "\n"),
        ("another line", whole.clone() + "{}\n"),
    ] {
        fs::write(place.path("copy.jsonl"), copy).unwrap();
        let (code, said, _) = place.run(&format!("verify file:copy.jsonl --quiet --head {head}"));
        assert_eq!((code, said.as_str()), (1, "damaged\n"), "{what}");
    }
    let (code, _, said) = place.run("verify file:nothing.jsonl");
    assert!(code == 2 && said.contains("nothing.jsonl"), "{said}");
    // If forwarding did not begin with the first record, the log shows where it did.
    assert_eq!(place.run("forward log --to file:now.jsonl --name now --from now --once").0, 0);
    for _ in 0..3 {
        place.emit(2);
        assert_eq!(
            place.run("forward log --to file:now.jsonl --name now --once"),
            (0, String::new(), String::new())
        );
    }
    assert_eq!(fs::read_to_string(place.path("now.jsonl")).unwrap().lines().count(), 12);
    assert_eq!(place.run("verify file:now.jsonl -q").0, 1);
    assert_eq!(place.run("verify file:now.jsonl -q --of log --name now").0, 0);
}

#[test]
fn forwarders_are_required_and_lifted() {
    let (place, _) = Place::new();
    let segments = || {
        let names = fs::read_dir(place.path("log")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("audit-")).count()
    };
    // A program without the setting.
    let prune = || {
        let retention = Retention::keep_all().max_segments(1);
        let log = AuditLog::builder(place.path("log")).stderr(false).retention(retention).open().unwrap();
        log.rotate().unwrap();
        log.close().unwrap();
    };
    let waits = "no forwarder file has run here: until one does, nothing is removed\n";
    let required = format!("required now: file\n{waits}");
    assert_eq!(place.run("forward require log file"), (0, required, String::new()));
    prune();
    assert_eq!(segments(), 2, "no position: nothing of the chain was forwarded");
    assert_eq!(place.run("forward log --to file:copy.jsonl --once").0, 0);
    prune();
    assert_eq!(segments(), 2, "the first one was forwarded, the second not yet");
    let both =
        "required now: file, tape\nno forwarder tape has run here: until one does, nothing is removed\n";
    assert_eq!(place.run("forward require log file tape"), (0, both.into(), String::new()));
    let (code, _, said) = place.run("forward lift log tape disk");
    assert_eq!(code, 2);
    assert!(said.contains("log/forward-required does not require disk; it requires file, tape"), "{said}");
    let (code, said, _) = place.run("forward lift log tape");
    assert!(code == 0 && said.starts_with("required now: file\na program that opens the log with"), "{said}");
    let (code, said, _) = place.run("forward lift log file");
    assert!(code == 0 && said.starts_with("required now: nothing\n"), "{said}");
    assert!(!place.path("log/forward-required").exists());
    prune();
    assert_eq!(segments(), 1);
    let (code, _, said) = place.run("forward lift log file");
    assert!(code == 2 && said.contains("it requires nothing"), "{said}");
    let (code, _, said) = place.run("forward require nowhere file");
    assert!(code == 2 && said.contains("there is no audit log at nowhere"), "{said}");
    // A program that requires it by its settings adds it again.
    let retention = Retention::keep_all().require_forwarded(["file"]);
    let log = AuditLog::builder(place.path("log")).stderr(false).retention(retention).open().unwrap();
    log.close().unwrap();
    assert_eq!(place.run("forward lift log file").0, 0);
    assert_eq!(place.run("verify log -q").0, 0);
}

#[test]
fn impossible_requests_are_refused_with_the_reason() {
    let (place, head) = Place::new();
    for (line, expected) in [
        ("forward log --to file: --once", "`file:` needs a path after it"),
        ("forward log --to ftp://user:secret@host/x --once", "no store is known for `ftp:`"),
        ("forward log --to file:copy.jsonl --name A/B --once", "the name of a forwarder is"),
        ("forward log --to file:copy.jsonl --from yesterday --once", "invalid value 'yesterday'"),
        ("forward status nowhere", "there is no audit log at nowhere"),
    ] {
        let (code, _, said) = place.run(line);
        assert!(code == 2 && said.contains(expected) && !said.contains("secret"), "{line}: {code} {said}");
    }
    let (code, _, said) = place.run("forward log --to file:no/such/place --once --drain 1");
    assert!(code == 1 && said.contains("cannot open no/such/place"), "{code} {said}");
    assert!(
        said.contains("12 records were not forwarded within 1s") || said.contains("13 records"),
        "{said}"
    );
    let (code, _, said) = place.run(&format!("forward give-up log file {head}"));
    assert!(code == 2 && said.contains("the other records are not on the list of refused ones"), "{said}");
}

#[test]
fn remaining_records_are_no_success() {
    let (place, _) = Place::new();
    let file = place.path("log/audit-000-00000001.jsonl");
    fs::write(&file, fs::read_to_string(&file).unwrap().replacen("mia", "eve", 1)).unwrap();
    let (code, _, said) = place.run("forward log --to file:copy.jsonl --once");
    assert!(code == 1 && said.contains("chain 000 is not forwarded"), "{code} {said}");
}

/// Both were once reported as a success.
#[test]
fn unreadable_chains_and_earlier_refusals_are_no_success() {
    let (place, head) = Place::new();
    let once = "forward log --to file:copy.jsonl --once";
    let unreadable = place.path("log/audit-001-00000001.jsonl");
    fs::create_dir(&unreadable).unwrap();
    let (code, _, said) = place.run(once);
    assert!(code == 1 && said.contains("chain 001 could not be forwarded: "), "{code} {said}");
    fs::remove_dir(&unreadable).unwrap();
    assert_eq!(place.run(once), (0, String::new(), String::new()));
    // The state that an earlier run left.
    let id = "0".repeat(32);
    let refusal = format!("{{\"record\":\"{head}\",\"chain_id\":\"{id}\",\"reason\":\"no\"}}\n");
    fs::write(place.path("log/control/forward-file.rejected.jsonl"), refusal).unwrap();
    let (code, _, said) = place.run(once);
    assert_eq!(
        (code, said.as_str()),
        (
            1,
            "tracing-audit: records that the store refused: 1; `tracing-audit forward rejected log file` prints them\n"
        )
    );
    assert_eq!(place.run(&format!("forward give-up log file {head}")).0, 0);
    assert_eq!(place.run(once), (0, String::new(), String::new()));
}

#[test]
fn how_long_a_record_may_wait_is_an_option() {
    let (place, _) = Place::new();
    let line = "forward log --to file:no/such/place --once --drain 1";
    let (code, _, said) = place.run(line);
    assert!(code == 1 && !said.contains("is behind by"), "{said}");
    let (code, _, said) = place.run(&format!("{line} --max-lag 0"));
    assert!(code == 1 && said.contains("tracing-audit: file is behind by "), "{said}");
}

/// Accepts one request and acknowledges it. Returns its head and body.
#[cfg(feature = "otlp")]
fn take_one_request(listener: &std::net::TcpListener) -> Vec<u8> {
    use std::io::{BufRead, BufReader, Read, Write};
    let (mut stream, _) = listener.accept().unwrap();
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(input.read_until(b'\n', &mut request).unwrap() > 0);
    }
    let head = String::from_utf8(request.clone()).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    input.read_exact(&mut body).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(answer.as_bytes()).unwrap();
    request.extend(body);
    request
}

#[cfg(feature = "otlp")]
#[test]
fn otlp_is_set_up_by_the_environment() {
    let (place, _) = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let line =
        format!("forward log --to otlp+http://127.0.0.1:{} --once", listener.local_addr().unwrap().port());
    let receiver = std::thread::spawn(move || take_one_request(&listener));
    let output = place
        .command(&line)
        .env("OTEL_SERVICE_NAME", "checkout-service")
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=payments%2Ceu")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=hunter2")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    let request = receiver.join().unwrap();
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["service.name", "checkout-service", "team", "payments,eu", "x-key: hunter2"] {
        assert!(has(&request, text), "{text} is not in the request");
    }
    assert!(!has(&said, "hunter2"));
    for (variable, value, expected) in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "no.pem", "cannot read no.pem: "),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "pair 1 of OTEL_RESOURCE_ATTRIBUTES has no `=`"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "pair 1 of OTEL_EXPORTER_OTLP_HEADERS has no `=`"),
    ] {
        let output = place.command(&line).env(variable, value).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn forward_runs_until_a_signal() {
    let (place, _) = Place::new();
    let mut child = place.command("forward log --to file:copy.jsonl").spawn().unwrap();
    let has = |lines: usize| {
        let begun = Instant::now();
        while fs::read_to_string(place.path("copy.jsonl")).unwrap_or_default().lines().count() < lines {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    has(13);
    place.emit(3);
    has(18);
    let (_, said, _) = place.run("forward status log");
    assert!(said.starts_with("file: running"), "{said}");
    let ended = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(ended.success() && child.wait().unwrap().success());
}
