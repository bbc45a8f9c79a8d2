//! Sends what is durable of a log to an OTLP receiver, once: `otlp DIRECTORY URL`. It begins at the first
//! record and keeps no position, so a second run sends everything again.

#![expect(clippy::print_stderr, reason = "an example shows what it does")]

use std::{collections::BTreeMap, env, error::Error, sync::Arc};

use tracing_audit::{Reader, RecordKind};
use tracing_audit_forward::{Entry, Otlp, Sink as _};

/// How many records are sent at once.
const BATCH: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(directory), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: otlp DIRECTORY URL".into());
    };
    let mut sink = Otlp::builder(&url)
        .headers_from_environment()
        .resource("service.name", "shop")
        .on_warning(|warning| eprintln!("warning: {warning}"))
        .build()?;

    let mut ids: BTreeMap<u16, Arc<str>> = BTreeMap::new();
    let mut batch = Vec::new();
    for record in Reader::new(directory).durable_only(true).records()? {
        let record = record?;
        if record.kind() == RecordKind::Segment {
            let id = record.get("segment").and_then(|segment| segment.get("id"));
            ids.insert(record.chain(), id.and_then(|id| id.as_str()).unwrap_or_default().into());
        }
        let id = ids.get(&record.chain()).ok_or("the chain begins without its id")?;
        batch.push(Entry::new(Arc::clone(id), record));
        if batch.len() == BATCH {
            sink.offer(&batch)?;
            batch.clear();
        }
    }
    sink.offer(&batch)?;
    Ok(())
}
