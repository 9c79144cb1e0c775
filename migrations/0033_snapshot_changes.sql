-- Snapshots of what changed since an earlier snapshot of the same stream. A long stream is loaded from a whole state and the changes
-- after it. Rows of before, and of processes of the release before, are whole states. Such a process also deletes all rows of a stream
-- but the newest two: then a chain of changes has no begin, and the events are read instead.
ALTER TABLE snapshot ADD COLUMN since bigint NOT NULL DEFAULT 0;  -- version of the row that this one changes; 0: a whole state
