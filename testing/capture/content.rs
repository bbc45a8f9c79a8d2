//! Property tests: whatever its values, an event is one line, and all JSON readers read the same values from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    process::Command,
    sync::OnceLock,
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tracing::{Event, Level, field};
use tracing_core::{
    Callsite, Kind, Metadata, callsite::Identifier, field::FieldSet, field::Value, subscriber::Interest,
};

use super::{Json, Log, parse};
use crate::{harness::times, verify::tests::skip};

/// The number of fields of a callsite in these tests.
const WIDTH: usize = 8;

/// The longest line, as docs/format.md specifies it.
const LONGEST: usize = 60 * 1024;

/// Returns whether a character must not occur unescaped in a line. Repeats docs/format.md section 2, independently of the
/// encoder.
fn is_forbidden(character: char) -> bool {
    matches!(
        u32::from(character),
        0..=0x1F | 0x7F..=0x9F | 0x61C | 0x200E | 0x200F | 0x2028..=0x202E | 0x2066..=0x2069 | 0xFEFF
            | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F
    )
}

/// A value that an application gives.
#[derive(Debug, Clone)]
enum Content {
    Text(String),
    /// A `Debug` that writes these pieces.
    Debug(Vec<String>),
    Display(String),
    /// A `Debug` that fails after it has written this.
    Failing(String),
    /// A text that is repeated this many times.
    Long(String, usize),
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F64(f64),
    Bytes(Vec<u8>),
    Error(String),
}

