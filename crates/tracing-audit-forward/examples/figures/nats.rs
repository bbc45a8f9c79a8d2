//! A stream of NATS.

use std::{collections::VecDeque, path::Path};

use async_nats::{Client, ConnectOptions, HeaderMap, Request};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tokio::runtime::{Builder, Runtime};
use tracing_audit_forward::Nats;

use super::{AnySink, Plain, Ports, Store};
use crate::{Result, log::batches};

pub(super) struct InNats {
    pub(super) url: String,
    pub(super) ports: Ports,
}

/// How many acknowledgements are awaited at once.
const WINDOW: usize = 1_000;

impl InNats {
    fn at(port: u16) -> Result<AnySink> {
        Ok(AnySink(Box::new(Nats::new(&format!("nats://127.0.0.1:{port}/FIGURES?service=s&host=h"))?)))
    }

    fn connect(&self) -> Result<(Runtime, Client)> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = self.url.strip_prefix("nats://").and_then(|rest| rest.split('/').next());
        let server = server.ok_or("a URL without a server")?;
        let (user, server) = server.rsplit_once('@').unwrap_or(("", server));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let options = ConnectOptions::new().user_and_password(user.to_owned(), password.to_owned());
        let client = runtime.block_on(options.connect(server))?;
        Ok((runtime, client))
    }

    /// An empty stream, with or without atomic batches.
    fn fresh(&self, is_atomic: bool) -> Result<(Runtime, Client)> {
        let (runtime, client) = self.connect()?;
        let config = format!(
            r#"{{"name":"FIGURES","subjects":["audit.>"],"storage":"file","discard":"new","deny_delete":true,
                "deny_purge":true,"num_replicas":1,"allow_atomic":{is_atomic}}}"#
        );
        let ask = |what: &str, body: String| {
            let request = Request::new().payload(body.into());
            runtime.block_on(client.send_request(format!("$JS.API.STREAM.{what}.FIGURES"), request))
        };
        ask("DELETE", String::new())?;
        // The files of the previous one are not gone at once.
        for _ in 0..100 {
            if !String::from_utf8_lossy(&ask("CREATE", config.clone())?.payload).contains("\"error\"") {
                return Ok((runtime, client));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err("the stream cannot be made".into())
    }

    /// An atomic batch for a thousand lines, as the sink publishes them.
    fn batched(&self, log: &Path) -> Result<()> {
        let (runtime, client) = self.fresh(true)?;
        let mut seq = 0_u64;
        batches(log, |lines| {
            let batch = format!("batch-{seq}");
            runtime.block_on(async {
                for (number, line) in (1..).zip(lines) {
                    let mut headers = HeaderMap::new();
                    if number == 1 {
                        headers.insert("Nats-Expected-Last-Subject-Sequence", seq.to_string());
                    }
                    seq += 1;
                    headers.insert("Nats-Msg-Id", format!("0123456789abcdef0123456789abcdef-{seq}"));
                    headers.insert("Nats-Batch-Id", batch.as_str());
                    headers.insert("Nats-Batch-Sequence", number.to_string());
                    if number < lines.len() {
                        client.publish_with_headers(SUBJECT, headers, line.clone().into()).await?;
                    } else {
                        headers.insert("Nats-Batch-Commit", "1");
                        let request = Request::new().headers(headers).payload(line.clone().into());
                        acknowledged(Some(client.send_request(SUBJECT, request).await))?;
                    }
                }
                Ok(())
            })
        })
    }

    /// The simplest program without batches: publishes, and waits for the acknowledgements in a window.
    fn windowed(&self, log: &Path) -> Result<()> {
        let (runtime, client) = self.fresh(false)?;
        let mut seq = 0_u64;
        let mut waiting = FuturesOrdered::new();
        batches(log, |lines| {
            runtime.block_on(async {
                for line in lines {
                    seq += 1;
                    let mut headers = HeaderMap::new();
                    headers.insert("Nats-Msg-Id", format!("0123456789abcdef0123456789abcdef-{seq}"));
                    let request = Request::new().headers(headers).payload(line.clone().into());
                    let client = client.clone();
                    waiting.push_back(async move { client.send_request(SUBJECT, request).await });
                    while waiting.len() >= WINDOW {
                        acknowledged(waiting.next().await)?;
                    }
                }
                Ok(())
            })
        })?;
        let rest: VecDeque<_> = runtime.block_on(waiting.collect());
        rest.into_iter().try_for_each(|answer| acknowledged(Some(answer)))
    }
}

const SUBJECT: &str = "audit.s.h.0123456789abcdef0123456789abcdef";

type Answer = std::result::Result<async_nats::Message, async_nats::RequestError>;

fn acknowledged(answer: Option<Answer>) -> Result<()> {
    let answer = answer.ok_or("no answer")??;
    if answer.payload.starts_with(b"{\"stream\"") { Ok(()) } else { Err("not acknowledged".into()) }
}

impl Store for InNats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn empty(&self) -> Result<AnySink> {
        drop(self.fresh(true)?);
        Ok(AnySink(Box::new(Nats::new(&self.url)?)))
    }

    fn down(&self) -> Result<AnySink> {
        Self::at(self.ports.closed)
    }

    fn hanging(&self) -> Result<AnySink> {
        Self::at(self.ports.silent()?)
    }

    fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
        let window = "publish each line, a window of a thousand acknowledgements";
        vec![
            ("an atomic batch for a thousand lines", Box::new(|log| self.batched(log))),
            (window, Box::new(|log| self.windowed(log))),
        ]
    }
}
