//! The table of heads on disk: `table.json`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{alarm::Alarm, chain::CollectedChain};
use crate::{error::Error, position};

/// The version of the file.
pub(super) const FORMAT: u32 = 1;

/// What a collector has of a fleet, as it was durable at [`updated_ms`](Self::updated_ms).
///
/// The file `table.json` of its directory is this, as JSON. It is replaced as a whole, so a crash leaves the one before or
/// this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fleet {
    pub(super) format: u32,
    /// When it was written, in milliseconds since 1970.
    pub updated_ms: u64,
    /// Which stream it was collected from.
    pub stream: String,
    /// Up to which place of the stream everything is here.
    pub place: u64,
    /// How many messages of the stream lay behind that place.
    pub backlog: u64,
    /// How many messages of the stream were no record of a chain.
    pub strangers: u64,
    /// What the last message said, to tell whether the stream is still the same there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<String>,
    /// What failed last, while it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What is wrong now.
    pub alarms: Vec<Alarm>,
    /// The logs, by `service/host`.
    pub logs: BTreeMap<String, CollectedLog>,
    /// The chains, by origin and number.
    pub chains: Vec<CollectedChain>,
}

/// What is known of a log beside its chains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectedLog {
    /// When a record or a sign of life came last, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// The chains that its forwarder does not forward, by their ids, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
    /// Why its forwarder can send nothing, while it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether it has more chains than are collected.
    #[serde(default)]
    pub is_overfull: bool,
}

/// Reads what a collector has, whether it runs or not.
///
/// # Errors
///
/// [`Error::Io`] where there is no table or it cannot be read, [`Error::BadTable`] where it is none.
pub fn fleet(dir: impl AsRef<Path>) -> Result<Fleet, Error> {
    let path = path_of(dir.as_ref());
    let text = fs::read(&path).map_err(|error| Error::io("read", &path)(error))?;
    parse(&path, &text)
}

/// The table, if there is one.
pub(super) fn read(dir: &Path) -> Result<Option<Fleet>, Error> {
    let path = path_of(dir);
    match fs::read(&path) {
        Ok(text) => parse(&path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Fleet, Error> {
    let bad = |reason: String| Error::BadTable { path: path.to_owned(), reason };
    let fleet: Fleet = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    if fleet.format != FORMAT {
        return Err(bad(format!("it has format {}, and this version reads {FORMAT}", fleet.format)));
    }
    Ok(fleet)
}

/// Writes the table, durably, in place of the one before.
pub(super) fn write(dir: &Path, fleet: &Fleet) -> Result<(), Error> {
    let text = serde_json::to_vec(fleet).map_err(io::Error::from);
    let path = path_of(dir);
    let text = text.map_err(|error| Error::io("write", &path)(error))?;
    replace(&path, &text, true).map_err(|error| Error::io("write", &path)(error))
}

/// Puts a file in the place of the one before: whoever reads it sees one of both.
pub(super) fn replace(path: &Path, text: &[u8], is_durable: bool) -> io::Result<()> {
    // No name of a host begins with a dot.
    let mut aside = OsString::from(".");
    aside.push(path.file_name().unwrap_or_default());
    aside.push(".new");
    let aside = path.with_file_name(aside);
    let mut file = private().write(true).create(true).truncate(true).open(&aside)?;
    file.write_all(text)?;
    if is_durable {
        file.sync_all()?;
    }
    #[expect(clippy::disallowed_methods, reason = "it is no segment")]
    fs::rename(&aside, path)?;
    if is_durable && let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Nobody else may read or write it, and no link is followed.
pub(super) fn private() -> OpenOptions {
    let mut options = position::private();
    options.custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0));
    options
}

fn path_of(dir: &Path) -> PathBuf {
    dir.join("table.json")
}
