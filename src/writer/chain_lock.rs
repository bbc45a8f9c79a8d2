//! The lock of a chain, and the state of the chain's last segment, kept in the lock file.
//!
//! The lock is `flock(2)` on the open file, held exclusively by the one process that may append to
//! the chain. The kernel releases it when the descriptor and all copies of it are closed, so a
//! crash never leaves a stale lock. The blocks of the file are allocated once and overwritten in
//! place: a full disk must not prevent an entry from being written.

use std::{cell::Cell, collections::BTreeMap, io, sync::Arc};

use super::segment::CLOSED;
use crate::{
    chain::Digest,
    chain_reader::{BLOCK, Identity, Noted, Point, SLOTS, Slots},
    clock::Timestamp,
    segment_name::ChainNumber,
    storage::{Access, Dir, File, LockKind, Stat, Storage, is_closed_under_us, read_full},
};

/// The number of blocks at fixed offsets. The text on other chains follows behind them.
const BLOCKS: u64 = 4;

/// The first word of the text behind the blocks, and the longest text that is read.
const NAMED: &str = "named/1";
const MAX_NAMED: usize = 16 << 10;

/// The entry in the first block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LockState {
    /// Nothing is known to be wrong with the last segment.
    Clean,
    /// A write or sync of this segment failed under this boot. Its cached pages may never reach the
    /// disk, so the chain continues after exactly this point, in a new segment.
    Poison { boot: String, point: Point },
    /// The last segment could not be synced under this boot when the chain was opened. Nothing may
    /// be decided from its bytes.
    Unsynced { boot: String },
}

/// The process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// When it took the lock; `None` if that cannot be read.
    pub(super) since: Option<Timestamp>,
}

/// The last head that a chain named of another chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastNamed {
    /// The sequence number of the named head.
    pub(super) seq: u64,
    /// The sequence number of the record that named it.
    pub(super) at: u64,
}

/// A lock that is held.
///
/// Dropping it releases the chain, unless an entry about a failed segment could not be written.
/// Then the file stays open and locked for as long as the process lives, so that no other process
/// trusts that segment.
#[derive(Debug)]
pub(super) struct ChainLock {
    pub(super) chain: ChainNumber,
    file: Arc<dyn File>,
    /// Whether an entry that the next holder must read could not be written.
    has_unwritten_entry: Cell<bool>,
    stat: Stat,
    identity: Identity,
    pub(super) slots: Slots,
    /// Whether there was no lock file before.
    pub(super) is_new: bool,
    storage: Arc<dyn Storage>,
}

/// The outcome of trying to lock a chain.
#[derive(Debug)]
pub(super) enum Tried {
    Taken(Box<ChainLock>),
    HeldBy(Option<Holder>),
}

impl ChainLock {
    /// Tries once to take the lock of a chain. If `now` is given, it is written to the file, so
    /// that others can read since when the lock is held.
    pub(super) fn try_take(
        storage: &Arc<dyn Storage>,
        chain: ChainNumber,
        now: Option<Timestamp>,
    ) -> io::Result<Tried> {
        let name = chain.lock_name();
        let file: Arc<dyn File> = storage.open(Dir::Control, &name, Access::Lock)?.into();
        if !file.try_lock(LockKind::Exclusive)? {
            return Ok(Tried::HeldBy(read_holder(file.as_ref())));
        }
        let stat = file.stat()?;
        // Between open and flock(2), the file may have been replaced at its path. Then a second
        // process can hold "the" lock through the new file. This library never removes a lock file.
        if !storage.stat(Dir::Control, &name)?.is_some_and(|named| named.is_same_file(&stat)) {
            return Ok(Tried::HeldBy(None));
        }
        let lock = Self {
            chain,
            identity: Identity::of(file.as_ref())?,
            slots: Slots::read(file.as_ref())?,
            file,
            has_unwritten_entry: Cell::new(false),
            stat,
            is_new: stat.bytes == 0,
            storage: Arc::clone(storage),
        };
        if stat.bytes < 2 * BLOCK as u64 {
            // Reserve the blocks now: overwriting them later needs no space, even on a full disk.
            lock.write(&LockState::Clean)?;
        }
        // Not synced: it is for processes that find the lock held, and those share this page cache.
        let since = now.map(|now| format!(" {now}")).unwrap_or_default();
        lock.write_block(1, &format!("pid {}{since}", storage.process_id()))?;
        if stat.bytes < BLOCKS * BLOCK as u64 {
            // Files of the previous version have no slots for the noted head. From here on the lock
            // file must survive a power cut, so its bytes and its name are synced.
            SLOTS.into_iter().try_for_each(|slot| lock.write_block(slot, ""))?;
            lock.file.sync_all()?;
            storage.sync_dir(Dir::Control)?;
        }
        Ok(Tried::Taken(Box::new(lock)))
    }

