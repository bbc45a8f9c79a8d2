//! Parses bytes as a well-formed line: the byte layout and strict JSON.

use std::borrow::Cow;

use super::{
    MAX_LINE, RecordKind,
    encode::must_escape,
    names::{Members, Names, decode},
    plain::{find_quote, is_plain_ascii, plain_length},
};
use crate::{chain::Digest, clock::Timestamp};

/// The maximum nesting depth of objects and lists.
const MAX_DEPTH: usize = 32;

const BODY_START: &[u8] = b"{\"seq\":";
const PREVIOUS_START: &[u8] = b",\"_prev_hash\":\"";
const HASH_START: &[u8] = b",\"_hash\":\"";
const LINE_END: &[u8] = b"\"}";

/// `,"_hash":"<64>"}`
const HASH_PART: usize = HASH_START.len() + Digest::HEX_LEN + LINE_END.len();
/// `,"_prev_hash":"<64>"`
const PREVIOUS_PART: usize = PREVIOUS_START.len() + Digest::HEX_LEN + 1;

/// A line whose layout and JSON are valid, as far as the parser checks them. Whether its hash matches,
/// `hash_is_right` determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The line without its line feed.
    pub(crate) bytes: &'a [u8],
    pub(crate) seq: u64,
    pub(crate) kind: RecordKind,
    /// The value of `ts`, as JSON.
    time: Option<&'a [u8]>,
    /// The `durable` mark, on the first line of each write.
    pub(crate) durable: Option<u64>,
    /// The object named like the kind, as JSON.
    pub(crate) detail: Option<&'a [u8]>,
    pub(crate) previous: Digest,
    pub(crate) hash: Digest,
}

/// Returns the sequence number that a line claims, without checking the rest of it.
pub(crate) fn seq_of(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(BODY_START)?;
    number(digits.split(|byte| *byte == b',').next()?)
}

/// Why a line is not a record, as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Line<'_> {
    /// Returns the time; `None` if there is none, or it is not in the form that this library writes.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        text(self.time?).and_then(Timestamp::parse)
    }

    /// Recomputes the hash over the body: the line without `,"_hash":"…"`. Returns whether it matches.
    pub(crate) fn hash_is_right(&self) -> bool {
        hash_of_body_in(self.bytes) == Some(self.hash)
    }
}

/// Returns the hash of the body of a line without copying it: everything up to `,"_hash":"`, and `}`.
fn hash_of_body_in(line: &[u8]) -> Option<Digest> {
    let body = line.get(..line.len().checked_sub(HASH_PART)?)?;
    Some(Digest::of_split_body(body, b"}"))
}

/// Parses lines one after another, reusing its buffers.
#[derive(Debug, Default)]
pub(crate) struct LineParser {
    names: Names,
}

impl LineParser {
    /// Parses one line, given without its line feed.
    pub(crate) fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Line<'a>, Malformed> {
        self.parse_either(bytes, true)
    }

    /// Parses a line. With `may_use_fast_path`, plain text and events in order take a fast path to the same result.
    pub(super) fn parse_either<'a>(
        &mut self,
        bytes: &'a [u8],
        may_use_fast_path: bool,
    ) -> Result<Line<'a>, Malformed> {
        if bytes.len() >= MAX_LINE {
            return Err(Malformed("the line is longer than 60 KiB"));
        }
        let (body, hash) = split_hash(bytes).ok_or(Malformed("the line does not end with its hash"))?;
        let (members, previous) = split_previous(body)
            .ok_or(Malformed("the hash of the previous record is not where it belongs"))?;
        if !members.starts_with(BODY_START) {
            return Err(Malformed("the line does not begin with its sequence number"));
        }
        let is_plain = may_use_fast_path && is_plain_ascii(members);
        // ASCII controls are found by the string scanner. Other forbidden characters are found here.
        if !is_plain && !members.is_ascii() {
            let text = std::str::from_utf8(members).map_err(|_| Malformed("the line is not UTF-8"))?;
            if text.chars().any(must_escape) {
                return Err(Malformed("the line has an unescaped control character"));
            }
        }
        let mut scanner = Scanner { bytes: members, at: 1, is_plain, names: &mut self.names };
        let fast = if may_use_fast_path { scanner.members_of_an_event() } else { None };
        let top = match fast {
            Some(top) => top,
            None => scanner.top_level()?,
        };
        Ok(top.of_line(bytes, previous, hash))
    }
}

