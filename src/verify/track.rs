//! The reading state of one chain during a verification: which files it has, and how far they were read. Reading
//! continues when a writer has appended, rotated or pruned in the meantime.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    chain::{Digest, Head},
    chain_reader::{
        Absent, ChainBytes, Chunk, Directory, FileCount, Follow, Layout, Part, SegmentFile, Summary,
        log_path, split, summarize,
    },
    error::Error,
    format::{LineParser, seq_of},
    segment_name::ChainNumber,
    storage::Storage,
};

use super::{index::Index, notes::Notes, pool, progress::Progress};

/// Below this number of bytes, threads cost more time than they save.
pub(super) const WORTH_THREADS: u64 = 4 * 1024 * 1024;

/// The settings that all chains of a verification share.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) threads: usize,
    pub(super) progress: &'a Progress,
}

/// A chain, as far as it was read.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) chain: ChainNumber,
    /// Everything up to this head is trusted.
    trusted: Option<Head>,
    /// The first segment that is read; files before it are leftovers of retention.
    first: u32,
    /// The segments before it that exist.
    pub(super) leftovers: Vec<u32>,
    pub(super) files: Vec<SegmentFile>,
    pub(super) absent: Vec<Absent>,
    pub(super) follow: Follow,
    pub(super) notes: Notes,
    index: Index,
    /// The index of the file at which reading continues, and the offset in it.
    file: usize,
    offset: u64,
    /// The bytes behind the last line feed of the last file: their offset and their number.
    pub(super) unfinished: Option<(u64, u64)>,
}

/// The result of a step: whether the chain was read to its end, and if not, how to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The chain was read to its end.
    AtEnd,
    /// Reading must start over: a new segment voids what was already taken in, a file shrank, or what was read first
    /// had been removed by retention.
    StartOver,
    /// A listed file no longer existed when its turn came. A later record must say that it was removed.
    Missed,
}

/// How often a directory is listed again while files in it are removed during reading.
const MAX_LOOKS: usize = 1000;

/// How often reading starts over.
const MAX_RESTARTS: usize = 8;

impl Track {
    pub(super) fn new(chain: ChainNumber, trusted: Option<Head>) -> Self {
        Self {
            chain,
            trusted,
            first: 0,
            leftovers: Vec::new(),
            files: Vec::new(),
            absent: Vec::new(),
            follow: Follow::new(chain),
            notes: Notes::default(),
            index: Index::default(),
            file: 0,
            offset: 0,
            unfinished: None,
        }
    }

    /// Lists the directory again and reads to the end of the chain. Starts over where needed, but a limited number of
    /// times: a directory that is rewritten all the time is judged as it was last seen.
    pub(super) fn advance(&mut self, context: &Context<'_>) -> Result<(), Error> {
        let mut restarts = 0;
        for _ in 0..MAX_LOOKS {
            match self.step(context)? {
                Step::AtEnd => return Ok(()),
                Step::StartOver if restarts == MAX_RESTARTS => return Ok(()),
                Step::StartOver => {
                    restarts += 1;
                    // `first` is kept, so that leftovers found once stay excluded.
                    *self = Self { first: self.first, ..Self::new(self.chain, self.trusted) };
                }
                Step::Missed => {}
            }
        }
        // An error is better than a false alarm.
        Err(Error::io("keep up with the removal of segments in", log_path(context.storage))(
            std::io::ErrorKind::TimedOut.into(),
        ))
    }

    fn step(&mut self, context: &Context<'_>) -> Result<Step, Error> {
        if self.look_again(context)? == Step::StartOver {
            return Ok(Step::StartOver);
        }
        if self.read_on(context)? {
            return Ok(Step::Missed);
        }
        Ok(if self.leave_out_leftovers(context)? { Step::StartOver } else { Step::AtEnd })
    }

