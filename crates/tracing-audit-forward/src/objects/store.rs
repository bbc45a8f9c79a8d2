//! The calls of an object store: bounded in time, create-only, and with errors that say what they mean.

use std::{
    fs,
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    aws::AwsCredentialProvider, local::LocalFileSystem, path::Path,
};

use super::{client::Headers, invalid_keys::InvalidKeys, lock::Lock, setup, walk};
use crate::{position::is_same, sink::SinkError};

/// For each of this many bytes of a body, a call gets one more second.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// The beginning of a message about an answer.
const ANSWERS: &str = "the server answers ";

/// Why an object is not read.
pub(super) const TOO_LARGE: &str = "the object is larger than one of its kind can be";

/// The result of a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Created,
    /// The key exists already, with any content.
    Exists,
}

/// The largest manifest: some 150,000 segments.
pub(super) const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// The largest object of a gap or a probe.
pub(super) const MAX_NOTE_BYTES: u64 = 4 << 10;
/// The largest part that is read as a whole: an offer has at most 8 MiB and a line.
pub(super) const MAX_PART_BYTES: u64 = 64 << 20;

/// The content of a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Sorted by name.
    pub(super) objects: Vec<Listed>,
    /// Names that cannot be keys.
    pub(super) unexpected: Vec<String>,
}

/// An object in a list.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The key without the directory that was listed.
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// An object store, and the text before keys in messages.
pub(super) struct Store {
    pub(super) objects: Objects,
    /// `s3://bucket/`, or the path of a directory with a `/` at its end.
    pub(super) place: String,
    pub(super) timeout: Duration,
    pub(super) lock: Lock,
}

pub(super) enum Objects {
    S3 { objects: Arc<dyn ObjectStore>, credentials: AwsCredentialProvider, invalid_keys: InvalidKeys },
    Directory(Arc<Directory>),
}

/// A directory, opened by the first call.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    opened: OnceLock<(Arc<dyn ObjectStore>, fs::Metadata)>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, opened: OnceLock::new() })
    }

    /// Creates the directory and these directories in it if they are missing, for the owner only. The parent
    /// is not created: where a disk is not mounted, it is missing too.
    fn make(&self, inner: &[String]) -> io::Result<()> {
        make_private(&self.path)?;
        inner.iter().try_for_each(|name| make_private(&self.path.join(name)))
    }

    /// Syncs a file, and the names that lead to it.
    fn settle(&self, key: &str) -> io::Result<()> {
        let path = self.path.join(key);
        let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.path));
        std::iter::once(path.as_path()).chain(above).try_for_each(|path| fs::File::open(path)?.sync_all())
    }

    /// Opens the directory. Another directory under the same path appears when a disk is unmounted.
    fn open(&self) -> Result<Arc<dyn ObjectStore>, SinkError> {
        let path = self.path.display();
        let cannot =
            |error: &dyn std::fmt::Display| setup(format!("cannot open the directory {path}: {error}"));
        let now = fs::metadata(&self.path).map_err(|error| cannot(&error))?;
        if let Some((objects, then)) = self.opened.get() {
            // Without this check, records would go to the directory below the mount point of a disk
            // that was unmounted.
            if is_same(then, &now) {
                return Ok(Arc::clone(objects));
            }
            return Err(setup(format!(
                "{path} is not the same directory as before: mount the disk again, or restart the forwarder"
            )));
        }
        let objects = LocalFileSystem::new_with_prefix(&self.path).map_err(|error| cannot(&error))?;
        // Durable and create-only: a temporary file is written, synced and linked.
        let objects: Arc<dyn ObjectStore> = Arc::new(objects.with_fsync(true));
        drop(self.opened.set((Arc::clone(&objects), now)));
        Ok(objects)
    }
}

