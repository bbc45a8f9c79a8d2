//! Tests of the payload of an event.

use std::fmt;

use serde_json::{Map, json};
use tracing::{Level, info, info_span, warn};

use super::{Json, Log, Rules, parse};
use crate::{Severity, Value, format::MAX_PAYLOAD};

/// Returns the members of the event itself, without its time and what the writer adds.
fn own(mut record: Json) -> Json {
    let members = record.as_object_mut().unwrap();
    for member in ["seq", "ts", "durable", "_prev_hash", "_hash"] {
        assert!(members.remove(member).is_some(), "{member}");
    }
    record
}

#[test]
fn members_stand_in_the_order_of_the_format() {
    let log = Log::new();
    let _guard = log.install();
    let span = info_span!("s", span_id = "14", trace_id = "13", source = "10.0.0.7", session_id = "11");
    let _entered = span.enter();
    let fields: [u8; 2] = [1, 255];
    info!(
        target: "audit::file",
        zebra = 1,
        bytes = &fields[..],
        request_id = "12",
        reason = "asked",
        outcome = "granted",
        resource = "/etc/passwd",
        actor = "mia",
        action = "file.read",
        severity = "critical",
        audit = true,
        "read {}",
        "it"
    );
    let payload = String::from_utf8(log.payloads().remove(0)).unwrap();
    let expected = concat!(
        r#","kind":"event","severity":"critical","level":"INFO","action":"file.read","actor":"mia","#,
        r#""resource":"/etc/passwd","outcome":"granted","reason":"asked","session_id":"11","#,
        r#""request_id":"12","source":"10.0.0.7","trace_id":"13","span_id":"14","#,
        r#""message":"read it","target":"audit::file","module":"tracing_audit::capture::tests::payload","#,
        r#""fields":{"zebra":1,"bytes":"01ff"}"#,
    );
    assert_eq!(payload.split_once("Z\"").unwrap().1, expected);
}

#[test]
fn no_field_of_an_event_reaches_the_top_level() {
    let log = Log::new();
    let _guard = log.install();
    info!(
        target: "audit",
        action = "a", actor = "b",
        seq = 9, ts = "x", kind = "close", _hash = "h", _prev_hash = "p", durable = 3, target = "t",
        level = "l", module = "m", fields = "f", truncated = "t", "line\nbreak\"" = 1, actor.id = 5,
    );
    let module = module_path!();
    let expected = json!({
        "kind": "event", "severity": "routine", "level": "INFO", "action": "a", "actor": "b",
        "target": "audit", "module": module,
        "fields": {
            "seq": 9, "ts": "x", "kind": "close", "_hash": "h", "_prev_hash": "p", "durable": 3,
            "target": "t", "level": "l", "module": "m", "fields": "f", "truncated": "t",
            "line\nbreak\"": 1, "actor.id": 5,
        },
    });
    assert_eq!(own(log.only()), expected);
}

#[test]
fn an_empty_event_is_a_record() {
    let log = Log::new();
    let _guard = log.install();
    tracing::event!(target: "audit", Level::INFO, {});
    let expected = json!({
        "kind": "event", "severity": "routine", "level": "INFO", "target": "audit",
        "module": module_path!(), "incomplete": ["action", "actor"],
    });
    assert_eq!(own(log.only()), expected);
}

#[test]
fn the_nearest_span_with_a_value_wins() {
    let log = Log::new();
    let _guard = log.install();
    let outer = info_span!("outer", actor = "mia", session_id = "1", private = "outer");
    let _outer = outer.enter();
    let inner =
        info_span!("inner", session_id = "2", request_id = tracing::field::Empty, source = "", private = 1);
    let _inner = inner.enter();
    info!(target: "audit", action = "one");
    inner.record("request_id", 7);
    info!(target: "audit", action = "two", actor = "eve");
    info!(target: "audit", parent: &outer, action = "three");
    info!(target: "audit", parent: None, action = "four");
    inner.record("request_id", "8");
    info!(target: "audit", action = "five", actor = "");
    let records: Vec<Json> = log
        .records()
        .iter()
        .map(|record| json!([record["actor"], record["session_id"], record["request_id"], record["source"]]))
        .collect();
    let expected = [
        json!(["mia", "2", null, ""]),
        json!(["eve", "2", "7", ""]),
        json!(["mia", "1", null, null]),
        json!([null, null, null, null]),
        json!(["", "2", "8", ""]),
    ];
    assert_eq!(records, expected);
}

