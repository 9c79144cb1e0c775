-- Paused runs: why a run is paused, and how many agent runs and calls of each agent and tool are paused with their runs.
--
-- Rows of before say that nothing is paused, and nothing was. A process of the release before writes neither column.

ALTER TABLE run ADD COLUMN pause_position bigint;  -- of run.paused or run.pause_lifted, which say why; null: the run is not paused

ALTER TABLE activity_total ADD COLUMN paused bigint NOT NULL DEFAULT 0;
