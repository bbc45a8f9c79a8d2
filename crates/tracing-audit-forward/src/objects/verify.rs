//! Verifies an archive: what is there, what the manifests say of it, and every line.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    keys::{self, Keys, Name},
    lines::{self, Content, Limit, Sums},
    manifest::{Manifest, Missing, Sealed},
    setup,
    store::{Listed, MAX_MANIFEST_BYTES, MAX_NOTE_BYTES, Store, TOO_LARGE},
};
use crate::{
    copy::{CopiedLine, CopyChecker, CopyFindingKind, CopyReport, is_chain_id},
    origin::Origin,
    sink::SinkError,
};

pub(super) async fn verify(
    store: &Store,
    keys: &Keys,
    only: Option<&Origin>,
    mut checker: CopyChecker,
) -> Result<CopyReport, SinkError> {
    let mut seen = BTreeSet::new();
    for origin in origins(store, keys, only).await? {
        for id in chain_ids(store, keys, &origin).await? {
            let contents = Contents::of(store, keys, &origin, &id).await?;
            let name = if seen.insert(id.clone()) { id } else { checker.another(&id, &origin) };
            check(store, &name, &contents, &mut checker).await?;
        }
    }
    if seen.is_empty() {
        let of = only.map(|only| format!(" of {only}")).unwrap_or_default();
        return Err(setup(format!("{} has no log{of}: is it the right place?", store.place)));
    }
    Ok(checker.finish())
}

async fn check(
    store: &Store,
    id: &str,
    contents: &Contents,
    checker: &mut CopyChecker,
) -> Result<(), SinkError> {
    for gap in &contents.gaps {
        checker.gap(&gap.gap(id));
    }
    let manifest = contents.manifest.as_ref();
    let mut is_other_chain = false;
    for (key, what) in contents.unexpected.iter().chain(&contents.differing_gaps()) {
        checker.finding(id, 0, CopyFindingKind::Object { key: store.name(key), what });
    }
    for object in &contents.objects {
        let mut observed = Observed::default();
        let lines = Checked { id, checker: &mut *checker, observed: &mut observed };
        let sums = lines::read(store, &object.key, object.is_compressed(), object.limit(), lines).await?;
        let seq = object.sealed.as_ref().map_or(0, |sealed| sealed.first_seq);
        if let Some(what) = object.fault(sums.as_ref()) {
            checker.finding(id, seq, CopyFindingKind::Object { key: store.name(&object.key), what });
        } else if object.sealed.as_ref().is_some_and(|sealed| !observed.is_in(sealed)) {
            checker.finding(id, seq, contents.differs(store));
        }
        let chains = manifest.map(|manifest| manifest.chain).zip(observed.chain);
        is_other_chain |= chains.is_some_and(|(said, chain)| said != chain);
    }
    if is_other_chain {
        checker.finding(id, 0, contents.differs(store));
    }
    Ok(())
}

/// What the lines of an object show that the manifest states too.
#[derive(Debug, Default)]
struct Observed {
    chain: Option<u16>,
    first: Option<(u64, Option<String>)>,
    last: Option<(u64, String, Option<String>)>,
}

impl Observed {
    fn is_in(&self, sealed: &Sealed) -> bool {
        let first = Some((sealed.first_seq, sealed.first_ts.clone()));
        let last = Some((sealed.last_seq, sealed.last_hash.clone(), sealed.last_ts.clone()));
        (&self.first, &self.last) == (&first, &last)
    }
}

struct Checked<'a> {
    id: &'a str,
    checker: &'a mut CopyChecker,
    observed: &'a mut Observed,
}

impl Content for Checked<'_> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match CopiedLine::parse(line) {
            Ok(line) => {
                self.checker.parsed(self.id, &line);
                let ts = line.text("ts");
                self.observed.first.get_or_insert_with(|| (line.seq, ts.clone()));
                self.observed.last = Some((line.seq, line.hash.to_string(), ts));
                self.observed.chain = line.identity().map(|identity| identity.chain).or(self.observed.chain);
            }
            Err(bad) => self.checker.bad(self.id, None, line, bad),
        }
        Ok(())
    }
}

