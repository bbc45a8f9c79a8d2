//! Searches one chain in order.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use memchr::memchr;
use tracing_audit::{ReadItems, Reader, Record, Segment};

use super::{
    Matcher, OUT_OF_PLACE, Trouble,
    chunks::Window,
    log::{Chain, Log},
    unconfirmed::Survey,
};

/// The records of a chunk that match, and what could not be read.
type Found = (Vec<Record>, Trouble);

/// A chain to search, and what to search for.
#[derive(Clone)]
pub(super) struct SearchTask {
    pub(super) chain: Arc<Chain>,
    pub(super) matcher: Arc<Matcher>,
    pub(super) survey: Arc<Survey>,
}

impl SearchTask {
    fn search(&self, number: usize, window: &mut Window, trouble: &mut Trouble) -> Vec<Record> {
        let mut found = Vec::new();
        self.matcher.chunk(&self.survey, &self.chain, number, window, trouble, |segment, record| {
            found.push(self.small(segment, record));
        });
        found
    }

    /// Returns a record without its parsed members, to save memory while many records wait to be merged.
    fn small(&self, segment: &Segment, record: Record) -> Record {
        let line = record.as_json().as_bytes();
        // A record keeps its parsed members only if one of these made it parse the line.
        let is_parsed = !self.matcher.filter.fields.is_empty() || memchr(b'\\', line).is_some();
        if is_parsed { segment.record(record.offset(), line).unwrap_or(record) } else { record }
    }
}

/// The matching records of one chain, in order.
pub(super) struct Walk {
    dir: PathBuf,
    task: SearchTask,
    is_reverse: bool,
    /// Limit of the records of the tail that wait in memory, in bytes.
    room: u64,
    /// Number of chunks taken so far.
    taken: usize,
    /// Threads that read ahead: chunk n comes from thread n modulo their count. Without any, a chunk is read when needed.
    workers: Vec<Receiver<Found>>,
    found: std::vec::IntoIter<Record>,
    part: Part,
    /// The rest of the tail.
    rest: Option<ReadItems>,
    /// Time of the previous record, for merging.
    last: Option<SystemTime>,
    /// Number of the previous record.
    last_seq: Option<u64>,
}

/// The part of the chain that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The tail, not opened yet.
    Unread,
    Chunks,
    Tail,
    None,
}

