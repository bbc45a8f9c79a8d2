//! The output of the example `metrics`, checked as Prometheus reads it.

use std::process::Command;

use crate::support::skip;

/// Returns the answers that the example printed: status line, headers and body. `cargo test` builds it with the tests.
fn answers(test: &str) -> Option<Vec<String>> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/metrics");
    if !program.exists() {
        skip(test, "the example is not built: run `cargo test`, or `cargo build --examples`");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(program).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    Some(printed.split("HTTP/1.1 ").skip(1).map(str::to_owned).collect())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1.trim_end()
}

#[test]
fn the_example_serves_health_and_metrics() {
    let Some(answers) = answers("the_example_serves_health_and_metrics") else { return };
    let [healthy, metrics, closed] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(healthy.starts_with("200") && body(healthy) == "healthy", "{healthy}");
    assert!(closed.starts_with("503") && body(closed) == "closed", "{closed}");
    assert!(metrics.starts_with("200"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{metrics}");
    for line in [
        "tracing_audit_accepted_events_total{severity=\"critical\"} 1",
        "tracing_audit_lost_events_total{reason=\"queue_full\",severity=\"routine\"} 0",
        "tracing_audit_notices_total{kind=\"failing\"} 0",
    ] {
        assert!(body(metrics).lines().any(|there| there == line), "{line} is not in {metrics}");
    }
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/>: the head of a metric comes once and before its
/// values, and each value is a double.
#[test]
fn the_metrics_follow_the_text_format() {
    let Some(answers) = answers("the_metrics_follow_the_text_format") else { return };
    let mut heads = Vec::new();
    let mut lines = body(&answers[1]).lines();
    while let Some(line) = lines.next() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').unwrap();
            assert!(!help.is_empty() && !heads.contains(&name), "{line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{kind}");
            heads.push(name);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
        assert_eq!(heads.last(), Some(&name), "{line}");
        for label in labels.iter().flat_map(|labels| labels.strip_suffix('}').unwrap().split(',')) {
            let (label, value) = label.split_once("=\"").unwrap();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
            assert!(value.strip_suffix('"').is_some_and(|value| !value.contains('"')), "{line}");
        }
    }
    assert_eq!(heads, tracing_audit::Stats::METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>());
}
