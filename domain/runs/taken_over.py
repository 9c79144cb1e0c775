"""What a run takes over from the run that it was forked from: facts of its own stream, so that it stands by itself."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.failures import Failure
from domain.kernel import Event, Json, Name, Value, unsaid


class ForkedFrom(Value):
    """Where a run begins: with what another run was at a position."""

    run_id: UUID
    position: int = Field(ge=1)
    """The other run counts up to here."""
    step: Name | None = None
    """The step that runs again, with all that come after it. None: every step was as it was at the position."""
    anew: bool = Field(default=False, exclude_if=unsaid)
    """Whether `step` begins without what it had finished by then."""


class StepTakenOver(Event):
    """A step that had ended in the other run. It does not run again."""

    TOPIC = "run.step_taken_over"
    step: str
    status: Literal["completed", "failed", "skipped"]
    agent_run_id: UUID | None = None
    """Of the other run: its journal and its calls stay there."""
    result: Json = None
    error: Failure | None = None
    judged: dict[str, Json] = Field(default={}, exclude_if=unsaid)
    """As in `run.step_completed`."""
    exhausted: bool = Field(default=False, exclude_if=unsaid)
    without: tuple[int, ...] = Field(default=(), exclude_if=unsaid)
    reason: Literal["condition", "upstream", "not_needed", "person"] | None = Field(default=None, exclude_if=unsaid)
    """Why the step was skipped."""


class PartTakenOver(Event):
    """A part that had ended of a step that was under way in the other run. It does not run again."""

    TOPIC = "run.part_taken_over"
    step: str
    part: int
    execution_id: UUID
    """The agent run or the child run of the other run."""
    status: Literal["completed", "failed"]
    is_run: bool = False
    result: Json = None
    error: Failure | None = None
    input: Json = Field(default=None, exclude_if=unsaid)
    """Of the first question to the agent of an adaptive step, for its next ones."""
    steps: tuple[dict[str, Json], ...] = Field(default=(), exclude_if=unsaid)
    """Key and agent of the steps that the agent of an adaptive step named for this child run."""
    only: str | None = Field(default=None, exclude_if=unsaid)
    """The only one of them that nothing came after."""
