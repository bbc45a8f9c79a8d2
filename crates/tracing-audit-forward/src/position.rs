//! How much of the log the store of one forwarder is known to have: `control/forward-<name>`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use fs2::FileExt;
use serde::{Deserialize, Serialize};
use tracing_audit::Head;

use crate::{error::Error, kept::Kept};

/// The version of the file format.
const FORMAT: u32 = 1;

/// How often to try to take a name, and the pause between two attempts.
const ATTEMPTS: u32 = 5;
const MOMENT: Duration = Duration::from_millis(5);

/// What is known of a store, by chain id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) chains: BTreeMap<Arc<str>, Acknowledged>,
}

impl Known {
    /// Returns the last record of a chain that the store acknowledged, or after which forwarding began.
    pub(crate) fn last(&self, id: &str) -> Option<Head> {
        self.chains.get(id).and_then(|chain| chain.last)
    }
}

/// What the store has of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The record after which forwarding began; `None`: it began with the first.
    pub(crate) from: Option<Head>,
    /// The last record that was acknowledged, or that of `from`.
    pub(crate) last: Option<Head>,
    /// The last record that the store reported when it was last asked; `None` if it cannot be asked.
    /// Retention relies on nothing beyond it.
    pub(crate) asked: Option<u64>,
    /// The first record that the store refused and nobody has given up.
    pub(crate) refused: Option<u64>,
    /// The record after which forwarding continues, whatever the store has up to there.
    pub(crate) skipped: Option<Head>,
    /// Records that the store refused and somebody gave up, after the last record that the store reported.
    pub(crate) given_up: BTreeSet<u64>,
}

impl Acknowledged {
    /// Returns the last record that the store is not required to have.
    pub(crate) fn begun(&self) -> u64 {
        let begun = [self.from, self.skipped].into_iter().flatten();
        begun.map(|head| head.seq()).max().unwrap_or(0)
    }
}

/// A record that the store refused: one line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    #[serde(with = "as_text")]
    pub(crate) record: Head,
    pub(crate) chain_id: String,
    pub(crate) reason: String,
}

/// Serialises a head as text.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tracing_audit::Head;

    pub(super) fn serialize<S: Serializer>(head: &Head, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(head)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Head, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    format: u32,
    chains: BTreeMap<String, WrittenChain>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenChain {
    chain: String,
    seq: u64,
    hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    given_up: BTreeSet<u64>,
}

/// The files of one forwarder in the directory of a log.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) control: PathBuf,
    pub(crate) name: String,
}

impl Files {
    pub(crate) fn new(dir: &Path, name: &str) -> Result<Self, Error> {
        let is_right = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if !(1..=32).contains(&name.len()) || !name.bytes().all(is_right) {
            return Err(Error::Name { name: name.to_owned() });
        }
        Ok(Self { control: dir.join("control"), name: name.to_owned() })
    }

    pub(crate) fn position(&self) -> PathBuf {
        self.control.join(format!("forward-{}", self.name))
    }

    fn lock(&self) -> PathBuf {
        self.control.join(format!("forward-{}.lock", self.name))
    }

    pub(crate) fn rejected(&self) -> PathBuf {
        self.control.join(format!("forward-{}.rejected.jsonl", self.name))
    }

    /// Takes the name, so that no other forwarder can have it. `None` if another forwarder holds it.
    pub(crate) fn take(&self) -> Result<Option<Kept>, Error> {
        self.make_control()?;
        let path = self.lock();
        for _ in 0..ATTEMPTS {
            let open = Kept::open(private().create(true).truncate(false).write(true), &path);
            let kept = open.map_err(Error::io("open", &path))?;
            match kept.get().and_then(FileExt::try_lock_exclusive) {
                // The file may have been replaced since it was opened.
                Ok(()) if self.is_held_by(&kept) => return Ok(Some(kept)),
                Ok(()) => {}
                // A process that only checks whether the name is taken holds the lock for a moment.
                Err(error) if error.kind() == fs2::lock_contended_error().kind() => thread::sleep(MOMENT),
                Err(error) => return Err(Error::io("lock", path)(error)),
            }
        }
        Ok(None)
    }

