//! Tests what a bucket must support, before the first record goes there.
//!
//! A server that overwrites objects, or accepts a body that does not match its checksum, would lose or damage
//! records and report success.

use bytes::Bytes;
use http::HeaderMap;
use sha2::{Digest as _, Sha256};

use super::{
    client::{Headers, in_base64},
    keys::Keys,
    setup,
    store::{MAX_NOTE_BYTES, Objects, Put, Store},
};
use crate::{origin::Origin, sink::SinkError};

const HERE: &[u8] = b"This object stays: puts that must not overwrite it are tried on it.\n";
const OTHER: &[u8] = b"What was here was overwritten: this server ignores If-None-Match.\n";
const DAMAGED: &[u8] = b"This object must not be here: this server ignores checksums.\n";

/// Tests a PUT that must not overwrite, and one with the checksum of another body. The first object stays,
/// under retention like any other, so that there is only one in a bucket that keeps everything. The second is
/// never created.
pub(super) async fn probe(store: &Store, keys: &Keys, origin: &Origin) -> Result<(), SinkError> {
    store.find_credentials().await?;
    store.prepare(keys.tops(origin)).await?;
    tried(store, keys).await.map_err(|error| match error {
        // There is no chain yet that could stop.
        SinkError::Chain { reason, .. } => setup(reason),
        error => error,
    })
}

async fn tried(store: &Store, keys: &Keys) -> Result<(), SinkError> {
    let here = keys.probe("create-only");
    if store.get(&here, MAX_NOTE_BYTES).await?.is_none() {
        store.put(&here, Bytes::from_static(HERE)).await?;
    }
    if store.put(&here, Bytes::from_static(OTHER)).await? == Put::Created {
        return Err(refused(store, "overwrites an object although it is told not to (If-None-Match)"));
    }
    if store.get(&here, MAX_NOTE_BYTES).await?.as_deref() != Some(HERE) {
        let name = store.name(&here);
        return Err(setup(format!(
            "{name} is not what was put there: use another prefix, which has no such object yet"
        )));
    }
    let Objects::S3 { .. } = &store.objects else { return Ok(()) };
    wrong_sum(store, &keys.probe("checksum")).await
}

async fn wrong_sum(store: &Store, key: &str) -> Result<(), SinkError> {
    let mut headers = HeaderMap::new();
    let sum = in_base64(&Sha256::digest(HERE)).ok_or_else(|| setup("cannot print a checksum".to_owned()))?;
    headers.insert("x-amz-checksum-sha256", sum);
    match store.put_with(key, Bytes::from_static(DAMAGED), Some(Headers(headers))).await {
        // The object exists: this server, or the one before, accepted it.
        Ok(Put::Created | Put::Exists) => {
            Err(refused(store, "accepts a body that does not match its checksum (x-amz-checksum-sha256)"))
        }
        // Refused because of the checksum, not because of the signature or a missing right.
        Err(SinkError::Setup { reason }) if reason.contains("answers 400") => Ok(()),
        Err(error) => Err(error),
    }
}

fn refused(store: &Store, what: &str) -> SinkError {
    setup(format!("the server of {} {what}: records are not safe there; use another server", store.place))
}
