//! Encodes values as bytes. Nothing here allocates once its buffers have grown.

use std::ptr;

use super::{
    MAX_LINE, RecordKind,
    plain::{self, plain_ascii_length},
};
use crate::{
    chain::Digest,
    clock::{TIMESTAMP_LEN, Timestamp},
};

/// The maximum length of what surrounds a payload in its line: `{"seq":`, `,"durable":`, `,"_prev_hash":"…"`,
/// `,"_hash":"…"}`, two numbers of 20 digits, two digests and the line feed.
const MAX_ENVELOPE: usize = 7 + 20 + 11 + 20 + 16 + 64 + 10 + 64 + 2 + 1;

/// The maximum length of a payload that always fits a line.
pub(crate) const MAX_PAYLOAD: usize = MAX_LINE - MAX_ENVELOPE;

/// The beginning of the payloads of events, kept from one event to the next: most are of the same second and have
/// the same first members.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    second: Option<i64>,
    members: &'static str,
    bytes: Vec<u8>,
}

impl Beginning {
    /// Begins the payload of an event at the end of `bytes`: time, kind, and `members`, which are already
    /// JSON.
    pub(crate) fn write<'a>(
        &mut self,
        bytes: &'a mut Vec<u8>,
        at: Timestamp,
        members: &'static str,
    ) -> Payload<'a> {
        // The members are a few static strings, so comparing addresses is enough: a false mismatch only costs time.
        if self.second != Some(at.unix_seconds()) || !ptr::eq(self.members, members) {
            self.bytes.clear();
            Payload::begin(&mut self.bytes, at, RecordKind::Event).members(members.as_bytes());
            self.second = Some(at.unix_seconds());
            self.members = members;
        }
        if let Some(fraction) = self.bytes.get_mut(FRACTION..).and_then(<[u8]>::first_chunk_mut) {
            *fraction = at.fraction();
        }
        bytes.extend_from_slice(&self.bytes);
        Payload { bytes }
    }
}

/// The start of the time member, and the offset of its nine fractional digits in the payload.
const TIME: &[u8] = b",\"ts\":\"";
const FRACTION: usize = TIME.len() + 20;

/// Returns the printed time that a payload begins with. Printed times have a fixed width, so they compare like times.
pub(crate) fn time_of(payload: &[u8]) -> Option<&[u8; TIMESTAMP_LEN]> {
    payload.get(TIME.len()..)?.first_chunk()
}

/// Returns the time of a line, of which nothing else is checked.
pub(crate) fn time_of_line(line: &[u8]) -> Option<Timestamp> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let payload = rest.get(digits..).filter(|rest| rest.starts_with(TIME))?;
    Timestamp::parse(time_of(payload)?)
}

/// The middle of a line, written member by member: everything from `,"ts":` up to the members that only the
/// writer knows. A payload has no position in the chain yet, so it can be sealed again in another segment after
/// a failed write.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Payload<'a> {
    /// Begins a payload at the end of `bytes`: time and kind come first.
    pub(crate) fn begin(bytes: &'a mut Vec<u8>, at: Timestamp, kind: RecordKind) -> Self {
        bytes.extend_from_slice(TIME);
        bytes.extend_from_slice(&at.to_bytes());
        bytes.extend_from_slice(b"\",\"kind\":\"");
        bytes.extend_from_slice(kind.as_str().as_bytes());
        bytes.push(b'"');
        Self { bytes }
    }

    /// Adds `,"name":`; the caller appends the value. `name` needs no escaping.
    pub(crate) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.bytes.extend_from_slice(b",\"");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        self.bytes
    }

    /// Adds a member whose value is already JSON.
    pub(crate) fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name).extend_from_slice(json);
    }

    /// Adds a member with a text.
    #[cfg(test)]
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        let bytes = self.name(name);
        bytes.push(b'"');
        escape_into(bytes, text);
        bytes.push(b'"');
    }

    /// Adds members that are already JSON, each preceded by its comma. The caller may append the
    /// value of the last one.
    pub(crate) fn members(&mut self, json: &[u8]) -> &mut Vec<u8> {
        self.bytes.extend_from_slice(json);
        self.bytes
    }
}

/// Appends a text if it can be the inside of a JSON string as it is; returns whether it can.
pub(crate) fn push_if_plain(bytes: &mut Vec<u8>, text: &str) -> bool {
    plain::push_if_plain(bytes, text.as_bytes())
}

/// Appends `text` as the inside of a JSON string. Characters that could break a line, affect a terminal or mislead a
/// human reader are always escaped. They are C0, DEL and C1 controls, U+2028 and U+2029, bidirectional controls,
/// U+FEFF, interlinear annotation and tag characters.
pub(crate) fn escape_into(bytes: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    loop {
        let plain = plain_ascii_length(rest.as_bytes());
        let Some((plain, tail)) = rest.split_at_checked(plain) else { return };
        bytes.extend_from_slice(plain.as_bytes());
        // Letters of other scripts are copied in one piece as well, up to a byte that may need an escape.
        let harmless = tail.bytes().position(is_suspect).unwrap_or(tail.len());
        let (harmless, tail) = tail.split_at(floor_char_boundary(tail, harmless));
        bytes.extend_from_slice(harmless.as_bytes());
        let mut chars = tail.chars();
        let Some(character) = chars.next() else { return };
        escape_char(bytes, character);
        rest = chars.as_str();
    }
}

