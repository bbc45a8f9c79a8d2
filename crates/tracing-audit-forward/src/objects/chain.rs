//! What the archive has of a chain, and how it is extended.

use std::{collections::BTreeMap, io, sync::Arc};

use tracing_audit::{Digest, RecordKind};

use super::{
    Work,
    keys::{self, Name},
    lines::{self, Content, Limit},
    manifest::Manifest,
    store::{MAX_MANIFEST_BYTES, MAX_PART_BYTES, Put},
};
use crate::{
    copy::CopiedLine,
    sink::{Entry, SinkError},
};

/// Longer than any line.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// What the archive has of a chain.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Its number in the log, once a record of it was offered.
    pub(super) number: u16,
    /// The manifest of the newest sealed segment.
    pub(super) manifest: Option<Manifest>,
    pub(super) live: Option<Live>,
}

/// The segment that is not sealed yet.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) segment: u32,
    /// The number of its parts, numbered from 1, without the empty one.
    pub(super) parts: u32,
    /// Whether an empty part follows: nothing is added any more, and the segment is about to be sealed.
    pub(super) is_ended: bool,
    /// The last record; `None` without a part.
    pub(super) last: Option<(u64, Digest)>,
}

impl Chain {
    pub(super) fn last(&self) -> Option<(u64, Digest)> {
        self.live.as_ref().and_then(|live| live.last).or_else(|| self.manifest.as_ref()?.last())
    }

    pub(super) fn sealed_through(&self) -> u32 {
        self.manifest.as_ref().and_then(|manifest| manifest.segments.last()).map_or(0, |last| last.segment)
    }
}

