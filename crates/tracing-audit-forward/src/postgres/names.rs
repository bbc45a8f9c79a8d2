//! The names of the tables, and the statements that use them.

use super::columns::TEXTS;
use crate::sink::SinkError;

/// The statements that create the tables, with the default names; they run in one transaction.
/// [`Postgres::create_schema`](super::Postgres::create_schema) runs them with the configured names.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The version of [`SCHEMA`].
pub(super) const VERSION: u32 = 1;

/// The text before the version in the comment of the table.
pub(super) const VERSION_MARK: &str = "tracing-audit-forward schema ";

/// The longest name in PostgreSQL, in bytes. Longer names are truncated without an error, and two of them
/// could become equal.
const MAX_NAME: usize = 63;

/// The names of the tables, quoted.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) schema: Option<String>,
    pub(super) records: String,
    pub(super) gaps: String,
    events: String,
}

impl Names {
    pub(super) fn new(schema: Option<&str>, prefix: &str) -> Result<Self, SinkError> {
        let table = |name: &str| -> Result<String, SinkError> {
            let table = quoted(&format!("{prefix}_{name}"))?;
            Ok(match schema {
                Some(schema) => format!("{}.{table}", quoted(schema)?),
                None => table,
            })
        };
        if prefix.is_empty() {
            return Err(bad_name(prefix));
        }
        Ok(Self {
            schema: schema.map(quoted).transpose()?,
            records: table("records")?,
            gaps: table("gaps")?,
            events: table("events")?,
        })
    }

    /// Returns [`SCHEMA`] with these names.
    pub(super) fn schema_statements(&self) -> String {
        let names =
            [("audit_records", &self.records), ("audit_gaps", &self.gaps), ("audit_events", &self.events)];
        let mut statements = String::new();
        let mut rest = SCHEMA;
        // In one pass, because a name may contain the default name of another table.
        while let Some((at, default, name)) =
            names.iter().filter_map(|(default, name)| Some((rest.find(default)?, *default, *name))).min()
        {
            let (before, found) = rest.split_at(at);
            statements.push_str(before);
            statements.push_str(name);
            rest = found.strip_prefix(default).unwrap_or_default();
        }
        statements.push_str(rest);
        statements
    }

    /// Inserts records, given as one array per column.
    pub(super) fn insert(&self) -> String {
        let columns = format!("chain_id, seq, chain, hash, line, ts, ts_nanos, {}", TEXTS.join(", "));
        let arrays = "$1::text[], $2::bigint[], $3::smallint[], $4::bytea[], $5::bytea[], $6::timestamptz[], $7::smallint[]";
        let texts: Vec<String> = (8..).take(TEXTS.len()).map(|place| format!("${place}::text[]")).collect();
        let fields = TEXTS.len() + 8;
        format!(
            "INSERT INTO {records} ({columns}, fields) SELECT {columns}, fields::jsonb \
             FROM unnest({arrays}, {texts}, ${fields}::text[]) AS given({columns}, fields) ON CONFLICT DO NOTHING",
            texts = texts.join(", "),
            records = self.records,
        )
    }

    /// Selects the first of these records that the table lacks, or has a different record for.
    pub(super) fn find_other(&self) -> String {
        format!(
            "SELECT given.place, stored.hash \
             FROM unnest($1::text[], $2::bigint[], $3::bytea[]) WITH ORDINALITY AS given(chain_id, seq, hash, place) \
             LEFT JOIN LATERAL (SELECT hash FROM {records} AS record \
                 WHERE record.chain_id = given.chain_id AND record.seq = given.seq \
                 ORDER BY record.hash = given.hash LIMIT 1) AS stored ON true \
             WHERE stored.hash IS DISTINCT FROM given.hash ORDER BY given.place LIMIT 1",
            records = self.records,
        )
    }

