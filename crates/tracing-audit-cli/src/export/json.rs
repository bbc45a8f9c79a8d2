//! Lines of JSON that cannot move a terminal.

use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value as Json};

use crate::{output::escape_json, scan::Hit};

/// Writes an object as one line.
pub(super) fn write(to: &mut impl Write, object: &Json) -> Result<()> {
    Ok(writeln!(to, "{}", escape_json(&object.to_string()))?)
}

/// Adds a member if there is a value.
pub(super) fn put(object: &mut Map<String, Json>, name: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

/// Returns the members of a record that were not translated, and its position in the log.
///
/// They are separate objects, because a record may have members of any name.
pub(super) fn rest_of(hit: &Hit, translated: &[&str]) -> Result<Map<String, Json>> {
    let record = &hit.record;
    let mut rest = match serde_json::from_str(record.as_json())? {
        Json::Object(members) => members,
        _ => Map::new(),
    };
    // A member of the wrong type, and a `ts` that is not a time, could not be translated, so they stay here.
    rest.retain(|name, value| {
        let is_text = value.is_string() || name.starts_with('_');
        let is_readable = name != "ts" || record.time().is_some();
        !(translated.contains(&name.as_str()) && is_text && is_readable)
    });
    let mut position = Map::new();
    position.insert("chain".to_owned(), format!("{:03}", record.chain()).into());
    position.insert("file".to_owned(), record.file_name().into());
    position.insert("byte".to_owned(), record.offset().into());
    if hit.is_unconfirmed {
        position.insert("unconfirmed".to_owned(), true.into());
    }
    if record.is_provisional() {
        position.insert("provisional".to_owned(), true.into());
    }
    Ok(Map::from_iter([("position".to_owned(), position.into()), ("record".to_owned(), rest.into())]))
}
