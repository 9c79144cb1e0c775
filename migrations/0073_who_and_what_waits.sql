-- How many calls of each tool wait for an approval, and how many agent runs of each agent have left their workers and only wait.
--
-- They were counted among those that are tried again, and among those that run. No release counts them so: rows of before are right.
-- A process of the release before writes neither column.

ALTER TABLE activity_total ADD COLUMN held bigint NOT NULL DEFAULT 0, ADD COLUMN suspended bigint NOT NULL DEFAULT 0;

-- Who skipped a part of a step, or said how it ended. Null: nobody did. A release before knows no such parts.
ALTER TABLE run_part ADD COLUMN person text;  -- JSON: by, on_behalf_of, reason
