//! The hash of a line, by the rule of docs/format.md.

use sha2::{Digest as _, Sha256};

/// How the last members of a line begin, how long a hash is, and how the line ends.
pub(crate) const HASH: &str = ",\"_hash\":\"";
pub(crate) const PREV_HASH: &str = "\"_prev_hash\":\"";
pub(crate) const DIGITS: usize = 64;
const END: usize = 2;

/// A line without its hash and without its last brace.
pub(crate) fn body_of(line: &[u8]) -> &[u8] {
    line.get(..line.len().saturating_sub(HASH.len() + DIGITS + END)).unwrap_or_default()
}

/// The hash that belongs to a body: of a zero byte, the body, and the brace.
pub(crate) fn hash_of(body: &[u8]) -> String {
    let hash = Sha256::new().chain_update([0]).chain_update(body).chain_update(b"}").finalize();
    hexadecimal(&hash)
}

/// Bytes as `sha256sum` prints them.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
