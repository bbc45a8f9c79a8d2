//! Logs made by hand, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Report, Verifier,
    chain::{Digest, Head},
    clock::Timestamp,
    format::{
        After, Cause, ChainId, CloseInfo, GapInfo, OpenInfo, Payload, PruneInfo, RecordKind, RecoveryInfo,
        SegmentInfo, Witness, Witnesses, mark_payload, seal,
    },
    segment_name::{ChainNumber, SegmentName},
    stats::LossReason,
    storage::{Access, Dir, File, LockKind, Stat, Storage},
};

/// A log directory in memory.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) held: BTreeSet<u16>,
    /// The changes at the next listings of the directory, the next one last.
    pub(crate) script: Mutex<Vec<BTreeMap<String, Vec<u8>>>>,
    /// How many bytes were read.
    pub(crate) read_bytes: Arc<AtomicU64>,
    /// The files after the changes of the script.
    now: Mutex<Option<BTreeMap<String, Vec<u8>>>>,
}

impl Clone for Log {
    fn clone(&self) -> Self {
        Self { files: self.files.clone(), held: self.held.clone(), ..Self::default() }
    }
}

impl Log {
    pub(crate) fn of(chains: &[&Chain]) -> Self {
        Self::with_files(chains.iter().flat_map(|chain| chain.files()).collect())
    }

    pub(crate) fn with_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files, ..Self::default() }
    }

    pub(crate) fn hold(mut self, chain: u16) -> Self {
        self.held.insert(chain);
        self
    }

    pub(crate) fn verify(&self) -> Report {
        self.verifier().run_on(self).unwrap()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        assert!(!self.files.is_empty() || self.held.is_empty());
        Verifier::new("/log").threads(1)
    }

    pub(crate) fn file(&mut self, chain: u16, segment: u32) -> &mut Vec<u8> {
        self.files.get_mut(&name(chain, segment)).unwrap()
    }

    /// Changes the lines of a file, each with its line feed.
    pub(crate) fn edit(&mut self, chain: u16, segment: u32, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let file = self.file(chain, segment);
        let mut lines: Vec<Vec<u8>> = file.split_inclusive(|byte| *byte == b'\n').map(Vec::from).collect();
        change(&mut lines);
        *file = lines.concat();
    }

    /// Returns the total length of the files.
    pub(crate) fn file_bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let now = self.now.lock().unwrap();
        now.as_ref().unwrap_or(&self.files).get(name).cloned()
    }
}

pub(crate) fn name(chain: u16, segment: u32) -> String {
    SegmentName { chain: ChainNumber::new(chain).unwrap(), segment }.to_string()
}

#[derive(Debug)]
struct Bytes {
    content: Vec<u8>,
    read: Arc<AtomicU64>,
    is_held: bool,
}

impl Storage for Log {
    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        PathBuf::from(if dir == Dir::Log { "/log" } else { "/log/control" }).join(name)
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        if dir == Dir::Control {
            return Ok(Vec::new());
        }
        if let Some(next) = self.script.lock().unwrap().pop() {
            *self.now.lock().unwrap() = Some(next);
        }
        let now = self.now.lock().unwrap();
        Ok(now.as_ref().unwrap_or(&self.files).keys().cloned().collect())
    }

    fn open(&self, dir: Dir, name: &str, _: Access) -> io::Result<Box<dyn File>> {
        if dir == Dir::Control {
            let chain = ChainNumber::parse_lock_name(name).unwrap().get();
            return Ok(Box::new(Bytes {
                content: Vec::new(),
                read: Arc::default(),
                is_held: self.held.contains(&chain),
            }));
        }
        let content = self.bytes_of(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Bytes { content, read: Arc::clone(&self.read_bytes), is_held: false }))
    }

    fn stat(&self, _: Dir, name: &str) -> io::Result<Option<Stat>> {
        Ok(self.bytes_of(name).map(|bytes| stat_of(&bytes)))
    }

    fn remove(&self, _: Dir, _: &str) -> io::Result<()> {
        unreachable!()
    }

    fn sync_dir(&self, _: Dir) -> io::Result<()> {
        unreachable!()
    }

    fn is_seen_locked(&self, dir: Dir, name: &str) -> bool {
        assert_eq!(dir, Dir::Control);
        self.held.contains(&ChainNumber::parse_lock_name(name).unwrap().get())
    }

    fn reattach(&self) -> io::Result<()> {
        unreachable!()
    }

    fn apart(&self) -> io::Result<Arc<dyn Storage>> {
        unreachable!()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        unreachable!()
    }

    fn machine_id(&self) -> String {
        String::new()
    }

    fn boot_id(&self) -> String {
        unreachable!()
    }

    fn filesystem(&self) -> crate::storage::FileSystem {
        unreachable!()
    }

    fn file_size_limit(&self) -> Option<u64> {
        unreachable!()
    }

    fn random(&self) -> io::Result<u128> {
        unreachable!()
    }
}

fn stat_of(bytes: &[u8]) -> Stat {
    Stat { device: 1, inode: 1, bytes: bytes.len() as u64, links: 1, mode: 0o600 }
}

impl File for Bytes {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(bytes.len());
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        bytes[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.content))
    }

    fn birth(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        assert_eq!(kind, LockKind::Shared);
        Ok(!self.is_held)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }

    fn append(&self, _: &[u8]) -> io::Result<usize> {
        unreachable!()
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        unreachable!()
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!()
    }

    fn sync_all(&self) -> io::Result<()> {
        unreachable!()
    }

    fn keep(self: Arc<Self>) {
        unreachable!()
    }
}

