//! Removes old segments. The `prune` record is made durable first, then the files are removed, then
//! the directory is synced. A crash in between leaves files that the record covers, never a hole
//! that no record explains.

use std::{cell::Cell, collections::BTreeMap, io, sync::Arc, time::Duration};

use super::{
    age::{Now, now_of},
    forwarded::Required,
    ledger::{Ledger, Trouble},
    old_segments::{Old, OldSegment, survey},
    open::{close_chain, take_free_chain},
};
use crate::{
    chain_reader::Directory,
    clock::{Clock, Moment, Timestamp},
    format::{ChainId, PruneInfo, PruneReason},
    segment_name::{ChainNumber, SegmentName},
    settings::Retention,
    storage::{Dir, Storage},
};

/// The file that stops all removal while it exists.
const HOLD: &str = "hold";

/// After how many files a pass pauses, so that others get the disk and the processor.
const STEP: u32 = 16;
/// How long it pauses.
const REST: Duration = Duration::from_millis(1);

/// The outcome of a pass, for notices.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The first and the last file removed of each chain, and how many.
    pub(super) removed: BTreeMap<ChainNumber, (SegmentName, SegmentName, usize)>,
    /// What could not be done, and why. A failure in one chain does not stop the others.
    pub(super) failed: Vec<(String, io::Error)>,
    /// Whether a requested record may not be durable, so that its files stayed.
    pub(super) is_refused: bool,
    /// Whether every chain was examined.
    pub(super) is_complete: bool,
    /// The chains that keep something only because it is not forwarded yet, and why.
    pub(super) waits: BTreeMap<ChainNumber, String>,
    /// The time at which ages were measured, and that of the newest record, which is not trusted
    /// yet.
    pub(super) jumped: Option<(Timestamp, Timestamp)>,
}

impl Outcome {
    /// Returns the outcome of a pass that could do nothing, for this reason.
    pub(super) fn failed(storage: &dyn Storage, error: io::Error) -> Self {
        let what = format!("remove the old segments of {}", storage.path(Dir::Log, "").display());
        Self { failed: vec![(what, error)], ..Self::default() }
    }
}

/// What a pass needs of the writer.
pub(super) trait PassHost {
    /// Makes a `prune` record of this chain durable. Returns whether it is.
    fn record(&mut self, chain: (ChainNumber, Option<ChainId>), info: PruneInfo) -> bool;
    /// Returns whether the pass must end now.
    fn must_stop(&self) -> bool;
    /// Returns the current time, which may be long after the pass began.
    fn now(&self) -> Moment;
}

/// The writer itself, which waits until the pass is over.
#[derive(Debug)]
pub(super) struct InlineHost<'a> {
    pub(super) ledger: &'a mut Ledger,
    pub(super) now: &'a Moment,
    /// The failure of the live segment while the record was written, if any.
    pub(super) trouble: Option<Trouble>,
}

impl PassHost for InlineHost<'_> {
    fn record(&mut self, chain: (ChainNumber, Option<ChainId>), info: PruneInfo) -> bool {
        if !self.ledger.is_of(chain) {
            return false;
        }
        let recorded = self.ledger.prune(&info, self.now);
        recorded.unwrap_or_else(|trouble| {
            self.trouble = Some(trouble);
            false
        })
    }

    fn must_stop(&self) -> bool {
        // Healing the live segment comes first.
        self.trouble.is_some()
    }

    fn now(&self) -> Moment {
        *self.now
    }
}

/// One pass over the writer's chain, and over every chain that no process holds.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) retention: Retention,
    pub(super) clock: Clock,
    /// The writer's chain.
    pub(super) own: ChainNumber,
    /// The last record of it that retention removed.
    pub(super) pruned: u64,
    /// How many files were examined.
    pub(super) steps: Cell<u32>,
}

/// Returns how many of the oldest files must go to free so many bytes.
fn making_room(ends: &[(u64, u64)], mut bytes: u64) -> usize {
    let is_needed = |(_, freed): &&(u64, u64)| {
        let needed = bytes > 0;
        bytes = bytes.saturating_sub(*freed);
        needed
    };
    ends.iter().take_while(is_needed).count()
}

/// What to remove of a chain.
#[derive(Debug, Clone, Copy)]
struct Removal {
    /// How many of the oldest leftovers.
    leftovers: usize,
    /// How many of the oldest segments, and why.
    segments: Option<(usize, PruneReason)>,
    /// The last record up to which every required forwarder has the chain. What follows it is
    /// removed only for lack of space.
    forwarded: u64,
}

impl Removal {
    /// Returns what must have been forwarded before a file that ends with this record may go.
    fn wanted(&self, id: Option<ChainId>, through: u64) -> Option<(ChainId, u64)> {
        id.filter(|_| through <= self.forwarded).map(|id| (id, through))
    }
}

/// A file to be removed.
#[derive(Debug)]
struct FileToRemove {
    name: SegmentName,
    /// The chain, and the record up to which it must have been forwarded, if it must.
    wanted: Option<(ChainId, u64)>,
}

