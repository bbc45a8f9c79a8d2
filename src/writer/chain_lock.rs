//! The lock of a chain, and what its file says of the chain's last segment.

use std::{cell::Cell, collections::BTreeMap, io, sync::Arc};

use super::segment::CLOSED;
use crate::{
    chain::Digest,
    chain_reader::{BLOCK, Identity, Noted, Point, SLOTS, Slots},
    clock::Timestamp,
    segment_name::ChainNumber,
    storage::{Access, Dir, File, LockKind, Stat, Storage, is_closed_under_us, read_full},
};

/// How many blocks have a place of their own; behind them stands what was named of other chains.
const BLOCKS: u64 = 4;

/// How the text behind the blocks begins, and how long it can be.
const NAMED: &str = "named/1";
const MAX_NAMED: usize = 16 << 10;

/// What the first block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LockState {
    /// Nothing in particular.
    Clean,
    /// A write or sync of this segment failed under this boot: its pages lie, and the chain goes
    /// on after exactly this point in a new segment.
    Poison { boot: String, point: Point },
    /// The last segment could not be synced at open under this boot: nothing of it may be decided.
    Unsynced { boot: String },
}

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// When it took the lock.
    pub(super) since: Option<Timestamp>,
}

/// What a chain said of another chain last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastNamed {
    /// The head that it named.
    pub(super) seq: u64,
    /// The record of its own that did so.
    pub(super) at: u64,
}

/// A held lock. Dropping it lets go of the chain, unless its file could not be made to say that a segment
/// lies: then nobody may take the chain while this process lives, and the file stays open and locked.
#[derive(Debug)]
pub(super) struct ChainLock {
    pub(super) chain: ChainNumber,
    file: Arc<dyn File>,
    /// Whether an entry that somebody else must read could not be written.
    unsaid: Cell<bool>,
    stat: Stat,
    identity: Identity,
    pub(super) slots: Slots,
    /// Whether there was no lock file before.
    pub(super) is_new: bool,
    storage: Arc<dyn Storage>,
}

/// What came of trying to lock a chain.
#[derive(Debug)]
pub(super) enum Tried {
    Taken(Box<ChainLock>),
    HeldBy(Option<Holder>),
}

impl ChainLock {
    /// Tries once to take the lock of a chain. With a time, whoever finds it held knows since when.
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
        // Somebody may have replaced the file between opening and locking it: then two could hold
        // "the" lock. The file itself is never removed by us.
        if !storage.stat(Dir::Control, &name)?.is_some_and(|named| named.is_same_file(&stat)) {
            return Ok(Tried::HeldBy(None));
        }
        let lock = Self {
            chain,
            identity: Identity::of(file.as_ref())?,
            slots: Slots::read(file.as_ref())?,
            file,
            unsaid: Cell::new(false),
            stat,
            is_new: stat.bytes == 0,
            storage: Arc::clone(storage),
        };
        if stat.bytes < 2 * BLOCK as u64 {
            // The blocks are filled now, so that they can be written when the disk is full.
            lock.write(&LockState::Clean)?;
        }
        let since = now.map(|now| format!(" {now}")).unwrap_or_default();
        lock.write_block(1, &format!("pid {}{since}", storage.process_id()))?;
        if stat.bytes < BLOCKS * BLOCK as u64 {
            // The version before had no slots.
            SLOTS.into_iter().try_for_each(|slot| lock.write_block(slot, ""))?;
            lock.file.sync_all()?;
            storage.sync_dir(Dir::Control)?;
        }
        Ok(Tried::Taken(Box::new(lock)))
    }

    /// Whether the program has closed the descriptor, and let go of the lock with it.
    pub(super) fn is_closed(&self) -> bool {
        self.file.stat().is_err_and(|error| is_closed_under_us(&error))
    }

    /// How the lock was lost, if it was: nothing keeps others out then.
    pub(super) fn loss(&self) -> io::Result<Option<&'static str>> {
        let open = match self.file.stat() {
            // Whoever closes a file lets go of its lock.
            Err(error) if is_closed_under_us(&error) => return Ok(Some(CLOSED)),
            open => open?,
        };
        let is_named = match self.storage.stat(Dir::Control, &self.chain.lock_name()) {
            // Who became another user may not look there. What was removed has no link.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open.links > 0,
            named => named?.is_some_and(|named| named.is_same_file(&self.stat)),
        };
        Ok((!is_named).then_some("was removed or replaced"))
    }

    /// Lets go of the chain now, whoever else may still look at the lock.
    pub(super) fn release(&self) {
        if self.unsaid.get() {
            return;
        }
        // Closing the file lets go too; this is for a copy that a forked child may hold open.
        drop(self.file.unlock());
    }

    pub(super) fn read(&self) -> io::Result<LockState> {
        let text = read_block(self.file.as_ref(), 0)?;
        Ok(parse(&text).unwrap_or(LockState::Clean))
    }

    /// Writes an entry in place and makes it durable.
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
        self.unsaid.set(written.is_err() && *entry != LockState::Clean);
        written?;
        self.file.sync_data()
    }

    /// Notes the durable head of the chain, in the slot that does not hold the last one, and makes it durable.
    pub(super) fn note(&mut self, noted: Noted) -> io::Result<()> {
        let (block, text) = self.slots.next(self.identity, &noted);
        self.write_block(block, &text)?;
        self.file.sync_data()?;
        self.slots.written(noted);
        Ok(())
    }

    /// Writes down what was named of other chains, for the next run. Where that is torn, it names them all again.
    pub(super) fn write_named(&self, named: &BTreeMap<ChainNumber, LastNamed>) -> io::Result<()> {
        let entries = named.iter().map(|(chain, LastNamed { seq, at })| format!(" {chain}:{seq}:{at}"));
        let said: String = entries.collect();
        let text = format!("{NAMED} {}{said}\n", Digest::of_body(said.as_bytes()));
        self.write_all(text.as_bytes(), BLOCKS * BLOCK as u64)
    }

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
        if self.unsaid.get() {
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
    // Where an entry was not written to its end, one before it may stand behind.
    let boot = rest.split(' ').next().unwrap_or_default();
    match kind {
        "unsynced" => Some(LockState::Unsynced { boot: boot.to_owned() }),
        // That something failed is known then, and not how far the chain had come.
        "poison" => Some(match parse_point(rest) {
            Some(point) => LockState::Poison { boot: boot.to_owned(), point },
            None => LockState::Unsynced { boot: boot.to_owned() },
        }),
        _ => None,
    }
}

/// Reads what stands behind the first word, if all of it was written by one process at one time.
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

    /// A process was killed when a part of the entry was written. What could not be read was taken for
    /// a clean lock, and the segment that lied was trusted; where the last number was cut, the chain was left
    /// alone as damaged. Found by seeds 101,883 and 201,474. Where the rest of an entry of an earlier boot
    /// stood behind the new boot id, that was believed of this boot. Found by seed 5,167,075.
    #[test]
    fn an_entry_that_was_not_written_to_its_end_still_says_that_something_failed() {
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
                        // What follows belongs to the boot id then: as if nothing had been written.
                        continue;
                    }
                    let expected = match torn.trim_end() {
                        all if all == text => &entry,
                        // The part that was written stood there already.
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
    fn an_entry_is_written_where_it_belongs_however_little_a_write_takes() {
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
    fn what_was_named_is_known_again_or_nothing_is() {
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
