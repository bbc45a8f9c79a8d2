//! A copy of a log in an OTLP receiver, sent over HTTP without the OpenTelemetry SDK.

mod answer;
mod builder;
mod censor;
mod endpoint;
mod environment;
mod headers;
mod mapping;
mod percent;
mod retry_after;
mod transport;
mod unmask;

use std::{fmt, io::Read as _, sync::Arc, time::SystemTime};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;
use ureq::{
    Agent, Body,
    http::{Response, header},
};

use self::{
    answer::{Answer, Exchange},
    censor::Censor,
    headers::Headers,
};
use crate::{Entry, Gap, Position, Sink, SinkError};

pub use builder::OtlpBuilder;

/// Maximum number of bytes of an answer that are read. An acknowledgement has a few; a rejection may list
/// what it rejects.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// A sink that sends a log to an OTLP receiver, such as an OpenTelemetry collector: logs over HTTP, as
/// protobuf.
///
/// Each record is one log record: its body is the line, byte for byte, and its attributes are the members of
/// the record under `audit.`. docs/forwarding/otlp.md has the whole table.
///
/// # What an acknowledgement means
///
/// The receiver accepted the request. Most receivers hold accepted records in memory before they pass them
/// on, so acknowledged records can be lost there. Nobody can ask: [`positions`](Sink::positions) returns
/// `None`. The local log remains the evidence.
///
/// After a lost answer, or if a batch was accepted in part, records are sent again. The receiver then has
/// them twice, with the same `audit.chain.id`, `audit.seq` and `audit.hash`.
///
/// # Limits
///
/// A body is never truncated. An attribute of more than 8 KiB is not sent, nor are attributes beyond the
/// first 128: the body has them, and `dropped_attributes_count` is their number. Redirects are not followed,
/// no proxy is used, and nothing is compressed.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), tracing_audit_forward::SinkError> {
/// use tracing_audit_forward::Otlp;
///
/// let sink = Otlp::builder("http://127.0.0.1:4318")
///     .header("authorization", "Bearer secret")
///     .resource("service.name", "shop")
///     .build()?;
/// assert!(!format!("{sink:?}").contains("secret"));
/// # Ok(())
/// # }
/// ```
pub struct Otlp {
    agent: Agent,
    /// The whole URL, which may contain a token.
    url: String,
    /// The part of it that may be shown.
    receiver: String,
    headers: Headers,
    resource: Resource,
    max_request_bytes: usize,
    censor: Censor,
    on_warning: Box<dyn FnMut(&str) + Send>,
}

impl Otlp {
    /// Returns the settings of a sink for a receiver at this URL: a base such as `http://127.0.0.1:4318`, to
    /// which `/v1/logs` is appended, or a whole URL that ends in it. A user and a password in it are sent as
    /// the header `authorization`.
    pub fn builder(endpoint: &str) -> OtlpBuilder {
        OtlpBuilder::new(endpoint)
    }

    /// Creates a sink with default settings.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if the endpoint is not a URL.
    pub fn new(endpoint: &str) -> Result<Self, SinkError> {
        Self::builder(endpoint).build()
    }

    /// Sends the log records of these entries, and judges the answer.
    fn send(&mut self, log_records: Vec<LogRecord>, batch: &[Entry]) -> Result<(), SinkError> {
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(InstrumentationScope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    log_records,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        let bytes = request.encoded_len();
        if bytes > self.max_request_bytes && batch.len() > 1 {
            let reason =
                format!("{} records are {bytes} bytes, more than {}", batch.len(), self.max_request_bytes);
            return Err(SinkError::Refused { reason });
        }
        let mut post = self.agent.post(&self.url).header(header::CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in self.headers.masked() {
            post = post.header(name, value);
        }
        let answer = post
            .send(request.encode_to_vec())
            .and_then(read)
            .map_err(|error| transport::failed(&error, &self.receiver))?;
        let exchange = Exchange { receiver: &self.receiver, batch, censor: &self.censor };
        if let Some(warning) = answer.judge(&exchange, SystemTime::now())? {
            (self.on_warning)(&warning);
        }
        Ok(())
    }
}

impl Sink for Otlp {
    /// Returns `None`: OTLP has no request for what a receiver has.
    fn positions(&mut self, _chain_ids: &[Arc<str>]) -> Result<Option<Vec<Position>>, SinkError> {
        Ok(None)
    }

    /// Sends one request. OTLP does not report which records of a partial success were rejected, so that is
    /// [`SinkError::Refused`] although the receiver accepted the others. They are sent again when the
    /// forwarder divides the batch, and the receiver then has them twice.
    fn offer(&mut self, batch: &[Entry]) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let observed = SystemTime::now();
        let log_records = batch.iter().map(|entry| mapping::log_record(entry, observed)).collect();
        self.send(log_records, batch)
    }

    /// Sends a log record `audit.forward.gap` that names the records.
    fn gap(&mut self, gap: &Gap) -> Result<(), SinkError> {
        self.send(vec![mapping::gap_record(gap, SystemTime::now())], &[])
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp")
            .field("receiver", &self.receiver)
            .field("headers", &self.headers.names())
            .finish_non_exhaustive()
    }
}

/// Reads an answer. A longer one than any acknowledgement is truncated, and then is not an acknowledgement.
fn read(mut response: Response<Body>) -> Result<Answer, ureq::Error> {
    let text = |name| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let media_type = text(header::CONTENT_TYPE)
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .filter(|media_type| !media_type.is_empty());
    let retry_after = text(header::RETRY_AFTER);
    let status = response.status();
    let mut body = Vec::new();
    response.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut body)?;
    Ok(Answer { status, media_type, retry_after, body })
}

#[cfg(doctest)]
#[doc = include_str!("../../../../docs/forwarding/otlp.md")]
struct Documented;

/// Returns an error that needs somebody to change something.
fn setup(reason: String) -> SinkError {
    SinkError::Setup { reason }
}
