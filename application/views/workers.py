"""Workers as people see them: one entry for each session."""

from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp


class OfferedDefinition(BaseModel):
    name: str
    version: str


class WorkerView(BaseModel):
    worker_id: str
    session_id: UUID
    since: Timestamp
    """When the session was opened."""
    seen_at: Timestamp
    """When the server saw the session last. A session that nobody sees for ten seconds is over."""
    release: str
    """The release of the worker's SDK, as the worker says."""
    agents: list[OfferedDefinition] | None
    """What the worker offers. Null: not known yet."""
    tools: list[OfferedDefinition] | None
    agent_runs: int
    """Agent runs that the worker has in hand."""
    calls: int
    """Tool calls that the worker has in hand."""


class WorkInHandView(BaseModel):
    """A piece of work that a worker has claimed."""

    kind: str
    """`agent`, `tool`, or `reconcile`: the question what became of a call."""
    name: str
    """Of the agent or the tool."""
    id: UUID
    """Of the agent run or the call."""
    run_id: UUID
    attempt: int
    dispatched_at: Timestamp
    """Since when it has waited and been worked on."""
