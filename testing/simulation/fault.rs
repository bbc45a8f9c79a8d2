//! Which calls fail, and how.

use rustix::io::Errno;

use super::prng::Prng;

/// The kinds of call, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
    /// Opens a file that exists.
    Open,
    /// Opens a file that this call creates: a new segment, or a missing lock file.
    Create,
    Append,
    WriteAt,
    Read,
    SyncData,
    SyncAll,
    SyncDir,
    Remove,
    /// Of a path or of an open file.
    Stat,
    Lock,
    Unlock,
    List,
    FreeBytes,
    Reattach,
    Random,
}

impl Op {
    pub(crate) const ALL: [Self; 16] = [
        Self::Open,
        Self::Create,
        Self::Append,
        Self::WriteAt,
        Self::Read,
        Self::SyncData,
        Self::SyncAll,
        Self::SyncDir,
        Self::Remove,
        Self::Stat,
        Self::Lock,
        Self::Unlock,
        Self::List,
        Self::FreeBytes,
        Self::Reattach,
        Self::Random,
    ];

    pub(crate) const SYNCS: [Self; 3] = [Self::SyncData, Self::SyncAll, Self::SyncDir];

    /// The calls that change something: these are worth crashing at.
    pub(crate) const CHANGES: [Self; 10] = [
        Self::Create,
        Self::Append,
        Self::WriteAt,
        Self::SyncData,
        Self::SyncAll,
        Self::SyncDir,
        Self::Remove,
        Self::Lock,
        Self::Unlock,
        Self::Reattach,
    ];

    /// The calls that a file system refuses once it is read-only.
    pub(crate) const WRITES: [Self; 5] =
        [Self::Create, Self::Append, Self::WriteAt, Self::Remove, Self::Reattach];
}

/// What a failed `fdatasync` or `fsync` of a file leaves behind. Measured for each file system by
/// Rebello et al., "Can Applications Recover from fsync Failures?" (USENIX ATC 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SyncFailure {
    /// Reports the error once and marks the pages clean. Later syncs succeed, but the bytes are not
    /// durable unless they are written again. The page cache shows the new bytes. The next sync
    /// makes the length durable.
    #[default]
    Ext4Ordered,
    /// `data=journal`: this sync succeeds, and the next one reports the error.
    Ext4Data,
    /// As `Ext4Ordered`, but a later sync alone does not make the length durable.
    Xfs,
    /// Reports the error once, and the page cache shows the old bytes again.
    Btrfs,
}

/// A scripted or random fault: which calls it hits, when, and what happens then.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    ops: Vec<Op>,
    process: Option<usize>,
    on: Option<String>,
    when: When,
    effect: Effect,
    /// Matching calls since the fault was injected.
    seen: u64,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Nth(u64),
    FromNth(u64),
    PerMille(u16),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// Nothing is done, and the call fails. For a sync, `SyncFailure` decides what is left.
    Refuse(Errno),
    /// Everything is done, and the call fails nevertheless.
    ApplyAndFail(Errno),
    /// A write or read of at most so many bytes.
    Short(usize),
    /// A sync that succeeds but makes nothing durable.
    Lie,
}

impl Fault {
    fn new(ops: &[Op], effect: Effect) -> Self {
        Self { ops: ops.to_vec(), process: None, on: None, when: When::Nth(1), effect, seen: 0 }
    }

    /// Creates a fault with which the call fails and does nothing. `EINTR` is retried within the
    /// call, so it changes nothing.
    pub(crate) fn error(ops: &[Op], errno: Errno) -> Self {
        Self::new(ops, Effect::Refuse(errno))
    }

    /// Creates a fault with which the call does everything and fails nevertheless.
    pub(crate) fn error_applied(ops: &[Op], errno: Errno) -> Self {
        Self::new(ops, Effect::ApplyAndFail(errno))
    }

    /// Creates a fault with which a write takes at most `bytes`, and at least one.
    pub(crate) fn short_write(bytes: usize) -> Self {
        Self::new(&[Op::Append, Op::WriteAt], Effect::Short(bytes.max(1)))
    }

    /// Creates a fault with which a read returns at most `bytes`, and at least one.
    pub(crate) fn short_read(bytes: usize) -> Self {
        Self::new(&[Op::Read], Effect::Short(bytes.max(1)))
    }

    /// Creates a fault with which a sync succeeds but makes nothing durable. A later honest sync
    /// does.
    pub(crate) fn lying_sync() -> Self {
        Self::new(&Op::SYNCS, Effect::Lie)
    }

    /// Hits only the nth matching call from now on, counted from 1 over all processes. Default: the
    /// first.
    pub(crate) fn nth(self, n: u64) -> Self {
        Self { when: When::Nth(n), ..self }
    }