impl Work<'_> {
    /// Finds out what the archive has. Known state is not read again if the lists match it.
    pub(super) async fn load(&self, id: &str, known: Option<Chain>) -> Result<Chain, SinkError> {
        let known = known.unwrap_or_default();
        let directory = self.keys.chain(self.origin, id);
        let listed = self.store.list(&directory, Some(Name::BEFORE_MANIFESTS)).await?.objects;
        let (mut manifest, mut is_new) = (None, true);
        // Foreign objects do no harm: everything is put under its own key, or not at all.
        let newest = listed.iter().rev().find_map(|object| match Name::parse(&object.name)? {
            Name::Manifest { segment } => Some((&object.name, segment)),
            _ => None,
        });
        if let Some((name, segment)) = newest {
            let key = format!("{directory}{name}");
            let is_same =
                |known: &Manifest| known.segments.last().is_some_and(|last| last.segment == segment);
            manifest = known.manifest.filter(is_same);
            is_new = manifest.is_none();
            if is_new {
                manifest = Some(self.manifest(&key, id, segment).await?);
            }
        }
        let mut chain = Chain { number: known.number, manifest, live: None };
        chain.live = self.live(id, chain.sealed_through(), known.live).await?;
        if is_new {
            self.check_manifest(&directory, &chain).await?;
            self.check_first(id, &chain).await?;
        }
        Ok(chain)
    }

    /// Checks that no manifest was removed: the next one would not name its segment. Only the segment that is
    /// live may be sealed already, by a sink that was stopped before it put the manifest.
    async fn check_manifest(&self, directory: &str, chain: &Chain) -> Result<(), SinkError> {
        let sealed = chain.sealed_through();
        let live = chain.live.as_ref().map(|live| live.segment);
        for object in self.store.list(directory, Some(&keys::behind_segment(sealed))).await?.objects {
            if let Some(Name::Segment { number, .. }) = Name::parse(&object.name)
                && number > sealed
                && live != Some(number)
            {
                let manifest = self.store.name(&format!("{directory}{}", Name::Manifest { segment: number }));
                let why = format!("its manifest {manifest} is missing: somebody removed it");
                return Err(self.store.foreign(&format!("{directory}{}", object.name), &why));
            }
        }
        Ok(())
    }

    /// Checks that the first record after the sealed segments links to their last one. If records in between
    /// are missing, there is nothing to compare: retention removed them, or somebody gave them up (`forward
    /// skip`).
    async fn check_first(&self, id: &str, chain: &Chain) -> Result<(), SinkError> {
        let sealed = chain.manifest.as_ref().and_then(Manifest::last);
        let (Some((seq, hash)), Some(live)) = (sealed, chain.live.as_ref().filter(|live| live.parts > 0))
        else {
            return Ok(());
        };
        let key = format!("{}{}", self.keys.live(self.origin, id), keys::part(live.segment, 1));
        let start = self.store.start(&key, MAX_LINE_BYTES).await?.unwrap_or_default();
        let first = CopiedLine::parse(start.split(|byte| *byte == b'\n').next().unwrap_or_default());
        let first = first
            .map_err(|what| self.store.foreign(&key, &format!("its first line is not a record: {what}")))?;
        let follows = match first.seq.checked_sub(seq) {
            Some(1) => first.previous == hash,
            distance => distance.is_some_and(|distance| distance > 1),
        };
        if follows {
            return Ok(());
        }
        let why = format!(
            "record {} in it does not follow on record {seq}, the last one of the newest manifest: one of them was altered",
            first.seq
        );
        Err(self.store.foreign(&key, &why))
    }

    async fn manifest(&self, key: &str, id: &str, segment: u32) -> Result<Manifest, SinkError> {
        // What the manifest names is acknowledged by this.
        self.store.settle(key).await?;
        let bytes = self.store.get(key, MAX_MANIFEST_BYTES).await?.unwrap_or_default();
        let manifest = Manifest::parse(&bytes, id).map_err(|why| self.store.foreign(key, &why))?;
        if manifest.segments.last().is_none_or(|last| last.segment != segment) {
            return Err(self.store.foreign(key, "it ends with another segment"));
        }
        Ok(manifest)
    }

    /// Finds the parts after the sealed segments.
    async fn live(&self, id: &str, sealed: u32, known: Option<Live>) -> Result<Option<Live>, SinkError> {
        let directory = self.keys.live(self.origin, id);
        let listed = self.store.list(&directory, Some(&keys::behind_parts(sealed))).await?.objects;
        let mut live: Option<Live> = None;
        for object in &listed {
            let key = format!("{directory}{}", object.name);
            let Some((segment, number)) = keys::parse_part(&object.name) else { continue };
            let live = live.get_or_insert(Live { segment, parts: 0, is_ended: false, last: None });
            if live.segment != segment {
                let first = self.store.name(&format!("{directory}{:08}", live.segment));
                return Err(self
                    .store
                    .foreign(&key, &format!("the segment before it, {first}, is not sealed")));
            }
            if number != live.parts + 1 || live.is_ended {
                let missing = self.store.name(&format!("{directory}{}", keys::part(segment, live.parts + 1)));
                let why = format!(
                    "{missing} is missing before it: somebody removed it, or a lifecycle rule is too quick"
                );
                return Err(self.store.foreign(&key, &why));
            }
            if object.bytes == 0 {
                live.is_ended = true;
            } else {
                live.parts = number;
            }
        }
        if let Some(live) = &mut live
            && live.parts > 0
        {
            let is_same = |known: &Live| (known.segment, known.parts) == (live.segment, live.parts);
            live.last = match known.filter(is_same).and_then(|known| known.last) {
                Some(last) => Some(last),
                None => {
                    Some(self.last_of(&format!("{directory}{}", keys::part(live.segment, live.parts))).await?)
                }
            };
        }
        Ok(live)
    }

    /// Returns the last record of a part.
    async fn last_of(&self, key: &str) -> Result<(u64, Digest), SinkError> {
        // The part is acknowledged by this.
        self.store.settle(key).await?;
        let end = self.store.end(key, MAX_LINE_BYTES).await?.unwrap_or_default();
        let text = end.strip_suffix(b"\n").unwrap_or_default();
        let line = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = CopiedLine::parse(line);
        let line =
            line.map_err(|what| self.store.foreign(key, &format!("its last line is not a record: {what}")))?;
        Ok((line.seq, line.hash))
    }

    /// Stores what is new of these entries of one chain, given with their indexes in the batch.
    pub(super) async fn store_entries(
        &self,
        id: &Arc<str>,
        chain: &mut Chain,
        entries: &[(usize, &Entry)],
    ) -> Result<(), SinkError> {
        if let Some((_, first)) = entries.first() {
            chain.number = first.record.chain();
        }
        let last = chain.last();
        let is_old = |entry: &Entry| last.is_some_and(|(seq, _)| entry.record.seq() <= seq);
        let (old, mut new) = entries.split_at(entries.partition_point(|(_, entry)| is_old(entry)));
        self.compare(id, chain, old).await?;
        while let Some((index, first)) = new.first() {
            let segment = in_file_name(first).ok_or_else(|| {
                let reason = format!("the segment of record {} is not known", first.record.head());
                SinkError::Chain { index: *index, reason }
            })?;
            let is_other = |entry: &Entry| segment_of(entry).is_some_and(|said| said != segment);
            let length = new.iter().position(|(_, entry)| in_file_name(entry) != Some(segment));
            let (group, rest) = new.split_at(length.unwrap_or(new.len()));
            if let Some((index, other)) = group.iter().find(|(_, entry)| is_other(entry)) {
                let (head, file) = (other.record.head(), other.record.file_name());
                let reason = format!(
                    "record {head} begins another segment than that of its file {file}: the file was renamed"
                );
                return Err(SinkError::Chain { index: *index, reason });
            }
            // Sealing the previous segment comes first: a part of a segment shows that all earlier ones
            // are sealed.
            self.enter(id, chain, segment).await?;
            self.put_part(id, chain, group).await?;
            new = rest;
        }
        Ok(())
    }

    /// Makes this the live segment. The previous one is sealed first, so a part of a segment is never stored
    /// before all earlier segments are sealed.
    async fn enter(&self, id: &str, chain: &mut Chain, segment: u32) -> Result<(), SinkError> {
        match &chain.live {
            Some(live) if live.segment == segment && !live.is_ended => return Ok(()),
            Some(live) if live.segment < segment => self.seal(id, chain).await?,
            None if chain.sealed_through() < segment => {}
            _ => {
                let directory = self.store.name(&self.keys.chain(self.origin, id));
                let reason = format!(
                    "segment {segment} of the log is sealed in {directory} already, with other records: the log was \
                     restored or cloned; store it under another service or host"
                );
                return Err(SinkError::Chain { index: 0, reason });
            }
        }
        chain.live = Some(Live { segment, parts: 0, is_ended: false, last: None });
        Ok(())
    }

    async fn put_part(
        &self,
        id: &Arc<str>,
        chain: &mut Chain,
        group: &[(usize, &Entry)],
    ) -> Result<(), SinkError> {
        let (Some(live), Some((_, last))) = (&mut chain.live, group.last()) else { return Ok(()) };
        let length = group.iter().map(|(_, entry)| entry.record.as_json().len() + 1).sum();
        let mut body = Vec::with_capacity(length);
        for (_, entry) in group {
            body.extend_from_slice(entry.record.as_json().as_bytes());
            body.push(b'\n');
        }
        let body = bytes::Bytes::from(body);
        let key = format!("{}{}", self.keys.live(self.origin, id), keys::part(live.segment, live.parts + 1));
        if self.store.put(&key, body.clone()).await? == Put::Exists {
            let there = self.store.get(&key, MAX_PART_BYTES).await?;
            if there.as_ref() != Some(&body) {
                return Err(self.differing(&key, there.as_deref().unwrap_or_default(), group));
            }
        }
        live.parts += 1;
        live.last = Some((last.record.seq(), last.record.hash()));
        Ok(())
    }

    /// Returns the error for a key that somebody else took first.
    fn differing(&self, key: &str, there: &[u8], group: &[(usize, &Entry)]) -> SinkError {
        let mut stored = &mut Stored::default();
        for line in there.split(|byte| *byte == b'\n') {
            drop(stored.line(line));
        }
        match stored.conflict(group) {
            Some(conflict) => conflict,
            // The same records, divided differently: the store is asked what it has.
            None => self.store.unavailable("put", key, &"another forwarder sends the same log"),
        }
    }

    /// Compares records with what is stored under their numbers.
    async fn compare(&self, id: &str, chain: &Chain, old: &[(usize, &Entry)]) -> Result<(), SinkError> {
        let (Some((_, first)), Some((_, end))) = (old.first(), old.last()) else { return Ok(()) };
        let last = chain.last().filter(|(seq, _)| *seq == first.record.seq());
        let mut stored = Stored { from: first.record.seq(), ..Stored::default() };
        if let Some((seq, hash)) = last {
            // The record that was offered last, offered again to test the store.
            stored.hashes.insert(seq, hash);
        } else {
            self.read_between(id, chain, first.record.seq(), end.record.seq(), &mut stored).await?;
        }
        if let Some(conflict) = stored.conflict(old) {
            return Err(conflict);
        }
        let missing = old.iter().find(|(_, entry)| !stored.hashes.contains_key(&entry.record.seq()));
        missing.map_or(Ok(()), |(_, entry)| {
            let reason = format!("the archive already continues after record {}", entry.record.head());
            Err(SinkError::Refused { reason })
        })
    }

    /// Reads the segments that have records from `first` to `last`.
    async fn read_between(
        &self,
        id: &str,
        chain: &Chain,
        first: u64,
        last: u64,
        stored: &mut Stored,
    ) -> Result<(), SinkError> {
        let directory = self.keys.chain(self.origin, id);
        let sealed = chain.manifest.iter().flat_map(|manifest| &manifest.segments);
        for segment in sealed.filter(|segment| segment.first_seq <= last && segment.last_seq >= first) {
            let is_compressed = Name::is_compressed(&segment.name);
            let key = format!("{directory}{}", segment.name);
            lines::read(self.store, &key, is_compressed, Limit::of(segment), &mut *stored).await?;
        }
        let Some(live) = chain.live.as_ref().filter(|live| live.last.is_some_and(|(seq, _)| seq >= first))
        else {
            return Ok(());
        };
        // The newest parts are the most likely ones.
        for number in (1..=live.parts).rev() {
            let key = format!("{}{}", self.keys.live(self.origin, id), keys::part(live.segment, number));
            let before = stored.lowest.replace(u64::MAX);
            lines::read(self.store, &key, false, Limit::NONE, &mut *stored).await?;
            if stored.lowest.is_some_and(|lowest| lowest <= first) {
                break;
            }
            stored.lowest = stored.lowest.min(before);
        }
        Ok(())
    }
}

