"""The work of an agent or a tool, which its requests name as their cause. So a loop of triggers through it has an end.

User code in a thread of its own takes it along with `contextvars.copy_context().run`, as any context variable.
"""

from contextvars import ContextVar

CAUSED_BY = "Tidelog-Caused-By"
CAUSE: ContextVar[str | None] = ContextVar("tidelog_cause", default=None)
"""The id of the agent run or the call whose code runs. None: code of somebody else."""


def cause_headers() -> dict[str, str]:
    cause = CAUSE.get()
    return {} if cause is None else {CAUSED_BY: cause}
