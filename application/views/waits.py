"""What an open run waits for, as people see it."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp

WaitsFor = Literal[
    "resume", "worker", "version", "free_worker", "retry", "clock", "run", "agent", "tool", "breaker", "person", "approval",
    "reconcile", "chain", "signal", "message", "key", "unknown",
]  # fmt: skip
"""`resume`: the run is paused. `worker`: no worker has the agent or tool. `version`: none has the version that was asked for.
`free_worker`: those that have it are busy, or the limit of the tool is reached. `retry`: the delay after a failure. `clock`: a
time. `run`: a child run. `agent`: a worker works on it. `tool`: a worker calls it. `breaker`: the breaker of the tool is open.
`person`: nobody knows whether a call took effect. `approval`: people decide whether it may begin. `reconcile`: whether it took
effect is found out. `chain`: a chain of tools. `signal`: somebody's signal. `message`: another agent's message. `key`: the key of
the run, which another run holds. `unknown`: nothing that is known, which is a defect."""


class RunWaitView(BaseModel):
    step: str | None = None
    """The key of the step, or of a part of it. Null: the run itself waits."""
    kind: Literal["run", "agent", "tool", "clock"]
    """What waits."""
    name: str | None = None
    """Of the agent or the tool."""
    id: UUID | None = None
    """Of the agent run, the call or the child run."""
    key: str | None = None
    """Of the call."""
    approval_id: UUID | None = None
    """What people decide about."""
    waits_for: WaitsFor
    detail: str
    """The same in words."""
    until: Timestamp | None = None
    """When the wait ends by itself. Null: nobody knows."""


class RunWaits(BaseModel):
    run_id: UUID
    status: str
    data: list[RunWaitView]
    more: int = 0
    """Executions under way that are not listed: the first ones are."""
