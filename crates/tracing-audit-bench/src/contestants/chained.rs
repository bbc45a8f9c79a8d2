//! Other crates that chain records by hashes. One mutex around each: none takes events from threads.

use std::{
    fs::OpenOptions,
    path::Path,
    sync::{Mutex, PoisonError},
};

use audit_trail::{Action, Actor, Chain, FileReader, FileSink, Outcome, Sha256Hasher, SystemClock, Target};
use libro::store::AuditStore as _;

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

/// Appends one event, under the lock.
type Append<T> = fn(&mut T, u64) -> Result<()>;

struct Locked<T> {
    log: Mutex<T>,
    append: Append<T>,
}

impl<T: Send> Subject for Locked<T> {
    fn emit(&self, event: Event<'_>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = (self.append)(&mut log, event.number) {
            eprintln!("append failed: {error}");
            std::process::exit(1);
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub(super) fn audit_trail(dir: &Path) -> Result<Box<dyn Subject>> {
    let sink = FileSink::open_or_create(dir.join("log"))?;
    let log = Mutex::new(Chain::new(Sha256Hasher::new(), sink, SystemClock::new()));
    let append: Append<Chain<_, FileSink<_>, _>> = |chain, _| {
        // It has four members and no more: what belongs to the session goes with the actor.
        let actor = format!("{} {} {}", workload::actor(), workload::session(), workload::request());
        let (action, target) = (Action::new(workload::action()), Target::new(workload::resource()));
        chain
            .append(Actor::new(&actor), action, target, Outcome::Success)
            .map_err(|error| format!("{error:?}"))?;
        chain.sink_mut().sync()?;
        Ok(())
    };
    Ok(Box::new(Locked { log, append }))
}

pub(super) fn verify_audit_trail(dir: &Path, _threads: usize) -> Result<u64> {
    let path = dir.join("log");
    let mut verifier = audit_trail::Verifier::new(Sha256Hasher::new());
    for record in FileReader::open(&path)? {
        let record = record.map_err(|error| format!("{error:?}"))?;
        verifier.verify(&record.as_record()).map_err(|error| format!("{error:?}"))?;
    }
    Ok(path.metadata()?.len())
}

fn details(number: u64) -> serde_json::Value {
    serde_json::json!({
        "actor": workload::actor(),
        "resource": workload::resource(),
        "outcome": workload::outcome(),
        "session_id": workload::session(),
        "request_id": workload::request(),
        "message": workload::message(),
        "number": number,
    })
}

pub(super) fn libro(dir: &Path) -> Result<Box<dyn Subject>> {
    let store = libro::FileStore::open(dir.join("log"))?;
    let append: Append<(libro::FileStore, String)> = |(store, previous), number| {
        let entry = libro::AuditEntry::new(
            libro::EventSeverity::Info,
            "audit",
            workload::action(),
            details(number),
            previous.as_str(),
        );
        store.append(&entry)?;
        entry.hash().clone_into(previous);
        Ok(())
    };
    Ok(Box::new(Locked { log: Mutex::new((store, String::new())), append }))
}

pub(super) fn verify_libro(dir: &Path, _threads: usize) -> Result<u64> {
    let path = dir.join("log");
    libro::FileStore::open(&path)?.load_and_verify()?;
    Ok(path.metadata()?.len())
}

pub(super) fn crtx(dir: &Path) -> Result<Box<dyn Subject>> {
    let path = dir.join("log");
    OpenOptions::new().create(true).append(true).open(&path)?;
    let log = cortex_ledger::JsonlLog::open(&path)?;
    let policy = cortex_ledger::append_policy_decision_test_allow();
    let append: Append<(cortex_ledger::JsonlLog, cortex_core::PolicyDecision)> = |(log, policy), number| {
        let now = chrono::Utc::now();
        let event = cortex_core::Event {
            id: cortex_core::EventId::new(),
            schema_version: cortex_core::SCHEMA_VERSION,
            observed_at: now,
            recorded_at: now,
            source: cortex_core::EventSource::Runtime,
            event_type: cortex_core::EventType::SystemNote,
            trace_id: None,
            session_id: Some(workload::session().to_owned()),
            domain_tags: Vec::new(),
            payload: details(number),
            payload_hash: String::new(),
            prev_event_hash: None,
            event_hash: String::new(),
        };
        log.append(event, policy)?;
        Ok(())
    };
    Ok(Box::new(Locked { log: Mutex::new((log, policy)), append }))
}

pub(super) fn verify_crtx(dir: &Path, _threads: usize) -> Result<u64> {
    let path = dir.join("log");
    let report = cortex_ledger::verify_chain(&path)?;
    if !report.failures.is_empty() {
        return Err(format!("{} failures", report.failures.len()).into());
    }
    Ok(path.metadata()?.len())
}
