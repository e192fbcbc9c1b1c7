-- Version 1. Instants are milliseconds since 1970 (UTC); minutes are such instants divided by 60,000, rounded down.
-- Blobs come last in their rows, so that counting never reads an overflow page.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE stream (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    floor       INTEGER NOT NULL,
    captured    INTEGER NOT NULL DEFAULT 0,
    late        INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The windows that were read, merged: no two rows of a stream touch.
CREATE TABLE coverage (
    stream  INTEGER NOT NULL REFERENCES stream (id),
    from_ms INTEGER NOT NULL,
    to_ms   INTEGER NOT NULL CHECK (to_ms > from_ms),
    PRIMARY KEY (stream, from_ms)
) STRICT, WITHOUT ROWID;

-- What expired unread. Never deleted; no two rows of a stream overlap.
CREATE TABLE gap (
    id              INTEGER PRIMARY KEY,
    stream          INTEGER NOT NULL REFERENCES stream (id),
    from_ms         INTEGER NOT NULL,
    to_ms           INTEGER NOT NULL CHECK (to_ms > from_ms),
    reason          TEXT NOT NULL,
    recorded_at     INTEGER NOT NULL,
    acknowledged_at INTEGER,
    UNIQUE (stream, from_ms)
) STRICT;

-- One row for each window as it was closed last; a higher id was closed later.
CREATE TABLE certificate (
    id            INTEGER PRIMARY KEY,
    stream        INTEGER NOT NULL REFERENCES stream (id),
    from_ms       INTEGER NOT NULL,
    to_ms         INTEGER NOT NULL CHECK (to_ms > from_ms),
    api_count     INTEGER,
    distinct_rows INTEGER NOT NULL,
    pages         INTEGER NOT NULL,
    verified      INTEGER NOT NULL CHECK (verified IN (0, 1)),
    closed_at     INTEGER NOT NULL,
    UNIQUE (stream, from_ms, to_ms)
) STRICT;

-- The day book. `decimals`: sorted 10-byte keys (id, type tag; big-endian). `digests`: sorted 16-byte keys.
CREATE TABLE minute (
    stream     INTEGER NOT NULL,
    minute     INTEGER NOT NULL,
    count      INTEGER NOT NULL CHECK (count > 0),
    touched_at INTEGER NOT NULL,
    decimals   BLOB NOT NULL,
    digests    BLOB NOT NULL,
    PRIMARY KEY (stream, minute)
) STRICT, WITHOUT ROWID;

-- The spool. `body`: one zstd frame, every event followed by a newline, so that it reads as NDJSON by hand;
-- `lengths`: LEB128, one for each event; `late`: one bit for each event, or NULL where none is late;
-- `crc`: over everything else in the row.
CREATE TABLE segment (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    stream       INTEGER NOT NULL REFERENCES stream (id),
    observed_at  INTEGER NOT NULL,
    first_at     INTEGER NOT NULL,
    last_at      INTEGER NOT NULL,
    events       INTEGER NOT NULL CHECK (events > 0),
    raw_bytes    INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    crc          INTEGER NOT NULL,
    lengths      BLOB NOT NULL,
    late         BLOB,
    body         BLOB NOT NULL
) STRICT;

-- Lets a sink step over the segments of streams it does not follow, and counts backlogs without touching bodies.
CREATE INDEX segment_of_stream ON segment (stream, seq, events, stored_bytes);

-- The next event to hand over, for each sink.
CREATE TABLE position (
    sink     TEXT PRIMARY KEY,
    seq      INTEGER NOT NULL,
    idx      INTEGER NOT NULL,
    receipt  TEXT NOT NULL,
    moved_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What could not be an event (no sink, a digest) and what a sink will never accept (sink, seq, idx).
CREATE TABLE dead_letter (
    id     INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES stream (id),
    at     INTEGER NOT NULL,
    reason TEXT NOT NULL,
    digest BLOB,
    sink   TEXT,
    seq    INTEGER,
    idx    INTEGER,
    raw    BLOB NOT NULL,
    CHECK ((digest IS NULL) <> (sink IS NULL)),
    UNIQUE (stream, digest),
    UNIQUE (sink, seq, idx)
) STRICT;

-- Ranges that people asked for. A second process may write this table, and two columns of `gap`.
CREATE TABLE intent (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    stream      TEXT NOT NULL,
    from_ms     INTEGER NOT NULL,
    to_ms       INTEGER NOT NULL CHECK (to_ms > from_ms),
    asked_at    INTEGER NOT NULL,
    new_events  INTEGER NOT NULL DEFAULT 0,
    duplicates  INTEGER NOT NULL DEFAULT 0,
    rejects     INTEGER NOT NULL DEFAULT 0,
    pages       INTEGER NOT NULL DEFAULT 0,
    done        TEXT NOT NULL DEFAULT '',
    outcome     TEXT CHECK (outcome IN ('complete', 'incomplete', 'failed')),
    note        TEXT,
    finished_at INTEGER,
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX intent_open ON intent (stream, from_ms, to_ms) WHERE outcome IS NULL;