struct Pieces(Vec<String>, bool);

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| f.write_str(piece))?;
        if self.1 { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The expected value in the record.
#[derive(Debug)]
enum Said {
    Text(String),
    Bool(bool),
    Number(f64),
}

impl Content {
    /// Returns the value as `tracing` takes it.
    fn value(&self) -> Box<dyn Value> {
        match self.clone() {
            Self::Text(text) => Box::new(text),
            Self::Debug(pieces) => Box::new(field::debug(Pieces(pieces, false))),
            Self::Display(text) => Box::new(field::display(text)),
            Self::Failing(text) => Box::new(field::debug(Pieces(vec![text], true))),
            Self::Long(text, times) => Box::new(field::debug(Pieces(vec![text; times], false))),
            Self::Bool(value) => Box::new(value),
            Self::I64(value) => Box::new(value),
            Self::U64(value) => Box::new(value),
            Self::I128(value) => Box::new(value),
            Self::U128(value) => Box::new(value),
            Self::F64(value) => Box::new(value),
            Self::Bytes(bytes) => Box::new(bytes.into_boxed_slice()),
            Self::Error(text) => Box::new(Box::<dyn Error + Send + Sync>::from(text) as Box<dyn Error>),
        }
    }

    /// Returns the expected value, and whether it is incomplete from the start.
    fn said(&self) -> (Said, bool) {
        let safe = |value: i128| {
            if value.unsigned_abs() < 1 << 53 {
                #[expect(clippy::cast_precision_loss, reason = "below 2^53 nothing is lost")]
                return Said::Number(value as f64);
            }
            Said::Text(value.to_string())
        };
        let said = match self.clone() {
            Self::Text(text) | Self::Display(text) | Self::Error(text) => Said::Text(text),
            Self::Failing(text) => return (Said::Text(text), true),
            Self::Debug(pieces) => Said::Text(pieces.concat()),
            Self::Long(text, times) => Said::Text(text.repeat(times)),
            Self::Bool(value) => Said::Bool(value),
            Self::I64(value) => safe(value.into()),
            Self::U64(value) => safe(value.into()),
            Self::I128(value) => safe(value),
            Self::U128(value) => i128::try_from(value).map_or_else(|_| Said::Text(value.to_string()), safe),
            Self::F64(value) if value.is_nan() => Said::Text("NaN".to_owned()),
            Self::F64(value) if value == f64::INFINITY => Said::Text("Infinity".to_owned()),
            Self::F64(value) if value == f64::NEG_INFINITY => Said::Text("-Infinity".to_owned()),
            Self::F64(value) => Said::Number(value),
            Self::Bytes(bytes) => {
                let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                Said::Text(digits.concat())
            }
        };
        (said, false)
    }
}

fn character() -> impl Strategy<Value = char> {
    let ranges = [
        0..=0x20,
        0x7E..=0xA0,
        0x61B..=0x61D,
        0x200C..=0x2010,
        0x2027..=0x202F,
        0x2065..=0x206A,
        0xD7FF..=0xE000,
        0xFEFE..=0xFF00,
        0xFFF8..=0xFFFF,
        0xDFFFF..=0xE0080,
        0x10_FFFE..=0x10_FFFF_u32,
    ];
    let edges: Vec<char> = ranges.into_iter().flatten().filter_map(char::from_u32).collect();
    prop_oneof![4 => proptest::char::range(' ', '~'), 3 => select(edges), 2 => select(vec!['"', '\\', '/', 'u', '\n']), 1 => any::<char>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => vec(character(), 0..24).prop_map(|all| all.into_iter().collect::<String>()),
        1 => select(vec!["\\ud800", "{\"a\":\"\\udc00\"}", "\r\n", "\u{1b}[31m", "true", "1e999", "[redacted]", "\"\""])
            .prop_map(str::to_owned),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let whole = prop_oneof![any::<i64>(), Just(0), Just(i64::MIN), (1_i64 << 53) - 3..(1 << 53) + 3];
    prop_oneof![
        4 => text().prop_map(Content::Text),
        3 => vec(text(), 0..4).prop_map(Content::Debug),
        2 => text().prop_map(Content::Display),
        1 => text().prop_map(Content::Failing),
        1 => text().prop_map(Content::Error),
        1 => any::<bool>().prop_map(Content::Bool),
        1 => whole.prop_map(Content::I64),
        1 => any::<u64>().prop_map(Content::U64),
        1 => any::<i128>().prop_map(Content::I128),
        1 => any::<u128>().prop_map(Content::U128),
        2 => any::<f64>().prop_map(Content::F64),
        1 => select(vec![f64::NAN, f64::INFINITY, -f64::INFINITY, -0.0, 1e308, 5e-324, 0.1]).prop_map(Content::F64),
        1 => vec(any::<u8>(), 0..20).prop_map(Content::Bytes),
    ]
}

/// Returns any content, including now and then a value that is far too long.
fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![100 => content(), 1 => (text(), 1..20_000_usize).prop_map(|(text, times)| Content::Long(text, times))]
}

fn field_name() -> impl Strategy<Value = String> {
    let ours = [
        "action",
        "actor",
        "resource",
        "source",
        "message",
        "seq",
        "ts",
        "kind",
        "hash",
        "prev",
        "_hash",
        "_prev_hash",
        "durable",
        "fields",
        "truncated",
        "target",
        "level",
        "r#type",
        "a.b",
        "password",
        "event",
    ];
    prop_oneof![
        6 => select(ours.to_vec()).prop_map(str::to_owned),
        3 => text(),
        1 => (text(), 1..40_usize).prop_map(|(text, times)| text.repeat(times)),
    ]
}

/// A callsite that is created while the program runs. It is never freed, as `tracing` requires.
struct Site(OnceLock<Metadata<'static>>);

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}
    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().unwrap()
    }
}

fn site(names: Vec<String>) -> &'static Metadata<'static> {
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let site: &'static Site = Box::leak(Box::new(Site(OnceLock::new())));
    let fields = FieldSet::new(names.leak(), Identifier(site));
    site.0.get_or_init(|| {
        Metadata::new("content", "audit", Level::INFO, None, None, Some("m"), fields, Kind::EVENT)
    })
}

