-- Since when a destination has not answered well, and since when a person holds delivery to it back.

ALTER TABLE destinations ADD COLUMN failing_since_ms INTEGER;  -- NULL while it answers, or from before this was noted
ALTER TABLE destinations ADD COLUMN paused_at_ms INTEGER;  -- NULL: not paused; the state 'paused' is something else
