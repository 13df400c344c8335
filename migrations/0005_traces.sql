-- The W3C traceparent of the call that brought a record, if calls are traced: else a trace would end at this log.

ALTER TABLE events ADD COLUMN trace TEXT;
