//! How far each forwarder of a log is, as its files say.

use std::{fs, path::Path, sync::Arc};

use tracing_audit::{Head, Reader};

use crate::{error::Error, lag, position::Files};

/// How far the store of one forwarder has a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The name of the forwarder.
    pub name: String,
    /// Whether one runs.
    pub is_running: bool,
    /// Every chain that the log has now.
    pub chains: Vec<ChainStatus>,
    /// Records that the store refused, and that nobody offered again or gave up.
    pub rejected: u64,
}

/// How far the store of one forwarder has a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainStatus {
    /// The number of the chain.
    pub chain: u16,
    /// The id of the chain.
    pub id: String,
    /// The last record that the store acknowledged, if any.
    pub last: Option<Head>,
    /// How many records that the log says are durable lie behind it; `None` where the chain cannot be read.
    pub lag_records: Option<u64>,
}

/// How far every forwarder is that has a position in this log, by name.
///
/// # Errors
///
/// [`Error::Io`] and [`Error::BadPosition`] where a file cannot be read, [`Error::Log`] where the log cannot be.
pub fn status(dir: impl AsRef<Path>) -> Result<Vec<Status>, Error> {
    let dir = dir.as_ref();
    let items = Reader::new(dir).last(0).items()?;
    let chains: Vec<(u16, Arc<str>)> =
        items.chains().into_iter().map(|(chain, id)| (chain, Arc::from(id))).collect();
    let mut found = Vec::new();
    for name in names(dir)? {
        let files = Files::new(dir, &name)?;
        let known = files.read()?;
        let is_running = files.is_taken();
        let mut of_chains = Vec::new();
        for (chain, id) in &chains {
            let last = known.last(id);
            let durable = lag::durable_head(dir, *chain).ok().map(|head| head.map_or(0, |head| head.seq()));
            let lag_records =
                durable.map(|durable| durable.saturating_sub(last.map_or(0, |last| last.seq())));
            of_chains.push(ChainStatus { chain: *chain, id: id.to_string(), last, lag_records });
        }
        let rejected = files.refusals()?.len() as u64;
        found.push(Status { name, is_running, chains: of_chains, rejected });
    }
    Ok(found)
}

/// The names under which positions lie in a log.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let control = dir.join("control");
    let mut names = Vec::new();
    for entry in fs::read_dir(&control).map_err(Error::io("list", &control))? {
        let name = entry.map_err(Error::io("list", &control))?.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix("forward-"));
        names.extend(name.filter(|name| !name.contains('.')).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
