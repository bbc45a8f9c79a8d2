//! Chains whose writer died. The records it left behind become durable only once somebody opens the log,
//! which recovers the chain.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fs2::FileExt;
use tracing_audit::{AuditLog, RecordKind};

use crate::{error::Error, lag::from_the_end};

/// How often the directory is checked. A chain that did not grow in between is examined once.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// What is known of the ends of all chains of a log.
#[derive(Debug, Default)]
pub(crate) struct Dead {
    checked_at: Option<Instant>,
    /// The newest segment of each chain, its length, and whether it was examined.
    ends: BTreeMap<u16, End>,
}

#[derive(Debug, Default)]
struct End {
    name: String,
    bytes: u64,
    is_examined: bool,
}

impl Dead {
    /// Opens and closes the log if the writer of a chain died and left records that nothing marks as durable.
    /// Opening the log recovers such a chain.
    ///
    /// Returns whether it did.
    pub(crate) fn recover(&mut self, dir: &Path) -> Result<bool, Error> {
        if self.checked_at.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
            return Ok(false);
        }
        self.checked_at = Some(Instant::now());
        let (mut dead, mut failed) = (Vec::new(), None);
        for (chain, (name, bytes)) in ends(dir)? {
            let end = self.ends.entry(chain).or_default();
            let is_at_rest =
                (&end.name, end.bytes) == (&name, bytes) || is_older(&dir.join(&name), CHECK_INTERVAL);
            let is_examined = end.is_examined && (&end.name, end.bytes) == (&name, bytes);
            *end = End { name, bytes, is_examined };
            if !is_at_rest || is_examined {
                continue;
            }
            match is_dead(dir, chain) {
                Ok(Some(true)) => dead.push(chain),
                // The holder continues to write, or soon marks everything as durable.
                Ok(Some(false)) => {}
                Ok(None) => end.is_examined = true,
                // The other chains are still examined.
                Err(error) => failed = Some(error),
            }
        }
        if !dead.is_empty() {
            let builder = AuditLog::builder(dir).service("tracing-audit-forward").stderr(false);
            // The files written by the recovery must be as readable as the others.
            let log = builder.group_readable(is_group_readable(dir)).open()?;
            log.close()?;
        }
        // Only after success, so that a failed recovery is tried again.
        for chain in &dead {
            self.ends.remove(chain);
        }
        match failed {
            Some(error) if dead.is_empty() => Err(error),
            _ => Ok(!dead.is_empty()),
        }
    }
}

/// Returns whether a chain ends with records that nothing marks as durable, and no process holds it. `None`
/// if it ends with a record that marks all before it as durable.
fn is_dead(dir: &Path, chain: u16) -> Result<Option<bool>, Error> {
    if !is_open_end(dir, chain)? {
        return Ok(None);
    }
    Ok(Some(!is_held(dir, chain)?))
}

fn is_group_readable(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|data| data.permissions().mode() & 0o040 != 0)
}

/// Returns whether a file was last written longer ago than `age`.
fn is_older(path: &Path, age: Duration) -> bool {
    let written = fs::metadata(path).and_then(|data| data.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed > age))
}

/// Returns the newest segment of each chain and its length.
pub(crate) fn ends(dir: &Path) -> Result<BTreeMap<u16, (String, u64)>, Error> {
    let mut ends: BTreeMap<u16, (String, u64)> = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(chain) = segment(&name) else { continue };
        let Ok(data) = entry.metadata() else { continue };
        let end = ends.entry(chain).or_default();
        if name > end.0 {
            *end = (name, data.len());
        }
    }
    Ok(ends)
}

/// Returns the chain of a segment, by its file name. `None` if the name is not that of a segment.
pub(crate) fn segment(name: &str) -> Option<u16> {
    let (chain, rest) = name.strip_prefix("audit-")?.split_once('-')?;
    let number = rest.strip_suffix(".jsonl")?;
    let is_segment =
        chain.len() == 3 && number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_segment.then_some(())?;
    chain.parse().ok()
}

/// Returns whether the last record of a chain is one that does not mark all before it as durable.
fn is_open_end(dir: &Path, chain: u16) -> Result<bool, Error> {
    let last = from_the_end(dir, chain)?.next().transpose()?;
    Ok(last.is_some_and(|record| !matches!(record.kind(), RecordKind::Mark | RecordKind::Close)))
}

/// Returns whether a writer holds a chain.
fn is_held(dir: &Path, chain: u16) -> Result<bool, Error> {
    let path: PathBuf = dir.join("control").join(format!("chain-{chain:03}.lock"));
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    match FileExt::try_lock_shared(&lock) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(true),
        Err(error) => Err(Error::io("lock", path)(error)),
    }
}
