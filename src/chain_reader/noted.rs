//! The noted head: what the writer of a chain last recorded about it in the chain's lock file. It is printed and
//! parsed here, side by side. docs/format.md, section 8, specifies the bytes.
//!
//! It is a witness that cannot be copied along with the log, because it names the very file that holds it.

use std::{collections::BTreeSet, io};

use crate::{
    chain::Digest,
    clock::Timestamp,
    format::{ChainId, Times, Witness},
    segment_name::ChainNumber,
    storage::{Access, Dir, File, Storage, read_full},
};

/// The size of each part of a lock file: one sector, so that a power cut leaves a part either old or new.
pub(crate) const BLOCK: usize = 512;

/// The blocks of the lock file that are slots. They are written in turn.
pub(crate) const SLOTS: [usize; 2] = [2, 3];

/// The first word of a slot of this version.
const VERSION: &str = "noted/1";

/// Digits of the hash that identifies a machine, and of the hash that ends a slot.
pub(crate) const MACHINE_DIGITS: usize = 16;
const CHECK_DIGITS: usize = 32;

/// The maximum number of chains of a log: the heads of all of them must fit a line, and the set of them a slot.
pub(crate) const MAX_CHAINS: u16 = 256;

/// A durable record of a chain, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) segment: u32,
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
    pub(crate) end: u64,
}

impl Point {
    /// The point of a chain that has no durable record.
    pub(crate) const NOWHERE: Self = Self { segment: 0, seq: 0, hash: Digest::ZERO, end: 0 };
}

/// The state in which the process that noted the head left the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotedState {
    /// The chain is being written, or was when its writer ended.
    Open,
    /// It ended with `close`.
    Closed,
    /// The chain must stay as it is. The point has the number and the length of its newest file. Its sequence number
    /// and hash are those of the head that was noted before.
    Left,
}

impl NotedState {
    const NAMED: [(Self, &'static str); 3] =
        [(Self::Open, "open"), (Self::Closed, "closed"), (Self::Left, "left")];

    fn as_str(self) -> &'static str {
        Self::NAMED.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }
}

/// The contents of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) state: NotedState,
    pub(crate) id: ChainId,
    pub(crate) point: Point,
    /// The times of the records in the segment, up to the point.
    pub(crate) times: Option<Times>,
    /// The last record that retention had removed at the point, and its hash.
    pub(crate) pruned: Option<(u64, Digest)>,
    /// Every chain that was ever witnessed.
    pub(crate) witnessed: BTreeSet<ChainNumber>,
    /// A hash of the machine's identity, shortened to a useful length.
    pub(crate) machine: String,
}

/// The identity of the file that a slot was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    inode: u64,
    /// The creation time of the file in nanoseconds since 1970; 0 if the file system does not record it.
    birth: u64,
}

impl Identity {
    /// Returns the identity of an open file.
    pub(crate) fn of(file: &dyn File) -> io::Result<Self> {
        Ok(Self { inode: file.stat()?.inode, birth: file.birth()? })
    }
}

/// The two slots of a lock file.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub(crate) noted: Option<Noted>,
    /// The counter of the newest slot, and the index of that slot.
    counter: u64,
    newest: usize,
    /// Whether one of the slots was lost: both had been written, and only one is good.
    pub(crate) is_one_lost: bool,
    /// Whether a slot names another file: the lock file was copied, or restored from a backup.
    pub(crate) is_of_another_file: bool,
}

impl Slots {
    /// Reads both slots of a lock file. A slot that is invalid or names another file is left out.
    pub(crate) fn read(file: &dyn File) -> io::Result<Self> {
        let identity = Identity::of(file)?;
        let mut slots = Self { newest: 1, ..Self::default() };
        let mut good = 0;
        for (number, block) in SLOTS.into_iter().enumerate() {
            let mut bytes = [0; BLOCK];
            let read = read_full(file, &mut bytes, (block * BLOCK) as u64)?;
            let text = bytes.get(..read).and_then(|bytes| std::str::from_utf8(bytes).ok());
            let Some((counter, of, noted)) = text.and_then(|text| parse(text.trim_end())) else { continue };
            if of != identity {
                // The lock file is a copy, so what is noted may be true only of another copy of the log.
                slots.is_of_another_file = true;
                continue;
            }
            good += 1;
            if slots.noted.is_none() || counter > slots.counter {
                (slots.counter, slots.newest, slots.noted) = (counter, number, Some(noted));
            }
        }
        // From the second write on, both slots are in use.
        slots.is_one_lost = good == 1 && slots.counter > 1;
        Ok(slots)
    }

