//! Which files of a chain count, and how many of their bytes: the first line of a segment states this for earlier
//! files.

use std::collections::{BTreeMap, VecDeque};

use super::first_line::{Beginning, FirstLine, open_segment};
use crate::{
    clock::Timestamp,
    error::Error,
    format::{After, ChainId, Times},
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// How many claims about rows of files that count nothing are kept at a time. An honest chain has one for each failed
/// attempt to begin a segment that its files describe.
const MAX_ROWS: usize = 4096;

/// A file of a chain, as its first line and those of later files describe it.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) name: SegmentName,
    /// Its length when it was read.
    pub(crate) bytes: u64,
    /// How many of its bytes count, as a later segment states; `None` where none does: all of them.
    pub(crate) counted: Option<u64>,
    /// The sequence number of its first line, if that is a good `segment` line of this file.
    pub(crate) first_seq: Option<u64>,
    /// The time of that line.
    pub(crate) first_at: Option<Timestamp>,
    /// The id of the chain that this line names.
    pub(crate) id: Option<ChainId>,
    /// Whether it holds no more than the first write of a segment, which a crash can tear.
    pub(crate) looks_stillborn: bool,
    /// The first sequence number of a later segment that states that this file counts nothing, if this file holds more
    /// than a first write. Such a file never held more than that when it was given up.
    pub(crate) destroyed_before: Option<u64>,
    /// Bounds of the times of the records that count, where a later segment states them.
    pub(crate) times: Option<Times>,
    after: Vec<After>,
}

impl SegmentFile {
    /// Returns a file about which no later segment has stated anything yet.
    pub(crate) fn unclaimed(name: SegmentName, bytes: u64, first: &Beginning) -> Self {
        let after = match &first.line {
            FirstLine::Segment(start) => start.info.after.clone(),
            FirstLine::Later | FirstLine::Bad => Vec::new(),
        };
        Self {
            name,
            bytes,
            counted: None,
            first_seq: first.seq(),
            first_at: first.at(),
            id: first.id(),
            looks_stillborn: first.looks_stillborn,
            destroyed_before: None,
            times: None,
            after,
        }
    }

    /// Returns the same file with its present length, without reading its first line again.
    fn again(&self, storage: &dyn Storage) -> Result<Option<Self>, Error> {
        let name = self.name.to_string();
        let stat =
            storage.stat(Dir::Log, &name).map_err(Error::io("look at", storage.path(Dir::Log, &name)))?;
        Ok(stat.map(|stat| Self {
            name: self.name,
            bytes: stat.bytes,
            counted: None,
            first_seq: self.first_seq,
            first_at: self.first_at,
            id: self.id,
            looks_stillborn: self.looks_stillborn && stat.bytes == self.bytes,
            destroyed_before: None,
            times: None,
            after: self.after.clone(),
        }))
    }
}

/// What a segment states about an earlier file that was not read or does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absent {
    /// The first of several files that count nothing; otherwise the same as `segment`.
    pub(crate) from: u32,
    pub(crate) segment: u32,
    /// How many of its bytes count.
    pub(crate) bytes: u64,
    /// The first sequence number of the segment that states this.
    pub(crate) before_seq: u64,
}

/// The files of one chain, oldest first.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) files: Vec<SegmentFile>,
    pub(crate) absent: Vec<Absent>,
}

impl Layout {
    /// Reads the first line of each file. A file that no longer exists was removed by retention. Of a file that is
    /// already known and has a good first line, only the length is read again.
    pub(crate) fn of(
        storage: &dyn Storage,
        chain: ChainNumber,
        numbers: &[u32],
        known: Option<&SegmentFile>,
    ) -> Result<Self, Error> {
        let mut files = Vec::with_capacity(numbers.len());
        for number in numbers {
            let name = SegmentName { chain, segment: *number };
            match known.filter(|known| known.name == name && known.first_seq.is_some()) {
                Some(known) => files.extend(known.again(storage)?),
                None => files.extend(read_start(storage, name)?),
            }
        }
        Ok(Self::settle(files))
    }

    /// Applies the claims of the files, the newest file first. The newest claim about a file wins, and a file that
    /// counts nothing makes no valid claims itself.
    pub(crate) fn settle(mut files: Vec<SegmentFile>) -> Self {
        let mut claims = Claims::default();
        for file in files.iter_mut().rev() {
            claims.apply_to(file);
        }
        Self { files, absent: claims.into_absent() }
    }
}

/// The files of one chain, read from the newest one backward and only as far as needed. Only newer files state how much
/// of an older one counts.
#[derive(Debug)]
pub(crate) struct LayoutFromEnd {
    chain: ChainNumber,
    /// Files that were not read yet, oldest first.
    unseen: Vec<u32>,
    claims: Claims,
    files: VecDeque<SegmentFile>,
}

impl LayoutFromEnd {
    /// Begins with the segments of these numbers, oldest first, without reading any of them.
    pub(crate) fn new(chain: ChainNumber, numbers: &[u32]) -> Self {
        Self { chain, unseen: numbers.to_vec(), claims: Claims::default(), files: VecDeque::new() }
    }