/// Splits a line into the part before its hash, and the hash.
fn split_hash(line: &[u8]) -> Option<(&[u8], Digest)> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(HASH_PART)?)?;
    let hex = tail.strip_prefix(HASH_START)?.strip_suffix(LINE_END)?;
    Some((body, Digest::from_hex(hex)?))
}

/// Splits a body into the members before `_prev_hash`, and that hash.
fn split_previous(body: &[u8]) -> Option<(&[u8], Digest)> {
    let (members, tail) = body.split_at_checked(body.len().checked_sub(PREVIOUS_PART)?)?;
    let hex = tail.strip_prefix(PREVIOUS_START)?.strip_suffix(b"\"")?;
    Some((members, Digest::from_hex(hex)?))
}

/// The contents of the top-level members that every line may have.
pub(super) struct Top<'a> {
    pub(super) seq: u64,
    pub(super) kind: RecordKind,
    pub(super) time: Option<&'a [u8]>,
    pub(super) durable: Option<u64>,
    pub(super) detail: Option<&'a [u8]>,
}

impl<'a> Top<'a> {
    fn of_line(self, bytes: &'a [u8], previous: Digest, hash: Digest) -> Line<'a> {
        let Self { seq, kind, time, durable, detail } = self;
        Line { bytes, seq, kind, time, durable, detail, previous, hash }
    }
}

/// A cursor over the members of a line, between `{` and `,"_prev_hash"`.
pub(super) struct Scanner<'a, 'n> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Whether the bytes have no escape, and no character that needs one, so that each string ends at the next quote.
    pub(super) is_plain: bool,
    names: &'n mut Names,
}

const NOT_JSON: Malformed = Malformed("the line is not strict JSON");
const REPEATED: Malformed = Malformed("a member occurs twice in an object");

