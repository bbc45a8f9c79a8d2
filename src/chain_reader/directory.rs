//! The names in a log directory: which chains there are, and which files each has.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    segment_name::{ChainNumber, FORWARD_REQUIRED, SegmentName},
    storage::{Dir, Storage},
};

/// The contents of a log directory at the time of one listing. A process that takes a lock lists it again: the former
/// holder may have begun a segment since.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// The segment numbers of each chain, ascending.
    pub(crate) chains: BTreeMap<ChainNumber, Vec<u32>>,
    /// Names that do not belong to the log.
    pub(crate) foreign: Vec<String>,
}

impl Directory {
    /// Lists the directory.
    pub(crate) fn list(storage: &dyn Storage) -> Result<Self, Error> {
        Self::read(storage).map_err(Error::io("list", log_path(storage)))
    }

    /// Lists the directory so that every file older than a listed one is listed too. A single listing may leave out a
    /// file that is created while it runs, and yet include one created later.
    pub(crate) fn list_without_holes(storage: &dyn Storage) -> Result<Self, Error> {
        let first = Self::list(storage)?;
        let is_hole = |pair: &[u32]| matches!(pair, [one, next] if one + 1 != *next);
        if !first.chains.values().any(|numbers| numbers.windows(2).any(is_hole)) {
            return Ok(first);
        }
        // Every file older than one in the first listing existed before the second listing began.
        let mut second = Self::list(storage)?;
        second.chains.retain(|chain, numbers| {
            let newest = first.chains.get(chain).and_then(|seen| seen.last().copied());
            numbers.retain(|number| newest.is_some_and(|newest| *number <= newest));
            !numbers.is_empty()
        });
        Ok(second)
    }

    /// Lists the directory, for callers that add the path to the error themselves.
    pub(crate) fn read(storage: &dyn Storage) -> io::Result<Self> {
        let mut directory = Self::default();
        for name in storage.list(Dir::Log)? {
            match SegmentName::parse(&name) {
                Some(segment) => directory.chains.entry(segment.chain).or_default().push(segment.segment),
                None if ["control", "hold", FORWARD_REQUIRED].contains(&name.as_str()) => {}
                None => directory.foreign.push(name),
            }
        }
        directory.chains.values_mut().for_each(|numbers| numbers.sort_unstable());
        directory.foreign.sort_unstable();
        Ok(directory)
    }

    /// Returns the segments of one chain, oldest first.
    pub(crate) fn segments(&self, chain: ChainNumber) -> Vec<SegmentName> {
        let numbers = self.chains.get(&chain).into_iter().flatten();
        numbers.map(|segment| SegmentName { chain, segment: *segment }).collect()
    }
}

/// Returns the chains that have a lock file, in no particular order. A chain with a lock may have no segment yet, and
/// a copy of a log may have no locks.
pub(crate) fn chains_with_a_lock(storage: &dyn Storage) -> io::Result<Vec<ChainNumber>> {
    Ok(storage.list(Dir::Control)?.iter().filter_map(|name| ChainNumber::parse_lock_name(name)).collect())
}

/// Returns the path of the log directory.
pub(crate) fn log_path(storage: &dyn Storage) -> PathBuf {
    let inside = storage.path(Dir::Log, "x");
    inside.parent().map_or_else(PathBuf::new, Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::log::{Chain, Log};

    #[test]
    fn a_directory_knows_its_own_files() {
        let mut log = Log::of(&[&Chain::new(3).roll().roll(), &Chain::new(0)]);
        for file in ["hold", "control", "z", "audit-003-2.jsonl", "controls"] {
            log.files.insert(file.to_owned(), Vec::new());
        }
        let directory = Directory::list(&log).unwrap();
        let chains: Vec<_> =
            directory.chains.iter().map(|(chain, files)| (chain.get(), files.clone())).collect();
        assert_eq!(chains, [(0, vec![1]), (3, vec![1, 2, 3])]);
        assert_eq!(directory.foreign, ["audit-003-2.jsonl", "controls", "z"]);
        let third = ChainNumber::new(3).unwrap();
        let segments: Vec<u32> = directory.segments(third).iter().map(|name| name.segment).collect();
        assert_eq!(segments, [1, 2, 3]);
        assert_eq!(directory.segments(ChainNumber::new(1).unwrap()), []);
        assert_eq!(log_path(&log), Path::new("/log"));
    }
}
