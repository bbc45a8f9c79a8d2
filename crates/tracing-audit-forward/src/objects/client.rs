//! The HTTP client of an S3 store, and the headers that `object_store` does not support.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as Tcp},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    aws::{AwsAuthorizer, AwsCredentialProvider},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use rustls::{ClientConfig, RootCertStore};

use super::{invalid_keys::InvalidKeys, setup};
use crate::{address::is_this_machine, sink::SinkError};

/// How long an unused connection is kept: shorter than servers keep it.
const IDLE: std::time::Duration = std::time::Duration::from_secs(15);

/// Headers of one request. They are signed with the others, as S3 requires for all that begin with `x-amz-`.
#[derive(Debug, Clone)]
pub(super) struct Headers(pub(super) HeaderMap);

/// Signs requests again after headers were added.
#[derive(Clone)]
pub(super) struct Signer {
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).finish_non_exhaustive()
    }
}

/// Creates clients, which all share one connection pool.
#[derive(Debug, Clone)]
pub(super) struct Connector(Service);

#[derive(Clone)]
struct Service {
    client: Client<HttpsConnector<Tcp>, HttpRequestBody>,
    signer: Arc<OnceLock<Signer>>,
    /// Whether connections to other machines without TLS are allowed.
    allows_http: bool,
    invalid_keys: InvalidKeys,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Connector {
    /// Creates the client. It trusts the certificates that the system trusts.
    pub(super) fn new(needs_tls: bool, allows_http: bool) -> Result<Self, SinkError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() && needs_tls {
            let reason = "no certificates are trusted; install those of the system (ca-certificates)";
            return Err(setup(reason.to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| setup(format!("cannot prepare TLS: {error}")))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE).pool_timer(TokioTimer::new());
        let client = builder.build(connector);
        Ok(Self(Service {
            client,
            signer: Arc::default(),
            allows_http,
            invalid_keys: InvalidKeys::default(),
        }))
    }

    /// Returns the listed keys that `object_store` cannot represent.
    pub(super) fn invalid_keys(&self) -> InvalidKeys {
        self.0.invalid_keys.clone()
    }

    /// Sets the signer for requests with additional headers.
    pub(super) fn sign_with(&self, signer: Signer) {
        drop(self.0.signer.set(signer));
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_plain = request.uri().scheme_str().is_none_or(|scheme| !scheme.eq_ignore_ascii_case("https"));
        if is_plain && !self.allows_http && !request.uri().host().is_some_and(is_near) {
            let refused =
                "another machine is not contacted without TLS: to allow it, put allow-http=on into the URL";
            return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(refused)));
        }
        let is_list = request.uri().query().is_some_and(|query| query.contains("list-type=2"));
        if let Some(Headers(headers)) = request.extensions_mut().remove::<Headers>() {
            self.sign_again(&mut request, headers).await?;
        }
        let response = self.client.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let (parts, body) = response.into_parts();
        if is_list && parts.status.is_success() {
            let page = Limited::new(body, MAX_PAGE_BYTES).collect().await;
            let page = page
                .map_err(|error| HttpError::new(HttpErrorKind::Interrupted, std::io::Error::other(error)))?;
            // The length of the page has changed.
            return Ok(HttpResponse::new(HttpResponseBody::from(
                self.invalid_keys.without(&page.to_bytes()),
            )));
        }
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

impl Service {
    async fn sign_again(&self, request: &mut HttpRequest, headers: HeaderMap) -> Result<(), HttpError> {
        let failed = |error: object_store::Error| HttpError::new(HttpErrorKind::Unknown, error);
        for (name, value) in &headers {
            request.headers_mut().insert(name, value.clone());
        }
        let Some(signer) = self.signer.get() else { return Ok(()) };
        let credential = signer.credentials.get_credential().await.map_err(failed)?;
        let content =
            request.headers().get("x-amz-content-sha256").and_then(|value| digest(value.to_str().ok()?));
        let authorizer = AwsAuthorizer::new(&credential, "s3", &signer.region);
        authorizer.try_authorize(request, content.as_deref()).map_err(failed)
    }
}

/// The longest page of a list: 1,000 keys of 1 KiB, of which each byte may be escaped, and the elements
/// around them.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// Returns whether a URL names this machine.
pub(super) fn is_on_this_machine(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    uri.host().is_some_and(is_this_machine)
}

/// Returns whether a host is this machine, or one of the addresses that provide the credentials of a machine
/// or container, which no router forwards.
fn is_near(host: &str) -> bool {
    const OF_CREDENTIALS: [&str; 5] =
        ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[fd00:ec2::23]"];
    is_this_machine(host) || OF_CREDENTIALS.contains(&host)
}

fn digest(hex: &str) -> Option<Vec<u8>> {
    Some(hex.parse::<tracing_audit::Digest>().ok()?.as_bytes().to_vec())
}

/// Encodes bytes in base64 for a header, as S3 does.
pub(super) fn in_base64(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_str(&STANDARD.encode(bytes)).ok()
}