#[test]
fn only_named_values_are_inherited_from_spans() {
    let log =
        Log::with(Rules { inherit: vec!["tenant".to_owned(), "user.token".to_owned()], ..Rules::default() });
    let _guard = log.install();
    // Like a span of `#[instrument]`, with the arguments as fields.
    let _span =
        info_span!("handle", argument = 1, password = "x", tenant = "t1", user.token = "hush").entered();
    info!(target: "audit", action = "a", actor = "b");
    info!(target: "audit", action = "a", actor = "b", tenant = "own");
    let records = log.records();
    assert_eq!(records[0]["fields"], json!({"tenant": "t1", "user.token": "[redacted]"}));
    assert_eq!(records[0]["redacted"], json!(["user.token"]));
    assert_eq!(records[1]["fields"], json!({"tenant": "own", "user.token": "[redacted]"}));
    assert_eq!(records[1].get("repeated"), None);
}

#[test]
fn a_secret_is_not_even_formatted() {
    struct Secret;
    impl fmt::Debug for Secret {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("a secret was formatted")
        }
    }
    let mut rules = Rules::default();
    rules.redact.insert("session_id");
    let log = Log::with(rules);
    let _guard = log.install();
    let _span = info_span!("s", session_id = "abc").entered();
    info!(target: "audit", action = "a", actor = "b", user.password = ?Secret, "X-Api-Key" = "k", plain = 1);
    let record = log.only();
    assert_eq!(record["session_id"], "[redacted]");
    assert_eq!(
        record["fields"],
        json!({"user.password": "[redacted]", "X-Api-Key": "[redacted]", "plain": 1})
    );
    assert_eq!(record["redacted"], json!(["session_id", "user.password", "X-Api-Key"]));
    assert_eq!(record.get("truncated"), None);
}

/// It was once recorded in clear text, even if `redact` named it.
#[test]
fn an_unknown_severity_is_withheld_like_any_other_field() {
    let mut rules = Rules::default();
    rules.redact.insert("severity");
    let log = Log::with(rules);
    let _guard = log.install();
    info!(target: "audit", action = "a", actor = "b", severity = "between us");
    info!(target: "audit", action = "a", actor = "b", severity = "critical");
    let records = log.records();
    assert_eq!(records[0]["fields"], json!({"severity": "[redacted]"}));
    assert_eq!(records[0]["incomplete"], json!(["severity"]));
    assert_eq!((&records[0]["severity"], &records[0]["redacted"]), (&json!("routine"), &json!(["severity"])));
    // A value that is the name of a severity is used for the record.
    assert_eq!((&records[1]["severity"], records[1].get("redacted")), (&json!("critical"), None));
}

#[test]
fn the_last_of_repeated_values_counts() {
    let log = Log::new();
    let _guard = log.install();
    info!(target: "audit", action = "a", x = 1, actor = "b", x = 2, action = "c", severity = "routine",
          severity = "critical");
    let record = log.only();
    assert_eq!(record["action"], "c");
    assert_eq!(record["fields"], json!({"x": 2}));
    assert_eq!(record["repeated"], json!(["action", "x", "severity"]));
    assert_eq!(record["severity"], "critical");
}

#[test]
fn another_word_for_a_severity_is_kept_as_a_field() {
    let log = Log::new();
    let _guard = log.install();
    info!(target: "audit", action = "a", actor = "b", severity = "purple");
    info!(target: "audit", action = "a", actor = "b", severity = ?Severity::Critical);
    info!(target: "audit", action = "a", actor = "b", severity = "high");
    let records = log.records();
    let said = |index: usize| ["severity", "fields", "incomplete"].map(|name| records[index][name].clone());
    assert_eq!(said(0), [json!("routine"), json!({"severity": "purple"}), json!(["severity"])]);
    assert_eq!(said(1), [json!("critical"), json!(null), json!(null)]);
    assert_eq!(said(2), [json!("critical"), json!({"severity": "high"}), json!(null)]);
}