fn emit(site: &'static Metadata<'static>, contents: &[Option<Content>]) {
    let fields: Vec<_> = site.fields().iter().collect();
    let values: Vec<_> = contents.iter().map(|content| content.as_ref().map(Content::value)).collect();
    let pairs: [_; WIDTH] = std::array::from_fn(|at| (&fields[at], values[at].as_deref()));
    Event::dispatch(site, &site.fields().value_set(&pairs));
}

/// Returns each name with all the values that it was given, in order.
fn given<'c>(
    site: &'static Metadata<'static>,
    contents: &'c [Option<Content>],
) -> BTreeMap<String, Vec<&'c Content>> {
    let mut all: BTreeMap<String, Vec<&Content>> = BTreeMap::new();
    for (field, content) in site.fields().iter().zip(contents) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        let end = (0..=name.len().min(256)).rev().find(|end| name.is_char_boundary(*end)).unwrap();
        all.entry(name[..end].to_owned()).or_default().extend(content);
    }
    all.retain(|_, values| !values.is_empty());
    all
}

/// Returns whether a name is a named member, whose value is at the top level.
fn is_named(name: &str) -> bool {
    ["action", "actor", "resource", "source", "message"].contains(&name)
}

fn lists(record: &Json, list: &str, name: &str) -> bool {
    if let Some(truncated) = record[list].as_object() {
        return truncated.contains_key(name) || truncated.contains_key("…");
    }
    record[list].as_array().is_some_and(|all| all.iter().any(|entry| entry == name || entry == "…"))
}

/// Compares the entry of a value in `truncated` with the full value.
fn check_whole(text: &str, name: &str, content: &Content, entry: &Json) {
    if name == "password" {
        assert!(entry.get("sha256").is_none(), "a secret is not hashed: {entry}");
    } else if let Some(digest) = entry.get("sha256") {
        assert_eq!(entry["bytes"], text.len());
        assert_eq!(*digest, crate::Digest::of_bytes(text.as_bytes()).to_string());
    }
    if matches!(content, Content::Failing(_)) && name != "password" {
        assert_eq!((&entry["failed"], &entry["bytes"]), (&true.into(), &text.len().into()));
    }
}

/// Compares a record with the values that were given.
fn check(record: &Json, given: &BTreeMap<String, Vec<&Content>>) {
    let own = [
        "seq",
        "ts",
        "kind",
        "severity",
        "level",
        "target",
        "module",
        "fields",
        "durable",
        "_prev_hash",
        "_hash",
    ];
    let tables = ["incomplete", "truncated", "redacted", "repeated"];
    for member in record.as_object().unwrap().keys() {
        assert!(
            own.contains(&&**member) || tables.contains(&&**member) || is_named(member),
            "{member}: {record}"
        );
    }
    assert_eq!((&record["seq"], &record["durable"]), (&Json::from(1), &Json::from(0)));
    assert_eq!(
        (&record["kind"], &record["level"], &record["target"]),
        (&"event".into(), &"INFO".into(), &"audit".into())
    );
    assert_eq!(record["_prev_hash"], "0".repeat(64));
    for (name, values) in given {
        let last = values.last().unwrap();
        let at = if is_named(name) { &record[name] } else { &record["fields"][name] };
        assert_eq!(lists(record, "repeated", name), values.len() > 1, "{name}: {record}");
        let (said, is_cut) = last.said();
        let is_cut = is_cut || lists(record, "truncated", name);
        let says_nothing = matches!(&said, Said::Text(text) if text.is_empty() || text == "\"\"");
        if is_named(name) && name != "message" && !is_cut {
            assert_eq!(lists(record, "incomplete", name), says_nothing, "{name}: {record}");
        }
        if let (Said::Text(text), Some(entry)) = (&said, record["truncated"].get(name)) {
            check_whole(text, name, last, entry);
        }
        match said {
            _ if name == "password" => {
                assert_eq!(at, "[redacted]");
                assert!(lists(record, "redacted", name));
            }
            Said::Text(text) if is_cut => {
                assert!(lists(record, "truncated", name), "{name}: {record}");
                assert!(text.starts_with(at.as_str().unwrap_or_default()), "{name}: {record}");
            }
            Said::Text(text) => assert_eq!(at, &text, "{name}: {record}"),
            // Named members are texts.
            Said::Bool(value) if is_named(name) => assert_eq!(at, &value.to_string(), "{name}: {record}"),
            Said::Number(value) if is_named(name) => {
                let number: f64 = at.as_str().unwrap().parse().unwrap();
                assert_eq!(
                    number.to_bits(),
                    (value + if at.as_str().unwrap().contains(['.', 'e']) { -0.0 } else { 0.0 }).to_bits()
                );
            }
            Said::Bool(value) => assert_eq!(at, &value, "{name}: {record}"),
            Said::Number(value) => {
                let number = at.as_f64().unwrap_or_else(|| panic!("{name}: {record}"));
                assert_eq!(
                    number.to_bits(),
                    (value + if at.is_f64() { -0.0 } else { 0.0 }).to_bits(),
                    "{name}: {record}"
                );
            }
        }
    }
}

