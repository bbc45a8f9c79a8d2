//! Encodes values as JSON, directly into a buffer, up to a length limit.
//!
//! Each function appends one JSON value. If the value is not complete in what was appended, because it was cut,
//! stopped or failed, it returns the [`FullValue`].

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    chain::{Digest, Hasher},
    format::{self, Value, escape_into, push_if_plain},
};

/// The longest target or module, in bytes of the line.
const MAX_ORIGIN: usize = 1024;

/// The longest value, in bytes of the line. A whole line is not longer.
pub(super) const MAX_VALUE: usize = format::MAX_LINE;

/// How many bytes code of the application may write for one value. Without a limit, it might never end.
const MAX_WRITTEN: u64 = 4 << 20;

/// The largest integer that common JSON readers do not round; see RFC 8259, section 6.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// The most causes of an error that are written. A chain of causes might be circular.
const MAX_CAUSES: usize = 64;

/// What is known of the full value, if the record has only a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FullValue {
    /// Its length in bytes of UTF-8. Of a value that was stopped or failed, the length up to that point.
    pub(super) bytes: u64,
    pub(super) ending: Ending,
}

/// How a value ended that is not complete in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All of it was read: the SHA-256 of its text.
    Complete(Digest),
    /// The code that writes it was stopped, because it wrote too much.
    Stopped,
    /// The code that writes it failed or panicked.
    Failed,
    /// It is withheld, so neither its length nor its hash is recorded.
    Withheld,
}

impl FullValue {
    fn of(text: &str) -> Self {
        Self { bytes: text.len() as u64, ending: Ending::Complete(Digest::of_bytes(text.as_bytes())) }
    }

    /// Returns the length and hash of a value that is complete in its JSON.
    pub(super) fn of_json(json: &[u8]) -> Self {
        match format::parse_value(json) {
            Some(Value::Text(text)) => Self::of(&text),
            _ => Self::of(&String::from_utf8_lossy(json)),
        }
    }

    /// Appends it as the members of a JSON object, without the braces.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if self.ending == Ending::Withheld {
            out.extend_from_slice(b"\"redacted\":true");
            return;
        }
        out.extend_from_slice(b"\"bytes\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.bytes).as_bytes());
        match self.ending {
            Ending::Complete(digest) => {
                out.extend_from_slice(b",\"sha256\":\"");
                out.extend_from_slice(&digest.hex());
                out.push(b'"');
            }
            Ending::Stopped => out.extend_from_slice(b",\"stopped\":true"),
            Ending::Failed => out.extend_from_slice(b",\"failed\":true"),
            Ending::Withheld => {}
        }
    }
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends an integer. `magnitude` is the value without its sign, or any number above the safe integers.
pub(super) fn integer<I: itoa::Integer>(out: &mut Vec<u8>, value: I, magnitude: u64) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    if magnitude <= MAX_SAFE {
        out.extend_from_slice(digits);
    } else {
        quoted(out, digits);
    }
}

/// Appends a float. JSON has no NaN and no infinities, so those are texts.
pub(super) fn float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        quoted(out, b"NaN");
    } else if value.is_infinite() {
        quoted(out, if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        // `Debug` prints the shortest digits that read back as the same number, with an exponent where there would be
        // many. Writing to a `Vec` never fails.
        drop(write!(out, "{value:?}"));
    }
}

/// Appends a text and its closing quote, if nothing must be escaped or cut and the text is not empty. Returns whether
/// it did. This is the fast path for most texts; the caller has written the opening quote.
#[inline]
pub(super) fn plain_text(out: &mut Vec<u8>, value: &str, limit: usize) -> bool {
    let is_plain = (1..=limit).contains(&value.len()) && push_if_plain(out, value);
    if is_plain {
        out.push(b'"');
    }
    is_plain
}

/// Appends a text.
pub(super) fn text(out: &mut Vec<u8>, value: &str, limit: usize) -> Option<Box<FullValue>> {
    out.push(b'"');
    if plain_text(out, value, limit) {
        return None;
    }
    let is_whole = escape_start(out, value, limit);
    out.push(b'"');
    (!is_whole).then(|| Box::new(FullValue::of(value)))
}

