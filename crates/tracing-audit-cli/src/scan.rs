//! Finds the records of a log that a filter matches, on several threads.
//!
//! The durable part of a log is searched in chunks of bytes: only lines with the bytes that every match must have are
//! parsed. What comes after it may be part of a torn tail and is left to the library. A search is not a verification: it
//! accepts any line that matches its own hash and has a number of its segment.

mod chunks;
mod log;
mod needles;
mod unconfirmed;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZero,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
};

use anyhow::Result;
use tracing_audit::{Error, ReadItem, Reader, Record, Segment};

use crate::{directory::explain, filter::Filter, output::print_stderr};
pub(crate) use chunks::LONGEST_LINE;
use chunks::{Lines, Window};
use log::{Chain, Log};
use needles::Needles;
use unconfirmed::Survey;
pub(crate) use unconfirmed::{UnconfirmedSet, named_by};
use walk::Walk;

/// Limit of the positions that are named because they could not be read.
const MAX_NAMED: usize = 10;

/// The message for a record that is out of order.
const OUT_OF_PLACE: &str = "a record that does not belong here: its number is not above the one before it";

/// Limit of the default number of threads: more make a search hardly faster, and take memory.
const MAX_THREADS: usize = 16;

/// A search in a log. See [`for_each`](Self::for_each) and [`fold`](Self::fold).
pub(crate) struct Scan {
    log: Log,
    matcher: Arc<Matcher>,
    threads: usize,
    is_reverse: bool,
    /// Made on first use.
    survey: OnceLock<Arc<Survey>>,
}

/// A record that matches.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) record: Record,
    /// Whether a line of its own chain or of another one names it unconfirmed.
    pub(crate) is_unconfirmed: bool,
}

impl Hit {
    /// Makes a hit of a record, with what its own chain states.
    pub(crate) fn of(record: Record) -> Self {
        Self { is_unconfirmed: record.is_unconfirmed(), record }
    }
}

/// Records that are named unconfirmed anywhere in the log.
///
/// A [`Reader`] by itself knows only those that the same chain names, not far behind the record.
pub(crate) struct Unconfirmed {
    survey: Arc<Survey>,
    ids: HashMap<u16, String>,
}

impl Unconfirmed {
    /// Searches the whole log for lines that name records unconfirmed.
    pub(crate) fn named_elsewhere(dir: &Path) -> Result<Self> {
        Scan::new(dir, &Filter::default()).map(|scan| scan.unconfirmed())
    }

    pub(crate) fn hit(&self, record: Record) -> Hit {
        self.survey.unconfirmed.hit(record)
    }

    /// Returns whether a line names the record with this number.
    pub(crate) fn names(&self, chain: u16, seq: u64) -> bool {
        self.survey.unconfirmed.names(chain, seq)
    }

    /// Returns whether a line names one of these records unconfirmed.
    pub(crate) fn is_said_by(&self, line: &Record, records: &UnconfirmedSet) -> bool {
        records.overlaps(&UnconfirmedSet::said_by(line, &self.ids))
    }
}

impl Scan {
    /// Lists the files of a log, for a search with this filter.
    pub(crate) fn new(dir: &Path, filter: &Filter) -> Result<Self> {
        // The log is listed once: what is written later is not part of this search.
        let log = Log::open(dir, filter)?;
        let matcher = Arc::new(Matcher { needles: Needles::of(filter), filter: filter.clone() });
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        Ok(Self { log, matcher, threads, is_reverse: false, survey: OnceLock::new() })
    }

    /// Sets the number of threads. Default: as many as can run at once, at most 16.
    pub(crate) fn threads(mut self, threads: Option<NonZero<usize>>) -> Self {
        self.threads = threads.map_or(self.threads, NonZero::get);
        self
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.threads
    }

    /// Sets whether the newest records come first. Default: `false`.
    pub(crate) fn reverse(mut self, is_reverse: bool) -> Self {
        self.is_reverse = is_reverse;
        self
    }

    /// Returns the survey of the whole log, which is made at most once.
    fn survey(&self) -> &Arc<Survey> {
        self.survey.get_or_init(|| Arc::new(unconfirmed::survey(&self.log, self.threads)))
    }

