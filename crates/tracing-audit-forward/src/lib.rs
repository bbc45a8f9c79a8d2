#![doc = include_str!("../README.md")]

mod address;
mod collect;
mod copy;
mod dead;
mod engine;
mod error;
#[cfg(feature = "file")]
mod file;
mod forwarder;
mod heads;
mod kept;
mod lag;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "objects")]
mod objects;
#[cfg(any(feature = "nats", feature = "objects", feature = "postgres"))]
mod on_runtime;
mod origin;
#[cfg(feature = "otlp")]
mod otlp;
mod pause;
mod position;
#[cfg(feature = "postgres")]
mod postgres;
mod required;
mod resolve;
mod sink;
mod stats;
mod status;
mod timestamp;

pub use collect::{
    Alarm, AlarmKind, Beat, CollectedChain, CollectedLog, Collector, CollectorBuilder, Delivered, Fault,
    FaultKind, Feed, Fleet, Step, StreamState, What, fleet, retire, settle,
};
pub use copy::{
    CopyBehind, CopyChain, CopyChecker, CopyFinding, CopyFindingKind, CopyHole, CopyReport, HoleReason,
};
pub use error::Error;
#[cfg(feature = "file")]
pub use file::{FileSink, verify_file};
pub use forwarder::{Builder, Forwarder, StartAt};
#[cfg(feature = "nats")]
pub use nats::{Nats, NatsAllow, NatsBuilder, NatsFeed};
#[cfg(feature = "objects")]
pub use objects::{Archive, Objects, ObjectsBuilder, Restored, Retention};
pub use origin::Origin;
#[cfg(feature = "otlp")]
pub use otlp::{Otlp, OtlpBuilder};
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresBuilder, SCHEMA};
pub use required::{lift, require, required};
pub use resolve::{Rejected, copy_checker, give_up, offer_again, rejected, skip};
pub use sink::{Entry, Gap, Pace, Position, Sink, SinkError};
pub use stats::{Notice, NoticeKind, State, Stats};
pub use status::{ChainStatus, Fate, Status, forwarders, status};

#[cfg(any(doc, doctest))]
pub mod docs;
