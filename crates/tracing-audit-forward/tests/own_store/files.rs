use std::{collections::BTreeMap, fs, fs::File, io, io::Write, path::PathBuf, sync::Arc};
use tracing_audit_forward::{Entry, Position, Sink, SinkError};

/// One file per record, named by its key and hash, so nothing is stored twice. A different record under the same key gets its
/// own file; a store that compares the two returns `SinkError::Conflict` instead.
pub struct Files {
    pub dir: PathBuf,
}

impl Files {
    fn last(&self) -> io::Result<BTreeMap<String, (u64, String)>> {
        // A name counts only once it is durable: a crash may have come between a rename and the sync of the directory.
        File::open(&self.dir)?.sync_all()?;
        let mut last: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned(); // <chain id>-<seq>-<hash>
            let parts: Vec<&str> = name.split('-').collect();
            if let [id, seq, hash] = parts[..]
                && let Ok(seq) = seq.parse()
            {
                let newest = last.entry(id.to_owned()).or_default();
                *newest = (seq, hash.to_owned()).max(newest.clone());
            }
        }
        Ok(last)
    }

    fn store(&self, batch: &[Entry]) -> io::Result<()> {
        for Entry { chain_id, record, .. } in batch {
            // Renamed when complete: under its final name, a file is never partial, even after a kill.
            let temporary = self.dir.join("new");
            let mut file = File::create(&temporary)?;
            file.write_all(record.as_json().as_bytes())?;
            file.sync_all()?;
            fs::rename(temporary, self.dir.join(format!("{chain_id}-{}-{}", record.seq(), record.hash())))?;
        }
        File::open(&self.dir)?.sync_all()
    }

    fn failed(&self, error: &io::Error) -> SinkError {
        SinkError::Unavailable { reason: format!("cannot use {}: {error}", self.dir.display()), retry_after: None }
    }
}

impl Sink for Files {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        let last = self.last().map_err(|error| self.failed(&error))?;
        let position = |id: &Arc<str>| {
            let (seq, hash) = last.get(&**id)?;
            Some(Position { chain_id: Arc::clone(id), seq: *seq, hash: hash.parse().ok()? })
        };
        Ok(Some(chain_ids.iter().filter_map(position).collect()))
    }

    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        self.store(batch).map_err(|error| self.failed(&error))
    }
}
