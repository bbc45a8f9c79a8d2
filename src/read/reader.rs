//! The builder that says what to read of a log, and how.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{Records, items::ReadItems};
use crate::{
    chain::Head,
    clock::Timestamp,
    error::{Error, ParseError},
    segment_name::ChainNumber,
    storage::{Disk, Storage},
};

/// Reads a log: all of it, its end, what follows a record, or for as long as it is written.
///
/// The log is read in chunks while it is iterated, so a log of any length takes little memory. The reader never
/// writes, takes no lock, and works while other processes write, rotate and prune.
///
/// # Order
///
/// The records of a chain are returned in the order of their sequence numbers, whatever their times are. Chains are
/// merged by time. A reader that [follows](Self::follow) the log merges what it finds at each look. What was there
/// when it began is in order of time; what is found later is in order of time within each look.
///
/// # What is missing
///
/// Sequence numbers that are skipped are a [`ReadItem::Gap`](crate::ReadItem::Gap): retention removed the records
/// while they were read. A line that is not a record, or one in the wrong place, is an [`Error::BadLine`], after which
/// reading continues. What a later segment declares void is skipped.
///
/// Reading is not verification. Of a damaged log, a reader returns what it can read. One that begins in the middle or
/// reads backward may return less than one that reads from the beginning. It reports what it skips.
///
/// # Examples
///
/// The last ten records:
///
/// ```no_run
/// # fn main() -> Result<(), tracing_audit::Error> {
/// for record in tracing_audit::Reader::new("audit-log").last(10).records()? {
///     println!("{}", record?.as_json());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Every durable record after a kept head, until another thread stops the reader:
///
/// ```no_run
/// use tracing_audit::{Head, ReadItem, Reader};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kept: Head = std::fs::read_to_string("last-head")?.trim().parse()?;
/// let items = Reader::new("audit-log").after(kept).durable_only(true).follow(true).items()?;
/// let stopper = items.stopper();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_secs(60));
///     stopper.stop();
/// });
/// for item in items {
///     match item? {
///         ReadItem::Record(record) => println!("{} {}", record.head(), record.as_json()),
///         ReadItem::Gap { chain, first_seq, last_seq, .. } => {
///             eprintln!("records {first_seq} to {last_seq} of chain {chain} are gone");
///         }
///         // `Withdrawn`: with `durable_only`, this can only happen to a `close`.
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias = "tail")]
#[doc(alias = "query")]
#[must_use = "nothing is read before `records` or `items`"]
#[derive(Clone)]
pub struct Reader {
    dir: PathBuf,
    pub(super) plan: Plan,
    /// The names of chains as the caller gave them.
    chains: Vec<String>,
}

