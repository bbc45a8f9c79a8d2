//! What a failure of the server or of the connection means for the forwarder.

use std::{error::Error as _, io, iter};

use tokio_postgres::error::{DbError, Error};

use crate::sink::SinkError;

/// Returns the error of a call in which the server or the connection failed. `doing` says what could not be
/// done.
pub(super) fn of(doing: &str, error: &Error) -> SinkError {
    match error.as_db_error() {
        Some(answer) => of_answer(doing, answer),
        None => of_connection(doing, error),
    }
}

pub(super) fn unavailable(reason: String) -> SinkError {
    SinkError::Unavailable { reason, retry_after: None }
}

/// Returns the error of an answer in which the server refuses.
fn of_answer(doing: &str, answer: &DbError) -> SinkError {
    let code = answer.code().code();
    let reason = format!("cannot {doing}: {}", text(answer));
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // A table without a partition for the row. The row itself is valid.
        ("23", "23514") if answer.constraint().is_none() => {
            let advice = "the table has no partition for a record; add it, or a DEFAULT partition";
            SinkError::Setup { reason: format!("{reason}; {advice}") }
        }
        ("22" | "23" | "54", _) => SinkError::Refused { reason },
        // Connection; rollback by deadlock or serialization; resources; system; internal; a transaction that only reads, as
        // on a standby, or took too long; a lock that is not available. Below: cancelled by a timeout, or shutdown.
        ("08" | "40" | "53" | "58" | "XX", _) | (_, "25006" | "25P03" | "25P04" | "55P03") => {
            unavailable(reason)
        }
        // 57P04: the database was dropped.
        ("57", code) if code != "57P04" => unavailable(reason),
        // An unknown error is reported to somebody, and no record is given up for it.
        _ => SinkError::Setup { reason },
    }
}

/// Returns the server's text without anything that it may have taken from a record: its message is repeated
/// only where it is about names and states.
fn text(answer: &DbError) -> String {
    let code = answer.code().code();
    let text = match code.get(..2) {
        Some("22" | "23" | "P0" | "54") | None => "the server refuses it",
        Some(_) => answer.message(),
    };
    let names = [("table", answer.table()), ("column", answer.column()), ("constraint", answer.constraint())];
    let names = names.into_iter().filter_map(|(what, name)| Some(format!(", {what} {}", name?)));
    format!("{text}{} ({code})", names.collect::<String>())
}

/// Returns the error of a connection without an answer.
fn of_connection(doing: &str, error: &Error) -> SinkError {
    let causes: Vec<&(dyn std::error::Error + 'static)> =
        iter::successors(error.source(), |&cause| cause.source()).collect();
    let text: Vec<String> =
        iter::once(error.to_string()).chain(causes.iter().map(ToString::to_string)).collect();
    let reason = format!("cannot {doing}: {}", text.join(": "));
    let is_io = causes.first().is_some_and(|cause| cause.is::<io::Error>());
    let is_refused_by_tls = causes.iter().any(|cause| {
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.is::<rustls::Error>()
            || within.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
    });
    // `tokio-postgres` distinguishes these only by their texts.
    let kind = error.to_string();
    let is_setup = is_refused_by_tls
        || ["authentication error", "invalid configuration"].contains(&kind.as_str())
        || (kind == "error performing TLS handshake" && !is_io);
    if is_setup { SinkError::Setup { reason } } else { unavailable(reason) }
}
