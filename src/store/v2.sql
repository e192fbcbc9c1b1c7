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

-- Twins: an index that holds whole rows is a second copy of them, on pages of its own. The check at every start compares
-- index and table, so that a damaged byte in either is found, and the undamaged copy is still there to be read.
CREATE INDEX stream_twin ON stream (id, name, fingerprint, floor);
CREATE INDEX coverage_twin ON coverage (stream, from_ms, to_ms);
CREATE INDEX gap_twin ON gap (stream, from_ms, to_ms, reason, recorded_at, acknowledged_at);
CREATE INDEX certificate_twin ON certificate (stream, from_ms, to_ms, verified);
CREATE INDEX meta_twin ON meta (key, value);
CREATE INDEX correction_twin ON correction (stream, minute, by);
CREATE INDEX reread_twin ON reread (stream, hour, read_at);

-- As before, and now also what a segment's events are about, should the segment itself be lost.
DROP INDEX segment_of_stream;
CREATE INDEX segment_of_stream ON segment (stream, seq, events, stored_bytes, first_at, last_at);

-- Seals: a checksum over the rest of the row, for what is too large for a twin, and where it must be known which of two
-- copies is right. 0 where the row is older than this.
ALTER TABLE minute ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE position ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
CREATE INDEX position_twin ON position (sink, seq, idx, receipt, moved_at, seal);
