//! What to read of a log, and how.

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
/// It reads while it is iterated, in windows, so that a log of any length takes little memory. It never writes, takes
/// no lock, and works while other processes write, rotate and prune.
///
/// # Order
///
/// The records of a chain come in the order of their numbers, whatever their times are. Chains are merged by time. A
/// reading that [follows](Self::follow) merges what it finds at each look: what was there when it began is in order of
/// time, and what comes later is in order of time as far as it was found together.
///
/// # What is not there
///
/// Numbers that are passed over are a [`ReadItem::Gap`](crate::ReadItem::Gap): retention removed the records while they
/// were read. A line that is no record, or one that stands where it does not belong, is an [`Error::BadLine`], after which
/// the reading goes on. What a later segment declares void is passed over.
///
/// A reading is no verification: in a damaged log it hands out what it can read, and one that begins inside or goes
/// backward may hand out less than one from the beginning. What it passes over it says.
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
/// Every durable record behind a kept one, until another thread says that it is enough:
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
///         // Nothing is withdrawn that is durable.
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
    /// The names of chains as they were given.
    chains: Vec<String>,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Only these chains, if any are named.
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
    /// A reader of the whole log in a directory.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().to_owned(), plan: Plan::default(), chains: Vec::new() }
    }

    /// Reads this chain, and others that are named like this: `"000"`, or a number as [`Record::chain`] gives it. A
    /// chain that is not there has no records; one that follows waits for it. Default: all chains, and those that begin
    /// while the log is followed.
    ///
    /// [`Record::chain`]: crate::Record::chain
    pub fn chain(mut self, chain: impl fmt::Display) -> Self {
        self.chains.push(chain.to_string());
        self
    }

    /// Begins behind this record of its chain, without reading what lies before. Chains for which no head is given are
    /// read from their beginning. The log must have the record, with this hash: else [`items`](Self::items) returns
    /// [`Error::NoSuchRecord`]. If retention removed it and more behind it, what is missing is a
    /// [`ReadItem::Gap`](crate::ReadItem::Gap). The record counts as durable, as that of every head and receipt is.
    /// Default: every chain from its beginning.
    #[doc(alias = "cursor")]
    #[doc(alias = "resume")]
    pub fn after(mut self, head: impl Into<Head>) -> Self {
        let head = head.into();
        self.plan.after.retain(|known| known.chain != head.chain);
        self.plan.after.push(head);
        self
    }

    /// Begins with the record of this number, counted from 1, in every chain, without reading what lies before: it is
    /// found by bisecting, in some twenty small reads in 10 GB. One that follows and has to
    /// [withdraw](crate::ReadItem::Withdrawn) records hands out those that take their place, also below this number.
    /// Default: 1.
    #[doc(alias = "seek")]
    pub fn from_seq(mut self, seq: u64) -> Self {
        self.plan.from_seq = seq;
        self
    }

    /// Reads only records whose time is this or later, and those that have none, without reading what lies before. The
    /// place is found by bisecting, and begins ten minutes early: a record is missed only if a clock was set back by
    /// more than that behind it. Default: records of every time.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.plan.since = Some(Timestamp::from_system_time(time));
        self
    }

    /// Reads only the last records of the log: so many in all, the newest when the chains are merged by time. They are
    /// found from the end on, and what lies before is not read. In a damaged log there may be more before them. One that
    /// follows goes on behind them. Default: all.
    #[doc(alias = "tail")]
    #[doc(alias = "limit")]
    pub fn last(mut self, records: u64) -> Self {
        self.plan.last = Some(records);
        self
    }

    /// Reads from the newest record to the oldest, without reading more than is taken. What a torn tail is, is told
    /// from the last durable record on, so that the same records come as forward. Where times in a chain go back, it
    /// may be merged with others in another order. Cannot be combined with [`follow`](Self::follow) or
    /// [`after`](Self::after). Default: `false`.
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.plan.is_reverse = reverse;
        self
    }

    /// Reads only records that the log says are durable: those up to the last `durable` mark, and a `close` that nothing
    /// follows. The mark stands in the next write: the last records of a log that then rests come with the `mark` that
    /// the writer writes after 60 s. None is withdrawn later, with one exception: a `close` is durable a moment after it
    /// can be read, and a power cut in that moment takes it back. Default: `false`, with
    /// [`Record::is_provisional`](crate::Record::is_provisional).
    pub fn durable_only(mut self, durable_only: bool) -> Self {
        self.plan.durable_only = durable_only;
        self
    }

    /// Goes on when the end is reached: waits for more, through rotation, new chains and retention, until
    /// [`ReadItems::stopper`](crate::ReadItems::stopper) ends it. It stays with the directory that was opened: one that is
    /// removed and made again under the same name must be read anew. It looks every 10 ms, and after a while without
    /// anything new every 250 ms. The directory must be there; it may be empty. Needs [`items`](Self::items). Whether a
    /// record is [`unconfirmed`](crate::Record::is_unconfirmed) is known only as far as it can be read at that moment: what
    /// names it may be written later. Default: `false`.
    #[doc(alias = "tail")]
    #[doc(alias = "watch")]
    pub fn follow(mut self, follow: bool) -> Self {
        self.plan.follows = follow;
        self
    }

    /// Begins to read. What is no record is left out; see [`items`](Self::items) for a reading that says what is
    /// missing.
    ///
    /// # Errors
    ///
    /// Those of [`items`](Self::items), and [`Error::Setting`] with [`follow`](Self::follow): who follows must hear
    /// what is missing and withdrawn.
    pub fn records(self) -> Result<Records, Error> {
        let storage = self.storage()?;
        self.records_of(storage)
    }

    /// Begins to read.
    ///
    /// # Errors
    ///
    /// [`Error::NoLog`] where there is no segment, [`Error::Io`] where one cannot be read, [`Error::NoSuchRecord`]
    /// where the log does not have the record of [`after`](Self::after), [`Error::Parse`] for a
    /// [`chain`](Self::chain) that is none, [`Error::Setting`] for settings that cannot be combined.
    pub fn items(self) -> Result<ReadItems, Error> {
        let storage = self.storage()?;
        self.items_of(storage)
    }

    pub(super) fn storage(&self) -> Result<Arc<dyn Storage>, Error> {
        match Disk::open_existing(&self.dir) {
            Ok(disk) => Ok(Arc::new(disk)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoLog { path: self.dir.clone() })
            }
            Err(error) => Err(Error::io("open", &self.dir)(error)),
        }
    }

    /// The same wherever the log is stored.
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

    /// The records wherever the log is stored.
    pub(crate) fn records_of(self, storage: Arc<dyn Storage>) -> Result<Records, Error> {
        if self.plan.follows {
            let reason = "it needs `items`, which say what is missing and withdrawn".to_owned();
            return Err(Error::Setting { setting: "follow", reason });
        }
        self.items_of(storage).map(Records)
    }
}

/// One to three digits.
fn parse_chain(text: &str) -> Result<ChainNumber, Error> {
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number).and_then(ChainNumber::new);
    number.ok_or_else(|| Error::Parse(ParseError::new("chain", text, "a number from 0 to 999")))
}