    /// Hits that call and every later one.
    pub(crate) fn and_later(self) -> Self {
        match self.when {
            When::Nth(n) => Self { when: When::FromNth(n), ..self },
            When::FromNth(_) | When::PerMille(_) => self,
        }
    }

    /// Hits this many of a thousand matching calls, drawn from the seed.
    pub(crate) fn per_mille(self, rate: u16) -> Self {
        Self { when: When::PerMille(rate), ..self }
    }

    /// Hits only calls on a file or directory whose name contains `part`: `audit-000-`,
    /// `control/chain-000`, or `control/` for that whole directory.
    pub(crate) fn on(self, part: &str) -> Self {
        Self { on: Some(part.to_owned()), ..self }
    }

    /// Hits only calls of one process.
    pub(crate) fn by(self, process: &super::SimProcess) -> Self {
        Self { process: Some(process.id()), ..self }
    }

    fn matches(&self, call: &Call<'_>) -> bool {
        self.ops.contains(&call.op)
            && self.process.is_none_or(|process| process == call.process)
            && self.on.as_ref().is_none_or(|part| call.name.contains(part.as_str()))
    }

    /// Counts a matching call and returns whether it fails.
    fn hits(&mut self, prng: &mut Prng) -> bool {
        self.seen += 1;
        match self.when {
            When::Nth(n) => self.seen == n,
            When::FromNth(n) => self.seen >= n,
            When::PerMille(rate) => prng.chance(rate),
        }
    }
}

/// How much of the call at a crash point still takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Fully,
    NotAtAll,
    /// All, nothing, or a part of a write, drawn from the seed.
    Seeded,
}

/// What ends at a crash point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// The whole machine. Calls of all processes count.
    PowerCut,
    /// One process. Only its own calls count.
    Kill(usize),
}

#[derive(Debug, Clone)]
struct CrashPoint {
    crash: Crash,
    remaining: u64,
    applied: Applied,
}

/// A call, as far as faults depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) process: usize,
    pub(super) op: Op,
    pub(super) name: &'a str,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plan {
    Go,
    Fault(Effect),
    /// A crash, and how many thousandths of a write still take effect before it. With `None`, the
    /// call is not made at all.
    Crash(Crash, Option<u16>),
}

/// All faults and crash points, and how many calls they changed.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    prng: Prng,
    scripted: Vec<Fault>,
    crash_points: Vec<CrashPoint>,
    /// How many calls a fault changed, interrupted ones included.
    pub(super) hit_calls: u64,
}

impl Faults {
    pub(super) fn new(prng: Prng) -> Self {
        Self { prng, scripted: Vec::new(), crash_points: Vec::new(), hit_calls: 0 }
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        self.scripted.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.scripted.clear();
        self.crash_points.clear();
    }

    pub(super) fn crash_at(&mut self, crash: Crash, nth: u64, applied: Applied) {
        self.crash_points.push(CrashPoint { crash, remaining: nth.max(1), applied });
    }

    /// Returns how many crash points are not reached yet.
    pub(super) fn crashes_to_come(&self) -> usize {
        self.crash_points.len()
    }

    /// Decides about a call. If several faults hit it, the one injected first takes effect.
    pub(super) fn plan(&mut self, call: &Call<'_>) -> Plan {
        if let Some((crash, applied)) = self.crash(call) {
            let still_done = match applied {
                Applied::Fully => Some(1000),
                Applied::NotAtAll => None,
                Applied::Seeded => match self.prng.below(3) {
                    0 => None,
                    1 => Some(1000),
                    _ => u16::try_from(self.prng.below(1000)).ok(),
                },
            };
            return Plan::Crash(crash, still_done);
        }
        let mut first = None;
        for fault in self.scripted.iter_mut().filter(|fault| fault.matches(call)) {
            // Every matching fault counts the call, even if an earlier one takes effect.
            if fault.hits(&mut self.prng) {
                first.get_or_insert(fault.effect);
            }
        }
        let Some(effect) = first else { return Plan::Go };
        self.hit_calls += 1;
        match effect {
            Effect::Refuse(Errno::INTR) | Effect::ApplyAndFail(Errno::INTR) => Plan::Go,
            effect => Plan::Fault(effect),
        }
    }

    fn crash(&mut self, call: &Call<'_>) -> Option<(Crash, Applied)> {
        // Between two changing calls, a crash leaves the same state wherever it happens.
        if !Op::CHANGES.contains(&call.op) {
            return None;
        }
        for point in &mut self.crash_points {
            if matches!(point.crash, Crash::Kill(process) if process != call.process) {
                continue;
            }
            point.remaining -= 1;
        }
        let reached = self.crash_points.iter().position(|point| point.remaining == 0)?;
        let point = self.crash_points.remove(reached);
        // If this call reached another point as well, that one takes effect at the next call.
        for point in &mut self.crash_points {
            point.remaining = point.remaining.max(1);
        }
        Some((point.crash, point.applied))
    }
}
