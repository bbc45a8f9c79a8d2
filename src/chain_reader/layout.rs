//! Which files of a chain count, and how many of their bytes: first lines say so of the files before them.

use std::collections::{BTreeMap, VecDeque};

use super::first_line::{Beginning, FirstLine, open_segment};
use crate::{
    clock::Timestamp,
    error::Error,
    format::{After, ChainId, Times},
    segment_name::{ChainNumber, SegmentName},
    storage::{Dir, Storage},
};

/// Rows of files that count nothing that are kept at a time. An honest chain has one for each failure that the files
/// on the way tell of.
const MAX_ROWS: usize = 4096;

/// A file of a chain, as its first line and those of later files describe it.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) name: SegmentName,
    /// Its length when it was looked at.
    pub(crate) bytes: u64,
    /// How many of its bytes count, as a later segment says; `None` where none says so: all.
    pub(crate) counted: Option<u64>,
    /// The sequence number of its first line, if that is a good `segment` line of this file.
    pub(crate) first_seq: Option<u64>,
    /// The time of that line.
    pub(crate) first_at: Option<Timestamp>,
    /// The id of the chain that it names.
    pub(crate) id: Option<ChainId>,
    /// Whether it holds no more than the first write of a segment, which a crash can leave torn.
    pub(crate) looks_stillborn: bool,
    /// Where a later segment says that it counts nothing, so that it never held more than a first write, and it does:
    /// the first sequence number of that segment.
    pub(crate) destroyed_before: Option<u64>,
    /// Bounds of the times of what counts, where a later segment says them.
    pub(crate) times: Option<Times>,
    after: Vec<After>,
}

impl SegmentFile {
    /// A file of which nobody says anything yet.
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

    /// The same file as it is now; its first line is what it was.
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

/// What a segment says of an earlier file that was not looked at, or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absent {
    /// The first of several that count nothing; else the same as `segment`.
    pub(crate) from: u32,
    pub(crate) segment: u32,
    /// How many of its bytes count.
    pub(crate) bytes: u64,
    /// The first sequence number of the segment that says so.
    pub(crate) before_seq: u64,
}

/// The files of one chain, oldest first.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) files: Vec<SegmentFile>,
    pub(crate) absent: Vec<Absent>,
}

impl Layout {
    /// Looks at the first line of each file. A file that is gone by now was removed by retention. Of one that is known
    /// already, with a good first line, only the length is asked.
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
                None => files.extend(look_at(storage, name)?),
            }
        }
        Ok(Self::settle(files))
    }

    /// Lets the claims of the files meet, the newest first: what it says wins, and what a file says
    /// that counts nothing is void itself.
    pub(crate) fn settle(mut files: Vec<SegmentFile>) -> Self {
        let mut claims = Claims::default();
        for file in files.iter_mut().rev() {
            claims.meet(file);
        }
        Self { files, absent: claims.into_absent() }
    }
}

/// The files of one chain, looked at from the newest on and as far back as somebody asks: only newer files say how much
/// of an older one counts.
#[derive(Debug)]
pub(crate) struct LayoutFromEnd {
    chain: ChainNumber,
    /// Files that were not looked at, oldest first.
    unseen: Vec<u32>,
    claims: Claims,
    files: VecDeque<SegmentFile>,
}

impl LayoutFromEnd {
    pub(crate) fn new(chain: ChainNumber, numbers: &[u32]) -> Self {
        Self { chain, unseen: numbers.to_vec(), claims: Claims::default(), files: VecDeque::new() }
    }

    /// Looks at the next older file that is there.
    pub(crate) fn older(&mut self, storage: &dyn Storage) -> Result<Option<&SegmentFile>, Error> {
        while let Some(segment) = self.unseen.pop() {
            if let Some(mut file) = look_at(storage, SegmentName { chain: self.chain, segment })? {
                self.claims.meet(&mut file);
                self.files.push_front(file);
                return Ok(self.files.front());
            }
        }
        Ok(None)
    }

    /// Hands out the files that were looked at and not handed out yet, oldest first.
    pub(crate) fn take_files(&mut self) -> Vec<SegmentFile> {
        std::mem::take(&mut self.files).into()
    }
}

/// What newer files say of older ones.
#[derive(Debug, Default)]
struct Claims {
    /// Of single files, by their numbers.
    single: BTreeMap<u32, Claim>,
    /// Of files in a row that count nothing, the newest claim first.
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
    /// The how-manieth claim, the newest first.
    number: usize,
    has_met: bool,
}

