//! The stores, each up, down and hanging, and the simplest loops that write to them.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing_audit_forward::{Entry, FileSink, Gap, Pace, Position, Sink, SinkError};

use crate::{Result, log::batches, services::Urls};

/// Writes a log to a store without the forwarder.
pub(crate) type Plain<'a> = Box<dyn Fn(&Path) -> Result<()> + 'a>;

pub(crate) trait Store {
    fn name(&self) -> &'static str;

    /// Returns a sink whose store is empty.
    fn empty(&self) -> Result<AnySink>;

    /// Returns a sink whose store is not there.
    fn down(&self) -> Result<AnySink>;

    /// Returns a sink whose store accepts a call and does not answer.
    fn hanging(&self) -> Result<AnySink>;

    fn plain(&self) -> Vec<(&'static str, Plain<'_>)>;
}

/// Returns those that are available. The file is in this directory.
#[cfg_attr(
    not(any(feature = "nats", feature = "otlp", feature = "postgres")),
    expect(unused_mut, clippy::unnecessary_wraps, reason = "there is the file alone")
)]
pub(crate) fn all(dir: &Path, urls: &Urls) -> Result<Vec<Box<dyn Store>>> {
    let mut stores: Vec<Box<dyn Store>> = vec![Box::new(InFile { path: dir.join("copy.jsonl") })];
    #[cfg(feature = "postgres")]
    if let Some(url) = &urls.postgres {
        stores.push(Box::new(postgres::InPostgres { url: url.clone(), ports: Ports::new()? }));
    }
    #[cfg(feature = "otlp")]
    if let Some(url) = &urls.otlp {
        stores.push(Box::new(otlp::InOtlp { url: url.clone(), ports: Ports::new()? }));
    }
    #[cfg(feature = "nats")]
    if let Some(url) = &urls.nats {
        stores.push(Box::new(nats::InNats { url: url.clone(), ports: Ports::new()? }));
    }
    let _: &Urls = urls;
    Ok(stores)
}

pub(crate) struct AnySink(Box<dyn Sink>);

#[cfg(feature = "objects")]
impl AnySink {
    pub(crate) fn new(sink: impl Sink + 'static) -> Self {
        Self(Box::new(sink))
    }
}

impl Sink for AnySink {
    fn positions(&mut self, chain_ids: &[Arc<str>]) -> std::result::Result<Option<Vec<Position>>, SinkError> {
        self.0.positions(chain_ids)
    }

    fn offer(&mut self, batch: &[Entry]) -> std::result::Result<(), SinkError> {
        self.0.offer(batch)
    }

    fn gap(&mut self, gap: &Gap) -> std::result::Result<(), SinkError> {
        self.0.gap(gap)
    }

    fn pace(&self) -> Pace {
        self.0.pace()
    }

    fn close(&mut self) {
        self.0.close();
    }
}

/// A port without a listener, and one that accepts connections and never answers.
#[cfg(any(feature = "nats", feature = "otlp", feature = "postgres"))]
struct Ports {
    closed: u16,
    silent: std::net::TcpListener,
}

#[cfg(any(feature = "nats", feature = "otlp", feature = "postgres"))]
impl Ports {
    fn new() -> Result<Self> {
        let listen = || std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        Ok(Self { closed: listen()?.local_addr()?.port(), silent: listen()? })
    }

    fn silent(&self) -> Result<u16> {
        Ok(self.silent.local_addr()?.port())
    }
}

struct InFile {
    path: PathBuf,
}

impl InFile {
    fn fresh(&self) -> Result<&Path> {
        if self.path.exists() {
            fs::remove_file(&self.path)?;
        }
        Ok(&self.path)
    }
}

