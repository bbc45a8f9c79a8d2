//! Values to JSON, straight into a buffer, never longer than a bound.
//!
//! Each function appends one JSON value and says whether something of it is missing.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::format::{escape_into, push_if_plain};

/// The longest target or module, in bytes as it stands in the line.
const MAX_ORIGIN: usize = 1024;

/// The longest value, in bytes as it stands in the line.
pub(super) const MAX_VALUE: usize = 16 * 1024;

/// Beyond ±(2^53−1) common readers of JSON round.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// How many causes of an error are written at most.
const MAX_CAUSES: usize = 64;

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) -> bool {
    out.extend_from_slice(if value { b"true" } else { b"false" });
    false
}

/// `magnitude` is the value without its sign, or anything larger than a safe integer.
pub(super) fn integer<I: itoa::Integer>(out: &mut Vec<u8>, value: I, magnitude: u64) -> bool {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    if magnitude <= MAX_SAFE {
        out.extend_from_slice(digits);
    } else {
        quoted(out, digits);
    }
    false
}

pub(super) fn float(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_nan() {
        quoted(out, b"NaN");
    } else if value.is_infinite() {
        quoted(out, if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        // The shortest digits that read back as the same number, with an exponent where they would
        // be many. A Vec takes everything.
        drop(write!(out, "{value:?}"));
    }
    false
}

/// Appends a text behind its first quote, and the last one, if it has anything to say, nothing to escape and
/// nothing to cut, as most have; says whether it does.
#[inline]
pub(super) fn plain_text(out: &mut Vec<u8>, value: &str) -> bool {
    let is_plain = (1..=MAX_VALUE).contains(&value.len()) && push_if_plain(out, value);
    if is_plain {
        out.push(b'"');
    }
    is_plain
}

pub(super) fn text(out: &mut Vec<u8>, value: &str) -> bool {
    out.push(b'"');
    if plain_text(out, value) {
        return false;
    }
    let mut writer = Capped::new(out);
    let cut = writer.write_str(value).is_err();
    out.push(b'"');
    cut
}

/// Pairs of lower-case hexadecimal digits.
pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8]) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
    out.push(b'"');
    for byte in value.iter().take(MAX_VALUE / 2) {
        out.extend_from_slice(&[digit(byte >> 4), digit(*byte)]);
    }
    out.push(b'"');
    value.len() > MAX_VALUE / 2
}

/// Code of the application: it may panic, fail, or never end.
pub(super) fn debug(out: &mut Vec<u8>, value: &dyn fmt::Debug) -> bool {
    written(out, |writer| write!(writer, "{value:?}"))
}

/// An error and its causes, with `: ` between them.
pub(super) fn error(out: &mut Vec<u8>, value: &(dyn Error + 'static)) -> bool {
    written(out, |writer| {
        write!(writer, "{value}")?;
        let mut cause = value.source();
        for _ in 0..MAX_CAUSES {
            let Some(current) = cause else { return Ok(()) };
            write!(writer, ": {current}")?;
            cause = current.source();
        }
        Err(fmt::Error)
    })
}

/// A text that code of the application writes. What it wrote before it failed stays.
fn written(out: &mut Vec<u8>, write: impl FnOnce(&mut Capped<'_>) -> fmt::Result) -> bool {
    out.push(b'"');
    let mut writer = Capped::new(out);
    let result = catch_unwind(AssertUnwindSafe(|| write(&mut writer)));
    let whole = !writer.full && matches!(result, Ok(Ok(())));
    if let Err(panic) = result {
        // Dropping what was thrown would run code of the application again.
        std::mem::forget(panic);
    }
    out.push(b'"');
    !whole
}

#[inline]
fn quoted(out: &mut Vec<u8>, plain: &[u8]) {
    out.reserve(plain.len() + 2);
    out.push(b'"');
    out.extend_from_slice(plain);
    out.push(b'"');
}

/// Escapes into a buffer and refuses more once the longest value is reached, so that a `Debug` that
/// would never end does.
struct Capped<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    full: bool,
}

impl<'a> Capped<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        let end = out.len() + MAX_VALUE;
        Self { out, end, full: false }
    }
}

impl fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        let room = self.end.saturating_sub(self.out.len());
        if text.len() <= room && push_if_plain(self.out, text) {
            return Ok(());
        }
        let start = self.out.len();
        let fitting = start_of(text, room);
        escape_into(self.out, fitting);
        // Escapes make a text longer.
        if self.out.len() > self.end {
            shorten(self.out, start, room);
            self.full = true;
        }
        self.full |= fitting.len() < text.len();
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The longest start of a text that is not longer than `limit` and ends behind a whole character.
pub(super) fn start_of(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    loop {
        match text.get(..end) {
            Some(start) => return start,
            None => end -= 1,
        }
    }
}

/// Shortens the escaped text that begins at `start` as [`whole_length`] says.
fn shorten(out: &mut Vec<u8>, start: usize, limit: usize) {
    if let Some(escaped) = out.get(start..) {
        let length = whole_length(escaped, limit);
        out.truncate(start + length);
    }
}

/// The longest start of an escaped text that is not longer than `limit` and ends behind a whole
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

/// Writes the members `target` and `module`.
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
    fn check(expected: &str, cut: bool, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let mut out = Vec::new();
        assert_eq!(write(&mut out), cut, "{expected}");
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, expected);
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }

    #[test]
    fn numbers_survive_every_reader() {
        let safe = 9_007_199_254_740_991;
        check("9007199254740991", false, |out| integer(out, safe, safe));
        check("\"9007199254740992\"", false, |out| integer(out, safe + 1, safe + 1));
        check("\"-9223372036854775808\"", false, |out| integer(out, i64::MIN, i64::MIN.unsigned_abs()));
        check("\"340282366920938463463374607431768211455\"", false, |out| integer(out, u128::MAX, u64::MAX));
        check("-5", false, |out| integer(out, -5_i128, 5));
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
            check(expected, false, |out| float(out, value));
        }
    }

    #[test]
    fn bytes_are_one_hexadecimal_text() {
        check("\"00ff1b\"", false, |out| bytes(out, &[0, 0xFF, 0x1B]));
        let mut out = Vec::new();
        assert!(bytes(&mut out, &vec![7; MAX_VALUE]));
        assert_eq!(out.len(), MAX_VALUE + 2);
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
                let failures = (0..100_000).filter(|_| f.write_str("0123456789").is_err());
                assert!(failures.count() > 90_000);
                Ok(())
            }
        }
        for endless in [&Endless as &dyn fmt::Debug, &Deaf] {
            let mut out = Vec::new();
            assert!(debug(&mut out, endless));
            assert!(out.len() <= MAX_VALUE + 2 && out.len() > MAX_VALUE - 20, "{}", out.len());
            serde_json::from_slice::<String>(&out).unwrap();
        }
    }

    #[test]
    fn what_a_failing_debug_wrote_stays() {
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
        check("\"half\"", true, |out| debug(out, &Fails));
        check("\"half\"", true, |out| debug(out, &Panics));
    }

    #[test]
    fn errors_bring_their_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        check("\"outer: inner\\n\"", false, |out| error(out, &Outer(std::io::Error::other("inner\n"))));
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
        assert!(text(&mut out, &"\u{e0041}".repeat(MAX_VALUE)));
        serde_json::from_slice::<String>(&out).unwrap();
    }
}