    /// Reads the next older file that exists.
    pub(crate) fn older(&mut self, storage: &dyn Storage) -> Result<Option<&SegmentFile>, Error> {
        while let Some(segment) = self.unseen.pop() {
            if let Some(mut file) = read_start(storage, SegmentName { chain: self.chain, segment })? {
                self.claims.apply_to(&mut file);
                self.files.push_front(file);
                return Ok(self.files.front());
            }
        }
        Ok(None)
    }

    /// Returns the files that were read since the last call, oldest first.
    pub(crate) fn take_files(&mut self) -> Vec<SegmentFile> {
        std::mem::take(&mut self.files).into()
    }
}

/// What newer files state about older ones.
#[derive(Debug, Default)]
struct Claims {
    /// Claims about single files, by segment number.
    single: BTreeMap<u32, Claim>,
    /// Claims about rows of files that count nothing, the newest claim first.
    rows: Vec<Claim>,
    absent: Vec<Absent>,
    added: usize,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    from: u32,
    segment: u32,
    bytes: u64,
    before_seq: u64,
    is_of_a_row: bool,
    times: Option<Times>,
    /// The position of this claim in the order of claims, the newest first.
    number: usize,
    /// Whether a file was found to which the claim applies.
    is_used: bool,
}

impl Claims {
    /// Applies the newest claim about a file to it, and adds the claims that it makes about older ones.
    fn apply_to(&mut self, file: &mut SegmentFile) {
        if let Some(claim) = self.about(file.name.segment) {
            file.counted = Some(claim.bytes);
            file.times = claim.times;
            // Rows are written by this version only, whose first write of a segment is a single line. A file that holds
            // more was changed after it was given up.
            let is_destroyed = claim.is_of_a_row && !file.looks_stillborn;
            file.destroyed_before = is_destroyed.then_some(claim.before_seq);
        }
        // A file that counts nothing is void, and so are its claims.
        let Some(first_seq) = file.first_seq.filter(|_| file.counted != Some(0)) else { return };
        for claim in file.after.iter().filter(|claim| claim.segment < file.name.segment) {
            self.add(claim, first_seq);
        }
    }

    /// Adds a claim of a segment that begins with the record `before_seq`.
    fn add(&mut self, after: &After, before_seq: u64) {
        self.added += 1;
        let claim = Claim {
            from: after.from.unwrap_or(after.segment),
            segment: after.segment,
            bytes: after.bytes,
            before_seq,
            is_of_a_row: after.from.is_some(),
            times: after.times,
            number: self.added,
            is_used: false,
        };
        if !claim.is_of_a_row {
            // Claims arrive from the newest file on, so the first one about a file wins.
            self.single.entry(claim.segment).or_insert(claim);
        } else if self.rows.len() < MAX_ROWS {
            self.rows.push(claim);
        }
    }

    /// Returns the newest claim about a file. Files must be asked for from the newest to the oldest.
    fn about(&mut self, segment: u32) -> Option<Claim> {
        // All remaining files are older, so a row that ends above them can apply to none of them.
        let absent = &mut self.absent;
        self.rows.retain(|row| {
            let is_past = row.from > segment;
            if is_past && !row.is_used {
                absent.push(row.absent());
            }
            !is_past
        });
        let row = self.rows.iter_mut().find(|row| row.segment >= segment);
        let single = self.single.remove(&segment);
        match (row, single) {
            // Claims are numbered from the newest on.
            (Some(row), single) if single.is_none_or(|single| row.number < single.number) => {
                row.is_used = true;
                Some(*row)
            }
            (_, single) => single,
        }
    }

    /// Returns the claims that applied to no file.
    fn into_absent(mut self) -> Vec<Absent> {
        // A newer claim about a row overrides one about a single file in it.
        let single = self.single.values().filter(|single| {
            !self
                .rows
                .iter()
                .any(|row| (row.from..=row.segment).contains(&single.segment) && row.number < single.number)
        });
        let rows = self.rows.iter().filter(|row| !row.is_used);
        self.absent.extend(single.chain(rows).map(Claim::absent));
        self.absent.sort_unstable_by_key(|absent| absent.segment);
        self.absent
    }
}

impl Claim {
    fn absent(&self) -> Absent {
        let Self { from, segment, bytes, before_seq, .. } = *self;
        Absent { from, segment, bytes, before_seq }
    }
}

