//! Explains why a directory is not a readable log, and what to do about it.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::anyhow;
use tracing_audit::Error;

use crate::output::escape;

/// File name extensions of compressed segments.
const PACKED: [&str; 5] = ["gz", "zst", "xz", "bz2", "lz4"];

/// Parses the name of a segment, such as `audit-000-00000001.jsonl`, into its chain and number.
pub(crate) fn segment_of(name: &str) -> Option<(u16, u32)> {
    let (chain, segment) = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.split_once('-')?;
    // Digits only: `parse` would also accept a sign.
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = digits(chain, 3) && digits(segment, 8);
    is_name.then(|| Some((chain.parse().ok()?, segment.parse().ok()?)))?
}

/// Returns whether a file name is that of a segment.
pub(crate) fn is_segment_name(name: &str) -> bool {
    segment_of(name).is_some()
}

/// Returns whether a file name is that of a compressed segment.
pub(crate) fn is_packed(name: &str) -> bool {
    let parts = name.rsplit_once('.');
    parts.is_some_and(|(stem, end)| is_segment_name(stem) && PACKED.contains(&end))
}

/// Adds to an error what is in the place of the log, and the remedy.
pub(crate) fn explain(dir: &Path, error: Error) -> anyhow::Error {
    let shown = dir.display();
    match &error {
        // Often the path of a segment instead of the directory.
        _ if dir.is_file() => {
            anyhow!(
                "there is no audit log at {shown}: it is a file; name the directory that holds the segments"
            )
        }
        Error::NoLog { .. } => anyhow!("there is no audit log at {shown}: {}", what_is_there(dir)),
        // The owner is printed as numbers, since a log from elsewhere may belong to nobody on this machine.
        Error::Io { path, source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            let owner = fs::metadata(path).or_else(|_| fs::metadata(dir));
            let who = owner.map_or_else(
                |_| "its owner, or as a member of its group".to_owned(),
                |owner| {
                    format!("its owner (uid {}), or as a member of its group ({})", owner.uid(), owner.gid())
                },
            );
            anyhow!(
                "cannot read {}: permission denied; run as {who}, where the group may read",
                path.display()
            )
        }
        _ => error.into(),
    }
}

/// Describes a directory that has no segment.
fn what_is_there(dir: &Path) -> String {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return "there is no such directory".to_owned(),
        Err(error) => return format!("it cannot be listed: {error}"),
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| is_packed(name)) {
        return format!(
            "its segments are compressed, as {}; unpack a copy of the directory (`gzip -d`, `zstd -d`), or compare it with the \
             log: `tracing-audit verify LOG --against` this directory",
            escape(name)
        );
    }
    let what = if names.is_empty() { "the directory is empty" } else { "no file is named like a segment" };
    format!("{what} (audit-000-00000001.jsonl)")
}
