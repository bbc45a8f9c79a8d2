//! Archives: a directory, and a bucket. Only their throughput is measured, because they are offered records
//! once a minute.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as Tcp},
    rt::TokioExecutor,
};
use object_store::{
    ClientOptions, ObjectStore, PutMode, PutOptions, PutPayload,
    aws::{AmazonS3Builder, Checksum},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
    local::LocalFileSystem,
};
use tracing_audit_forward::Objects;

use crate::{
    Result,
    log::batches,
    stores::{AnySink, Plain, Store},
};

/// As much as the sink puts at once.
const BODY: usize = 8 << 20;

/// The location of an archive. Each round has its own prefix.
pub(crate) struct Archive {
    name: &'static str,
    place: Place,
    rounds: AtomicU32,
}

enum Place {
    Directory(PathBuf),
    /// The endpoint, and a key and its secret.
    Bucket(String, String, String),
}

impl Archive {
    pub(crate) fn in_directory(path: PathBuf) -> Self {
        Self { name: "archive in a directory", place: Place::Directory(path), rounds: AtomicU32::new(0) }
    }

    pub(crate) fn in_bucket(endpoint: &str, key: &str, secret: &str) -> Self {
        let place = Place::Bucket(endpoint.to_owned(), key.to_owned(), secret.to_owned());
        Self { name: "archive in S3", place, rounds: AtomicU32::new(0) }
    }

    fn next(&self) -> u32 {
        self.rounds.fetch_add(1, Ordering::Relaxed)
    }

    fn client(&self) -> Result<Arc<dyn ObjectStore>> {
        Ok(match &self.place {
            Place::Directory(path) => {
                let path = path.join(format!("plain-{}", self.next()));
                fs::create_dir_all(&path)?;
                Arc::new(LocalFileSystem::new_with_prefix(path)?.with_fsync(true))
            }
            Place::Bucket(endpoint, key, secret) => {
                let builder = AmazonS3Builder::new().with_endpoint(endpoint).with_bucket_name("plain");
                let builder = builder.with_access_key_id(key).with_secret_access_key(secret);
                let builder = builder.with_allow_http(true).with_checksum_algorithm(Checksum::SHA256);
                Arc::new(builder.with_http_connector(Plainest).build()?)
            }
        })
    }

    fn puts(&self, log: &Path) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, round) = (self.client()?, self.next());
        let mut number = 0;
        let mut put = |body: Vec<u8>| {
            number += 1;
            let path = object_store::path::Path::from(format!("plain/{round}/{number}"));
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            runtime.block_on(client.put_opts(&path, PutPayload::from(body), options)).map(drop)
        };
        let mut body = Vec::with_capacity(BODY);
        batches(log, |lines| {
            for line in lines {
                body.extend_from_slice(line.as_bytes());
                body.push(b'\n');
                if body.len() >= BODY {
                    put(std::mem::replace(&mut body, Vec::with_capacity(BODY)))?;
                }
            }
            Ok(())
        })?;
        put(body)?;
        Ok(())
    }
}

impl Store for Archive {
    fn name(&self) -> &'static str {
        self.name
    }

    fn empty(&self) -> Result<AnySink> {
        let round = self.next();
        let builder = match &self.place {
            Place::Directory(path) => {
                fs::create_dir_all(path)?;
                let path = path.join(format!("ours-{round}"));
                Objects::builder(&format!("archive:{}?service=figures&host=n1", path.display()))
            }
            Place::Bucket(endpoint, key, secret) => {
                let url = format!("s3://plain/ours-{round}?service=figures&host=n1&endpoint={endpoint}");
                Objects::builder(&url).credentials(key, secret, None)
            }
        };
        Ok(AnySink::new(builder.build()?))
    }

    fn down(&self) -> Result<AnySink> {
        Err("not measured".into())
    }

    fn hanging(&self) -> Result<AnySink> {
        Err("not measured".into())
    }

    fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
        vec![("create-only puts of 8 MiB with the same crate", Box::new(|log| self.puts(log)))]
    }
}

/// The HTTP client of the baseline loop.
#[derive(Debug)]
struct Plainest;

#[derive(Debug)]
struct Service(Client<Tcp, HttpRequestBody>);

impl HttpConnector for Plainest {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(Client::builder(TokioExecutor::new()).build_http())))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let response = self.0.request(request).await;
        let (parts, body) =
            response.map_err(|error| HttpError::new(HttpErrorKind::Request, error))?.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}
