//! The settings of an archive, and their checks.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum, S3ConditionalPut},
};

use super::{
    Archive, Objects, Retention,
    client::{Connector, Signer, is_on_this_machine},
    keys::Keys,
    setup,
    store::{self, Directory, Store},
    url::{Bucket, Location, Target},
};
use crate::{origin::Origin, sink::SinkError};

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of an [`Objects`] sink or an [`Archive`].
#[derive(Clone)]
#[must_use = "nothing happens until `build` or `archive`"]
pub struct ObjectsBuilder {
    target: Result<Target, SinkError>,
    service: Option<String>,
    host: Option<String>,
    interval: Option<Duration>,
    timeout: Duration,
    /// The id of a key, its secret, and a session token.
    credentials: Option<(String, String, Option<String>)>,
}

impl fmt::Debug for ObjectsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectsBuilder").field("target", &self.target).finish_non_exhaustive()
    }
}

impl ObjectsBuilder {
    pub(super) fn new(url: &str) -> Self {
        let target = Target::parse(url);
        Self { target, service: None, host: None, interval: None, timeout: TIMEOUT, credentials: None }
    }

    /// Sets the service that writes the log, if the URL does not name it. Default: none; then nothing can be
    /// forwarded, and an archive covers all logs.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Sets the host that the service runs on, if the URL does not name it. Default: the name of this
    /// machine.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets how long a record may wait for others that are put with it. Each part costs a request; records of
    /// one interval may be lost with the log's disk. Default: `interval` of the URL in seconds, else 60
    /// seconds.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Sets whether sealed segments are compressed with zstd. While a segment is sealed, its compressed form
    /// is in memory, often a tenth of it, or without compression the whole segment. Default: `compress` of
    /// the URL, else yes.
    pub fn compress(mut self, is_compressed: bool) -> Self {
        if let Ok(target) = &mut self.target {
            target.is_compressed = is_compressed;
        }
        self
    }

    /// Sets how long the bucket has to keep each object, in days from its put, and how strictly. A directory
    /// has no retention. Default: `retention` and `retain-days` of the URL, else the default of the bucket.
    pub fn retention(mut self, mode: Retention, days: u32) -> Self {
        if let Ok(target) = &mut self.target {
            target.lock.retention = Some((mode, days));
        }
        self
    }

    /// Sets whether each object is put under a legal hold. Default: `legal-hold` of the URL, else no.
    pub fn legal_hold(mut self, is_held: bool) -> Self {
        if let Ok(target) = &mut self.target {
            target.lock.has_legal_hold = is_held;
        }
        self
    }

    /// Sets how long the store may take to answer. Default: 30 seconds, plus one for each MiB that is sent.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the id of an access key, its secret, and a session token if there is one. Default: the `AWS_*`
    /// variables of the environment, else the role of the machine or container.
    pub fn credentials(
        mut self,
        key_id: impl Into<String>,
        secret: impl Into<String>,
        token: Option<String>,
    ) -> Self {
        self.credentials = Some((key_id.into(), secret.into(), token));
        self
    }

    /// Checks the settings of a sink. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL or a setting cannot be used, or nothing names the origin of the log.
    pub fn build(self) -> Result<Objects, SinkError> {
        let archive = self.clone().archive()?;
        let target = self.target?;
        let origin = archive.origin.clone().ok_or_else(|| {
            setup(
                "the origin of the log is not known: put service=NAME into the URL of the archive".to_owned(),
            )
        })?;
        let interval = self.interval.or(target.interval).unwrap_or(INTERVAL);
        Ok(Objects::with(archive, origin, interval, target.is_compressed))
    }

