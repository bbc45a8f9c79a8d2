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
    local::LocalFileSystem, path::Path,
};

use super::{client::Headers, lock::Lock, setup};
use crate::{position::is_same, sink::SinkError};

/// Bytes of a body for which a call gets one more second.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// How a message about an answer begins.
const ANSWERS: &str = "the server answers ";

/// What came of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Created,
    /// The key was taken, by whatever.
    Exists,
}

/// An object of a list.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The key without the directory that was listed.
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// An object store, with what stands in front of keys in messages.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) objects: Objects,
    /// `s3://bucket/`, or the path of a directory with a `/`.
    pub(super) place: String,
    pub(super) timeout: Duration,
    pub(super) lock: Lock,
}

#[derive(Debug)]
pub(super) enum Objects {
    S3(Arc<dyn ObjectStore>),
    Directory(Box<Directory>),
}

/// A directory, opened with the first call.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    opened: OnceLock<(Arc<dyn ObjectStore>, fs::Metadata)>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Box<Self> {
        Box::new(Self { path, opened: OnceLock::new() })
    }

    /// Makes it where it is missing, for its owner only. Not what it is in: where a disk is not mounted, that is missing too.
    fn make(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&self.path) {
            Ok(()) => {
                let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
                fs::File::open(parent.unwrap_or(std::path::Path::new(".")))?.sync_all()
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Another directory under the same path is what a disk leaves that is no longer mounted.
    fn open(&self) -> Result<Arc<dyn ObjectStore>, SinkError> {
        let path = self.path.display();
        let cannot =
            |error: &dyn std::fmt::Display| setup(format!("cannot open the directory {path}: {error}"));
        let now = fs::metadata(&self.path).map_err(|error| cannot(&error))?;
        if let Some((objects, then)) = self.opened.get() {
            if is_same(then, &now) {
                return Ok(Arc::clone(objects));
            }
            return Err(setup(format!("{path} is another directory than before: mount the disk again")));
        }
        let objects = LocalFileSystem::new_with_prefix(&self.path).map_err(|error| cannot(&error))?;
        // Durable and create-only: written aside, synced, and linked.
        let objects: Arc<dyn ObjectStore> = Arc::new(objects.with_fsync(true));
        drop(self.opened.set((Arc::clone(&objects), now)));
        Ok(objects)
    }
}

impl Store {
    fn objects(&self) -> Result<Arc<dyn ObjectStore>, SinkError> {
        match &self.objects {
            Objects::S3(objects) => Ok(Arc::clone(objects)),
            Objects::Directory(directory) => directory.open(),
        }
    }

    /// Makes what has to be there before the first put.
    pub(super) fn prepare(&self) -> Result<(), SinkError> {
        let Objects::Directory(directory) = &self.objects else { return Ok(()) };
        let path = directory.path.display();
        directory.make().map_err(|error| setup(format!("cannot make the directory {path}: {error}")))
    }

    /// How a key is named in a message.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    pub(super) fn unavailable(&self, action: &str, key: &str, error: &dyn std::fmt::Display) -> SinkError {
        SinkError::Unavailable {
            reason: format!("cannot {action} {}: {error}", self.name(key)),
            retry_after: None,
        }
    }

    /// What stands under a key is not what belongs there: the chain stops. The place in the batch is set by who knows it.
    pub(super) fn foreign(&self, key: &str, why: &str) -> SinkError {
        SinkError::Chain { index: 0, reason: format!("{} is in the way: {why}", self.name(key)) }
    }

    /// Puts an object where there is none, with its SHA-256, and with the retention that was asked for.
    pub(super) async fn put(&self, key: &str, body: Bytes) -> Result<Put, SinkError> {
        let headers = self.lock.headers(std::time::SystemTime::now());
        self.put_with(key, body, headers).await.map_err(|error| match error {
            SinkError::Setup { reason } if self.lock.is_asked_for() && reason.contains("answers 400") => {
                setup(format!(
                    "{reason}; retention or a legal hold was asked for: has the bucket object lock?"
                ))
            }
            error => error,
        })
    }

    /// The same with other headers.
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
        let (path, objects) = (self.path(key)?, self.objects()?);
        let put = objects.put_opts(&path, PutPayload::from_bytes(body), options);
        match self.within("put", key, length, put).await? {
            Ok(_) => Ok(Put::Created),
            Err(Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(error) => Err(self.of("put", key, &error)),
        }
    }

    /// The whole of a small object.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, SinkError> {
        let (path, objects) = (self.path(key)?, self.objects()?);
        let get = async { objects.get(&path).await?.bytes().await };
        self.found(key, self.within("get", key, 64 * BYTES_PER_SECOND, get).await?)
    }

    /// The last bytes of an object that is not empty.
    pub(super) async fn end(&self, key: &str, bytes: u64) -> Result<Option<Bytes>, SinkError> {
        let (path, objects) = (self.path(key)?, self.objects()?);
        let options = GetOptions { range: Some(GetRange::Suffix(bytes)), ..GetOptions::default() };
        let get = async { objects.get_opts(&path, options).await?.bytes().await };
        self.found(key, self.within("get", key, bytes, get).await?)
    }

    /// The pieces of an object.
    pub(super) async fn stream(
        &self,
        key: &str,
    ) -> Result<Option<impl Stream<Item = Result<Bytes, SinkError>> + Unpin + Send + use<'_>>, SinkError>
    {
        let (path, objects) = (self.path(key)?, self.objects()?);
        let get = objects.get(&path);
        let got = self.found(key, self.within("get", key, 0, get).await?)?;
        let key = key.to_owned();
        Ok(got.map(|got| got.into_stream().map_err(move |error| self.of("get", &key, &error)).boxed()))
    }

    fn found<T>(&self, key: &str, got: Result<T, Error>) -> Result<Option<T>, SinkError> {
        match got {
            Ok(got) => Ok(Some(got)),
            Err(error @ Error::NotFound { .. }) if !is_about_bucket(&error) => Ok(None),
            Err(error) => Err(self.of("get", key, &error)),
        }
    }

    /// Everything below a directory, behind a name in it where one is given, in the order of names.
    pub(super) async fn list(&self, directory: &str, behind: Option<&str>) -> Result<Vec<Listed>, SinkError> {
        let (path, objects) = (self.path(directory)?, self.objects()?);
        let mut items = match behind {
            Some(name) => {
                let offset = self.path(&format!("{directory}{name}"))?;
                objects.list_with_offset(Some(&path), &offset)
            }
            None => objects.list(Some(&path)),
        };
        let mut listed = Vec::new();
        while let Some(item) = self.within("list", directory, 0, items.next()).await? {
            let item = item.map_err(|error| self.of("list", directory, &error))?;
            if let Some(name) = item.location.as_ref().strip_prefix(directory) {
                listed.push(Listed { name: name.to_owned(), bytes: item.size });
            }
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// The names of the directories in a directory.
    pub(super) async fn directories(&self, directory: &str) -> Result<Vec<String>, SinkError> {
        let (path, objects) = (self.path(directory)?, self.objects()?);
        let listed = objects.list_with_delimiter(Some(&path));
        let listed = self.within("list", directory, 0, listed).await?;
        let listed = listed.map_err(|error| self.of("list", directory, &error))?;
        let name =
            |path: &Path| Some(path.as_ref().strip_prefix(directory)?.trim_end_matches('/').to_owned());
        Ok(listed.common_prefixes.iter().filter_map(name).collect())
    }

    fn path(&self, key: &str) -> Result<Path, SinkError> {
        let parsed = Path::parse(key);
        parsed.map_err(|error| setup(format!("{} cannot be a key: {error}", self.name(key))))
    }

    /// No call waits for ever. `bytes` that go over the wire have their own time.
    pub(super) async fn within<T>(
        &self,
        action: &str,
        key: &str,
        bytes: u64,
        call: impl Future<Output = T>,
    ) -> Result<T, SinkError> {
        let bound = self.timeout + Duration::from_secs(bytes / BYTES_PER_SECOND);
        let waited = tokio::time::timeout(bound, call).await;
        waited.map_err(|_| self.unavailable(action, key, &format!("no answer within {} s", bound.as_secs())))
    }

    fn of(&self, action: &str, key: &str, error: &Error) -> SinkError {
        let told = told(error);
        let reason = format!("cannot {action} {}: {told}", self.name(key));
        let is_setup = match error {
            Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => true,
            // A request that will not be right by itself. But two of these ask for patience.
            _ => {
                let status = told.strip_prefix(ANSWERS).and_then(|rest| rest.get(..3)).unwrap_or_default();
                status.starts_with('4') && !["408", "429"].contains(&status)
            }
        };
        if is_setup { setup(reason) } else { SinkError::Unavailable { reason, retry_after: None } }
    }
}

/// Whether it is the bucket that is not there.
fn is_about_bucket(error: &Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

/// What the store said, in one line: of an answer the status, and the code and message in it.
fn told(error: &Error) -> String {
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
    let mut told = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        // Each of these repeats the ones behind it.
        told = error.to_string();
    }
    let first = text.split(" - ").last().unwrap_or(&text).to_owned();
    if first.contains(&told) { first } else { format!("{first}: {told}") }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}