/// Returns the line of a payload, after checking that it has nothing that no line may have.
fn line_of(payload: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    crate::format::seal(&mut line, 1, payload, Some(0), &crate::Digest::ZERO);
    assert_eq!(
        line.iter().position(|byte| *byte == b'\n'),
        Some(line.len() - 1),
        "one line feed, at the end"
    );
    assert!(line.len() <= LONGEST, "{}", line.len());
    let text = std::str::from_utf8(&line[..line.len() - 1]).expect("UTF-8");
    if let Some(found) = text.chars().find(|character| is_forbidden(*character)) {
        panic!("{found:?} is not escaped in {text}");
    }
    line
}

/// Returns the part of a payload after its time.
fn without_time(payload: &[u8]) -> &[u8] {
    &payload[",\"ts\":\"2026-11-21T08:00:00.000000000Z\"".len()..]
}

/// Returns a runner that always uses the same random values, and shrinks a failure before it reports it.
pub(super) fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn sites(runner: &mut TestRunner, count: usize) -> Vec<&'static Metadata<'static>> {
    (0..count).map(|_| site(vec(field_name(), WIDTH).new_tree(runner).unwrap().current())).collect()
}

#[test]
fn events_of_any_content_are_one_line_each() {
    let log = Log::new();
    let _guard = log.install();
    let mut runner = runner(times("AUDIT_EVENTS", 5_000).try_into().unwrap());
    let sites = sites(&mut runner, 1000);
    let events = (0..sites.len(), vec(option::weighted(0.8, any_content()), WIDTH));
    let result = runner.run(&events, |(site, contents)| {
        let site = sites[site];
        emit(site, &contents);
        let payloads = log.payloads();
        assert_eq!(payloads.len(), 1, "one event is one record");
        line_of(&payloads[0]);
        check(&parse(&payloads[0]), &given(site, &contents));
        // The same event gives the same payload again.
        emit(site, &contents);
        assert_eq!(without_time(&log.payloads()[0]), without_time(&payloads[0]));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(log.lost(), "");
}

/// One value that a reader read: the line, the object, the name, the type and the value.
type Reading = (usize, String, String, String, String);

/// A script that prints a row for each value of each line, with names and texts as the numbers of their characters.
const PYTHON: &str = r#"
import json, sys
def codes(text): return ",".join(str(ord(c)) for c in text)
data = open(sys.argv[1], "rb").read().decode()
assert len(data.splitlines()) == data.count("\n"), "a reader sees other lines"
for number, line in enumerate(data.split("\n")[:-1]):
    record = json.loads(line)
    for where in ("top", "fields"):
        for name, value in (record if where == "top" else record.get("fields", {})).items():
            if isinstance(value, str): kind, value = "string", codes(value)
            elif isinstance(value, bool): kind, value = "boolean", str(value).lower()
            elif isinstance(value, (int, float)): kind, value = "number", repr(value)
            else: continue
            print(number, where, codes(name), kind, value, sep="\t")
"#;
const NODE: &str = r#"
const codes = text => Array.from(text, c => c.codePointAt(0)).join(",");
const lines = require("fs").readFileSync(process.argv[1], "utf8").split("\n").slice(0, -1);
lines.forEach((line, number) => {
    const record = JSON.parse(line);
    for (const [where, object] of [["top", record], ["fields", record.fields || {}]])
        for (const [name, value] of Object.entries(object))
            if (["string", "boolean", "number"].includes(typeof value))
                console.log([number, where, codes(name), typeof value,
                    typeof value === "string" ? codes(value) : String(value)].join("\t"));
});
"#;
const JQ: &str = r#"
def codes: explode | map(tostring) | join(",");
[inputs] | to_entries[] | .key as $number | .value as $record | ("top", "fields") as $where
| (if $where == "top" then $record else ($record.fields // {}) end) | to_entries[]
| (.value | type) as $kind | select($kind == "string" or $kind == "boolean" or $kind == "number")
| [$number, $where, (.key | codes), $kind, (if $kind == "string" then .value | codes else .value | tostring end)]
| map(tostring) | join("\t")
"#;

fn codes(text: &str) -> String {
    let all: Vec<String> = text.chars().map(|character| u32::from(character).to_string()).collect();
    all.join(",")
}

/// Returns a number in one form, however it was printed, for comparison.
fn same_number(printed: &str) -> String {
    format!("{:?}", printed.parse::<f64>().unwrap() + 0.0)
}

fn readings(reader: &mut Command) -> BTreeSet<Reading> {
    let output = reader.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|row| {
        let [number, place, name, kind, value] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let value = if kind == "number" { same_number(value) } else { value.to_owned() };
        (number.parse().unwrap(), place.to_owned(), name.to_owned(), kind.to_owned(), value)
    });
    rows.collect()
}

/// Returns what every reader must read from a record: every value that is complete.
fn wanted(number: usize, record: &Json, given: &BTreeMap<String, Vec<&Content>>) -> Vec<Reading> {
    let mut all = Vec::new();
    for (name, values) in given {
        let place = if is_named(name) { "top" } else { "fields" };
        let (said, is_cut) = values.last().unwrap().said();
        if is_cut || name == "password" || lists(record, "truncated", name) {
            continue;
        }
        let (kind, value) = match said {
            Said::Text(text) => ("string", codes(&text)),
            // `check` has compared it with the number.
            Said::Bool(_) | Said::Number(_) if is_named(name) => {
                ("string", codes(record[name].as_str().unwrap()))
            }
            Said::Bool(value) => ("boolean", value.to_string()),
            Said::Number(value) => ("number", format!("{:?}", value + 0.0)),
        };
        all.push((number, place.to_owned(), codes(name), kind.to_owned(), value));
    }
    all
}

/// Three independent readers read the values that were emitted, from lines of any content.
#[test]
fn python_node_and_jq_read_what_was_emitted() {
    let log = Log::new();
    let _guard = log.install();
    let mut runner = runner(1);
    let sites = sites(&mut runner, 200);
    let events = (0..sites.len(), vec(option::weighted(0.8, any_content()), WIDTH));
    let (mut file, mut expected) = (Vec::new(), Vec::new());
    let lines = usize::try_from(times("AUDIT_READERS", 400)).unwrap();
    for number in 0..lines {
        let (site, contents) = events.new_tree(&mut runner).unwrap().current();
        emit(sites[site], &contents);
        let payload = log.payloads().remove(0);
        file.extend(line_of(&payload));
        expected.extend(wanted(number, &parse(&payload), &given(sites[site], &contents)));
    }
    assert!(expected.len() > 4 * lines, "{}", expected.len());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines.jsonl");
    std::fs::write(&path, file).unwrap();
    let mut all = Vec::new();
    for (program, arguments) in
        [("python3", vec!["-c", PYTHON]), ("node", vec!["-e", NODE]), ("jq", vec!["-rn", JQ])]
    {
        if Command::new(program).arg("--version").output().is_err() {
            skip("python_node_and_jq_read_what_was_emitted", &format!("there is no {program}"));
            continue;
        }
        let read = readings(Command::new(program).args(arguments).arg(&path));
        for row in &expected {
            assert!(read.contains(row), "{program} reads something else than {row:?}");
        }
        all.push((program, read));
    }
    for pair in all.windows(2) {
        let different: Vec<_> = pair[0].1.symmetric_difference(&pair[1].1).take(5).collect();
        assert!(different.is_empty(), "{} and {} differ: {different:?}", pair[0].0, pair[1].0);
    }
}

/// Text that is not Unicode is recorded as its `Debug` prints it, and bytes as hexadecimal digits.
#[test]
fn invalid_utf8_stays_visible_in_the_record() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};
    let log = Log::new();
    let _guard = log.install();
    for (bytes, printed, digits) in [
        (&b"a\xFFb"[..], r#""a\xFFb""#, "61ff62"),
        // An overlong slash, and a surrogate as WTF-8 encodes it.
        (b"\xC0\xAF", r#""\xC0\xAF""#, "c0af"),
        (b"\xED\xA0\x80", r#""\xED\xA0\x80""#, "eda080"),
    ] {
        let (os, path) = (OsStr::from_bytes(bytes), Path::new(OsStr::from_bytes(bytes)));
        tracing::info!(target: "audit", action = "a", actor = "b", ?os, ?path, bytes);
        let record = log.only();
        assert_eq!(record["fields"]["os"], printed);
        assert_eq!(record["fields"]["path"], printed);
        assert_eq!(record["fields"]["bytes"], digits);
    }
}

/// 100 MB of text take no more space than the longest value, however the text is passed.
#[test]
fn a_value_of_a_hundred_megabytes_is_cut_and_not_copied() {
    let huge = "\u{1b}é".repeat(100_000_000 / 3);
    let log = Log::new();
    let _guard = log.install();
    tracing::info!(target: "audit", action = "a", actor = "b", text = huge, shown = %huge, bytes = huge.as_bytes());
    let payload = log.payloads().remove(0);
    line_of(&payload);
    let record = parse(&payload);
    let digits: String =
        huge.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).map(char::from).collect();
    for (name, whole) in [("text", &huge), ("shown", &huge), ("bytes", &digits)] {
        let entry = &record["truncated"][name];
        assert_eq!(entry["bytes"], whole.len());
        assert_eq!(entry["sha256"], crate::Digest::of_bytes(whole.as_bytes()).to_string());
    }
    assert!(huge.starts_with(record["fields"]["text"].as_str().unwrap()));
}

/// A loop that opens spans must not make the cost of an event unbounded.
#[test]
fn spans_beyond_a_thousand_are_ignored_and_the_record_says_so() {
    let log = Log::new();
    let _guard = log.install();
    let outermost = tracing::info_span!("outermost", actor = "mia").entered();
    let near: Vec<_> = (0..100).map(|_| tracing::info_span!("inner", source = "x").entered()).collect();
    (0..5).for_each(|_| tracing::info!(target: "audit", action = "near"));
    let far: Vec<_> = (0..1100).map(|_| tracing::info_span!("inner", source = "x").entered()).collect();
    (0..5).for_each(|_| tracing::info!(target: "audit", action = "far"));
    let records = log.records();
    assert_eq!(records.len(), 10);
    for near in &records[..5] {
        assert_eq!((&near["actor"], near.get("incomplete")), (&"mia".into(), None));
    }
    for far in &records[5..] {
        assert_eq!((far.get("actor"), &far["incomplete"]), (None, &serde_json::json!(["actor", "spans"])));
    }
    // Spans must be exited in reverse order.
    far.into_iter().rev().chain(near.into_iter().rev()).for_each(drop);
    drop(outermost);
}
