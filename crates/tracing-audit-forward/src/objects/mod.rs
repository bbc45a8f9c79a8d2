//! A copy in an object store: S3, or a directory on another disk.

mod builder;
mod chain;
mod client;
mod invalid_keys;
mod keys;
mod lines;
mod lock;
mod manifest;
mod probe;
mod restore;
mod runtime;
mod seal;
mod store;
mod url;
mod verify;
mod walk;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

pub use self::{builder::ObjectsBuilder, lock::Retention, restore::Restored};
use self::{
    chain::Chain,
    keys::Keys,
    runtime::OwnRuntime,
    store::{MAX_NOTE_BYTES, Put, Store},
};
use crate::{
    copy::{CopyChecker, CopyReport},
    origin::Origin,
    sink::{Entry, Gap, Pace, Position, Sink, SinkError},
};

/// Stores a log in an object store: each sealed segment is one object, and the live segment is stored in
/// parts.
///
/// A part contains what arrived within the [interval](ObjectsBuilder::interval). It is put with its SHA-256
/// under a key that must not exist yet, and is acknowledged when the store reports that it is durable. When
/// the log begins the next segment, the parts of the last one are read back, checked, and put as one object.
/// Then a manifest is put, which lists all sealed segments with their checksums. Nothing is ever overwritten
/// or deleted.
///
/// The first call tests whether the server supports this, and refuses one that does not. If two senders of one
/// chain, such as a machine and its clone, have different records, the store accepts those of one of them, and the
/// chain of the other is stopped.
///
/// Each call waits no longer than its timeouts. Asking the store what it has costs two LIST requests for each
/// chain: every 15 minutes while all is well, and after each failure. docs/forwarding/objects.md describes
/// the layout, the set-up of buckets, and the costs.
///
/// # Examples
///
/// ```no_run
/// use tracing_audit_forward::{Forwarder, Objects};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let archive = Objects::new("s3://audit-archive/logs?service=web&region=eu-central-1")?;
/// let forwarder = Forwarder::builder("archive").start_beside("/var/log/audit", archive)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Objects {
    archive: Archive,
    origin: Origin,
    interval: Duration,
    is_compressed: bool,
    chains: BTreeMap<Arc<str>, Chain>,
    is_probed: bool,
}

/// The logs in an object store, for verifying and restoring.
pub struct Archive {
    runtime: OwnRuntime,
    store: Store,
    keys: Keys,
    /// The only log to read, if one is named.
    origin: Option<Origin>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("place", &self.store.place)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Creates a sink at this URL, with default settings. Nothing is connected yet.
    ///
    /// `s3://BUCKET/PREFIX?service=NAME` or `archive:DIRECTORY?service=NAME`. Values are percent-encoded.
    /// Parameters:
    ///
    /// - `service` and `host`, the origin of the log;
    /// - `interval` in seconds;
    /// - `compress=off`;
    /// - for S3 also `endpoint`, `region`, `retention=governance` or `compliance` with `retain-days`, and
    ///   `legal-hold=on`;
    /// - for S3 also `allow-http=on`, without which only connections to this machine may lack TLS.
    ///
    /// Credentials are in the environment, as `AWS_ACCESS_KEY_ID` and so on.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL cannot be used, or does not name the origin of the log.
    pub fn new(url: &str) -> Result<Self, SinkError> {
        Self::builder(url).build()
    }

    /// Returns the settings of a sink or archive.
    pub fn builder(url: &str) -> ObjectsBuilder {
        ObjectsBuilder::new(url)
    }

    fn with(archive: Archive, origin: Origin, interval: Duration, is_compressed: bool) -> Self {
        Self { archive, origin, interval, is_compressed, chains: BTreeMap::new(), is_probed: false }
    }
}

impl Sink for Objects {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        let (mut work, runtime) = self.work();
        runtime.block_on(work.positions(chain_ids)).map(Some)
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        let (mut work, runtime) = self.work();
        runtime.block_on(work.offer(batch))
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let (mut work, runtime) = self.work();
        runtime.block_on(work.gap(gap))
    }

    fn pace(&self) -> Pace {
        Pace {
            batch_records: 50_000,
            batch_bytes: 8 << 20,
            linger: self.interval,
            ask_every: Duration::from_secs(15 * 60),
        }
    }
}

impl Objects {
    fn work(&mut self) -> (Work<'_>, &OwnRuntime) {
        let Self { archive, origin, chains, is_probed, is_compressed, .. } = self;
        let Archive { runtime, store, keys, .. } = archive;
        (Work { store, keys, origin, chains, is_probed, is_compressed: *is_compressed }, runtime)
    }
}

/// The state that a call works on.
struct Work<'a> {
    store: &'a Store,
    keys: &'a Keys,
    origin: &'a Origin,
    /// What is known of each chain. A chain for which a call failed is forgotten.
    chains: &'a mut BTreeMap<Arc<str>, Chain>,
    is_probed: &'a mut bool,
    is_compressed: bool,
}

