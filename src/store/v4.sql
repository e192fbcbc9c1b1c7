-- Version 4: people who were erased. A second process may write `erasure`; the writer does what it says.

-- Who is to be known again and erased: a digest of the address under the key that `meta` holds, and up to which instant.
-- The index is a twin, as those of version 2 are.
CREATE TABLE erased (
    digest   TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX erased_twin ON erased (digest, until_ms);

-- What was asked for. `address` is there until all is done: in hexadecimal digits, so that a search of the files finds
-- what was left behind, and not the order to erase it. `until_seq`: the end of the spool when it was begun; `seq` and
-- `letter`: the next segment and the last dead letter that were looked at; `swept_at`: when no more of them were left.
CREATE TABLE erasure (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    address      TEXT,
    asked_at     INTEGER NOT NULL,
    until_seq    INTEGER,
    seq          INTEGER NOT NULL DEFAULT 0,
    letter       INTEGER NOT NULL DEFAULT 0,
    dead_letters INTEGER NOT NULL DEFAULT 0,
    unreadable   INTEGER NOT NULL DEFAULT 0,
    swept_at     INTEGER,
    remains      INTEGER NOT NULL DEFAULT 0,
    finished_at  INTEGER,
    CHECK ((address IS NULL) = (finished_at IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX erasure_open ON erasure (address) WHERE address IS NOT NULL;

-- How many events of which stream were erased.
CREATE TABLE erasure_stream (
    erasure INTEGER NOT NULL,
    stream  INTEGER NOT NULL,
    events  INTEGER NOT NULL,
    PRIMARY KEY (erasure, stream)
) STRICT, WITHOUT ROWID;

-- The sinks that have obeyed. `taken`: the rows they took out, NULL where they are told by tombstones alone.
CREATE TABLE erasure_sink (
    erasure INTEGER NOT NULL,
    sink    TEXT NOT NULL,
    taken   INTEGER,
    remains INTEGER NOT NULL,
    PRIMARY KEY (erasure, sink)
) STRICT, WITHOUT ROWID;