/// Appends bytes as a text of lower-case hexadecimal digits.
pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8], limit: usize) -> Option<Box<FullValue>> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    const CHUNK: usize = 4096;
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
    let digits = |chunk: &[u8], out: &mut Vec<u8>| {
        out.extend(chunk.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
    };
    let (kept, rest) = value.split_at(value.len().min(limit / 2));
    out.push(b'"');
    digits(kept, out);
    out.push(b'"');
    if rest.is_empty() {
        return None;
    }
    // The hash is that of the text, as for every value. The text is made in chunks, because it can be large.
    let (mut hasher, mut buffer) = (Hasher::default(), Vec::with_capacity(2 * CHUNK));
    for chunk in value.chunks(CHUNK) {
        buffer.clear();
        digits(chunk, &mut buffer);
        hasher.update(&buffer);
    }
    Some(Box::new(FullValue { bytes: 2 * value.len() as u64, ending: Ending::Complete(hasher.finish()) }))
}

/// Appends what a value's `Debug` writes. That is code of the application, which may panic, fail, or never end.
pub(super) fn debug(out: &mut Vec<u8>, value: &dyn fmt::Debug, limit: usize) -> Option<Box<FullValue>> {
    written(out, limit, |writer| write!(writer, "{value:?}"))
}

/// Appends what a value's `Display` writes, with the same safeguards as [`debug`].
pub(super) fn display(out: &mut Vec<u8>, value: &dyn fmt::Display, limit: usize) -> Option<Box<FullValue>> {
    written(out, limit, |writer| write!(writer, "{value}"))
}

/// Appends an error and its causes, separated by `: `.
pub(super) fn error(
    out: &mut Vec<u8>,
    value: &(dyn Error + 'static),
    limit: usize,
) -> Option<Box<FullValue>> {
    written(out, limit, |writer| {
        write!(writer, "{value}")?;
        let mut cause = value.source();
        for _ in 0..MAX_CAUSES {
            let Some(current) = cause else { return Ok(()) };
            write!(writer, ": {current}")?;
            cause = current.source();
        }
        writer.is_stopped = cause.is_some();
        Ok(())
    })
}

/// Appends a text that code of the application writes. If that fails, what it has written is kept.
fn written(
    out: &mut Vec<u8>,
    limit: usize,
    write: impl FnOnce(&mut Capped<'_>) -> fmt::Result,
) -> Option<Box<FullValue>> {
    out.push(b'"');
    let mut writer = Capped { start: out.len(), out, limit, beyond: None, is_stopped: false };
    let result = catch_unwind(AssertUnwindSafe(|| write(&mut writer)));
    let is_complete = matches!(result, Ok(Ok(())));
    if let Err(panic) = result {
        // Dropping a panic's payload would run code of the application again.
        std::mem::forget(panic);
    }
    let full = writer.end(is_complete);
    out.push(b'"');
    full
}

#[inline]
fn quoted(out: &mut Vec<u8>, plain: &[u8]) {
    out.reserve(plain.len() + 2);
    out.push(b'"');
    out.extend_from_slice(plain);
    out.push(b'"');
}

/// Escapes what is written into a buffer, up to a limit. Beyond the limit, text is only counted and hashed. Beyond
/// `MAX_WRITTEN` it is refused, which ends a `Debug` that would otherwise never end.
struct Capped<'a> {
    out: &'a mut Vec<u8>,
    /// The position in `out` at which the text begins.
    start: usize,
    limit: usize,
    /// The length and the hash of the full text, once it is longer than the limit.
    beyond: Option<(u64, Hasher)>,
    /// Whether the text is longer than `MAX_WRITTEN`, or has too many causes.
    is_stopped: bool,
}

impl Capped<'_> {
    /// Returns the text that was written so far, without escapes.
    fn so_far(&self) -> String {
        let mut json = vec![b'"'];
        json.extend_from_slice(self.out.get(self.start..).unwrap_or_default());
        json.push(b'"');
        match format::parse_value(&json) {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        }
    }

    /// Returns the full value, if the text was cut, stopped, or is not complete.
    fn end(self, is_complete: bool) -> Option<Box<FullValue>> {
        let ending =
            if self.is_stopped { Some(Ending::Stopped) } else { (!is_complete).then_some(Ending::Failed) };
        let so_far = ending.map(|ending| (self.so_far().len() as u64, ending));
        let (bytes, ending) = match (so_far, self.beyond) {
            (None, None) => return None,
            (Some(so_far), None) => so_far,
            (Some((_, ending)), Some((bytes, _))) => (bytes, ending),
            (None, Some((bytes, hasher))) => (bytes, Ending::Complete(hasher.finish())),
        };
        Some(Box::new(FullValue { bytes, ending }))
    }
}