#[test]
fn severity_is_decided_by_the_first_rule_that_applies() {
    let rules = Rules {
        classify: Some(Box::new(|candidate| match candidate.action()? {
            "AuthFailure" => Some(Severity::Routine),
            "panic" => panic!("in the classifier"),
            _ if candidate.field("amount") == Some(Value::Integer(5)) => Some(Severity::Critical),
            "seen" => {
                assert_eq!((candidate.level(), candidate.target()), (Level::INFO, "audit::x"));
                assert_eq!(candidate.field("actor"), Some(Value::Text("mi\"a".to_owned())));
                assert_eq!(candidate.field("password"), Some(Value::Text("[redacted]".to_owned())));
                assert_eq!(
                    (candidate.field("no"), candidate.field("message")),
                    (None, Some(Value::Text("hi".into())))
                );
                Some(Severity::Critical)
            }
            _ => None,
        })),
        ..Rules::default()
    };
    let log = Log::with(rules);
    let _guard = log.install();
    info!(target: "audit", action = "AuthFailure", severity = "critical");
    info!(target: "audit", action = "AuthFailure");
    info!(target: "audit", action = "auth.failure");
    info!(target: "audit", action = "pay", amount = 5);
    info!(target: "audit", action = "pay", amount = 6);
    tracing::error!(target: "audit", action = "pay");
    info!(target: "audit", action = "panic");
    let _span = info_span!("s", actor = "mi\"a").entered();
    info!(target: "audit::x", action = "seen", password = 1, "hi");
    let severities: Vec<Json> = log.records().iter().map(|record| record["severity"].clone()).collect();
    let expected =
        ["critical", "routine", "critical", "critical", "routine", "critical", "critical", "critical"];
    assert_eq!(severities, expected);
}

#[test]
fn the_tag_is_a_target_or_a_field() {
    let log = Log::new();
    let _guard = log.install();
    info!(target: "audit", action = "1");
    info!(target: "audit::x", action = "2");
    info!(target: "audit", audit = false, action = "3");
    info!(audit = true, action = "4");
    info!(audit = "login", action = "5");
    info!(audit = 0, action = "6");
    info!(audit = ?(), action = "7");
    info!(target: "auditor", action = "no");
    info!(target: "audit:x", action = "no");
    info!(audit = false, action = "no");
    info!(audit = tracing::field::Empty, action = "no");
    info!(audit = None::<bool>, action = "no");
    info!(action = "no");
    tracing::debug!(target: "audit", action = "no");
    assert_eq!(log.actions(), ["1", "2", "3", "4", "5", "6", "7"]);
}

#[test]
fn a_record_is_never_longer_than_a_line() {
    let log = Log::new();
    let _guard = log.install();
    let text = "é\u{1b}".repeat(20_000);
    let bytes = vec![7_u8; 100_000];
    let _span = info_span!("s", actor = text, source = text, trace_id = ?text).entered();
    info!(
        target: "audit", action = %text, resource = text, reason = text, message = text,
        a = text, b = text, c = text, d = text, e = ?vec![7_u8; 1 << 20], f = 1, g = true, h = &bytes[..],
    );
    let payload = log.payloads().remove(0);
    assert!(payload.len() > MAX_PAYLOAD - 2_000, "the line is used: {}", payload.len());
    let record = parse(&payload);
    assert_eq!((&record["fields"]["f"], &record["fields"]["g"]), (&json!(1), &json!(true)));
    let truncated = record["truncated"].as_object().unwrap();
    for name in ["actor", "source", "trace_id", "action", "message", "a", "e", "h"] {
        assert!(truncated.contains_key(name), "{name}");
    }
    assert!(!truncated.contains_key("f"));
    // Buffers that have grown are shrunk.
    info!(target: "audit", parent: None, action = "short", actor = "b");
    assert_eq!(log.only().get("truncated"), None);
}

/// A value of 20,000 bytes was once cut at 16 KiB, although the line had room for three of them.
#[test]
fn only_values_that_do_not_fit_are_cut_and_their_length_and_hash_are_recorded() {
    let log = Log::new();
    let _guard = log.install();
    let text = |length: usize| "0123456789".repeat(length / 10);
    let whole = |text: &str| {
        let digest = crate::Digest::of_bytes(text.as_bytes()).to_string();
        json!({"bytes": text.len(), "sha256": digest})
    };
    let kept = |record: &Json, name: &str| record["fields"][name].as_str().unwrap().len();

    info!(target: "audit", action = "a", actor = "b", one = text(20_000), two = text(20_000), three = %text(20_000));
    let record = log.only();
    assert_eq!(
        (kept(&record, "one"), kept(&record, "two"), kept(&record, "three")),
        (20_000, 20_000, 20_000)
    );
    assert_eq!(record.get("truncated"), None);

    info!(target: "audit", action = "a", actor = "b", short = text(20_000), long = text(50_000), big = %text(90_000));
    let record = log.only();
    assert_eq!(kept(&record, "short"), 20_000, "what fits stays whole");
    assert_eq!(kept(&record, "long"), kept(&record, "big"), "long values give way alike");
    assert!(kept(&record, "long") > 20_000 && kept(&record, "long") < 20_600);
    let expected = json!({"long": whole(&text(50_000)), "big": whole(&text(90_000))});
    assert_eq!(record["truncated"], expected);

    // An inherited value that is cut is listed in the same way.
    let _span = info_span!("s", source = text(70_000)).entered();
    for _ in 0..4 {
        info!(target: "audit", action = "a", actor = "b", short = text(10_000));
        let record = log.only();
        assert_eq!(record["truncated"], json!({"source": whole(&text(70_000))}));
        assert_eq!(kept(&record, "short"), 10_000);
    }
}

