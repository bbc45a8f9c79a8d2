//! The meaning of an answer: pure functions, given the time.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use ureq::http::StatusCode;

use super::{censor::Censor, retry_after, setup};
use crate::{Entry, SinkError};

/// How Go's HTTP server asks a client to use https, with status 400.
const SPEAKS_TLS: &str = "HTTP request to an HTTPS server";

/// The answer of a receiver.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The media type without its parameters, in lower case.
    pub(super) media_type: Option<String>,
    pub(super) retry_after: Option<String>,
    pub(super) body: Vec<u8>,
}

/// The context of an answer, for its messages.
pub(super) struct Exchange<'a> {
    /// The receiver, as it may be shown.
    pub(super) receiver: &'a str,
    pub(super) batch: &'a [Entry],
    pub(super) censor: &'a Censor,
}

/// The error of OTLP over HTTP: `google.rpc.Status`. Its code is omitted, because the HTTP status has the
/// same meaning.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

impl Answer {
    /// Judges an answer. `Ok` acknowledges all records; a text in it is a warning.
    pub(super) fn judge(
        &self,
        exchange: &Exchange<'_>,
        now: SystemTime,
    ) -> Result<Option<String>, SinkError> {
        let receiver = exchange.receiver;
        match self.status.as_u16() {
            // 204 is the answer of Grafana Loki.
            200 | 204 => self.acknowledged(exchange),
            300..=399 => Err(setup(format!(
                "{receiver} redirects ({}): use the address that it redirects to",
                self.status.as_u16()
            ))),
            // A slow or early request is not refused because of its content.
            408 | 425 | 429 | 500..=599 => Err(SinkError::Unavailable {
                reason: self.reason(exchange),
                retry_after: self.retry_after.as_deref().and_then(|value| retry_after::parse(value, now)),
            }),
            // The batch is too large, whichever server answers.
            413 => Err(SinkError::Refused { reason: self.reason(exchange) }),
            400..=499 if self.concerns_every_request() => Err(setup(self.reason(exchange))),
            400..=499 => Err(SinkError::Refused { reason: self.reason(exchange) }),
            _ => Err(setup(format!(
                "{}; an OTLP receiver answers 200 to what it takes",
                self.reason(exchange)
            ))),
        }
    }

    /// Parses the answer to an accepted request.
    fn acknowledged(&self, exchange: &Exchange<'_>) -> Result<Option<String>, SinkError> {
        let receiver = exchange.receiver;
        let is_otlp = match self.media_type.as_deref() {
            // An empty message has no bytes, and some receivers then omit the type too.
            None => true,
            Some(media_type) => matches!(media_type, "application/x-protobuf" | "application/protobuf"),
        };
        let response = is_otlp.then(|| ExportLogsServiceResponse::decode(self.body.as_slice()));
        let Some(Ok(response)) = response else {
            return Err(setup(format!(
                "{receiver} answered {} with {}, which is not an answer of an OTLP receiver: check what is at this address",
                self.status.as_u16(),
                exchange.shown(self.media_type.as_deref().unwrap_or("bytes")).unwrap_or_default()
            )));
        };
        let Some(partial) = response.partial_success else { return Ok(None) };
        let message = exchange.shown(&partial.error_message);
        if partial.rejected_log_records == 0 {
            return Ok(message.map(|message| format!("{receiver} warns: {message}")));
        }
        let mut reason = format!(
            "{receiver} rejected {} of {} log records",
            partial.rejected_log_records,
            exchange.batch.len().max(1)
        );
        if let Some(message) = message {
            reason = format!("{reason}: {message}");
        }
        Err(SinkError::Refused { reason })
    }

    /// Returns whether a 4xx status would be the answer to any records. If it were taken for a refusal, every
    /// record would be set aside.
    fn concerns_every_request(&self) -> bool {
        match self.status.as_u16() {
            // Credentials, payment, permission, address, method, media types, proxy credentials, address
            // gone, framing, wrong host, protocol, headers, legal reasons.
            401..=407 | 410 | 411 | 415 | 417 | 421 | 426 | 431 | 451 => true,
            // A web server in front answers this to http if it expects https.
            400 => {
                self.media_type.as_deref() == Some("text/html")
                    || String::from_utf8_lossy(&self.body).contains(SPEAKS_TLS)
            }
            _ => false,
        }
    }