/// Creates a directory for its owner only. An existing one is left unchanged.
fn make_private(path: &std::path::Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            fs::File::open(parent.unwrap_or(std::path::Path::new(".")))?.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

impl Store {
    async fn objects(&self, action: &str, key: &str) -> Result<Arc<dyn ObjectStore>, SinkError> {
        match &self.objects {
            Objects::S3 { objects, .. } => Ok(Arc::clone(objects)),
            Objects::Directory(directory) => {
                let directory = Arc::clone(directory);
                self.blocking(action, key, move || directory.open()).await?
            }
        }
    }

    /// Waits for a blocking call, such as on a disk that hangs, no longer than for an answer. The call itself
    /// continues.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &str,
        key: &str,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SinkError> {
        let done = self.within(action, key, 0, tokio::task::spawn_blocking(call)).await?;
        done.map_err(|error| self.unavailable(action, key, &error))
    }

    /// Creates what must exist before the first put: the top-level directories of everything that is put.
    pub(super) async fn prepare(&self, directories: Vec<String>) -> Result<(), SinkError> {
        let Objects::Directory(directory) = &self.objects else { return Ok(()) };
        let path = directory.path.display().to_string();
        let directory = Arc::clone(directory);
        let made = self.blocking("make", "", move || directory.make(&directories)).await?;
        made.map_err(|error| setup(format!("cannot make the directory {path}: {error}")))
    }

    /// Gets the credentials first, so that missing ones are not reported as the server's answer to a request
    /// without them.
    pub(super) async fn find_credentials(&self) -> Result<(), SinkError> {
        let Objects::S3 { credentials, .. } = &self.objects else { return Ok(()) };
        let got = self.within("get credentials for", "", 0, credentials.get_credential()).await?;
        got.map(drop).map_err(|error| {
            setup(format!(
                "cannot get credentials for {}: {}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine or \
                 container a role",
                self.place,
                error_text(&error)
            ))
        })
    }

    /// Makes an existing file of a directory durable: its writer may have stopped before it synced the name.
    pub(super) async fn settle(&self, key: &str) -> Result<(), SinkError> {
        let Objects::Directory(directory) = &self.objects else { return Ok(()) };
        let (directory, of) = (Arc::clone(directory), key.to_owned());
        let settled = self.blocking("sync", key, move || directory.settle(&of)).await?;
        settled.map_err(|error| self.unavailable("sync", key, &error))
    }

    /// Returns the name of a key in messages.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    pub(super) fn unavailable(&self, action: &str, key: &str, error: &dyn std::fmt::Display) -> SinkError {
        SinkError::Unavailable {
            reason: format!("cannot {action} {}: {error}", self.name(key)),
            retry_after: None,
        }
    }

    /// Returns the error for unexpected content under a key: the chain stops. The caller that knows the index
    /// in the batch sets it.
    pub(super) fn foreign(&self, key: &str, why: &str) -> SinkError {
        SinkError::Chain { index: 0, reason: format!("{} is in the way: {why}", self.name(key)) }
    }

    /// Puts an object where there is none, with its SHA-256, and with the retention that was asked for.
    pub(super) async fn put(&self, key: &str, body: Bytes) -> Result<Put, SinkError> {
        let headers = self.lock.headers(std::time::SystemTime::now());
        self.put_with(key, body, headers).await.map_err(|error| match error {
            SinkError::Setup { reason } if self.lock.is_asked_for() && reason.contains("answers 400") => {
                setup(format!(
                    "{reason}; retention or a legal hold was asked for: does the bucket have object lock?"
                ))
            }
            error => error,
        })
    }

    /// Puts an object with other headers.
    pub(super) async fn put_with(
        &self,
        key: &str,
        body: Bytes,
        headers: Option<Headers>,
    ) -> Result<Put, SinkError> {
        let length = body.len() as u64;
        let mut options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        if let Some(headers) = headers {
            options.extensions.insert(headers);
        }
        let (path, objects) = (self.path(key)?, self.objects("put", key).await?);
        let put = objects.put_opts(&path, PutPayload::from_bytes(body), options);
        match self.within("put", key, length, put).await? {
            Ok(_) => Ok(Put::Created),
            Err(Error::AlreadyExists { .. }) => {
                self.settle(key).await?;
                Ok(Put::Exists)
            }
            Err(error) => Err(self.of("put", key, &error)),
        }
    }

    /// Reads a whole object of at most `max` bytes. A longer one is foreign.
    pub(super) async fn get(&self, key: &str, max: u64) -> Result<Option<Bytes>, SinkError> {
        let (path, objects) = (self.path(key)?, self.objects("get", key).await?);
        let get = async {
            let got = objects.get(&path).await?;
            // Checked before the body is read, so that a foreign object cannot exhaust memory.
            if got.meta.size > max { Ok(None) } else { got.bytes().await.map(Some) }
        };
        match self.found(key, self.within("get", key, max, get).await?)? {
            Some(None) => Err(self.foreign(key, TOO_LARGE)),
            got => Ok(got.flatten()),
        }
    }

    /// Reads the first bytes of an object that is not empty.
    pub(super) async fn start(&self, key: &str, bytes: u64) -> Result<Option<Bytes>, SinkError> {
        self.range(key, bytes, GetRange::Bounded(0..bytes)).await
    }

    /// Reads the last bytes of an object that is not empty.
    pub(super) async fn end(&self, key: &str, bytes: u64) -> Result<Option<Bytes>, SinkError> {
        self.range(key, bytes, GetRange::Suffix(bytes)).await
    }

    async fn range(&self, key: &str, bytes: u64, range: GetRange) -> Result<Option<Bytes>, SinkError> {
        let (path, objects) = (self.path(key)?, self.objects("get", key).await?);
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let get = async { objects.get_opts(&path, options).await?.bytes().await };
        self.found(key, self.within("get", key, bytes, get).await?)
    }

    /// Returns the size of an object, and its chunks.
    pub(super) async fn stream(
        &self,
        key: &str,
    ) -> Result<Option<(u64, impl Stream<Item = Result<Bytes, SinkError>> + Unpin + Send + use<'_>)>, SinkError>
    {
        let (path, objects) = (self.path(key)?, self.objects("get", key).await?);
        let get = objects.get(&path);
        let got = self.found(key, self.within("get", key, 0, get).await?)?;
        let key = key.to_owned();
        Ok(got.map(|got| {
            (got.meta.size, got.into_stream().map_err(move |error| self.of("get", &key, &error)).boxed())
        }))
    }

    fn found<T>(&self, key: &str, got: Result<T, Error>) -> Result<Option<T>, SinkError> {
        match got {
            Ok(got) => Ok(Some(got)),
            Err(error @ Error::NotFound { .. }) if !is_about_bucket(&error) => Ok(None),
            Err(error) => Err(self.of("get", key, &error)),
        }
    }

    /// Lists everything below a directory, after a given name in it if there is one.
    pub(super) async fn list(&self, directory: &str, behind: Option<&str>) -> Result<Listing, SinkError> {
        let objects = self.objects("list", directory).await?;
        let mut listing = Listing::default();
        match &self.objects {
            Objects::Directory(local) => {
                let (path, behind) = (local.path.join(directory), behind.map(str::to_owned));
                let walked = self.blocking("list", directory, move || walk::files(&path, behind.as_deref()));
                listing = walked.await?.map_err(|error| self.of_disk("list", directory, &error))?;
            }
            Objects::S3 { invalid_keys, .. } => {
                drop(invalid_keys.take());
                let path = self.path(directory)?;
                let mut items = match behind {
                    Some(name) => {
                        let offset = self.path(&format!("{directory}{name}"))?;
                        objects.list_with_offset(Some(&path), &offset)
                    }
                    None => objects.list(Some(&path)),
                };
                while let Some(item) = self.within("list", directory, 0, items.next()).await? {
                    let item = item.map_err(|error| self.of("list", directory, &error))?;
                    if let Some(name) = item.location.as_ref().strip_prefix(directory) {
                        listing.objects.push(Listed { name: name.to_owned(), bytes: item.size });
                    }
                }
                let unexpected = invalid_keys.take();
                let unexpected = unexpected.iter().filter_map(|key| key.strip_prefix(directory));
                listing.unexpected.extend(unexpected.map(str::to_owned));
            }
        }
        listing.objects.sort_by(|one, other| one.name.cmp(&other.name));
        listing.unexpected.iter_mut().for_each(|name| *name = printable(name));
        Ok(listing)
    }

    /// Returns the names of the directories in a directory.
    pub(super) async fn directories(&self, directory: &str) -> Result<Vec<String>, SinkError> {
        let objects = self.objects("list", directory).await?;
        if let Objects::Directory(local) = &self.objects {
            let path = local.path.join(directory);
            let walked = self.blocking("list", directory, move || walk::directories(&path)).await?;
            return walked.map_err(|error| self.of_disk("list", directory, &error));
        }
        let path = self.path(directory)?;
        let listed = objects.list_with_delimiter(Some(&path));
        let listed = self.within("list", directory, 0, listed).await?;
        let listed = listed.map_err(|error| self.of("list", directory, &error))?;
        let name =
            |path: &Path| Some(path.as_ref().strip_prefix(directory)?.trim_end_matches('/').to_owned());
        Ok(listed.common_prefixes.iter().filter_map(name).collect())
    }

    fn of_disk(&self, action: &str, key: &str, error: &io::Error) -> SinkError {
        let failed = self.unavailable(action, key, error);
        if error.kind() == io::ErrorKind::PermissionDenied { setup(failed.to_string()) } else { failed }
    }

    fn path(&self, key: &str) -> Result<Path, SinkError> {
        let parsed = Path::parse(key);
        parsed.map_err(|error| setup(format!("{} cannot be a key: {error}", self.name(key))))
    }

    /// Bounds a call in time. `bytes` that cross the network get additional time.
    pub(super) async fn within<T>(
        &self,
        action: &str,
        key: &str,
        bytes: u64,
        call: impl Future<Output = T>,
    ) -> Result<T, SinkError> {
        let bound = self.timeout.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND));
        let waited = tokio::time::timeout(bound, call).await;
        waited.map_err(|_| self.unavailable(action, key, &format!("no answer within {} s", bound.as_secs())))
    }

    fn of(&self, action: &str, key: &str, error: &Error) -> SinkError {
        let text = error_text(error);
        let reason = format!("cannot {action} {}: {text}", self.name(key));
        let is_setup = match error {
            Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => true,
            // A request that will not succeed by itself, except for two that ask to be tried later.
            _ => {
                let status = text.strip_prefix(ANSWERS).and_then(|rest| rest.get(..3)).unwrap_or_default();
                status.starts_with('4') && !["408", "429"].contains(&status)
            }
        };
        if is_setup { setup(reason) } else { SinkError::Unavailable { reason, retry_after: None } }
    }
}

/// Makes a name printable for a message.
fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() { text.extend(character.escape_default()) } else { text.push(character) }
    }
    text
}

/// Returns whether it is the bucket that does not exist.
fn is_about_bucket(error: &Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

/// Returns the store's message on one line: for an HTTP answer the status, and the code and message in it.
fn error_text(error: &Error) -> String {
    let text = error.to_string();
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let status =
        text.split_once("non-2xx status code: ").map(|(_, rest)| rest.split(':').next().unwrap_or(rest));
    if let Some(status) = status {
        let said: Vec<String> = ["Code", "Message"].into_iter().filter_map(part).collect();
        return format!("{ANSWERS}{status} {}", said.join(": ")).trim_end().to_owned();
    }
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        // Each of these errors repeats its sources.
        text = error.to_string();
    }
    let first = text.split(" - ").last().unwrap_or(&text).to_owned();
    if first.contains(&text) { first } else { format!("{first}: {text}") }
}

/// Returns bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}
