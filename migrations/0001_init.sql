-- The log is append-only. What was delivered is kept as ranges of offsets for each lane (a destination and a kind),
-- never as a status of a row: see the module walbatch.wal.sqlite.

CREATE TABLE events (
  -- AUTOINCREMENT is vital: without it an emptied table would use offsets again that are below the cursors, and
  -- new records would never be sent.
  seq            INTEGER PRIMARY KEY AUTOINCREMENT,
  kind           INTEGER NOT NULL,  -- 0 event, 1 profile
  event_id       TEXT    NOT NULL,  -- as the application gave it
  payload        TEXT    NOT NULL,  -- JSON, serialised once, without any credential
  received_at_ms INTEGER NOT NULL,
  replay_of      INTEGER            -- seq of the record that this one repeats
) STRICT;

CREATE INDEX events_of_rare_kinds ON events (kind, seq) WHERE kind <> 0;

-- Totals of what was ever appended, so that no count has to read the log.
CREATE TABLE accepted (
  kind  INTEGER PRIMARY KEY,
  count INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO accepted (kind) VALUES (0), (1);

-- accepted = pending + sent + purged + dead + resolved, for each destination and kind; pending is not stored.
CREATE TABLE cursors (
  destination     TEXT    NOT NULL,
  kind            INTEGER NOT NULL,
  settled_through INTEGER NOT NULL DEFAULT 0,  -- every record of this kind up to here is settled
  sent            INTEGER NOT NULL DEFAULT 0,  -- delivered, still stored
  purged          INTEGER NOT NULL DEFAULT 0,  -- deleted by retention
  dead            INTEGER NOT NULL DEFAULT 0,  -- refused, waiting for a person
  resolved        INTEGER NOT NULL DEFAULT 0,  -- refused, then replayed or discarded
  settled_bytes   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (destination, kind)
) STRICT, WITHOUT ROWID;

-- One row for each run of consecutive records that was settled together. Rows above a cursor's settled_through
-- are read at start, so that nothing in them is sent again.
CREATE TABLE deliveries (
  id             INTEGER PRIMARY KEY,
  destination    TEXT    NOT NULL,
  kind           INTEGER NOT NULL,
  first_seq      INTEGER NOT NULL,
  last_seq       INTEGER NOT NULL,
  sent           INTEGER NOT NULL,
  dead           INTEGER NOT NULL,
  bytes          INTEGER NOT NULL,
  note           TEXT    NOT NULL,  -- the destination's answer, in a word or a line
  started_at_ms  INTEGER NOT NULL,
  finished_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX deliveries_by_range ON deliveries (destination, kind, first_seq, last_seq);

CREATE TABLE dead_letters (
  destination    TEXT    NOT NULL,
  seq            INTEGER NOT NULL,
  kind           INTEGER NOT NULL,
  code           INTEGER NOT NULL,  -- HTTP status
  field          TEXT    NOT NULL,
  reason         TEXT    NOT NULL,  -- the destination's own words
  at_ms          INTEGER NOT NULL,
  resolved_at_ms INTEGER,
  resolution     TEXT CHECK (resolution IN ('replayed', 'discarded')),
  PRIMARY KEY (destination, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX dead_letters_by_seq ON dead_letters (seq);

-- Backoff survives a restart.
CREATE TABLE destinations (
  name        TEXT PRIMARY KEY,
  state       TEXT    NOT NULL CHECK (state IN ('ok', 'retrying', 'open', 'paused')),
  failures    INTEGER NOT NULL,
  retry_at_ms INTEGER,
  last_error  TEXT
) STRICT, WITHOUT ROWID;

-- For people with a SQLite shell: what became of every record.
CREATE VIEW record_status AS
SELECT e.seq, c.destination, e.kind, e.event_id, e.received_at_ms, e.replay_of,
       e.payload ->> '$.event' AS event,
       coalesce(e.payload ->> '$.properties.distinct_id', e.payload ->> '$."$distinct_id"') AS distinct_id,
       CASE
         WHEN d.resolution IS NOT NULL THEN d.resolution
         WHEN d.seq IS NOT NULL THEN 'dead'
         WHEN e.seq <= c.settled_through THEN 'sent'
         WHEN EXISTS (SELECT 1 FROM deliveries r
                      WHERE r.destination = c.destination AND r.kind = e.kind AND e.seq BETWEEN r.first_seq AND r.last_seq
                        AND r.first_seq > c.settled_through) THEN 'sent'
         ELSE 'pending'
       END AS status,
       d.reason
FROM events e
JOIN cursors c ON c.kind = e.kind
LEFT JOIN dead_letters d ON d.destination = c.destination AND d.seq = e.seq;
