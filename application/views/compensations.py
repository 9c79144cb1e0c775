"""The compensation of a run as people see it."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.views.invocations import Status as CallStatus
from domain.compensations import Because, EffectStatus, Status
from domain.failures import Failure


class EffectView(BaseModel):
    """An effect of the run that can be taken back."""

    number: int
    """Effects are taken back from the highest number down."""
    invocation_id: UUID
    """The call whose effect it is."""
    key: str
    """The name of the call in its agent run."""
    tool: str
    status: EffectStatus
    unknown: bool = False
    """Nobody knows whether the call had its effect."""
    compensated_by: str
    """The tool that takes the effect back."""
    compensation_id: UUID | None = None
    """The call of that tool, the last one. Null: it was not called."""
    round: int = 0
    """How many calls there were. Each has attempts of its own."""
    error: Failure | None = None
    """Why the effect was not taken back."""
    reason: str | None = None
    """Why the effect was skipped."""
    by: str | None = None
    """Who skipped it."""


class WaitView(BaseModel):
    """A call that the compensation waits for."""

    invocation_id: UUID
    status: CallStatus | Literal["absent"]


class CompensationView(BaseModel):
    run_id: UUID
    status: Status
    because: Because | None = None
    reason: str | None = None
    by: str | None = None
    """Who asked for it. Null: the run's start, or its cancellation."""
    on_behalf_of: str | None = None
    effects: int = 0
    """All effects of the run that can be taken back."""
    compensated: int = 0
    failed: int = 0
    skipped: int = 0
    stopped_on: int | None = None
    """Number of the effect that could not be taken back, and at which it stands still."""
    waits_for: list[WaitView] = []
    """Calls whose outcome it waits for: of the run, or the one that takes an effect back. At most 20."""
    needs_person: bool = False
    """Whether it goes on only with a person's word."""
    version: int = 0
    data: list[EffectView] = []
    """Effects in the order in which they are taken back."""
    next_cursor: str | None = None
