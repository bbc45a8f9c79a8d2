//! The chains of a log, and where the durable part of each ends.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Result;
use memchr::memchr_iter;
use tracing_audit::{ReadItem, Reader, Segment, segments};

use super::{
    chunks::{CHUNK, Chunks, Span, Window},
    unconfirmed::UnconfirmedSet,
};
use crate::{directory::explain, filter::Filter, time::Point};

/// Limit of the bytes of all chains together that are searched at once: what is found in them waits to be merged by time.
const AT_ONCE: u64 = 8 << 20;

/// Size of the smallest chunk in bytes: a smaller one would cost more time than it saves memory.
const SMALLEST: u64 = 8 << 10;

/// A log as it was when the search began.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) chains: Vec<Arc<Chain>>,
    /// The ids of the chains, by their numbers.
    pub(crate) ids: HashMap<u16, String>,
    /// The records that are named unconfirmed in the tails of the chains, which are not searched in chunks.
    pub(crate) unconfirmed: UnconfirmedSet,
    /// Limit of the bytes of each chain that are searched at once.
    pub(crate) room: u64,
}

/// A chain: a durable part, which is searched in chunks, and a tail, which the library reads.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) number: u16,
    /// The whole durable part.
    pub(crate) all: Arc<Chunks>,
    /// The segments of it that can have a match.
    pub(crate) wanted: Arc<Chunks>,
    /// The number of the first record of the tail, which may be torn.
    pub(crate) tail_from: u64,
    /// Where the durable part ends: file name and offset. `None` if its last record is missing.
    tail_at: Option<(String, u64)>,
    lines_before_tail: OnceLock<u64>,
}

impl Chain {
    /// Returns whether a line is before the tail, where the library may begin to read a little early.
    pub(crate) fn is_before_tail(&self, path: &Path, line: u64) -> bool {
        let Some((file, offset)) = &self.tail_at else { return false };
        match path.file_name().and_then(OsStr::to_str) {
            Some(name) if name == file => {
                line <= *self.lines_before_tail.get_or_init(|| lines_in(path, *offset).unwrap_or(0))
            }
            // The numbers in file names have a fixed width, so they can be compared as text.
            Some(name) => name < file.as_str(),
            None => false,
        }
    }
}

/// Counts the lines that end before an offset.
fn lines_in(path: &Path, offset: u64) -> io::Result<u64> {
    let mut file = File::open(path)?.take(offset);
    let (mut bytes, mut lines) = (vec![0; 64 << 10], 0);
    loop {
        let read = file.read(&mut bytes)?;
        if read == 0 {
            return Ok(lines);
        }
        lines += memchr_iter(b'\n', bytes.get(..read).unwrap_or_default()).count() as u64;
    }
}

impl Log {
    pub(crate) fn open(dir: &Path, filter: &Filter) -> Result<Self> {
        let files = segments(dir).map_err(|error| explain(dir, error))?;
        let chains = files.chunk_by(|one, next| one.chain() == next.chain()).count() as u64;
        let mut log = Self {
            dir: dir.to_owned(),
            chains: Vec::new(),
            ids: HashMap::new(),
            unconfirmed: UnconfirmedSet::default(),
            room: AT_ONCE / chains.max(1),
        };
        for file in &files {
            if let Some(id) = file.chain_id() {
                log.ids.insert(file.chain(), id.to_owned());
            }
        }
        for files in files.chunk_by(|one, next| one.chain() == next.chain()) {
            log.add(files, filter)?;
        }
        Ok(log)
    }

