//! Arbitrary bytes as one line.

use serde_json::Value as Json;

use crate::{
    chain::Digest,
    format::{LineParser, MAX_LINE, parse_object, seal, text_of},
};

const EVENT: &[u8] = b",\"ts\":\"2026-11-21T08:00:00.000000005Z\",\"kind\":\"event\"";

/// Checks that whatever the strict parser accepts is accepted by every JSON parser, and read alike.
///
/// # Panics
/// Panics if that does not hold.
/// When it finds that this does not hold.
pub fn line(bytes: &[u8]) {
    let mut parser = LineParser::default();
    check(&mut parser, bytes);
    if bytes.first().is_some_and(|first| *first != b',') {
        return;
    }
    // The same bytes as the members of a line that is sealed as the library does it, to get past
    // the hash. Also as members of an event, which take the fast path of the parser.
    for start in [&[][..], EVENT] {
        let mut sealed = Vec::new();
        let payload = [start, bytes.get(..bytes.len().min(MAX_LINE)).unwrap_or_default()].concat();
        let hash = seal(&mut sealed, 7, &payload, Some(6), &Digest::ZERO);
        assert_eq!(sealed.pop(), Some(b'\n'));
        if check(&mut parser, &sealed) {
            let line = parser.parse(&sealed).expect("parsed before");
            assert_eq!((line.seq, line.durable, line.hash), (7, Some(6), hash));
            assert!(line.hash_is_right());
        }
    }
}

/// Returns whether the bytes are a line.
fn check(parser: &mut LineParser, bytes: &[u8]) -> bool {
    let Ok(line) = parser.parse(bytes) else { return false };
    assert!(bytes.len() < MAX_LINE && !bytes.contains(&b'\n'));
    let text = std::str::from_utf8(bytes).expect("a line is UTF-8");
    assert!(!text.chars().any(char::is_control), "a control character stands raw: {text}");
    let json: Json = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {text}"));
    let members = json.as_object().expect("a line is an object");
    assert_eq!(members["seq"].as_u64(), Some(line.seq));
    assert_eq!(members.get("durable").and_then(Json::as_u64), line.durable);
    assert_eq!(members["_prev_hash"].as_str(), Some(&*line.previous.to_string()));
    assert_eq!(members["_hash"].as_str(), Some(&*line.hash.to_string()));
    if let Some(kind) = members.get("kind").and_then(Json::as_str)
        && let (Some(detail), false) = (line.detail, text.contains('\\'))
    {
        assert_eq!(serde_json::from_slice::<Json>(detail).ok().as_ref(), members.get(kind));
    }
    let ours = parse_object(bytes).expect("what is strict can be read");
    assert!(ours.keys().eq(members.keys()), "members are lost: {text}");
    if !text.contains('\\') {
        for (name, value) in members {
            assert_eq!(text_of(text, name), value.as_str(), "{name} of {text}");
        }
        if !members.contains_key("no such member") {
            assert_eq!(text_of(text, "no such member"), None);
        }
    }
    true
}
