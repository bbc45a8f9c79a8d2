//! SHA-256 sums of segments, as `sha256sum` prints them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tracing_audit::{Segment, segments};

use crate::hash::hexadecimal;

/// A segment and its sum.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) name: String,
    pub(super) chain: u16,
    pub(super) first_seq: Option<u64>,
    /// Number of bytes summed: those that count, from the first on.
    pub(super) bytes: u64,
    /// Whether the file has more bytes than those that count.
    pub(super) has_more: bool,
    /// Whether it is the newest segment of its chain, which may grow.
    pub(super) is_newest: bool,
    /// `None` if the file was removed or truncated while the page was made.
    pub(super) sha256: Option<String>,
}

/// Computes the sum of the bytes that count of each segment.
///
/// Bytes that a later segment declares void do not count. Of the newest segment, the bytes that it has now are summed.
pub(super) fn sum_all(log: &Path) -> Result<Vec<Sum>> {
    let segments = segments(log).with_context(|| format!("cannot list the segments of {}", log.display()))?;
    let mut sums = Vec::with_capacity(segments.len());
    for (index, segment) in segments.iter().enumerate() {
        // Segments are sorted by chain and number.
        let next = segments.get(index + 1);
        let is_newest = next.is_none_or(|next| next.chain() != segment.chain());
        sums.push(sum_of(segment, is_newest)?);
    }
    Ok(sums)
}

fn sum_of(segment: &Segment, is_newest: bool) -> Result<Sum> {
    let name = segment.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = sha256_of(segment.path(), segment.counted_bytes());
    Ok(Sum {
        name,
        chain: segment.chain(),
        first_seq: segment.first_seq(),
        bytes: segment.counted_bytes(),
        has_more: segment.bytes() > segment.counted_bytes(),
        is_newest,
        sha256: sha256.with_context(|| format!("cannot read {}", segment.path().display()))?,
    })
}

/// Computes the sum of the first `bytes` bytes, or `None` if the file is gone or shorter.
fn sha256_of(path: &Path, bytes: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The file may grow meanwhile: read no more than the bytes that are stated.
    let mut file = file.take(bytes);
    let mut sum = Sha256::new();
    let mut window = vec![0; 1 << 17];
    let mut left = bytes;
    loop {
        let read = file.read(&mut window)?;
        let Some(part) = window.get(..read).filter(|part| !part.is_empty()) else { break };
        sum.update(part);
        left -= read as u64;
    }
    Ok((left == 0).then(|| hexadecimal(&sum.finalize())))
}
