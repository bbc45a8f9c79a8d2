//! How far a store is behind the log, and what retention removed, as the log shows.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing_audit::{Head, ReadItems, Reader, Record, RecordKind, Value};

use crate::{dead, error::Error, position::Known};

/// Returns the last durable record of a chain.
pub(crate) fn durable_head(dir: &Path, chain: u16) -> Result<Option<Head>, Error> {
    let items = Reader::new(dir).chain(chain).durable_only(true).reverse(true).items()?;
    let mut records = without_damage(items);
    records.next().transpose().map(|record| record.map(|record| record.head()))
}

/// Returns the last record that retention removed from a chain, according to the newest `prune` record.
pub(crate) fn pruned_through(dir: &Path, chain: u16) -> Result<Option<u64>, Error> {
    for record in from_the_end(dir, chain)? {
        let record = record?;
        if record.kind() == RecordKind::Prune {
            return Ok(record.get("prune").and_then(|prune| prune.get("through")).and_then(Value::as_u64));
        }
    }
    Ok(None)
}

/// Returns the records of a chain, newest first. Damaged lines are skipped here; reading forward reports
/// them.
pub(crate) fn from_the_end(
    dir: &Path,
    chain: u16,
) -> Result<impl Iterator<Item = Result<Record, Error>>, Error> {
    Ok(without_damage(Reader::new(dir).chain(chain).reverse(true).items()?))
}

fn without_damage(items: ReadItems) -> impl Iterator<Item = Result<Record, Error>> {
    items.filter_map(|item| match item {
        Ok(item) => item.into_record().map(Ok),
        Err(tracing_audit::Error::BadLine { .. }) => None,
        Err(error) => Some(Err(error.into())),
    })
}

/// What a store does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Age of the oldest of these records.
    pub(crate) age: Duration,
}

/// Returns the id of a chain, if it can be read.
pub(crate) fn id_of(dir: &Path, chain: u16) -> Option<Arc<str>> {
    let items = Reader::new(dir).chain(chain).last(0).items().ok()?;
    items.chains().pop().map(|(_, id)| Arc::from(id))
}

/// Returns the ids of the chains that can be read.
pub(crate) fn ids(dir: &Path) -> BTreeMap<u16, Arc<str>> {
    let chains = dead::ends(dir).unwrap_or_default().into_keys();
    chains.filter_map(|chain| Some((chain, id_of(dir, chain)?))).collect()
}

/// Measures how much of the log is durable and not acknowledged. `head` is known to be durable. What cannot
/// be read now is not counted; reading it forward reports it.
pub(crate) fn measure(dir: &Path, known: &Known, ids: &BTreeMap<u16, Arc<str>>, head: Option<Head>) -> Lag {
    let mut lag = Lag::default();
    for (chain, id) in ids {
        let last = known.last(id);
        let trusted = head.filter(|head| head.chain() == *chain).map_or(0, |head| head.seq());
        let Ok(last_durable) = durable_head(dir, *chain) else { continue };
        let durable = last_durable.map_or(0, |head| head.seq()).max(trusted);
        let behind = durable.saturating_sub(last.map_or(0, |last| last.seq()));
        lag.records += behind;
        let Some(first) = (behind > 0).then(|| first_behind(dir, *chain, last)).flatten() else { continue };
        lag.bytes += bytes_from(dir, *chain, &first).unwrap_or(0);
        let age = first.time().and_then(|time| SystemTime::now().duration_since(time).ok());
        lag.age = lag.age.max(age.unwrap_or_default());
    }
    lag
}

fn first_behind(dir: &Path, chain: u16, last: Option<Head>) -> Option<Record> {
    let mut reader = Reader::new(dir).chain(chain);
    if let Some(last) = last {
        reader = reader.after(last);
    }
    reader.items().ok()?.find_map(|item| item.ok()?.into_record())
}

/// Returns the number of bytes of a chain from this record on.
fn bytes_from(dir: &Path, chain: u16, first: &Record) -> Option<u64> {
    let (file, offset) = (first.file_name(), first.offset());
    let pattern = format!("audit-{chain:03}-");
    let names = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newer = names.filter(|name| name.starts_with(&pattern) && *name >= file);
    let bytes =
        newer.filter_map(|name| fs::metadata(dir.join(name)).ok()).map(|data| data.len()).sum::<u64>();
    Some(bytes.saturating_sub(offset))
}
