//! A simulated directory: which names it shows, and which of them are durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use super::prng::Prng;

/// The inodes that a name stood for, oldest first. `None` after it was removed.
type History = Vec<Option<u64>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    /// What every process sees.
    names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// By name, the changes since the last sync, and the process that made the last of them.
    unsynced: BTreeMap<String, (usize, History)>,
    /// By name, the changes that a failed sync left in doubt. A later sync does not make them
    /// durable.
    doubtful: BTreeMap<String, History>,
}

impl Directory {
    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub(super) fn get_durable(&self, name: &str) -> Option<u64> {
        self.durable.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    pub(super) fn durable_names(&self) -> impl DoubleEndedIterator<Item = (&str, u64)> {
        self.durable.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    /// Returns every inode that has a name now or may have one after a power cut.
    pub(super) fn reachable(&self) -> impl Iterator<Item = u64> {
        let histories = self.unsynced.values().map(|(_, history)| history).chain(self.doubtful.values());
        let histories = histories.flatten();
        self.names.values().chain(self.durable.values()).copied().chain(histories.copied().flatten())
    }

    /// Makes a name stand for an inode, or for nothing, on behalf of a process. Durable only once
    /// the directory is synced.
    pub(super) fn set(&mut self, name: &str, inode: Option<u64>, process: usize) {
        assign(&mut self.names, name, inode);
        // Keeps every state: a power cut may leave any of them on the medium.
        let (maker, history) = self.unsynced.entry(name.to_owned()).or_default();
        *maker = process;
        history.push(inode);
    }

    /// Makes a name stand for an inode, or for nothing, durable at once.
    pub(super) fn set_durable(&mut self, name: &str, inode: Option<u64>) {
        assign(&mut self.names, name, inode);
        assign(&mut self.durable, name, inode);
        self.unsynced.remove(name);
        self.doubtful.remove(name);
    }

    pub(super) fn sync(&mut self) {
        for name in mem::take(&mut self.unsynced).into_keys() {
            assign(&mut self.durable, &name, self.names.get(&name).copied());
            // The name was changed after the failed sync, so it was written again.
            self.doubtful.remove(&name);
        }
    }

    /// Leaves the unsynced names in doubt. Returns whether one of them is a file that another
    /// process created.
    pub(super) fn fail_to_sync(&mut self, process: usize) -> bool {
        let mut is_of_another = false;
        for (name, (maker, history)) in mem::take(&mut self.unsynced) {
            // That process is not told of the failure, and its own sync would succeed.
            is_of_another |= maker != process && self.names.contains_key(&name);
            self.doubtful.entry(name).or_default().extend(history);
        }
        is_of_another
    }

    /// Applies a power cut. Each name gets any of its states since it was last durable, independent
    /// of the order of the changes.
    pub(super) fn cut_power(&mut self, prng: &mut Prng) {
        let unsynced = mem::take(&mut self.unsynced).into_iter().map(|(name, (_, history))| (name, history));
        let (unsynced, doubtful) = (unsynced.collect::<BTreeMap<_, _>>(), mem::take(&mut self.doubtful));
        let changed: BTreeSet<&String> = unsynced.keys().chain(doubtful.keys()).collect();
        for name in changed {
            let states: History = [self.durable.get(name).copied()]
                .into_iter()
                .chain([&doubtful, &unsynced].into_iter().filter_map(|map| map.get(name)).flatten().copied())
                .collect();
            let survivor = states.get(prng.below(states.len())).copied().flatten();
            assign(&mut self.durable, name, survivor);
        }
        // After a restart, only the medium counts.
        self.names.clone_from(&self.durable);
    }
}

fn assign(names: &mut BTreeMap<String, u64>, name: &str, inode: Option<u64>) {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}
