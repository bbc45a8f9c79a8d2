//! Segments and the sums of their bytes, as `sha256sum` prints them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tracing_audit::{Segment, segments};

use crate::hash::hexadecimal;

/// A segment as it was read.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) name: String,
    pub(super) chain: u16,
    pub(super) first_seq: Option<u64>,
    /// How many bytes were summed: those that count.
    pub(super) bytes: u64,
    /// Whether the file has more bytes than count.
    pub(super) has_more: bool,
    /// Whether it is the newest of its chain, and may grow.
    pub(super) is_newest: bool,
    /// `None` where the file was removed or cut while the page was made.
    pub(super) sha256: Option<String>,
}

/// Sums the bytes that count of each segment: not of what a later segment declares void, and of the newest those that it had
/// when it was looked at.
pub(super) fn sum_all(log: &Path) -> Result<Vec<Sum>> {
    let segments = segments(log).with_context(|| format!("cannot list the segments of {}", log.display()))?;
    let mut sums = Vec::with_capacity(segments.len());
    for (index, segment) in segments.iter().enumerate() {
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

/// The sum of so many bytes, `None` where the file has not so many any more.
fn sha256_of(path: &Path, bytes: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
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
