//! A service reads the settings of its audit log with its other settings: from TOML, overridden by the environment.
//!
//! Needs the feature `serde`:
//!
//! ```sh
//! PAYMENTS_AUDIT__FLUSH_MODE=immediate cargo run --features serde --example settings
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use config::{Environment, File, FileFormat};
use serde::Deserialize;
use tracing_audit::{AuditLog, Config};
use tracing_subscriber::prelude::*;

/// The settings of the service, as an operator writes them. A real one reads a file: `File::with_name("payments")`.
const SETTINGS: &str = r#"
    listen = "127.0.0.1:8080"

    [audit]
    dir = "/var/lib/payments/audit-log"
    service = "payments"
    flush_mode = { mode = "hybrid", batch_interval = "500ms" }
    rotation = "daily 256MiB"
    retention = { max_age = "400d" }
    wait_bound = "2s"
    critical_actions = ["key.export"]
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: String,
    audit: Config,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let log = dir.path().join("log");
    let settings: Settings = config::Config::builder()
        .add_source(File::from_str(SETTINGS, FileFormat::Toml))
        // `PAYMENTS_AUDIT__WAIT_BOUND=5s` is the key `wait_bound` in the table `audit`.
        .add_source(Environment::with_prefix("PAYMENTS").prefix_separator("_").separator("__"))
        // An example writes nothing to /var.
        .set_override("audit.dir", log.to_str())?
        .build()?
        .try_deserialize()?;
    println!("listening on {}; {:?}", settings.listen, settings.audit);

    // Closures are added in code: `settings.audit.builder().on_notice(…).open()`.
    let audit = AuditLog::from_config(settings.audit)?;
    tracing_subscriber::registry().with(audit.layer()).init();
    audit.ensure_attached()?;
    tracing::info!(target: "audit", action = "key.export", actor = "mia");
    println!("head {}", audit.close()?);
    Ok(())
}
