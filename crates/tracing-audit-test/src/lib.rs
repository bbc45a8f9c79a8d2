#![doc = include_str!("../README.md")]
// Every fault of a test is a panic, which makes the test fail with a message.
#![expect(clippy::panic, reason = "the assertions of a test kit panic")]

mod call_sites;
mod expectation;

use std::{
    marker::PhantomData,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Builder, Faults, Health, Record, Verdict, read, verify};
use tracing_core::dispatcher::{self, DefaultGuard, Dispatch};
use tracing_subscriber::layer::SubscriberExt as _;

pub use expectation::{Expectation, FieldValue};

/// How long a log may take to recover from a fault. Its retry backoff grows to 2 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a log with default settings in a temporary directory, for one test.
///
/// # Panics
///
/// If the directory cannot be created or the log cannot be opened.
#[track_caller]
pub fn capture() -> TestLog {
    capture_with(|builder| builder)
}

/// Opens a log in a temporary directory with other settings, such as those of the application.
///
/// # Panics
///
/// If the directory cannot be created, or the log cannot be opened with these settings.
///
/// # Examples
///
/// ```
/// let audit = tracing_audit_test::capture_with(|builder| builder.critical_actions(["key.export"]));
/// # drop(audit);
/// ```
#[track_caller]
pub fn capture_with(configure: impl FnOnce(Builder) -> Builder) -> TestLog {
    // Before the log is opened, which takes some time. A call site that another thread is registering right now is
    // registered by then, so tracing asks about it again when the log's subscriber is created.
    call_sites::keep_alive();
    let dir =
        tempfile::tempdir().unwrap_or_else(|error| panic!("cannot make a temporary directory: {error}"));
    let faults = Faults::default();
    let builder = AuditLog::builder(dir.path().join("log")).faults(&faults);
    let log = configure(builder).open().unwrap_or_else(|error| panic!("cannot open a log: {error}"));
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(log.layer()));
    TestLog { log, dispatch, faults, _dir: dir }
}

/// A log for one test. It is closed, and its directory removed, when this is dropped.
///
/// Each thread whose events are to be recorded must be attached with [`attach`](Self::attach), and each task with
/// [`dispatch`](Self::dispatch). The log is not shared with any other test.
#[derive(Debug)]
#[must_use = "the log is closed and removed when this is dropped"]
pub struct TestLog {
    log: AuditLog,
    dispatch: Dispatch,
    faults: Faults,
    _dir: TempDir,
}

/// A guard that keeps the calling thread attached to a log until it is dropped.
#[derive(Debug)]
#[must_use = "the thread is attached until this is dropped: bind it to a name, `let _attached = …`"]
pub struct Attached {
    _guard: DefaultGuard,
    /// Makes the guard `!Send`, because it must be dropped on the thread that created it.
    _thread: PhantomData<*const ()>,
}

impl TestLog {
    /// Attaches the calling thread: until the guard is dropped, its audit events are recorded in this log. Threads
    /// started by it are not attached.
    pub fn attach(&self) -> Attached {
        Attached { _guard: dispatcher::set_default(&self.dispatch), _thread: PhantomData }
    }

    /// Returns the subscriber of this log, for tasks (`tracing::instrument::WithSubscriber`) and closures
    /// (`tracing::dispatcher::with_default`).
    #[must_use]
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// Returns the log itself, for the application under test. To test the filters of the application too, build a
    /// subscriber with them and the `layer()` of this log.
    pub fn log(&self) -> &AuditLog {
        &self.log
    }

    /// Returns the directory of the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.log.path()
    }

    /// Returns the switch that makes the disk of this log fail, stall or be full.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Heals the disk, and waits until every accepted event is durable.
    ///
    /// # Panics
    ///
    /// If that takes longer than 10 s.
    #[track_caller]
    pub fn heal(&self) {
        self.faults.heal();
        let begun = Instant::now();
        let works =
            || self.log.flush().is_ok() && !matches!(self.log.health(), Health::Failing | Health::Stalled);
        while !works() {
            assert!(
                begun.elapsed() < PATIENCE,
                "the log is {} long after its disk was healed",
                self.log.health()
            );
            // While the log is stalled, `flush` does not wait.
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the audit events so far, in log order. Waits until they are durable.
    ///
    /// # Panics
    ///
    /// As [`records`](Self::records).
    #[track_caller]
    #[must_use]
    pub fn events(&self) -> Vec<Record> {
        let mut records = self.records();
        records.retain(Record::is_event);
        records
    }

    /// Returns all records so far, including those that the log writes about itself. Waits until they are durable.
    ///
    /// # Panics
    ///
    /// If they do not become durable within the wait bound, as on a failing disk, or cannot be read.
    #[track_caller]
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.log.flush().unwrap_or_else(|error| panic!("cannot flush the log: {error}"));
        let records = read(self.path()).and_then(Iterator::collect);
        records.unwrap_or_else(|error| panic!("cannot read the log: {error}"))
    }

    /// Starts an assertion on the events so far, see [`Expectation`].
    pub fn expect(&self) -> Expectation<'_> {
        Expectation::on(self)
    }

    /// Asserts that a closure accepts at least one event so far, and returns the first such event.
    ///
    /// # Panics
    ///
    /// If there is none; the message shows the recorded events. Also as [`records`](Self::records).
    #[track_caller]
    pub fn assert_recorded(&self, mut is_wanted: impl FnMut(&Record) -> bool) -> Record {
        let events = self.events();
        match events.iter().find(|event| is_wanted(event)) {
            Some(event) => event.clone(),
            None => panic!("the closure accepts no event\n{}", self.shown(&events, |_| String::new())),
        }
    }

    /// Closes the log, and asserts that a verification finds it intact: every record is there and unaltered.
    ///
    /// # Panics
    ///
    /// If it cannot be closed, or is not intact.
    #[track_caller]
    pub fn assert_intact(&self) {
        self.log.close().unwrap_or_else(|error| panic!("cannot close the log: {error}"));
        let report = verify(self.path()).unwrap_or_else(|error| panic!("cannot verify the log: {error}"));
        assert!(report.verdict() == Verdict::Intact, "the log is not intact\n{report}");
    }

    /// Formats events for the message of an assertion, each followed by a remark. Adds what may explain missing events:
    /// losses, and a calling thread that is not attached.
    fn shown(&self, events: &[Record], remark: impl Fn(&Record) -> String) -> String {
        let mut lines = vec![match events.len() {
            0 => "the log has no events".to_owned(),
            1 => "the log has 1 event:".to_owned(),
            count => format!("the log has {count} events:"),
        }];
        lines.extend(events.iter().map(|event| format!("  {}{}", event.as_json(), remark(event))));
        let lost = self.log.stats().lost.into_iter();
        lines.extend(lost.map(|loss| format!("lost: {} {} ({})", loss.events, loss.severity, loss.reason)));
        let current = AuditLog::current();
        if current.is_none_or(|current| current.path() != self.path()) {
            let advice = "the calling thread is not attached to this log; each thread and task that emits must be, \
                          for as long as it emits";
            lines.push(advice.to_owned());
        }
        lines.join("\n")
    }
}

impl Drop for TestLog {
    fn drop(&mut self) {
        // A fault that a test left on would make `close` wait. Closing also stops clones of the log that outlive it.
        self.faults.heal();
        drop(self.log.close());
    }
}
