//! Restores a log from an archive, as files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::{
    keys::Keys,
    lines::{self, Content},
    setup,
    store::Store,
    verify::{self, Contents, Object},
};
use crate::{copy::CopiedLine, origin::Origin, position::private, sink::SinkError};

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The origin of the log.
    pub origin: Origin,
    /// The ids of the chains, by number.
    pub chains: BTreeMap<u16, String>,
    /// The ids of chains that were not restored, because nothing shows their numbers yet: forwarding began
    /// within a segment, and no later segment has been archived.
    pub left_out: Vec<String>,
    /// The number of segments, each a file.
    pub files: u64,
    /// Their total size in bytes.
    pub bytes: u64,
}

pub(super) async fn restore(
    store: &Store,
    keys: &Keys,
    only: Option<&Origin>,
    directory: &Path,
    chain_ids: &[String],
) -> Result<Restored, SinkError> {
    let origin = one_of(store, &verify::origins(store, keys, only).await?)?;
    let mut found = Vec::new();
    for id in verify::chain_ids(store, keys, &origin).await? {
        if chain_ids.is_empty() || chain_ids.contains(&id) {
            let contents = Contents::of(store, keys, &origin, &id).await?;
            if !contents.objects.is_empty() {
                found.push((id, contents));
            }
        }
    }
    let missing = chain_ids.iter().find(|id| !found.iter().any(|(found, _)| found == *id));
    if let Some(id) = missing {
        return Err(setup(format!("{}{origin} has no chain {id}", store.place)));
    }
    if found.is_empty() {
        return Err(setup(format!("{} has no log of {origin}", store.place)));
    }
    let mut restored = Restored { origin, chains: BTreeMap::new(), left_out: Vec::new(), files: 0, bytes: 0 };
    for (id, contents) in &found {
        let Some(number) = number_of(store, contents).await? else {
            restored.left_out.push(id.clone());
            continue;
        };
        if let Some(other) = restored.chains.insert(number, id.clone()) {
            return Err(setup(format!(
                "{other} and {id} are both chain {number:03}: the log was begun again; choose with --chain-id"
            )));
        }
    }
    if let Some(id) =
        restored.left_out.first().filter(|_| restored.chains.is_empty() || !chain_ids.is_empty())
    {
        return Err(setup(format!(
            "the number of chain {id} is not known yet: its forwarding began within a segment, and no later segment \
             has arrived; restore the others, each with --chain-id"
        )));
    }
    prepare(directory)?;
    let files = Files { directory: directory.to_owned() };
    for (number, id) in &restored.chains.clone() {
        let contents = found.iter().find(|(found, _)| found == id).map(|(_, contents)| contents);
        files.write(store, *number, contents, &mut restored.files, &mut restored.bytes).await?;
    }
    sync_directories(directory).map_err(|error| files.failed(directory, &error))?;
    Ok(restored)
}

fn one_of(store: &Store, origins: &[Origin]) -> Result<Origin, SinkError> {
    match origins {
        [origin] => Ok(origin.clone()),
        [] => Err(setup(format!("{} has no log", store.place))),
        [first, ..] => Err(setup(format!(
            "{} has {} logs, such as that of {first}: name one with ?service=NAME&host=NAME in the URL",
            store.place,
            origins.len()
        ))),
    }
}

/// Returns the number of a chain, if its manifest or a line shows it.
async fn number_of(store: &Store, contents: &Contents) -> Result<Option<u16>, SinkError> {
    if let Some(manifest) = &contents.manifest {
        return Ok(Some(manifest.chain));
    }
    let mut said = ChainNumber(None);
    for object in &contents.objects {
        lines::read(store, &object.key, object.is_compressed(), object.limit(), &mut said).await?;
        if said.0.is_some() {
            break;
        }
    }
    Ok(said.0)
}

struct ChainNumber(Option<u16>);

impl Content for &mut ChainNumber {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.0.is_none() {
            self.0 = CopiedLine::parse(line).ok().and_then(|line| Some(line.identity()?.chain));
        }
        Ok(())
    }
}

/// Creates the directory, or checks that it is empty.
fn prepare(directory: &Path) -> Result<(), SinkError> {
    let cannot =
        |error: io::Error| setup(format!("cannot make the directory {}: {error}", directory.display()));
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(cannot),
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory).map_err(cannot)?.permissions())
        & 0o022
        != 0
    {
        return Err(setup(format!(
            "others may write to {}: name a new directory, or take that from them (chmod go-w)",
            directory.display()
        )));
    }
    if fs::read_dir(directory).map_err(cannot)?.next().is_some() {
        return Err(setup(format!("{} is not empty: name a new directory", directory.display())));
    }
    Ok(())
}

fn sync_directories(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

struct Files {
    directory: PathBuf,
}

impl Files {
    fn failed(&self, path: &Path, error: &dyn std::fmt::Display) -> SinkError {
        let directory = self.directory.display();
        setup(format!("cannot write {}: {error}; remove {directory}, and begin again", path.display()))
    }

    /// Writes the segments of a chain, syncs them, and counts them.
    async fn write(
        &self,
        store: &Store,
        chain: u16,
        contents: Option<&Contents>,
        count: &mut u64,
        bytes: &mut u64,
    ) -> Result<(), SinkError> {
        let objects = contents.map(|contents| contents.objects.as_slice()).unwrap_or_default();
        for parts in objects.chunk_by(|one, other| one.segment == other.segment) {
            let Some(first) = parts.first() else { continue };
            let path = self.directory.join(format!("audit-{chain:03}-{:08}.jsonl", first.segment));
            let failed = |error: &dyn std::fmt::Display| self.failed(&path, error);
            // Never writes to a file of somebody else.
            let file = private().write(true).create_new(true).open(&path).map_err(|error| failed(&error))?;
            let mut copied = Copied(BufWriter::with_capacity(1 << 20, file));
            for object in parts {
                *bytes += self.copy(store, object, &mut copied).await.map_err(|error| failed(&error))?;
            }
            let file = copied.0.into_inner().map_err(|error| failed(&error))?;
            file.sync_all().map_err(|error| failed(&error))?;
            *count += 1;
        }
        Ok(())
    }

    /// Appends the lines of an object. Returns how many bytes they have.
    async fn copy(&self, store: &Store, object: &Object, copied: &mut Copied) -> Result<u64, SinkError> {
        let wrong = |what: &str| setup(format!("{}: {what}", store.name(&object.key)));
        let said = object.sealed.as_ref().map(|sealed| sealed.bytes);
        if said.zip(object.bytes).is_some_and(|(said, there)| said != there) {
            return Err(wrong("the object does not have the size that the manifest names"));
        }
        let sums = lines::read(store, &object.key, object.is_compressed(), object.limit(), copied).await?;
        match object.fault(sums.as_ref()) {
            Some(what) => Err(wrong(what)),
            None => Ok(sums.map_or(0, |sums| sums.line_bytes)),
        }
    }
}

struct Copied(BufWriter<File>);

impl Content for &mut Copied {
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn line(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}