impl fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_stopped {
            return Err(fmt::Error);
        }
        if let Some((bytes, hasher)) = &mut self.beyond {
            *bytes += text.len() as u64;
            hasher.update(text.as_bytes());
            self.is_stopped = *bytes > MAX_WRITTEN;
            return if self.is_stopped { Err(fmt::Error) } else { Ok(()) };
        }
        let room = (self.start + self.limit).saturating_sub(self.out.len());
        if text.len() <= room && push_if_plain(self.out, text) {
            return Ok(());
        }
        let behind = self.out.len();
        if !escape_start(self.out, text, room) {
            // The limit is reached here, so hashing begins: with the text before this part, and all of this part.
            let kept = self.out.split_off(behind);
            let before = self.so_far();
            self.out.extend_from_slice(&kept);
            let mut hasher = Hasher::default();
            hasher.update(before.as_bytes());
            hasher.update(text.as_bytes());
            self.beyond = Some(((before.len() + text.len()) as u64, hasher));
        }
        Ok(())
    }
}

/// Appends as many whole characters of a text, escaped, as the limit allows. Returns whether that is the whole text.
fn escape_start(out: &mut Vec<u8>, text: &str, limit: usize) -> bool {
    let start = out.len();
    let fitting = start_of(text, limit);
    escape_into(out, fitting);
    // Escapes make a text longer.
    let is_longer = out.len() - start > limit;
    if is_longer {
        shorten(out, start, limit);
    }
    !is_longer && fitting.len() == text.len()
}

/// Returns the longest start of a text that has at most `limit` bytes and ends after a whole character.
pub(super) fn start_of(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    loop {
        match text.get(..end) {
            Some(start) => return start,
            None => end -= 1,
        }
    }
}

/// Shortens the escaped text that begins at `start` to [`whole_length`].
fn shorten(out: &mut Vec<u8>, start: usize, limit: usize) {
    if let Some(escaped) = out.get(start..) {
        let length = whole_length(escaped, limit);
        out.truncate(start + length);
    }
}

/// Returns the length of the longest start of an escaped text that has at most `limit` bytes and ends after a whole
/// character.
pub(super) fn whole_length(escaped: &[u8], limit: usize) -> usize {
    let mut length = 0;
    while let Some(&first) = escaped.get(length) {
        let character = match first {
            b'\\' => match escaped.get(length + 1..length + 4) {
                // A surrogate pair is one character.
                Some([b'u', b'd', b'8' | b'9' | b'a' | b'b']) => 12,
                Some([b'u', ..]) => 6,
                _ => 2,
            },
            0..0x80 => 1,
            0x80..0xE0 => 2,
            0xE0..0xF0 => 3,
            _ => 4,
        };
        if length + character > limit {
            break;
        }
        length += character;
    }
    length.min(escaped.len())
}

