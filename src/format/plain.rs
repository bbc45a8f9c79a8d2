//! How far a text is plain: the loops in which most bytes of a log are looked at.

/// Whether a byte neither ends nor escapes a JSON string, and is no C0 control and no DEL.
const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && !matches!(byte, b'"' | b'\\' | 0x7F)
}

/// How many bytes from the start of `bytes` are none of those that end or escape a JSON string, nor
/// a raw C0 control or DEL.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_plain(*byte)).unwrap_or(bytes.len())
}

/// As [`plain_length`], stopping at what is not ASCII too.
pub(super) fn plain_ascii_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_plain(*byte) || !byte.is_ascii()).unwrap_or(bytes.len())
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Where the next quote stands in `bytes`, looked for from `at` on. Eight bytes at a time, by hand: this is done
/// for every string of a log that is verified. With `memchr` a verification takes 6 % longer, because most
/// strings are short; with `position` 4 %, and 25 % where messages have 8 KiB. That is the median of 15 runs in
/// turns, user and system time of `instructions verify DIR 5` (`cargo bench --bench instructions --no-run`).
#[inline]
pub(super) fn find_quote(bytes: &[u8], at: usize) -> Option<usize> {
    let mut rest = bytes.get(at..)?;
    while let Some((word, more)) = rest.split_first_chunk() {
        // A quote becomes a zero byte, and the lowest zero byte the lowest one with its high bit set.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'"'));
        let found = word.wrapping_sub(ONES) & !word & HIGHS;
        if found != 0 {
            return Some(bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize);
        }
        rest = more;
    }
    let more = rest.iter().position(|byte| *byte == b'"')?;
    Some(bytes.len() - rest.len() + more)
}

/// Whether all is ASCII, and nothing a backslash, a C0 control or DEL: no string in it has an escape,
/// or what needs one.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "without a way out the compiler looks at many bytes together"
)]
pub(super) fn is_plain_ascii(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |found, byte| found | !(0x20..0x7F).contains(byte) | (*byte == b'\\'))
}

/// Appends a text if every byte is printable ASCII and none ends or escapes a JSON string. Done with every
/// text of every event.
pub(super) fn push_if_plain(out: &mut Vec<u8>, text: &[u8]) -> bool {
    // As in `is_plain_ascii`.
    let is_plain = !text.iter().fold(false, |found, byte| found | !is_plain(*byte) | !byte.is_ascii());
    if is_plain {
        out.extend_from_slice(text);
    }
    is_plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not every length and value where a test runs a thousand times slower.
    const STEP: usize = if cfg!(miri) { 7 } else { 1 };

    #[test]
    fn plain_length_stops_at_the_first_special_byte() {
        for special in [b'"', b'\\', 0x7F, 0, 0x1F] {
            for at in (0..40).step_by(STEP) {
                let mut text = vec![b'x'; 40];
                text[at] = special;
                assert_eq!(plain_length(&text), at);
            }
        }
        assert_eq!(plain_length("üñ漢\u{80}~ !#[]".as_bytes()), "üñ漢\u{80}~ !#[]".len());
    }

    #[test]
    fn a_text_is_appended_where_nothing_stops() {
        for length in (0..40).step_by(STEP) {
            for at in (0..length).step_by(STEP) {
                for byte in (0..=u8::MAX).step_by(STEP) {
                    let mut text = vec![b'~'; length];
                    text[at] = byte;
                    let mut out = b"before".to_vec();
                    let is_plain = plain_ascii_length(&text) == length;
                    assert_eq!(push_if_plain(&mut out, &text), is_plain, "{text:?}");
                    let expected =
                        if is_plain { [b"before".as_slice(), &text].concat() } else { b"before".to_vec() };
                    assert_eq!(out, expected);
                }
            }
            assert!(push_if_plain(&mut Vec::new(), &vec![b' '; length]));
        }
    }

    #[test]
    fn plain_ascii_length_stops_at_any_other_script() {
        for at in (0..40).step_by(STEP) {
            let mut text = vec![b'x'; 40];
            text[at] = 0xC3;
            assert_eq!((plain_length(&text), plain_ascii_length(&text)), (40, at));
            assert_eq!(plain_ascii_length(&text[..at]), at);
            for start in 0..at {
                assert_eq!(plain_ascii_length(&text[start..=at]), at - start);
                assert_eq!(plain_ascii_length(&text[start..at]), at - start);
            }
        }
    }
}
