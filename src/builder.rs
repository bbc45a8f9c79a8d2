//! Every setting, with its default and its check.

use std::{path::Path, time::Duration};

use tracing_core::Level;

use crate::{
    capture::{Candidate, Enrichment, Rules, named_bit},
    chain::Head,
    error::Error,
    heads::OnHead,
    log::AuditLog,
    segment_name::{MAX_FORWARD_REQUIRED, is_forwarder_name},
    settings::{FlushMode, OnFailure, OnFull, Retention, Rotation},
    severity::Severity,
    stats::Notice,
    wiring::{self, MIN_SEGMENT_BYTES, Plan},
};

const MIB: u64 = 1 << 20;
/// The smallest queue. A few of the longest events fit, even in the quarter reserved for critical ones.
const MIN_QUEUE_BYTES: u64 = MIB;
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const MIN_HEAD_INTERVAL: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_SERVICE: usize = 256;

/// Settings of a log that is about to be opened.
///
/// Created by [`AuditLog::builder`]. Every setting has a default, and [`open`](Self::open) checks them all.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), tracing_audit::Error> {
/// use std::time::Duration;
/// use tracing_audit::{AuditLog, OnFull, Retention, Rotation};
///
/// let audit = AuditLog::builder("/var/lib/shop/audit")
///     .service("shop")
///     .critical_actions(["payment.refund"])
///     .rotation(Rotation::daily().max_bytes(64 << 20))
///     .retention(Retention::keep_all().max_age(Duration::from_secs(400 * 24 * 3600)))
///     .on_full(OnFull::DropRoutine)
///     .on_notice(|notice| eprintln!("audit: {notice}"))
///     .open()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until `open` is called"]
pub struct Builder {
    plan: Plan,
    /// Names that cannot be matched, each with its setting. Setters do not fail, so `open` reports them.
    bad_names: Vec<(&'static str, String)>,
    /// Names given to `explicit` that are not named members. `open` reports them too.
    bad_members: Vec<String>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("dir", &self.plan.dir)
            .field("service", &self.plan.service)
            .field("flush_mode", &self.plan.flush_mode)
            .field("rotation", &self.plan.rotation)
            .field("retention", &self.plan.retention)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(dir: &Path) -> Self {
        let plan = Plan {
            dir: dir.to_owned(),
            service: program_name(),
            flush_mode: FlushMode::default(),
            rotation: Rotation::default(),
            retention: Retention::default(),
            exclusive: false,
            wait_for_chain: Duration::from_millis(250),
            rules: Rules::default(),
            queue_bytes: 16 * MIB,
            wait_bound: Duration::from_secs(5),
            low_space: 64 * MIB,
            group_readable: false,
            allow_network_fs: false,
            on_full: OnFull::default(),
            on_failure: OnFailure::default(),
            stderr: true,
            on_notice: None,
            on_head: None,
            #[cfg(feature = "fault-injection")]
            faults: None,
        };
        Self { plan, bad_names: Vec::new(), bad_members: Vec::new() }
    }

    /// Sets the program name written to each `open` record, at most 256 bytes. Default: the name of the
    /// executable.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.plan.service = service.into();
        self
    }

    /// Sets when records are synced to disk. Default: [`FlushMode::default`], hybrid.
    pub fn flush_mode(mut self, mode: FlushMode) -> Self {
        self.plan.flush_mode = mode;
        self
    }