    /// Selects the last record of each of these chains.
    pub(super) fn last(&self) -> String {
        format!(
            "SELECT asked.chain_id, last.seq, last.hash FROM unnest($1::text[]) AS asked(chain_id) \
             CROSS JOIN LATERAL (SELECT seq, hash FROM {records} AS record \
                 WHERE record.chain_id = asked.chain_id ORDER BY seq DESC LIMIT 1) AS last",
            records = self.records,
        )
    }

    pub(super) fn insert_gap(&self) -> String {
        format!(
            "INSERT INTO {gaps} (chain_id, chain, first_seq, last_seq) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            gaps = self.gaps,
        )
    }

    pub(super) fn list_gaps(&self) -> String {
        format!("SELECT chain_id, chain, first_seq, last_seq FROM {}", self.gaps)
    }

    /// Selects the first chain, in the order of ids.
    pub(super) fn first_chain(&self) -> String {
        format!("SELECT min(chain_id) FROM {}", self.records)
    }

    /// Selects the next chain. One by one, because selecting all at once would read the whole table.
    pub(super) fn next_chain(&self) -> String {
        format!("SELECT min(chain_id) FROM {} WHERE chain_id > $1", self.records)
    }

    /// Selects the next rows of a chain.
    pub(super) fn next_rows(&self) -> String {
        format!(
            "SELECT seq, ts, ts_nanos, chain, hash, line, fields::text, {texts} FROM {records} \
             WHERE chain_id = $1 AND (seq, ts) > ($2, $3) ORDER BY seq, ts LIMIT 200",
            texts = TEXTS.join(", "),
            records = self.records,
        )
    }
}

/// Selects what a session must know before it offers anything. `$1` and `$2` are the quoted names of the
/// tables.
///
/// The key: a unique index that is checked immediately and has no condition, over `chain_id` and `seq`, or
/// over these and `ts` if the table is partitioned by time.
pub(super) const CHECK: &str = "\
    SELECT current_setting('server_encoding'), \
           current_setting('fsync'), \
           pg_catalog.to_regclass($2) IS NOT NULL, \
           pg_catalog.obj_description(tab.oid, 'pg_class'), \
           tab.relpersistence = 'p' AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(tab.oid) AS part \
               JOIN pg_catalog.pg_class AS leaf ON leaf.oid = part.relid WHERE leaf.relpersistence <> 'p'), \
           EXISTS (SELECT FROM pg_catalog.pg_index AS ind \
               WHERE ind.indrelid = tab.oid AND ind.indisunique AND ind.indisvalid AND ind.indimmediate \
                 AND ind.indpred IS NULL AND ind.indexprs IS NULL \
                 AND (SELECT array_agg(att.attname::text ORDER BY att.attname) FROM pg_catalog.pg_attribute AS att \
                      WHERE att.attrelid = ind.indexrelid) \
                     IN (ARRAY['chain_id', 'seq'], ARRAY['chain_id', 'seq', 'ts'])) \
    FROM pg_catalog.pg_class AS tab WHERE tab.oid = pg_catalog.to_regclass($1)";

/// Returns a name in quotes, in which PostgreSQL accepts any characters.
fn quoted(name: &str) -> Result<String, SinkError> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(bad_name(name));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

fn bad_name(name: &str) -> SinkError {
    SinkError::Setup {
        reason: format!("{name:?} cannot be a name in PostgreSQL: those have 1 to {MAX_NAME} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let names = Names::new(Some("my \"schema\""), "x_audit_gaps'; DROP").unwrap();
        assert_eq!(names.records, "\"my \"\"schema\"\"\".\"x_audit_gaps'; DROP_records\"");
        let statements = names.schema_statements();
        assert_eq!(statements.matches(&names.records).count(), 6, "{statements}");
        assert_eq!(statements.matches(&names.gaps).count(), 1, "{statements}");
        for bad in ["", "a\0b", &"a".repeat(60)] {
            Names::new(None, bad).unwrap_err();
        }
    }

    #[test]
    fn the_schema_contains_the_version() {
        assert!(SCHEMA.contains(&format!("IS '{VERSION_MARK}{VERSION}'")));
    }
}