    /// Returns whether the program closed the descriptor, which released the lock.
    pub(super) fn is_closed(&self) -> bool {
        self.file.stat().is_err_and(|error| is_closed_under_us(&error))
    }

    /// Returns how the lock was lost, or `None` if it is still held. Without it, nothing keeps
    /// other processes out of the chain.
    pub(super) fn loss(&self) -> io::Result<Option<&'static str>> {
        let open = match self.file.stat() {
            // Closing a file releases its lock (flock(2)).
            Err(error) if is_closed_under_us(&error) => return Ok(Some(CLOSED)),
            open => open?,
        };
        let is_named = match self.storage.stat(Dir::Control, &self.chain.lock_name()) {
            // A process that became another user may not be able to look up the path. A removed
            // file has no links.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open.links > 0,
            named => named?.is_some_and(|named| named.is_same_file(&self.stat)),
        };
        Ok((!is_named).then_some("was removed or replaced"))
    }

    /// Releases the chain now, even if another reference to this lock remains.
    pub(super) fn release(&self) {
        if self.has_unwritten_entry.get() {
            return;
        }
        // Closing the file releases the lock, too, unless a forked child has a copy of the
        // descriptor: flock(2) locks belong to the open file description. An explicit unlock
        // releases it for all copies.
        drop(self.file.unlock());
    }

    /// Reads the entry. Anything unreadable counts as clean.
    pub(super) fn read(&self) -> io::Result<LockState> {
        let text = read_block(self.file.as_ref(), 0)?;
        Ok(parse(&text).unwrap_or(LockState::Clean))
    }

    /// Overwrites the entry and makes it durable.
    pub(super) fn write(&self, entry: &LockState) -> io::Result<()> {
        let text = match entry {
            LockState::Clean => "clean".to_owned(),
            LockState::Poison { boot, point: Point { segment, seq, hash, end } } => {
                let said = format!("{boot} {segment} {seq} {hash} {end}");
                format!("poison {said} {}", Digest::of_body(said.as_bytes()))
            }
            LockState::Unsynced { boot } => format!("unsynced {boot}"),
        };
        let written = self.write_block(0, &text);
        // A later holder must not miss that the segment failed. A `clean` that could not be written
        // does no harm: the old entry stays.
        self.has_unwritten_entry.set(written.is_err() && *entry != LockState::Clean);
        written?;
        self.file.sync_data()
    }

    /// Notes the durable head of the chain and makes the note durable. Writes to the slot that does
    /// not hold the last one: if this write is torn, the last one is still there.
    pub(super) fn note(&mut self, noted: Noted) -> io::Result<()> {
        let (block, text) = self.slots.next(self.identity, &noted);
        self.write_block(block, &text)?;
        self.file.sync_data()?;
        // Only now: after a failure, the next note must overwrite this slot and not the last good
        // one.
        self.slots.written(noted);
        Ok(())
    }

    /// Writes what this chain named of other chains, for the next run. Not synced: if it is torn,
    /// the next run names them all again.
    pub(super) fn write_named(&self, named: &BTreeMap<ChainNumber, LastNamed>) -> io::Result<()> {
        let entries = named.iter().map(|(chain, LastNamed { seq, at })| format!(" {chain}:{seq}:{at}"));
        let said: String = entries.collect();
        let text = format!("{NAMED} {}{said}\n", Digest::of_body(said.as_bytes()));
        self.write_all(text.as_bytes(), BLOCKS * BLOCK as u64)
    }

    /// Reads what the last run named of other chains; empty if that was torn.
    pub(super) fn read_named(&self) -> BTreeMap<ChainNumber, LastNamed> {
        let mut bytes = vec![0; MAX_NAMED];
        let read = read_full(self.file.as_ref(), &mut bytes, BLOCKS * BLOCK as u64).unwrap_or_default();
        let text = bytes.get(..read).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.and_then(parse_named).unwrap_or_default()
    }

    fn write_block(&self, block: usize, text: &str) -> io::Result<()> {
        let bytes = format!("{text:<width$}\n", width = BLOCK - 1);
        self.write_all(bytes.as_bytes(), (block * BLOCK) as u64)
    }

    fn write_all(&self, mut rest: &[u8], mut offset: u64) -> io::Result<()> {
        while !rest.is_empty() {
            let written = self.file.write_at(rest, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let taken = rest.split_at_checked(written);
            (_, rest) = taken.ok_or_else(|| io::Error::other("a write took more than it was given"))?;
            offset += written as u64;
        }
        Ok(())
    }
}