/// Returns the segment that a `segment` line begins.
fn segment_of(entry: &Entry) -> Option<u32> {
    if entry.record.kind() != RecordKind::Segment {
        return None;
    }
    entry.record.get("segment")?.get("segment")?.as_u64()?.try_into().ok()
}

/// Returns the segment in the file name of a record.
fn in_file_name(entry: &Entry) -> Option<u32> {
    let name = entry.record.file_name();
    name.strip_suffix(".jsonl")?.rsplit_once('-')?.1.parse().ok()
}

/// The hashes of stored records.
#[derive(Debug, Default)]
struct Stored {
    from: u64,
    hashes: BTreeMap<u64, Digest>,
    /// The lowest number that was read.
    lowest: Option<u64>,
}

impl Content for &mut Stored {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if let Ok(line) = CopiedLine::parse(line) {
            self.lowest = Some(self.lowest.map_or(line.seq, |lowest| lowest.min(line.seq)));
            if line.seq >= self.from {
                self.hashes.insert(line.seq, line.hash);
            }
        }
        Ok(())
    }
}

impl Stored {
    fn conflict(&self, entries: &[(usize, &Entry)]) -> Option<SinkError> {
        entries.iter().find_map(|(index, entry)| {
            let stored = *self.hashes.get(&entry.record.seq())?;
            (stored != entry.record.hash()).then_some(SinkError::Conflict { index: *index, stored })
        })
    }
}
