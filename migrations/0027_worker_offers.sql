-- Which agents and tools the session of each worker offers.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT INSERT, UPDATE, DELETE ON worker_offer TO tidelog_app;

-- Beside `worker_session`, whose rows are written anew every 3 seconds. A session of a process of the release before has no row here.
CREATE TABLE worker_offer (
    session_id     uuid PRIMARY KEY REFERENCES worker_session ON DELETE CASCADE,
    agents         text[] NOT NULL,
    agent_versions text[] NOT NULL,        -- the version of each agent, in the same order
    tools          text[] NOT NULL,
    tool_versions  text[] NOT NULL
);
COMMENT ON TABLE worker_offer IS 'The agents and tools that the session of a worker offers';
