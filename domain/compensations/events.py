"""The facts of a run's compensation, and what its commands ask for."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.failures import Failure
from domain.kernel import Command, Event, ShortText, is_empty

Because = Literal["failed", "cancelled", "requested"]
"""Why effects are taken back: the run failed, was cancelled, or a person asked for it."""
OnError = Literal["stop", "continue"]
Status = Literal["none", "waiting", "running", "partial", "compensated"]
"""`none`: nobody asked for it. `waiting`: for calls of the run that have not ended. `partial`: it stands still, or is over, and not
every effect was taken back."""
EffectStatus = Literal["recorded", "running", "compensated", "failed", "skipped"]


class CallExpected(Event):
    """A call was asked for whose effect can be taken back. The compensation waits for its outcome."""

    TOPIC = "compensation.call_expected"
    invocation_id: UUID


class EffectRecorded(Event):
    TOPIC = "compensation.effect_recorded"
    number: int
    """1 for the first effect of the run. Effects are taken back from the highest number down."""
    invocation_id: UUID
    key: str
    tool: str
    compensated_by: str
    """The tool that takes the effect back."""
    on_error: OnError = "stop"
    unknown: bool = False
    """Nobody knows whether the call had its effect, and nobody will be asked."""
    run: bool = Field(default=False, exclude_if=is_empty)
    """The effects of a child run, which has the id that is said for the call. The child takes them back."""


class EffectRuledOut(Event):
    """An expected call had no effect."""

    TOPIC = "compensation.effect_ruled_out"
    invocation_id: UUID


class CompensationStarted(Event):
    TOPIC = "compensation.started"
    because: Because
    reason: str | None = None
    by: str | None = None
    """The actor who asked. None: the run's own policy."""
    on_behalf_of: str | None = None
    parent_id: UUID | None = Field(default=None, exclude_if=is_empty)
    """The run that waits for this, to take back what it did before it started this one."""


class EffectStarted(Event):
    """The compensating tool is called."""

    TOPIC = "compensation.effect_started"
    number: int
    invocation_id: UUID
    """The call whose effect is taken back."""
    compensation_id: UUID
    """The call that takes it back."""
    round: int = 1
    """Which one it is for this effect: a person's `retry` begins another."""
    run: bool = Field(default=False, exclude_if=is_empty)
    """The effect is a child run, and `compensation_id` the stream of its compensation."""


class EffectCompensated(Event):
    TOPIC = "compensation.effect_compensated"
    number: int
    invocation_id: UUID
    compensation_id: UUID


class EffectNotCompensated(Event):
    """The compensating call failed for good, or could not be made."""

    TOPIC = "compensation.effect_not_compensated"
    number: int
    invocation_id: UUID
    compensation_id: UUID | None
    error: Failure
    stops: bool
    """Whether the compensation stands still until a person says how it goes on."""


class EffectSkipped(Event):
    """A person said that an effect is not to be taken back, or that an open call is not to be waited for."""

    TOPIC = "compensation.effect_skipped"
    invocation_id: UUID
    number: int | None
    """None: a call without an outcome."""
    reason: str
    by: str
    on_behalf_of: str | None = None


class CompensationResumed(Event):
    TOPIC = "compensation.resumed"
    because: Literal["person", "late_effect"]
    retried: tuple[int, ...] = ()
    """Numbers of the effects whose compensation failed, and is tried again."""
    reason: str | None = None
    by: str | None = None
    on_behalf_of: str | None = None
    parent_id: UUID | None = Field(default=None, exclude_if=is_empty)
    """The run that asks for it, and waits for this."""


class CompensationEnded(Event):
    """Nothing goes on by itself any more."""

    TOPIC = "compensation.ended"
    status: Literal["compensated", "partial"]
    effects: int
    compensated: int
    failed: int
    skipped: int
    stopped_on: int | None = None
    """Number of the effect at which it stands still. None: it went through all of them."""
    parent_id: UUID | None = Field(default=None, exclude_if=is_empty)
    """The run that waits for this."""


CompensationEvent = (
    CallExpected | EffectRecorded | EffectRuledOut | CompensationStarted | EffectStarted | EffectCompensated | EffectNotCompensated
    | EffectSkipped | CompensationResumed | CompensationEnded
)  # fmt: skip


# --- commands -----------------------------------------------------------------------------------------------------------


class ExpectCall(Command):
    run_id: UUID
    invocation_id: UUID


class RecordEffect(Command):
    run_id: UUID
    invocation_id: UUID
    key: str
    tool: str
    compensated_by: str
    on_error: OnError = "stop"
    unknown: bool = False
    run: bool = False


class RuleOutEffect(Command):
    run_id: UUID
    invocation_id: UUID


class BeginCompensation(Command):
    """Of a run that has ended."""

    run_id: UUID
    because: Because
    reason: ShortText | None = None
    by: str | None = None
    on_behalf_of: str | None = None
    parent_id: UUID | None = None


class CheckEffects(Command):
    """A condition of other commands in the same append: the effects of the run stay. It decides nothing."""

    run_id: UUID


class RecordCompensation(Command):
    """The outcome of a compensating call."""

    run_id: UUID
    invocation_id: UUID
    """The call whose effect was to be taken back."""
    compensation_id: UUID
    error: Failure | None = None
    """None: the effect was taken back."""


class ResumeCompensation(Command):
    """A person's word. Failed compensations are tried again, unless they are skipped or `go_on` leaves them."""

    run_id: UUID
    skip: tuple[UUID, ...] = ()
    """Calls whose effects are not taken back, or whose outcome is not waited for."""
    go_on: bool = False
    """Failed compensations stay as they are, and the effects before them are taken back."""
    reason: ShortText
    by: str
    on_behalf_of: str | None = None


CompensationCommand = (
    ExpectCall | RecordEffect | RuleOutEffect | BeginCompensation | CheckEffects | RecordCompensation | ResumeCompensation
)
