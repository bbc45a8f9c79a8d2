//! What is checked and kept: `verify`, `heads` and `hold`.