/// Reads the first line of a file and its length; `None` if it does not exist.
fn read_start(storage: &dyn Storage, name: SegmentName) -> Result<Option<SegmentFile>, Error> {
    let path = || storage.path(Dir::Log, &name.to_string());
    let Some(file) = open_segment(storage, name)? else { return Ok(None) };
    let bytes = file.stat().map_err(Error::io("look at", path()))?.bytes;
    let first = Beginning::read(&*file, name, bytes).map_err(Error::io("read", path()))?;
    Ok(Some(SegmentFile::unclaimed(name, bytes, &first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::MAX_LINE,
        storage::{Disk, DiskOptions},
        verify::tests::log::{Chain, Log, name},
    };

    const CHAIN: ChainNumber = ChainNumber::FIRST;

    fn layout(log: &Log, numbers: &[u32]) -> Layout {
        Layout::of(log, CHAIN, numbers, None).unwrap()
    }

    /// Returns for each file how much of it counts, and its first record.
    fn of(layout: &Layout) -> Vec<(u32, Option<u64>, Option<u64>)> {
        layout.files.iter().map(|file| (file.name.segment, file.counted, file.first_seq)).collect()
    }

    fn after(segment: u32, bytes: u64) -> After {
        After::counted(segment, bytes, None)
    }

    #[test]
    fn the_newest_claim_about_a_file_counts() {
        let chain = Chain::new(0).events(3).segment(vec![after(1, 100), after(7, 5)]);
        let chain = chain.segment(vec![after(1, 200), after(2, 300)]);
        let log = Log::of(&[&chain]);
        let known = layout(&log, &[1, 2, 3]);
        assert_eq!(of(&known), [(1, Some(200), Some(1)), (2, Some(300), Some(6)), (3, None, Some(7))]);
        assert_eq!(known.absent, []);
        assert_eq!(known.files[0].bytes, chain.segments[&1].len() as u64);
        // A file that does not exist is absent, and claims of a file that no longer counts are ignored.
        let chain = Chain::new(0).events(3).segment(vec![after(1, 100)]);
        let chain = chain.segment(vec![after(2, 0)]);
        let known = layout(&Log::of(&[&chain]), &[1, 2, 3]);
        assert_eq!(of(&known), [(1, None, Some(1)), (2, Some(0), Some(6)), (3, None, Some(7))]);
        let known = layout(&log, &[3]);
        let absent = |segment, bytes| Absent { from: segment, segment, bytes, before_seq: 7 };
        assert_eq!(known.absent, [absent(1, 200), absent(2, 300)]);
    }

    #[test]
    fn claims_of_a_file_about_itself_and_later_ones_are_ignored() {
        let chain = Chain::new(0).segment(vec![after(1, 100), after(2, 5), after(3, 6)]).roll();
        let known = layout(&Log::of(&[&chain]), &[1, 2]);
        assert_eq!(of(&known), [(1, Some(100), Some(1)), (2, None, Some(3))]);
        assert_eq!(known.absent, []);
    }

    #[test]
    fn only_a_good_segment_line_of_the_file_itself_makes_claims() {
        let chain = Chain::new(0).events(1).segment(vec![after(1, 100)]);
        let good = Log::of(&[&chain]);
        assert_eq!(of(&layout(&good, &[2])), [(2, None, Some(4))]);
        assert_eq!(layout(&good, &[2]).absent.len(), 1);
        let mut bad = vec![good.clone(), good.clone(), good.clone(), good.clone()];
        // An edited line, no line feed, another kind, and the line of another file.
        bad[0].edit(0, 2, |lines| lines[0][20] ^= 1);
        assert_eq!(bad[1].file(0, 2).pop(), Some(b'\n'));
        let open = Chain::bare(0).open().segments[&0].clone();
        *bad[2].file(0, 2) = open;
        *bad[3].file(0, 2) = chain.segments[&1].clone();
        for log in &bad {
            let known = layout(log, &[1, 2]);
            assert_eq!(of(&known), [(1, None, Some(1)), (2, None, None)]);
        }
        // The object of a `segment` line in a line of another kind.
        let mut payload = String::from_utf8(good.files[&name(0, 2)].clone()).unwrap();
        payload = payload.split_once(",\"durable\"").unwrap().0.split_once(",\"ts\"").unwrap().1.to_owned();
        let later = format!(",\"ts\"{}", payload.replace("\"format\":1", "\"format\":2"));
        let chain = Chain { segment: 2, ..Chain::new(0).events(1) }.put(later.as_bytes(), None);
        assert_eq!(of(&layout(&Log::of(&[&chain]), &[2])), [(2, None, None)]);
    }

    #[test]
    fn a_first_line_may_be_long() {
        let claims = (2..400).map(|segment| after(segment, 10_000)).collect();
        let chain = Chain { segment: 400, ..Chain::new(0) }.segment(claims);
        assert!((4096..MAX_LINE).contains(&chain.segments[&401].len()));
        let known = layout(&Log::of(&[&chain]), &[401]);
        assert_eq!((known.files[0].first_seq, known.absent.len()), (Some(3), 398));
    }

    #[test]
    fn a_missing_file_is_skipped_and_one_that_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::create(dir.path(), DiskOptions::default()).unwrap();
        let segment = |segment| SegmentName { chain: CHAIN, segment };
        assert!(open_segment(&disk, segment(1)).unwrap().is_none());
        assert_eq!(Layout::of(&disk, CHAIN, &[1], None).unwrap().files.len(), 0);
        // A symbolic link to itself.
        std::os::unix::fs::symlink(name(0, 2), dir.path().join(name(0, 2))).unwrap();
        let error = open_segment(&disk, segment(2)).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot open ") && error.to_string().ends_with(&name(0, 2)),
            "{error}"
        );
    }
}
