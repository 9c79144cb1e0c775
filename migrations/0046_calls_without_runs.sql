-- Tool calls say who asked for them, and which call's result answered them.
--
-- All calls of before were asked for by agents. A process of the release before writes rows without the new columns, which then have
-- their defaults; calls of others are refused while such a process runs. The indexes leave out the calls of agents, and
-- calls whose results are not kept, so those pay nothing.

ALTER TABLE invocation
    ADD COLUMN asked_by text NOT NULL DEFAULT 'agent_run',
    ADD COLUMN cached_from uuid,
    ADD COLUMN cache_key uuid;
COMMENT ON COLUMN invocation.asked_by IS 'agent_run, client (without a run), chain or compensation';
COMMENT ON COLUMN invocation.cached_from IS 'The call whose result answered this one; null: the tool is called';
COMMENT ON COLUMN invocation.cache_key IS 'Under which the result is found for later calls of the same; null: it answers no later call';

CREATE INDEX invocation_asker ON invocation (tenant_id, asked_by, invocation_id) WHERE asked_by <> 'agent_run';
CREATE INDEX invocation_asker_status ON invocation (tenant_id, asked_by, status, invocation_id) WHERE asked_by <> 'agent_run';
CREATE INDEX invocation_cache ON invocation (tenant_id, cache_key, since) WHERE cache_key IS NOT NULL AND status = 'succeeded';
