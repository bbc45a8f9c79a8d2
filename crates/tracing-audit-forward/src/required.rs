//! The forwarders that retention waits for: the file `forward-required` of a log.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fs2::FileExt;

use crate::{
    error::Error,
    position::{Files, is_same, private},
    status::chains,
};

/// The limit of the library: one sector.
const MAX_BYTES: usize = 512;
/// How long to wait for a program that adds a name, and the pause between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// Returns the forwarders that retention waits for, according to the directory of the log. A program can
/// require others by its own settings.
///
/// # Errors
///
/// [`Error::Log`] if there is no log, [`Error::Io`], and [`Error::BadRequired`] if the file cannot be parsed:
/// then nothing is removed at all.
pub fn required(dir: impl AsRef<Path>) -> Result<Vec<String>, Error> {
    let list = List::of(dir.as_ref(), &[])?;
    match fs::read(&list.path) {
        Ok(bytes) => list.parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", list.path)(error)),
    }
}

/// Requires these forwarders: from now on, no program removes a segment before the store of each has all of
/// it. Returns all forwarders that are required now. Durable when it returns.
///
/// A file that cannot be parsed is repaired; every valid name in it stays.
///
/// # Errors
///
/// [`Error::Log`] if there is no log, [`Error::Name`], [`Error::Io`], and [`Error::TooManyRequired`].
pub fn require(dir: impl AsRef<Path>, names: &[impl AsRef<str>]) -> Result<Vec<String>, Error> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let list = List::of(dir.as_ref(), &names)?;
    let mut seen = BTreeSet::new();
    let wanted: Vec<String> =
        names.iter().filter(|name| seen.insert(**name)).map(|name| (*name).to_owned()).collect();
    if wanted.is_empty() {
        return required(dir);
    }
    // An empty file stops all removal, so the file is created only if the names fit into it.
    list.text(&wanted)?;
    let is_new = !list.path.exists();
    let mut file = list.lock(private().create(true).truncate(false))?;
    let bytes = list.read(&mut file)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut all: Vec<String> =
        text.lines().filter(|line| Files::new(&list.dir, line).is_ok()).map(str::to_owned).collect();
    all.extend(wanted);
    let mut seen = BTreeSet::new();
    all.retain(|name| seen.insert(name.clone()));
    let replaced = list.replace(&all);
    if replaced.is_err() && is_new && bytes.is_empty() && list.is_same(&file).unwrap_or(false) {
        // This call created the file. Left empty, it would stop all removal.
        drop(fs::remove_file(&list.path));
    }
    replaced.map(|()| all)
}

/// Lifts the requirement of these forwarders. Returns those that are still required; the file is removed with
/// the last name. Durable when it returns.
///
/// A program that requires a forwarder by its own settings still does so, and adds the name again when it
/// next opens the log.
///
/// # Errors
///
/// [`Error::Log`] if there is no log, [`Error::Name`], [`Error::Io`], [`Error::BadRequired`], and
/// [`Error::NotRequired`] if one of the names is not required. Then nothing is changed.
pub fn lift(dir: impl AsRef<Path>, names: &[impl AsRef<str>]) -> Result<Vec<String>, Error> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let list = List::of(dir.as_ref(), &names)?;
    if names.is_empty() {
        return required(dir);
    }
    let held = match list.lock(&mut OpenOptions::new()) {
        Ok(mut file) => Some((list.read(&mut file)?, file)),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let required = held.as_ref().map_or(Ok(Vec::new()), |(bytes, _)| list.parse(bytes))?;
    if let Some(name) = names.iter().find(|name| !required.iter().any(|required| required == *name)) {
        return Err(Error::NotRequired { name: (*name).to_owned(), path: list.path, required });
    }
    let left: Vec<String> =
        required.into_iter().filter(|required| !names.contains(&required.as_str())).collect();
    list.replace(&left)?;
    Ok(left)
}

