-- Agents are looked for by what they announce, at each start of a run with a capability in its plan.
CREATE INDEX agent_capability ON agent USING gin (capabilities);