impl Work<'_> {
    async fn connect(&mut self) -> Result<(), SinkError> {
        if !*self.is_probed {
            probe::probe(self.store, self.keys, self.origin).await?;
            *self.is_probed = true;
        }
        Ok(())
    }

    async fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Vec<Position>, SinkError> {
        self.connect().await?;
        let mut positions = Vec::new();
        for id in chain_ids {
            let known = self.chains.remove(id);
            let chain = match self.load(id, known).await {
                Ok(chain) => chain,
                // The others continue. The error is returned when more of this chain is offered.
                Err(SinkError::Chain { .. }) => continue,
                Err(error) => return Err(error),
            };
            let last = chain.last();
            self.chains.insert(Arc::clone(id), chain);
            positions.extend(last.map(|(seq, hash)| Position { chain_id: Arc::clone(id), seq, hash }));
        }
        Ok(positions)
    }

    /// Stores the records chain by chain, so that a chain which cannot be stored does not stop the others.
    async fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        self.connect().await?;
        let mut by_chain: BTreeMap<&Arc<str>, Vec<(usize, &Entry)>> = BTreeMap::new();
        for (index, entry) in batch.iter().enumerate() {
            by_chain.entry(&entry.chain_id).or_default().push((index, entry));
        }
        let mut failed = None;
        for (id, entries) in by_chain {
            let chain = match self.chains.remove(id) {
                Some(chain) => Ok(chain),
                None => self.load(id, None).await,
            };
            let stored = match chain {
                Ok(mut chain) => self.store_entries(id, &mut chain, &entries).await.map(|()| chain),
                Err(error) => Err(error),
            };
            match stored {
                Ok(chain) => drop(self.chains.insert(Arc::clone(id), chain)),
                // The other chains are stored first.
                Err(SinkError::Chain { reason, .. }) => {
                    let index = entries.first().map_or(0, |(index, _)| *index);
                    failed = failed.or(Some(SinkError::Chain { index, reason }));
                }
                Err(error @ (SinkError::Conflict { .. } | SinkError::Refused { .. })) => {
                    failed = failed.or(Some(error));
                }
                // Every other chain would fail in the same way.
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        self.connect().await?;
        // What cannot be read may still be there, so it cannot be called missing.
        let known = self.chains.remove(&gap.chain_id);
        let chain = self.load(&gap.chain_id, known).await?;
        let is_here = chain.last().is_some_and(|(last, _)| gap.first_seq <= last);
        self.chains.insert(Arc::clone(&gap.chain_id), chain);
        if is_here {
            return Ok(());
        }
        let name = keys::Name::Gap { first_seq: gap.first_seq, last_seq: gap.last_seq };
        let key = format!("{}{name}", self.keys.chain(self.origin, &gap.chain_id));
        let body = manifest::Missing::of(gap).print();
        let body = body.map_err(|error| self.store.unavailable("print", &key, &error))?;
        let body = bytes::Bytes::from(body);
        if self.store.put(&key, body.clone()).await? == Put::Created {
            return Ok(());
        }
        let there = self.store.get(&key, MAX_NOTE_BYTES).await?;
        if there.ok_or_else(|| self.store.unavailable("put", &key, &CONTENDED))? == body {
            return Ok(());
        }
        Err(self.store.foreign(&key, "it describes another gap"))
    }
}

/// S3 also reports that a key is taken while another put of it is in progress.
const CONTENDED: &str = "another put of it is under way";

impl Archive {
    /// Creates an archive of the logs at this URL, read with default settings. Nothing is connected yet.
    /// [`Objects::new`] describes the URL; without `service` it covers all logs below the prefix.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL cannot be used.
    pub fn new(url: &str) -> Result<Self, SinkError> {
        Objects::builder(url).archive()
    }

    fn with(store: Store, keys: Keys, origin: Option<Origin>) -> Result<Self, SinkError> {
        Ok(Self { runtime: OwnRuntime::new()?, store, keys, origin })
    }

    /// Returns the logs of which the archive has anything.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`].
    pub fn origins(&mut self) -> Result<Vec<Origin>, SinkError> {
        self.runtime.block_on(verify::origins(&self.store, &self.keys, self.origin.as_ref()))
    }

    /// Verifies everything: each line and each link, and each object against the checksums in the manifest.
    /// It streams, and stores nothing.
    ///
    /// Finds objects that were altered, deleted or added, and names their keys. [`CopyChecker`] lists what
    /// cannot be found.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]: the copy could not be verified, or there is
    /// nothing. What is wrong with the copy is in the report.
    pub fn verify(&mut self) -> Result<CopyReport, SinkError> {
        self.verify_with(CopyChecker::new())
    }

    /// Verifies the archive with a checker that already knows of heads that were kept elsewhere, or where
    /// forwarding began.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_with(&mut self, checker: CopyChecker) -> Result<CopyReport, SinkError> {
        let Self { runtime, store, keys, origin } = self;
        runtime.block_on(verify::verify(store, keys, origin.as_ref(), checker))
    }

    /// Restores one log: writes its segments, byte for byte, into a directory that is empty or does not exist
    /// yet. Restores all chains, or those with these ids. If all chains are asked for, one whose number is
    /// unknown is left out ([`Restored::left_out`]).
    ///
    /// The files are synced before this returns; then [`tracing_audit::verify`] judges the log. A log that
    /// was still being written has no `close`, so it is unclean. A failed restore leaves files behind: remove
    /// the directory, and start again.
    ///
    /// # Errors
    ///
    /// [`SinkError::Unavailable`] and [`SinkError::Setup`]. The latter also if the archive has several logs
    /// and none is named, if two chains have one number, if the directory is not empty or others may write to
    /// it, and if an object does not match the manifest.
    pub fn restore(&mut self, directory: &Path, chain_ids: &[String]) -> Result<Restored, SinkError> {
        let Self { runtime, store, keys, origin } = self;
        runtime.block_on(restore::restore(store, keys, origin.as_ref(), directory, chain_ids))
    }
}

fn setup(reason: String) -> SinkError {
    SinkError::Setup { reason }
}