impl Drop for ChainLock {
    fn drop(&mut self) {
        self.release();
        if self.has_unwritten_entry.get() {
            // Nothing else could warn the next holder. Kept like this, the lock is released only when
            // the process ends.
            Arc::clone(&self.file).keep();
        }
    }
}

fn read_block(file: &dyn File, block: usize) -> io::Result<String> {
    let mut bytes = [0; BLOCK];
    let read = read_full(file, &mut bytes, (block * BLOCK) as u64)?;
    let text = bytes.split_at_checked(read).ok_or_else(|| io::Error::other("a read gave more than fits"))?.0;
    Ok(String::from_utf8_lossy(text).trim_end().to_owned())
}

fn read_holder(file: &dyn File) -> Option<Holder> {
    let text = read_block(file, 1).ok()?;
    let mut words = text.strip_prefix("pid ")?.split(' ');
    let pid = words.next()?.parse().ok()?;
    Some(Holder { pid, since: words.next().and_then(|since| Timestamp::parse(since.as_bytes())) })
}

fn parse_named(text: &str) -> Option<BTreeMap<ChainNumber, LastNamed>> {
    let line = text.split_once('\n')?.0.strip_prefix(NAMED)?.strip_prefix(' ')?;
    let (check, said) = line.split_at_checked(Digest::HEX_LEN)?;
    if Digest::from_hex(check.as_bytes())? != Digest::of_body(said.as_bytes()) {
        return None;
    }
    let named = said.split_terminator(' ').skip(1).map(|entry| {
        let mut parts = entry.split(':');
        let chain = ChainNumber::parse(parts.next()?)?;
        Some((chain, LastNamed { seq: parts.next()?.parse().ok()?, at: parts.next()?.parse().ok()? }))
    });
    named.collect()
}

fn parse(text: &str) -> Option<LockState> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    // If the write was torn, the rest of an older entry may follow the boot id.
    let boot = rest.split(' ').next().unwrap_or_default();
    match kind {
        "unsynced" => Some(LockState::Unsynced { boot: boot.to_owned() }),
        // Of a torn entry it is known that something failed, but not how far the chain had come.
        "poison" => Some(match parse_point(rest) {
            Some(point) => LockState::Poison { boot: boot.to_owned(), point },
            None => LockState::Unsynced { boot: boot.to_owned() },
        }),
        _ => None,
    }
}

