//! A log of an application, and a store in memory that fails on demand.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing_audit::{AuditLog, Digest};
use tracing_audit_forward::{Entry, Error, Forwarder, Gap, Notice, NoticeKind, Position, Sink, SinkError};
use tracing_subscriber::prelude::*;

/// Decides whether a call of the store fails before it stores anything.
pub(crate) type Script = Box<dyn FnMut(&[Entry]) -> Option<SinkError> + Send>;

/// A store in memory.
#[derive(Clone, Default)]
pub(crate) struct Store(pub(crate) Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) rows: BTreeMap<(String, u64), (Digest, String)>,
    /// In the order of arrival.
    pub(crate) came: Vec<(String, u64)>,
    pub(crate) gaps: Vec<Gap>,
    /// Why it refuses gaps.
    pub(crate) takes_no_gap: Option<SinkError>,
    pub(crate) script: Option<Script>,
    /// Whether it fails after it stored everything.
    pub(crate) fails_late: bool,
    pub(crate) asked: u64,
    pub(crate) cannot_be_asked: bool,
}

pub(crate) struct StoreSink(Store);

impl Sink for StoreSink {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        let mut store = self.0.0.lock().unwrap();
        store.asked += 1;
        if store.cannot_be_asked {
            return Ok(None);
        }
        let last = |id: &Arc<str>| {
            let of_chain = store.rows.range((id.to_string(), 0)..=(id.to_string(), u64::MAX));
            let ((_, seq), (hash, _)) = of_chain.last()?;
            Some(Position { chain_id: Arc::clone(id), seq: *seq, hash: *hash })
        };
        Ok(Some(chain_ids.iter().filter_map(last).collect()))
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        let mut store = self.0.0.lock().unwrap();
        let refused = store.script.as_mut().and_then(|script| script(batch));
        if let Some(error) = refused.clone().filter(|_| !store.fails_late) {
            return Err(error);
        }
        for (index, entry) in batch.iter().enumerate() {
            let stored = store.rows.get(&(entry.chain_id.to_string(), entry.record.seq()));
            if let Some((stored, _)) = stored.filter(|(stored, _)| *stored != entry.record.hash()) {
                return Err(SinkError::Conflict { index, stored: *stored });
            }
        }
        for entry in batch {
            let key = (entry.chain_id.to_string(), entry.record.seq());
            if !is_mark(entry.record.as_json()) {
                store.came.push(key.clone());
            }
            store.rows.insert(key, (entry.record.hash(), entry.record.as_json().to_owned()));
        }
        refused.map_or(Ok(()), Err)
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        let mut store = self.0.0.lock().unwrap();
        store.gaps.push(gap.clone());
        store.takes_no_gap.clone().map_or(Ok(()), Err)
    }
}

impl Store {
    pub(crate) fn sink(&self) -> StoreSink {
        StoreSink(self.clone())
    }

    pub(crate) fn with(script: impl FnMut(&[Entry]) -> Option<SinkError> + Send + 'static) -> Self {
        let store = Self::default();
        store.0.lock().unwrap().script = Some(Box::new(script));
        store
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let store = self.0.lock().unwrap();
        store.rows.values().map(|(_, line)| line).filter(|line| !is_mark(line)).cloned().collect()
    }

    pub(crate) fn seqs(&self) -> Vec<u64> {
        let store = self.0.lock().unwrap();
        store.rows.iter().filter(|(_, (_, line))| !is_mark(line)).map(|((_, seq), _)| *seq).collect()
    }

    pub(crate) fn came(&self) -> usize {
        self.0.lock().unwrap().came.len()
    }
}

/// Returns whether a line is a mark. A log with a forwarder beside it writes one after each second of
/// silence, so one may appear between any two lines.
pub(crate) fn is_mark(line: &str) -> bool {
    line.contains("\"kind\":\"mark\"")
}

pub(crate) fn unavailable() -> SinkError {
    SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: Some(Duration::ZERO) }
}

/// A log in its own directory.
pub(crate) struct App {
    pub(crate) dir: TempDir,
    pub(crate) log: AuditLog,
}

impl App {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(set: impl FnOnce(tracing_audit::Builder) -> tracing_audit::Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = set(AuditLog::builder(dir.path().join("log")).stderr(false)).open().unwrap();
        Self { dir, log }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn control(&self, name: &str) -> PathBuf {
        self.path().join("control").join(name)
    }

    /// Returns the content of the position file of the forwarder that `start` starts.
    pub(crate) fn position(&self) -> String {
        fs::read_to_string(self.control("forward-store")).unwrap_or_default()
    }

    pub(crate) fn emit(&self, events: u64) {
        emit_to(&self.log, events);
    }

    pub(crate) fn critical(&self) {
        let subscriber = tracing_subscriber::registry().with(self.log.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "audit", action = "auth.failure", actor = "mallory");
        });
    }
}

pub(crate) fn emit_to(log: &AuditLog, events: u64) {
    let subscriber = tracing_subscriber::registry().with(log.layer());
    tracing::subscriber::with_default(subscriber, || {
        for n in 0..events {
            tracing::info!(target: "audit", action = "item.seen", actor = "mia", n);
        }
    });
    log.flush().unwrap();
}

/// Returns the lines of all segments, in the order of files.
pub(crate) fn lines(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    names.sort();
    let texts: Vec<String> = names.iter().map(|name| fs::read_to_string(name).unwrap()).collect();
    texts.iter().flat_map(|text| text.lines()).filter(|line| !is_mark(line)).map(str::to_owned).collect()
}

pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) type Notices = Arc<Mutex<Vec<Notice>>>;

pub(crate) fn notices() -> (impl Fn(Notice) + Send + 'static, Notices) {
    let notices = Notices::default();
    let told = Arc::clone(&notices);
    (move |notice| told.lock().unwrap().push(notice), notices)
}

pub(crate) fn start(app: &App, store: &Store) -> (Forwarder, Notices) {
    let (told, notices) = notices();
    let builder = Forwarder::builder("store").on_notice(told);
    (builder.start(&app.log, store.sink()).unwrap(), notices)
}

/// Waits until the store has everything except what one chain has.
pub(crate) fn drain_others(forwarder: &Forwarder, left_out: u16) {
    let error = forwarder.drain(LONG).unwrap_err();
    assert!(matches!(&error, Error::LeftOut { chains, .. } if *chains == [left_out]), "{error}");
}

pub(crate) fn kinds(notices: &Arc<Mutex<Vec<Notice>>>) -> Vec<NoticeKind> {
    notices.lock().unwrap().iter().map(|notice| notice.kind).collect()
}

pub(crate) const LONG: Duration = Duration::from_secs(20);
