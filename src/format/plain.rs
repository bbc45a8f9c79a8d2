//! How much of a text is plain. Most bytes of a log go through these loops, so they work on a word at a time.
//!
//! Byte by byte, with the standard library alone, an event costs its emitter 11 % more, and a verification takes 4 %
//! longer. (Burst, one thread, p50, 7 rounds of `tracing-audit-bench -- ours cost` on a quiet machine.)

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Returns the high bit of each byte of `word` that equals `byte`; exact for the lowest one found.
const fn equal(word: u64, byte: u8) -> u64 {
    let word = word ^ (ONES * byte as u64);
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Returns the high bit of each byte that is a quote, a backslash, a C0 control or DEL; exact for the lowest.
const fn special(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    equal(word, b'"') | equal(word, b'\\') | equal(word, 0x7F) | below_space
}

/// Returns how many bytes from the start of `bytes` neither end nor escape a JSON string, nor are raw C0 controls or
/// DEL.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    scan(bytes, special)
}

/// Returns the offset of the next quote in `bytes` from `at` on.
#[inline]
pub(super) fn find_quote(bytes: &[u8], at: usize) -> Option<usize> {
    let mut rest = bytes.get(at..)?;
    while let Some((word, more)) = rest.split_first_chunk() {
        let found = equal(u64::from_le_bytes(*word), b'"');
        if found != 0 {
            return Some(bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize);
        }
        rest = more;
    }
    let more = rest.iter().position(|byte| *byte == b'"')?;
    Some(bytes.len() - rest.len() + more)
}

/// Returns whether all bytes are ASCII, and none is a backslash, a C0 control or DEL. Then no string in them has an
/// escape, or a character that needs one.
pub(super) fn is_plain_ascii(bytes: &[u8]) -> bool {
    // No early return inside a block, so that the compiler vectorises it.
    let is_plain = |block: &[u8]| {
        let bad = |byte: u8| !(0x20..0x7F).contains(&byte) || byte == b'\\';
        !block.iter().fold(false, |found, byte| found | bad(*byte))
    };
    let blocks = bytes.as_chunks::<32>().0;
    // The last 32 bytes are checked again as one block, which is cheaper than a shorter remainder.
    blocks.iter().all(|block| is_plain(block))
        && bytes.last_chunk::<32>().map_or_else(|| is_plain(bytes), |last| is_plain(last))
}

/// Returns the same as [`plain_length`], but stops at non-ASCII bytes too.
pub(super) fn plain_ascii_length(bytes: &[u8]) -> usize {
    scan(bytes, |word| special(word) | (word & HIGHS))
}

/// Appends a text if every byte is printable ASCII and none ends or escapes a JSON string. This is called for every
/// text of every event. Most are short, and are checked and copied as two words that may overlap.
pub(super) fn push_if_plain(out: &mut Vec<u8>, text: &[u8]) -> bool {
    match text.len() {
        8..16 => push_ends_if_plain::<8>(out, text),
        16..=32 => push_ends_if_plain::<16>(out, text),
        _ => {
            let is_plain = plain_ascii_length(text) == text.len();
            if is_plain {
                out.extend_from_slice(text);
            }
            is_plain
        }
    }
}

/// Does the same for a text of at least `N` bytes and at most twice as many.
#[inline]
fn push_ends_if_plain<const N: usize>(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) else { return false };
    let words = first.as_chunks::<8>().0.iter().chain(last.as_chunks::<8>().0);
    let bits = words.fold(HIGHS, |bits, word| bits & plain_bits(u64::from_le_bytes(*word)));
    if bits != HIGHS {
        return false;
    }
    let end = out.len() + text.len();
    out.reserve(2 * N);
    out.extend_from_slice(first);
    out.truncate(end - N);
    out.extend_from_slice(last);
    true
}

/// Returns the high bit of each byte that is plain ASCII, if all bytes of the word are. Sums do not carry into the next
/// byte unless a byte has its high bit set, and such a word is refused anyway.
const fn plain_bits(word: u64) -> u64 {
    let is_no_control = word.wrapping_add(ONES * 0x60) & !(word | word.wrapping_add(ONES));
    let is_no_quote = (word ^ (ONES * b'"' as u64)).wrapping_add(ONES * 0x7F);
    let is_no_backslash = (word ^ (ONES * b'\\' as u64)).wrapping_add(ONES * 0x7F);
    is_no_control & is_no_quote & is_no_backslash
}

/// Scans eight bytes at a time. `stops` marks bytes by their high bits, the lowest one exactly.
#[inline]
fn scan(bytes: &[u8], stops: impl Fn(u64) -> u64) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = stops(u64::from_le_bytes(*word));
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    if rest.is_empty() {
        return bytes.len();
    }
    // The last eight bytes are scanned again as one word, if there are as many: those before the rest did not stop.
    let (start, last) = match bytes.last_chunk::<8>() {
        Some(last) => (bytes.len() - 8, u64::from_le_bytes(*last)),
        None => (0, short_word(rest)),
    };
    let found = stops(last);
    if found == 0 { bytes.len() } else { start + (found.trailing_zeros() / 8) as usize }
}

/// Returns fewer than eight bytes as a word, padded with plain bytes.
fn short_word(bytes: &[u8]) -> u64 {
    let (parts, rest) = bytes.as_chunks::<2>();
    let mut word = u64::from_ne_bytes([b' '; 8]) << (bytes.len() * 8 % 64);
    for (index, pair) in parts.iter().enumerate() {
        word |= u64::from(u16::from_le_bytes(*pair)) << (index * 16);
    }
    word | rest.first().map_or(0, |byte| u64::from(*byte) << (parts.len() * 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests every n-th length and value only under Miri, which runs a thousand times slower.
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
    fn a_text_is_appended_if_it_is_plain() {
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
    fn plain_ascii_length_stops_at_non_ascii_bytes() {
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
