#![doc = include_str!("../docs/links/tracing-audit-forward.md")]
#![doc = include_str!("../docs/forwarding.md")]

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/agents.md")]
pub mod agents {}

#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/fleet.md")]
pub mod fleet {}

#[cfg(any(not(doctest), feature = "nats"))]
#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/nats.md")]
pub mod nats {}

#[cfg(any(not(doctest), feature = "objects"))]
#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/objects.md")]
pub mod objects {}

#[cfg(any(not(doctest), feature = "otlp"))]
#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/otlp.md")]
pub mod otlp {}

#[cfg(any(not(doctest), feature = "postgres"))]
#[doc = include_str!("../docs/links/tracing-audit-forward.md")]
#[doc = include_str!("../docs/forwarding/postgres.md")]
pub mod postgres {}
