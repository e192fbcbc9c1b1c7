-- Version 2: what is known about rows that were read again.

-- By how much the API's count of a minute differs from the day book's: rows that were erased there are below zero, rows
-- that were no events (they have no time, and are counted with the first minute of the window they came in) above. A
-- table of its own, because counting must not read the blobs of `minute`.
CREATE TABLE correction (
    stream INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    by     INTEGER NOT NULL CHECK (by <> 0),
    PRIMARY KEY (stream, minute)
) STRICT, WITHOUT ROWID;

-- When the whole of an hour was fully read last; an hour is its first instant divided by 3,600,000.
CREATE TABLE reread (
    stream  INTEGER NOT NULL,
    hour    INTEGER NOT NULL,
    read_at INTEGER NOT NULL,
    PRIMARY KEY (stream, hour)
) STRICT, WITHOUT ROWID;

-- The filter under which a window was read: the stream's fingerprint at that time.
ALTER TABLE certificate ADD COLUMN filter TEXT NOT NULL DEFAULT '';

-- How many events the API's Metrics endpoint counts in a gap, by type, as a JSON object; NULL where it was not asked.
ALTER TABLE gap ADD COLUMN lost TEXT;

-- The bodies behind the keys: a 4-byte sum (big-endian) for each of `decimals`, then each of `digests`; 0 where nothing is
-- known of a body. Empty where the minute was written by version 1.
ALTER TABLE minute ADD COLUMN bodies BLOB NOT NULL DEFAULT x'';

-- One bit for each event: whether it is a revision of one that was captured before. NULL where none is. Covered by
-- `crc` where it is not NULL.
ALTER TABLE segment ADD COLUMN revised BLOB;

-- Revisions captured, beside the events that `captured` counts.
ALTER TABLE stream ADD COLUMN revisions INTEGER NOT NULL DEFAULT 0;

-- Finds out that everything is verified without reading every certificate.
CREATE INDEX certificate_unverified ON certificate (stream, id) WHERE NOT verified;