    /// Prints the next slot; returns it with the block to write it to. The other block is left alone, so that one slot
    /// is good at any time.
    pub(crate) fn next(&self, identity: Identity, noted: &Noted) -> (usize, String) {
        // The index is 0 or 1, so the default is never used.
        let next = SLOTS.get(1 - self.newest.min(1)).copied().unwrap_or_default();
        (next, print(self.counter + 1, identity, noted))
    }

    /// Takes in that the slot printed by `next` was written.
    pub(crate) fn written(&mut self, noted: Noted) {
        self.counter += 1;
        self.newest = 1 - self.newest.min(1);
        self.noted = Some(noted);
    }
}

/// Reads what is noted of a chain, without holding its lock. Returns `None` if there is no lock file. If no slot
/// in it is valid, [`Slots::noted`] is `None`.
pub(crate) fn read_noted(storage: &dyn Storage, chain: ChainNumber) -> io::Result<Option<Slots>> {
    match storage.open(Dir::Control, &chain.lock_name(), Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => Slots::read(file?.as_ref()).map(Some),
    }
}

impl Noted {
    /// Returns the durable head of the chain, if it has one.
    pub(crate) fn head(&self) -> Option<Witness> {
        let Point { seq, hash, .. } = self.point;
        (seq > 0).then_some(Witness { id: self.id, seq, hash })
    }
}

/// Returns the hash that ends a slot with this content.
fn check_of(content: &str) -> String {
    Digest::of_body(content.as_bytes()).to_string().chars().take(CHECK_DIGITS).collect()
}

/// Prints a slot.
fn print(counter: u64, identity: Identity, noted: &Noted) -> String {
    let Noted { state, id, point, times, pruned, witnessed, machine } = noted;
    let Point { segment, seq, hash, end } = point;
    let Identity { inode, birth } = identity;
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let (from, to) = (time(times.map(|(from, _)| from)), time(times.map(|(_, to)| to)));
    let (through, removed) =
        pruned.map_or_else(|| (0, "-".to_owned()), |(through, hash)| (through, hash.to_string()));
    let machine = if machine.is_empty() { "-" } else { machine };
    let mut content = format!(
        "{VERSION} {counter} {inode} {birth} {machine} {} {id} {segment} {end} {seq} {hash} {from} {to} {through} {removed} ",
        state.as_str()
    );
    // One bit for each chain, four chains a digit, the highest chain number first.
    content.extend((0..MAX_CHAINS / 4).rev().filter_map(|digit| {
        let bit = |nth: u16| {
            let is_set = ChainNumber::new(digit * 4 + nth).is_some_and(|chain| witnessed.contains(&chain));
            u32::from(is_set) << nth
        };
        char::from_digit(bit(0) | bit(1) | bit(2) | bit(3), 16)
    }));
    let check = check_of(&content);
    content + " " + &check
}

