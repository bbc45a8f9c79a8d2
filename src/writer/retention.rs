//! Removes old segments: a durable `prune` record first, then the files, then their names.

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

/// The name of the file that stops all removal while it exists.
const HOLD: &str = "hold";

/// After so many files a pass rests, so that whoever waits for the disk or for a processor has it.
const STEP: u32 = 16;
const REST: Duration = Duration::from_millis(1);

/// What happened, for notices.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The first and the last file of each chain that went, and how many.
    pub(super) removed: BTreeMap<ChainNumber, (SegmentName, SegmentName, usize)>,
    /// What failed of each chain: what could not be done, and why. The other chains do not wait for it.
    pub(super) failed: Vec<(String, io::Error)>,
    /// Whether a record that was asked for may not be durable, so that its files stayed.
    pub(super) is_refused: bool,
    /// Whether every chain was looked at.
    pub(super) is_whole: bool,
    /// Of which chains something stays that would go if it were forwarded, and why.
    pub(super) waits: BTreeMap<ChainNumber, String>,
    /// At which time ages were measured, and the time of the newest record, which is not believed yet.
    pub(super) jumped: Option<(Timestamp, Timestamp)>,
}

impl Outcome {
    /// Nothing happened, for this reason.
    pub(super) fn failed(storage: &dyn Storage, error: io::Error) -> Self {
        let what = format!("remove the old segments of {}", storage.path(Dir::Log, "").display());
        Self { failed: vec![(what, error)], ..Self::default() }
    }
}

/// Who makes a pass: what it needs of the writer.
pub(super) trait Desk {
    /// Makes a `prune` record of this chain, which is the writer's, durable; says whether it is.
    fn record(&mut self, chain: (ChainNumber, Option<ChainId>), info: PruneInfo) -> bool;
    /// Whether the pass must end where it is.
    fn must_stop(&self) -> bool;
    /// The time of what is written now, which may be long after the pass began.
    fn now(&self) -> Moment;
}

/// The writer itself, which waits until the pass is over.
#[derive(Debug)]
pub(super) struct Here<'a> {
    pub(super) ledger: &'a mut Ledger,
    pub(super) now: &'a Moment,
    /// The ledger's own segment failed while the record was written.
    pub(super) trouble: Option<Trouble>,
}

impl Desk for Here<'_> {
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
        // Our own segment comes first.
        self.trouble.is_some()
    }

    fn now(&self) -> Moment {
        *self.now
    }
}

/// One pass over the chain of a writer, and over every chain that nobody holds.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) retention: Retention,
    pub(super) clock: Clock,
    /// The writer's chain, and the last record that retention removed of it.
    pub(super) own: ChainNumber,
    pub(super) pruned: u64,
    /// How many files it has looked at.
    pub(super) steps: Cell<u32>,
}

/// How many of the oldest make so much room.
fn making_room(ends: &[(u64, u64)], mut bytes: u64) -> usize {
    let is_needed = |(_, freed): &&(u64, u64)| {
        let needed = bytes > 0;
        bytes = bytes.saturating_sub(*freed);
        needed
    };
    ends.iter().take_while(is_needed).count()
}

/// What of a chain goes.
#[derive(Debug, Clone, Copy)]
struct Doom {
    /// How many of the oldest leftovers.
    leftovers: usize,
    /// How many of the oldest segments, and why.
    segments: Option<(usize, PruneReason)>,
    /// Up to which record the forwarders have everything. What goes behind it goes because there is no room.
    forwarded: u64,
}

impl Doom {
    /// What must have been forwarded for a file to go that ends with this record.
    fn wanted(&self, id: Option<ChainId>, through: u64) -> Option<(ChainId, u64)> {
        id.filter(|_| through <= self.forwarded).map(|id| (id, through))
    }
}

/// A file that goes.
#[derive(Debug)]
struct Doomed {
    name: SegmentName,
    /// The chain, and the record up to which it must have been forwarded, if it must.
    wanted: Option<(ChainId, u64)>,
}