/// Moves back to a character boundary. A suspect byte always begins its character, so nothing moves: this only ensures
/// that `split_at` cannot panic.
fn floor_char_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Returns whether a character that begins with this byte may need an escape. Text in most scripts has none
/// of these bytes and is copied in one piece.
const fn is_suspect(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7F | 0xC2 | 0xD8 | 0xE2 | 0xEF | 0xF3)
}

fn escape_char(bytes: &mut Vec<u8>, character: char) {
    match character {
        '"' => bytes.extend_from_slice(b"\\\""),
        '\\' => bytes.extend_from_slice(b"\\\\"),
        '\n' => bytes.extend_from_slice(b"\\n"),
        '\r' => bytes.extend_from_slice(b"\\r"),
        '\t' => bytes.extend_from_slice(b"\\t"),
        _ if must_escape(character) => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                bytes.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    let nibble = u8::try_from((*unit >> shift) & 15).unwrap_or_default();
                    bytes.push(nibble + if nibble < 10 { b'0' } else { b'a' - 10 });
                }
            }
        }
        _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Returns whether a character must never occur unescaped in a line.
pub(super) const fn must_escape(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1F}'
            | '\u{7F}'..='\u{9F}'
            | '\u{61C}'
            | '\u{200E}' | '\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}'
            | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E007F}'
    )
}

/// Appends the whole line of a payload at its position in the chain, and returns its hash.
///
/// `durable` is given for the first line of a write: the highest sequence number known to be durable.
pub(crate) fn seal(
    line: &mut Vec<u8>,
    seq: u64,
    payload: &[u8],
    durable: Option<u64>,
    previous: &Digest,
) -> Digest {
    let start = line.len();
    let mut number = itoa::Buffer::new();
    line.extend_from_slice(b"{\"seq\":");
    line.extend_from_slice(number.format(seq).as_bytes());
    line.extend_from_slice(payload);
    if let Some(durable) = durable {
        line.extend_from_slice(b",\"durable\":");
        line.extend_from_slice(number.format(durable).as_bytes());
    }
    line.extend_from_slice(b",\"_prev_hash\":\"");
    line.extend_from_slice(&previous.hex());
    line.extend_from_slice(b"\"}");
    // The line was only appended to since `start`, so this cannot panic. A bug here must stop the writer, not hash
    // something else.
    let (_, body) = line.split_at(start);
    let hash = Digest::of_body(body);
    line.pop();
    line.extend_from_slice(b",\"_hash\":\"");
    line.extend_from_slice(&hash.hex());
    line.extend_from_slice(b"\"}\n");
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, escaped: &str) {
        let mut bytes = Vec::new();
        escape_into(&mut bytes, text);
        assert_eq!(String::from_utf8(bytes).unwrap(), escaped);
        let back: String = serde_json::from_str(&format!("\"{escaped}\"")).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn characters_that_could_break_a_line_are_escaped() {
        check("plain ümläut 漢字 😀", "plain ümläut 漢字 😀");
        check("a\"b\\c\nd\re\tf\0g", "a\\\"b\\\\c\\nd\\re\\tf\\u0000g");
        check("\u{7f}\u{85}\u{9f}\u{a0}", "\\u007f\\u0085\\u009f\u{a0}");
        check("\u{2028}\u{202e}\u{2066}\u{200f}\u{61c}", "\\u2028\\u202e\\u2066\\u200f\\u061c");
        check("\u{feff}\u{fff9}\u{e0041}", "\\ufeff\\ufff9\\udb40\\udc41");
        check("\u{200d}\u{2030}\u{f3000}", "\u{200d}\u{2030}\u{f3000}");
    }

    #[test]
    fn every_character_that_must_be_escaped_begins_with_a_suspect_byte() {
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let first = character.encode_utf8(&mut [0; 4]).as_bytes()[0];
            let escaped = must_escape(character) || matches!(character, '"' | '\\');
            assert!(!escaped || is_suspect(first), "{character:?}");
        }
    }

    #[test]
    fn a_payload_with_a_reused_beginning_equals_one_written_anew() {
        let mut beginning = Beginning::default();
        for (second, nanos, members) in [
            (5, 7, ",\"a\":1"),
            (5, 123_456_789, ",\"a\":1"),
            (5, 0, ",\"b\":2"),
            (6, 999_999_999, ",\"b\":2"),
        ] {
            let at = Timestamp::from_unix(second, nanos);
            let (mut quick, mut anew) = (Vec::new(), Vec::new());
            beginning.write(&mut quick, at, members);
            Payload::begin(&mut anew, at, RecordKind::Event).members(members.as_bytes());
            assert_eq!(String::from_utf8(quick).unwrap(), String::from_utf8(anew).unwrap());
        }
    }

    #[test]
    fn the_longest_payload_fits_a_line() {
        let mut line = Vec::new();
        let payload = vec![b' '; MAX_PAYLOAD];
        seal(&mut line, u64::MAX, &payload, Some(u64::MAX), &Digest::ZERO);
        assert!(line.len() <= MAX_LINE, "{}", line.len());
    }
}
