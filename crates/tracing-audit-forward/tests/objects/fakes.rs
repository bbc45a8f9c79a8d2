//! Servers that lose records and report success are refused by the first call.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use sha2::{Digest as _, Sha256};
use tracing_audit_forward::{Objects, Sink as _, SinkError};

use crate::{
    records::{events, hex},
    server::{KEY, SECRET, url_at},
};

/// What a server supports.
#[derive(Clone, Copy)]
struct Obeys {
    create_only: bool,
    checksums: bool,
}

/// Starts a server that supports as much of S3 as the first call needs. Its thread ends with the test.
fn start(obeys: Obeys) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut objects = BTreeMap::new();
        for client in listener.incoming().map_while(Result::ok) {
            answer(client, obeys, &mut objects);
        }
    });
    port
}

/// Answers one request per connection.
fn answer(client: TcpStream, obeys: Obeys, objects: &mut BTreeMap<String, Vec<u8>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        lines
            .iter()
            .find_map(|line| line.to_ascii_lowercase().starts_with(name).then(|| line[name.len()..].trim()))
    };
    let length = header("content-length:").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = lines[0].split(' ');
    let (method, key) = (words.next().unwrap(), words.next().unwrap().to_owned());
    let is_right = header("x-amz-checksum-sha256:").is_none_or(|sum| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        hex(&STANDARD.decode(sum).unwrap()) == hex(&Sha256::digest(&body))
    });
    let (status, answer) = match method {
        "PUT" if obeys.create_only && header("if-none-match:").is_some() && objects.contains_key(&key) => {
            ("412 Precondition Failed", Vec::new())
        }
        "PUT" if obeys.checksums && !is_right => ("400 Bad Request", b"<Code>BadDigest</Code>".to_vec()),
        "PUT" => {
            objects.insert(key, body);
            ("200 OK", Vec::new())
        }
        _ => match objects.get(&key) {
            Some(object) => ("200 OK", object.clone()),
            None if key.contains("list-type") && key.contains("/odd?") => ("200 OK", odd_page(&key)),
            None if key.contains("list-type") => {
                ("200 OK", b"<ListBucketResult></ListBucketResult>".to_vec())
            }
            None => ("404 Not Found", b"<Code>NoSuchKey</Code>".to_vec()),
        },
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e\"\r\nLast-Modified: Sun, 29 Nov 2026 08:00:00 GMT\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let mut client = client;
    drop(client.write_all(&[head.as_bytes(), &answer].concat()));
}

#[test]
fn a_server_that_loses_records_is_refused() {
    let entries = events(3);
    let offer = |create_only, checksums| {
        let port = start(Obeys { create_only, checksums });
        let url = url_at(port, "bucket", "");
        Objects::builder(&url).credentials(KEY, SECRET, None).build().unwrap().offer(&entries)
    };
    offer(true, true).unwrap();
    for (create_only, checksums, what) in [
        (false, true, "If-None-Match"),
        (true, false, "x-amz-checksum-sha256"),
        (false, false, "If-None-Match"),
    ] {
        let outcome = offer(create_only, checksums);
        let Err(SinkError::Setup { reason }) = outcome else { panic!("{what}: {outcome:?}") };
        assert!(reason.contains(what) && reason.contains("use another server"), "{reason}");
    }
}

const ID: &str = "0123456789abcdef0123456789abcdef";

/// Returns the page of a bucket that has keys with two slashes, which are not valid paths.
fn odd_page(request: &str) -> Vec<u8> {
    let (prefix, _) = request
        .split_once("prefix=")
        .unwrap()
        .1
        .split_once('&')
        .unwrap_or((request.split_once("prefix=").unwrap().1.split(' ').next().unwrap(), ""));
    let prefix = prefix.replace("%2F", "/");
    let inner = if request.contains("delimiter") {
        let of = |name: &str| format!("<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>");
        of("") + &of(ID)
    } else {
        let of = |name: &str| {
            format!(
                "<Contents><Key>{prefix}{name}</Key><Size>1</Size><ETag>e</ETag>\
                 <LastModified>2026-11-29T08:00:00.000Z</LastModified></Contents>"
            )
        };
        of("/x") + &of("notes")
    };
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{inner}</ListBucketResult>").into_bytes()
}

/// `object_store` rejects a page of a list that has such a key.
#[test]
fn keys_that_are_not_valid_paths_are_findings_and_hide_nothing() {
    let port = start(Obeys { create_only: true, checksums: true });
    let builder = Objects::builder(&url_at(port, "odd", "")).credentials(KEY, SECRET, None);
    let report = builder.clone().archive().unwrap().verify().unwrap();
    let text = report.to_string();
    for key in ["web/n1/0123456789abcdef0123456789abcdef//x", "/notes", "live/web/n1"] {
        assert!(text.contains(key), "{key}: {text}");
    }
    assert_eq!(report.finding_count(), 4, "{text}");
    // Such a key does no harm.
    builder.build().unwrap().offer(&events(3)).unwrap();
}