impl<'a> Scanner<'a, '_> {
    /// Reads the members up to the end of the bytes. The closing brace is behind the hashes, so it is not among them.
    fn top_level(&mut self) -> Result<Top<'a>, Malformed> {
        self.at = 1;
        self.names.clear();
        let mut top = Top { seq: 0, kind: RecordKind::Other, time: None, durable: None, detail: None };
        let mut kind_name = Cow::default();
        let mut members = self.names.open();
        loop {
            let name = self.member_name(&mut members)?;
            let value = self.value(1)?;
            // A name written with escapes is the same name.
            match &*decoded(name) {
                b"seq" => {
                    top.seq = number(value)
                        .filter(|seq| *seq > 0)
                        .ok_or(Malformed("the sequence number is not a whole number above 0"))?;
                }
                b"ts" => top.time = Some(value),
                b"kind" => kind_name = text(value).map(decoded).unwrap_or_default(),
                b"durable" => {
                    top.durable =
                        Some(number(value).ok_or(Malformed("the durable mark is not a whole number"))?);
                }
                b"_prev_hash" | b"_hash" => return Err(REPEATED),
                // Before the kind is known, no member is named like it, not even one with an empty name.
                name if name == &*kind_name && !name.is_empty() => top.detail = Some(value),
                _ => {}
            }
            if self.at == self.bytes.len() {
                self.names.close(members);
                top.kind = RecordKind::parse(&kind_name);
                return Ok(top);
            }
            self.expect(b',')?;
        }
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(NOT_JSON)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Malformed> {
        if self.next()? == wanted { Ok(()) } else { Err(NOT_JSON) }
    }

    /// Reads `"name":` and checks that it is new in its object. Returns the name without its quotes.
    fn member_name(&mut self, members: &mut Members) -> Result<&'a [u8], Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let escaped = self.string()?;
        // Without the closing quote.
        let range = start..self.at - 1;
        self.expect(b':')?;
        let name = self.bytes.get(range.clone()).ok_or(NOT_JSON)?;
        let is_new = self.names.add(members, self.bytes, range, escaped).ok_or(NOT_JSON)?;
        if is_new { Ok(name) } else { Err(REPEATED) }
    }

    /// Reads any value; returns its bytes.
    #[inline]
    pub(super) fn value(&mut self, depth: usize) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        if self.bytes.get(start) == Some(&b'"') {
            self.at += 1;
            self.string()?;
        } else {
            self.value_that_is_no_string(depth)?;
        }
        self.bytes.get(start..self.at).ok_or(NOT_JSON)
    }

    #[inline(never)]
    fn value_that_is_no_string(&mut self, depth: usize) -> Result<(), Malformed> {
        match self.next()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            b'-' | b'0'..=b'9' => {
                self.at -= 1;
                self.number()
            }
            _ => Err(NOT_JSON),
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), Malformed> {
        rest.iter().try_for_each(|byte| self.expect(*byte))
    }

    fn object(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return Err(Malformed("objects are nested too deeply"));
        }
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut members = self.names.open();
        loop {
            self.member_name(&mut members)?;
            self.value(depth + 1)?;
            match self.next()? {
                b',' => {}
                b'}' => {
                    self.names.close(members);
                    return Ok(());
                }
                _ => return Err(NOT_JSON),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return Err(Malformed("lists are nested too deeply"));
        }
        if self.bytes.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                _ => return Err(NOT_JSON),
            }
        }
    }

    /// Reads a string from behind its opening quote to behind its closing one; returns whether it had an escape.
    #[inline]
    fn string(&mut self) -> Result<bool, Malformed> {
        if !self.is_plain {
            return self.string_with_escapes();
        }
        self.at = find_quote(self.bytes, self.at).ok_or(NOT_JSON)? + 1;
        Ok(false)
    }

    #[inline(never)]
    fn string_with_escapes(&mut self) -> Result<bool, Malformed> {
        let mut escaped = false;
        loop {
            self.at += plain_length(self.bytes.get(self.at..).ok_or(NOT_JSON)?);
            match self.next()? {
                b'"' => return Ok(escaped),
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Malformed("the line has an unescaped control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let unit = self.code_unit()?;
                match unit {
                    0xD800..=0xDBFF => {
                        self.expect(b'\\')?;
                        self.expect(b'u')?;
                        let low = self.code_unit()?;
                        if (0xDC00..=0xDFFF).contains(&low) { Ok(()) } else { Err(NOT_JSON) }
                    }
                    0xDC00..=0xDFFF => Err(NOT_JSON),
                    _ => Ok(()),
                }
            }
            _ => Err(NOT_JSON),
        }
    }

    fn code_unit(&mut self) -> Result<u32, Malformed> {
        (0..4).try_fold(0, |unit, _| {
            let digit = char::from(self.next()?).to_digit(16).ok_or(NOT_JSON)?;
            Ok(unit * 16 + digit)
        })
    }

    /// Reads a number: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.skip_if(|byte| byte == b'-');
        if !self.skip_if(|byte| byte == b'0') && self.digits() == 0 {
            return Err(NOT_JSON);
        }
        if self.skip_if(|byte| byte == b'.') && self.digits() == 0 {
            return Err(NOT_JSON);
        }
        let has_exponent = self.skip_if(|byte| matches!(byte, b'e' | b'E'));
        if has_exponent {
            self.skip_if(|byte| matches!(byte, b'+' | b'-'));
            if self.digits() == 0 {
                return Err(NOT_JSON);
            }
        }
        // A number that is short enough and has no exponent always fits an `f64`.
        let text = self.bytes.get(start..self.at).ok_or(NOT_JSON)?;
        if (text.len() < 300 && !has_exponent) || serde_json::from_slice::<f64>(text).is_ok() {
            Ok(())
        } else {
            Err(Malformed("a number is too large for readers"))
        }
    }

    fn skip_if(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = self.bytes.get(self.at).is_some_and(|byte| wanted(*byte));
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.skip_if(|byte| byte.is_ascii_digit()) {}
        self.at - start
    }
}

