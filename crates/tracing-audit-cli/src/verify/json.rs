//! The output of `verify --json`, whose schema is in docs/command.md.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Checked, print::Unchecked};
use crate::output::escape_json;

/// Formats the result of one log, as one line.
pub(super) fn of(checked: &Checked) -> String {
    let mut report = as_value(&checked.report);
    if let Value::Object(report) = &mut report {
        report.insert("result".to_owned(), checked.result().into());
        report.insert("exit_code".to_owned(), checked.exit_code().into());
        report.insert("against".to_owned(), as_value(&checked.against));
        report.insert("error".to_owned(), Value::Null);
    }
    // The library serialises its report. What only the command knows is added here: times, lines around findings, and
    // sentences.
    for chain in members(&mut report, "chains") {
        let number = chain.get("chain").and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
        let times = number.and_then(|number| checked.times.get(&number)).cloned().unwrap_or_default();
        if let Value::Object(chain) = chain {
            chain.insert("first_time".to_owned(), times.0.into());
            chain.insert("last_time".to_owned(), times.1.into());
        }
    }
    // Positions are known by the index of the finding, in the same order as in the report.
    for (index, finding) in members(&mut report, "findings").iter_mut().enumerate() {
        let place = as_value(&checked.places.get(&index));
        if let Value::Object(finding) = finding {
            for name in ["before", "here", "after"] {
                finding.insert(name.to_owned(), place.get(name).cloned().unwrap_or_default());
            }
        }
    }
    let meanings: Vec<String> =
        checked.report.not_checked().iter().map(|what| Unchecked::of(what, &checked.kept).words()).collect();
    for (entry, meaning) in members(&mut report, "not_checked").iter_mut().zip(meanings) {
        if let Value::Object(entry) = entry {
            entry.insert("meaning".to_owned(), meaning.into());
        }
    }
    escape_json(&report.to_string()).into_owned()
}

/// Formats the error of a log that could not be checked, as one line.
pub(super) fn failed(log: &Path, error: &anyhow::Error) -> String {
    let error = format!("{error:#}");
    let failed = json!({"path": log.to_string_lossy(), "verdict": null, "result": "ERROR", "exit_code": 2, "error": error});
    escape_json(&failed.to_string()).into_owned()
}

fn as_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn members<'a>(report: &'a mut Value, name: &str) -> &'a mut [Value] {
    report.get_mut(name).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}