impl Pass {
    /// Runs the pass. A failure that ends it is part of the outcome.
    pub(super) fn run(&self, host: &mut dyn PassHost) -> Outcome {
        let mut outcome = Outcome::default();
        match self.run_all(host, &mut outcome) {
            Ok(()) => outcome,
            Err(error) => {
                outcome.failed.extend(Outcome::failed(self.storage.as_ref(), error).failed);
                outcome
            }
        }
    }

    fn run_all(&self, host: &mut dyn PassHost, outcome: &mut Outcome) -> io::Result<()> {
        // If it cannot be determined whether there is a hold, there might be one.
        if self.storage.stat(Dir::Log, HOLD)?.is_some() {
            return Ok(());
        }
        let directory = Directory::read(self.storage.as_ref())?;
        let Some(old) = self.survey(&directory, self.own, self.pruned, host)? else { return Ok(()) };
        let has_ages = self.retention.max_age.is_some() || self.retention.min_age.is_some();
        let now = if has_ages { now_of(&self.storage, &old.counted_parts())? } else { Now::UNKNOWN };
        outcome.jumped = now.untrusted.map(|newest| (now.at, newest));
        let removal = self.choose(&self.required(), (self.own, &old), now.at, outcome)?;
        self.prune((self.own, old), removal, host, outcome)?;
        for chain in directory.chains.keys().copied().filter(|chain| *chain != self.own) {
            let passed = match self.survey(&directory, chain, 0, host) {
                Ok(Some(old)) => self.pass_free(chain, &old, &now, host, outcome),
                Ok(None) => return Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = passed {
                // The remaining chains are not affected.
                let log = self.storage.path(Dir::Log, "");
                outcome
                    .failed
                    .push((format!("remove the old segments of chain {chain} in {}", log.display()), error));
            }
        }
        outcome.is_complete = !host.must_stop() && outcome.failed.is_empty();
        Ok(())
    }

    /// Removes what is due of another chain, if no process holds it. Decides once without the lock,
    /// to leave chains alone that have nothing to remove, and again with it.
    fn pass_free(
        &self,
        chain: ChainNumber,
        old: &Old,
        now: &Now,
        host: &mut dyn PassHost,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let required = self.required();
        let has_ages = self.retention.max_age.is_some() || self.retention.min_age.is_some();
        let theirs = if has_ages { now_of(&self.storage, &old.counted_parts())? } else { Now::UNKNOWN };
        let removal = self.choose(&required, (chain, old), now.for_other(old.begun(), &theirs), outcome)?;
        if removal.segments.is_none() && (removal.leftovers == 0 || required.is_hold()) {
            return Ok(());
        }
        let Some(mut free) = take_free_chain(&self.storage, chain, self.clock, &host.now()) else {
            return Ok(());
        };
        let pruned = free.pruned.map_or(0, |(through, _)| through);
        let directory = Directory::read(self.storage.as_ref())?;
        let mut held = Held { ledger: &mut free, host };
        let Some(old) = self.survey(&directory, chain, pruned, &held)? else { return Ok(()) };
        let removal = self.choose(&required, (chain, &old), now.for_other(old.begun(), &theirs), outcome)?;
        self.prune((chain, old), removal, &mut held, outcome)
    }

    fn required(&self) -> Required {
        Required::read(self.storage.as_ref(), &self.retention.require_forwarded)
    }

    fn survey(
        &self,
        directory: &Directory,
        chain: ChainNumber,
        pruned: u64,
        host: &dyn PassHost,
    ) -> io::Result<Option<Old>> {
        survey(&self.storage, directory, chain, pruned, || self.step(host))
    }

    /// Pauses now and then, and returns whether the pass continues. Called before each file.
    fn step(&self, host: &dyn PassHost) -> bool {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps.is_multiple_of(STEP) {
            self.clock.sleep(REST);
        }
        !host.must_stop()
    }

    /// Decides what to remove of a chain. Notes in `outcome` what stays only because it was not
    /// forwarded.
    fn choose(
        &self,
        required: &Required,
        (chain, old): (ChainNumber, &Old),
        now: Timestamp,
        outcome: &mut Outcome,
    ) -> io::Result<Removal> {
        let retention = &self.retention;
        let segments = old.removable(retention, usize::MAX, now);
        let ends = old.ends(segments.map_or(0, |(count, _)| count));
        let leftovers = old.leftovers.len();
        let Some(limit) = old.id.and_then(|id| required.limit(self.storage.as_ref(), id)) else {
            return Ok(Removal { leftovers, segments, forwarded: u64::MAX });
        };
        let has = ends.iter().take_while(|(through, _)| *through <= limit.through).count();
        let Some((end, _)) = ends.last().filter(|_| has < ends.len()) else {
            return Ok(Removal { leftovers, segments, forwarded: limit.through });
        };
        let missing_bytes = match retention.unless_free_below {
            Some(least) if !required.is_hold() => least.saturating_sub(self.storage.free_bytes()?),
            _ => 0,
        };
        let allowed = has.max(making_room(&ends, missing_bytes));
        if allowed < ends.len() {
            let message = format!(
                "chain {chain} keeps old records up to {end}, which retention would remove: {}",
                limit.kept_by
            );
            outcome.waits.insert(chain, message);
        }
        let segments = old.removable(retention, allowed.saturating_sub(leftovers), now);
        Ok(Removal { leftovers: leftovers.min(allowed), segments, forwarded: limit.through })
    }

    /// Removes what is due of a chain that the writer holds, or this pass.
    fn prune(
        &self,
        (chain, mut old): (ChainNumber, Old),
        removal: Removal,
        host: &mut dyn PassHost,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let id = old.id;
        let leftovers = old.leftovers.drain(..removal.leftovers);
        // Check each store again: one that has lost a leftover since must get it again.
        let leftovers =
            leftovers.map(|file| FileToRemove { name: file.name, wanted: removal.wanted(id, file.through) });
        let mut to_remove: Vec<FileToRemove> = leftovers.collect();
        if let Some((count, reason)) = removal.segments {
            let removed: Vec<OldSegment> = old.segments.drain(..count).collect();
            let (Some(first), Some(last)) = (removed.first(), removed.last()) else { return Ok(()) };
            let (through, hash) = last.through;
            let numbers =
                [first.files.first(), last.files.last()].map(|name| name.map_or(0, |name| name.segment));
            let files = numbers.into();
            let info = PruneInfo { through, hash, files, reason: reason.as_str().to_owned() };
            let files = removed.into_iter().flat_map(|old| {
                let wanted = removal.wanted(id, old.through.0);
                old.files.into_iter().map(move |name| FileToRemove { name, wanted })
            });
            to_remove.extend(files);
            // The decision may be outdated. A file that must stay now must not be recorded as
            // removed.
            if host.must_stop() || !self.may_go(removal.wanted(id, through))? {
                return Ok(());
            }
            // One record covers all of them. If a crash leaves some of their files, the next pass
            // removes those.
            if !host.record((chain, id), info) {
                // The record may not be durable, so no file is removed.
                outcome.is_refused = true;
                return Ok(());
            }
        }
        self.remove(&to_remove, host, outcome)
    }

    /// Removes the files, then syncs the directory so that a power cut does not bring them back.
    fn remove(
        &self,
        to_remove: &[FileToRemove],
        host: &dyn PassHost,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let mut has_removed = false;
        for FileToRemove { name, wanted } in to_remove {
            // A hold may have appeared while the record was written. Files that stay although the
            // record covers them are leftovers.
            match self.step(host).then(|| self.may_go(*wanted)) {
                Some(Ok(true)) => {}
                Some(Err(error)) => {
                    outcome.failed.push((self.removing(*name), error));
                    break;
                }
                _ => break,
            }
            match self.storage.remove(Dir::Log, &name.to_string()) {
                Ok(()) => {
                    has_removed = true;
                    let (_, last, count) = outcome.removed.entry(name.chain).or_insert((*name, *name, 0));
                    (*last, *count) = (*name, *count + 1);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    outcome.failed.push((self.removing(*name), error));
                    break;
                }
            }
        }
        if has_removed { self.storage.sync_dir(Dir::Log) } else { Ok(()) }
    }

    fn removing(&self, name: SegmentName) -> String {
        format!("remove {}", self.storage.path(Dir::Log, &name.to_string()).display())
    }

    /// Returns whether a file may be removed now: there is no hold, and every required forwarder
    /// has its records.
    fn may_go(&self, wanted: Option<(ChainId, u64)>) -> io::Result<bool> {
        if self.storage.stat(Dir::Log, HOLD)?.is_some() {
            return Ok(false);
        }
        let required = self.required();
        let has_all = wanted.is_none_or(|(id, through)| {
            let limit = required.limit(self.storage.as_ref(), id);
            limit.is_none_or(|limit| through <= limit.through)
        });
        Ok(!required.is_hold() && has_all)
    }
}

/// A chain that a pass holds itself until its files are gone.
struct Held<'a> {
    ledger: &'a mut Ledger,
    /// Knows whether the pass must end, and the time.
    host: &'a dyn PassHost,
}

impl PassHost for Held<'_> {
    fn record(&mut self, chain: (ChainNumber, Option<ChainId>), info: PruneInfo) -> bool {
        if !self.ledger.is_of(chain) {
            return false;
        }
        // Trouble with another process's chain concerns only that chain: its next opener recovers
        // it.
        let now = self.now();
        let is_durable = self.ledger.prune(&info, &now).unwrap_or(false);
        if is_durable {
            // Close it before the files are removed, which can take a while. If the process ends
            // meanwhile, the chain is in order.
            drop(close_chain(self.ledger, 0, true, &now));
        }
        is_durable
    }

    fn must_stop(&self) -> bool {
        self.host.must_stop()
    }

    fn now(&self) -> Moment {
        self.host.now()
    }
}
