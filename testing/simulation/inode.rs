//! A simulated file: what the page cache shows, what is durable, and what is in between.

use std::{collections::BTreeMap, mem, ops::Range};

use rustix::io::Errno;

use super::prng::Prng;
use crate::error::InsecureReason;

/// The unit in which a disk writes. After a power cut, each sector survives or not on its own.
pub(super) const SECTOR: usize = 512;

/// The kind of file behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Nature {
    #[default]
    Regular,
    Symlink,
    /// A regular file that the disk would refuse to write to, and the reason.
    Insecure(InsecureReason),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) nature: Nature,
    /// What every process reads.
    cache: Vec<u8>,
    /// What is on the medium. May be longer than `durable_len`.
    durable: Vec<u8>,
    durable_len: usize,
    /// By sector, the writes that no sync has covered, oldest first.
    unsynced: BTreeMap<usize, Vec<Patch>>,
    /// By sector, the ranges that a failed sync marked clean although they never reached the
    /// medium.
    lost: BTreeMap<usize, Vec<Range<usize>>>,
    /// The lengths since the last sync, each with the moment of the write.
    lengths: Vec<(u64, usize)>,
    /// How often writeback failed.
    failures: u64,
    last_failure: Option<Errno>,
    /// Whether any sync has returned the last error.
    failure_was_reported: bool,
}

/// A part of one write, within one sector.
#[derive(Debug, Clone)]
struct Patch {
    moment: u64,
    offset: usize,
    bytes: Vec<u8>,
}

impl Patch {
    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes.len()
    }
}

impl Inode {
    pub(super) fn with_nature(nature: Nature) -> Self {
        Self { nature, ..Self::default() }
    }

    /// Creates a file that is completely durable.
    pub(super) fn with_bytes(bytes: &[u8]) -> Self {
        let mut inode = Self::default();
        inode.rewrite(bytes);
        inode
    }

    pub(super) fn cache(&self) -> &[u8] {
        &self.cache
    }

    pub(super) fn durable(&self) -> &[u8] {
        self.durable.get(..self.durable_len).unwrap_or(&self.durable)
    }

    /// Writes to the page cache. Nothing of this is durable yet.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8], moment: u64) {
        let end = offset + bytes.len();
        if end > self.cache.len() {
            // A file system writes the length separately from the bytes, so it has its own history.
            self.lengths.push((moment, end));
        }
        put(&mut self.cache, offset, bytes);
        for (sector, range) in by_sector(offset..end) {
            let patches = self.unsynced.entry(sector).or_default();
            // Writing to a page makes all of it dirty again, so what was lost gets another chance.
            let revived = self.lost.remove(&sector).unwrap_or_default();
            patches.extend(revived.into_iter().chain([range]).map(|range| Patch {
                moment,
                offset: range.start,
                bytes: self.cache.get(range).unwrap_or_default().to_vec(),
            }));
        }
    }

    /// Syncs successfully: everything written up to `until` is durable.
    pub(super) fn sync(&mut self, until: u64) {
        for patch in self.take_unsynced(until).into_values().flatten() {
            put(&mut self.durable, patch.offset, &patch.bytes);
        }
        let covered = self.lengths.iter().take_while(|(moment, _)| *moment <= until).count();
        if let Some((_, length)) = self.lengths.drain(..covered).next_back() {
            self.durable_len = length;
        }
        let length = self.durable.len().max(self.durable_len);
        self.durable.resize(length, 0);
    }

    /// Fails a sync or a writeback by the kernel, as ext4 and XFS do. Afterwards the pages are
    /// clean whether they reached the medium or not, and at least one did not.
    pub(super) fn fail_to_sync(&mut self, until: u64, forget_lengths: bool, prng: &mut Prng) {
        let taken = self.take_unsynced(until);
        // A failed sync of which everything arrived would test nothing.
        let surely_lost = prng.below(taken.len());
        let some_arrive = prng.chance(500);
        for (nth, (sector, patches)) in taken.into_iter().enumerate() {
            if nth != surely_lost && some_arrive && prng.chance(500) {
                for patch in patches {
                    put(&mut self.durable, patch.offset, &patch.bytes);
                }
            } else {
                self.lost.entry(sector).or_default().extend(patches.iter().map(Patch::range));
            }
        }
        if forget_lengths {
            self.lengths.retain(|(moment, _)| *moment > until);
        }
    }

    /// Fails a sync as btrfs does: the page cache shows the old bytes again.
    pub(super) fn revert(&mut self) {
        self.unsynced.clear();
        self.lost.clear();
        self.lengths.clear();
        self.cache = self.durable().to_vec();
    }

    /// Notes a writeback error, which every open file reports once.
    pub(super) fn note_failure(&mut self, errno: Errno) {
        self.failures += 1;
        self.last_failure = Some(errno);
        self.failure_was_reported = false;
    }

    /// Returns how many failures a file opened now counts as reported. A failure that no sync has
    /// reported yet is still reported to it.
    pub(super) fn failures_reported_at_open(&self) -> u64 {
        if self.failure_was_reported { self.failures } else { self.failures.saturating_sub(1) }
    }

    /// Returns the error that an open file has not reported yet, and counts it as reported.
    pub(super) fn take_failure(&mut self, reported: &mut u64) -> Option<Errno> {
        if mem::replace(reported, self.failures) == self.failures {
            return None;
        }
        self.failure_was_reported = true;
        self.last_failure
    }

    /// Applies a power cut.
    pub(super) fn cut_power(&mut self, prng: &mut Prng) {
        let before = mem::take(&mut self.cache);
        // Often all sectors or none arrive. Otherwise each has its own fate.
        let common = match prng.below(4) {
            0 => Some(Fate::Kept),
            1 => Some(Fate::Dropped),
            _ => None,
        };
        for patches in mem::take(&mut self.unsynced).into_values() {
            let fate = common.unwrap_or_else(|| Fate::draw(prng));
            fate.befall(&patches, &mut self.durable, &before, prng);
        }
        self.durable_len = self.length_after_cut(prng);
        self.durable.resize(self.durable_len, 0);
        *self = Self {
            nature: self.nature,
            cache: self.durable.clone(),
            durable: mem::take(&mut self.durable),
            durable_len: self.durable_len,
            ..Self::default()
        };
    }

    /// Draws the length after a power cut. It is written separately, before or after the bytes.
    fn length_after_cut(&self, prng: &mut Prng) -> usize {
        let Some(&(_, newest)) = self.lengths.last() else { return self.durable_len };
        match prng.below(5) {
            0 => self.durable_len,
            1 => self.lengths.get(prng.below(self.lengths.len())).map_or(newest, |(_, length)| *length),
            2 => {
                let (low, high) = (self.durable_len.min(newest), self.durable_len.max(newest));
                low + prng.below(high - low + 1)
            }
            _ => newest,
        }
    }

    /// Replaces the contents, durable at once.
    pub(super) fn rewrite(&mut self, bytes: &[u8]) {
        *self = Self {
            nature: self.nature,
            cache: bytes.to_vec(),
            durable: bytes.to_vec(),
            durable_len: bytes.len(),
            failures: self.failures,
            last_failure: self.last_failure,
            failure_was_reported: self.failure_was_reported,
            ..Self::default()
        };
    }

    /// Flips a bit everywhere the byte is kept. Returns false if the file is too short.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u8) -> bool {
        let mask = 1 << (bit % 8);
        let Some(byte) = self.cache.get_mut(offset) else { return false };
        *byte ^= mask;
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        for patch in self.unsynced.get_mut(&(offset / SECTOR)).into_iter().flatten() {
            let within = offset.checked_sub(patch.offset);
            if let Some(byte) = within.and_then(|within| patch.bytes.get_mut(within)) {
                *byte ^= mask;
            }
        }
        true
    }

    /// Takes the writes up to `until` out of those that are not synced.
    fn take_unsynced(&mut self, until: u64) -> BTreeMap<usize, Vec<Patch>> {
        let mut taken = BTreeMap::new();
        self.unsynced.retain(|sector, patches| {
            let covered = patches.iter().take_while(|patch| patch.moment <= until).count();
            if covered > 0 {
                taken.insert(*sector, patches.drain(..covered).collect());
            }
            !patches.is_empty()
        });
        taken
    }
}