/// Parses what follows the first word. Returns `None` unless the checksum shows that all of it is
/// from one write.
fn parse_point(text: &str) -> Option<Point> {
    let (said, check) = text.rsplit_once(' ')?;
    if Digest::from_hex(check.as_bytes())? != Digest::of_body(said.as_bytes()) {
        return None;
    }
    let mut words = said.split(' ').skip(1);
    let [segment, seq, hash, end] = [(); 4].map(|()| words.next().unwrap_or_default());
    Some(Point {
        segment: segment.parse().ok()?,
        seq: seq.parse().ok()?,
        hash: Digest::from_hex(hash.as_bytes())?,
        end: end.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::storage::sim::{Fault, Op, SimDisk};

    fn poison(boot: &str, segment: u32, seq: u64) -> LockState {
        let hash = Digest::of_body(&seq.to_le_bytes());
        LockState::Poison { boot: boot.to_owned(), point: Point { segment, seq, hash, end: seq * 50 } }
    }

    fn text_of(entry: &LockState) -> String {
        let disk = SimDisk::new(1);
        let lock = taken(&disk);
        lock.write(entry).unwrap();
        assert_eq!(lock.read().unwrap(), *entry);
        read_block(lock.file.as_ref(), 0).unwrap()
    }

    /// A process was killed while it wrote an entry. The torn entry was taken for a clean lock, and
    /// the poisoned segment was trusted; where the last number was cut, the chain was left alone as
    /// damaged. Found by seeds 101,883 and 201,474. Where the rest of an entry from an earlier boot
    /// followed the new boot id, it was taken for an entry of this boot. Found by seed 5,167,075.
    #[test]
    fn a_torn_entry_still_shows_that_something_failed() {
        let boot = "004ed7e3-0000";
        let unsynced = LockState::Unsynced { boot: boot.to_owned() };
        for entry in [poison(boot, 3, 59), unsynced.clone()] {
            let text = text_of(&entry);
            let said = text.find(boot).unwrap() + boot.len();
            let earlier = [(3, 59), (2, 51)].map(|(segment, seq)| poison("113d60a1-0000", segment, seq));
            for before in [LockState::Clean, poison(boot, 2, 51), poison(boot, 3, 58)].iter().chain(&earlier)
            {
                let before = format!("{:<BLOCK$}", text_of(before));
                for end in said..=text.len() {
                    let torn = format!("{}{}", &text[..end], &before[end..]);
                    if end == said && !torn[end..].starts_with(' ') {
                        // The next byte would belong to the boot id, so this is as if nothing had been
                        // written.
                        continue;
                    }
                    let expected = match torn.trim_end() {
                        all if all == text => &entry,
                        // The bytes that were written equal those already there.
                        none if none == before.trim_end() => continue,
                        _ => &unsynced,
                    };
                    assert_eq!(parse(torn.trim_end()).as_ref(), Some(expected), "{torn}");
                }
            }
        }
    }

    fn taken(disk: &SimDisk) -> ChainLock {
        match ChainLock::try_take(&disk.process().storage(), ChainNumber::FIRST, Some(Timestamp::now()))
            .unwrap()
        {
            Tried::Taken(lock) => *lock,
            Tried::HeldBy(holder) => panic!("held by {holder:?}"),
        }
    }

    #[test]
    fn a_lock_file_is_filled_and_made_durable_once() {
        let name = format!("control/{}", ChainNumber::FIRST.lock_name());
        for begun in [0, 1, 600, 2 * BLOCK - 1, 2 * BLOCK, 4 * BLOCK - 1, 4 * BLOCK] {
            let disk = SimDisk::with_files(1, &BTreeMap::from([(name.clone(), vec![b' '; begun])]));
            let (is_new, is_filled) = (begun < 2 * BLOCK, begun < 4 * BLOCK);
            let lock = taken(&disk);
            let bytes = disk.contents(&name).unwrap();
            assert_eq!((bytes.len(), lock.is_new), (4 * BLOCK, begun == 0), "{begun}");
            assert_eq!(bytes.starts_with(b"clean "), is_new, "{begun}");
            let lines = 2 + usize::from(is_new) + 2 * usize::from(is_filled);
            assert_eq!(bytes.split(|byte| *byte == b'\n').count(), lines);
            let syncs = (disk.count(Op::SyncAll), disk.count(Op::SyncDir));
            assert_eq!(syncs, (is_filled.into(), is_filled.into()));
            assert_eq!(lock.read().unwrap(), LockState::Clean);
        }
    }

    #[test]
    fn an_entry_is_written_in_full_however_short_the_writes_are() {
        let disk = SimDisk::new(1);
        let lock = taken(&disk);
        disk.inject(Fault::short_write(100).and_later());
        let boot = "6f1c".to_owned();
        let point = Point { segment: 3, seq: 14, hash: Digest::ZERO, end: 762 };
        for entry in [
            LockState::Poison { boot: boot.clone(), point },
            LockState::Clean,
            LockState::Unsynced { boot },
            LockState::Unsynced { boot: String::new() },
        ] {
            lock.write(&entry).unwrap();
            assert_eq!(lock.read().unwrap(), entry);
            assert!(
                matches!(read_holder(lock.file.as_ref()), Some(holder) if holder.pid > 0 && holder.since.is_some())
            );
        }
    }

    #[test]
    fn the_names_of_other_chains_are_read_back_in_full_or_not_at_all() {
        let disk = SimDisk::new(1);
        let lock = taken(&disk);
        assert_eq!(lock.read_named(), BTreeMap::new());
        let all =
            |seq| ChainNumber::all().take(256).map(move |chain| (chain, LastNamed { seq, at: u64::MAX }));
        let named: BTreeMap<_, _> = all(u64::MAX).collect();
        lock.write_named(&named).unwrap();
        assert_eq!(lock.read_named(), named);
        lock.write_named(&all(1).take(1).collect()).unwrap();
        assert_eq!(lock.read_named(), all(1).take(1).collect());
        lock.write_named(&BTreeMap::new()).unwrap();
        assert_eq!(lock.read_named(), BTreeMap::new());
        lock.write_named(&named).unwrap();
        lock.write_all(b"9", 4 * BLOCK as u64 + 100).unwrap();
        assert_eq!(lock.read_named(), BTreeMap::new());
    }
}