    /// Excludes files that were read although retention had removed them, if they exist again or reading them found
    /// anomalies. Returns whether there were any, so that reading starts over.
    fn leave_out_leftovers(&mut self, context: &Context<'_>) -> Result<bool, Error> {
        let Some((through, _)) = self.follow.control.pruned else { return Ok(false) };
        let is_kept_first = |file: &&SegmentFile| {
            file.counted != Some(0) && file.first_seq.is_some_and(|first| first <= through.saturating_add(1))
        };
        let Some(first) = self.files.iter().rfind(is_kept_first).map(|file| file.name.segment) else {
            return Ok(false);
        };
        let is_older = |file: &&FileCount| file.segment < first;
        let mut older = self.follow.files.iter().filter(is_older).peekable();
        // A cut cannot have removed what was durable beyond it, whichever line claims so.
        if older.peek().is_none() || older.any(|file| file.mark > through) {
            return Ok(false);
        }
        let there = Directory::list(context.storage)?.chains.remove(&self.chain).unwrap_or_default();
        if self.follow.anomalies.kept().is_empty() && !there.iter().any(|number| *number < first) {
            return Ok(false);
        }
        self.first = first;
        Ok(true)
    }

    /// Lists the files from the current one on again.
    fn look_again(&mut self, context: &Context<'_>) -> Result<Step, Error> {
        let mut numbers = Directory::list(context.storage)?.chains.remove(&self.chain).unwrap_or_default();
        self.leftovers = numbers.iter().copied().filter(|number| *number < self.first).collect();
        let current = self.files.get(self.file).map_or(self.first, |file| file.name.segment);
        numbers.retain(|number| *number >= current);
        let mut layout = Layout::of(context.storage, self.chain, &numbers, self.files.get(self.file))?;
        if self.files.is_empty() {
            self.trust(&mut layout);
            self.files = layout.files;
            self.absent = layout.absent;
            return Ok(Step::AtEnd);
        }
        if !layout.absent.iter().all(|claim| self.agrees(*claim)) {
            return Ok(Step::StartOver);
        }
        // Files that were listed behind the current one and not read may have been removed since.
        self.files.truncate(self.file + 1);
        for file in layout.files {
            if file.name.segment > current {
                self.files.push(file);
                continue;
            }
            let counted = file.counted.unwrap_or(file.bytes);
            // Less of the current file counts than was taken in already.
            if counted < self.offset || file.bytes < self.offset {
                return Ok(Step::StartOver);
            }
            if let Some(known) = self.files.get_mut(self.file) {
                *known = file;
            }
        }
        Ok(Step::AtEnd)
    }

    /// Returns whether the claim of a new segment about a file that was already read matches what was taken in.
    fn agrees(&mut self, claim: Absent) -> bool {
        let named = claim.from..=claim.segment;
        let mut known = self.files.iter().filter(|file| named.contains(&file.name.segment)).peekable();
        if known.peek().is_some() {
            return known.all(|file| file.counted.unwrap_or(file.bytes) == claim.bytes);
        }
        if !self.absent.iter().any(|known| known.segment == claim.segment) {
            self.absent.push(claim);
        }
        true
    }

    /// Skips the files that hold only trusted records.
    fn trust(&self, layout: &mut Layout) {
        let Some(head) = self.trusted else { return };
        let first = layout.files.iter().rposition(|file| {
            file.counted != Some(0) && file.first_seq.is_some_and(|first| first <= head.seq)
        });
        layout.files.drain(..first.unwrap_or(0));
    }

