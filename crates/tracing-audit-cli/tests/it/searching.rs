//! What is found and counted: `query` and `stats`.
