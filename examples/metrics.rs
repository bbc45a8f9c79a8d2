//! Serves `/metrics` for Prometheus and `/healthz` for a load balancer.
//!
//! With an address it serves until it is stopped. Without one it requests both pages itself, prints the answers, and ends.
//!
//! ```sh
//! cargo run --example metrics -- 127.0.0.1:9464
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing_audit::{AuditLog, Metric, Stats};
use tracing_subscriber::prelude::*;

/// The text exposition format 0.0.4. The names and values of labels are the library's own, so nothing in them must be
/// escaped.
fn exposition(stats: &Stats) -> String {
    let mut lines = Vec::new();
    let mut metrics = Stats::METRICS.iter().peekable();
    stats.for_each(|name, labels, value| {
        // for_each passes the values of a metric together and in the order of METRICS: HELP and TYPE precede the first.
        if let Some(Metric { name, kind, help, .. }) = metrics.next_if(|metric| metric.name == name) {
            lines.push(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        lines.push(format!("{name}{braces} {value}\n"));
    });
    lines.concat()
}

async fn metrics(State(audit): State<AuditLog>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], exposition(&audit.stats()))
}

/// Whether an event emitted now can be expected to become durable.
async fn healthz(State(audit): State<AuditLog>) -> (StatusCode, String) {
    let health = audit.health();
    let status = if health.is_recording() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{health}\n"))
}

async fn ask(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut client = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    client.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let audit = AuditLog::builder(dir.path().join("log")).service("metrics").open()?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;
    tracing::info!(target: "audit", action = "auth.success", actor = "mia");
    tracing::warn!(target: "audit", action = "auth.failure", actor = "mallory");

    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(audit.clone());
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let own = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    if address.is_some() {
        println!("http://{own}/metrics, http://{own}/healthz");
        server.await??;
        return Ok(());
    }

    for path in ["/healthz", "/metrics"] {
        println!("{}", ask(own, path).await?);
    }
    audit.close_async().await?;
    let closed = ask(own, "/healthz").await?;
    println!("{closed}");
    assert!(closed.starts_with("HTTP/1.1 503") && closed.ends_with("closed\n"));
    server.abort();
    Ok(())
}