    /// Creates `control` if it is missing: a restored log has none before a program opens it. Its mode
    /// follows that of the log's directory, as when a program opens the log.
    fn make_control(&self) -> Result<(), Error> {
        let control = &self.control;
        let Some(log) = control.parent() else { return Ok(()) };
        let failed = |error| Error::io("make", control)(error);
        if control.is_dir() || crate::dead::ends(log)?.is_empty() {
            return Ok(());
        }
        let mode = fs::metadata(log).map_err(failed)?.mode() & 0o750;
        match DirBuilder::new().mode(mode).create(control) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            // The name of `control` has to survive a crash, or a position that is synced in it would be
            // lost.
            _ => File::open(log).and_then(|log| log.sync_all()).map_err(failed),
        }
    }

    /// Returns whether the lock that is held is still the file that others would lock.
    pub(crate) fn is_held_by(&self, held: &Kept) -> bool {
        let same = fs::symlink_metadata(self.lock()).and_then(|named| Ok((named, held.get()?.metadata()?)));
        same.is_ok_and(|(named, held)| is_same(&named, &held))
    }

    pub(crate) fn read(&self) -> Result<Known, Error> {
        let path = self.position();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        parse(&bytes).map_err(|reason| Error::BadPosition { path, reason })
    }

    pub(crate) fn write(&self, known: &Known) -> Result<(), Error> {
        let path = self.position();
        let bytes = print(known).map_err(Error::io("write", &path))?;
        self.replace(&path, &bytes)
    }

    /// Writes a new file, syncs it, renames it, and syncs the directory: after a crash there is the old file
    /// or the new one.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let aside = self.control.join(format!("forward-{}.new", self.name));
        let written = || -> io::Result<()> {
            // Not truncated, so that the blocks of the spare file below are reused: on a full disk
            // there may be no others.
            let mut file = private().create(true).truncate(false).write(true).open(&aside)?;
            file.write_all(bytes)?;
            #[expect(clippy::disallowed_methods, reason = "it is no segment")]
            file.set_len(bytes.len() as u64)?;
            // The content before the name: after a crash, the name must not refer to an incomplete
            // file.
            file.sync_all()?;
            #[expect(clippy::disallowed_methods, reason = "it is no segment")]
            fs::rename(&aside, path)?;
            // Until the directory is synced, a power cut may bring the old file back.
            File::open(&self.control)?.sync_all()
        };
        written().map_err(Error::io("write", path))?;
        // Keeps the disk space for the next update. On a full disk, the position has to advance before
        // retention can free anything.
        let spare = private().create(true).truncate(true).write(true).open(&aside);
        drop(spare.and_then(|mut file| file.write_all(bytes)));
        Ok(())
    }

    /// Returns the records that the store refused. Half a line, left by a crash, is of a record that is
    /// offered again, and is ignored.
    pub(crate) fn refusals(&self) -> Result<Vec<Refusal>, Error> {
        let path = self.rejected();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let parsed: Result<Vec<Refusal>, _> = lines.map(serde_json::from_slice).collect();
        parsed.map_err(|error| Error::BadRejected { path, reason: error.to_string() })
    }

    pub(crate) fn write_refusals(&self, refusals: &[Refusal]) -> Result<(), Error> {
        let path = self.rejected();
        let mut bytes = Vec::new();
        for refusal in refusals {
            serde_json::to_writer(&mut bytes, refusal)
                .map_err(|error| Error::io("write", &path)(error.into()))?;
            bytes.push(b'\n');
        }
        self.replace(&path, &bytes)
    }

    /// Adds a refused record to the list, durably and only once. Returns the length of the list.
    pub(crate) fn reject(&self, refusal: &Refusal) -> Result<u64, Error> {
        let mut refusals = self.refusals()?;
        let is_known = |known: &Refusal| known.record == refusal.record && known.chain_id == refusal.chain_id;
        if !refusals.iter().any(is_known) {
            refusals.push(refusal.clone());
            self.write_refusals(&refusals)?;
        }
        Ok(refusals.len() as u64)
    }

    /// Returns whether a forwarder of this name is running.
    pub(crate) fn is_taken(&self) -> bool {
        // A shared lock, so that two processes that check at the same time do not see each other as a
        // forwarder.
        let Ok(file) = File::open(self.lock()) else { return false };
        let contended = fs2::lock_contended_error().kind();
        FileExt::try_lock_shared(&file).is_err_and(|error| error.kind() == contended)
    }
}