impl Walk {
    pub(super) fn new(log: &Log, task: SearchTask, threads: usize, is_reverse: bool) -> Self {
        let count = task.chain.wanted.count();
        // A single chunk needs no thread.
        let threads = if count > 1 { threads } else { 0 };
        let workers = (0..threads)
            .map(|first| {
                // A thread is at most two chunks ahead, one in the channel and one found, so that a limit reads
                // little more than needed.
                let (sender, receiver) = sync_channel(1);
                let task = task.clone();
                thread::spawn(move || {
                    let mut window = Window::default();
                    for turn in (first..count).step_by(threads) {
                        let number = if is_reverse { count - 1 - turn } else { turn };
                        let mut trouble = Trouble::default();
                        let found = task.search(number, &mut window, &mut trouble);
                        // The receiver is gone: the search has all it needs.
                        if sender.send((found, trouble)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        let part = if is_reverse { Part::Unread } else { Part::Chunks };
        Self {
            dir: log.dir.clone(),
            task,
            is_reverse,
            room: log.room,
            taken: 0,
            workers,
            found: Vec::new().into_iter(),
            part,
            rest: None,
            last: None,
            last_seq: None,
        }
    }

    /// Returns the next record that matches, and the time by which it is merged with those of other chains.
    ///
    /// Within a chain, these times never go back: the order is that of the numbers, whatever the clock did.
    pub(super) fn next(
        &mut self,
        window: &mut Window,
        trouble: &mut Trouble,
    ) -> Option<(SystemTime, Record)> {
        loop {
            let record = match self.part {
                Part::Chunks => self.next_of_chunks(window, trouble),
                Part::Tail => self.next_of_tail(trouble),
                Part::Unread => None,
                Part::None => return None,
            };
            match record {
                Some(record) if self.is_out_of_place(&record) => {
                    let (file, offset) = (self.dir.join(record.file_name()), record.offset());
                    trouble.bad(format!("{}, byte {offset}: {OUT_OF_PLACE}", file.display()));
                }
                Some(record) => return Some((self.place_in_time(&record), record)),
                None => {
                    self.part = match (self.part, self.is_reverse) {
                        (Part::Unread, _) | (Part::Chunks, false) => {
                            self.open_tail(trouble);
                            Part::Tail
                        }
                        (Part::Tail, true) => Part::Chunks,
                        _ => Part::None,
                    }
                }
            }
        }
    }

    fn is_out_of_place(&mut self, record: &Record) -> bool {
        let seq = record.seq();
        // Only good records move the border: after a copied line, the following originals are still in order.
        let is = self.last_seq.is_some_and(|last| if self.is_reverse { seq >= last } else { seq <= last });
        if !is {
            self.last_seq = Some(seq);
        }
        is
    }

    fn place_in_time(&mut self, record: &Record) -> SystemTime {
        let at = match (record.time(), self.last) {
            // Clamp the time to that of the previous record, so that the order of numbers wins over a clock that was
            // set back.
            (Some(at), Some(last)) if self.is_reverse => at.min(last),
            (Some(at), Some(last)) => at.max(last),
            (Some(at), None) => at,
            (None, Some(last)) => last,
            // Without any time yet, the record comes first.
            (None, None) if self.is_reverse => SystemTime::now() + Duration::from_secs(1 << 32),
            (None, None) => SystemTime::UNIX_EPOCH,
        };
        self.last = Some(at);
        at
    }

    fn next_of_chunks(&mut self, window: &mut Window, trouble: &mut Trouble) -> Option<Record> {
        loop {
            let next = if self.is_reverse { self.found.next_back() } else { self.found.next() };
            if next.is_some() {
                return next;
            }
            let count = self.task.chain.wanted.count();
            if self.taken >= count {
                return None;
            }
            let turn = self.taken;
            self.taken += 1;
            let worker = turn.checked_rem(self.workers.len()).and_then(|worker| self.workers.get(worker));
            let found = if let Some(worker) = worker {
                let Ok((found, other)) = worker.recv() else {
                    trouble.bad("a thread of the search panicked".to_owned());
                    return None;
                };
                trouble.merge(other);
                found
            } else {
                let number = if self.is_reverse { count - 1 - turn } else { turn };
                self.task.search(number, window, trouble)
            };
            self.found = found.into_iter();
        }
    }

    fn next_of_tail(&mut self, trouble: &mut Trouble) -> Option<Record> {
        let next = if self.is_reverse { self.found.next_back() } else { self.found.next() };
        if next.is_some() {
            return next;
        }
        let SearchTask { chain, matcher, .. } = &self.task;
        let next = self.rest.as_mut()?.find_map(|item| matcher.item(chain, item, trouble));
        if next.is_none() {
            self.rest = None;
        }
        next
    }

    /// Opens the tail, after the last durable record.
    ///
    /// It is read forward into memory as far as there is room, also for a reverse search. Read backward, the library may
    /// return less of a damaged log.
    fn open_tail(&mut self, trouble: &mut Trouble) {
        let SearchTask { chain, matcher, .. } = &self.task;
        let open = |is_reverse, trouble: &mut Trouble| {
            let reader = Reader::new(&self.dir).chain(chain.number).from_seq(chain.tail_from);
            match reader.reverse(is_reverse).items() {
                Ok(items) => Some(items),
                Err(error) => {
                    trouble.bad(format!("{:#}", anyhow::Error::new(error)));
                    None
                }
            }
        };
        let (mut found, mut bytes, mut met) = (Vec::new(), 0, Trouble::default());
        let Some(mut items) = open(false, &mut met) else { return trouble.merge(met) };
        while bytes <= self.room {
            let Some(item) = items.next() else {
                self.found = found.into_iter();
                return trouble.merge(met);
            };
            if let Some(record) = matcher.item(chain, item, &mut met) {
                bytes += record.as_json().len() as u64;
                found.push(record);
            }
        }
        if self.is_reverse {
            // Drop what was found forward, with its errors: the backward reading finds them again.
            self.rest = open(true, trouble);
        } else {
            self.rest = Some(items);
            self.found = found.into_iter();
            trouble.merge(met);
        }
    }
}
