//! Changes that tests make behind the back of every process, at the path of the log. Names in
//! `control` begin with `control/`.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::{Machine, full_name, split_name};
use crate::storage::{
    Dir,
    sim::{directory::Directory, inode::Inode, prng::Prng},
};

impl Machine {
    pub(crate) fn contents(&self, name: &str, durable: bool) -> Option<Vec<u8>> {
        let (dir, name) = split_name(name);
        let directory = self.trees.get(self.at_path?)?.directory(dir);
        let inode = if durable { directory.get_durable(name) } else { directory.get(name) }?;
        let inode = self.inodes.get(&inode)?;
        Some(if durable { inode.durable() } else { inode.cache() }.to_vec())
    }

    pub(crate) fn has_on_medium(&self, prefix: &str, bytes: &[u8]) -> bool {
        let Some(tree) = self.at_path.and_then(|tree| self.trees.get(tree)) else { return false };
        let names = tree.log.durable_names().rev().filter(|(name, _)| name.starts_with(prefix));
        let mut files = names.filter_map(|(_, inode)| self.inodes.get(&inode)).map(Inode::durable);
        // Most often these bytes were written last.
        files.any(|file| file.ends_with(bytes) || memchr::memmem::rfind(file, bytes).is_some())
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let Some(tree) = self.at_path.and_then(|tree| self.trees.get(tree)) else { return BTreeMap::new() };
        [Dir::Log, Dir::Control]
            .into_iter()
            .flat_map(|dir| tree.directory(dir).names().map(move |(name, inode)| (dir, name, inode)))
            .filter_map(|(dir, name, inode)| {
                Some((full_name(dir, name), self.inodes.get(&inode)?.cache().to_vec()))
            })
            .collect()
    }

    pub(crate) fn inode_at(&mut self, name: &str) -> Option<&mut Inode> {
        let (dir, name) = split_name(name);
        let inode = self.trees.get(self.at_path?)?.directory(dir).get(name)?;
        self.inodes.get_mut(&inode)
    }

    /// Puts another inode, or nothing, under a name, durable at once. Returns false if the name did
    /// not exist.
    pub(crate) fn put_at(&mut self, name: &str, inode: Option<Inode>) -> bool {
        let inode = inode.map(|inode| self.add_inode(inode));
        self.link_at(name, inode)
    }

    fn link_at(&mut self, name: &str, inode: Option<u64>) -> bool {
        let tree = self.tree_at_path();
        let (dir, name) = split_name(name);
        let Some(tree) = self.trees.get_mut(tree) else { return false };
        let existed = tree.directory(dir).get(name).is_some();
        tree.directory_mut(dir).set_durable(name, inode);
        existed
    }

    pub(crate) fn hard_link(&mut self, name: &str, new_name: &str) -> bool {
        let (dir, name) = split_name(name);
        let tree = self.at_path.and_then(|tree| self.trees.get(tree));
        let Some(inode) = tree.and_then(|tree| tree.directory(dir).get(name)) else { return false };
        self.link_at(new_name, Some(inode));
        true
    }

    pub(crate) fn append_foreign(&mut self, name: &str, bytes: &[u8]) -> bool {
        self.moment += 1;
        let moment = self.moment;
        self.inode_at(name).map(|inode| inode.write(inode.cache().len(), bytes, moment)).is_some()
    }

    /// Fails a writeback that the kernel begins by itself. The next sync of every open file reports
    /// it.
    pub(crate) fn fail_writeback(&mut self, name: &str, errno: Errno) -> bool {
        let until = self.moment;
        self.trace.line(format_args!("the kernel fails to write back {name}"));
        let mut chance = Prng::new(self.cut.next());
        let failed = self.inode_at(name).map(|inode| {
            inode.fail_to_sync(until, false, &mut chance);
            inode.note_failure(errno);
        });
        failed.is_some()
    }

    pub(crate) fn sync_everything(&mut self) {
        let until = self.moment;
        self.inodes.values_mut().for_each(|inode| inode.sync(until));
        for tree in &mut self.trees {
            tree.log.sync();
            tree.control.sync();
        }
    }

    /// Takes the directory away from the path of the log: removed with its contents, or only moved.
    pub(crate) fn detach(&mut self, removed: bool) {
        if let Some(tree) = self.at_path.take().and_then(|tree| self.trees.get_mut(tree)) {
            tree.removed = removed;
            if removed {
                tree.log = Directory::default();
                tree.control = Directory::default();
            }
        }
    }
}
