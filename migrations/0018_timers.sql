-- Timers whatever the database's clock does. `recorded_at` of the log never goes back, so after the clock was set back new events lie in
-- the future, and a timer counted from them would wait until the clock has caught up. See adapters/postgres/read_models/timers.py.

ALTER TABLE timer ADD COLUMN set_at timestamptz, ADD COLUMN no_later_than timestamptz;
COMMENT ON COLUMN timer.set_at IS 'When the event that set the timer was recorded; null: written by a release before';
COMMENT ON COLUMN timer.no_later_than IS 'Written by the process that fires timers, when set_at lies in the future: fire then at the latest';

UPDATE timer SET set_at = event.recorded_at FROM event
WHERE event.originator_id = timer.stream_id AND timer.cause = event.originator_id || ':' || event.originator_version;

-- Beside timer_due, which processes of the release before use.
CREATE INDEX timer_fires ON timer (LEAST(due_at, no_later_than));
CREATE INDEX timer_set ON timer (set_at);
