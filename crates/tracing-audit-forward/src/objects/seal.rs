//! Combines the parts of a segment into one object, and adds it to a manifest.
//!
//! Every step can be repeated after a crash: an empty part ends the segment, so nothing is added in the
//! meantime; the object has the lines of the parts before it; the manifest follows from the previous one and
//! that object.

use std::io::{self, Write as _};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tracing_audit::Digest;

use super::{
    CONTENDED, Work,
    chain::{Chain, Live},
    keys::{self, Name},
    lines::{self, Content, Limit, Sums},
    manifest::{Manifest, Missing, Sealed},
    store::{MAX_MANIFEST_BYTES, MAX_PART_BYTES, Put, hex},
};
use crate::{copy::CopiedLine, sink::SinkError};

/// The default level of zstd.
const LEVEL: i32 = 3;

impl Work<'_> {
    /// Seals the live segment.
    pub(super) async fn seal(&self, id: &str, chain: &mut Chain) -> Result<(), SinkError> {
        let Some(live) = &mut chain.live else { return Ok(()) };
        if live.parts > 0 {
            self.end(id, live).await?;
            let body = self.read_body(id, live).await?;
            let sealed = self.put_body(id, live.segment, body).await?;
            chain.manifest = Some(self.put_manifest(id, chain, sealed).await?);
        }
        chain.live = None;
        Ok(())
    }

    /// Puts an empty part: from then on, no other sender adds to the segment.
    async fn end(&self, id: &str, live: &mut Live) -> Result<(), SinkError> {
        if live.is_ended {
            return Ok(());
        }
        let key = format!("{}{}", self.keys.live(self.origin, id), keys::part(live.segment, live.parts + 1));
        if self.store.put(&key, Bytes::new()).await? == Put::Exists
            && self.store.get(&key, MAX_PART_BYTES).await?.is_none_or(|there| !there.is_empty())
        {
            return Err(self.store.unavailable("put", &key, &"another forwarder sends the same log"));
        }
        live.is_ended = true;
        Ok(())
    }

    /// Reads the parts back, and checks them.
    async fn read_body(&self, id: &str, live: &Live) -> Result<SegmentBody, SinkError> {
        let directory = self.keys.live(self.origin, id);
        let mut body = SegmentBody::new(self.is_compressed)
            .map_err(|error| self.store.unavailable("compress", &directory, &error))?;
        for number in 1..=live.parts {
            let key = format!("{directory}{}", keys::part(live.segment, number));
            let Some(sums) = lines::read(self.store, &key, false, Limit::NONE, &mut body).await? else {
                return Err(self
                    .store
                    .foreign(&key, "it is missing: somebody removed it while the segment was live"));
            };
            if let Some(fault) = body.fault.take().or(sums.fault.map(str::to_owned)) {
                return Err(self
                    .store
                    .foreign(&key, &format!("it was altered before its segment was sealed: {fault}")));
            }
        }
        Ok(body)
    }

    async fn put_body(&self, id: &str, segment: u32, body: SegmentBody) -> Result<Sealed, SinkError> {
        let directory = self.keys.chain(self.origin, id);
        let SegmentBody { body, lines, last, first_seq, first_ts, last_ts, .. } = body;
        let line_bytes = lines.bytes;
        let line_sha256 = lines.sha256();
        let body = body.end().map_err(|error| self.store.unavailable("compress", &directory, &error))?;
        let mut name = Name::Segment { number: segment, is_compressed: self.is_compressed };
        // Before a crash, the setting may have been the other one.
        let other = Name::Segment { number: segment, is_compressed: !self.is_compressed };
        let has_other = self.store.end(&format!("{directory}{other}"), 1).await?.is_some();
        let own = Sums {
            bytes: body.len() as u64,
            sha256: hex(&Sha256::digest(&body)),
            line_bytes,
            line_sha256,
            fault: None,
        };
        let sums = if has_other
            || self.store.put(&format!("{directory}{name}"), body.into()).await? == Put::Exists
        {
            name = if has_other { other } else { name };
            let key = format!("{directory}{name}");
            let is_compressed = has_other != self.is_compressed;
            let there = lines::read(self.store, &key, is_compressed, Limit::of_lines(line_bytes), Nothing);
            let there = there.await?;
            // An existing object may not be durable yet.
            self.store.settle(&key).await?;
            // S3 also answers this while another put of the same key is in progress.
            let there = there.ok_or_else(|| self.store.unavailable("put", &key, &CONTENDED))?;
            // Another version of zstd may have compressed it, so the lines are compared.
            let lines = (there.line_bytes, &there.line_sha256);
            if there.fault.is_some() || lines != (line_bytes, &own.line_sha256) {
                return Err(self.store.foreign(&key, "it does not have the lines that were acknowledged"));
            }
            there
        } else {
            own
        };
        let (last_seq, last_hash) = last.map(|(seq, hash)| (seq, hash.to_string())).unwrap_or_default();
        Ok(Sealed {
            segment,
            name: name.to_string(),
            bytes: sums.bytes,
            sha256: sums.sha256,
            line_bytes,
            line_sha256: sums.line_sha256,
            first_seq,
            last_seq,
            last_hash,
            first_ts,
            last_ts,
        })
    }

    /// Adds a sealed segment to those sealed before.
    async fn put_manifest(&self, id: &str, chain: &Chain, sealed: Sealed) -> Result<Manifest, SinkError> {
        let directory = self.keys.chain(self.origin, id);
        let key = format!("{directory}{}", Name::Manifest { segment: sealed.segment });
        let mut manifest = chain.manifest.clone().unwrap_or_else(|| Manifest::new(id, chain.number));
        manifest.gaps = self.gaps(&directory, chain.number, sealed.last_seq).await?;
        manifest.segments.push(sealed);
        let body = manifest.print().map_err(|error| self.store.unavailable("print", &key, &error))?;
        let body = Bytes::from(body);
        if self.store.put(&key, body.clone()).await? == Put::Exists {
            let there = self.store.get(&key, MAX_MANIFEST_BYTES).await?;
            if there.ok_or_else(|| self.store.unavailable("put", &key, &CONTENDED))? != body {
                return Err(self.store.foreign(&key, "it lists other sealed segments"));
            }
        }
        Ok(manifest)
    }

    /// Returns the gaps that were reported before this record.
    async fn gaps(&self, directory: &str, chain: u16, before: u64) -> Result<Vec<Missing>, SinkError> {
        let listed = self.store.list(directory, Some(Name::BEFORE_GAPS)).await?.objects;
        let gap = |name: &str| match Name::parse(name)? {
            Name::Gap { first_seq, last_seq } if first_seq < before => {
                Some(Missing { chain, first_seq, last_seq })
            }
            _ => None,
        };
        Ok(listed.iter().filter_map(|object| gap(&object.name)).collect())
    }
}

