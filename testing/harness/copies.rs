//! Copies of a log: they are verified and opened. In a clone of the machine, a whole segment is
//! destroyed and restored.

use std::collections::BTreeMap;

use super::{Failure, oracle, run::Run, world::World};
use crate::{
    chain_reader::{NotedState, read_noted},
    segment_name::{ChainNumber, SegmentName},
    storage::sim::SimDisk,
    verdict::Verdict,
};

/// A way in which a tool, or a fault, destroys the contents of a file.
type Way = fn(&[u8]) -> Vec<u8>;

const WAYS: [Way; 4] = [
    // Line ends were converted.
    |bytes| String::from_utf8_lossy(bytes).replace('\n', "\r\n").into_bytes(),
    // Zeros.
    |bytes| vec![0; bytes.len()],
    // Nothing is left.
    |_| Vec::new(),
    // Each line is text, but not a record.
    |bytes| String::from_utf8_lossy(bytes).replace("\"seq\"", "\"SEQ\"").into_bytes(),
];

impl Run {
    /// Copies the log, or destroys a part of a clone of it.
    pub(super) fn try_copies(&mut self) -> Result<(), Failure> {
        if self.promises_nothing.is_some() {
            return Ok(());
        }
        if self.copies.chance(300) {
            self.copy_the_files()?;
        }
        if self.copies.chance(300) && self.nodes.is_empty() {
            self.destroy_a_segment()?;
        }
        Ok(())
    }

    /// Copies all files at one moment, with or without `control`. The copy must not count as
    /// damaged, and it must open.
    fn copy_the_files(&mut self) -> Result<(), Failure> {
        let mut files = self.world.disk.snapshot();
        if self.copies.chance(500) {
            files.retain(|name, _| !name.starts_with("control"));
        }
        if !files.keys().any(|name| SegmentName::parse(name).is_some()) {
            return Ok(());
        }
        let seed = self.copies.next();
        let mut copy = self.world_on(SimDisk::with_files(seed, &files));
        must_not_be_damaged(&copy, "a copy")?;
        self.open_and_close(&mut copy, |found| {
            if found.damaged { Err(Failure::FalseAlarm(format!("a copy: {found:?}"))) } else { Ok(()) }
        })?;
        must_not_be_damaged(&copy, "a copy that was opened")
    }

    /// Destroys, in a clone of the machine, the whole segment of a noted head. That must count as
    /// damage before and after the log is opened, also in a copy without `control`. Once the
    /// segment is restored, the chain continues.
    fn destroy_a_segment(&mut self) -> Result<(), Failure> {
        let mut clone = self.world_on(self.world.disk.copy());
        let storage = clone.disk.process().storage();
        let noted = ChainNumber::all().take(8).filter_map(|chain| {
            let noted = read_noted(storage.as_ref(), chain).ok()??.noted?;
            let name = SegmentName { chain, segment: noted.point.segment }.to_string();
            (noted.point.seq > 0 && noted.state != NotedState::Left).then_some((chain, name))
        });
        // If a newer segment is good, the chain continues behind that, and only verification looks
        // back.
        let files = clone.disk.snapshot();
        let is_newest = |chain: ChainNumber, name: &str| {
            let newer = files.iter().filter(|(newer, _)| newer.as_str() > name);
            let mut of_chain = newer
                .filter(|(newer, _)| SegmentName::parse(newer).is_some_and(|newer| newer.chain == chain));
            files.contains_key(name) && of_chain.all(|(_, bytes)| oracle::has_no_good_line(bytes))
        };
        let noted: Vec<_> = noted.filter(|(chain, name)| is_newest(*chain, name)).collect();
        drop(storage);
        let Some((chain, name)) = noted.get(self.copies.below(noted.len().max(1))).cloned() else {
            return Ok(());
        };
        let whole = clone.disk.contents(&name).unwrap_or_default();
        let destroy = WAYS[self.copies.below(WAYS.len())];
        clone.disk.overwrite(&name, &destroy(&whole));
        let what = format!("{name} was destroyed");
        must_be_damaged(&clone.disk, &what)?;
        self.open_and_close(&mut clone, |found| {
            let is_seen = found.chain != chain.get() || found.left_alone || found.damaged;
            if is_seen {
                Ok(())
            } else {
                Err(Failure::Other(format!("{what}, and is gone on with: {found:?}")))
            }
        })?;
        must_be_damaged(&clone.disk, &format!("{what}, and the log opened"))?;
        let files = clone.disk.snapshot();
        let files: BTreeMap<_, _> =
            files.into_iter().filter(|(name, _)| !name.starts_with("control")).collect();
        must_be_damaged(&SimDisk::with_files(1, &files), &format!("{what}, in a copy without control"))?;
        clone.disk.overwrite(&name, &whole);
        must_not_be_damaged(&clone, "a segment was put back")?;
        self.open_and_close(&mut clone, |found| {
            if found.damaged { Err(Failure::FalseAlarm(format!("put back: {found:?}"))) } else { Ok(()) }
        })?;
        must_not_be_damaged(&clone, "a segment was put back, and the log opened")
    }

    fn world_on(&self, disk: SimDisk) -> World {
        let mut world = World::on(disk);
        world.now = self.world.now;
        world
    }

    fn open_and_close(
        &self,
        world: &mut World,
        check: impl Fn(&crate::ChainRecovery) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut settings = self.settings.clone();
        settings.writer.exclusive = false;
        // Segments that it removed could not be restored.
        settings.writer.retention = crate::Retention::keep_all();
        let mut node = world.open(&settings).map_err(|error| format!("cannot open a copy: {error}"))?;
        node.found.iter().try_for_each(check)?;
        node.critical(world);
        node.close(world);
        Ok(())
    }
}

fn must_be_damaged(disk: &SimDisk, what: &str) -> Result<(), Failure> {
    match oracle::verdict_of(disk) {
        Some(Verdict::Damaged) | None => Ok(()),
        Some(verdict) => Err(Failure::Other(format!("{what}, and the log is {verdict:?}"))),
    }
}

fn must_not_be_damaged(world: &World, what: &str) -> Result<(), Failure> {
    match oracle::verify_as_it_is(world) {
        Err(Failure::FalseAlarm(report)) => Err(Failure::FalseAlarm(format!("{what}: {report}"))),
        verified => verified.map(|_| ()),
    }
}