impl Store for InFile {
    fn name(&self) -> &'static str {
        "file"
    }

    fn empty(&self) -> Result<AnySink> {
        Ok(AnySink(Box::new(FileSink::new(self.fresh()?))))
    }

    fn down(&self) -> Result<AnySink> {
        Ok(AnySink(Box::new(FileSink::new(self.path.join("below/a/file")))))
    }

    fn hanging(&self) -> Result<AnySink> {
        Ok(AnySink(Box::new(Hanging)))
    }

    fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
        let append = |log: &Path| {
            let mut file = File::create(self.fresh()?)?;
            batches(log, |lines| {
                file.write_all(lines.join("\n").as_bytes())?;
                file.write_all(b"\n")?;
                Ok(file.sync_data()?)
            })
        };
        vec![("append a thousand lines, sync", Box::new(append))]
    }
}

/// A disk that hangs.
struct Hanging;

impl Sink for Hanging {
    fn positions(&mut self, _: &[Arc<str>]) -> std::result::Result<Option<Vec<Position>>, SinkError> {
        Ok(Some(Vec::new()))
    }

    fn offer(&mut self, _: &[Entry]) -> std::result::Result<(), SinkError> {
        std::thread::sleep(Duration::from_secs(10));
        Err(SinkError::Unavailable { reason: "no answer".to_owned(), retry_after: None })
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::path::Path;

    use tokio::runtime::{Builder, Runtime};
    use tokio_postgres::Client;
    use tracing_audit_forward::Postgres;

    use super::{AnySink, Plain, Ports, Store};
    use crate::{Result, log::batches};

    pub(super) struct InPostgres {
        pub(super) url: String,
        pub(super) ports: Ports,
    }

    impl InPostgres {
        fn at(port: u16) -> Result<AnySink> {
            let url = format!("postgres://nobody@127.0.0.1:{port}/postgres");
            Ok(AnySink(Box::new(Postgres::new(&url)?)))
        }

        fn connect(&self) -> Result<(Runtime, Client)> {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let client = runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                Result::Ok(client)
            })?;
            Ok((runtime, client))
        }

        /// A connection, with an empty schema `figures`.
        fn fresh(&self) -> Result<(Runtime, Client)> {
            let (runtime, client) = self.connect()?;
            let empty = "DROP SCHEMA IF EXISTS figures CASCADE; CREATE SCHEMA figures";
            runtime.block_on(client.batch_execute(empty))?;
            Ok((runtime, client))
        }

        /// A connection with a table of lines and the key of the sink, without its columns and other indexes.
        fn table(&self) -> Result<(Runtime, Client)> {
            let (runtime, client) = self.fresh()?;
            let create = "CREATE TABLE figures.plain (seq bigint PRIMARY KEY, line bytea NOT NULL)";
            runtime.block_on(client.batch_execute(create))?;
            Ok((runtime, client))
        }

        fn alone(&self) -> Result<()> {
            let (runtime, client) = self.connect()?;
            Ok(runtime.block_on(client.batch_execute(ALONE))?)
        }

        fn rows(&self, log: &Path) -> Result<()> {
            let (runtime, mut client) = self.table()?;
            let insert = "INSERT INTO figures.plain (seq, line) VALUES ($1, $2)";
            let insert = runtime.block_on(client.prepare(insert))?;
            batches(log, |lines| {
                runtime.block_on(async {
                    let transaction = client.transaction().await?;
                    for line in lines {
                        transaction.execute(&insert, &[&seq(line)?, &line.as_bytes()]).await?;
                    }
                    Ok(transaction.commit().await?)
                })
            })
        }

