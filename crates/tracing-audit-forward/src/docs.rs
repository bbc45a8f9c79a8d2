#![doc = include_str!("../docs/links/tracing-audit-forward.md")]
#![doc = include_str!("../docs/forwarding.md")]

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/agents.md")]
pub mod agents {}

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/fleet.md")]
pub mod fleet {}

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/nats.md")]
pub mod nats {}

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/objects.md")]
pub mod objects {}

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/otlp.md")]
pub mod otlp {}

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/postgres.md")]
pub mod postgres {}
