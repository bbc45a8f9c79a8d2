//! Puts a log together: opens the directory, starts the threads, and connects capture to the writer.
//!
//! The only file that depends on both the half that knows tracing and the half that knows files.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

#[cfg(feature = "fault-injection")]
use crate::storage::{Faults, FaultyStorage};
use crate::{
    capture::{self, Capture, Rules},
    chain::Head,
    clock::Clock,
    error::{Error, InsecureReason},
    gauges::Gauges,
    heads::{Heads, OnHead},
    notify::{Notifier, OnNotice},
    queue::{Queue, QueueSettings},
    settings::{FlushMode, OnFailure, OnFull, Retention, Rotation},
    stats::{Notice, Recovery},
    storage::{Dir, Disk, DiskOptions, Storage},
    writer::{self, Former, Opened, Writer, WriterSettings},
};

const MIB: u64 = 1 << 20;
/// The smallest size limit of a segment, into which the longest line fits.
pub(crate) const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// All settings of a log, after they were checked.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting that an application turns on or off")]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) service: String,
    pub(crate) flush_mode: FlushMode,
    pub(crate) rotation: Rotation,
    pub(crate) retention: Retention,
    pub(crate) exclusive: bool,
    pub(crate) wait_for_chain: Duration,
    pub(crate) rules: Rules,
    pub(crate) queue_bytes: u64,
    pub(crate) wait_bound: Duration,
    pub(crate) low_space: u64,
    pub(crate) group_readable: bool,
    pub(crate) allow_network_fs: bool,
    pub(crate) on_full: OnFull,
    pub(crate) on_failure: OnFailure,
    pub(crate) stderr: bool,
    pub(crate) on_notice: Option<OnNotice>,
    pub(crate) on_head: Option<OnHead>,
    #[cfg(feature = "fault-injection")]
    pub(crate) faults: Option<Faults>,
}

/// The parts of a running log, from which its first handle is made.
pub(crate) struct Parts {
    pub(crate) path: PathBuf,
    pub(crate) queue: Arc<Queue>,
    pub(crate) capture: Arc<Capture>,
    pub(crate) recovery: Recovery,
    pub(crate) first_head: Head,
    pub(crate) heads: Option<Heads>,
    pub(crate) writer: JoinHandle<()>,
}

/// Opens a log and starts it.
pub(crate) fn start(plan: Plan) -> Result<Parts, Error> {
    let storage = open_directory(&plan)?;
    let path = storage.path(Dir::Log, "");
    let clock = Clock::start();
    let random = storage.random().map_err(Error::io("draw random bits for", &path))?;
    let settings = WriterSettings {
        flush_mode: plan.flush_mode,
        rotation: rotation_below(plan.rotation, storage.file_size_limit())?,
        retention: plan.retention,
        low_space: plan.low_space,
        exclusive: plan.exclusive,
        wait_for_chain: plan.wait_for_chain,
        service: plan.service,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        // 64 of the 128 random bits are enough to tell runs apart.
        writer_id: (random >> 64) as u64,
    };
    let opened =
        writer::open(&storage, &settings, &Former::default(), clock, &clock.now()).map_err(unsafe_file)?;
    let name = plan.stderr.then(|| path.display().to_string());
    let notifier = Notifier::start(name, clock, plan.on_notice, capture::mark_own_thread)
        .map_err(|source| Error::Thread { path: path.clone(), source })?;
    let gauges = Arc::new(Gauges::default());
    let heads =
        plan.on_head.map(|on_head| Heads::start(on_head, Arc::clone(&gauges), capture::mark_own_thread));
    let heads = heads.transpose().map_err(|source| Error::Thread { path: path.clone(), source })?;
    // Told only now: during `writer::open` there is no notifier yet.
    for (kind, message) in opened.notices() {
        notifier.tell(*kind, message.clone());
    }
    let queue_settings = QueueSettings {
        bytes: plan.queue_bytes,
        wait_bound: plan.wait_bound,
        flush_mode: plan.flush_mode,
        on_full: plan.on_full,
        on_failure: plan.on_failure,
    };
    let queue = Arc::new(Queue::new(queue_settings, clock, gauges, notifier));
    let capture = Capture::new(Arc::clone(&queue), plan.rules);
    let time = clock.wall().to_system_time();
    let notices = opened.notices().iter();
    let notices = notices.map(|(kind, message)| Notice { kind: *kind, time, message: message.clone() });
    let recovery = Recovery { chains: opened.found().to_vec(), notices: notices.collect() };
    let (first_head, writer) = start_writer(&path, storage, settings, opened, clock, &queue)?;
    Ok(Parts { path, queue, capture, recovery, first_head, heads, writer })
}