impl Pass {
    pub(super) fn run(&self, desk: &mut dyn Desk) -> Outcome {
        let mut outcome = Outcome::default();
        match self.run_all(desk, &mut outcome) {
            Ok(()) => outcome,
            Err(error) => {
                outcome.failed.extend(Outcome::failed(self.storage.as_ref(), error).failed);
                outcome
            }
        }
    }

    fn run_all(&self, desk: &mut dyn Desk, outcome: &mut Outcome) -> io::Result<()> {
        // Where it cannot be asked whether there is a hold, there might be one.
        if self.storage.stat(Dir::Log, HOLD)?.is_some() {
            return Ok(());
        }
        let directory = Directory::read(self.storage.as_ref())?;
        let Some(old) = self.survey(&directory, self.own, self.pruned, desk)? else { return Ok(()) };
        let has_ages = self.retention.max_age.is_some() || self.retention.min_age.is_some();
        let now = if has_ages { now_of(&self.storage, &old.stretches())? } else { Now::UNKNOWN };
        outcome.jumped = now.unbelieved.map(|newest| (now.at, newest));
        let doom = self.choose(&self.required(), (self.own, &old), now.at, outcome)?;
        self.prune((self.own, old), doom, desk, outcome)?;
        for chain in directory.chains.keys().copied().filter(|chain| *chain != self.own) {
            let passed = match self.survey(&directory, chain, 0, desk) {
                Ok(Some(old)) => self.pass_free(chain, &old, &now, desk, outcome),
                Ok(None) => return Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = passed {
                // Those behind it are none the worse.
                let log = self.storage.path(Dir::Log, "");
                outcome
                    .failed
                    .push((format!("remove the old segments of chain {chain} in {}", log.display()), error));
            }
        }
        outcome.is_whole = !desk.must_stop() && outcome.failed.is_empty();
        Ok(())
    }

    /// Removes what goes of a chain of others, if nobody holds it.
    fn pass_free(
        &self,
        chain: ChainNumber,
        old: &Old,
        now: &Now,
        desk: &mut dyn Desk,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let required = self.required();
        let has_ages = self.retention.max_age.is_some() || self.retention.min_age.is_some();
        let theirs = if has_ages { now_of(&self.storage, &old.stretches())? } else { Now::UNKNOWN };
        let doom = self.choose(&required, (chain, old), now.for_other(old.begun(), &theirs), outcome)?;
        if doom.segments.is_none() && (doom.leftovers == 0 || required.is_hold()) {
            return Ok(());
        }
        let Some(mut free) = take_free_chain(&self.storage, chain, self.clock, &desk.now()) else {
            return Ok(());
        };
        let pruned = free.pruned.map_or(0, |(through, _)| through);
        let directory = Directory::read(self.storage.as_ref())?;
        let mut held = Held { ledger: &mut free, desk };
        let Some(old) = self.survey(&directory, chain, pruned, &held)? else { return Ok(()) };
        let doom = self.choose(&required, (chain, &old), now.for_other(old.begun(), &theirs), outcome)?;
        self.prune((chain, old), doom, &mut held, outcome)
    }

    fn required(&self) -> Required {
        Required::read(self.storage.as_ref(), &self.retention.require_forwarded)
    }

    fn survey(
        &self,
        directory: &Directory,
        chain: ChainNumber,
        pruned: u64,
        desk: &dyn Desk,
    ) -> io::Result<Option<Old>> {
        survey(&self.storage, directory, chain, pruned, || self.step(desk))
    }

    /// Comes before each file: rests now and then, and says whether the pass goes on.
    fn step(&self, desk: &dyn Desk) -> bool {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps.is_multiple_of(STEP) {
            self.clock.sleep(REST);
        }
        !desk.must_stop()
    }

    /// Decides what of a chain goes. What stays only because it was not forwarded is noted in `outcome`.
    fn choose(
        &self,
        required: &Required,
        (chain, old): (ChainNumber, &Old),
        now: Timestamp,
        outcome: &mut Outcome,
    ) -> io::Result<Doom> {
        let retention = &self.retention;
        let segments = old.removable(retention, usize::MAX, now);
        let ends = old.ends(segments.map_or(0, |(count, _)| count));
        let leftovers = old.leftovers.len();
        let Some(limit) = old.id.and_then(|id| required.limit(self.storage.as_ref(), id)) else {
            return Ok(Doom { leftovers, segments, forwarded: u64::MAX });
        };
        let has = ends.iter().take_while(|(through, _)| *through <= limit.through).count();
        let Some((end, _)) = ends.last().filter(|_| has < ends.len()) else {
            return Ok(Doom { leftovers, segments, forwarded: limit.through });
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
        Ok(Doom { leftovers: leftovers.min(allowed), segments, forwarded: limit.through })
    }

    /// Removes what goes of a chain that the writer holds, or this pass does.
    fn prune(
        &self,
        (chain, mut old): (ChainNumber, Old),
        doom: Doom,
        desk: &mut dyn Desk,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let id = old.id;
        let leftovers = old.leftovers.drain(..doom.leftovers);
        // No store is believed for ever: one that has lost a leftover since gets it again.
        let leftovers =
            leftovers.map(|file| Doomed { name: file.name, wanted: doom.wanted(id, file.through) });
        let mut doomed: Vec<Doomed> = leftovers.collect();
        if let Some((count, reason)) = doom.segments {
            let removed: Vec<OldSegment> = old.segments.drain(..count).collect();
            let (Some(first), Some(last)) = (removed.first(), removed.last()) else { return Ok(()) };
            let (through, hash) = last.through;
            let numbers =
                [first.files.first(), last.files.last()].map(|name| name.map_or(0, |name| name.segment));
            let files = numbers.into();
            let info = PruneInfo { through, hash, files, reason: reason.as_str().to_owned() };
            let files = removed.into_iter().flat_map(|old| {
                let wanted = doom.wanted(id, old.through.0);
                old.files.into_iter().map(move |name| Doomed { name, wanted })
            });
            doomed.extend(files);
            // Time has passed since that was decided: what must stay now is not called removed.
            if desk.must_stop() || !self.may_go(doom.wanted(id, through))? {
                return Ok(());
            }
            // One record for all of them. What a crash leaves of their files the next pass removes.
            if !desk.record((chain, id), info) {
                // It may not be durable, so no file goes.
                outcome.is_refused = true;
                return Ok(());
            }
        }
        self.remove(&doomed, desk, outcome)
    }

    fn remove(&self, doomed: &[Doomed], desk: &dyn Desk, outcome: &mut Outcome) -> io::Result<()> {
        let mut has_removed = false;
        for Doomed { name, wanted } in doomed {
            // It may have changed while the record was written. What the record says is gone stays as a leftover.
            match self.step(desk).then(|| self.may_go(*wanted)) {
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

    /// Whether a file may go now: there is no hold, and whoever must have it has it.
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

/// A chain that a pass holds itself, until its files are gone.
struct Held<'a> {
    ledger: &'a mut Ledger,
    /// Who knows whether the pass must end, and what time it is.
    desk: &'a dyn Desk,
}

impl Desk for Held<'_> {
    fn record(&mut self, chain: (ChainNumber, Option<ChainId>), info: PruneInfo) -> bool {
        if !self.ledger.is_of(chain) {
            return false;
        }
        // The trouble of a chain that is not ours ends with it: the next opener recovers it.
        let now = self.now();
        let is_durable = self.ledger.prune(&info, &now).unwrap_or(false);
        if is_durable {
            // Before the files go, which can take a while: a process that ends meanwhile leaves the chain in order.
            drop(close_chain(self.ledger, 0, true, &now));
        }
        is_durable
    }

    fn must_stop(&self) -> bool {
        self.desk.must_stop()
    }

    fn now(&self) -> Moment {
        self.desk.now()
    }
}