impl Claims {
    /// Lets a file hear what newer ones say of it, and say what it says of older ones.
    fn meet(&mut self, file: &mut SegmentFile) {
        if let Some(claim) = self.about(file.name.segment) {
            file.counted = Some(claim.bytes);
            file.times = claim.times;
            let is_destroyed = claim.is_of_a_row && !file.looks_stillborn;
            file.destroyed_before = is_destroyed.then_some(claim.before_seq);
        }
        let Some(first_seq) = file.first_seq.filter(|_| file.counted != Some(0)) else { return };
        for claim in file.after.iter().filter(|claim| claim.segment < file.name.segment) {
            self.add(claim, first_seq);
        }
    }

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
            has_met: false,
        };
        if !claim.is_of_a_row {
            self.single.entry(claim.segment).or_insert(claim);
        } else if self.rows.len() < MAX_ROWS {
            self.rows.push(claim);
        }
    }

    /// What the newest claim about a file says. Files are asked for from the newest to the oldest.
    fn about(&mut self, segment: u32) -> Option<Claim> {
        // What is only about newer files has nobody to meet any more.
        let absent = &mut self.absent;
        self.rows.retain(|row| {
            let is_past = row.from > segment;
            if is_past && !row.has_met {
                absent.push(row.absent());
            }
            !is_past
        });
        let row = self.rows.iter_mut().find(|row| row.segment >= segment);
        let single = self.single.remove(&segment);
        match (row, single) {
            (Some(row), single) if single.is_none_or(|single| row.number < single.number) => {
                row.has_met = true;
                Some(*row)
            }
            (_, single) => single,
        }
    }

    fn into_absent(mut self) -> Vec<Absent> {
        let single = self.single.values().filter(|single| {
            !self
                .rows
                .iter()
                .any(|row| (row.from..=row.segment).contains(&single.segment) && row.number < single.number)
        });
        let rows = self.rows.iter().filter(|row| !row.has_met);
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

fn look_at(storage: &dyn Storage, name: SegmentName) -> Result<Option<SegmentFile>, Error> {
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

    /// Of each file what counts of it and its first record.
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
        // What is not there is absent, and what no longer counts says nothing.
        let chain = Chain::new(0).events(3).segment(vec![after(1, 100)]);
        let chain = chain.segment(vec![after(2, 0)]);
        let known = layout(&Log::of(&[&chain]), &[1, 2, 3]);
        assert_eq!(of(&known), [(1, None, Some(1)), (2, Some(0), Some(6)), (3, None, Some(7))]);
        let known = layout(&log, &[3]);
        let absent = |segment, bytes| Absent { from: segment, segment, bytes, before_seq: 7 };
        assert_eq!(known.absent, [absent(1, 200), absent(2, 300)]);
    }

    #[test]
    fn a_file_says_nothing_of_itself_and_of_later_ones() {
        let chain = Chain::new(0).segment(vec![after(1, 100), after(2, 5), after(3, 6)]).roll();
        let known = layout(&Log::of(&[&chain]), &[1, 2]);
        assert_eq!(of(&known), [(1, Some(100), Some(1)), (2, None, Some(3))]);
        assert_eq!(known.absent, []);
    }

    #[test]
    fn only_a_good_segment_line_of_this_file_says_anything() {
        let chain = Chain::new(0).events(1).segment(vec![after(1, 100)]);
        let good = Log::of(&[&chain]);
        assert_eq!(of(&layout(&good, &[2])), [(2, None, Some(4))]);
        assert_eq!(layout(&good, &[2]).absent.len(), 1);
        let mut bad = vec![good.clone(), good.clone(), good.clone(), good.clone()];
        // An edit, no line feed, another kind, and another file.
        bad[0].edit(0, 2, |lines| lines[0][20] ^= 1);
        assert_eq!(bad[1].file(0, 2).pop(), Some(b'\n'));
        let open = Chain::bare(0).open().segments[&0].clone();
        *bad[2].file(0, 2) = open;
        *bad[3].file(0, 2) = chain.segments[&1].clone();
        for log in &bad {
            let known = layout(log, &[1, 2]);
            assert_eq!(of(&known), [(1, None, Some(1)), (2, None, None)]);
        }
        // The object of a `segment` line in one of another kind.
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
    fn a_file_that_is_gone_is_left_out_and_one_that_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::create(dir.path(), DiskOptions::default()).unwrap();
        let segment = |segment| SegmentName { chain: CHAIN, segment };
        assert!(open_segment(&disk, segment(1)).unwrap().is_none());
        assert_eq!(Layout::of(&disk, CHAIN, &[1], None).unwrap().files.len(), 0);
        // A link to itself.
        std::os::unix::fs::symlink(name(0, 2), dir.path().join(name(0, 2))).unwrap();
        let error = open_segment(&disk, segment(2)).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot open ") && error.to_string().ends_with(&name(0, 2)),
            "{error}"
        );
    }
}
