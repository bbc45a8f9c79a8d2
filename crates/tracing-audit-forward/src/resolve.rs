//! What an operator can do about refused records, and about a chain that stopped.

use std::{io, path::Path, sync::Arc};

use tracing_audit::{Head, Reader};

use crate::{
    copy::CopyChecker,
    error::Error,
    position::{Acknowledged, Files, Known, Refusal},
    sink::{Entry, Sink, SinkError},
};

/// A record that a store refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The record.
    pub record: Head,
    /// The id of its chain.
    pub chain_id: String,
    /// The reason that the store gave.
    pub reason: String,
}

/// Returns the records that the store of this name refused, and that nobody has offered again or given up.
///
/// # Errors
///
/// [`Error::Name`], [`Error::Io`], and [`Error::BadRejected`] if the list cannot be parsed.
pub fn rejected(dir: impl AsRef<Path>, name: &str) -> Result<Vec<Rejected>, Error> {
    let files = Files::new(dir.as_ref(), name)?;
    let read = |refusal: Refusal| Rejected {
        record: refusal.record,
        chain_id: refusal.chain_id,
        reason: refusal.reason,
    };
    Ok(files.refusals()?.into_iter().map(read).collect())
}

/// Returns a checker for the copy of this forwarder. It knows where forwarding began, and which records the
/// store refused.
///
/// # Errors
///
/// As [`rejected`].
pub fn copy_checker(dir: impl AsRef<Path>, name: &str) -> Result<CopyChecker, Error> {
    let files = Files::new(dir.as_ref(), name)?;
    let mut checker = CopyChecker::new();
    for (id, chain) in files.read()?.chains {
        if let Some(from) = chain.skipped.or(chain.from) {
            checker.begins_after(&id, from.seq());
        }
    }
    for refusal in files.refusals()? {
        checker.rejected(&refusal.chain_id, refusal.record.seq());
    }
    Ok(checker)
}

/// Gives up these refused records: they stay missing in the store, and retention no longer waits for them.
/// Verification of the copy still lists them as missing. Returns how many of them were on the list.
///
/// # Errors
///
/// As [`rejected`], and [`Error::Running`] while a forwarder of this name runs.
pub fn give_up(dir: impl AsRef<Path>, name: &str, records: &[Head]) -> Result<u64, Error> {
    let files = Files::new(dir.as_ref(), name)?;
    let _held = files.take()?.ok_or_else(|| Error::Running { name: name.to_owned() })?;
    settle(&files, |refusal| records.contains(&refusal.record), true)
}

/// Offers every refused record once more, one by one. Returns how many the store accepted; the others stay
/// refused.
///
/// # Errors
///
/// As [`give_up`], [`Error::Log`] if a record cannot be read, and [`Error::Store`] if the store cannot be
/// used: the records that it accepted before are off the list.
pub fn offer_again(dir: impl AsRef<Path>, name: &str, sink: &mut dyn Sink) -> Result<u64, Error> {
    let dir = dir.as_ref();
    let files = Files::new(dir, name)?;
    let _held = files.take()?.ok_or_else(|| Error::Running { name: name.to_owned() })?;
    let (mut taken, mut failed) = (Vec::new(), None);
    for refusal in files.refusals()? {
        let head = refusal.record;
        let mut items = Reader::new(dir).chain(head.chain()).from_seq(head.seq()).items()?;
        let record = items.find_map(|item| item.ok()?.into_record()).filter(|record| record.head() == head);
        let Some(record) = record else { continue };
        match sink.offer(&[Entry::new(Arc::from(refusal.chain_id), record)]) {
            Ok(()) => taken.push(head),
            Err(SinkError::Refused { .. } | SinkError::Partly { .. } | SinkError::Conflict { .. }) => {}
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    sink.close();
    let settled = settle(&files, |refusal| taken.contains(&refusal.record), false)?;
    match failed {
        None => Ok(settled),
        Some(source) => Err(Error::Store { name: name.to_owned(), source }),
    }
}

/// Continues the forwarding of a chain after this record, whatever the store has up to there. For a log or a
/// store that was restored or cloned, when both have their own records under the same keys.
///
/// The store keeps what it has, and the log's own records up to this one never reach it.
///
/// # Errors
///
/// As [`give_up`]; [`Error::Log`] if the log does not have the record.
pub fn skip(dir: impl AsRef<Path>, name: &str, record: Head) -> Result<(), Error> {
    let dir = dir.as_ref();
    let files = Files::new(dir, name)?;
    let _held = files.take()?.ok_or_else(|| Error::Running { name: name.to_owned() })?;
    let items = Reader::new(dir).chain(record.chain()).after(record).items()?;
    let id = items.chains().into_iter().find(|(chain, _)| *chain == record.chain());
    let Some((_, id)) = id else {
        return Err(Error::io("find the id of the chain in", dir)(io::ErrorKind::NotFound.into()));
    };
    let mut known = files.read()?;
    let of_chain: &mut Acknowledged = known.chains.entry(Arc::from(id)).or_default();
    (of_chain.last, of_chain.skipped, of_chain.asked) = (Some(record), Some(record), None);
    files.write(&known)
}

/// Removes refusals from the list, and from what retention waits for.
fn settle(files: &Files, is_settled: impl Fn(&Refusal) -> bool, are_given_up: bool) -> Result<u64, Error> {
    let (settled, left): (Vec<Refusal>, Vec<Refusal>) = files.refusals()?.into_iter().partition(is_settled);
    let mut known: Known = files.read()?;
    for (id, chain) in &mut known.chains {
        let of_chain = left.iter().filter(|refusal| *refusal.chain_id == **id);
        chain.refused = of_chain.map(|refusal| refusal.record.seq()).min();
        if are_given_up {
            let of_chain = settled.iter().filter(|refusal| *refusal.chain_id == **id);
            chain.given_up.extend(of_chain.map(|refusal| refusal.record.seq()));
        }
    }
    // In this order, a crash in between keeps a segment too long, never too short.
    files.write_refusals(&left)?;
    files.write(&known)?;
    Ok(settled.len() as u64)
}
