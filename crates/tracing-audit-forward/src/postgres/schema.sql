-- A copy of audit logs, version 1. `line` is the evidence: the record exactly as in the log, byte for byte.
-- Everything else is derived from it, for queries.

CREATE TABLE audit_records (
    chain_id   text COLLATE "C" NOT NULL,         -- the id of the chain; with seq it identifies the record permanently
    seq        bigint           NOT NULL CHECK (seq > 0),
    chain      smallint         NOT NULL,         -- the number of the chain in its log
    hash       bytea            NOT NULL CHECK (octet_length(hash) = 32),
    line       bytea            NOT NULL,
    ts         timestamptz      NOT NULL,         -- in microseconds; -infinity: the record has no time
    ts_nanos   smallint         NOT NULL,         -- the remaining nanoseconds, 0 to 999
    kind       text,
    severity   text,
    level      text,
    action     text,
    actor      text,
    resource   text,
    outcome    text,
    reason     text,
    session_id text,
    request_id text,
    source     text,
    trace_id   text,
    span_id    text,
    message    text,
    target     text,
    fields     jsonb,
    stored_at  timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, seq)
);

-- A btree index entry has room for 2,704 bytes, and a value may have 60 KiB: only prefixes are indexed.
CREATE INDEX ON audit_records (ts);
CREATE INDEX ON audit_records (left(actor, 100), ts);
CREATE INDEX ON audit_records (left(action, 100), ts);

-- What retention removed from the log before it could be copied.
CREATE TABLE audit_gaps (
    chain_id  text COLLATE "C" NOT NULL,
    chain     smallint         NOT NULL,
    first_seq bigint           NOT NULL,
    last_seq  bigint           NOT NULL,
    told_at   timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (chain_id, first_seq, last_seq)
);

-- The events for people, with the whole record as text.
CREATE VIEW audit_events AS
    SELECT ts, severity, level, action, actor, resource, outcome, reason, session_id, request_id, source,
           trace_id, span_id, message, target, fields, chain, seq, chain_id, convert_from(line, 'UTF8') AS record
    FROM audit_records
    WHERE kind = 'event';

-- Read by the program. It refuses a version that it does not know.
COMMENT ON TABLE audit_records IS 'tracing-audit-forward schema 1';
