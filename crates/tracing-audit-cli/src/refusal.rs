//! Why a log cannot be read, and what to do about it.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::anyhow;
use tracing_audit::Error;

/// What an error of the library means for who named this directory.
pub(crate) fn explain(dir: &Path, error: Error) -> anyhow::Error {
    if let Some(reason) = what_it_is_instead(dir) {
        return reason;
    }
    if is_denied(&error) {
        let owner = fs::metadata(dir).map(|data| format!("user {}", data.uid()));
        let owner = owner.unwrap_or_else(|_| "its owner".to_owned());
        let remedy = format!("run as {owner}, or as a member of the log's group if it is readable for that");
        return anyhow!(error).context(format!("cannot read {}; {remedy}", dir.display()));
    }
    anyhow!(error).context(format!("cannot read {}", dir.display()))
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

/// What lies there, where that is no directory with segments.
fn what_it_is_instead(dir: &Path) -> Option<anyhow::Error> {
    let shown = dir.display();
    let metadata = match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(anyhow!("cannot read {shown}: there is no such directory"));
        }
        metadata => metadata.ok()?,
    };
    if !metadata.is_dir() {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        return Some(anyhow!(
            "cannot read {shown}: it is a file, and a log is a directory; name the directory that has the \
             segments, perhaps {}",
            parent.display()
        ));
    }
    let names = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    if names.iter().any(|name| is_segment_name(name)) {
        return None;
    }
    let is_packed = |name: &&String| {
        [".gz", ".zst"].iter().any(|end| name.strip_suffix(end).is_some_and(is_segment_name))
    };
    let packed = names.iter().filter(is_packed).count();
    Some(if packed > 0 {
        anyhow!(
            "cannot read {shown}: its {packed} segments are compressed; unpack them into another directory \
             (`gzip -dk`, `zstd -d`), or compare them with the log: tracing-audit verify LOG --against {shown}"
        )
    } else {
        anyhow!("cannot read {shown}: there is no segment in it, such as audit-000-00000001.jsonl")
    })
}

/// Whether a file has the name of a segment: `audit-000-00000001.jsonl`.
pub(crate) fn is_segment_name(name: &str) -> bool {
    let parts = name.strip_prefix("audit-").and_then(|rest| rest.strip_suffix(".jsonl"));
    let is_number =
        |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    parts
        .and_then(|parts| parts.split_once('-'))
        .is_some_and(|(chain, number)| is_number(chain, 3) && is_number(number, 8))
}