    fn add(&mut self, files: &[Segment], filter: &Filter) -> Result<()> {
        let Some(newest) = files.last() else { return Ok(()) };
        let (number, durable) = (newest.chain(), newest.durable());
        // The tail is found by the name of its file, the spans by the number of the segment.
        let names: HashMap<String, u32> =
            files.iter().filter_map(|file| Some((file_name(file)?, file.number()))).collect();
        let end = self.read_end(number, durable)?;
        let tail_from = end.as_ref().map_or(durable.saturating_add(1), |end| end.next_seq);
        let tail_at = end.map(|end| (end.file, end.offset));
        let end = tail_at.as_ref().and_then(|(file, offset)| Some((*names.get(file)?, *offset)));
        let counting: Vec<&Segment> = files.iter().filter(|file| file.counted_bytes() > 0).collect();
        let mut spans = Vec::new();
        // A chain without any durable record is all tail.
        for (index, file) in counting.iter().enumerate().take_while(|_| tail_from > 1) {
            let end = match end {
                Some((segment, _)) if file.number() > segment => break,
                // The segment with the last durable record is searched up to that record.
                Some((segment, offset)) if file.number() == segment => offset.min(file.counted_bytes()),
                _ => file.counted_bytes(),
            };
            // A record in this segment has a lower number than the first of the next segment, which bounds what a
            // forged line can claim.
            let next = counting.iter().skip(index + 1).find_map(|file| file.first_seq());
            let last_seq =
                next.map_or(u64::MAX, |next| next.saturating_sub(1)).min(tail_from.saturating_sub(1));
            spans.push(Span { segment: Arc::new((*file).clone()), end, last_seq });
        }
        let wanted = spans.iter().filter(|span| may_have(span, filter)).cloned();
        // A power of two like `CHUNK`, so that each chunk of `wanted` lies within one chunk of `all`.
        let size = 1 << self.room.clamp(SMALLEST, CHUNK).ilog2();
        debug_assert_eq!(CHUNK % size, 0);
        let wanted = Arc::new(Chunks::new(wanted, size));
        self.chains.push(Arc::new(Chain {
            number,
            all: Arc::new(Chunks::new(spans.into_iter(), CHUNK)),
            wanted,
            tail_from,
            tail_at,
            lines_before_tail: OnceLock::new(),
        }));
        Ok(())
    }

    /// Finds where the durable part of a chain ends, and notes the records that the tail names unconfirmed.
    fn read_end(&mut self, chain: u16, durable: u64) -> Result<Option<End>> {
        let items = Reader::new(&self.dir).chain(chain).from_seq(durable).items();
        let mut end = None;
        for record in
            items.map_err(|error| explain(&self.dir, error))?.flatten().filter_map(ReadItem::into_record)
        {
            // If the last durable record is missing, the durable part ends before the next record.
            let is_last = record.seq() <= durable;
            end.get_or_insert_with(|| End {
                file: record.file_name(),
                offset: record.offset() + if is_last { record.as_json().len() as u64 + 1 } else { 0 },
                next_seq: record.seq() + u64::from(is_last),
            });
            self.unconfirmed.note(&record, &self.ids);
        }
        Ok(end)
    }

    /// Calls `each` with every chunk, in no order, on several threads. Returns the result of each thread.
    pub(crate) fn each_chunk<A: Send>(
        &self,
        threads: usize,
        chunks: impl Fn(&Chain) -> &Arc<Chunks> + Sync,
        new: impl Fn() -> A + Sync,
        each: impl Fn(&mut A, &mut Window, &Chain, usize) + Sync,
    ) -> Vec<A> {
        let count = self.chains.iter().map(|chain| chunks(chain).count()).sum::<usize>();
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut made, mut window) = (new(), Window::default());
            loop {
                // Only the numbers have to be unique, and no other memory is shared through them, so `Relaxed` is
                // enough.
                let mut number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return made;
                }
                for chain in &self.chains {
                    if let Some(rest) = number.checked_sub(chunks(chain).count()) {
                        number = rest;
                    } else {
                        each(&mut made, &mut window, chain, number);
                        break;
                    }
                }
            }
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(work)).collect();
            let mut all = vec![work()];
            for other in others {
                match other.join() {
                    Ok(made) => all.push(made),
                    // A panic is a bug and must not be taken for an empty result.
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        })
    }
}

/// The end of the durable part of a chain.
struct End {
    file: String,
    offset: u64,
    next_seq: u64,
}

fn file_name(file: &Segment) -> Option<String> {
    Some(file.path().file_name()?.to_str()?.to_owned())
}

/// Returns whether a segment can have a record with the chain, number and time that the filter asks for.
fn may_have(span: &Span, filter: &Filter) -> bool {
    let file = &span.segment;
    if !filter.chain.is_empty() && !filter.chain.contains(&file.chain()) {
        return false;
    }
    let is_in_range = filter.seq.is_none_or(|range| {
        range.first <= span.last_seq && file.first_seq().is_none_or(|first| first <= range.last)
    });
    let since = filter.since.map(Point::system_time);
    let until = filter.until.map(Point::system_time);
    // A segment whose times are not known to be bounded may have any: the clock may have been set back.
    let is_in_time = file.times().is_none_or(|(from, to)| {
        since.is_none_or(|since| since <= to) && until.is_none_or(|until| from < until)
    });
    is_in_range && is_in_time
}