/// Returns the logs of which there is anything.
pub(super) async fn origins(
    store: &Store,
    keys: &Keys,
    only: Option<&Origin>,
) -> Result<Vec<Origin>, SinkError> {
    store.find_credentials().await?;
    if let Some(only) = only {
        return Ok(vec![only.clone()]);
    }
    let mut origins = BTreeSet::new();
    for of_live_parts in [false, true] {
        let directory = keys.services(of_live_parts);
        for service in store.directories(&directory).await? {
            // Other things may be below the same prefix, such as `lost+found`, which not every user may read.
            let is_name = Origin::parse(&service, "host").is_some();
            if !is_name || (!of_live_parts && !Keys::is_service(&service)) {
                continue;
            }
            for host in store.directories(&format!("{directory}{service}/")).await? {
                origins.extend(Origin::parse(&service, &host));
            }
        }
    }
    let mut with_chains = Vec::new();
    for origin in origins {
        if !chain_ids(store, keys, &origin).await?.is_empty() {
            with_chains.push(origin);
        }
    }
    Ok(with_chains)
}

/// Returns the ids of the chains of a log.
pub(super) async fn chain_ids(
    store: &Store,
    keys: &Keys,
    origin: &Origin,
) -> Result<BTreeSet<String>, SinkError> {
    let mut ids = BTreeSet::new();
    for of_live_parts in [false, true] {
        ids.extend(store.directories(&keys.chains(origin, of_live_parts)).await?);
    }
    ids.retain(|id| is_chain_id(id));
    Ok(ids)
}

/// The largest accepted ratio of lines to their compressed size.
const MAX_RATIO: u64 = 1 << 10;

const OUT_OF_PLACE: &str = "the object does not belong here";
const UNNAMED: &str = "no manifest names the object";

/// Returns whether a part is of a later segment. What is not a part is kept, to be reported.
fn is_behind(object: &Listed, segment: u32) -> bool {
    keys::parse_part(&object.name).is_none_or(|part| part.0 > segment)
}

/// Reads a small object; `None` if it is too large.
async fn small(store: &Store, key: &str, max: u64) -> Result<Option<bytes::Bytes>, SinkError> {
    match store.get(key, max).await {
        Err(SinkError::Chain { .. }) => Ok(None),
        got => got.map(|bytes| Some(bytes.unwrap_or_default())),
    }
}

/// The objects of a chain, in the order of its records.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) manifest: Option<Manifest>,
    pub(super) objects: Vec<Object>,
    pub(super) gaps: Vec<Missing>,
    /// The directory of the chain.
    directory: String,
    /// Keys of objects that should not exist, or that are missing, and what is wrong.
    pub(super) unexpected: Vec<(String, &'static str)>,
}

/// A sealed segment, or a part of the live one.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) segment: u32,
    pub(super) key: String,
    /// Its stored size in bytes; `None` if it is not in the list.
    pub(super) bytes: Option<u64>,
    /// The entry of the manifest.
    pub(super) sealed: Option<Sealed>,
    /// The maximum number of bytes of lines, if no manifest states it.
    max: u64,
}

impl Object {
    pub(super) fn is_compressed(&self) -> bool {
        Name::is_compressed(&self.key)
    }

    /// Returns how much of it is read.
    pub(super) fn limit(&self) -> Limit {
        self.sealed.as_ref().map_or(Limit::of_lines(self.max), Limit::of)
    }

    /// Returns what is wrong with it, apart from its lines.
    pub(super) fn fault(&self, sums: Option<&Sums>) -> Option<&'static str> {
        let Some(sums) = sums else { return Some("the object is missing") };
        let is_other = |sealed: &Sealed| {
            (sealed.bytes, &sealed.sha256) != (sums.bytes, &sums.sha256)
                || (sealed.line_bytes, &sealed.line_sha256) != (sums.line_bytes, &sums.line_sha256)
        };
        match &self.sealed {
            Some(sealed) if is_other(sealed) => Some("the object is not the one that the manifest names"),
            _ => sums.fault,
        }
    }
}