    /// Sets when a new segment begins. Default: daily, or at 256 MiB.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.plan.rotation = rotation;
        self
    }

    /// Sets which old segments are removed. Default: none, ever.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.plan.retention = retention;
        self
    }

    /// Restricts the log to chain 000. A second opener, in this or another process, gets [`Error::Locked`] instead of
    /// its own chain, after the wait of [`wait_for_chain`](Self::wait_for_chain). Default: off.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.plan.exclusive = exclusive;
        self
    }

    /// Sets how long `open` waits for a chain that another process took less than a second ago. Default: 250 ms.
    ///
    /// After this time, `open` creates a new chain, or with `exclusive` returns [`Error::Locked`]. The wait lets
    /// short-lived processes share a few chains; long-lived processes that start together wait once. In any case `open`
    /// retries for at least 100 ms, even if this setting is shorter or every chain has been held for longer than a
    /// second, because a verification holds locks for a moment.
    pub fn wait_for_chain(mut self, wait: Duration) -> Self {
        self.plan.wait_for_chain = wait;
        self
    }

    /// Sets the least severe level of audit events; an event below it is not one. Default: `INFO`.
    pub fn level(mut self, level: Level) -> Self {
        self.plan.rules.level = level;
        self
    }

    /// Sets the least severe level of the spans from which events inherit. Default: `DEBUG`, or `level` if that is lower.
    ///
    /// If it is set, [`ensure_attached`](AuditLog::ensure_attached) requires that spans of this level reach the log.
    /// If not, it requires only those of [`level`](Self::level), and spans of lower levels are used where they exist.
    /// The log requests this level from `tracing`, so a lower one makes more call sites active.
    pub fn span_level(mut self, level: Level) -> Self {
        self.plan.rules.span_level = Some(level);
        self
    }

    /// Adds critical actions to the ten built-in ones. Only letters and digits are compared, ignoring
    /// case. Default: none.
    pub fn critical_actions<I>(mut self, actions: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        for action in actions {
            if !self.plan.rules.critical.insert(action.as_ref()) {
                self.bad_names.push(("critical_actions", action.as_ref().to_owned()));
            }
        }
        self
    }

    /// Sets a closure that decides the severity of an event; `None` leaves it to the critical actions. Default: no
    /// closure.
    ///
    /// It is called on the emitting thread, for every audit event that has no `severity` or one that is not
    /// recognised. If it panics, the event is critical, since it might have been.
    pub fn classify<F>(mut self, classify: F) -> Self
    where
        F: Fn(&Candidate<'_>) -> Option<Severity> + Send + Sync + 'static,
    {
        self.plan.rules.classify = Some(Box::new(classify));
        self
    }

    /// Adds span fields that events inherit. Default: none.
    ///
    /// Always inherited are the fields for who and where: `actor`, `session_id`, `request_id`, `source`, `trace_id` and
    /// `span_id`. The fields for what happened (`action`, `resource`, `outcome`, `reason`) are inherited only if named
    /// here, because spans of libraries have fields with these names too. Fields with other names are recorded under
    /// `fields`.
    pub fn inherit<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.plan.rules.inherit.extend(names.into_iter().map(Into::into));
        self
    }

    /// Limits inheritance to spans with one of these targets, or a target below one. Default: all spans.
    ///
    /// `my_app` covers `my_app::http` but not `my_apple`. The target of a span is the module that creates it, unless the
    /// span sets another. Spans with the target `audit` are always used.
    pub fn inherit_from<I>(mut self, targets: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.plan.rules.inherit_from.extend(targets.into_iter().map(Into::into));
        self
    }

    /// Adds named members that must come from the event itself or from [`enrich`](Self::enrich). Default: none.
    ///
    /// If such a member is missing, or inherited from a span, the record lists it in `incomplete`. Use this for code
    /// that may hold a span guard across an `.await`, which gives the `actor` of one task to another.
    pub fn explicit<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        for name in names {
            match named_bit(name.as_ref()) {
                Some(bit) => self.plan.rules.explicit |= bit,
                None => self.bad_members.push(name.as_ref().to_owned()),
            }
        }
        self
    }

    /// Sets a closure that adds to each audit event what neither it nor its spans have. Default: no closure.
    ///
    /// Examples are a tenant from a task-local and the trace id of another library.
    ///
    /// It is called on the emitting thread, before the severity is decided, and not for an event that is already lost.
    /// Values are redacted and cut like those of the event. Audit events emitted from the closure are counted as lost,
    /// not recorded. If the closure panics, the event is recorded with the fields added so far, and `incomplete` lists
    /// `enrich`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), tracing_audit::Error> {
    /// # use std::cell::Cell;
    /// thread_local! {
    ///     static TENANT: Cell<u64> = const { Cell::new(0) };
    /// }
    ///
    /// let audit = tracing_audit::AuditLog::builder("audit-log")
    ///     .enrich(|event| event.set_u64("tenant", TENANT.get()))
    ///     .open()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn enrich<F>(mut self, enrich: F) -> Self
    where
        F: Fn(&mut Enrichment<'_>) + Send + Sync + 'static,
    {
        self.plan.rules.enrich = Some(Box::new(enrich));
        self
    }

    /// Adds field names whose values are withheld, besides `password`, `token`, `secret` and the like. Default: none.
    ///
    /// Names are split into words at separators, at digits and at changes of case. A field is withheld if its name
    /// contains the words of one of these names side by side, ignoring case: `iban` covers `customerIban` but not
    /// `ibanez`. A name in a script without capitals covers every name that contains it. The field `severity` cannot be
    /// withheld, since every record has its severity.
    pub fn redact<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        for name in names {
            if !self.plan.rules.redact.insert(name.as_ref()) {
                self.bad_names.push(("redact", name.as_ref().to_owned()));
            }
        }
        self
    }

    /// Adds field names whose values are recorded although [`redact`](Self::redact) or a built-in name covers them.
    /// Default: none.
    ///
    /// Only whole names match, compared by letters and digits and ignoring case: `token_count` exempts `tokenCount` but
    /// not `token`. With `return`, the values that `#[instrument(ret)]` reports are recorded.
    pub fn keep<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        for name in names {
            if !self.plan.rules.redact.keep(name.as_ref()) {
                self.bad_names.push(("keep", name.as_ref().to_owned()));
            }
        }
        self
    }

    /// Sets how many bytes of events may be queued or not yet durable, at least 1 MiB. A quarter is
    /// reserved for critical events. Default: 16 MiB.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.plan.queue_bytes = bytes;
        self
    }

    /// Sets the longest time that an open log blocks a caller, from 1 ms to 1 h. Default: 5 s.
    ///
    /// Dropping the last handle can take 100 ms more, and so can a call that prints to a standard error that no process
    /// reads. With [`OnFailure::Abort`], the thread then waits at most as long again for the last attempt to write.
    pub fn wait_bound(mut self, bound: Duration) -> Self {
        self.plan.wait_bound = bound;
        self
    }

    /// Sets the number of free bytes below which the log reports low space; 0 turns this off. Default: 64 MiB.
    pub fn low_space(mut self, bytes: u64) -> Self {
        self.plan.low_space = bytes;
        self
    }

    /// Creates directories with mode 0750 and segments with 0640, instead of 0700 and 0600. Default: off.
    ///
    /// A log shipper in the group can then read them. Lock files are always 0600: a process that can read one can hold
    /// its lock and keep writers out (flock(2)).
    pub fn group_readable(mut self, readable: bool) -> Self {
        self.plan.group_readable = readable;
        self
    }

    /// Allows network and cluster file systems. Default: off.
    ///
    /// NFS, SMB and 9p do not have the locks and syncs that this library depends on. File systems mounted on several
    /// machines at once (Ceph, Lustre, GPFS, OCFS2, GFS2) may lock within one machine only.
    pub fn allow_network_fs(mut self, allow: bool) -> Self {
        self.plan.allow_network_fs = allow;
        self
    }

    /// Sets whether the log prints a line to standard error when events are not recorded. Default: on.
    ///
    /// That is when critical events are lost or not confirmed, when the disk refuses events, and when events are
    /// emitted after `close` or in a forked child. Lost routine events of an open log are reported as notices only.
    /// Events lost as [`LossReason::Reentrant`](crate::LossReason::Reentrant) are only counted.
    ///
    /// It prints at most one line a minute. Turn it off where standard error is a terminal interface, and use
    /// [`on_notice`](Self::on_notice) instead.
    pub fn stderr(mut self, print: bool) -> Self {
        self.plan.stderr = print;
        self
    }

    /// Sets what happens to a routine event when its part of the queue is full. Default: [`OnFull::Block`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.plan.on_full = on_full;
        self
    }

    /// Sets what happens when a critical event cannot be recorded. Default: [`OnFailure::Continue`].
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.plan.on_failure = on_failure;
        self
    }

    /// Sets a closure that is called with each operator notice, on a dedicated thread. Default: no closure.
    ///
    /// At most 256 notices wait for it; further ones are dropped and counted in
    /// [`Stats::notices_dropped`](crate::Stats::notices_dropped). Audit events emitted from the closure are counted as
    /// lost, not recorded.
    ///
    /// A log is opened before the subscriber that will contain its layer exists. The closure may report notices through
    /// `tracing`, so notices are held back until a subscriber with the layer is installed with `init()` or
    /// `set_global_default`. This delay lasts at most one second after `open`, and not beyond `close`. The notices of
    /// opening are also in [`AuditLog::recovery`], without delay.
    pub fn on_notice<F>(mut self, on_notice: F) -> Self
    where
        F: Fn(&Notice) + Send + 'static,
    {
        self.plan.on_notice = Some(Box::new(on_notice));
        self
    }

    /// Sets a closure that is called with the durable head of this log, at most once in each interval (10 ms to 24 h).
    /// Default: no closure.
    ///
    /// Store the heads where the owner of the log cannot write. If the log is truncated or rewritten below a stored
    /// head, a verification with that head finds it damaged.
    ///
    /// The first call comes one interval after `open`. There is no call while nothing new becomes durable. The closure
    /// runs on a dedicated thread and may block it: heads in between are then skipped, and nothing else waits. A panic
    /// in it is caught, and the calls continue. Audit events emitted from it are counted as lost, not recorded.
    ///
    /// When the log ends, by [`close`](AuditLog::close) or with its last handle, the closure gets the last head at
    /// once. Closing waits for it to return, within the wait bound. In a process that is killed, the closure is not
    /// called for what became durable since its last call. So choose the interval by how much of the end of the log may
    /// be cut off undetected.
    ///
    /// The closure sees one chain, the one that this log writes: store the heads of every process.
    pub fn on_head<F>(mut self, interval: Duration, on_head: F) -> Self
    where
        F: Fn(Head) + Send + 'static,
    {
        self.plan.on_head = Some(OnHead { interval, tell: Box::new(on_head) });
        self
    }

    /// Injects disk faults into this log through a switch, for tests of an application only. Needs the
    /// feature `fault-injection`. Default: none.
    #[cfg(feature = "fault-injection")]
    pub fn faults(mut self, faults: &crate::Faults) -> Self {
        self.plan.faults = Some(faults.clone());
        self
    }

    /// Opens the log, and returns when its `open` record is durable.
    ///
    /// Creates the directory (mode 0700) if it does not exist and takes the lowest-numbered free chain. It recovers this
    /// chain, and those that other processes left without `close`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a value out of range, [`Error::InsecureDirectory`] for a directory that is a
    /// symlink, belongs to another user or is writable by others, [`Error::NetworkFileSystem`],
    /// [`Error::Locked`] with `exclusive`, [`Error::NoChain`], [`Error::Thread`] if a thread could not be started, and
    /// [`Error::Io`] with the path for any operation that the system refuses.
    pub fn open(self) -> Result<AuditLog, Error> {
        self.check()?;
        wiring::start(self.plan).map(AuditLog::of)
    }

    /// Returns every setting that can be compared, as text.
    #[cfg(all(test, feature = "serde"))]
    pub(crate) fn everything(&self) -> String {
        // Without `..`, so that a new setting does not compile until it is compared.
        let Self { plan, bad_names, bad_members } = self;
        let Plan {
            dir,
            service,
            flush_mode,
            rotation,
            retention,
            exclusive,
            wait_for_chain,
            rules,
            queue_bytes,
            wait_bound,
            low_space,
            group_readable,
            allow_network_fs,
            on_full,
            on_failure,
            stderr,
            on_notice: _,
            on_head: _,
            #[cfg(feature = "fault-injection")]
                faults: _,
        } = plan;
        let critical = rules.critical.contains("key.export");
        let first =
            (dir, service, flush_mode, rotation, retention, exclusive, wait_for_chain, rules, critical);
        let second =
            (queue_bytes, wait_bound, low_space, group_readable, allow_network_fs, on_full, on_failure);
        format!("{first:?} {second:?} {stderr} {bad_names:?} {bad_members:?}")
    }

    fn check(&self) -> Result<(), Error> {
        in_range("dir", !self.plan.dir.as_os_str().is_empty(), "the path is empty")?;
        let (size, interval) = match self.plan.flush_mode {
            FlushMode::Immediate => (1, MIN_INTERVAL),
            FlushMode::Batched { size, interval } => (size, interval),
            FlushMode::Hybrid { batch_size, batch_interval, .. } => (batch_size, batch_interval),
        };
        in_range("flush_mode", size >= 1, "a batch must have at least 1 record")?;
        in_range(
            "flush_mode",
            (MIN_INTERVAL..=HOUR).contains(&interval),
            "the batch interval must be from 1 ms to 1 h",
        )?;
        // The longest line must fit a segment.
        in_range(
            "rotation",
            self.plan.rotation.max_bytes >= MIN_SEGMENT_BYTES,
            "a segment must be allowed at least 64 KiB",
        )?;
        check_retention(&self.plan.retention)?;
        in_range("queue_bytes", self.plan.queue_bytes >= MIN_QUEUE_BYTES, "the queue needs at least 1 MiB")?;
        in_range(
            "wait_bound",
            (MIN_INTERVAL..=HOUR).contains(&self.plan.wait_bound),
            "the bound must be from 1 ms to 1 h",
        )?;
        in_range(
            "on_head",
            self.plan
                .on_head
                .as_ref()
                .is_none_or(|on_head| (MIN_HEAD_INTERVAL..=DAY).contains(&on_head.interval)),
            "the interval of heads must be from 10 ms to 24 h",
        )?;
        in_range("service", self.plan.service.len() <= MAX_SERVICE, "the name must be at most 256 bytes")?;
        if let Some((setting, name)) = self.bad_names.first() {
            let reason = format!("{name:?} has no letter or digit to compare, or more than 128");
            return Err(Error::Setting { setting, reason });
        }
        if let Some(name) = self.bad_members.first() {
            let reason =
                format!("{name:?} is not a named member, such as `actor` or `action`; see docs/events.md");
            return Err(Error::Setting { setting: "explicit", reason });
        }
        let rules = &self.plan.rules;
        // After all names were added, because `keep` can exempt what `redact` covers, in either order.
        in_range(
            "redact",
            !rules.redact.covers("severity"),
            "`severity` cannot be withheld, because every record has its severity",
        )?;
        in_range(
            "inherit_from",
            !rules.inherit_from.iter().any(String::is_empty),
            "an empty target would match every target; leave it out",
        )?;
        // Call sites that tracing compiles out would be missing without an error. The default of `span_level` is not
        // checked, because spans below `level` are optional then.
        in_range(
            "span_level",
            rules.span_level.is_none_or(|level| level <= tracing::level_filters::STATIC_MAX_LEVEL),
            "this build strips spans of that level: remove tracing's `max_level_…` or \
             `release_max_level_…` feature, or choose a level that it keeps",
        )?;
        in_range(
            "level",
            self.plan.rules.level <= tracing::level_filters::STATIC_MAX_LEVEL,
            "this build strips events of that level: remove tracing's `max_level_…` or \
             `release_max_level_…` feature, or choose a level that it keeps",
        )
    }
}

