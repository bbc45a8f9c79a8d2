//! Errors with what to do about them.

use std::{io, path::Path};

use anyhow::anyhow;
use tracing_audit::Error;

/// What is wrong with a directory that should be a log.
pub(crate) fn explain(dir: &Path, error: Error) -> anyhow::Error {
    let shown = dir.display();
    match &error {
        Error::NoLog { .. } if dir.is_file() => {
            anyhow!("{shown} is a file; name the directory in which it is")
        }
        Error::NoLog { .. } if !dir.exists() => anyhow!("{shown}: there is no such directory"),
        Error::NoLog { .. } if has_compressed(dir) => anyhow!(
            "{shown} has compressed segments only; decompress them into another directory first (gzip -dk, zstd -dk)"
        ),
        Error::NoLog { .. } => anyhow!("{shown} has no segment of a log (audit-000-00000001.jsonl)"),
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
            anyhow!("{shown} is a file; name the directory in which it is")
        }
        Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            anyhow::Error::new(error).context(format!(
                "{shown}: run as its owner, or as a member of the group that may read its segments"
            ))
        }
        _ => error.into(),
    }
}

fn has_compressed(dir: &Path) -> bool {
    let Ok(entries) = dir.read_dir() else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("audit-") && (name.ends_with(".jsonl.gz") || name.ends_with(".jsonl.zst"))
    })
}
