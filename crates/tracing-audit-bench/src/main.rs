//! Measures tracing-audit beside other logs and stores, in one run.

fn main() {}