/// A receiver that ignores the content: only the checksums are wanted.
pub(super) struct Nothing;

impl Content for Nothing {
    fn line(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of a segment, as they are put.
struct SegmentBody {
    body: Body,
    lines: lines::Counted,
    first_seq: u64,
    last: Option<(u64, Digest)>,
    first_ts: Option<String>,
    last_ts: Option<String>,
    fault: Option<String>,
}

enum Body {
    Compressed(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Plain(Vec<u8>),
}

impl Body {
    fn end(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Compressed(encoder) => encoder.finish(),
            Self::Plain(bytes) => Ok(bytes),
        }
    }
}

impl SegmentBody {
    fn new(is_compressed: bool) -> io::Result<Self> {
        let body = if is_compressed {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
            encoder.include_checksum(true)?;
            Body::Compressed(encoder)
        } else {
            Body::Plain(Vec::new())
        };
        let lines = lines::Counted::default();
        Ok(Self { body, lines, first_seq: 0, last: None, first_ts: None, last_ts: None, fault: None })
    }
}

impl Content for &mut SegmentBody {
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lines.add(bytes);
        match &mut self.body {
            Body::Compressed(encoder) => encoder.write_all(bytes),
            Body::Plain(body) => body.write_all(bytes),
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let line = match CopiedLine::parse(line) {
            Ok(line) => line,
            Err(what) => {
                self.fault.get_or_insert(what.to_string());
                return Ok(());
            }
        };
        let follows = |(seq, hash): (u64, Digest)| match line.seq.checked_sub(seq) {
            // After a gap, there is nothing to link to.
            Some(distance @ 1..) => distance > 1 || line.previous == hash,
            _ => false,
        };
        if !self.last.is_none_or(follows) {
            self.fault.get_or_insert(format!("record {} does not follow on the one before", line.seq));
        }
        if self.last.is_none() {
            (self.first_seq, self.first_ts) = (line.seq, line.text("ts"));
        }
        self.last_ts = line.text("ts");
        self.last = Some((line.seq, line.hash));
        Ok(())
    }
}