    /// Checks the settings of an archive for reading. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the URL or a setting cannot be used.
    pub fn archive(self) -> Result<Archive, SinkError> {
        let target = self.target.clone()?;
        if self.timeout.is_zero() {
            return Err(setup("a timeout of 0 leaves no time for an answer".to_owned()));
        }
        if matches!(target.lock.retention, Some((_, 0))) {
            return Err(setup("a retention of 0 days keeps nothing".to_owned()));
        }
        let said = (target.service.as_deref(), target.host.as_deref());
        let origin = Origin::of(said, (self.service.as_deref(), self.host.as_deref()))?;
        if origin.is_none() && target.host.is_some() {
            return Err(setup("the URL of the archive names a host and no service".to_owned()));
        }
        if let Some(origin) = &origin {
            Keys::check(origin)?;
        }
        let (store, prefix) = match &target.location {
            Location::S3(bucket) => (self.s3(bucket, &target)?, bucket.prefix.as_str()),
            Location::Directory(path) if target.lock.is_asked_for() => {
                return Err(setup(format!("the directory {} does not support retention", path.display())));
            }
            Location::Directory(path) => (self.directory(path.clone(), &target), ""),
        };
        Archive::with(store, Keys::new(prefix), origin)
    }

    fn directory(&self, path: PathBuf, target: &Target) -> Store {
        Store {
            place: format!("{}/", path.display()),
            objects: store::Objects::Directory(Directory::new(path)),
            timeout: self.timeout,
            lock: target.lock,
        }
    }

    fn s3(&self, bucket: &Bucket, target: &Target) -> Result<Store, SinkError> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&bucket.name);
        let said = |key| builder.get_config_value(&key);
        let endpoint = bucket.endpoint.clone();
        let endpoint = endpoint.or_else(|| said(AmazonS3ConfigKey::S3Endpoint));
        let endpoint = endpoint.or_else(|| said(AmazonS3ConfigKey::Endpoint));
        let is_plain = endpoint.as_deref().map(is_plain).transpose()?.unwrap_or(false);
        if let Some(endpoint) = &endpoint {
            if is_plain && !bucket.allows_http && !is_on_this_machine(endpoint) {
                let reason =
                    "the endpoint is reached without TLS: use https://, or put allow-http=on into the URL";
                return Err(setup(reason.to_owned()));
            }
            // `object_store` prefers one of the two, whatever their sources.
            for key in [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint] {
                builder = builder.with_config(key, endpoint);
            }
        }
        if let Some(region) = &bucket.region {
            builder = builder.with_region(region);
        }
        if let Some((id, secret, token)) = &self.credentials {
            // All three, so that a token from the environment is never used with another key.
            let credential =
                AwsCredential { key_id: id.clone(), secret_key: secret.clone(), token: token.clone() };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        let connector = Connector::new(!is_plain, bucket.allows_http)?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(50),
                max_backoff: Duration::from_secs(1),
                base: 2.0,
            },
            // The forwarder retries by itself.
            max_retries: 2,
            retry_timeout: self.timeout,
        };
        let builder = builder
            .with_allow_http(true)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_unsigned_payload(false)
            .with_skip_signature(false)
            .with_disable_tagging(true)
            .with_retry(retry)
            .with_http_connector(connector.clone());
        let built = builder.build().map_err(|error| setup(format!("the archive cannot be used: {error}")))?;
        let credentials = Arc::clone(built.credentials());
        connector.sign_with(Signer {
            credentials: Arc::clone(&credentials),
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        });
        Ok(Store {
            objects: store::Objects::S3 {
                objects: Arc::new(built),
                credentials,
                invalid_keys: connector.invalid_keys(),
            },
            place: format!("s3://{}/", bucket.name),
            timeout: self.timeout,
            lock: target.lock,
        })
    }
}

/// Returns whether an endpoint is reached without TLS.
fn is_plain(endpoint: &str) -> Result<bool, SinkError> {
    let uri = endpoint.parse::<http::Uri>().ok();
    match uri.as_ref().and_then(http::Uri::scheme_str).map(str::to_ascii_lowercase).as_deref() {
        Some("https") => Ok(false),
        Some("http") => Ok(true),
        // The endpoint may contain a password.
        _ => Err(setup("the endpoint is not a URL that begins with https:// or http://".to_owned())),
    }
}