/// A chain under construction.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) number: ChainNumber,
    pub(crate) id: ChainId,
    pub(crate) segments: BTreeMap<u32, Vec<u8>>,
    pub(crate) segment: u32,
    /// The sequence number and the hash of the last record.
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
    pub(crate) witnesses: Witnesses,
    pub(crate) hashes: BTreeMap<u64, Digest>,
    pub(crate) second: i64,
}

impl Chain {
    /// Creates a chain without any file.
    pub(crate) fn bare(number: u16) -> Self {
        Self {
            number: ChainNumber::new(number).unwrap(),
            id: ChainId(0xABCD + u128::from(number)),
            segments: BTreeMap::new(),
            segment: 0,
            seq: 0,
            hash: Digest::ZERO,
            witnesses: Witnesses::new(),
            hashes: BTreeMap::new(),
            second: 1_795_248_000 + i64::from(number),
        }
    }

    /// Creates a chain with its first segment and `open`.
    pub(crate) fn new(number: u16) -> Self {
        Self::bare(number).segment(Vec::new()).open()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.segments.iter().map(|(segment, bytes)| (name(self.number.get(), *segment), bytes.clone()))
    }

    pub(crate) fn head(&self) -> Head {
        self.head_at(self.seq)
    }

    pub(crate) fn head_at(&self, seq: u64) -> Head {
        Head { chain: self.number, seq, hash: self.hashes[&seq] }
    }

    pub(crate) fn witness(&self) -> Witness {
        Witness { id: self.id, seq: self.seq, hash: self.hash }
    }

    pub(crate) fn sees(mut self, other: &Self) -> Self {
        self.witnesses.insert(other.number, other.witness());
        self
    }

    fn at(&mut self) -> Timestamp {
        self.second += 10;
        Timestamp::from_unix(self.second, 5)
    }

    pub(crate) fn put(mut self, payload: &[u8], durable: Option<u64>) -> Self {
        self.seq += 1;
        let file = self.segments.entry(self.segment).or_default();
        self.hash = seal(file, self.seq, payload, durable, &self.hash);
        self.hashes.insert(self.seq, self.hash);
        self
    }

    /// Begins the next segment with these claims.
    pub(crate) fn segment(self, after: Vec<After>) -> Self {
        self.segment_pruned(after, None)
    }

    pub(crate) fn segment_pruned(mut self, after: Vec<After>, pruned: Option<(u64, Digest)>) -> Self {
        self.segment += 1;
        let info = SegmentInfo {
            id: self.id,
            chain: self.number,
            segment: self.segment,
            after,
            chains: self.witnesses.clone(),
            pruned,
        };
        let (at, durable) = (self.at(), self.seq);
        self.put(&info.payload(at), Some(durable))
    }

    /// Begins the next segment after a regular rotation.
    pub(crate) fn roll(self) -> Self {
        let after = After::counted(self.segment, self.segments[&self.segment].len() as u64, None);
        self.segment(vec![after])
    }

    pub(crate) fn open(mut self) -> Self {
        let at = self.at();
        let payload = OpenInfo {
            writer: 7,
            service: "shop",
            host: "h",
            pid: 42,
            machine: "0123456789abcdef",
            flush_mode: "immediate",
            filesystem: "ext4",
            chains: &self.witnesses,
        }
        .payload(at);
        let durable = self.seq;
        self.put(&payload, Some(durable))
    }

    /// Appends an event as a write of its own, after a sync.
    pub(crate) fn event(self, action: &str) -> Self {
        let durable = self.seq;
        self.event_marked(action, Some(durable))
    }

    pub(crate) fn event_marked(mut self, action: &str, durable: Option<u64>) -> Self {
        let mut payload = Vec::new();
        let at = self.at();
        Payload::begin(&mut payload, at, RecordKind::Event).text("action", action);
        self.put(&payload, durable)
    }

    pub(crate) fn events(mut self, count: u64) -> Self {
        for number in 0..count {
            self = self.event(&format!("a{number}"));
        }
        self
    }

    pub(crate) fn mark(mut self) -> Self {
        let (at, durable) = (self.at(), self.seq);
        let payload = mark_payload(at, &self.witnesses);
        self.put(&payload, Some(durable))
    }

    pub(crate) fn gap(mut self, critical: u64, routine: u64) -> Self {
        let (at, durable) = (self.at(), self.seq);
        let gap = GapInfo { reason: LossReason::QueueFull, critical, routine, first: at, last: at };
        self.put(&gap.payload(at), Some(durable))
    }

    pub(crate) fn recovery(mut self) -> Self {
        let (at, durable) = (self.at(), self.seq);
        let recovery = RecoveryInfo { cause: Cause::Torn, segment: 1, bytes: 1, void: 1, message: "x" };
        self.put(&recovery.payload(at), Some(durable))
    }

    pub(crate) fn prune(mut self, through: u64, files: (u32, u32)) -> Self {
        let (at, durable) = (self.at(), self.seq);
        let hash = self.hashes[&through];
        let prune = PruneInfo { through, hash, files, reason: "max_age".into() };
        self.put(&prune.payload(at), Some(durable))
    }

    pub(crate) fn close(mut self) -> Self {
        let (at, durable) = (self.at(), self.seq);
        let payload = CloseInfo { events: 1, chains: &self.witnesses }.payload(at);
        self.put(&payload, Some(durable))
    }
}
