#![doc = include_str!("../docs/links/tracing-audit.md")]
#![doc = include_str!("../docs/README.md")]

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/confirm.md")]
pub mod confirm {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/durability.md")]
pub mod durability {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/events.md")]
pub mod events {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/filters.md")]
pub mod filters {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/format.md")]
pub mod format {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/reading.md")]
pub mod reading {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/settings.md")]
pub mod settings {}

#[doc = include_str!("../docs/links/tracing-audit.md")]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
