"""The lines of agents and tools as people see them."""

from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp
from application.engine.ports.work_logs import Level


class WorkLineView(BaseModel):
    """A line of an agent or a tool; or, as the last one of a run, the server's own line that says how many are missing."""

    line: int | None
    """The number of the line within the run, in the order of recording. Null: the server's own line."""
    at: Timestamp
    """By the clock of the worker."""
    level: Level
    step: str | None
    agent: str | None
    tool: str | None
    """The tool whose line it is. Null: the line is the agent's own."""
    invocation_id: UUID | None
    """The call of the tool."""
    attempt: int | None
    """The attempt of the step; of a tool's line, of the call."""
    text: str
    dropped: int | None
    """On the server's own line: the number of lines that are missing."""
