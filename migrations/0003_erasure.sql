-- Erasing what belongs to a person, and refusing it when it comes again.

-- accepted = pending + sent + purged + dead + resolved + erased, for each destination and kind; pending is not stored.
ALTER TABLE cursors ADD COLUMN erased INTEGER NOT NULL DEFAULT 0;

-- The key of this log's hashes: the same id has another hash in another log.
CREATE TABLE erasure_key (
  id  INTEGER PRIMARY KEY CHECK (id = 1),
  key BLOB NOT NULL
) STRICT;

CREATE TABLE tombstones (
  id_hash      BLOB PRIMARY KEY,  -- HMAC-SHA-256 of a person's id
  erased_at_ms INTEGER NOT NULL   -- what happened up to then is refused
) STRICT, WITHOUT ROWID;
