//! Logs with chosen times, outcomes and accidents, written by hand according to docs/format.md.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::sealed::seal;

const ID: &str = "5f1c2a9be07d4c3388a1d6e2b94f7013";
/// 2026-11-20T06:00:00Z, in milliseconds since 1970.
pub(crate) const BEGIN: i64 = 1_795_154_400_000;

/// A log of one chain.
pub(crate) struct Forge {
    dir: PathBuf,
    chain: u16,
    pub(crate) format: u64,
    segment: u32,
    lines: String,
    after: Vec<String>,
    /// The time of the first and the last record of the segment.
    times: (i64, i64),
    pub(crate) seq: u64,
    prev: String,
    events: u64,
}

/// The id of a chain.
pub(crate) fn id_of(chain: u16) -> String {
    format!("{}{chain:03}", &ID[3..])
}

pub(crate) fn time(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap();
    format!("{}000000Z", time.strftime("%Y-%m-%dT%H:%M:%S.%3f"))
}

impl Forge {
    pub(crate) fn new(dir: &Path, at: i64) -> Self {
        Self::of_chain(dir, 0, at)
    }

    pub(crate) fn of_chain(dir: &Path, chain: u16, at: i64) -> Self {
        fs::create_dir_all(dir).unwrap();
        let mut forge = Self {
            dir: dir.to_owned(),
            chain,
            format: 1,
            segment: 0,
            lines: String::new(),
            after: Vec::new(),
            times: (at, at),
            seq: 0,
            prev: "0".repeat(64),
            events: 0,
        };
        forge.begin(at);
        forge.open(at);
        forge
    }

    /// Adds a record from its members after `ts`, without braces.
    pub(crate) fn record(&mut self, at: i64, members: &str) -> u64 {
        self.times = (self.times.0.min(at), self.times.1.max(at));
        self.raw(&format!("\"ts\":\"{}\",{members}", time(at)))
    }

    /// Adds a record of these members.
    pub(crate) fn raw(&mut self, members: &str) -> u64 {
        self.seq += 1;
        let (seq, durable) = (self.seq, self.seq - 1);
        let prev = &self.prev;
        let body = format!("{{\"seq\":{seq},{members},\"durable\":{durable},\"_prev_hash\":\"{prev}\"}}");
        let (line, hash) = seal(&body);
        self.lines.push_str(&line);
        self.prev = hash;
        seq
    }

    /// Adds an event with these members.
    pub(crate) fn event(&mut self, at: i64, severity: &str, members: &serde_json::Value) -> u64 {
        self.events += 1;
        let members = members.to_string();
        let members = &members[1..members.len() - 1];
        let level = if severity == "critical" { "WARN" } else { "INFO" };
        self.record(
            at,
            &format!("\"kind\":\"event\",\"severity\":\"{severity}\",\"level\":\"{level}\",{members}"),
        )
    }

    pub(crate) fn unconfirmed(&mut self, at: i64, first: u64, last: u64) -> u64 {
        self.record(
            at,
            &format!(
                "\"kind\":\"unconfirmed\",\"unconfirmed\":{{\"reason\":\"timeout\",\"records\":[[{first},{last}]]}}"
            ),
        )
    }

    pub(crate) fn gap(&mut self, at: i64, routine: u64) {
        let ts = time(at);
        let gap = format!(
            "{{\"reason\":\"queue_full\",\"critical\":0,\"routine\":{routine},\"first_ts\":\"{ts}\",\"last_ts\":\"{ts}\"}}"
        );
        self.record(at, &format!("\"kind\":\"gap\",\"gap\":{gap}"));
    }

    /// Adds the recovery after a run that ended without `close`.
    pub(crate) fn crash(&mut self, at: i64) {
        let bytes = self.lines.len();
        self.open(at);
        let segment = self.segment;
        let message = "the last run ended without close";
        self.record(at, &format!("\"kind\":\"recovery\",\"recovery\":{{\"cause\":\"unclosed\",\"segment\":{segment},\"bytes\":{bytes},\"void\":0,\"message\":\"{message}\"}}"));
    }

    fn open(&mut self, at: i64) {
        self.record(at, "\"kind\":\"open\",\"open\":{\"writer\":\"9e107d9d372bb682\",\"service\":\"shop\",\"host\":\"web-1\",\"pid\":4711,\"machine\":\"8164afdcf0e9844c\",\"version\":\"0.1.0\",\"flush_mode\":\"hybrid 100 1s critical_immediate\",\"filesystem\":\"ext4\",\"chains\":{}}");
    }