/// Returns whether both describe the same file.
pub(crate) fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(unix)]
pub(crate) fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
pub(crate) fn private() -> OpenOptions {
    OpenOptions::new()
}

fn print(known: &Known) -> io::Result<Vec<u8>> {
    let chains = known.chains.iter().filter_map(|(id, chain)| {
        let written = WrittenChain {
            chain: format!("{:03}", chain.last?.chain()),
            seq: chain.last?.seq(),
            hash: chain.last?.hash().to_string(),
            asked: chain.asked,
            from: chain.from.map(|head| head.to_string()),
            refused: chain.refused,
            skipped: chain.skipped.map(|head| head.to_string()),
            given_up: chain.given_up.clone(),
        };
        Some((id.to_string(), written))
    });
    let mut bytes = serde_json::to_vec_pretty(&Written { format: FORMAT, chains: chains.collect() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Known, String> {
    let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if written.format != FORMAT {
        return Err(format!("its format is {}, and this version knows {FORMAT}", written.format));
    }
    let mut known = Known::default();
    for (id, chain) in written.chains {
        let head = |text: &str| text.parse::<Head>().map_err(|error| error.to_string());
        let acknowledged = Acknowledged {
            from: chain.from.as_deref().map(head).transpose()?,
            last: Some(head(&format!("{}/{}:{}", chain.chain, chain.seq, chain.hash))?),
            asked: chain.asked,
            refused: chain.refused,
            skipped: chain.skipped.as_deref().map(head).transpose()?,
            given_up: chain.given_up,
        };
        known.chains.insert(id.into(), acknowledged);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        text.replace('~', &"ab".repeat(32)).parse().unwrap()
    }

    #[test]
    fn a_written_position_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("control")).unwrap();
        let files = Files::new(dir.path(), "archive").unwrap();
        assert_eq!(files.read().unwrap(), Known::default());
        let mut known = Known::default();
        let some = Acknowledged {
            from: Some(head("000/7:~")),
            last: Some(head("000/42:~")),
            asked: Some(40),
            refused: Some(9),
            skipped: None,
            given_up: [41, 42].into(),
        };
        known.chains.insert("a".repeat(32).into(), some.clone());
        known.chains.insert(
            "b".repeat(32).into(),
            Acknowledged { last: Some(head("001/1:~")), skipped: some.last, ..some },
        );
        files.write(&known).unwrap();
        assert_eq!(files.read().unwrap(), known);
    }

    #[test]
    fn an_invalid_position_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("control")).unwrap();
        let files = Files::new(dir.path(), "archive").unwrap();
        for text in ["", "{", "[]", "{\"format\":2,\"chains\":{}}", "{\"format\":1}"] {
            fs::write(files.position(), text).unwrap();
            let error = files.read().unwrap_err().to_string();
            assert!(error.contains("control/forward-archive is not a position of a forwarder"), "{error}");
        }
    }

    #[test]
    fn a_name_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("control")).unwrap();
        let files = Files::new(dir.path(), "archive").unwrap();
        let held = files.take().unwrap();
        assert!(held.is_some() && files.take().unwrap().is_none());
        drop(held);
        assert!(files.take().unwrap().is_some());
        for name in ["", "a/b", "..", "A", "a b", &"a".repeat(33)] {
            Files::new(dir.path(), name).unwrap_err();
        }
    }
}
