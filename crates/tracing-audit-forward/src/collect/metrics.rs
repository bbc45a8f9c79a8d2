//! The table of heads as metrics.

use super::{alarm::AlarmKind, table::Fleet};

impl Fleet {
    /// Calls a closure with the name, labels and value of each metric, zeros included. Times are in seconds
    /// since 1970.
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    pub fn for_each(&self, mut tell: impl FnMut(&'static str, &[(&'static str, &str)], f64)) {
        tell("tracing_audit_collect_chains", &[], self.chains.len() as f64);
        tell("tracing_audit_collect_backlog_messages", &[], self.backlog as f64);
        tell("tracing_audit_collect_strangers_total", &[], self.strangers as f64);
        tell("tracing_audit_collect_updated_timestamp_seconds", &[], self.updated_ms as f64 / 1e3);
        for kind in AlarmKind::ALL {
            let count = self.alarms.iter().filter(|alarm| alarm.kind == *kind).count();
            tell("tracing_audit_collect_alarms", &[("kind", kind.as_str())], count as f64);
        }
        for alarm in &self.alarms {
            let origin = alarm.origin.as_deref().unwrap_or_default();
            let chain_id = alarm.chain_id.as_deref().unwrap_or_default();
            let labels = [("kind", alarm.kind.as_str()), ("log", origin), ("chain_id", chain_id)];
            tell("tracing_audit_collect_alarm", &labels, 1.0);
        }
        for chain in &self.chains {
            let gaps: u64 = chain.gaps.iter().map(|(first, last)| last - first + 1).sum();
            if gaps > 0 {
                let labels = [("chain_id", chain.chain_id.as_str())];
                tell("tracing_audit_collect_gap_records", &labels, gaps as f64);
            }
        }
        let last_arrival = self.logs.iter().filter_map(|(log, row)| Some((log, row.heard_ms?)));
        for (log, heard_ms) in last_arrival {
            let name = "tracing_audit_collect_heard_timestamp_seconds";
            tell(name, &[("log", log)], heard_ms as f64 / 1e3);
        }
    }

    /// Formats the same metrics as Prometheus text, as its node exporter reads from a file.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let mut named = "";
        self.for_each(|name, labels, value| {
            if named != name {
                let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
                text.extend(["# TYPE ", name, " ", kind, "\n"]);
                named = name;
            }
            let labels: Vec<String> =
                labels.iter().map(|(label, is)| format!("{label}=\"{}\"", escaped(is))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            text.extend([name, &labels, " ", &value.to_string(), "\n"]);
        });
        text
    }
}

/// Escapes the value of a label for the text format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
