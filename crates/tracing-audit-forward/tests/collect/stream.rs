//! A stream in memory, with the records of real logs.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tracing_audit::{AuditLog, Rotation};
use tracing_audit_forward::{Beat, Delivered, Feed, Gap, Origin, SinkError, StreamState, What};
use tracing_subscriber::prelude::*;

#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) identity: String,
    pub(crate) messages: Vec<Delivered>,
    pub(crate) beats: Vec<Beat>,
    pub(crate) next: usize,
    /// Maximum number of messages that one call returns.
    pub(crate) limit: Option<usize>,
    /// The place up to which messages are gone.
    pub(crate) purged: u64,
    /// Whether it cannot be read.
    pub(crate) fails: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            identity: "audit".to_owned(),
            messages: Vec::new(),
            beats: Vec::new(),
            next: 0,
            limit: None,
            purged: 0,
            fails: false,
        }
    }
}

impl Feed for Stream {
    fn state(&mut self) -> Result<StreamState, SinkError> {
        if self.fails {
            return Err(SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: None });
        }
        Ok(StreamState::new(&*self.identity, self.purged + 1, self.messages.len() as u64))
    }

    fn start(&mut self, place: u64) -> Result<(), SinkError> {
        self.next = usize::try_from(place).unwrap() - 1;
        Ok(())
    }

    fn next(&mut self, limit: usize, _: Duration) -> Result<Vec<Delivered>, SinkError> {
        self.state()?;
        let limit = limit.min(self.limit.unwrap_or(usize::MAX));
        self.next = self.next.max(usize::try_from(self.purged).unwrap());
        let taken: Vec<Delivered> = self.messages.iter().skip(self.next).take(limit).cloned().collect();
        self.next += taken.len();
        if taken.is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(taken)
    }

    fn is_at_end(&self) -> bool {
        self.next >= self.messages.len()
    }

    fn beats(&mut self) -> Vec<Beat> {
        std::mem::take(&mut self.beats)
    }
}

impl Stream {
    /// Adds the records of a log, as its forwarder would send them.
    pub(crate) fn add(&mut self, origin: &Origin, log: &Path) {
        for (id, line, _) in lines_of(log) {
            self.push(origin, &id, line);
        }
    }

    pub(crate) fn push(&mut self, origin: &Origin, chain_id: &str, line: String) {
        self.push_bytes(origin, chain_id, line.into_bytes());
    }

    pub(crate) fn push_bytes(&mut self, origin: &Origin, chain_id: &str, line: Vec<u8>) {
        self.put(What::Line { origin: origin.clone(), chain_id: chain_id.into(), line });
    }

    pub(crate) fn gap(&mut self, origin: &Origin, chain_id: &str, first: u64, last: u64) {
        let gap = Gap::new(chain_id.into(), 0, first..=last);
        self.put(What::Gap { origin: origin.clone(), gap });
    }

    pub(crate) fn put(&mut self, what: What) {
        self.messages.push(Delivered::new(self.messages.len() as u64 + 1, what));
    }

    pub(crate) fn beat(&mut self, origin: &Origin, left_out: &[(&Arc<str>, &str)]) {
        let left_out: BTreeMap<Arc<str>, String> =
            left_out.iter().map(|(id, why)| (Arc::clone(id), (*why).to_owned())).collect();
        self.beats.push(Beat::new(origin.clone(), left_out));
    }

    pub(crate) fn trouble(&mut self, origin: &Origin, trouble: &str) {
        let mut beat = Beat::new(origin.clone(), BTreeMap::new());
        beat.trouble = Some(trouble.to_owned());
        self.beats.push(beat);
    }

    /// Interleaves the logs, as with hosts that send at the same time.
    pub(crate) fn mix(&mut self) {
        let mut by_chain: BTreeMap<Arc<str>, Vec<Delivered>> = BTreeMap::new();
        for message in self.messages.drain(..) {
            by_chain.entry(id_of(&message)).or_default().push(message);
        }
        let mut chains: Vec<_> = by_chain.into_values().map(Vec::into_iter).collect();
        loop {
            let round: Vec<Delivered> = chains.iter_mut().filter_map(Iterator::next).collect();
            if round.is_empty() {
                break;
            }
            self.messages.extend(round);
        }
        for (place, message) in (1..).zip(&mut self.messages) {
            message.place = place;
        }
    }
}

/// Returns the chain of a message.
pub(crate) fn id_of(message: &Delivered) -> Arc<str> {
    match &message.what {
        What::Line { chain_id, .. } => Arc::clone(chain_id),
        What::Gap { gap, .. } => Arc::clone(&gap.chain_id),
        What::Stranger => "".into(),
    }
}

pub(crate) fn small_segments(dir: &Path) -> AuditLog {
    AuditLog::builder(dir).rotation(Rotation::never().max_bytes(64 << 10)).stderr(false).open().unwrap()
}

pub(crate) fn write_events(log: &AuditLog, count: u32) {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        for n in 0..count {
            tracing::info!(target: "audit", action = "login", actor = "mia", n);
        }
    });
}

/// Returns the id of its chain, the text and the hash of each line of a log, chain by chain.
pub(crate) fn lines_of(log: &Path) -> Vec<(String, String, String)> {
    let mut names: Vec<_> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    names.sort();
    let mut lines = Vec::new();
    for name in names {
        let text = fs::read_to_string(name).unwrap();
        let id = text.split_once("\"id\":\"").unwrap().1.get(..32).unwrap().to_owned();
        for line in text.lines() {
            let hash = line.get(line.len() - 66..line.len() - 2).unwrap().to_owned();
            lines.push((id.clone(), line.to_owned(), hash));
        }
    }
    lines
}

/// Returns the same record with another content, and its hash.
pub(crate) fn fork_of(line: &str) -> String {
    edited(line, "mia", "eve")
}

/// Returns a line with another text in it, and its hash.
pub(crate) fn edited(line: &str, text: &str, other: &str) -> String {
    let (body, _) = line.rsplit_once(",\"_hash\":").unwrap();
    let body = body.replacen(text, other, 1) + "}";
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(body.as_bytes());
    let digits = hasher.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hash: String = digits.map(|digit| char::from_digit(digit.into(), 16).unwrap()).collect();
    let body = body.strip_suffix('}').unwrap();
    format!("{body},\"_hash\":\"{hash}\"}}")
}