        fn arrays(&self, log: &Path) -> Result<()> {
            let (runtime, client) = self.table()?;
            let insert = "INSERT INTO figures.plain SELECT * FROM unnest($1::bigint[], $2::bytea[])";
            let insert = runtime.block_on(client.prepare(insert))?;
            batches(log, |lines| {
                let seqs = lines.iter().map(|line| seq(line)).collect::<Result<Vec<i64>>>()?;
                let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
                runtime.block_on(client.execute(&insert, &[&seqs, &lines]))?;
                Ok(())
            })
        }
    }

    /// The server's own work, with the rows that the sink has just written.
    const ALONE: &str = "CREATE TABLE figures.again (LIKE figures.audit_records INCLUDING ALL); \
                         INSERT INTO figures.again SELECT * FROM figures.audit_records";

    fn seq(line: &str) -> Result<i64> {
        let number = line.strip_prefix(r#"{"seq":"#).and_then(|rest| rest.split(',').next());
        Ok(number.ok_or("a line without a number")?.parse()?)
    }

    impl Store for InPostgres {
        fn name(&self) -> &'static str {
            "postgres"
        }

        fn empty(&self) -> Result<AnySink> {
            drop(self.fresh()?);
            let mut sink = Postgres::builder(&self.url).schema("figures").build()?;
            sink.create_schema()?;
            Ok(AnySink(Box::new(sink)))
        }

        fn down(&self) -> Result<AnySink> {
            Self::at(self.ports.closed)
        }

        fn hanging(&self) -> Result<AnySink> {
            Self::at(self.ports.silent()?)
        }

        fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
            vec![
                ("the server alone: INSERT of these rows into an equal table", Box::new(|_| self.alone())),
                ("a prepared INSERT for each line, COMMIT for a thousand", Box::new(|log| self.rows(log))),
                ("one INSERT of arrays for a thousand lines", Box::new(|log| self.arrays(log))),
            ]
        }
    }
}

#[cfg(feature = "nats")]
#[path = "nats.rs"]
mod nats;

#[cfg(feature = "otlp")]
mod otlp {
    use std::path::Path;

    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;
    use tracing_audit_forward::Otlp;

    use super::{AnySink, Plain, Ports, Store};
    use crate::{Result, log::batches};

    pub(super) struct InOtlp {
        pub(super) url: String,
        pub(super) ports: Ports,
    }

    impl InOtlp {
        fn at(port: u16) -> Result<AnySink> {
            Ok(AnySink(Box::new(Otlp::new(&format!("http://127.0.0.1:{port}"))?)))
        }

        fn send(&self, log: &Path, attributes: fn(&str) -> Result<Vec<KeyValue>>) -> Result<()> {
            let agent = ureq::Agent::new_with_defaults();
            batches(log, |lines| {
                let mut log_records = Vec::with_capacity(lines.len());
                for line in lines {
                    let attributes = attributes(line)?;
                    log_records.push(LogRecord {
                        body: Some(text(line)),
                        attributes,
                        ..LogRecord::default()
                    });
                }
                let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
                let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
                let request = agent
                    .post(format!("{}/v1/logs", self.url))
                    .header("content-type", "application/x-protobuf");
                request.send(ExportLogsServiceRequest { resource_logs }.encode_to_vec())?;
                Ok(())
            })
        }
    }

    fn text(text: &str) -> AnyValue {
        AnyValue { value: Some(Value::StringValue(text.to_owned())) }
    }

    /// Returns the id of a chain, the number of the chain, and each member as a text.
    fn members(line: &str) -> Result<Vec<KeyValue>> {
        let attribute =
            |key: String, value: &str| KeyValue { key, value: Some(text(value)), ..KeyValue::default() };
        let mut attributes = vec![
            attribute("audit.chain.id".to_owned(), "0123456789abcdef0123456789abcdef"),
            attribute("audit.chain".to_owned(), "0"),
        ];
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)?;
        for (name, value) in members {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            attributes.push(attribute(format!("audit.{name}"), &value));
        }
        Ok(attributes)
    }

    impl Store for InOtlp {
        fn name(&self) -> &'static str {
            "otlp"
        }

        fn empty(&self) -> Result<AnySink> {
            Ok(AnySink(Box::new(Otlp::new(&self.url)?)))
        }

        fn down(&self) -> Result<AnySink> {
            Self::at(self.ports.closed)
        }

        fn hanging(&self) -> Result<AnySink> {
            Self::at(self.ports.silent()?)
        }

        fn plain(&self) -> Vec<(&'static str, Plain<'_>)> {
            vec![
                (
                    "a request with a thousand bodies and their members as attributes",
                    Box::new(|log| self.send(log, members)),
                ),
                (
                    "a request with a thousand bodies, no attributes",
                    Box::new(|log| self.send(log, |_| Ok(Vec::new()))),
                ),
            ]
        }
    }
}