    fn reason(&self, exchange: &Exchange<'_>) -> String {
        let text = match self.media_type.as_deref() {
            Some("application/x-protobuf" | "application/protobuf") => {
                Status::decode(self.body.as_slice()).map(|status| status.message).unwrap_or_default()
            }
            // A page only repeats its status at length.
            Some("text/html") => String::new(),
            _ => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let receiver = exchange.receiver;
        match exchange.shown(&text) {
            Some(text) => format!("{receiver} answered {}: {text}", self.status),
            None => format!("{receiver} answered {}", self.status),
        }
    }
}

impl Exchange<'_> {
    fn shown(&self, text: &str) -> Option<String> {
        self.censor.show(text, self.batch)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    const PROTOBUF: Option<&str> = Some("application/x-protobuf");

    fn judged(status: u16, media_type: Option<&str>, body: &[u8]) -> Result<Option<String>, SinkError> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            media_type: media_type.map(str::to_owned),
            retry_after: Some("7".to_owned()),
            body: body.to_vec(),
        };
        answer
            .judge(&Exchange { receiver: "http://host", batch: &[], censor: &Censor::default() }, UNIX_EPOCH)
    }

    fn partial(rejected_log_records: i64, error_message: &str) -> Vec<u8> {
        let partial =
            ExportLogsPartialSuccess { rejected_log_records, error_message: error_message.to_owned() };
        ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }

    #[track_caller]
    fn check_setup(status: u16, media_type: Option<&str>, body: &[u8]) {
        assert!(matches!(judged(status, media_type, body), Err(SinkError::Setup { .. })), "{status}");
    }

    #[track_caller]
    fn check_refused(status: u16, media_type: Option<&str>, body: &[u8]) {
        assert!(matches!(judged(status, media_type, body), Err(SinkError::Refused { .. })), "{status}");
    }

    #[test]
    fn an_empty_answer_acknowledges() {
        assert_eq!(judged(200, PROTOBUF, b""), Ok(None));
        assert_eq!(judged(200, None, b""), Ok(None));
        assert_eq!(judged(204, None, b""), Ok(None));
        assert_eq!(judged(200, PROTOBUF, &partial(0, "")), Ok(None));
    }

    #[test]
    fn a_message_without_rejected_records_is_a_warning() {
        let warning = Some("http://host warns: slow down".to_owned());
        assert_eq!(judged(200, PROTOBUF, &partial(0, "slow down")), Ok(warning));
    }

    #[test]
    fn a_partial_success_is_a_failure() {
        for rejected in [1, 500, -1] {
            check_refused(200, PROTOBUF, &partial(rejected, "no room"));
            check_refused(200, PROTOBUF, &partial(rejected, ""));
        }
    }

    #[test]
    fn an_answer_of_no_receiver_acknowledges_nothing() {
        check_setup(200, Some("text/html"), b"<html>sign in</html>");
        check_setup(200, Some("text/html"), b"");
        check_setup(200, None, b"<html>sign in</html>");
        check_setup(200, PROTOBUF, b"<html>sign in</html>");
        check_setup(200, Some("application/json"), b"{}");
        check_setup(200, None, b"OK");
        check_setup(201, PROTOBUF, b"");
        check_setup(202, PROTOBUF, b"");
    }

    #[test]
    fn each_status_has_its_class() {
        for status in [301, 302, 307, 308, 401, 402, 403, 404, 405, 407, 415, 431] {
            check_setup(status, None, b"");
        }
        for status in [400, 409, 413, 414, 422] {
            check_refused(status, Some("text/plain"), b"no");
        }
        for status in [408, 429, 500, 501, 502, 503, 504, 507] {
            let retry_after = Some(Duration::from_secs(7));
            let Err(SinkError::Unavailable { retry_after: found, .. }) = judged(status, None, b"") else {
                panic!("{status}");
            };
            assert_eq!(found, retry_after);
        }
    }

    #[test]
    fn http_where_https_is_expected_is_not_blamed_on_the_records() {
        check_setup(400, Some("text/html"), b"<h1>The plain HTTP request was sent to HTTPS port</h1>");
        check_setup(400, Some("text/plain"), b"Client sent an HTTP request to an HTTPS server.\n");
        // A web server reports a batch that is too large with a page, too.
        check_refused(413, Some("text/html"), b"<h1>Request Entity Too Large</h1>");
    }

    #[test]
    fn the_reason_quotes_the_receiver() {
        let status = Status { message: "no such stream".to_owned() }.encode_to_vec();
        let reason = judged(400, PROTOBUF, &status).unwrap_err().to_string();
        assert_eq!(reason, "http://host answered 400 Bad Request: no such stream");
        let reason = judged(503, Some("text/html"), b"<html>").unwrap_err().to_string();
        assert_eq!(reason, "http://host answered 503 Service Unavailable");
    }
}