#[test]
fn line_breaking_characters_are_escaped_everywhere() {
    let log = Log::new();
    let _guard = log.install();
    let nasty = "\n\r\0\u{1b}\u{7f}\u{85}\u{2028}\u{202e}\u{feff}\u{e0041}\"\\";
    info!(target: "audit\n\u{2028}", audit = true, action = nasty, actor = ?nasty, "{nasty}");
    let payload = log.payloads().remove(0);
    assert_eq!(parse(&payload)["action"], nasty);
    assert_eq!(parse(&payload)["message"], nasty);
    let text = String::from_utf8(payload).unwrap();
    assert!(!text.chars().any(|c| c.is_control() || "\u{2028}\u{202e}\u{feff}\u{e0041}".contains(c)));
}

#[test]
fn failing_code_of_the_application_loses_only_its_own_value() {
    struct Panics;
    impl fmt::Display for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("so far")?;
            panic!("in Display")
        }
    }
    struct Fails;
    impl fmt::Debug for Fails {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    struct Endless;
    impl fmt::Debug for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("0123456789")?;
            }
        }
    }
    let log = Log::new();
    let _guard = log.install();
    let _span = info_span!("s", actor = %Panics).entered();
    let error: &(dyn std::error::Error + 'static) = &std::io::Error::other("gone");
    warn!(target: "audit", action = "a", one = 1, two = %Panics, three = ?Fails, four = ?Endless, error, five = 5);
    let record = log.only();
    assert_eq!(record["actor"], "so far");
    assert_eq!(record["fields"]["two"], "so far");
    assert_eq!((&record["fields"]["one"], &record["fields"]["five"]), (&json!(1), &json!(5)));
    assert_eq!(record["fields"]["error"], "gone");
    let expected = json!({
        "actor": {"bytes": 6, "failed": true}, "two": {"bytes": 6, "failed": true},
        "three": {"bytes": 0, "failed": true}, "four": {"bytes": (4 << 20) + 6, "stopped": true},
    });
    assert_eq!(record["truncated"], expected);
    assert_eq!(log.lost(), "");
}

#[test]
fn numbers_keep_their_value() {
    let log = Log::new();
    let _guard = log.install();
    info!(
        target: "audit", a = u64::MAX, b = i64::MIN, c = u128::MAX, d = -1_i128, e = f64::NAN, f = 1e308,
        g = -0.0, h = (1_u64 << 53) - 1, i = f64::NEG_INFINITY, j = 0.1_f64, k = i128::MAX,
    );
    let fields = &log.only()["fields"];
    let expected = json!({
        "a": "18446744073709551615", "b": "-9223372036854775808",
        "c": "340282366920938463463374607431768211455", "d": -1, "e": "NaN", "f": 1e308, "g": -0.0,
        "h": 9_007_199_254_740_991_u64, "i": "-Infinity", "j": 0.1,
        "k": "170141183460469231731687303715884105727",
    });
    assert_eq!(*fields, expected);
}

