//! The hash of a line, by the rule of docs/format.md.

use sha2::{Digest as _, Sha256};

/// The beginning of the last member of a line.
pub(crate) const HASH: &str = ",\"_hash\":\"";
/// The beginning of the last member of a body.
pub(crate) const PREV_HASH: &str = "\"_prev_hash\":\"";
/// Length of a hash, in hexadecimal digits.
pub(crate) const DIGITS: usize = 64;
/// Length of `"}` at the end of a line, in bytes.
const END: usize = 2;

/// Returns a line without its `_hash` member and its last brace.
pub(crate) fn body_of(line: &[u8]) -> &[u8] {
    line.get(..line.len().saturating_sub(HASH.len() + DIGITS + END)).unwrap_or_default()
}

/// Computes the hash of a body: over a zero byte, the body, and the last brace.
pub(crate) fn hash_of(body: &[u8]) -> String {
    let hash = Sha256::new().chain_update([0]).chain_update(body).chain_update(b"}").finalize();
    hexadecimal(&hash)
}

/// Formats bytes in lower-case hexadecimal digits, as `sha256sum` does.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
