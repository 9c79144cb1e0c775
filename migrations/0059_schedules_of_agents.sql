-- Schedules that agents make: they are counted, so that an agent in a loop cannot make them without end.

ALTER TABLE schedule ADD COLUMN made_in uuid;   -- the run whose agent has made it; null: a client of the API did
CREATE INDEX schedule_made_in ON schedule (tenant_id, made_in) WHERE made_in IS NOT NULL;
CREATE INDEX schedule_made_in_project ON schedule (tenant_id, project_id) WHERE made_in IS NOT NULL AND status <> 'finished';
