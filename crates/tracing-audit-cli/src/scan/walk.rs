//! One chain of a search, in order.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use tracing_audit::{ReadItems, Reader, Record};

use super::{Look, Trouble, log::Chain, pieces::Window};

/// What one piece had: its records that match.
type Found = (Vec<Record>, Trouble);

pub(super) struct Walk<'a> {
    dir: PathBuf,
    pub(super) chain: &'a Chain,
    look: Arc<Look>,
    is_reverse: bool,
    /// How many pieces were taken.
    taken: usize,
    /// Threads that read ahead: piece n comes from the thread n modulo their count. None: pieces are read when they are
    /// wanted.
    workers: Vec<Receiver<Found>>,
    found: std::vec::IntoIter<Record>,
    part: Part,
    tail: Option<ReadItems>,
    /// The time of the record before.
    last: Option<SystemTime>,
}

/// Of which part records come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Pieces,
    Tail,
    None,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        dir: &Path,
        chain: &'a Chain,
        look: Arc<Look>,
        threads: usize,
        is_reverse: bool,
    ) -> Self {
        let threads = if chain.wanted.count() > 1 { threads } else { 0 };
        let workers = (0..threads)
            .map(|first| {
                let (sender, receiver) = sync_channel(1);
                let (pieces, look) = (Arc::clone(&chain.wanted), Arc::clone(&look));
                thread::spawn(move || {
                    let mut window = Window::default();
                    for turn in (first..pieces.count()).step_by(threads) {
                        let number = if is_reverse { pieces.count() - 1 - turn } else { turn };
                        let (mut found, mut trouble) = (Vec::new(), Trouble::default());
                        look.piece(&pieces, number, &mut window, &mut trouble, |record| found.push(record));
                        // Who wanted them may have enough.
                        if sender.send((found, trouble)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        let part = if is_reverse { Part::Tail } else { Part::Pieces };
        Self {
            dir: dir.to_owned(),
            chain,
            look,
            is_reverse,
            taken: 0,
            workers,
            found: Vec::new().into_iter(),
            part,
            tail: None,
            last: None,
        }
    }

    /// The next record that matches, and the time by which it is merged with those of other chains: in a chain the order is
    /// that of the numbers, whatever the clock did.
    pub(super) fn next(
        &mut self,
        window: &mut Window,
        trouble: &mut Trouble,
    ) -> Option<(SystemTime, Record)> {
        loop {
            let record = match self.part {
                Part::Pieces => self.next_of_pieces(window, trouble),
                Part::Tail => self.next_of_tail(trouble),
                Part::None => return None,
            };
            match record {
                Some(record) => return Some((self.place_in_time(&record), record)),
                None => {
                    self.part = match (self.part, self.is_reverse) {
                        (Part::Pieces, false) => Part::Tail,
                        (Part::Tail, true) => Part::Pieces,
                        _ => Part::None,
                    }
                }
            }
        }
    }

    fn place_in_time(&mut self, record: &Record) -> SystemTime {
        let at = match (record.time(), self.last) {
            (Some(at), Some(last)) if self.is_reverse => at.min(last),
            (Some(at), Some(last)) => at.max(last),
            (Some(at), None) => at,
            (None, Some(last)) => last,
            // Of no time: at once.
            (None, None) if self.is_reverse => SystemTime::now() + Duration::from_secs(1 << 32),
            (None, None) => SystemTime::UNIX_EPOCH,
        };
        self.last = Some(at);
        at
    }

    fn next_of_pieces(&mut self, window: &mut Window, trouble: &mut Trouble) -> Option<Record> {
        loop {
            let next = if self.is_reverse { self.found.next_back() } else { self.found.next() };
            if next.is_some() {
                return next;
            }
            let count = self.chain.wanted.count();
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
                let mut found = Vec::new();
                self.look.piece(&self.chain.wanted, number, window, trouble, |record| found.push(record));
                found
            };
            self.found = found.into_iter();
        }
    }

    fn next_of_tail(&mut self, trouble: &mut Trouble) -> Option<Record> {
        if self.tail.is_none() {
            let reader = Reader::new(&self.dir).chain(self.chain.number).from_seq(self.chain.tail_from);
            match reader.reverse(self.is_reverse).items() {
                Ok(items) => self.tail = Some(items),
                Err(error) => {
                    trouble.bad(format!("{:#}", anyhow::Error::new(error)));
                    return None;
                }
            }
        }
        for item in self.tail.as_mut()? {
            if let Some(record) = self.look.item(item, trouble) {
                return Some(record);
            }
        }
        None
    }
}
