-- A run shows what became of taking its effects back.
--
-- The column names the event that says so: its beginning, or its end. It is null in the rows of before, whose effects nobody took
-- back. Processes of the release before leave it as it is.

ALTER TABLE run ADD COLUMN compensation_position bigint;
COMMENT ON COLUMN run.compensation_position IS 'Position of the newest beginning or end of the compensation; null: it has not begun';
