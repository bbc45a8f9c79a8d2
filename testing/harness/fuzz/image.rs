//! Builds the files of a log directory from a text that a fuzzer can change without breaking every
//! hash.

use std::collections::BTreeMap;

use crate::{chain::Digest, format::seal};

/// More files than this find nothing new.
const MAX_FILES: usize = 8;

/// Reads an image line by line. The first byte of a line decides its meaning:
///
/// - `=` begins the file with this name, a segment or `control/chain-000.lock`;
/// - `+` and `*` give the members of a record, which is sealed as the next one. With `*` it begins
///   a write, and everything before it is durable;
/// - `<` takes back this many records: the next one is sealed in place of the oldest of them;
/// - anything else stands for its own bytes; the last line has no line feed.
pub(super) fn files(image: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut sealed: Vec<Digest> = Vec::new();
    let mut name = String::new();
    let count = image.split(|byte| *byte == b'\n').count();
    for (index, line) in image.split(|byte| *byte == b'\n').enumerate() {
        match (line.first(), line.get(1..).unwrap_or_default()) {
            (Some(b'='), rest) if files.len() < MAX_FILES => name = plain(rest),
            (Some(mark @ (b'+' | b'*')), payload) => {
                let previous = sealed.last().copied().unwrap_or(Digest::ZERO);
                let seq = sealed.len() as u64 + 1;
                let durable = (*mark == b'*').then_some(seq - 1);
                let file = files.entry(name.clone()).or_insert_with(Vec::new);
                sealed.push(seal(file, seq, payload, durable, &previous));
            }
            (Some(b'<'), count) => {
                let count = std::str::from_utf8(count).ok().and_then(|count| count.parse::<usize>().ok());
                sealed.truncate(sealed.len().saturating_sub(count.unwrap_or(1)));
            }
            _ => {
                let file = files.entry(name.clone()).or_insert_with(Vec::new);
                file.extend_from_slice(line);
                if index + 1 < count {
                    file.push(b'\n');
                }
            }
        }
    }
    files.retain(|name, _| !name.is_empty());
    files
}

/// Returns a name without the characters that no file system allows.
fn plain(name: &[u8]) -> String {
    let name: String = String::from_utf8_lossy(name).chars().filter(|c| *c != '\0').take(100).collect();
    match name.strip_prefix("control/") {
        Some(inside) => format!("control/{}", inside.replace('/', "")),
        None => name.replace('/', ""),
    }
}
