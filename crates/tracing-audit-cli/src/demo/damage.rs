//! Ways to tamper with a log that somebody with access to its files has.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::ValueEnum;
use tracing_audit::segments;

use crate::hash::{HASH, PREV_HASH, body_of, hash_of};

/// A kind of tampering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Damage {
    /// Make a denied attempt look like a passed one.
    Edit,
    /// Delete a record.
    Delete,
    /// Insert a record with a correct hash.
    Insert,
    /// Swap two records.
    Swap,
    /// Cut off the last records.
    Cut,
    /// Remove a whole segment.
    RemoveSegment,
}

impl Damage {
    /// Tampers with a copy of a log. Returns what was done, in words.
    pub(super) fn apply(self, log: &Path, copy: &Path) -> Result<String> {
        copy_all(log, copy)
            .with_context(|| format!("cannot copy {} to {}", log.display(), copy.display()))?;
        let all = segments(copy)?;
        let own: Vec<PathBuf> =
            all.iter().filter(|one| one.chain() == 0).map(|one| one.path().to_owned()).collect();
        // A segment in the middle, since damage at an end could pass for a crash or for retention.
        let inner = own.get(own.len() / 2).filter(|_| own.len() > 2);
        let last = own.last().ok_or_else(|| anyhow!("{} has no chain 000", copy.display()))?;
        match self {
            Self::Cut => cut(last),
            Self::RemoveSegment => {
                let few = "there are too few segments to remove one: write more events";
                let inner = inner.ok_or_else(|| anyhow!(few))?;
                fs::remove_file(inner).with_context(|| format!("cannot remove {}", inner.display()))?;
                Ok(format!("{} was removed", name_of(inner)))
            }
            _ => self.lines(inner.unwrap_or(last)),
        }
    }

    /// Tampers with lines of a file. Returns what was done, in words.
    fn lines(self, file: &Path) -> Result<String> {
        let mut lines = read(file)?;
        let middle = lines.len() / 2;
        let is_denied = |line: &&String| line.contains(DENIED);
        let at = match self {
            // The first one after the middle, if there is one.
            Self::Edit => lines.iter().skip(middle).position(|line| is_denied(&line)).map(|at| at + middle),
            _ => Some(middle),
        };
        let at = at.or_else(|| lines.iter().position(|line| is_denied(&line)));
        // Some kinds of damage need a next line.
        let at = at.filter(|at| at + 1 < lines.len()).ok_or_else(|| anyhow!("there are too few events"))?;
        let place = format!("{}, line {}", name_of(file), at + 1);
        let line = lines.get(at).cloned().unwrap_or_default();
        let done = match self {
            Self::Edit => {
                lines.splice(at..=at, [line.replace(DENIED, ALLOWED)]);
                format!("an attempt that was denied has passed now ({place})")
            }
            Self::Delete => {
                lines.remove(at);
                format!("a record was taken out ({place})")
            }
            Self::Insert => {
                lines.insert(at + 1, forged(&line));
                format!("a record was put in, with a hash that is right ({}, line {})", name_of(file), at + 2)
            }
            _ => {
                lines.swap(at, at + 1);
                format!("two records changed places ({place} and the next)")
            }
        };
        write(file, &lines)?;
        Ok(done)
    }
}

const DENIED: &str = "\"outcome\":\"denied\"";
const SEQ: &str = "{\"seq\":";
const ALLOWED: &str = "\"outcome\":\"passed\"";

/// Forges the line after this one, as somebody who knows the format can: the same event, correctly linked.
fn forged(line: &str) -> String {
    let body = String::from_utf8_lossy(body_of(line.as_bytes()));
    let hash = hash_of(body.as_bytes());
    let (members, _) = body.rsplit_once(PREV_HASH).unwrap_or_default();
    let rest = members.strip_prefix(SEQ).unwrap_or_default();
    let (seq, rest) = rest.split_once(',').unwrap_or_default();
    let seq = seq.parse::<u64>().unwrap_or_default() + 1;
    let body = format!("{SEQ}{seq},{rest}{PREV_HASH}{hash}\"");
    let hash = hash_of(body.as_bytes());
    format!("{body}{HASH}{hash}\"}}")
}

fn cut(file: &Path) -> Result<String> {
    const CUT: usize = 3;
    let mut lines = read(file)?;
    ensure!(lines.len() > CUT + 1, "there are too few events in {}", file.display());
    lines.truncate(lines.len() - CUT);
    write(file, &lines)?;
    Ok(format!("the last {CUT} records were cut off ({})", name_of(file)))
}

fn read(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn write(file: &Path, lines: &[String]) -> Result<()> {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Copies a directory recursively.
fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