/// What to read, and how.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Only these chains; all chains if it is empty.
    pub(super) chains: BTreeSet<ChainNumber>,
    pub(super) after: Vec<Head>,
    pub(super) from_seq: u64,
    pub(super) since: Option<Timestamp>,
    pub(super) last: Option<u64>,
    pub(super) is_reverse: bool,
    pub(super) durable_only: bool,
    pub(super) follows: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Reader {
    /// Creates a reader of the whole log in a directory.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), plan: Plan::default(), chains: Vec::new() }
    }

    /// Reads this chain, and others given in further calls: as `"000"`, or as a number like that of [`Record::chain`].
    /// A chain that does not exist has no records; a reader that follows waits for it. Default: all chains, and those
    /// that begin while the log is followed.
    ///
    /// [`Record::chain`]: crate::Record::chain
    pub fn chain(mut self, chain: impl fmt::Display) -> Self {
        self.chains.push(chain.to_string());
        self
    }

    /// Begins after this record of its chain, without reading what precedes it. Chains without a head are read from
    /// their beginning. The log must have the record with this hash; otherwise [`items`](Self::items) returns
    /// [`Error::NoSuchRecord`]. If retention removed it and records after it, the missing ones are a
    /// [`ReadItem::Gap`](crate::ReadItem::Gap). The record counts as durable, like that of every head and receipt.
    /// Default: every chain from its beginning.
    #[doc(alias = "cursor")]
    #[doc(alias = "resume")]
    pub fn after(mut self, head: impl Into<Head>) -> Self {
        let head = head.into();
        self.plan.after.retain(|known| known.chain != head.chain);
        self.plan.after.push(head);
        self
    }

    /// Begins with the record of this sequence number, counted from 1, in every chain, without reading what precedes
    /// it. It is found by bisection, in some twenty small reads in 10 GB. If a reader that follows has to
    /// [withdraw](crate::ReadItem::Withdrawn) records, it also returns the records that replace them, even below this
    /// number. Default: 1.
    #[doc(alias = "seek")]
    pub fn from_seq(mut self, seq: u64) -> Self {
        self.plan.from_seq = seq;
        self
    }

    /// Reads only records with this time or a later one, and those without a time, without reading what precedes them.
    /// The position is found by bisection, and reading begins ten minutes early. So a record is missed only if a clock
    /// was set back by more than that after it. Default: records of every time.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.plan.since = Some(Timestamp::from_system_time(time));
        self
    }

    /// Reads only the last records of the log: this many in all, the newest when the chains are merged by time. They
    /// are found from the end, and what precedes them is not read. In a damaged log, more records may come before
    /// them. A reader that follows continues after them. Default: all.
    #[doc(alias = "tail")]
    #[doc(alias = "limit")]
    pub fn last(mut self, records: u64) -> Self {
        self.plan.last = Some(records);
        self
    }

    /// Reads from the newest record to the oldest, and no more than is taken. A torn tail is determined from the last
    /// durable record on, so the records are the same as when reading forward. Where times in a chain go back, it may
    /// be merged with other chains in a different order. Cannot be combined with [`follow`](Self::follow) or
    /// [`after`](Self::after). Default: `false`.
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.plan.is_reverse = reverse;
        self
    }

    /// Reads only records that the log states to be durable: those up to the last `durable` mark, and a `close` that
    /// nothing follows. A mark is part of the next write. If nothing more is written, the last records become durable
    /// for the reader with the `mark` that the writer writes after 60 s. No record is withdrawn later, with one
    /// exception. A `close` is durable a moment after it can be read, and a power cut in that moment removes it.
    /// Default: `false`, where [`Record::is_provisional`](crate::Record::is_provisional) marks the records not known
    /// to be durable.
    pub fn durable_only(mut self, durable_only: bool) -> Self {
        self.plan.durable_only = durable_only;
        self
    }

    /// Waits for more at the end of the log, through rotation, new chains and retention, until
    /// [`ReadItems::stopper`](crate::ReadItems::stopper) ends it. The reader checks for more every 10 ms, and after a
    /// while without anything new every 250 ms. It stays with the directory that was opened: one that is removed and
    /// created again under the same name needs a new reader. The directory must exist; it may be empty. Needs
    /// [`items`](Self::items). Whether a record is [`unconfirmed`](crate::Record::is_unconfirmed) is known only as far
    /// as the log can be read at that moment, because the record that names it may be written later. Default: `false`.
    #[doc(alias = "tail")]
    #[doc(alias = "watch")]
    pub fn follow(mut self, follow: bool) -> Self {
        self.plan.follows = follow;
        self
    }

    /// Begins to read the records alone; [`items`](Self::items) also returns which records are missing or withdrawn.
    ///
    /// # Errors
    ///
    /// Those of [`items`](Self::items), and [`Error::Setting`] with [`follow`](Self::follow): a program that follows a
    /// log must handle what is missing or withdrawn.
    pub fn records(self) -> Result<Records, Error> {
        let storage = self.storage()?;
        self.records_of(storage)
    }

    /// Begins to read.
    ///
    /// # Errors
    ///
    /// [`Error::NoLog`] where there is no directory or, without [`follow`](Self::follow), no segment in it.
    /// [`Error::Io`] where a segment cannot be read, [`Error::NoSuchRecord`] where the log does not have the record of
    /// [`after`](Self::after), [`Error::Parse`] for an invalid [`chain`](Self::chain), [`Error::Setting`] for settings
    /// that cannot be combined.
    pub fn items(self) -> Result<ReadItems, Error> {
        let storage = self.storage()?;
        self.items_of(storage)
    }

    /// Opens the directory without changing it.
    pub(super) fn storage(&self) -> Result<Arc<dyn Storage>, Error> {
        match Disk::open_existing(&self.dir) {
            Ok(disk) => Ok(Arc::new(disk)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoLog { path: self.dir.clone() })
            }
            Err(error) => Err(Error::io("open", &self.dir)(error)),
        }
    }

    /// Begins to read a log in any storage.
    #[expect(clippy::needless_pass_by_value, reason = "it is shared with every file that is opened")]
    pub(super) fn items_of(mut self, storage: Arc<dyn Storage>) -> Result<ReadItems, Error> {
        let Plan { is_reverse, follows, after, .. } = &self.plan;
        if *is_reverse && (*follows || !after.is_empty()) {
            let reason = "it cannot be combined with `follow` or `after`".to_owned();
            return Err(Error::Setting { setting: "reverse", reason });
        }
        for chain in &self.chains {
            self.plan.chains.insert(parse_chain(chain)?);
        }
        ReadItems::open(&storage, &self.plan, &self.dir)
    }

    /// Begins to read the records of a log in any storage.
    pub(crate) fn records_of(self, storage: Arc<dyn Storage>) -> Result<Records, Error> {
        if self.plan.follows {
            let reason = "it needs `items`, which say what is missing and withdrawn".to_owned();
            return Err(Error::Setting { setting: "follow", reason });
        }
        self.items_of(storage).map(Records)
    }
}

/// Parses a chain number of one to three digits.
fn parse_chain(text: &str) -> Result<ChainNumber, Error> {
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number).and_then(ChainNumber::new);
    number.ok_or_else(|| Error::Parse(ParseError::new("chain", text, "a number from 0 to 999")))
}
