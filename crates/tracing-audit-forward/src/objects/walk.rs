//! Lists a directory, one entry at a time. Entries that cannot be keys are reported separately, and stop
//! nothing.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use super::store::{Listed, Listing};
use crate::position::is_same;

/// How deep the directories of a chain are, plus one.
const MAX_DEPTH: usize = 3;

struct Inner {
    path: PathBuf,
    /// Its name below the directory that is listed, with a `/` at its end.
    name: String,
    /// Its ancestors and itself: a link to one of them would loop.
    around: Vec<Metadata>,
}

/// Returns the files below a directory, after a name in it. A missing directory has none.
pub(super) fn files(directory: &Path, behind: Option<&str>) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let Some(metadata) = found(fs::metadata(directory))? else { return Ok(listing) };
    let mut open = vec![Inner { path: directory.to_owned(), name: String::new(), around: vec![metadata] }];
    while let Some(inner) = open.pop() {
        let Some(entries) = found(fs::read_dir(&inner.path))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(part) = key_part(&entry.file_name()) else {
                listing.unexpected.push(format!("{}{}", inner.name, entry.file_name().display()));
                continue;
            };
            let name = format!("{}{part}", inner.name);
            // A directory sorts with the `/` at its end, which may be after `behind`.
            if behind.is_some_and(|behind| format!("{name}/\u{7F}").as_str() <= behind) || is_aside(&part) {
                continue;
            }
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // Removed in the meantime, or a link that leads nowhere or loops.
                Err(error) => {
                    match found(fs::symlink_metadata(entry.path()))? {
                        Some(link) if link.is_symlink() => listing.unexpected.push(name),
                        Some(_) => return Err(error),
                        None => {}
                    }
                    continue;
                }
            };
            if metadata.is_dir() {
                // Compared by device and inode, because a loop of links has no end by name.
                if inner.around.len() > MAX_DEPTH || inner.around.iter().any(|one| is_same(one, &metadata)) {
                    listing.unexpected.push(name);
                } else {
                    let around = inner.around.iter().chain([&metadata]).cloned().collect();
                    open.push(Inner { path: entry.path(), name: format!("{name}/"), around });
                }
            } else if !metadata.is_file() {
                listing.unexpected.push(name);
            } else if behind.is_none_or(|behind| name.as_str() > behind) {
                listing.objects.push(Listed { name, bytes: metadata.len() });
            }
        }
    }
    Ok(listing)
}

/// Returns the names of the directories in a directory.
pub(super) fn directories(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in found(fs::read_dir(directory))?.into_iter().flatten() {
        let entry = entry?;
        let is_directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        names.extend(key_part(&entry.file_name()).filter(|_| is_directory));
    }
    Ok(names)
}

fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a name that can be part of a key.
fn key_part(name: &std::ffi::OsStr) -> Option<String> {
    let name = name.to_str()?;
    object_store::path::Path::parse(name).is_ok().then(|| name.to_owned())
}

/// Returns whether this is a temporary file of `object_store`, which a crash may leave.
fn is_aside(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, end)| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit()))
}
