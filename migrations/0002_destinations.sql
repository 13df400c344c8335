-- Several destinations, each with records of its own; updates of groups; updates that are held for a person.

-- NULL: for every destination. Else the sum of the bits of those that it is for.
ALTER TABLE events ADD COLUMN routes INTEGER;

CREATE INDEX events_that_repeat ON events (replay_of) WHERE replay_of IS NOT NULL;

-- A destination that was never settled had no row yet.
INSERT INTO destinations (name, state, failures) SELECT DISTINCT destination, 'ok', 0 FROM cursors WHERE true
  ON CONFLICT DO NOTHING;
ALTER TABLE destinations ADD COLUMN bit INTEGER;  -- 0 to 62: its place in events.routes, never given to another
UPDATE destinations SET bit = (SELECT count(*) FROM destinations d WHERE d.name < destinations.name);
CREATE UNIQUE INDEX destinations_by_bit ON destinations (bit);

-- What was accepted is counted for each destination, since not every record is for all of them.
ALTER TABLE cursors ADD COLUMN started_after INTEGER NOT NULL DEFAULT 0;  -- what is older is none of its business
ALTER TABLE cursors ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN accepted_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN held INTEGER NOT NULL DEFAULT 0;  -- of those that are dead: outcome unknown
UPDATE cursors SET accepted = a.count, accepted_bytes = a.bytes FROM accepted a WHERE a.kind = cursors.kind;

INSERT INTO accepted (kind) VALUES (2);  -- groups
INSERT INTO cursors (destination, kind) SELECT name, 2 FROM destinations;

ALTER TABLE dead_letters ADD COLUMN held INTEGER NOT NULL DEFAULT 0;  -- 1: it may have arrived, nobody knows
CREATE INDEX dead_letters_open ON dead_letters (destination, seq) WHERE resolution IS NULL;

-- Updates that are being sent and must not be sent twice: what a crash leaves here is held.
CREATE TABLE intents (
  destination TEXT    NOT NULL,
  kind        INTEGER NOT NULL,
  first_seq   INTEGER NOT NULL,
  last_seq    INTEGER NOT NULL,
  PRIMARY KEY (destination, kind, first_seq)
) STRICT, WITHOUT ROWID;

DROP VIEW record_status;
CREATE VIEW record_status AS
SELECT e.seq, c.destination, e.kind, e.event_id, e.received_at_ms, e.replay_of,
       e.payload ->> '$.event' AS event,
       coalesce(e.payload ->> '$.properties.distinct_id', e.payload ->> '$."$distinct_id"',
                (e.payload ->> '$."$group_key"') || ':' || (e.payload ->> '$."$group_id"')) AS distinct_id,
       CASE
         WHEN d.resolution IS NOT NULL THEN d.resolution
         WHEN d.held THEN 'held'
         WHEN d.seq IS NOT NULL THEN 'dead'
         WHEN e.seq <= c.settled_through THEN 'sent'
         -- The ranges above the watermark do not overlap, so the last one that begins before it is the only one to ask.
         WHEN (SELECT r.last_seq FROM deliveries r
               WHERE r.destination = c.destination AND r.kind = e.kind AND r.first_seq > c.settled_through
                 AND r.first_seq <= e.seq
               ORDER BY r.first_seq DESC LIMIT 1) >= e.seq THEN 'sent'
         ELSE 'pending'
       END AS status,
       d.reason
FROM events e
JOIN destinations n ON e.routes IS NULL OR e.routes & (1 << n.bit)
JOIN cursors c ON c.kind = e.kind AND c.destination = n.name AND e.seq > c.started_after
LEFT JOIN dead_letters d ON d.destination = c.destination AND d.seq = e.seq;