    /// Reads from where reading stopped to the end of the files. Returns whether one of them no longer existed.
    fn read_on(&mut self, context: &Context<'_>) -> Result<bool, Error> {
        self.unfinished = None;
        let left: u64 = self.files.iter().skip(self.file).map(|file| file.bytes).sum();
        let threads = if left.saturating_sub(self.offset) < WORTH_THREADS { 1 } else { context.threads };
        let Self { files, follow, notes, index, file, offset, unfinished, .. } = self;
        // Shared by the closures that produce and join; both run on this thread.
        let source = RefCell::new(ChainBytes::new(context.storage, files, *file, *offset));
        let last_file = files.len().saturating_sub(1);
        let mut parser = LineParser::default();
        pool::run(
            threads,
            LineParser::default,
            || {
                let mut source = source.borrow_mut();
                Ok(source.next()?.map(|part| (source.file(), part)))
            },
            |parser, (file, part)| {
                let summary = match &part {
                    Part::Counted(Chunk::Lines { bytes, .. }) => summarize(parser, bytes),
                    _ => None,
                };
                (file, part, summary)
            },
            |(number, part, summary)| {
                if follow.later_format.is_some() {
                    return Ok(());
                }
                if number != *file || matches!(part, Part::Begin(_)) {
                    (*file, *offset) = (number, 0);
                }
                if let Part::Counted(Chunk::Unfinished { offset, length }) = part
                    && number == last_file
                {
                    // The line may still be written, so it is judged only when the chain was read to its end.
                    *unfinished = Some((offset, length));
                    return Ok(());
                }
                let read = take_in(follow, index, &mut parser, &part, summary);
                notes.absorb(follow);
                if let Part::Counted(Chunk::Lines { bytes, .. }) | Part::Void(Chunk::Lines { bytes, .. }) =
                    part
                {
                    source.borrow_mut().reuse(bytes);
                }
                *offset += read;
                context.progress.add(read);
                Ok(())
            },
        )?;
        let has_missed = source.borrow().has_missed();
        Ok(has_missed)
    }

    /// Looks up records by sequence number: their hashes, and the hashes that they link to. A bounded range before
    /// each is read again, once for all records in the same range. A record without a good line is left out.
    pub(super) fn look_up(&self, storage: &dyn Storage, wanted: &BTreeSet<u64>) -> Result<LookedUp, Error> {
        let mut found = LookedUp::new();
        let mut wanted = wanted.iter().copied().peekable();
        while let Some(seq) = wanted.next() {
            let Some(entry) = self.index.before(seq) else { continue };
            let mut here = BTreeSet::from([seq]);
            while let Some(next) = wanted.next_if(|next| self.index.before(*next) == Some(entry)) {
                here.insert(next);
            }
            self.look_up_behind(storage, entry, here, &mut found)?;
        }
        Ok(found)
    }

    fn look_up_behind(
        &self,
        storage: &dyn Storage,
        (segment, offset, mut budget): (u32, u64, u64),
        mut wanted: BTreeSet<u64>,
        found: &mut LookedUp,
    ) -> Result<(), Error> {
        let Some(first) = self.files.iter().position(|file| file.name.segment == segment) else {
            return Ok(());
        };
        let mut source = ChainBytes::new(storage, &self.files, first, offset);
        let mut parser = LineParser::default();
        while let Some(part) = source.next()? {
            let Part::Counted(Chunk::Lines { bytes, .. }) = part else { continue };
            for (_, line) in split(&bytes) {
                // Most lines are skipped by their sequence number alone.
                let Some(line) = seq_of(line).filter(|seq| wanted.contains(seq)).map(|_| line) else {
                    continue;
                };
                let Ok(line) = parser.parse(line) else { continue };
                if line.hash_is_right() && wanted.remove(&line.seq) {
                    found.insert(line.seq, (line.hash, line.previous));
                }
            }
            budget = budget.saturating_sub(bytes.len() as u64);
            if budget == 0 || wanted.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// The hash of each record that was looked up and the hash that it links to, by sequence number.
pub(super) type LookedUp = BTreeMap<u64, (Digest, Digest)>;

/// Takes in one part, at once if it is a faultless chunk that continues the chain. Returns its length in bytes.
fn take_in(
    follow: &mut Follow,
    index: &mut Index,
    parser: &mut LineParser,
    part: &Part,
    summary: Option<Summary>,
) -> u64 {
    if let Part::Counted(Chunk::Lines { offset, bytes }) = part {
        index.add(follow.next, follow.segment(), *offset);
        if summary.is_some_and(|mut summary| follow.join(&mut summary)) {
            return bytes.len() as u64;
        }
    }
    follow.take_in(parser, part)
}
