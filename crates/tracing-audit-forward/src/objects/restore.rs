//! Brings a log back from an archive, as files.

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
    verify::{self, Contents},
};
use crate::{copy::CopiedLine, origin::Origin, position::private, sink::SinkError};

/// What came back from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Whose log it is.
    pub origin: Origin,
    /// The ids of the chains by their numbers.
    pub chains: BTreeMap<u16, String>,
    /// How many segments, each a file.
    pub files: u64,
    /// How many bytes they have together.
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
    let mut restored = Restored { origin, chains: BTreeMap::new(), files: 0, bytes: 0 };
    for (id, contents) in &found {
        let number = number_of(store, id, contents).await?;
        if let Some(other) = restored.chains.insert(number, id.clone()) {
            return Err(setup(format!(
                "{other} and {id} are both chain {number:03}: the log was begun anew; choose with --chain-id"
            )));
        }
    }
    prepare(directory)?;
    let files = Files { directory: directory.to_owned() };
    for (number, id) in &restored.chains {
        let contents = found.iter().find(|(found, _)| found == id).map(|(_, contents)| contents);
        for (file, bytes) in files.write(store, *number, contents).await? {
            File::open(&file)
                .and_then(|file| file.sync_all())
                .map_err(|error| files.failed(&file, &error))?;
            restored.files += 1;
            restored.bytes += bytes;
        }
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

/// The number of a chain, as its manifest or its first line says.
async fn number_of(store: &Store, id: &str, contents: &Contents) -> Result<u16, SinkError> {
    if let Some(manifest) = &contents.manifest {
        return Ok(manifest.chain);
    }
    let mut first = FirstLine(None);
    if let Some(object) = contents.objects.first() {
        lines::read(store, &object.key, object.is_compressed(), &mut first).await?;
    }
    first.0.ok_or_else(|| {
        setup(format!(
            "nothing says yet which chain of the log {id} is: what is there begins within a segment"
        ))
    })
}

struct FirstLine(Option<u16>);

impl Content for &mut FirstLine {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.0.is_none() {
            self.0 = CopiedLine::parse(line).ok().and_then(|line| Some(line.identity()?.chain));
        }
        Ok(())
    }
}

/// Makes the directory, or finds it empty.
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

    /// Writes the segments of a chain. Returns their files, and how many bytes each has.
    async fn write(
        &self,
        store: &Store,
        chain: u16,
        contents: Option<&Contents>,
    ) -> Result<BTreeMap<PathBuf, u64>, SinkError> {
        let mut written = BTreeMap::new();
        for object in contents.into_iter().flat_map(|contents| &contents.objects) {
            let path = self.directory.join(format!("audit-{chain:03}-{:08}.jsonl", object.segment));
            let file = private().create(true).append(true).open(&path);
            let file = file.map_err(|error| self.failed(&path, &error))?;
            let mut copied = Copied(BufWriter::with_capacity(1 << 20, file));
            let sums = lines::read(store, &object.key, object.is_compressed(), &mut copied).await;
            let sums = sums.map_err(|error| self.failed(&path, &error))?;
            copied.0.flush().map_err(|error| self.failed(&path, &error))?;
            if let Some(what) = object.fault(sums.as_ref()) {
                return Err(self.failed(&path, &format!("{}: {what}", store.name(&object.key))));
            }
            *written.entry(path).or_default() += sums.map_or(0, |sums| sums.line_bytes);
        }
        Ok(written)
    }
}

struct Copied(BufWriter<File>);

impl Content for &mut Copied {
    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn line(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}
