//! The writer processes of a demonstration, and the events that they record.

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use tracing::{info, info_span};
use tracing_audit::{AuditLog, FlushMode, Rotation, audit, audit_critical};
use tracing_subscriber::prelude::*;

use crate::print;

/// The first argument of a writer process. Nobody types it, so it is neither in the help nor in completions.
pub(super) const WRITER: &str = "demo-writer";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    Shop,
    Worker,
    /// A shop that never closes its log.
    Killed,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shop => "shop",
            Self::Worker => "worker",
            Self::Killed => "killed",
        })
    }
}

#[derive(Debug, Parser)]
struct Writer {
    log: PathBuf,
    role: Role,
    seed: u64,
    events: u64,
    /// Number of events of all writers together, which decides the size of segments.
    all: u64,
}

/// Returns a rotation that gives several segments, within the limits of the library.
fn rotation(all: u64) -> Rotation {
    Rotation::daily().max_bytes((all * 100).clamp(64 << 10, 64 << 20))
}

/// The number of events above which critical events are not synced one by one.
const MANY: u64 = 20_000;

pub(super) fn run() -> Result<()> {
    let writer = Writer::parse_from(std::env::args_os().skip(1));
    let service = if writer.role == Role::Worker { "shop-worker" } else { "shop-web" };
    let mut builder = AuditLog::builder(&writer.log).service(service).stderr(false);
    builder = builder.rotation(rotation(writer.all));
    if writer.all > MANY {
        // A sync for each critical event would take minutes.
        builder = builder.flush_mode(FlushMode::Batched { size: 10_000, interval: Duration::from_secs(1) });
    }
    let log = builder.open().with_context(|| format!("cannot write {}", writer.log.display()))?;
    print("open");
    // Wait for the signal to begin, which comes when all concurrent writers have the log open.
    std::io::stdin().read_line(&mut String::new())?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(log.layer()), || {
        writer.record(&log)
    })?;
    if writer.role == Role::Killed {
        // Everything is durable before the kill, so that the log is the same in each run.
        log.flush()?;
        print("amid");
        // Block until the kill.
        drop(std::io::stdin().read_line(&mut String::new()));
    }
    print(&format!("closed {}", log.close()?));
    Ok(())
}

const PEOPLE: [&str; 7] = ["mia", "tom", "aisha", "jonas", "li", "søren", "zoë"];
const ITEMS: [&str; 6] = ["lamp", "chair", "desk", "shelf", "vase", "クッション"];

impl Writer {
    /// Number of events after which a writer waits until they are durable, so that none is dropped.
    const PACE: u64 = 1_000;

    fn record(&self, log: &AuditLog) -> Result<()> {
        let mut dice = Dice(self.seed);
        let (mut left, mut since_wait) = (self.events, 0);
        while left > 0 {
            let recorded = if self.role == Role::Worker { job(&mut dice) } else { visit(&mut dice) };
            left = left.saturating_sub(recorded);
            since_wait += recorded;
            // `confirm` waits for the sync, and with it for everything queued before.
            if since_wait >= Self::PACE {
                since_wait = 0;
                log.confirm(|| audit!(action = "cart.snapshot", actor = "shop", outcome = "success"))?;
            }
        }
        Ok(())
    }
}

/// Records one session of the shop. Returns the number of events.
fn visit(dice: &mut Dice) -> u64 {
    if dice.is(4) {
        return attack(dice);
    }
    let who = dice.one_of(&PEOPLE);
    let source = format!("192.0.2.{}", dice.below(200) + 1);
    let session = info_span!(target: "audit", "session", session_id = %format!("s-{:08x}", dice.below(1 << 32)), actor = who, source = %source);
    let _inside = session.enter();
    if dice.is(10) {
        audit!(action = "auth.login", outcome = "denied", reason = "wrong password", attempt = 1);
        audit!(action = "auth.login", outcome = "success", method = "password", attempt = 2);
    } else {
        audit!(action = "auth.login", outcome = "success", method = "passkey");
    }
    let requests = dice.below(6) + 1;
    for _ in 0..requests {
        let request =
            info_span!(target: "audit", "request", request_id = %format!("r-{:06x}", dice.below(1 << 24)));
        let _inside = request.enter();
        shop(dice);
    }
    audit!(action = "auth.logout", outcome = "success");
    requests + 2
}

fn shop(dice: &mut Dice) {
    let item = dice.one_of(&ITEMS);
    let order = dice.below(90_000) + 10_000;
    match dice.below(20) {
        0..=9 => {
            info!(target: "audit", action = "item.view", resource = %format!("item/{item}"), outcome = "success");
        }
        10..=15 => {
            audit!(action = "order.create", resource = %format!("order/{order}"), outcome = "success", total_cents = dice.below(50_000), items = dice.below(5) + 1);
        }
        16 => {
            audit!(action = "order.read", resource = %format!("order/{order}"), outcome = "denied", reason = "belongs to somebody else");
        }
        17 => {
            audit_critical!(action = "order.refund", resource = %format!("order/{order}"), outcome = "success", amount_cents = dice.below(20_000), "refunded by hand");
        }
        18 => {
            audit_critical!(action = "role.grant", resource = %format!("user/{}", dice.one_of(&PEOPLE)), outcome = "success", role = "support");
        }
        _ => audit!(
            action = "profile.update",
            resource = "profile",
            outcome = "success",
            password = "not shown",
            field = "address"
        ),
    }
}

/// Records attempts to guess a password. Returns the number of events.
fn attack(dice: &mut Dice) -> u64 {
    let attempts = dice.below(12) + 3;
    for attempt in 1..=attempts {
        audit!(
            action = "auth.login",
            actor = "mallory",
            outcome = "denied",
            source = "203.0.113.9",
            reason = "wrong password",
            attempt
        );
    }
    audit_critical!(
        action = "auth.lockout",
        actor = "mallory",
        outcome = "success",
        source = "203.0.113.9",
        after = attempts,
        "too many attempts"
    );
    attempts + 1
}

/// Records one job of the worker. Returns the number of events.
fn job(dice: &mut Dice) -> u64 {
    let job = info_span!(target: "audit", "job", request_id = %format!("job-{:06x}", dice.below(1 << 24)), actor = "worker");
    let _inside = job.enter();
    match dice.below(12) {
        0..=7 => {
            audit!(action = "invoice.send", resource = %format!("order/{}", dice.below(90_000) + 10_000), outcome = "success");
        }
        8..=9 => {
            audit!(action = "stock.adjust", resource = %format!("item/{}", dice.one_of(&ITEMS)), outcome = "success", by = dice.below(40));
        }
        10 => {
            audit!(action = "invoice.send", resource = %format!("order/{}", dice.below(90_000) + 10_000), outcome = "failure", reason = "mail server refused the address");
        }
        _ => audit_critical!(action = "key.rotate", resource = "key/invoices", outcome = "success"),
    }
    1
}

/// A random number generator with the same numbers in each run: `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        let index = usize::try_from(self.below(all.len() as u64)).unwrap_or_default();
        all.get(index).copied().unwrap_or_default()
    }
}