    /// Returns the records of the log that are named unconfirmed, whatever the filter.
    pub(crate) fn unconfirmed(&self) -> Unconfirmed {
        Unconfirmed { survey: Arc::clone(self.survey()), ids: self.log.ids.clone() }
    }

    /// Calls `each` with the records that match, in the order of their numbers, with chains merged by time.
    ///
    /// All bytes are first searched for lines that name unconfirmed records. After that, little more is read than `each`
    /// asks for.
    pub(crate) fn for_each(&self, mut each: impl FnMut(Hit) -> Result<ControlFlow<()>>) -> Result<Trouble> {
        let survey = self.survey();
        let mut trouble = survey.trouble.clone();
        let chains: Vec<&Arc<Chain>> = self.chains().collect();
        let threads = match chains.len() {
            // One chain can use all threads. With a few chains, each gets one that reads ahead.
            1 => self.threads,
            2..=8 => 1,
            // Each thread needs memory of its own, so with many chains none reads ahead.
            _ => 0,
        };
        let mut walks: Vec<Walk> = chains
            .into_iter()
            .map(|chain| {
                let task = walk::SearchTask {
                    chain: Arc::clone(chain),
                    matcher: Arc::clone(&self.matcher),
                    survey: Arc::clone(survey),
                };
                Walk::new(&self.log, task, threads, self.is_reverse)
            })
            .collect();
        let (mut window, mut heads) = (Window::default(), BTreeMap::new());
        for (index, walk) in walks.iter_mut().enumerate() {
            heads.extend(walk.next(&mut window, &mut trouble).map(|(at, record)| ((at, index), record)));
        }
        while let Some(((_, index), record)) =
            if self.is_reverse { heads.pop_last() } else { heads.pop_first() }
        {
            // Only the chain of the last record has to advance: the heads of the others are still in the map. The
            // index breaks ties between equal times.
            let Some(walk) = walks.get_mut(index) else { break };
            if each(survey.unconfirmed.hit(record))?.is_break() {
                break;
            }
            heads.extend(walk.next(&mut window, &mut trouble).map(|(at, record)| ((at, index), record)));
        }
        Ok(trouble)
    }

    /// Adds up the records that match, in no order. Each thread has a sum of its own.
    pub(crate) fn fold<A: Send>(
        &self,
        new: impl Fn() -> A + Sync,
        add: impl Fn(&mut A, &Hit) + Sync,
    ) -> Result<(Vec<A>, Trouble)> {
        let survey = self.survey();
        let mut trouble = survey.trouble.clone();
        let start = || (new(), Trouble::default());
        let sums = self.log.each_chunk(
            self.threads,
            |chain| &chain.wanted,
            start,
            |(sum, trouble), window, chain, number| {
                self.matcher.chunk(survey, chain, number, window, trouble, |_, record| {
                    add(sum, &survey.unconfirmed.hit(record));
                });
            },
        );
        let (mut sums, troubles): (Vec<A>, Vec<Trouble>) = sums.into_iter().unzip();
        for other in troubles {
            trouble.merge(other);
        }
        // The tails are short, so one thread reads them after the chunks.
        for chain in self.chains() {
            let Some(sum) = sums.first_mut() else { break };
            let items = Reader::new(&self.log.dir).chain(chain.number).from_seq(chain.tail_from).items();
            for item in items.map_err(|error| explain(&self.log.dir, error))? {
                if let Some(record) = self.matcher.item(chain, item, &mut trouble) {
                    add(sum, &survey.unconfirmed.hit(record));
                }
            }
        }
        Ok((sums, trouble))
    }

    /// Returns the chains that the filter asks for.
    fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        let wanted = &self.matcher.filter.chain;
        self.log.chains.iter().filter(|chain| wanted.is_empty() || wanted.contains(&chain.number))
    }
}

/// The filter and its needles, shared by the threads.
struct Matcher {
    needles: Needles,
    filter: Filter,
}

