//! Another crate that chains records by hashes, in a mutex, because it takes events from one thread at a time.

use std::{
    fs::File,
    io::BufWriter,
    path::Path,
    sync::{Mutex, PoisonError},
};

use audit_trail::{Action, Actor, Chain, FileReader, FileSink, Outcome, Sha256Hasher, SystemClock, Target};

use super::Subject;
use crate::{
    Result,
    workload::{self, Event},
};

type Trail = Chain<Sha256Hasher, FileSink<BufWriter<File>>, SystemClock>;

struct Locked(Mutex<Trail>);

pub(super) fn audit_trail(dir: &Path) -> Result<Box<dyn Subject>> {
    let sink = FileSink::open_or_create(dir.join("log"))?;
    Ok(Box::new(Locked(Mutex::new(Chain::new(Sha256Hasher::new(), sink, SystemClock::new())))))
}

fn append(chain: &mut Trail) -> Result<()> {
    // A record has exactly four members, so session and request go into the actor.
    let actor = format!("{} {} {}", workload::actor(), workload::session(), workload::request());
    let (action, target) = (Action::new(workload::action()), Target::new(workload::resource()));
    chain
        .append(Actor::new(&actor), action, target, Outcome::Success)
        .map_err(|error| format!("{error:?}"))?;
    chain.sink_mut().sync()?;
    Ok(())
}

impl Subject for Locked {
    fn emit(&self, _: Event<'_>) {
        let mut chain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = append(&mut chain) {
            eprintln!("append failed: {error}");
            std::process::exit(1);
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
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