/// The file, and the log that it belongs to.
struct List {
    dir: PathBuf,
    path: PathBuf,
}

impl List {
    /// Returns the list of an existing log, after checking the names.
    fn of(dir: &Path, names: &[&str]) -> Result<Self, Error> {
        for name in names {
            Files::new(dir, name)?;
        }
        chains(dir)?;
        Ok(Self { dir: dir.to_owned(), path: dir.join("forward-required") })
    }

    /// Opens the file and takes the lock that a program takes to add a name.
    fn lock(&self, options: &mut OpenOptions) -> Result<File, Error> {
        let begun = Instant::now();
        loop {
            let file = options.read(true).write(true).open(&self.path);
            let file = file.map_err(Error::io("open", &self.path))?;
            match file.try_lock_exclusive() {
                // Another process may have replaced the file between open and lock.
                Ok(()) if self.is_same(&file).map_err(Error::io("look at", &self.path))? => return Ok(file),
                Ok(()) => {}
                Err(error) if error.kind() == fs2::lock_contended_error().kind() => {}
                Err(error) => return Err(Error::io("lock", &self.path)(error)),
            }
            if begun.elapsed() >= MAX_WAIT {
                let source = io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock");
                return Err(Error::io("lock", &self.path)(source));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Returns whether the path still refers to this file.
    fn is_same(&self, file: &File) -> io::Result<bool> {
        let held = file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(named) => Ok(is_same(&named, &held)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&self, file: &mut File) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        // Reads no more than the library does, because somebody else may have written the file.
        file.take(64 << 10).read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Parses the names by the rules of the library.
    fn parse(&self, bytes: &[u8]) -> Result<Vec<String>, Error> {
        let bad = |reason: &str| Error::BadRequired { path: self.path.clone(), reason: reason.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not text"))?;
        let lines = text.strip_suffix('\n').ok_or_else(|| bad("it does not end with a line feed"))?;
        let names: Vec<&str> = lines.trim_end_matches('\n').split('\n').collect();
        match names.iter().find(|name| Files::new(&self.dir, name).is_err()) {
            Some(bad_name) => Err(bad(&format!("{bad_name:?} is not a name"))),
            None => Ok(names.into_iter().map(str::to_owned).collect()),
        }
    }

    /// Returns the content of the file.
    fn text(&self, names: &[String]) -> Result<String, Error> {
        let text: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
        if text.len() > MAX_BYTES {
            return Err(Error::TooManyRequired { path: self.path.clone() });
        }
        Ok(text)
    }

    /// Writes a new file, syncs it, renames it, and syncs the directory: after a crash there is the old file
    /// or the new one. The caller holds the lock.
    fn replace(&self, names: &[String]) -> Result<(), Error> {
        let text = self.text(names)?;
        // No forwarder has a file of this name. Next to the segments, a reader would report it as foreign.
        let aside = self.dir.join("control/required.new");
        let write = || -> io::Result<()> {
            if text.is_empty() {
                fs::remove_file(&self.path)?;
            } else {
                let mut file = private().create(true).truncate(true).write(true).open(&aside)?;
                // Before the rename: programs must be able to read the file as soon as it has its name.
                self.hand_over(&file)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                #[expect(clippy::disallowed_methods, reason = "it is no segment")]
                fs::rename(&aside, &self.path)?;
            }
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(Error::io("write", &self.path))
    }

    /// Gives a file to the owner of the log, who does not trust files of others, and to its group if the
    /// group may read.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        let (log, new) = (fs::metadata(&self.dir)?, file.metadata()?);
        if new.uid() != log.uid() {
            fchown(file, Some(log.uid()), Some(log.gid()))?;
        } else if new.gid() != log.gid() {
            // A process outside the directory's group cannot do this, but the owner can still read the file.
            drop(fchown(file, None, Some(log.gid())));
        }
        let group = if file.metadata()?.gid() == log.gid() { log.mode() & 0o040 } else { 0 };
        file.set_permissions(Permissions::from_mode(0o600 | group))
    }
}

#[cfg(test)]
mod tests {
    use tracing_audit::AuditLog;

    use super::*;

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        AuditLog::builder(&path).stderr(false).open().unwrap().close().unwrap();
        (dir, path)
    }

    #[test]
    fn names_are_added_and_lifted() {
        let (_dir, path) = log();
        let file = path.join("forward-required");
        assert_eq!(required(&path).unwrap(), [""; 0]);
        assert_eq!(require(&path, &["b", "a"]).unwrap(), ["b", "a"]);
        assert_eq!(require(&path, &["a", "c"]).unwrap(), ["b", "a", "c"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "b\na\nc\n");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(lift(&path, &["a", "b"]).unwrap(), ["c"]);
        assert_eq!(
            (fs::read_to_string(&file).unwrap(), required(&path).unwrap()),
            ("c\n".into(), vec!["c".into()])
        );
        let error = lift(&path, &["c", "d"]).unwrap_err().to_string();
        assert!(error.ends_with("forward-required does not require d; it requires c"), "{error}");
        assert_eq!(lift(&path, &["c"]).unwrap(), [""; 0]);
        assert!(!file.exists() && !path.join("control/required.new").exists());
        let error = lift(&path, &["c"]).unwrap_err().to_string();
        assert!(error.ends_with("forward-required does not require c; it requires nothing"), "{error}");
    }

    #[test]
    fn a_bad_list_is_repaired_by_requiring_and_not_by_lifting() {
        let (_dir, path) = log();
        for text in ["", "a", "a\n# nobody\n", "a\r\n", "a\n\nb\n", "\0\0\0\n"] {
            fs::write(path.join("forward-required"), text).unwrap();
            let error = lift(&path, &["a"]).unwrap_err().to_string();
            assert!(error.contains("forward-required is not a list of forwarders"), "{error}");
            assert!(matches!(required(&path), Err(Error::BadRequired { .. })));
            let mended = require(&path, &["z"]).unwrap();
            assert_eq!(mended, required(&path).unwrap());
            assert_eq!(mended.contains(&"a".to_owned()), text.contains('a'), "{text:?}");
        }
        let many: Vec<String> = (0..16).map(|number| format!("{number:032}")).collect();
        assert!(matches!(require(&path, &many), Err(Error::TooManyRequired { .. })));
        // Nor is an empty file left behind, which would stop all removal.
        fs::remove_file(path.join("forward-required")).unwrap();
        assert!(matches!(require(&path, &many), Err(Error::TooManyRequired { .. })));
        assert_eq!((required(&path).unwrap(), path.join("forward-required").exists()), (vec![], false));
        assert_eq!(require(&path, &["a"; 300]).unwrap(), ["a"], "each counts once");
        assert_eq!(require(&path, &[] as &[&str]).unwrap(), ["a"]);
        assert!(matches!(require(&path, &["A"]), Err(Error::Name { .. })));
        assert!(matches!(require(path.join("no"), &["a"]), Err(Error::Log(_))));
    }

    /// Both sides take the lock of the file, so neither loses what the other wrote.
    #[test]
    fn programs_that_require_at_the_same_time_lose_nothing() {
        let (_dir, path) = log();
        thread::scope(|scope| {
            for turn in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let name = format!("opener-{turn}");
                    let retention = tracing_audit::Retention::keep_all().require_forwarded([name.as_str()]);
                    let log = AuditLog::builder(path).stderr(false).retention(retention).open().unwrap();
                    log.close().unwrap();
                });
                scope.spawn(move || {
                    let name = format!("command-{turn}");
                    require(path, &[name.as_str(), "gone"]).unwrap();
                    // Another thread may have lifted it.
                    let _lifted = lift(path, &["gone"]);
                });
            }
        });
        let names = required(&path).unwrap();
        assert_eq!(names.iter().filter(|name| *name != "gone").count(), 16, "{names:?}");
    }
}
