//! An axum server that sends an answer only when the records of the request are durable, and 503 otherwise.
//!
//! A span around each request adds actor, session and request id to every audit event.
//!
//! ```sh
//! cargo run --example web_server
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    mem,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, Service};
use tracing::Instrument;
use tracing_audit::{AuditLog, ConfirmError, read};
use tracing_subscriber::prelude::*;

/// A layer that answers a request only when everything that was recorded for it is durable.
///
/// Until then no event blocks the runtime's thread for its sync, not even a dependency's `error!(target: "audit")`. Events
/// of spawned tasks, and those emitted while the body of the response is sent, do not count.
#[derive(Clone)]
struct AnswerWhenDurable {
    audit: AuditLog,
}

impl<S> Layer<S> for AnswerWhenDurable {
    type Service = AnswersWhenDurable<S>;

    fn layer(&self, inner: S) -> AnswersWhenDurable<S> {
        AnswersWhenDurable { audit: self.audit.clone(), inner }
    }
}

#[derive(Clone)]
struct AnswersWhenDurable<S> {
    audit: AuditLog,
    inner: S,
}

impl<S> Service<Request> for AnswersWhenDurable<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // Call the service that reported readiness in `poll_ready`; its clone has not been asked (see `tower::Service`).
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        // The call is made inside, so that what it records before it returns a future counts as well.
        let answer = self.audit.confirm_future(async move { ready.call(request).await });
        Box::pin(async move {
            let confirmed = answer.await.map(|(response, _receipt)| response);
            // A request that recorded nothing is answered, even while nothing can be recorded.
            confirmed.or_else(ConfirmError::allow_nothing).unwrap_or_else(|refused| {
                // For the operator only: the error contains paths.
                println!("refused: {refused}");
                Ok((StatusCode::SERVICE_UNAVAILABLE, "cannot be recorded\n").into_response())
            })
        })
    }
}

/// Runs a request in a span, so that every event of its handlers has actor, session and request id.
async fn audit_span(request: Request, next: Next) -> Response {
    let span = request_span(request.headers());
    // Not `span.enter()`: the guard would stay entered in this thread while other tasks run on it.
    next.run(request).instrument(span).await
}

fn request_span(headers: &HeaderMap) -> tracing::Span {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    tracing::info_span!(
        "request",
        actor = header("x-user"),
        session_id = header("x-session"),
        request_id = header("x-request-id"),
    )
}

async fn rename_account(Path(account): Path<u32>) -> &'static str {
    // Only queued here. The answer waits until it is durable, and is 503 if it cannot be recorded.
    tracing::info!(target: "audit", action = "account.rename", resource = %format_args!("account/{account}"));
    "renamed\n"
}

async fn delete_account(State(audit): State<AuditLog>, Path(account): Path<u32>) -> (StatusCode, String) {
    // What must not happen unrecorded is confirmed before it happens. It counts for the answer as well.
    let resource = format!("account/{account}");
    let recorded = audit.confirm_async(|| {
        tracing::info!(target: "audit", action = "account.delete", resource, outcome = "attempted");
    });
    match recorded.await {
        Ok(receipt) => {
            tracing::info!(target: "audit", action = "account.delete", resource, outcome = "done");
            (StatusCode::OK, format!("deleted, attempt recorded as {receipt}\n"))
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not deleted, cannot be recorded\n".to_owned()),
    }
}

/// Asks the server as mia; returns the status and the body of its answer.
async fn ask(server: SocketAddr, request: &str) -> Result<(String, String), std::io::Error> {
    let mut client = TcpStream::connect(server).await?;
    let request = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         x-user: mia\r\nx-session: s-19\r\nx-request-id: r-4711\r\ncontent-length: 0\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    println!("{status} {body}");
    Ok((status.to_owned(), body.to_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let path = dir.path().join("log");
    let audit = AuditLog::builder(&path).service("web_server").open()?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;

    let app = Router::new()
        .route("/accounts/{account}/rename", post(rename_account))
        .route("/accounts/{account}/delete", post(delete_account))
        .route("/healthz", get(async || "ok\n"))
        .layer(middleware::from_fn(audit_span))
        .layer(AnswerWhenDurable { audit: audit.clone() }) // around everything that may record
        .with_state(audit.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    for (request, events) in [("POST /accounts/7/rename", 1), ("POST /accounts/7/delete", 3)] {
        let (status, _) = ask(address, request).await?;
        assert_eq!(status, "200");
        assert_eq!(audit.stats().durable, events, "it was answered before its records were durable");
    }

    // From here on nothing can be recorded, as on a disk that fails.
    audit.close_async().await?;
    for (request, expected) in
        [("POST /accounts/8/rename", "503"), ("POST /accounts/8/delete", "503"), ("GET /healthz", "200")]
    {
        let (status, _) = ask(address, request).await?;
        assert_eq!(status, expected, "{request}");
    }
    server.abort();

    for record in read(&path)? {
        let record = record?;
        if record.is_event() {
            println!("{}", record.as_json());
            assert_eq!(record.actor(), Some("mia"));
            assert_eq!(record.request_id(), Some("r-4711"));
        }
    }
    Ok(())
}