/// Parses a slot. Returns `None` if its hash does not match or it is of another version.
fn parse(text: &str) -> Option<(u64, Identity, Noted)> {
    let (content, check) = text.rsplit_once(' ')?;
    if check != check_of(content) {
        return None;
    }
    // `VERSION` is a constant in this pattern: a slot of another version does not match.
    let words: Vec<&str> = content.split(' ').collect();
    let [
        VERSION,
        counter,
        inode,
        birth,
        machine,
        state,
        id,
        segment,
        end,
        seq,
        hash,
        from,
        to,
        through,
        removed,
        witnessed,
    ] = words.as_slice()
    else {
        return None;
    };
    let digest = |text: &str| Digest::from_hex(text.as_bytes());
    let times = Timestamp::parse(from.as_bytes()).zip(Timestamp::parse(to.as_bytes()));
    let through: u64 = through.parse().ok()?;
    let mut chains = BTreeSet::new();
    for (number, digit) in (0_u16..).zip(witnessed.chars().rev()) {
        let bits = digit.to_digit(16)?;
        let set = (0..4_u16).filter(|nth| bits >> nth & 1 == 1);
        chains.extend(set.filter_map(|nth| ChainNumber::new(number * 4 + nth)));
    }
    let noted = Noted {
        state: NotedState::parse(state)?,
        id: ChainId::parse(id)?,
        point: Point {
            segment: segment.parse().ok()?,
            seq: seq.parse().ok()?,
            hash: digest(hash)?,
            end: end.parse().ok()?,
        },
        times,
        pruned: if through > 0 { Some((through, digest(removed)?)) } else { None },
        witnessed: chains,
        machine: (*machine).to_owned(),
    };
    let identity = Identity { inode: inode.parse().ok()?, birth: birth.parse().ok()? };
    Some((counter.parse().ok()?, identity, noted))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::storage::sim::SimDisk;

    fn noted(seq: u64) -> Noted {
        let chain = |number| ChainNumber::new(number).unwrap();
        let at = |second| Timestamp::from_unix(second, 7);
        Noted {
            state: NotedState::Open,
            id: ChainId(u128::MAX - 5),
            point: Point { segment: 99_999_999, seq, hash: Digest::of_body(b"x"), end: u64::MAX },
            times: Some((at(5), at(9))),
            pruned: Some((u64::MAX, Digest::of_body(b"y"))),
            witnessed: BTreeSet::from([chain(0), chain(3), chain(4), chain(255)]),
            machine: "0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn the_longest_slot_fits_a_sector_and_parses_back() {
        let identity = Identity { inode: u64::MAX, birth: 9_999_999_999_999_999_999 };
        for noted in [
            noted(u64::MAX),
            Noted { state: NotedState::Left, times: None, pruned: None, ..noted(1) },
            Noted {
                state: NotedState::Closed,
                witnessed: BTreeSet::new(),
                machine: "-".to_owned(),
                ..noted(0)
            },
        ] {
            let text = print(u64::MAX, identity, &noted);
            assert!(text.len() < BLOCK, "{}", text.len());
            assert_eq!(parse(&text), Some((u64::MAX, identity, noted)));
        }
    }

    #[test]
    fn the_slot_in_the_document_parses_and_prints_unchanged() {
        let document = include_str!("../../docs/format.md");
        let slot = document.split_once("<!-- slot -->").unwrap().1.lines().nth(2).unwrap();
        let (counter, identity, noted) = parse(slot).unwrap();
        assert_eq!(print(counter, identity, &noted), slot);
        assert_eq!((counter, identity), (7, Identity { inode: 1311, birth: 1_795_248_000_000_000_000 }));
        let vector = document.split_once("<!-- vector -->").unwrap().1;
        let lines: Vec<&str> = vector.lines().skip(2).take_while(|line| line.starts_with('{')).collect();
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        let head = noted.head().unwrap();
        assert_eq!((noted.state, noted.point.end, head.seq), (NotedState::Closed, bytes as u64, 5));
        assert!(lines[4].ends_with(&format!("\"_hash\":\"{}\"}}", head.hash)));
        assert!(lines[0].contains(&format!("\"id\":\"{}\"", head.id)));
        assert_eq!(noted.witnessed.iter().map(|chain| chain.get()).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_torn_slot_is_invalid() {
        let identity = Identity { inode: 5, birth: 0 };
        let (before, after) = (print(1, identity, &noted(7)), print(3, identity, &noted(8)));
        for end in 1..after.len() {
            let torn = format!("{}{}", &after[..end], &before[end..]);
            assert!(torn == before || parse(&torn).is_none(), "{end}");
        }
        assert_eq!(parse(&after.replace("noted/1", "noted/2")), None);
    }

    #[test]
    fn slots_are_written_in_turn_and_the_newest_good_one_of_the_same_file_holds() {
        let name = ChainNumber::FIRST.lock_name();
        let disk =
            SimDisk::with_files(1, &BTreeMap::from([(format!("control/{name}"), vec![b' '; 4 * BLOCK])]));
        let storage = disk.process().storage();
        let file = storage.open(Dir::Control, &name, Access::Lock).unwrap();
        let identity = Identity::of(file.as_ref()).unwrap();
        let mut slots = Slots::read(file.as_ref()).unwrap();
        assert_eq!((slots.noted.clone(), slots.is_of_another_file), (None, false));
        let mut blocks = Vec::new();
        for seq in 1..=3 {
            let (block, text) = slots.next(identity, &noted(seq));
            file.write_at(format!("{text:<BLOCK$}").as_bytes(), (block * BLOCK) as u64).unwrap();
            slots.written(noted(seq));
            blocks.push(block);
            assert_eq!(Slots::read(file.as_ref()).unwrap().noted, Some(noted(seq)));
        }
        assert_eq!(blocks, [2, 3, 2]);
        // The newest slot is torn, so the one before it holds.
        file.write_at(b"x", (2 * BLOCK + 20) as u64).unwrap();
        assert_eq!(Slots::read(file.as_ref()).unwrap().noted, Some(noted(2)));
        // A copy of the lock file is another file.
        let bytes = disk.contents(&format!("control/{name}")).unwrap();
        disk.replace(&format!("control/{name}"), &bytes);
        let copied = read_noted(storage.as_ref(), ChainNumber::FIRST).unwrap().unwrap();
        assert_eq!((copied.noted, copied.is_of_another_file), (None, true));
        assert!(read_noted(storage.as_ref(), ChainNumber::new(1).unwrap()).unwrap().is_none());
    }
}
