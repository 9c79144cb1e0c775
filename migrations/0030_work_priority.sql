-- The class of work that waits: the reconciler puts it back into its class of the queue.

-- A process of the release before does not name the column. What it writes counts as normal.
ALTER TABLE open_work ADD COLUMN priority text NOT NULL DEFAULT 'normal';
