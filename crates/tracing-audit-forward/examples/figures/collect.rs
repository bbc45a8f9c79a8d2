//! The rate at which a collector reads a NATS stream, compared with the simplest loop that reads it.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use async_nats::ConnectOptions;
use futures_util::StreamExt as _;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tracing_audit_forward::{Collector, NatsFeed};

use crate::{ROUNDS, Result, spread::Spread};

/// The stream has the records already.
pub(crate) fn measure(url: &str, dir: &Path) -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        let into = dir.join(format!("collected-{round}"));
        let mut collector = Collector::open(&into)?;
        collector.catch_up(&mut NatsFeed::new(url)?)?;
        let records = collector.fleet().place;
        let our = records as f64 / begun.elapsed().as_secs_f64();
        std::fs::remove_dir_all(into)?;
        let begun = Instant::now();
        read(&runtime, url, &dir.join("plain"), records)?;
        let their = records as f64 / begun.elapsed().as_secs_f64();
        ours.push(our);
        theirs.push(their);
        ratios.push(our / their);
    }
    println!("  collector: {:.0}", Spread::of_rounds(ours));
    let what = "a loop that takes what the server pushes, and appends it to one file";
    println!("    {what}: {:.0}; ratio {:.2}", Spread::of_rounds(theirs), Spread::of_rounds(ratios));
    Ok(())
}

/// The simplest reader, without checks: the server pushes, and each line goes into one file, which is synced
/// at the end.
fn read(runtime: &Runtime, url: &str, path: &Path, records: u64) -> Result<()> {
    let (server, rest) =
        url.strip_prefix("nats://").and_then(|rest| rest.split_once('/')).ok_or("no stream")?;
    let stream = rest.split('?').next().unwrap_or(rest);
    let (user, server) = server.rsplit_once('@').unwrap_or(("", server));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let options = ConnectOptions::new().user_and_password(user.to_owned(), password.to_owned());
    runtime.block_on(async {
        let client = options.subscription_capacity(1 << 20).connect(server).await?;
        let inbox = client.new_inbox();
        let mut messages = client.subscribe(inbox.clone()).await?;
        let config = format!(
            r#"{{"stream_name":"{stream}","config":{{"deliver_subject":"{inbox}","ack_policy":"none","mem_storage":true,"num_replicas":1}}}}"#
        );
        client.request(format!("$JS.API.CONSUMER.CREATE.{stream}"), config.into()).await?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        for _ in 0..records {
            let message = timeout(Duration::from_secs(60), messages.next()).await?.ok_or("the stream ended")?;
            file.write_all(&message.payload)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_data()?;
        Ok(())
    })
}
