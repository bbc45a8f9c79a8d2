//! The progress of each forwarder of a log, according to its files.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use tracing_audit::{Head, Reader};

use crate::{
    dead,
    error::Error,
    lag,
    position::{Files, Known},
};

/// The progress of one forwarder in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The name of the forwarder.
    pub name: String,
    /// Whether it is running.
    pub is_running: bool,
    /// Every chain that the log has now.
    pub chains: Vec<ChainStatus>,
    /// Records that the store refused, and that nobody has offered again or given up.
    pub rejected: u64,
}

/// The progress of one forwarder in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainStatus {
    /// The number of the chain.
    pub chain: u16,
    /// The id of the chain. If the chain cannot be read, the id that the forwarder knows under its number;
    /// empty if it knows none or several.
    pub id: String,
    /// The record after which forwarding continues, if any. [`fate`](Self::fate) states whether the store has
    /// it.
    pub last: Option<Head>,
    /// What became of [`last`](Self::last); `None` if there is none.
    pub fate: Option<Fate>,
    /// The number of durable records after it; `None` if the chain cannot be read.
    pub lag_records: Option<u64>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fate {
    /// The store acknowledged it.
    Acknowledged,
    /// The store refused it.
    Refused,
    /// Forwarding began after it. Nothing of the chain has been acknowledged since.
    BeganAfter,
    /// Forwarding was told to [continue after it](crate::skip). Nothing of the chain has been acknowledged
    /// since.
    Skipped,
}

/// Returns the progress of every forwarder that has a position in this log, by name. A chain that cannot be
/// read does not affect the others.
///
/// # Errors
///
/// [`Error::Io`], [`Error::BadPosition`] and [`Error::BadRejected`] if a file of a forwarder cannot be read,
/// [`Error::Log`] if there is no log.
pub fn status(dir: impl AsRef<Path>) -> Result<Vec<Status>, Error> {
    let dir = dir.as_ref();
    let chains: Vec<Chain> = chains(dir)?.into_iter().map(|chain| Chain::read(dir, chain)).collect();
    let mut found = Vec::new();
    for name in forwarders(dir)? {
        let files = Files::new(dir, &name)?;
        let known = files.read()?;
        let is_running = files.is_taken();
        let refusals = files.refusals()?;
        let refused: BTreeSet<Head> = refusals.iter().map(|refusal| refusal.record).collect();
        let chains = chains.iter().map(|chain| chain.status(&known, &refused)).collect();
        found.push(Status { name, is_running, chains, rejected: refusals.len() as u64 });
    }
    Ok(found)
}

/// Returns the sorted names of the forwarders that have a position in this log.
///
/// # Errors
///
/// [`Error::Io`] if the directory `control` of the log cannot be listed.
pub fn forwarders(dir: impl AsRef<Path>) -> Result<Vec<String>, Error> {
    let control = dir.as_ref().join("control");
    let mut names = Vec::new();
    for entry in fs::read_dir(&control).map_err(Error::io("list", &control))? {
        let name = entry.map_err(Error::io("list", &control))?.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix("forward-"));
        names.extend(name.filter(|name| !name.contains('.')).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Returns the chains of a log, by the names of its files: none of them has to be readable.
///
/// [`Error::Log`] if there is no log.
pub(crate) fn chains(dir: &Path) -> Result<Vec<u16>, Error> {
    let chains: Vec<u16> = dead::ends(dir).map(|ends| ends.into_keys().collect()).unwrap_or_default();
    if chains.is_empty() {
        // For the error, which names what is missing.
        Reader::new(dir).last(0).items()?;
    }
    Ok(chains)
}

/// What the log shows of a chain.
struct Chain {
    number: u16,
    id: Option<Arc<str>>,
    durable: Option<u64>,
}

impl Chain {
    fn read(dir: &Path, number: u16) -> Self {
        let durable = lag::durable_head(dir, number).ok().map(|head| head.map_or(0, |head| head.seq()));
        Self { number, id: lag::id_of(dir, number), durable }
    }

    fn status(&self, known: &Known, refused: &BTreeSet<Head>) -> ChainStatus {
        let id = self.id.clone().or_else(|| self.known_id(known));
        let position = id.as_ref().and_then(|id| known.chains.get(id));
        let last = position.and_then(|position| position.last);
        let fate = position.zip(last).map(|(position, last)| {
            if position.skipped == Some(last) {
                Fate::Skipped
            } else if position.from == Some(last) {
                Fate::BeganAfter
            } else if refused.contains(&last) || position.given_up.contains(&last.seq()) {
                Fate::Refused
            } else {
                Fate::Acknowledged
            }
        });
        let lag_records =
            self.durable.map(|durable| durable.saturating_sub(last.map_or(0, |last| last.seq())));
        let id = id.map_or_else(String::new, |id| id.to_string());
        ChainStatus { chain: self.number, id, last, fate, lag_records }
    }

    /// Returns the id that a forwarder knows under this number, if it is the only one: the number may have
    /// been that of another chain.
    fn known_id(&self, known: &Known) -> Option<Arc<str>> {
        let is_here = |last: Option<Head>| last.is_some_and(|last| last.chain() == self.number);
        let mut ids = known.chains.iter().filter(|(_, position)| is_here(position.last)).map(|(id, _)| id);
        ids.next().filter(|_| ids.next().is_none()).cloned()
    }
}