#[test]
fn raw_identifiers_lose_their_prefix() {
    let log = Log::new();
    let _guard = log.install();
    info!(target: "audit", action = "a", r#type = "t");
    assert_eq!(log.only()["fields"], json!({"type": "t"}));
}

/// 80 fields with names of 500 bytes that begin alike. The callsite is made by hand, because macros cannot make it.
#[test]
fn fields_and_names_are_bounded() {
    use tracing_core::{
        Callsite, Kind, Metadata, callsite::Identifier, field::FieldSet, subscriber::Interest,
    };
    struct Many(std::sync::OnceLock<Metadata<'static>>);
    impl Callsite for Many {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            self.0.get().unwrap()
        }
    }
    let many = |names: Vec<String>| {
        let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
        let callsite: &'static Many = Box::leak(Box::new(Many(std::sync::OnceLock::new())));
        let fields = FieldSet::new(names.leak(), Identifier(callsite));
        let metadata = callsite.0.get_or_init(|| {
            Metadata::new("many", "audit", Level::INFO, None, None, None, fields, Kind::EVENT)
        });
        let fields: Vec<_> = metadata.fields().iter().collect();
        let value: &dyn tracing::Value = &"v";
        let values: Vec<_> = fields.iter().map(|field| (field, Some(value))).collect();
        for chunk in [80, 32].into_iter().filter(|size| values.len() == *size) {
            if chunk == 80 {
                let values: &[_; 80] = values.as_slice().try_into().unwrap();
                tracing::Event::dispatch(metadata, &metadata.fields().value_set(values));
            } else {
                let values: &[_; 32] = values.as_slice().try_into().unwrap();
                tracing::Event::dispatch(metadata, &metadata.fields().value_set(values));
            }
        }
    };
    let log = Log::new();
    let _guard = log.install();
    many((0..32).map(|n| format!("{}{n}", "\u{1b}".repeat(300))).collect());
    let record = log.only();
    assert_eq!(record["fields"].as_object().unwrap().len(), 1);
    assert_eq!(record["truncated"][&"\u{1b}".repeat(256)]["name_bytes"], 302);
    assert_eq!(record["repeated"].as_array().unwrap().len(), 1);

    many((0..80).map(|n| format!("{n:03}{}", "\u{1b}".repeat(300))).collect());
    let record = log.only();
    assert!(record["fields"].as_object().unwrap().len() <= 64);
    let truncated = record["truncated"].as_object().unwrap();
    // Every name is too long, so each is in the list or counted in its last entry.
    assert_eq!(truncated["…"], json!({"values": 80 - (truncated.len() - 1)}));

    // A withheld value is listed as withheld, not by the length of its placeholder.
    many((0..80).map(|n| format!("n{n}_token")).collect());
    let record = log.only();
    assert_eq!(record["truncated"]["n79_token"], json!({"redacted": true}));
    assert_eq!(record["redacted"].as_array().unwrap().len(), 80);

    many((0..80).map(|n| format!("n{n}")).collect());
    let record = log.only();
    assert_eq!(record["fields"].as_object().unwrap().len(), 64);
    let digest = crate::Digest::of_bytes(b"v").to_string();
    let omitted: Map<String, Json> =
        (64..80).map(|n| (format!("n{n}"), json!({"bytes": 1, "sha256": digest}))).collect();
    assert_eq!(record["truncated"], Json::Object(omitted));
}

#[test]
fn the_macros_take_any_field_first() {
    let log = Log::new();
    let _guard = log.install();
    let (path, user) = ("/x", "mia");
    let span = info_span!("s", actor = "sam");
    crate::audit!("only {}", "text");
    crate::audit!(actor.id = 5, action = "x", "message {}", user);
    crate::audit!(path, ?user, %path, "quoted name" = 1,);
    crate::audit!(?user, action = "x", "{user}");
    crate::audit!(parent: &span, %path, action = "x");
    crate::audit_critical!(parent: None, action = "x");
    crate::audit_critical!("only {path}");
    crate::audit_critical!(actor.id = 5, action = "x", "message {}", user);
    let records: Vec<Json> = log
        .records()
        .iter()
        .map(|record| {
            json!([record["severity"], record["level"], record["actor"], record["message"], record["fields"]])
        })
        .collect();
    let expected = [
        json!(["routine", "INFO", null, "only text", null]),
        json!(["routine", "INFO", null, "message mia", {"actor.id": 5}]),
        json!(["routine", "INFO", null, null, {"path": "/x", "user": "\"mia\"", "quoted name": 1}]),
        json!(["routine", "INFO", null, "mia", {"user": "\"mia\""}]),
        json!(["routine", "INFO", "sam", null, {"path": "/x"}]),
        json!(["critical", "WARN", null, null, null]),
        json!(["critical", "WARN", null, "only /x", null]),
        json!(["critical", "WARN", null, "message mia", {"actor.id": 5}]),
    ];
    assert_eq!(records, expected);
}