fn in_range(setting: &'static str, good: bool, reason: &str) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Setting { setting, reason: reason.to_owned() }) }
}

fn check_retention(retention: &Retention) -> Result<(), Error> {
    let Retention { max_age, max_bytes, max_segments, min_age, require_forwarded, unless_free_below } =
        retention;
    in_range("retention", *max_segments != Some(0), "`max_segments` must be at least 1")?;
    in_range(
        "retention",
        *max_age != Some(Duration::ZERO) && *max_bytes != Some(0),
        "a limit of 0 would remove every finished segment at once; leave it out to keep all",
    )?;
    in_range(
        "retention",
        max_age.zip(*min_age).is_none_or(|(max, min)| max >= min),
        "`min_age` is longer than `max_age`, so nothing would be removed by age",
    )?;
    if let Some(name) = require_forwarded.iter().find(|name| !is_forwarder_name(name)) {
        let reason = format!(
            "{name:?} is not a forwarder name: 1 to 32 characters from `a` to `z`, `0` to `9` and `-`"
        );
        return Err(Error::Setting { setting: "retention", reason });
    }
    // `forward-required` must fit one sector, which a disk writes as a whole or not at all.
    in_range(
        "retention",
        require_forwarded.iter().map(|name| name.len() + 1).sum::<usize>() <= MAX_FORWARD_REQUIRED,
        "the names of all forwarders must take at most 512 bytes, including 1 byte after each",
    )?;
    in_range(
        "retention",
        unless_free_below.is_none() || !require_forwarded.is_empty(),
        "`unless_free_below` needs `require_forwarded`",
    )
}

fn program_name() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
