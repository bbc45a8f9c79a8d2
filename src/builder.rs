//! Every knob, its default, its check.

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
/// The smallest queue: a few of the longest events fit, and a quarter of it too.
const MIN_QUEUE_BYTES: u64 = MIB;
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const MIN_HEAD_INTERVAL: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_SERVICE: usize = 256;

/// Settings of a log that is about to be opened.
///
/// Made by [`AuditLog::builder`]; every setting has a default, and [`open`](Self::open) checks all.
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
    /// Names that cannot be compared, and the setting that they were given to.
    bad_names: Vec<(&'static str, String)>,
    /// Names that were given to `explicit` and are no named members.
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

    /// The name of the program in each `open` record, at most 256 bytes. Default: the name of the
    /// executable.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.plan.service = service.into();
        self
    }

    /// When records are synced to disk. Default: [`FlushMode::default`], hybrid.
    pub fn flush_mode(mut self, mode: FlushMode) -> Self {
        self.plan.flush_mode = mode;
        self
    }

    /// When a new segment begins. Default: daily, or at 256 MiB.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.plan.rotation = rotation;
        self
    }

    /// Which old segments are removed. Default: none, ever.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.plan.retention = retention;
        self
    }

    /// Accepts chain 000 only: a second opener, in this or another process, gets [`Error::Locked`] instead of a chain
    /// of its own. It waits before it does: see [`wait_for_chain`](Self::wait_for_chain). Default: off.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.plan.exclusive = exclusive;
        self
    }

    /// How long `open` waits for a chain that another process took less than a second ago, before it makes a new one,
    /// or with `exclusive` returns [`Error::Locked`]. So processes that live for a moment share a few chains, and
    /// those that live long and start together wait once. Where every chain is held for longer, `open` tries for 100 ms
    /// in any case, because a verification looks at locks for a moment. At most an hour. Default: 250 ms.
    pub fn wait_for_chain(mut self, wait: Duration) -> Self {
        self.plan.wait_for_chain = wait;
        self
    }

    /// The lowest level of audit events: below it, an event is not one. Default: `INFO`.
    pub fn level(mut self, level: Level) -> Self {
        self.plan.rules.level = level;
        self
    }

    /// The least severe level of the spans from which events inherit. If it is set,
    /// [`ensure_attached`](AuditLog::ensure_attached) requires that spans of this level reach the log; if not, only those of
    /// [`level`](Self::level), and spans of lower levels are used where they exist. The log asks `tracing` for this level,
    /// so a lower one makes more call sites active. Default: `DEBUG`, or `level` if that is lower.
    pub fn span_level(mut self, level: Level) -> Self {
        self.plan.rules.span_level = Some(level);
        self
    }

    /// More actions that are critical, beside the ten built in. Only letters and digits are
    /// compared, without case. Default: none.
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

    /// Decides about severity before the critical actions do; `None` leaves it to them. Called on
    /// the emitting thread for every audit event without a `severity` that is understood; after a panic in
    /// it the event is critical, because nobody can say any more that it is not. Default: no closure.
    pub fn classify<F>(mut self, classify: F) -> Self
    where
        F: Fn(&Candidate<'_>) -> Option<Severity> + Send + Sync + 'static,
    {
        self.plan.rules.classify = Some(Box::new(classify));
        self
    }

    /// More span fields that events inherit, beside who and where: `actor`, `session_id`, `request_id`, `source`,
    /// `trace_id` and `span_id`. What happened (`action`, `resource`, `outcome`, `reason`) is inherited only if it is
    /// named here, because spans of libraries have fields of these names too. Other names stand under `fields`.
    /// Default: none.
    pub fn inherit<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.plan.rules.inherit.extend(names.into_iter().map(Into::into));
        self
    }

    /// Events inherit only from spans whose target is one of these or something in it: `my_app` covers
    /// `my_app::http`, and not `my_apple`. A span has the target of the module that makes it, unless it says another. Spans
    /// with the target `audit` always count. Default: from all spans.
    pub fn inherit_from<I>(mut self, targets: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.plan.rules.inherit_from.extend(targets.into_iter().map(Into::into));
        self
    }

    /// Named members that a record shall have from its event itself, or from [`enrich`](Self::enrich): where such a
    /// member is inherited from a span, or missing, `incomplete` names it. For code that may hold the guard of a span
    /// over an `.await`, which gives the `actor` of one task to another. Default: none.
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

    /// Adds to each audit event what neither it nor its spans say: a tenant from a task-local, the trace of another
    /// library. Called on the emitting thread, before the severity is decided, and never for an event that is lost
    /// before. Values are redacted and cut like those of the event. Audit events emitted from the closure are counted as
    /// lost, not recorded. After a panic in it the event is recorded with what was added until then, and `incomplete`
    /// names `enrich`. Default: no closure.
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

    /// More names of fields whose value is withheld, beside `password`, `token`, `secret` and their like. Names are
    /// split into words at separators, at digits and at changes of case, and a field is withheld when the words of one
    /// of these names stand together in its own, without regard to case: `iban` covers `customerIban` and not `ibanez`.
    /// A name of a script without capitals covers every name that contains it.
    /// The field `severity` cannot be withheld, since each record says its severity. Default: none.
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

    /// Names of fields whose value is recorded, although [`redact`](Self::redact) or a built-in name covers them. Only
    /// whole names, compared by letters and digits without case: `token_count` takes `tokenCount` out, and not `token`.
    /// `return` has the values that `#[instrument(ret)]` reports recorded. Default: none.
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

    /// How many bytes of events may be queued or not yet durable, at least 1 MiB. A quarter is kept
    /// for critical events. Default: 16 MiB.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.plan.queue_bytes = bytes;
        self
    }

    /// How long anything of this log blocks a caller at most, from 1 ms to 1 h. Default: 5 s.
    pub fn wait_bound(mut self, bound: Duration) -> Self {
        self.plan.wait_bound = bound;
        self
    }

    /// Free bytes below which the log says that space is low; 0 turns it off. Default: 64 MiB.
    pub fn low_space(mut self, bytes: u64) -> Self {
        self.plan.low_space = bytes;
        self
    }

    /// Makes directories 0750 and segments 0640 instead of 0700 and 0600, so that a log shipper in the
    /// group can read them. Lock files are 0600 in any case: who can read one can hold it, and keep writers out.
    /// Default: off.
    pub fn group_readable(mut self, readable: bool) -> Self {
        self.plan.group_readable = readable;
        self
    }

    /// Accepts NFS, SMB and 9p, whose locks and syncs the promises of this library cannot rest on, and file systems that
    /// several machines have at the same time (Ceph, Lustre, GPFS, OCFS2, GFS2), whose locks may be those of one machine.
    /// Default: off.
    pub fn allow_network_fs(mut self, allow: bool) -> Self {
        self.plan.allow_network_fs = allow;
        self
    }

    /// Whether the log prints a line to standard error when critical events are lost or the disk refuses them, at most
    /// one a minute. Turn it off where standard error is a terminal interface, and hear
    /// [`on_notice`](Self::on_notice) instead. Default: on.
    pub fn stderr(mut self, print: bool) -> Self {
        self.plan.stderr = print;
        self
    }

    /// What a routine event does when its part of the queue is full. Default: [`OnFull::Block`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.plan.on_full = on_full;
        self
    }

    /// What happens when a critical event cannot be recorded. Default: [`OnFailure::Continue`].
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.plan.on_failure = on_failure;
        self
    }

    /// Called with each operator notice, on a dedicated thread. At most 256 notices wait for it;
    /// more are counted in [`Stats::notices_dropped`](crate::Stats::notices_dropped). Audit events
    /// emitted from it are counted as lost, not recorded. Default: no closure.
    ///
    /// A log is opened before the subscriber exists that its layer goes to. So that what the closure says through
    /// `tracing` is heard, notices wait for a subscriber with the layer to be installed with `init()` or
    /// `set_global_default`: for a second after `open` at most, and not beyond `close`. Those of opening stand in
    /// [`AuditLog::recovery`] too, at once.
    pub fn on_notice<F>(mut self, on_notice: F) -> Self
    where
        F: Fn(&Notice) + Send + 'static,
    {
        self.plan.on_notice = Some(Box::new(on_notice));
        self
    }

    /// Called with the durable head of this log, at most once in each interval (10 ms to 24 h), for those who keep
    /// it where the log's owner cannot write: a log that is cut or rewritten below a kept head is found to be
    /// damaged. Only a head that is not the one given last is given; while nothing becomes durable there is none.
    /// The first comes one interval after `open`.
    ///
    /// It is called on a dedicated thread, which it may block: then heads in between are passed over, and nothing
    /// else waits. A panic in it is caught, and the next head is given as if it had returned. Audit events emitted
    /// from it are counted as lost, not recorded. At the end of the log, by [`close`](AuditLog::close) or with the
    /// last handle, it is given the last head at once, and the end waits for it to return, within the wait bound.
    /// A process that is killed loses what became durable since the last call, so choose the interval by how much
    /// of the end of the log may be cut off unseen. Default: no closure.
    ///
    /// The closure sees one chain, that which this log writes: keep the heads of every process.
    pub fn on_head<F>(mut self, interval: Duration, on_head: F) -> Self
    where
        F: Fn(Head) + Send + 'static,
    {
        self.plan.on_head = Some(OnHead { interval, tell: Box::new(on_head) });
        self
    }

    /// Makes the disk of this log obey a switch, for tests of an application only. Needs the feature
    /// `fault-injection`. Default: none.
    #[cfg(feature = "fault-injection")]
    pub fn faults(mut self, faults: &crate::Faults) -> Self {
        self.plan.faults = Some(faults.clone());
        self
    }

    /// Opens the log: makes the directory (0700) if need be, takes the lowest chain that is free,
    /// recovers it and what others left without `close`, and writes an `open` record. When this
    /// returns, that record is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a value out of range, [`Error::InsecureDirectory`] for a directory that is a
    /// symlink, belongs to another user or is writable by others, [`Error::NetworkFileSystem`],
    /// [`Error::Locked`] where `exclusive` was asked for, [`Error::NoChain`], and [`Error::Io`] with
    /// the path for anything that the system refuses.
    pub fn open(self) -> Result<AuditLog, Error> {
        self.check()?;
        wiring::start(self.plan).map(AuditLog::of)
    }

    /// Everything that is set and can be compared.
    #[cfg(all(test, feature = "serde"))]
    pub(crate) fn everything(&self) -> String {
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
        in_range("dir", !self.plan.dir.as_os_str().is_empty(), "it names no directory")?;
        let (size, interval) = match self.plan.flush_mode {
            FlushMode::Immediate => (1, MIN_INTERVAL),
            FlushMode::Batched { size, interval } => (size, interval),
            FlushMode::Hybrid { batch_size, batch_interval, .. } => (batch_size, batch_interval),
        };
        in_range("flush_mode", size >= 1, "a batch has at least 1 record")?;
        in_range(
            "flush_mode",
            (MIN_INTERVAL..=HOUR).contains(&interval),
            "the interval of a batch is from 1 ms to 1 h",
        )?;
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
            "the bound is from 1 ms to 1 h",
        )?;
        in_range(
            "on_head",
            self.plan
                .on_head
                .as_ref()
                .is_none_or(|on_head| (MIN_HEAD_INTERVAL..=DAY).contains(&on_head.interval)),
            "the interval of heads is from 10 ms to 24 h",
        )?;
        in_range("service", self.plan.service.len() <= MAX_SERVICE, "a name has at most 256 bytes")?;
        if let Some((setting, name)) = self.bad_names.first() {
            let reason = format!("{name:?} has no letter or digit to compare, or more than 128");
            return Err(Error::Setting { setting, reason });
        }
        if let Some(name) = self.bad_members.first() {
            let reason = format!("{name:?} is no named member; `actor` and `action` are, see the README");
            return Err(Error::Setting { setting: "explicit", reason });
        }
        let rules = &self.plan.rules;
        in_range(
            "redact",
            !rules.redact.covers("severity"),
            "`severity` cannot be withheld, because each record says how severe it is",
        )?;
        in_range(
            "inherit_from",
            !rules.inherit_from.iter().any(String::is_empty),
            "an empty target would be every target; leave it out",
        )?;
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
    in_range("retention", *max_segments != Some(0), "at least 1 segment is kept")?;
    in_range(
        "retention",
        *max_age != Some(Duration::ZERO) && *max_bytes != Some(0),
        "a limit of 0 would remove every finished segment at once; leave it out to keep all",
    )?;
    in_range(
        "retention",
        max_age.zip(*min_age).is_none_or(|(max, min)| max >= min),
        "`min_age` is longer than `max_age`, which would remove nothing by age",
    )?;
    if let Some(name) = require_forwarded.iter().find(|name| !is_forwarder_name(name)) {
        let reason = format!(
            "{name:?} is no name of a forwarder: 1 to 32 characters, of `a` to `z`, `0` to `9` and `-`"
        );
        return Err(Error::Setting { setting: "retention", reason });
    }
    in_range(
        "retention",
        require_forwarded.iter().map(|name| name.len() + 1).sum::<usize>() <= MAX_FORWARD_REQUIRED,
        "the names of all forwarders take at most 512 bytes, with one for the end of each",
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