impl Matcher {
    /// Calls `each` with the records of a chunk that match, and their segment.
    fn chunk(
        &self,
        survey: &Survey,
        chain: &Chain,
        number: usize,
        window: &mut Window,
        trouble: &mut Trouble,
        mut each: impl FnMut(&Segment, Record),
    ) {
        let Some(chunk) = chain.wanted.get(number) else { return };
        let segment = &chunk.span.segment;
        let Lines { offset, bytes: lines, unended } = match window.read(&chunk) {
            Ok(Some(read)) => read,
            Ok(None) => return trouble.gone(segment.path()),
            Err(error) => return trouble.bad(format!("cannot read {}: {error}", segment.path().display())),
        };
        let mut bad = |offset: u64, what: &str| {
            trouble.bad(format!("{}, byte {offset}: {what}", segment.path().display()));
        };
        let numbers = survey.numbers_of(chain, &chunk);
        // The numbers must increase: a copied line has a number again, or one from elsewhere.
        let mut before = 0;
        self.needles.each_line(lines, |start, line| {
            if self.is_elsewhere(line) {
                return;
            }
            let offset = offset + start as u64;
            match segment.record(offset, line) {
                Some(record) if chunk.span.has(record.seq()) => {
                    if record.seq() <= before || !numbers.contains(&record.seq()) {
                        return bad(offset, OUT_OF_PLACE);
                    }
                    before = record.seq();
                    if self.filter.matches(&record) {
                        each(segment, record);
                    }
                }
                _ => bad(offset, "no record of this log, or altered"),
            }
        });
        if let Some(offset) = unended {
            bad(offset, "a line that does not end where a line must");
        }
    }

    /// Returns whether a line begins with a number outside the range of the filter. Does not parse the line.
    fn is_elsewhere(&self, line: &[u8]) -> bool {
        // A line that does not begin like a record is not skipped: it is reported as bad.
        let Some(range) = self.filter.seq else { return false };
        let digits = line.strip_prefix(b"{\"seq\":").unwrap_or_default();
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(0);
        let seq = digits.get(..end).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        seq.is_some_and(|seq: u64| !(range.first..=range.last).contains(&seq))
    }

    /// Returns the record of an item from the library, if it matches.
    fn item(&self, chain: &Chain, item: Result<ReadItem, Error>, trouble: &mut Trouble) -> Option<Record> {
        match item {
            // The part before the tail is searched in chunks, which reports the line.
            Err(Error::BadLine { path, line, .. }) if chain.is_before_tail(&path, line) => None,
            Ok(ReadItem::Record(record)) => self.filter.matches(&record).then_some(record),
            Ok(_) => None,
            Err(error) => {
                trouble.bad(format!("{:#}", anyhow::Error::new(error)));
                None
            }
        }
    }
}

/// What could not be read.
#[derive(Debug, Default, Clone)]
#[must_use = "what could not be read must be reported"]
pub(crate) struct Trouble {
    bad: Vec<String>,
    bad_count: u64,
    gone: BTreeSet<String>,
}

impl Trouble {
    fn bad(&mut self, what: String) {
        self.bad_count += 1;
        if self.bad.len() < MAX_NAMED {
            self.bad.push(what);
        }
    }

    fn gone(&mut self, path: &Path) {
        self.gone.insert(path.display().to_string());
    }

    fn merge(&mut self, other: Self) {
        self.bad_count += other.bad_count;
        self.bad.extend(other.bad);
        // Each thread has named up to `MAX_NAMED` positions of its own.
        self.bad.truncate(MAX_NAMED);
        self.gone.extend(other.gone);
    }

    /// Prints what could not be read. Returns whether that is a fault, which files removed by retention are not.
    pub(crate) fn report(&self) -> bool {
        if let (Some(first), Some(last)) = (self.gone.first(), self.gone.last()) {
            let count = self.gone.len();
            print_stderr(&format!(
                "tracing-audit: {count} files were removed before they were searched: {first} to {last}"
            ));
        }
        for bad in &self.bad {
            print_stderr(&format!("tracing-audit: {bad}"));
        }
        if self.bad_count > 0 {
            let count = self.bad_count;
            print_stderr(&format!(
                "tracing-audit: {count} positions could not be read; run `tracing-audit verify` to see what is wrong"
            ));
        }
        self.bad_count > 0
    }
}