impl Contents {
    pub(super) async fn of(store: &Store, keys: &Keys, origin: &Origin, id: &str) -> Result<Self, SinkError> {
        let directory = keys.chain(origin, id);
        let mut contents = Self { directory: directory.clone(), ..Self::default() };
        // Listed first, so that a forwarder that seals in the meantime leaves no hole: parts that are sealed
        // by then are removed again.
        let live = keys.live(origin, id);
        let parts = store.list(&live, None).await?;
        let listing = store.list(&directory, None).await?;
        let unexpected = [(&live, &parts.unexpected), (&directory, &listing.unexpected)];
        for (directory, name) in
            unexpected.iter().flat_map(|(at, names)| names.iter().map(move |name| (at, name)))
        {
            contents.unexpected.push((format!("{directory}{name}"), OUT_OF_PLACE));
        }
        let (mut segments, mut newest) = (BTreeMap::<u32, Vec<(Name, u64)>>::new(), None);
        for object in listing.objects {
            let key = format!("{directory}{}", object.name);
            match Name::parse(&object.name) {
                Some(name @ Name::Segment { number, .. }) => {
                    segments.entry(number).or_default().push((name, object.bytes));
                }
                Some(Name::Manifest { segment }) => newest = Some((key, segment)),
                Some(Name::Gap { first_seq, last_seq }) => {
                    contents.read_gap(store, key, (first_seq, last_seq)).await?;
                }
                None => contents.unexpected.push((key, OUT_OF_PLACE)),
            }
        }
        if let Some((key, segment)) = newest {
            contents.read_manifest(store, key, id, segment).await?;
        }
        let named = contents.named();
        let parts: Vec<Listed> =
            parts.objects.into_iter().filter(|object| is_behind(object, named)).collect();
        // A sealed segment without a manifest was left by a crash between the two: its parts are the last.
        let unnamed: Vec<u32> = segments.range(named + 1..).map(|(number, _)| *number).collect();
        let is_part_of =
            |object: &Listed, number| keys::parse_part(&object.name).is_some_and(|part| part.0 == number);
        // More than one such segment, or parts of another one, cannot come from a single crash.
        let through = match unnamed[..] {
            [number] if parts.iter().all(|object| is_part_of(object, number)) => number,
            _ => named,
        };
        let of_parts: u64 =
            parts.iter().filter(|part| is_part_of(part, through)).map(|part| part.bytes).sum();
        contents.take_segments(&directory, &segments, through, (of_parts > 0).then_some(of_parts));
        contents.take_parts(&live, parts, through);
        Ok(contents)
    }

    async fn read_gap(&mut self, store: &Store, key: String, seqs: (u64, u64)) -> Result<(), SinkError> {
        match small(store, &key, MAX_NOTE_BYTES).await? {
            Some(bytes) => match serde_json::from_slice::<Missing>(&bytes) {
                Ok(gap) if (gap.first_seq, gap.last_seq) == seqs => self.gaps.push(gap),
                _ => self.unexpected.push((key, "the object does not describe the gap in its name")),
            },
            None => self.unexpected.push((key, TOO_LARGE)),
        }
        Ok(())
    }

    async fn read_manifest(
        &mut self,
        store: &Store,
        key: String,
        id: &str,
        segment: u32,
    ) -> Result<(), SinkError> {
        match small(store, &key, MAX_MANIFEST_BYTES).await? {
            Some(bytes) => match Manifest::parse(&bytes, id) {
                Ok(manifest) if manifest.segments.last().is_some_and(|last| last.segment == segment) => {
                    self.manifest = Some(manifest);
                }
                _ => self.unexpected.push((key, "the object is not a manifest of this chain")),
            },
            None => self.unexpected.push((key, TOO_LARGE)),
        }
        Ok(())
    }

