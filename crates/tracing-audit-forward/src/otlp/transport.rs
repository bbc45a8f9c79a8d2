//! Why no answer came.

use std::{error::Error as StdError, io};

use super::setup;
use crate::SinkError;

/// Returns what a failed request means. Texts of the HTTP client are not passed on, because they may quote
/// the URL.
pub(super) fn failed(error: &ureq::Error, receiver: &str) -> SinkError {
    if let Some(tls) = tls_error(error) {
        return tls_failed(tls, receiver);
    }
    let reason = match error {
        ureq::Error::Timeout(_) => format!("{receiver} did not answer in time"),
        ureq::Error::HostNotFound => format!("the name of {receiver} is not found"),
        ureq::Error::ConnectionFailed => format!("cannot connect to {receiver}"),
        ureq::Error::Io(error) => format!("the connection to {receiver} failed: {}", io_reason(error)),
        ureq::Error::Protocol(_) => format!("{receiver} did not answer with HTTP"),
        ureq::Error::Pem(_) | ureq::Error::Tls(_) => {
            return setup(format!("the TLS settings for {receiver} cannot be used"));
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            return setup(format!("the address of {receiver} cannot be used"));
        }
        ureq::Error::LargeResponseHeader(..) => format!("{receiver} answered with too many headers"),
        _ => format!("the request to {receiver} failed"),
    };
    SinkError::Unavailable { reason, retry_after: None }
}

/// Returns the system's text for an error number, or else the kind of the error, but no text of a library.
pub(super) fn io_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number).to_string(),
        None => error.kind().to_string(),
    }
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => {
            let inner: &(dyn StdError + 'static) = error.get_ref()?;
            inner.downcast_ref()
        }
        _ => None,
    }
}

fn tls_failed(error: &rustls::Error, receiver: &str) -> SinkError {
    let reason = format!("no TLS with {receiver}: {error}");
    match error {
        // The receiver, or a proxy before it, has trouble of its own.
        rustls::Error::AlertReceived(
            rustls::AlertDescription::InternalError | rustls::AlertDescription::CloseNotify,
        )
        | rustls::Error::General(_) => SinkError::Unavailable { reason, retry_after: None },
        _ => setup(reason),
    }
}