/// What happens to the unsynced writes of one sector in a power cut. Bytes that were not written
/// keep their value: without that assumption, nothing could ever be appended to a file.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Kept,
    /// The old contents, or a hole if there were none.
    Dropped,
    /// The first writes arrive, the later ones do not.
    FirstOnes,
    Zeroed,
    Scrambled,
    /// Bytes from elsewhere, as in blocks that belonged to another file.
    Stale,
}

impl Fate {
    fn draw(prng: &mut Prng) -> Self {
        match prng.below(10) {
            0..=2 => Self::Kept,
            3..=5 => Self::Dropped,
            6 => Self::FirstOnes,
            7 => Self::Zeroed,
            8 => Self::Scrambled,
            _ => Self::Stale,
        }
    }

    fn befall(self, patches: &[Patch], durable: &mut Vec<u8>, elsewhere: &[u8], prng: &mut Prng) {
        let arriving = match self {
            Self::Dropped => 0,
            Self::FirstOnes => prng.below(patches.len() + 1),
            _ => patches.len(),
        };
        for patch in patches.iter().take(arriving) {
            let mut bytes = patch.bytes.clone();
            match self {
                Self::Kept | Self::Dropped | Self::FirstOnes => {}
                Self::Zeroed => bytes.fill(0),
                Self::Scrambled => prng.fill(&mut bytes),
                Self::Stale => {
                    let from = prng.below(elsewhere.len());
                    let stale = elsewhere.iter().skip(from).chain([&0].into_iter().cycle());
                    bytes.iter_mut().zip(stale).for_each(|(byte, stale)| *byte = *stale);
                }
            }
            put(durable, patch.offset, &bytes);
        }
    }
}

/// Writes into a vector, and fills a gap before it with zeros.
fn put(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if end > target.len() {
        target.resize(end, 0);
    }
    if let Some(place) = target.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Splits a range by sector, and returns each part with its sector.
fn by_sector(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let first = range.start / SECTOR;
    (first..range.end.div_ceil(SECTOR))
        .map(move |sector| (sector, range.start.max(sector * SECTOR)..range.end.min((sector + 1) * SECTOR)))
}