    fn begin(&mut self, at: i64) {
        self.segment += 1;
        self.times = (at, at);
        let (segment, after) = (self.segment, self.after.join(","));
        let (format, chain, id) = (self.format, self.chain, id_of(self.chain));
        self.record(at, &format!("\"kind\":\"segment\",\"segment\":{{\"format\":{format},\"id\":\"{id}\",\"chain\":\"{chain:03}\",\"segment\":{segment},\"after\":[{after}],\"chains\":{{}}}}"));
    }

    fn write(&mut self) {
        fs::write(self.dir.join(format!("audit-{:03}-{:08}.jsonl", self.chain, self.segment)), &self.lines)
            .unwrap();
    }

    pub(crate) fn rotate(&mut self, at: i64) {
        self.write();
        let (from, to) = (time(self.times.0), time(self.times.1));
        let (segment, bytes) = (self.segment, self.lines.len());
        self.after
            .push(format!("{{\"segment\":{segment},\"bytes\":{bytes},\"from\":\"{from}\",\"to\":\"{to}\"}}"));
        self.lines.clear();
        self.begin(at);
    }

    /// Closes the chain.
    pub(crate) fn close(mut self, at: i64) {
        let events = self.events;
        self.record(at, &format!("\"kind\":\"close\",\"close\":{{\"events\":{events},\"chains\":{{}}}}"));
        self.write();
    }
}

/// Writes two days of a shop: work by day, password guessing and lost events in the second night, a crash, and two
/// unconfirmed records.
pub(crate) fn two_days(dir: &Path, per_hour: u64) {
    let mut forge = Forge::new(dir, BEGIN);
    let mut random = 17_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let people =
        ["mia", "jonas", "amelie", "svc-billing", "noor", "tomás", "svc-backup", "li.wei", "ops-oncall"];
    let work = [
        ("invoice.read", "invoice/8812"),
        ("invoice.created", "invoice/9001"),
        ("order.updated", "order/77120"),
        ("customer.viewed", "customer/204"),
        ("report.exported", "report/q3"),
        ("role.granted", "role/approver"),
        ("item.deleted", "item/55"),
    ];
    for hour in 0..48_i64 {
        let of_day = (6 + hour) % 24;
        let share = if (8..18).contains(&of_day) {
            10
        } else if (6..22).contains(&of_day) {
            4
        } else {
            1
        };
        let many = per_hour * share / 10;
        let begin = BEGIN + hour * 3_600_000;
        for n in 0..many {
            let at = begin + i64::try_from(n * 3_600_000 / many.max(1)).unwrap() + 1;
            let who = people[usize::try_from(draw(9).min(draw(9))).unwrap()];
            let source = format!("10.20.{}.{}", draw(4), 10 + draw(40));
            if draw(9) == 0 {
                let is_denied = draw(8) == 0;
                let members = json!({"action": if is_denied { "auth.failure" } else { "auth.login" }, "actor": who,
                    "outcome": if is_denied { "denied" } else { "success" }, "source": source, "message": "login", "target": "audit"});
                forge.event(at, if is_denied { "critical" } else { "routine" }, &members);
                continue;
            }
            let (action, resource) = work[usize::try_from(draw(7).min(draw(7))).unwrap()];
            let outcome = if draw(40) == 0 { "forbidden" } else { "success" };
            let severity = if action == "role.granted" { "critical" } else { "routine" };
            let members = json!({"action": action, "actor": who, "resource": resource, "outcome": outcome, "source": source, "target": "audit"});
            forge.event(at, severity, &members);
        }
        if hour == 20 || hour == 21 {
            for n in 0..(per_hour * if hour == 20 { 1 } else { 2 }) {
                let at = begin + i64::try_from(n * 1000).unwrap() + 600_000;
                let members = json!({"action": "auth.failure", "actor": "admin", "outcome": "denied", "source": "203.0.113.9",
                    "reason": "wrong password", "message": "login refused", "target": "audit", "fields": {"attempt": n}});
                forge.event(at, "critical", &members);
            }
            forge.gap(begin + 3_500_000, 214);
        }
        if hour == 27 {
            let members = json!({"action": "role.granted", "actor": "jonas", "resource": "role/approver", "outcome": "success", "source": "10.20.1.14", "target": "audit"});
            let at = begin + 3_590_000;
            for at in [at, at + 2] {
                let refused = forge.event(at, "critical", &members);
                forge.unconfirmed(at + 1, refused, refused);
            }
            forge.crash(at + 5_000);
        }
        if hour % 12 == 11 {
            forge.rotate(begin + 3_599_000);
        }
    }
    forge.close(BEGIN + 48 * 3_600_000);
}
