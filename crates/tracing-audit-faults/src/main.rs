//! The fault harness of tracing-audit: seeded crashes on a simulated disk, and the process that real faults are injected into.

fn main() {}
