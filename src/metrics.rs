//! The counters of a log as metrics, with the names and units of Prometheus.
//!
//! The names follow <https://prometheus.io/docs/practices/naming/>: one prefix, base units, and `_total` at the end of
//! counters.

use crate::{
    named::named,
    severity::Severity,
    stats::{LossReason, NoticeKind, Stats},
};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// A value that only increases while the log is open.
    Counter,
    /// A value that goes up and down.
    Gauge,
}

named!(MetricKind, "metric kind", [
    Counter => "counter",
    Gauge => "gauge",
]);

/// Description of a metric, without its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, as [`Stats::for_each`] reports it.
    pub name: &'static str,
    /// Whether the metric is a counter or a gauge, for the line `# TYPE`.
    pub kind: MetricKind,
    /// What the metric counts or measures, in a sentence, for the line `# HELP`.
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

impl Stats {
    /// Every metric that [`for_each`](Self::for_each) reports, in the same order. A later version may add some.
    pub const METRICS: &'static [Metric] = &[
        counter("tracing_audit_accepted_events_total", "Events taken into the queue."),
        counter("tracing_audit_durable_events_total", "Events that are durable."),
        counter("tracing_audit_lost_events_total", "Events that could not be recorded."),
        counter(
            "tracing_audit_unconfirmed_waits_total",
            "Waits that ended at the wait bound, or were not started.",
        ),
        gauge("tracing_audit_queued_events", "Events in the queue, not yet written."),
        gauge("tracing_audit_queued_bytes", "Bytes of events that are queued or not yet durable."),
        gauge(
            "tracing_audit_oldest_not_durable_seconds",
            "Age of the oldest accepted event that is not durable.",
        ),
        gauge("tracing_audit_records_since_sync", "Records of every kind written since the last sync."),
        counter("tracing_audit_syncs_total", "Syncs of segments that succeeded."),
        gauge("tracing_audit_last_sync_duration_seconds", "Duration of the last successful sync."),
        counter("tracing_audit_written_bytes_total", "Bytes appended to segments."),
        counter("tracing_audit_begun_segments_total", "Segments begun."),
        gauge("tracing_audit_free_bytes", "Free space on the file system of the log, when last checked."),
        counter("tracing_audit_dropped_notices_total", "Notices dropped because on_notice was too slow."),
        counter("tracing_audit_notices_total", "Notices given, whether or not on_notice took them."),
    ];

    /// Calls a closure with every counter and gauge as a metric: its name, its labels by name and value, and its
    /// current value.
    ///
    /// Units are seconds and bytes. Every combination of labels is reported even if it is zero, so that rates can be
    /// computed from the start. All values of a metric are reported together, in the order of
    /// [`METRICS`](Self::METRICS), which has the type and the meaning of each.
    ///
    /// ```
    /// # let stats = tracing_audit::Stats::default();
    /// let mut alarms = 0.0;
    /// stats.for_each(|name, labels, value| {
    ///     if name == "tracing_audit_lost_events_total" && labels.contains(&("severity", "critical")) {
    ///         alarms += value;
    ///     }
    /// });
    /// ```
    ///
    /// Labels: `severity` of accepted and lost events, `reason` of lost ones ([`LossReason`]), `kind` of notices
    /// ([`NoticeKind`]). A program with several logs should add a label for the log. The example `metrics` serves all
    /// metrics over HTTP.
    pub fn for_each(&self, mut report: impl FnMut(&'static str, &[(&'static str, &'static str)], f64)) {
        // Without `..`, so that no field is forgotten.
        let Self {
            accepted_routine,
            accepted_critical,
            durable,
            lost,
            unconfirmed_waits,
            queued_events,
            queued_bytes,
            oldest_not_durable,
            records_since_sync,
            syncs,
            last_sync,
            written_bytes,
            segments,
            free_bytes,
            notices_dropped,
            notices: _,
        } = self;
        for (severity, accepted) in
            [(Severity::Routine, accepted_routine), (Severity::Critical, accepted_critical)]
        {
            let labels = [("severity", severity.as_str())];
            report("tracing_audit_accepted_events_total", &labels, float(*accepted));
        }
        report("tracing_audit_durable_events_total", &[], float(*durable));
        for reason in LossReason::ALL {
            for severity in Severity::ALL {
                let found = lost.iter().filter(|loss| (loss.reason, loss.severity) == (*reason, *severity));
                let labels = [("reason", reason.as_str()), ("severity", severity.as_str())];
                report(
                    "tracing_audit_lost_events_total",
                    &labels,
                    float(found.map(|loss| loss.events).sum()),
                );
            }
        }
        report("tracing_audit_unconfirmed_waits_total", &[], float(*unconfirmed_waits));
        report("tracing_audit_queued_events", &[], float(*queued_events));
        report("tracing_audit_queued_bytes", &[], float(*queued_bytes));
        report("tracing_audit_oldest_not_durable_seconds", &[], oldest_not_durable.as_secs_f64());
        report("tracing_audit_records_since_sync", &[], float(*records_since_sync));
        report("tracing_audit_syncs_total", &[], float(*syncs));
        report("tracing_audit_last_sync_duration_seconds", &[], last_sync.as_secs_f64());
        report("tracing_audit_written_bytes_total", &[], float(*written_bytes));
        report("tracing_audit_begun_segments_total", &[], float(*segments));
        report("tracing_audit_free_bytes", &[], float(*free_bytes));
        report("tracing_audit_dropped_notices_total", &[], float(*notices_dropped));
        for kind in NoticeKind::ALL {
            report("tracing_audit_notices_total", &[("kind", kind.as_str())], float(self.noticed(*kind)));
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are doubles; beyond 2^53 the last digits do not matter"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::stats::{Loss, NoticeCount};

    fn reported(stats: &Stats) -> Vec<(&'static str, String, f64)> {
        let mut reported = Vec::new();
        stats.for_each(|name, labels, value| {
            let labels: Vec<String> = labels.iter().map(|(label, is)| format!("{label}={is}")).collect();
            reported.push((name, labels.join(","), value));
        });
        reported
    }

    /// Returns counters with a different number in each field.
    fn different() -> Stats {
        let loss = |reason, severity, events| Loss { reason, severity, events };
        Stats {
            accepted_routine: 1,
            accepted_critical: 2,
            durable: 3,
            lost: vec![
                loss(LossReason::QueueFull, Severity::Routine, 4),
                loss(LossReason::Closed, Severity::Critical, 5),
            ],
            unconfirmed_waits: 6,
            queued_events: 7,
            queued_bytes: 8,
            oldest_not_durable: Duration::from_millis(9_250),
            records_since_sync: 10,
            syncs: 11,
            last_sync: Duration::from_micros(12_500),
            written_bytes: 13,
            segments: 14,
            free_bytes: 15,
            notices_dropped: 16,
            notices: vec![NoticeCount { kind: NoticeKind::Failing, count: 17 }],
        }
    }

    #[test]
    fn every_field_of_stats_is_reported_under_its_own_name() {
        let not_zero: Vec<_> =
            reported(&different()).into_iter().filter(|(_, _, value)| *value != 0.0).collect();
        let expected = [
            ("accepted_events_total", "severity=routine", 1.0),
            ("accepted_events_total", "severity=critical", 2.0),
            ("durable_events_total", "", 3.0),
            ("lost_events_total", "reason=queue_full,severity=routine", 4.0),
            ("lost_events_total", "reason=closed,severity=critical", 5.0),
            ("unconfirmed_waits_total", "", 6.0),
            ("queued_events", "", 7.0),
            ("queued_bytes", "", 8.0),
            ("oldest_not_durable_seconds", "", 9.25),
            ("records_since_sync", "", 10.0),
            ("syncs_total", "", 11.0),
            ("last_sync_duration_seconds", "", 0.0125),
            ("written_bytes_total", "", 13.0),
            ("begun_segments_total", "", 14.0),
            ("free_bytes", "", 15.0),
            ("dropped_notices_total", "", 16.0),
            ("notices_total", "kind=failing", 17.0),
        ];
        assert_eq!(not_zero.len(), expected.len(), "{not_zero:?}");
        for ((name, labels, value), expected) in not_zero.iter().zip(expected) {
            let name = name.strip_prefix("tracing_audit_").unwrap();
            assert_eq!((name, labels.as_str()), (expected.0, expected.1));
            assert!((value - expected.2).abs() < 1e-12, "{name} {value}");
        }
    }

    #[test]
    fn zeros_are_reported_too() {
        let (zeros, others) = (reported(&Stats::default()), reported(&different()));
        let series = |reported: &[(&'static str, String, f64)]| {
            reported.iter().map(|(name, labels, _)| (*name, labels.clone())).collect::<Vec<_>>()
        };
        assert_eq!(series(&zeros), series(&others));
        let with_labels = 2 + LossReason::ALL.len() * Severity::ALL.len() + NoticeKind::ALL.len();
        assert_eq!(zeros.len(), with_labels + Stats::METRICS.len() - 3);
        assert!(zeros.iter().all(|(_, _, value)| *value == 0.0));
        let mut each: Vec<_> = series(&zeros);
        each.sort();
        each.dedup();
        assert_eq!(each.len(), zeros.len());
    }

    #[test]
    fn the_reported_metrics_are_those_of_the_list() {
        let mut names: Vec<&str> = reported(&Stats::default()).iter().map(|(name, _, _)| *name).collect();
        names.dedup();
        assert_eq!(names, Stats::METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>());
    }

    /// <https://prometheus.io/docs/practices/naming/>.
    #[test]
    fn names_follow_the_conventions() {
        let kinds: BTreeMap<&str, MetricKind> =
            Stats::METRICS.iter().map(|metric| (metric.name, metric.kind)).collect();
        for Metric { name, kind, help } in Stats::METRICS {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{help}");
        }
        assert_eq!(kinds.len(), Stats::METRICS.len());
    }

    /// The table of counters names the metric beside each field.
    #[test]
    fn the_table_for_operators_has_every_metric() {
        let operations = include_str!("../docs/operations.md");
        for Metric { name, .. } in Stats::METRICS {
            let short = name.strip_prefix("tracing_audit_").unwrap();
            assert!(operations.contains(&format!("`{short}`")), "docs/operations.md does not name `{short}`");
        }
    }
}