fn open_directory(plan: &Plan) -> Result<Arc<dyn Storage>, Error> {
    let options = DiskOptions { group_readable: plan.group_readable };
    let disk = Disk::create(&plan.dir, options).map_err(|error| refused(&plan.dir, error))?;
    let storage: Arc<dyn Storage> = Arc::new(disk);
    #[cfg(feature = "fault-injection")]
    let storage = match &plan.faults {
        Some(faults) => Arc::new(FaultyStorage::new(storage, faults.clone())),
        None => storage,
    };
    let filesystem = storage.filesystem();
    if !plan.allow_network_fs && filesystem.is_shared() {
        let path = storage.path(Dir::Log, "");
        return Err(Error::NetworkFileSystem { path, filesystem: filesystem.to_string() });
    }
    Ok(storage)
}

fn start_writer(
    path: &Path,
    storage: Arc<dyn Storage>,
    settings: WriterSettings,
    opened: Opened,
    clock: Clock,
    queue: &Arc<Queue>,
) -> Result<(Head, JoinHandle<()>), Error> {
    let writer = Writer::new(storage, Arc::clone(queue), settings, opened, clock.now());
    let first_head = writer.head();
    let queue = Arc::clone(queue);
    let thread = thread::Builder::new()
        .name("audit-writer".to_owned())
        .spawn(move || {
            capture::mark_own_thread();
            // After a bug in the writer, callers must not wait for it: `closed` wakes all of them.
            if catch_unwind(AssertUnwindSafe(|| writer.run(clock, capture::mark_own_thread))).is_err() {
                queue.notifier.print("the writer failed; nothing is recorded any more");
                queue.closed();
            }
        })
        .map_err(|source| Error::Thread { path: path.to_owned(), source })?;
    Ok((first_head, thread))
}

/// Lowers the size limit of a segment below `RLIMIT_FSIZE`. A write beyond that limit sends `SIGXFSZ`, which kills
/// the process by default; see setrlimit(2).
fn rotation_below(rotation: Rotation, limit: Option<u64>) -> Result<Rotation, Error> {
    let Some(limit) = limit else { return Ok(rotation) };
    let most = limit.saturating_sub(8 * MIB).max(limit / 2);
    if most < MIN_SEGMENT_BYTES {
        let reason = format!("the file size limit of this process is {limit} bytes; raise it (ulimit -f)");
        return Err(Error::Setting { setting: "rotation", reason });
    }
    Ok(rotation.max_bytes(rotation.max_bytes.min(most)))
}

/// Maps a refusal for safety to `InsecureDirectory`, and any other error to `Io`.
fn refused(path: &Path, error: io::Error) -> Error {
    match refusal(&error) {
        Some(reason) => Error::InsecureDirectory { path: path.to_owned(), reason },
        None => Error::io("create the log directory", path)(error),
    }
}

/// Maps a refusal for safety in the same way, for a file in the directory.
fn unsafe_file(error: Error) -> Error {
    match error {
        Error::Io { action, path, source } => match refusal(&source) {
            Some(reason) => Error::InsecureDirectory { path, reason },
            None => Error::Io { action, path, source },
        },
        error => error,
    }
}

/// Returns the reason, if the storage refused something as unsafe.
fn refusal(error: &io::Error) -> Option<InsecureReason> {
    error.get_ref()?.downcast_ref().copied()
}
