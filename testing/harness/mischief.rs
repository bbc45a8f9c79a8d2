//! Changes to the clock, the files and the processes of a run, made from outside.

use std::{collections::BTreeMap, time::Duration};

use super::{oracle, run::Run, world::Producer};
use crate::{
    segment_name::SegmentName,
    storage::sim::{Applied, Errno},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sealed segments, by name.
pub(super) type Sealed = BTreeMap<String, Vec<u8>>;

impl Run {
    /// Disturbs a run while processes write.
    pub(super) fn make_mischief(&mut self, index: usize) {
        if self.promises_nothing == Some("somebody changes the files") && self.prng.chance(700) {
            return self.change_a_file();
        }
        match self.prng.below(12) {
            0..=3 => self.set_the_clock(),
            4 => self.world.advance(if self.prng.chance(500) { HOUR } else { DAY + HOUR }),
            5 | 6 => {
                let child = self.nodes[index].process.fork();
                self.forks.push(child);
            }
            7 | 8 => self.fail_to_write_back(index),
            9 => self.world.disk.set_free_bytes(self.prng.below(6000)),
            _ => self.take_the_lock_away(),
        }
    }

    /// Disturbs a run while no process runs.
    pub(super) fn make_mischief_at_rest(&mut self) {
        if !self.nodes.is_empty() || !self.forks.is_empty() {
            return;
        }
        if self.promises_nothing == Some("somebody changes the files") {
            self.change_a_file();
        }
        if !self.settings.writer.retention.is_off() {
            self.remember_what_is_sealed();
        }
        let files = self.world.disk.snapshot();
        if self.prng.chance(100) {
            // A file without a good line counts nothing, so it may be missing.
            for (name, bytes) in &files {
                if SegmentName::parse(name).is_some() && oracle::has_no_good_line(bytes) {
                    self.world.disk.remove_behind_back(name);
                }
            }
        }
        if self.prng.chance(50) {
            // A lock file without an entry can be created again.
            let is_lock = |name: &str| name.starts_with("control/chain-");
            let locks = files.iter().filter(|(name, bytes)| is_lock(name) && bytes.starts_with(b"clean"));
            for (name, _) in locks {
                self.world.disk.remove_behind_back(name);
            }
        }
    }

    fn set_the_clock(&mut self) {
        let by = [Duration::from_secs(1), Duration::from_millis(1500), HOUR, DAY][self.prng.below(4)];
        if self.prng.chance(500) {
            self.world.step_wall_clock(by);
        } else {
            self.world.step_wall_clock_back(by);
        }
    }

    /// Fails the kernel's own writeback of the live segment. The next sync reports it.
    fn fail_to_write_back(&mut self, index: usize) {
        let Some(head) = self.nodes[index].queue.gauges.head() else { return };
        let files = self.world.disk.snapshot();
        let names = files.keys().filter_map(|name| SegmentName::parse(name));
        if let Some(newest) = names.filter(|name| name.chain.get() == head.chain()).max() {
            self.world.disk.fail_writeback(&newest.to_string(), Errno::IO);
        }
    }

    /// Removes the lock of the only writer, or closes it along with everything else that the writer
    /// has open. The writer detects that within 100 ms. Until then nothing keeps another writer
    /// out, so none is started.
    fn take_the_lock_away(&mut self) {
        let alone = self.nodes.len() == 1 && self.forks.is_empty() && !self.nodes[0].is_failing();
        let Some(head) = self.nodes[0].queue.gauges.head().filter(|_| alone) else { return };
        let name = format!("control/chain-{:03}.lock", head.chain());
        if !self.world.disk.contents(&name).is_some_and(|lock| lock.starts_with(b"clean")) {
            return;
        }
        self.repair();
        self.lost_a_lock = true;
        if self.prng.chance(500) {
            self.world.disk.remove_behind_back(&name);
        } else {
            self.nodes[0].process.close_descriptors();
        }
        self.world.advance(Duration::from_millis(150));
        self.nodes[0].routine(&mut self.world);
        self.nodes[0].pump(&mut self.world);
        let node = &self.nodes[0];
        let made_again = self.world.disk.contents(&name).is_some();
        let moved = node.queue.gauges.head().is_some_and(|now| now.chain() != head.chain());
        let accepted =
            |producer: &Producer| producer.emissions.last().is_some_and(|last| last.ticket.is_some());
        let had_to_look = accepted(&self.world.producers[node.producer]);
        assert!(moved || made_again || node.is_failing() || !had_to_look, "a lost lock is not noticed");
    }

    /// Keeps copies of the segments that retention may remove.
    fn remember_what_is_sealed(&mut self) {
        let files = self.world.disk.snapshot();
        let Ok(chains) = oracle::read_log(&files) else { return };
        for (number, chain) in &chains {
            let Some((_, sealed)) = chain.segments.split_last() else { continue };
            for segment in sealed {
                let name = format!("audit-{number:03}-{segment:08}.jsonl");
                if let Some(bytes) = files.get(&name) {
                    self.sealed.insert(name, bytes.clone());
                }
            }
        }
    }

    /// Restores removed files, as a power cut can undo a removal. Sometimes later than a disk
    /// could.
    pub(super) fn bring_back_what_was_pruned(&mut self) {
        if self.sealed.is_empty() || !self.prng.chance(300) {
            return;
        }
        let files = self.world.disk.snapshot();
        let Ok(chains) = oracle::read_log(&files) else { return };
        for (name, bytes) in &self.sealed {
            let chain = SegmentName::parse(name).and_then(|name| chains.get(&name.chain.get()));
            let last = oracle::last_good_record(bytes);
            let was_pruned = chain.zip(last).is_some_and(|(chain, last)| last <= chain.pruned);
            if was_pruned && !files.contains_key(name) {
                self.world.disk.replace(name, bytes);
            }
        }
    }

    /// Changes a file, as somebody with write access to the directory could.
    fn change_a_file(&mut self) {
        let disk = self.world.disk.clone();
        let files: Vec<(String, Vec<u8>)> = disk.snapshot().into_iter().collect();
        let Some((name, bytes)) = files.get(self.prng.below(files.len())) else { return };
        let offset = self.prng.below(bytes.len());
        match self.prng.below(12) {
            0 | 1 => drop(disk.remove_behind_back(name)),
            2 => drop(disk.truncate(name, offset)),
            3 => disk.replace(name, &bytes[..offset]),
            4 | 5 => drop(disk.flip_bit(name, offset, 3)),
            6 => drop(disk.append_foreign(name, b"{\"seq\":1}\n")),
            7 => {
                let other = self.prng.below(files.len());
                disk.replace(name, &files[other].1);
            }
            8 => disk.put_symlink(name),
            9 => disk.remove_directory(),
            10 => disk.move_directory_away(),
            _ => disk.cut_power_at(1 + self.prng.next() % 40, Applied::Seeded),
        }
    }
}