/// Appends the members `target` and `module`.
pub(super) fn write_origin(out: &mut Vec<u8>, target: &str, module: Option<&str>) {
    for (member, text) in [("target", Some(target)), ("module", module)] {
        let Some(text) = text else { continue };
        out.extend_from_slice(b",\"");
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(b"\":\"");
        let start = out.len();
        escape_into(out, text);
        shorten(out, start, MAX_ORIGIN);
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, expected);
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }

    #[test]
    fn numbers_survive_every_reader() {
        let safe = 9_007_199_254_740_991;
        check("9007199254740991", |out| integer(out, safe, safe));
        check("\"9007199254740992\"", |out| integer(out, safe + 1, safe + 1));
        check("\"-9223372036854775808\"", |out| integer(out, i64::MIN, i64::MIN.unsigned_abs()));
        check("\"340282366920938463463374607431768211455\"", |out| integer(out, u128::MAX, u64::MAX));
        check("-5", |out| integer(out, -5_i128, 5));
        for (value, expected) in [
            (1e308, "1e308"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1.0, "1.0"),
            (5e-324, "5e-324"),
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            check(expected, |out| float(out, value));
        }
    }

    #[test]
    fn bytes_are_one_hexadecimal_text() {
        check("\"00ff1b\"", |out| assert_eq!(bytes(out, &[0, 0xFF, 0x1B], MAX_VALUE), None));
        check("\"0707\"", |out| {
            let digest = Digest::of_bytes("07".repeat(10_000).as_bytes());
            let full = FullValue { bytes: 20_000, ending: Ending::Complete(digest) };
            assert_eq!(bytes(out, &[7; 10_000], 4), Some(Box::new(full)));
        });
    }

    #[test]
    fn a_debug_that_never_ends_is_stopped() {
        struct Endless;
        impl fmt::Debug for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("\u{1b}漢")?;
                }
            }
        }
        struct Deaf;
        impl fmt::Debug for Deaf {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let failures = (0..1_000_000).filter(|_| f.write_str("0123456789").is_err());
                assert!(failures.count() > 500_000);
                Ok(())
            }
        }
        for endless in [&Endless as &dyn fmt::Debug, &Deaf] {
            let mut out = Vec::new();
            let full = debug(&mut out, endless, MAX_VALUE).unwrap();
            assert_eq!(full.ending, Ending::Stopped);
            assert!(full.bytes > MAX_WRITTEN && full.bytes <= MAX_WRITTEN + 10);
            assert!(out.len() <= MAX_VALUE + 2 && out.len() > MAX_VALUE - 20, "{}", out.len());
            serde_json::from_slice::<String>(&out).unwrap();
        }
    }

    #[test]
    fn the_output_of_a_failing_debug_is_kept() {
        struct Fails;
        impl fmt::Debug for Fails {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        struct Panics;
        impl fmt::Debug for Panics {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                panic!("in Debug")
            }
        }
        let half = || Some(Box::new(FullValue { bytes: 4, ending: Ending::Failed }));
        check("\"half\"", |out| assert_eq!(debug(out, &Fails, MAX_VALUE), half()));
        check("\"half\"", |out| assert_eq!(debug(out, &Panics, MAX_VALUE), half()));
        check("\"ha\"", |out| assert_eq!(debug(out, &Panics, 2), half()));
    }

    #[test]
    fn errors_are_written_with_their_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let outer = Outer(std::io::Error::other("inner\n"));
        check("\"outer: inner\\n\"", |out| assert_eq!(error(out, &outer, MAX_VALUE), None));
    }

    /// However the text is split into writes, its start is kept, and the length and hash are those of the full text.
    #[test]
    fn a_cut_value_is_identified_by_its_length_and_hash() {
        struct Pieces(Vec<&'static str>);
        impl fmt::Display for Pieces {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|piece| f.write_str(piece))
            }
        }
        let pieces = ["plain", "é\u{1b}\"", "", "\u{e0041}", "漢字", "end"];
        for count in 0..=pieces.len() {
            let whole = pieces[..count].concat();
            let known = FullValue {
                bytes: whole.len() as u64,
                ending: Ending::Complete(Digest::of_bytes(whole.as_bytes())),
            };
            for limit in 0..60 {
                let (mut written, mut at_once) = (Vec::new(), Vec::new());
                let of_pieces = display(&mut written, &Pieces(pieces[..count].to_vec()), limit);
                let of_text = text(&mut at_once, &whole, limit);
                assert_eq!(of_pieces, of_text, "{count} pieces, {limit} bytes");
                let kept: String = serde_json::from_slice(&written).unwrap();
                assert!(whole.starts_with(&kept) && written.len() <= limit + 2);
                assert!(serde_json::from_slice::<String>(&at_once).unwrap().starts_with(&kept));
                assert_eq!(
                    of_pieces,
                    (kept.len() < whole.len()).then(|| Box::new(known)),
                    "{count} pieces, {limit} bytes"
                );
            }
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let escaped = "a\\n\\u001bé漢\\udb40\\udc41😀".as_bytes();
        let ends: Vec<usize> = (0..=escaped.len() + 3).map(|limit| whole_length(escaped, limit)).collect();
        let mut whole = ends.clone();
        whole.dedup();
        assert_eq!(whole, [0, 1, 3, 9, 11, 14, 26, 30]);
        assert!(ends.iter().enumerate().all(|(limit, end)| *end <= limit));
        let mut out = Vec::new();
        assert!(text(&mut out, &"\u{e0041}".repeat(MAX_VALUE), MAX_VALUE).is_some());
        serde_json::from_slice::<String>(&out).unwrap();
    }
}
