//! Checks an archive: what is there, what the manifests say of it, and every line.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    keys::{self, Keys, Name},
    lines::{self, Content, Sums},
    manifest::{Manifest, Missing, Sealed},
    store::{Listed, Store},
};
use crate::{
    copy::{CopyChecker, CopyFindingKind, CopyReport},
    origin::Origin,
    sink::SinkError,
};

pub(super) async fn verify(
    store: &Store,
    keys: &Keys,
    only: Option<&Origin>,
    mut checker: CopyChecker,
) -> Result<CopyReport, SinkError> {
    for origin in origins(store, keys, only).await? {
        for id in chain_ids(store, keys, &origin).await? {
            let contents = Contents::of(store, keys, &origin, &id).await?;
            check(store, &id, &contents, &mut checker).await?;
        }
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
    for (key, what) in &contents.strange {
        checker.finding(id, 0, CopyFindingKind::Object { key: store.name(key), what });
    }
    for object in &contents.objects {
        let lines = Checked { id, checker: &mut *checker };
        let sums = lines::read(store, &object.key, object.is_compressed(), lines).await?;
        if let Some(what) = object.fault(sums.as_ref()) {
            let seq = object.sealed.as_ref().map_or(0, |sealed| sealed.first_seq);
            checker.finding(id, seq, CopyFindingKind::Object { key: store.name(&object.key), what });
        }
    }
    Ok(())
}

struct Checked<'a> {
    id: &'a str,
    checker: &'a mut CopyChecker,
}

impl Content for Checked<'_> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.checker.line(self.id, line);
        Ok(())
    }
}

/// The logs of which there is anything.
pub(super) async fn origins(
    store: &Store,
    keys: &Keys,
    only: Option<&Origin>,
) -> Result<Vec<Origin>, SinkError> {
    if let Some(only) = only {
        return Ok(vec![only.clone()]);
    }
    let mut origins = BTreeSet::new();
    for of_live_parts in [false, true] {
        let directory = keys.services(of_live_parts);
        for service in store.directories(&directory).await? {
            if !of_live_parts && !Keys::is_service(&service) {
                continue;
            }
            for host in store.directories(&format!("{directory}{service}/")).await? {
                // Other things may be kept below the same prefix.
                origins.extend(Origin::parse(&service, &host));
            }
        }
    }
    Ok(origins.into_iter().collect())
}

/// The chains of a log, by their ids.
pub(super) async fn chain_ids(
    store: &Store,
    keys: &Keys,
    origin: &Origin,
) -> Result<BTreeSet<String>, SinkError> {
    let mut ids = BTreeSet::new();
    for of_live_parts in [false, true] {
        ids.extend(store.directories(&keys.chains(origin, of_live_parts)).await?);
    }
    Ok(ids)
}

/// What there is of a chain, in the order of its records.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) manifest: Option<Manifest>,
    pub(super) objects: Vec<Object>,
    pub(super) gaps: Vec<Missing>,
    /// Keys of objects that should not be there, or should, and what is wrong.
    pub(super) strange: Vec<(String, &'static str)>,
}

/// A sealed segment, or a part of the live one.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) segment: u32,
    pub(super) key: String,
    /// What the manifest says of it.
    pub(super) sealed: Option<Sealed>,
}

impl Object {
    pub(super) fn is_compressed(&self) -> bool {
        Name::is_compressed(&self.key)
    }

    /// What is wrong with it, its lines aside.
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
        let mut contents = Self::default();
        let directory = keys.chain(origin, id);
        let (mut segments, mut newest) = (BTreeMap::<u32, Vec<Name>>::new(), None);
        for object in store.list(&directory, None).await? {
            let key = format!("{directory}{}", object.name);
            match Name::parse(&object.name) {
                Some(name @ Name::Segment { number, .. }) => segments.entry(number).or_default().push(name),
                Some(Name::Manifest { .. }) => newest = Some(key),
                Some(Name::Gap { .. }) => contents.read_gap(store, key).await?,
                None => contents.strange.push((key, "the object does not belong here")),
            }
        }
        if let Some(key) = newest {
            match Manifest::parse(&store.get(&key).await?.unwrap_or_default(), id) {
                Ok(manifest) => contents.manifest = Some(manifest),
                Err(_) => contents.strange.push((key, "the object is no manifest of this chain")),
            }
        }
        let live = keys.live(origin, id);
        let named = contents.named();
        let parts = store.list(&live, Some(&keys::behind_parts(named))).await?;
        // One that is sealed and in no manifest was left by a crash between the two: its parts are the last.
        let unnamed: Vec<u32> = segments.range(named + 1..).map(|(number, _)| *number).collect();
        let is_part_of =
            |object: &Listed, number| keys::parse_part(&object.name).is_some_and(|part| part.0 == number);
        let through = match unnamed[..] {
            [number] if parts.iter().all(|object| is_part_of(object, number)) => number,
            _ => named,
        };
        contents.take_segments(&directory, &segments, through);
        contents.take_parts(&live, parts, through);
        Ok(contents)
    }

    async fn read_gap(&mut self, store: &Store, key: String) -> Result<(), SinkError> {
        match serde_json::from_slice(&store.get(&key).await?.unwrap_or_default()) {
            Ok(gap) => self.gaps.push(gap),
            Err(_) => self.strange.push((key, "the object tells of no gap")),
        }
        Ok(())
    }

    /// Takes the sealed segments up to this one. Nobody names the others.
    fn take_segments(&mut self, directory: &str, segments: &BTreeMap<u32, Vec<Name>>, through: u32) {
        let named = self.manifest.iter().flat_map(|manifest| &manifest.segments);
        let named: BTreeMap<u32, Sealed> = named.map(|sealed| (sealed.segment, sealed.clone())).collect();
        for number in named.keys().chain(segments.keys()).copied().collect::<BTreeSet<_>>() {
            let there: Vec<String> =
                segments.get(&number).into_iter().flatten().map(Name::to_string).collect();
            let sealed = named.get(&number).cloned();
            let name = sealed.as_ref().map(|sealed| sealed.name.clone());
            let name = name
                .or_else(|| there.first().filter(|_| number <= through && number > self.named()).cloned());
            for other in there.iter().filter(|other| name.as_ref() != Some(*other)) {
                self.strange.push((format!("{directory}{other}"), "no manifest names the object"));
            }
            if let Some(name) = name {
                self.objects.push(Object { segment: number, key: format!("{directory}{name}"), sealed });
            }
        }
    }

    /// The number of the last segment that the manifest names.
    fn named(&self) -> u32 {
        self.manifest.as_ref().and_then(|manifest| manifest.segments.last()).map_or(0, |last| last.segment)
    }

    /// Takes the parts behind the sealed segments.
    fn take_parts(&mut self, directory: &str, parts: Vec<Listed>, sealed: u32) {
        let mut last = (sealed, 0);
        for object in parts {
            let key = format!("{directory}{}", object.name);
            let Some((segment, number)) = keys::parse_part(&object.name) else {
                self.strange.push((key, "the object is no part of a segment"));
                continue;
            };
            if segment <= sealed {
                continue;
            }
            let follows = (segment == last.0 && number == last.1 + 1) || (segment > last.0 && number == 1);
            if !follows {
                self.strange.push((key.clone(), "a part before the object is missing"));
            }
            last = (segment, number);
            if object.bytes > 0 {
                self.objects.push(Object { segment, key, sealed: None });
            }
        }
    }
}