/// Parses a JSON number that is a whole number from 0 on, in its only valid form.
fn number(value: &[u8]) -> Option<u64> {
    // The scanner has refused leading zeros. A sign, a point or an exponent does not parse.
    std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// Returns the inside of a string.
fn text(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// Returns the inside of a string with its escapes decoded.
fn decoded(inside: &[u8]) -> Cow<'_, [u8]> {
    if inside.contains(&b'\\') { Cow::Owned(decode(inside)) } else { Cow::Borrowed(inside) }
}

#[cfg(test)]
mod tests {
    use super::{super::encode::seal, *};

    fn line_of(payload: &str) -> Vec<u8> {
        let mut line = Vec::new();
        seal(&mut line, 7, payload.as_bytes(), Some(6), &Digest::ZERO);
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[track_caller]
    fn check(payload: &str, expected: Result<(), Malformed>) {
        let line = line_of(payload);
        let parsed = LineParser::default().parse(&line).map(|line| assert!(line.hash_is_right()));
        assert_eq!(parsed, expected, "{payload}");
        // Another parser must accept whatever this one accepts.
        if expected.is_ok() {
            serde_json::from_slice::<serde_json::Value>(&line).unwrap();
        }
    }

    #[test]
    fn a_sealed_line_parses_to_what_was_sealed() {
        let line = line_of(r#","ts":"2026-11-21T08:00:00.000000005Z","kind":"mark","mark":{"chains":{}}"#);
        let parsed = LineParser::default().parse(&line).unwrap();
        assert_eq!((parsed.seq, parsed.kind, parsed.durable), (7, RecordKind::Mark, Some(6)));
        assert_eq!(parsed.at(), Timestamp::parse(b"2026-11-21T08:00:00.000000005Z"));
        assert_eq!(parsed.detail, Some(&br#"{"chains":{}}"#[..]));
        assert_eq!(parsed.previous, Digest::ZERO);
        assert!(parsed.hash_is_right());
    }

    #[test]
    fn strict_json_is_accepted() {
        check("", Ok(()));
        check(r#","a":[1,-2,0.5,1e9,1E-9,0,true,false,null,"x",[],{},[[]],{"a":{"a":1}}]"#, Ok(()));
        check(r#","a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","漢":"字""#, Ok(()));
    }

    #[test]
    fn what_is_not_strict_json_is_refused() {
        for payload in [
            r#", "a":1"#,
            r#","a": 1"#,
            r#","a":01"#,
            r#","a":1."#,
            r#","a":.5"#,
            r#","a":+1"#,
            r#","a":1e"#,
            r#","a":NaN"#,
            r#","a":tru"#,
            r#","a":[1,]"#,
            r#","a":{"b":1,}"#,
            r#","a":[1 ,2]"#,
            r#","a""#,
            r#","a":"\x""#,
            r#","a":"\ud800""#,
            r#","a":"\udc00""#,
            r#","a":"\ud800\u0041""#,
            r#","a":'b'"#,
            r#","a":1}{"b":2"#,
            r#",,"a":1"#,
            r"}",
            r#","a":]"#,
        ] {
            check(payload, Err(NOT_JSON));
        }
        check(",\"a\":\"\u{1}\"", Err(Malformed("the line has an unescaped control character")));
        check(",\"a\":\"1234567\u{7f}\"", Err(Malformed("the line has an unescaped control character")));
        check(",\"a\":\"\u{85}\"", Err(Malformed("the line has an unescaped control character")));
        check(",\"a\":\"\u{202e}\"", Err(Malformed("the line has an unescaped control character")));
        let deep = format!(",\"a\":{}{}", "[".repeat(40), "]".repeat(40));
        check(&deep, Err(Malformed("lists are nested too deeply")));
    }

    /// Fuzzing found that a line with `1e999` was verified as good and could not be read: the parser
    /// of values refuses a number that no `f64` can hold, and the strict one had not checked.
    #[test]
    fn a_number_that_no_reader_can_parse_is_refused() {
        let refused = Err(Malformed("a number is too large for readers"));
        check(r#","a":1e999"#, refused);
        check(r#","a":[-1E+400]"#, refused);
        check(&format!(",\"a\":1{}", "0".repeat(400)), refused);
        check(&format!(",\"a\":0.{}1", "0".repeat(400)), Ok(()));
        check(r#","a":1e-999"#, Ok(()));
        check(&format!(",\"a\":[{:?},{:?},{:?}]", f64::MAX, f64::MIN, f64::MIN_POSITIVE), Ok(()));
    }

    #[test]
    fn a_member_that_occurs_twice_is_refused() {
        check(r#","a":1,"a":2"#, Err(REPEATED));
        check(r#","seq":8"#, Err(REPEATED));
        check(r#","_hash":"00""#, Err(REPEATED));
        check(r#","a":1,"\u0061":2"#, Err(REPEATED));
        check(r#","\u005fhash":"00""#, Err(REPEATED));
        check(r#","\u0073eq":8"#, Err(REPEATED));
        check(r#","\u0061":1,"a":2"#, Err(REPEATED));
        check(r#","a":{"b":1,"c":{"b":2},"b":3}"#, Err(REPEATED));
        check(r#","a":{"b":1},"b":{"b":1}"#, Ok(()));
        let many = (0..1000).map(|n| format!(",\"n{n}\":{n}")).collect::<Vec<_>>().concat();
        check(&many, Ok(()));
        check(&format!("{many},\"n7\":1"), Err(REPEATED));
    }

    /// A reader once took `\u0064urable` for an unknown member, while other readers did not.
    #[test]
    fn escapes_do_not_make_a_different_name() {
        let mut parser = LineParser::default();
        let mut line = Vec::new();
        let payload = br#","\u006bind":"\u0070rune","prun\u0065":{"a":1},"\u0064urable":6"#;
        seal(&mut line, 7, payload, None, &Digest::ZERO);
        let parsed = parser.parse(&line[..line.len() - 1]).unwrap();
        assert_eq!(
            (parsed.kind, parsed.durable, parsed.detail),
            (RecordKind::Prune, Some(6), Some(&br#"{"a":1}"#[..]))
        );
    }

    /// Fuzzing found that a member with an empty name before `kind` was taken for the object of a kind that had
    /// not been read yet.
    #[test]
    fn a_member_with_an_empty_name_is_not_the_object_of_the_kind() {
        for payload in [r#","":1.5,"kind":"prune""#, r#","kind":"","":1.5"#] {
            let line = line_of(payload);
            assert_eq!(LineParser::default().parse(&line).unwrap().detail, None, "{payload}");
        }
    }

    #[test]
    fn the_layout_is_compared_byte_by_byte() {
        let line = line_of(r#","kind":"event""#);
        let mut parser = LineParser::default();
        for position in 0..line.len() {
            for bit in 0..8 {
                let mut flipped = line.clone();
                flipped[position] ^= 1 << bit;
                let found = parser.parse(&flipped).map_or(true, |line| !line.hash_is_right());
                assert!(found, "bit {bit} of byte {position}");
            }
        }
        for length in 0..line.len() {
            assert!(parser.parse(&line[..length]).is_err());
        }
    }
}
