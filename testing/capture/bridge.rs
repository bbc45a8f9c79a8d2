//! Tests with records of the `log` crate, forwarded by `tracing-log`.

use serde_json::json;
use tracing::info_span;
use tracing_subscriber::{
    filter::LevelFilter,
    layer::{Layer as _, SubscriberExt as _},
    registry::Registry,
};

use super::{Log, Recorder, install};

/// Makes the messages equal, whatever the answer is.
fn nothing(_: bool) -> u8 {
    0
}

#[test]
fn records_of_the_log_crate_are_audit_events_by_their_own_target() {
    // The only test that installs a logger: a process has only one.
    tracing_log::LogTracer::init().unwrap();
    let _alone = super::alone();
    let emit = || {
        let mut asked = 0;
        for _ in 0..2 {
            asked += usize::from(log::log_enabled!(log::Level::Info));
            log::info!("plain");
            asked += usize::from(log::log_enabled!(target: "audit", log::Level::Info));
            log::info!(target: "audit::login", "hello \"{}\"", "mia");
            asked += usize::from(log::log_enabled!(target: "audit", log::Level::Debug));
            log::warn!(target: "audit", "{}", log::log_enabled!(target: "x", log::Level::Error));
            log::debug!(target: "audit", "no");
            tracing::error!("plain {}", nothing(log::log_enabled!(target: "audit", log::Level::Info)));
            log::error!("plain {}", nothing(log::log_enabled!(target: "audit", log::Level::Info)));
            tracing::info!(target: "audit", message = log::log_enabled!(target: "x", log::Level::Error));
        }
        asked
    };
    for level in [LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::TRACE] {
        let other = Recorder::default();
        let without = {
            let _guard = install(Registry::default().with(other.clone().with_filter(level)));
            emit();
            other.seen()
        };
        for outside in [true, false] {
            let log = Log::new();
            let filtered = other.clone();
            let _guard = if outside {
                install(Registry::default().with(log.layer()).with(filtered.with_filter(level)))
            } else {
                install(Registry::default().with(filtered.with_filter(level)).with(log.layer()))
            };
            let _span = info_span!("span", actor = "mia").entered();
            emit();
            let records = log.records();
            assert_eq!(records.len(), 6, "{records:#?}");
            let first = &records[0];
            assert_eq!(first["target"], "audit::login");
            assert_eq!(first["module"], module_path!());
            assert_eq!(first["message"], "hello \"mia\"");
            assert_eq!(first["actor"], "mia");
            assert_eq!(first.get("fields"), None);
            assert_eq!((&records[1]["level"], &records[1]["message"]), (&json!("WARN"), &json!("true")));
            let mut seen = other.seen();
            seen.retain(|message| message != "span span");
            assert_eq!(seen, without, "{level}, outside {outside}");
            assert_eq!(log.lost(), "");
        }
    }
}
