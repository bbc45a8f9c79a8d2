//! Searches many segments at the same time, for bytes before records.