    /// Returns the finding for a manifest that differs from the lines.
    fn differs(&self, store: &Store) -> CopyFindingKind {
        let key = format!("{}{}", self.directory, Name::Manifest { segment: self.named() });
        CopyFindingKind::Object { key: store.name(&key), what: "the manifest differs from the lines" }
    }

    /// Returns the gaps before the last sealed record that are either objects or in the manifest, but not
    /// both.
    fn differing_gaps(&self) -> Vec<(String, &'static str)> {
        let Some((manifest, (last, _))) = self.manifest.as_ref().and_then(|one| Some((one, one.last()?)))
        else {
            return Vec::new();
        };
        let key = |gap: &Missing| {
            let Missing { first_seq, last_seq, .. } = *gap;
            format!("{}{}", self.directory, Name::Gap { first_seq, last_seq })
        };
        let gone = manifest.gaps.iter().filter(|gap| !self.gaps.contains(gap));
        let gone = gone.map(|gap| (key(gap), "the object that the manifest names is missing, or differs"));
        let unnamed = self.gaps.iter().filter(|gap| gap.first_seq < last && !manifest.gaps.contains(gap));
        gone.chain(unnamed.map(|gap| (key(gap), UNNAMED))).collect()
    }

    /// Takes the sealed segments up to this one, which has at most `max` bytes of lines if no manifest
    /// states it. Any other segment is unexpected.
    fn take_segments(
        &mut self,
        directory: &str,
        segments: &BTreeMap<u32, Vec<(Name, u64)>>,
        through: u32,
        max: Option<u64>,
    ) {
        let named = self.manifest.iter().flat_map(|manifest| &manifest.segments);
        let named: BTreeMap<u32, Sealed> = named.map(|sealed| (sealed.segment, sealed.clone())).collect();
        for number in named.keys().chain(segments.keys()).copied().collect::<BTreeSet<_>>() {
            let there: BTreeMap<String, u64> = segments
                .get(&number)
                .into_iter()
                .flatten()
                .map(|(name, bytes)| (name.to_string(), *bytes))
                .collect();
            let sealed = named.get(&number).cloned();
            let name = sealed.as_ref().map(|sealed| sealed.name.clone());
            let name = name.or_else(|| {
                there.keys().next().filter(|_| number <= through && number > self.named()).cloned()
            });
            for other in there.keys().filter(|other| name.as_ref() != Some(*other)) {
                self.unexpected.push((format!("{directory}{other}"), UNNAMED));
            }
            if let Some(name) = name {
                let bytes = there.get(&name).copied();
                // A rule may have removed some or all of the parts.
                let max = max.unwrap_or(0).max(bytes.unwrap_or(0).saturating_mul(MAX_RATIO));
                let key = format!("{directory}{name}");
                self.objects.push(Object { segment: number, key, bytes, sealed, max });
            }
        }
    }

    /// Returns the number of the last segment that the manifest names.
    fn named(&self) -> u32 {
        self.manifest.as_ref().and_then(|manifest| manifest.segments.last()).map_or(0, |last| last.segment)
    }

    /// Takes the parts after the sealed segments.
    fn take_parts(&mut self, directory: &str, parts: Vec<Listed>, sealed: u32) {
        let mut last = (sealed, 0);
        for object in parts {
            let key = format!("{directory}{}", object.name);
            let Some((segment, number)) = keys::parse_part(&object.name) else {
                self.unexpected.push((key, "the object is not a part of a segment"));
                continue;
            };
            if segment <= sealed {
                continue;
            }
            let follows = (segment == last.0 && number == last.1 + 1) || (segment > last.0 && number == 1);
            if !follows {
                self.unexpected.push((key.clone(), "a part before the object is missing"));
            }
            last = (segment, number);
            if object.bytes > 0 {
                let bytes = Some(object.bytes);
                self.objects.push(Object { segment, key, bytes, sealed: None, max: object.bytes });
            }
        }
    }
}
