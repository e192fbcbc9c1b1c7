-- Version 3: what a sink was handed last, and what operators ask of sinks. A second process may write `pause`, `rewind`,
-- `replay` and the column `retry_at`; the writer obeys.

-- The batch that a sink was handed last and has not acknowledged: a retry after a crash is the same batch.
CREATE TABLE in_flight (
    sink TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL,
    idx  INTEGER NOT NULL,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Sinks that get nothing until an operator resumes them.
CREATE TABLE pause (
    sink  TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where an operator wants a sink to go on. The row is gone once the sink is there.
CREATE TABLE rewind (
    sink     TEXT PRIMARY KEY,
    seq      INTEGER NOT NULL,
    idx      INTEGER NOT NULL,
    asked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Captured events that a sink is to be handed once more: those between two instants, of these types ('' for all, else
-- separated by spaces), in segments before `until_seq`. `seq` and `idx`: the next to look at; `events`: handed over so far.
CREATE TABLE replay (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    sink        TEXT NOT NULL,
    from_ms     INTEGER NOT NULL,
    to_ms       INTEGER NOT NULL CHECK (to_ms > from_ms),
    types       TEXT NOT NULL,
    until_seq   INTEGER NOT NULL,
    asked_at    INTEGER NOT NULL,
    seq         INTEGER NOT NULL DEFAULT 0,
    idx         INTEGER NOT NULL DEFAULT 0,
    events      INTEGER NOT NULL DEFAULT 0,
    finished_at INTEGER
) STRICT;

CREATE INDEX replay_open ON replay (sink, id) WHERE finished_at IS NULL;

-- When an operator asked that a dead letter be handed over again; NULL where nobody did.
ALTER TABLE dead_letter ADD COLUMN retry_at INTEGER;

CREATE INDEX dead_letter_retry ON dead_letter (sink, id) WHERE retry_at IS NOT NULL;
