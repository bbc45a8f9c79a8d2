//! Directories that somebody names: why one is no log that can be read, and what to do about it.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::anyhow;
use tracing_audit::Error;

/// Endings of segments that somebody has compressed.
const PACKED: [&str; 5] = ["gz", "zst", "xz", "bz2", "lz4"];

/// Whether a name is that of a segment that was compressed.
pub(crate) fn is_packed(name: &str) -> bool {
    let parts = name.rsplit_once('.').and_then(|(stem, end)| Some((stem.strip_suffix(".jsonl")?, end)));
    parts.is_some_and(|(stem, end)| stem.starts_with("audit-") && PACKED.contains(&end))
}

/// The same error, with what is there instead of a log, and the remedy.
pub(crate) fn explain(dir: &Path, error: Error) -> anyhow::Error {
    let shown = dir.display();
    if dir.is_file() {
        return anyhow!("{shown} is a file: name the directory that holds the segments");
    }
    match &error {
        Error::NoLog { .. } => match what_is_there(dir) {
            Some(what) => anyhow!("there is no audit log at {shown}: {what}"),
            None => error.into(),
        },
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

/// What a directory without a segment has; `None` where there is no directory that can be listed.
fn what_is_there(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| is_packed(name)) {
        return Some(format!(
            "its segments are compressed, as {name}; unpack a copy of the directory, or give it to `verify LOG --against`"
        ));
    }
    let what = if names.is_empty() { "the directory is empty" } else { "no file is named like a segment" };
    Some(format!("{what} (audit-000-00000001.jsonl)"))
}
