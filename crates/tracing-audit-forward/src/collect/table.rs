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

/// The version of the file format.
pub(super) const FORMAT: u32 = 1;

/// What a collector has of a fleet, durable as of [`updated_ms`](Self::updated_ms).
///
/// The file `table.json` of its directory is this, as JSON. It is replaced as a whole, so after a crash there
/// is the previous one or this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fleet {
    pub(super) format: u32,
    /// When it was written, in milliseconds since 1970.
    pub updated_ms: u64,
    /// The stream that it was collected from.
    pub stream: String,
    /// The place in the stream up to which everything is here.
    pub place: u64,
    /// The number of messages in the stream after that place.
    pub backlog: u64,
    /// The number of messages in the stream that were not records of a chain.
    pub strangers: u64,
    /// The content of the last message, to check whether the stream is still the same there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<String>,
    /// The last failure, while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The current alarms.
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
    /// When a record or a heartbeat last arrived, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// The chains that its forwarder does not forward, by id, with the reasons.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
    /// Why its forwarder cannot send anything, while it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether it has more chains than are collected.
    #[serde(default)]
    pub is_overfull: bool,
}

/// Reads the table of a collector, whether it runs or not.
///
/// # Errors
///
/// [`Error::Io`] if there is no table or it cannot be read, [`Error::BadTable`] if it cannot be parsed.
pub fn fleet(dir: impl AsRef<Path>) -> Result<Fleet, Error> {
    let path = path_of(dir.as_ref());
    let text = fs::read(&path).map_err(|error| Error::io("read", &path)(error))?;
    parse(&path, &text)
}

/// Reads the table, if there is one.
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

/// Writes the table durably, in place of the previous one.
pub(super) fn write(dir: &Path, fleet: &Fleet) -> Result<(), Error> {
    let text = serde_json::to_vec(fleet).map_err(io::Error::from);
    let path = path_of(dir);
    let text = text.map_err(|error| Error::io("write", &path)(error))?;
    replace(&path, &text, true).map_err(|error| Error::io("write", &path)(error))
}

/// Replaces a file: a reader sees the old one or the new one.
pub(super) fn replace(path: &Path, text: &[u8], is_durable: bool) -> io::Result<()> {
    // The name of a host never begins with a dot.
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

/// Returns options for a file that nobody else may read or write. Links are not followed.
pub(super) fn private() -> OpenOptions {
    let mut options = position::private();
    options.custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0));
    options
}

fn path_of(dir: &Path) -> PathBuf {
    dir.join("table.json")
}
