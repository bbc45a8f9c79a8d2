//! What a failure of the server or of the connection means for the forwarder.

use std::iter;

use async_nats::ConnectErrorKind;
use serde::Deserialize;

use crate::sink::SinkError;

/// Why a request has no usable answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The outcome is unknown, or somebody has to act.
    Sink(SinkError),
    /// The server answered with an error.
    Answer(ApiError),
    /// Nobody handles such requests. Nothing was stored.
    Nobody,
}

/// An error of the server.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ApiError {
    /// Similar to an HTTP status.
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u16,
    #[serde(default)]
    description: String,
}

/// The server has no message of this subject.
const NO_MESSAGE: u16 = 10037;
const NO_STREAM: u16 = 10059;
const MESSAGE_TOO_LARGE: u16 = 10054;
const NO_ATOMIC_BATCHES: u16 = 10174;
/// An expectation failed, an id is known already or is being stored, a batch is incomplete, or the server
/// cannot tell yet.
const IN_DOUBT: [u16; 8] = [10070, 10071, 10158, 10163, 10164, 10176, 10201, NO_ATOMIC_BATCHES];
/// JetStream is not enabled, for the account or for the server; or the stream is sealed.
const SETUP: [u16; 3] = [10039, 10076, 10109];

impl ApiError {
    pub(super) fn is_no_message(&self) -> bool {
        self.err_code == NO_MESSAGE
    }

    /// Returns whether only the stream can tell what became of what was published.
    pub(super) fn is_in_doubt(&self) -> bool {
        IN_DOUBT.contains(&self.err_code)
    }

    pub(super) fn is_about_size(&self) -> bool {
        self.err_code == MESSAGE_TOO_LARGE
    }

    /// Returns the text of the error. It contains names and numbers, and nothing of a message.
    pub(super) fn text(&self) -> String {
        format!("{} ({})", self.description, self.err_code)
    }

    pub(super) fn into_sink(self, doing: &str) -> SinkError {
        let reason = format!("cannot {doing}: {}", self.text());
        match self.err_code {
            NO_STREAM => setup(format!("{reason}; make it with `tracing-audit forward create-stream`")),
            code if SETUP.contains(&code) => setup(reason),
            _ if self.code >= 500 || self.is_in_doubt() => unavailable(reason),
            _ => setup(reason),
        }
    }
}

impl Failure {
    pub(super) fn into_sink(self, doing: &str) -> SinkError {
        match self {
            Self::Sink(error) => error,
            Self::Answer(answer) => answer.into_sink(doing),
            Self::Nobody => unavailable(format!(
                "cannot {doing}: nobody answers there; either JetStream is not ready, or the user's account does not have it"
            )),
        }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

pub(super) fn setup(reason: String) -> SinkError {
    SinkError::Setup { reason }
}

pub(super) fn unavailable(reason: String) -> SinkError {
    SinkError::Unavailable { reason, retry_after: None }
}

/// Returns the error of a connection that failed.
pub(super) fn of_connecting(servers: &str, error: &async_nats::ConnectError) -> SinkError {
    let reason = format!("cannot connect to NATS at {servers}: {error}");
    let first: &(dyn std::error::Error + 'static) = error;
    let is_refused_by_tls = iter::successors(Some(first), |&cause| cause.source()).any(|cause| {
        let within = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause.is::<rustls::Error>()
            || within.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
    });
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::ServerParse
        | ConnectErrorKind::Tls => setup(reason),
        _ if is_refused_by_tls => setup(reason),
        _ => unavailable(reason),
    }
}
