//! Removes old segments: a durable `prune` record first, then the files, then their names.

use std::{io, sync::Arc};

use super::{
    keep::{Sealed, removable},
    ledger::{Ledger, Trouble},
    open::{close_chain, take_free_chain, write_through},
    witness::{self, FirstLine, read_first_line},
};
use crate::{
    Retention,
    chain::Digest,
    clock::Moment,
    format::PruneInfo,
    queue::Chunks,
    segment_name::{ChainNumber, SegmentName},
    storage::{Access, Dir, Storage},
};

/// The name of the file that stops all removal while it exists.
const HOLD: &str = "hold";

/// What happened, for notices.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) removed: Vec<String>,
    pub(super) failed: Option<(String, io::Error)>,
    /// The ledger's own segment failed while the `prune` record was written.
    pub(super) trouble: Option<Trouble>,
}

/// The old segments of one chain.
struct Old {
    sealed: Vec<Sealed>,
    /// For each sealed segment, the record before the first of the segment after it.
    through: Vec<(u64, Digest)>,
    newest_bytes: u64,
}

/// Applies retention to the chain of `ledger`, and to every chain that nobody holds.
pub(super) fn run(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    ledger: &mut Ledger,
    now: &Moment,
) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = run_all(storage, retention, ledger, now, &mut outcome) {
        outcome.failed = Some(("the old segments".to_owned(), error));
    }
    outcome
}

fn run_all(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    ledger: &mut Ledger,
    now: &Moment,
    outcome: &mut Outcome,
) -> io::Result<()> {
    // Where it cannot be asked whether there is a hold, there might be one.
    if storage.stat(Dir::Log, HOLD)?.is_some() {
        return Ok(());
    }
    let segments = witness::segments(storage.as_ref())?;
    let own = ledger.chain();
    prune(storage, retention, ledger, &segments, now, outcome)?;
    let mut others: Vec<ChainNumber> =
        segments.iter().map(|name| name.chain).filter(|chain| *chain != own).collect();
    others.dedup();
    for chain in others {
        let old = survey(storage, &segments, chain)?;
        if removable(retention, &old.sealed, old.newest_bytes, now.wall).is_none() {
            continue;
        }
        if let Some(mut free) = take_free_chain(storage, chain) {
            let mut other = Outcome::default();
            prune(storage, retention, &mut free, &segments, now, &mut other)?;
            // Where this fails the next opener recovers the chain.
            if other.trouble.is_none() && close_chain(&mut free, 0, now).is_ok() {
                outcome.removed.append(&mut other.removed);
            }
        }
    }
    Ok(())
}

fn prune(
    storage: &Arc<dyn Storage>,
    retention: &Retention,
    ledger: &mut Ledger,
    segments: &[SegmentName],
    now: &Moment,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let chain = ledger.chain();
    let mut old = survey(storage, segments, chain)?;
    // A power cut can bring back files whose removal was not durable yet.
    let gone = ledger
        .pruned
        .map_or(0, |(through, _)| old.through.iter().take_while(|(seq, _)| *seq <= through).count());
    let leftovers: Vec<Sealed> = old.sealed.drain(..gone).collect();
    old.through.drain(..gone);
    let planned = removable(retention, &old.sealed, old.newest_bytes, now.wall);
    let mut doomed = leftovers;
    if let Some((count, reason)) = planned {
        let (Some((through, hash)), Some(first), Some(last)) =
            (old.through.get(count - 1), old.sealed.first(), old.sealed.get(count - 1))
        else {
            return Ok(());
        };
        let files = (first.segment, last.segment);
        let info = PruneInfo { through: *through, hash: *hash, files, reason: reason.to_owned() };
        let mut batch = Chunks::default();
        batch.push(&info.payload(now.wall), None, None);
        if let Err(trouble) = write_through(ledger, &mut batch, now) {
            // The record may not be durable, so no file goes.
            outcome.trouble = Some(trouble);
            return Ok(());
        }
        ledger.pruned = Some((*through, *hash));
        doomed.extend(old.sealed.iter().take(count));
    }
    remove(storage, chain, &doomed, outcome)
}

fn remove(
    storage: &Arc<dyn Storage>,
    chain: ChainNumber,
    doomed: &[Sealed],
    outcome: &mut Outcome,
) -> io::Result<()> {
    for sealed in doomed {
        let name = SegmentName { chain, segment: sealed.segment }.to_string();
        match storage.remove(Dir::Log, &name) {
            Ok(()) => outcome.removed.push(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                outcome.failed = Some((name, error));
                break;
            }
        }
    }
    if outcome.removed.is_empty() { Ok(()) } else { storage.sync_dir(Dir::Log) }
}

/// The segments of a chain up to the first whose successor has no readable first line: nothing is
/// removed beyond what is understood.
fn survey(storage: &Arc<dyn Storage>, segments: &[SegmentName], chain: ChainNumber) -> io::Result<Old> {
    let names: Vec<SegmentName> = segments.iter().filter(|name| name.chain == chain).copied().collect();
    let mut old = Old { sealed: Vec::new(), through: Vec::new(), newest_bytes: 0 };
    for pair in names.windows(2) {
        let &[name, next] = pair else { break };
        let Some(first) = first_line(storage, next)? else { break };
        let Some(stat) = storage.stat(Dir::Log, &name.to_string())? else { continue };
        old.sealed.push(Sealed { segment: name.segment, bytes: stat.bytes, ended: first.at });
        old.through.push((first.seq.saturating_sub(1), first.previous));
    }
    if let Some(newest) = names.last() {
        old.newest_bytes = storage.stat(Dir::Log, &newest.to_string())?.map_or(0, |stat| stat.bytes);
    }
    Ok(old)
}

fn first_line(storage: &Arc<dyn Storage>, name: SegmentName) -> io::Result<Option<FirstLine>> {
    read_first_line(storage.open(Dir::Log, &name.to_string(), Access::Read)?.as_ref())
}
