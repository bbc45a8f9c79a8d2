//! An axum server whose requests carry actor, session and request id into every audit event, by a
//! span around each request.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing::Instrument;
use tracing_audit::{AuditLog, read};
use tracing_subscriber::prelude::*;

/// Whatever a handler records inside, the event has these from the span.
async fn audit_span(request: Request, next: Next) -> Response {
    let span = request_span(request.headers());
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

async fn delete_account(State(audit): State<AuditLog>, Path(account): Path<u32>) -> (StatusCode, String) {
    // Refused unless the record of the attempt is durable; the task waits without blocking its thread.
    let resource = format!("account/{account}");
    let recorded = audit.confirm_async(|| {
        tracing::info!(target: "audit", action = "account.delete", resource, outcome = "attempted");
    });
    match recorded.await {
        Ok(receipt) => {
            tracing::info!(target: "audit", action = "account.delete", resource, outcome = "done");
            (StatusCode::OK, format!("deleted, recorded as {receipt}\n"))
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let path = dir.path().join("log");
    let audit = AuditLog::builder(&path).service("web_server").open()?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;

    let app = Router::new()
        .route("/accounts/{account}/delete", post(delete_account))
        .layer(middleware::from_fn(audit_span))
        .with_state(audit.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut client = TcpStream::connect(address).await?;
    let request = "POST /accounts/7/delete HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                   x-user: mia\r\nx-session: s-19\r\nx-request-id: r-4711\r\ncontent-length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    client.read_to_string(&mut response).await?;
    println!("{}", response.split("\r\n\r\n").last().unwrap_or_default());

    server.abort();
    audit.close_async().await?;
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
