//! Lines made by hand, with the hash of docs/format.md, without the library.

use sha2::{Digest as _, Sha256};

/// Makes the line of a body, which is a complete object that ends with `_prev_hash`. Returns it with its hash.
pub(crate) fn seal(body: &str) -> (String, String) {
    let hash = hexadecimal(&Sha256::new().chain_update([0]).chain_update(body).finalize());
    (format!("{},\"_hash\":\"{hash}\"}}\n", body.strip_suffix('}').unwrap()), hash)
}

/// Formats bytes as `sha256sum` prints them.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
