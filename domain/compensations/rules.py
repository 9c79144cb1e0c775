"""Compensation of a run: its effects that can be taken back, and taking them back in reverse order, one after the other.

The stream of a run's compensation notes each effect of a tool that declares a compensation, in the append of the effect's outcome.
Effects that are still to be taken back form a stack: each one knows the one below it. So an effect costs the same, whether the run
has ten of them or ten thousand.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import assert_never
from uuid import UUID

from immutables import Map

from domain.compensations.events import (
    BeginCompensation,
    CallExpected,
    CheckEffects,
    CompensationCommand,
    CompensationEnded,
    CompensationEvent,
    CompensationResumed,
    CompensationStarted,
    EffectCompensated,
    EffectNotCompensated,
    EffectRecorded,
    EffectRuledOut,
    EffectSkipped,
    EffectStarted,
    EffectStatus,
    ExpectCall,
    OnError,
    RecordCompensation,
    RecordEffect,
    ResumeCompensation,
    RuleOutEffect,
    Status,
)
from domain.errors import EffectsTakenBack, InvalidCommand, InvalidState
from domain.failures import Failure
from domain.kernel import Decider, Event, derive_id, replace
from domain.maps import PersistentMap

MOST_SKIPPED = 1_000
"""Effects that one request skips."""
MAX_TOLD = 500
"""Characters of an error's message that the stream keeps. The call has all of it."""


# --- state --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    number: int
    invocation_id: UUID
    key: str
    tool: str
    compensated_by: str
    on_error: OnError
    unknown: bool
    below: int
    """Number of the effect that comes after it in the stack. 0: it is the last one."""
    run: bool = False
    """It is a child run."""
    status: EffectStatus = "recorded"
    round: int = 0
    compensation_id: UUID | None = None
    error: Failure | None = None
    reason: str | None = None
    """Why a person skipped it."""
    by: str | None = None


@dataclass(frozen=True)
class RunCompensation:
    status: Status = "none"
    begun: CompensationStarted | None = None
    calls: PersistentMap[UUID, int] = field(default_factory=Map)
    """Call → number of its effect. 0: it has none, or none yet."""
    open: PersistentMap[UUID, bool] = field(default_factory=Map)
    """Calls without an outcome that are waited for."""
    left: PersistentMap[UUID, bool] = field(default_factory=Map)
    """Calls without an outcome that a person has said not to wait for."""
    effects: PersistentMap[int, Effect] = field(default_factory=Map)
    top: int = 0
    """The effect that is taken back next, unless it was skipped. 0: there is none."""
    current: int = 0
    """The effect that is being taken back. 0: none."""
    failed: PersistentMap[int, bool] = field(default_factory=Map)
    """Effects that could not be taken back."""
    stopped_on: int | None = None
    compensated: int = 0
    skipped: int = 0
    parent_id: UUID | None = None
    """The run that waits for this."""

    @property
    def is_over(self) -> bool:
        return self.status in ("partial", "compensated")


def evolve(state: RunCompensation, event: CompensationEvent) -> RunCompensation:
    match event:
        case CallExpected():
            return replace(state, calls=state.calls.set(event.invocation_id, 0), open=state.open.set(event.invocation_id, True))
        case EffectRecorded():
            return _recorded(state, event)
        case EffectRuledOut():
            call = event.invocation_id
            return replace(state, calls=state.calls.set(call, 0), open=_without(state.open, call), left=_without(state.left, call))
        case CompensationStarted():
            return replace(state, begun=event, status="waiting", parent_id=event.parent_id)
        case EffectStarted():
            effect = replace(
                state.effects[event.number], status="running", round=event.round, compensation_id=event.compensation_id, error=None
            )
            return replace(_with(state, effect), status="running", current=event.number, top=effect.below)
        case EffectCompensated():
            effect = replace(state.effects[event.number], status="compensated")
            return replace(_with(state, effect), current=0, compensated=state.compensated + 1)
        case EffectNotCompensated():
            effect = replace(state.effects[event.number], status="failed", error=event.error)
            # Of a call that was made, the effect left the stack when the call began.
            top = effect.below if event.compensation_id is None else state.top
            stopped_on = event.number if event.stops else state.stopped_on
            return replace(
                _with(state, effect), current=0, top=top, stopped_on=stopped_on, failed=state.failed.set(event.number, True)
            )
        case EffectSkipped():
            return _skipped(state, event)
        case CompensationResumed():
            return _resumed(state, event)
        case CompensationEnded():
            return replace(state, status=event.status)
        case _:
            assert_never(event)


def _with(state: RunCompensation, effect: Effect) -> RunCompensation:
    return replace(state, effects=state.effects.set(effect.number, effect))


def _without(calls: PersistentMap[UUID, bool], call: UUID) -> PersistentMap[UUID, bool]:
    return calls.delete(call) if call in calls else calls


def _recorded(state: RunCompensation, event: EffectRecorded) -> RunCompensation:
    effect = Effect(
        event.number, event.invocation_id, event.key, event.tool, event.compensated_by, event.on_error, event.unknown, state.top,
        event.run,
    )  # fmt: skip
    call = event.invocation_id
    return replace(
        _with(state, effect),
        calls=state.calls.set(call, event.number), open=_without(state.open, call), left=_without(state.left, call),
        top=event.number,
    )  # fmt: skip


def _skipped(state: RunCompensation, event: EffectSkipped) -> RunCompensation:
    call = event.invocation_id
    if event.number is None:
        return replace(state, open=_without(state.open, call), left=state.left.set(call, True))
    effect = replace(state.effects[event.number], status="skipped", reason=event.reason, by=event.by)
    failed = state.failed.delete(event.number) if event.number in state.failed else state.failed
    stopped_on = None if state.stopped_on == event.number else state.stopped_on
    return replace(_with(state, effect), skipped=state.skipped + 1, failed=failed, stopped_on=stopped_on)


def _resumed(state: RunCompensation, event: CompensationResumed) -> RunCompensation:
    """Effects that are tried again come onto the stack, the newest one on top. All of them are newer than what is on it."""
    effects, failed, top = state.effects, state.failed, state.top
    for number in event.retried:
        effects = effects.set(number, replace(effects[number], status="recorded", below=top))
        failed, top = failed.delete(number), number
    stopped_on = state.stopped_on if event.because == "late_effect" else None
    parent_id = event.parent_id or state.parent_id
    return replace(state, status="waiting", effects=effects, failed=failed, top=top, stopped_on=stopped_on, parent_id=parent_id)


# --- rules --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=10_000)
def compensation_id_of(run_id: UUID) -> UUID:
    """The id of the stream of a run's compensation."""
    return derive_id(run_id, "compensation")


_ARE: dict[Status, str] = {
    "none": "stay", "waiting": "are being taken back", "running": "are being taken back", "partial": "were partly taken back",
    "compensated": "were taken back",
}  # fmt: skip


def decide(state: RunCompensation, command: CompensationCommand) -> list[Event]:
    match command:
        case ExpectCall():
            return [] if command.invocation_id in state.calls else [CallExpected(invocation_id=command.invocation_id)]
        case RecordEffect():
            return _record(state, command)
        case RuleOutEffect():
            return _rule_out(state, command)
        case CheckEffects():
            if state.begun is not None:
                raise EffectsTakenBack(f"the effects of the run {command.run_id} {_ARE[state.status]}: it cannot go on from them")
            return []
        case BeginCompensation():
            return _begin(state, command)
        case RecordCompensation():
            return _outcome(state, command)
        case ResumeCompensation():
            return _resume(state, command)
        case _:
            assert_never(command)


def _record(state: RunCompensation, command: RecordEffect) -> list[Event]:
    if state.calls.get(command.invocation_id):
        return []
    recorded = EffectRecorded(number=len(state.effects) + 1, **command.model_dump(exclude={"run_id"}))
    if state.is_over:  # the call was late
        return _and_on(command.run_id, state, [recorded, CompensationResumed(because="late_effect")])
    return _and_on(command.run_id, state, [recorded])


def _rule_out(state: RunCompensation, command: RuleOutEffect) -> list[Event]:
    call = command.invocation_id
    if state.calls.get(call) or (call in state.calls and call not in state.open and call not in state.left):
        return []
    return _and_on(command.run_id, state, [EffectRuledOut(invocation_id=call)])


def _begin(state: RunCompensation, command: BeginCompensation) -> list[Event]:
    if state.begun is not None and command.parent_id is not None:
        return _begin_again(state, command)
    if state.begun is not None:
        if command.because != "requested" or _said_before(state.begun, command):
            return []
        raise InvalidState(f"the compensation of the run has begun before: it is {state.status}")
    if command.because == "requested" and command.parent_id is None and not state.effects and not state.open:
        raise InvalidState("the run has no effect that can be taken back: no tool that it called declares a compensation")
    return _and_on(command.run_id, state, [CompensationStarted(**command.model_dump(exclude={"run_id"}))])


def _begin_again(state: RunCompensation, command: BeginCompensation) -> list[Event]:
    """The parent asks for what has begun before. It hears of the end, also where the end is long past."""
    if not state.is_over and state.parent_id == command.parent_id:
        return []
    retried = tuple(sorted(state.failed)) if state.is_over else ()
    told = {"reason": command.reason, "by": command.by, "parent_id": command.parent_id}
    return _and_on(command.run_id, state, [CompensationResumed(because="person", retried=retried, **told)])


def _said_before(begun: CompensationStarted, command: BeginCompensation) -> bool:
    return (begun.because, begun.reason, begun.by) == (command.because, command.reason, command.by)


def _outcome(state: RunCompensation, command: RecordCompensation) -> list[Event]:
    effect = state.effects.get(state.calls.get(command.invocation_id, 0))
    if effect is None or effect.status != "running" or effect.compensation_id != command.compensation_id:
        return []
    named = {"number": effect.number, "invocation_id": effect.invocation_id, "compensation_id": command.compensation_id}
    if command.error is None:
        return _and_on(command.run_id, state, [EffectCompensated(**named)])
    error = Failure(type=command.error.type, message=command.error.message[:MAX_TOLD], kind=command.error.kind)
    return _and_on(command.run_id, state, [EffectNotCompensated(**named, error=error, stops=effect.on_error == "stop")])


def _resume(state: RunCompensation, command: ResumeCompensation) -> list[Event]:
    if state.begun is None:
        raise InvalidState("the compensation of the run has not begun")
    told = {"reason": command.reason, "by": command.by, "on_behalf_of": command.on_behalf_of}
    events: list[Event] = []
    for place, call in enumerate(dict.fromkeys(command.skip)):
        number = _skippable(state, call, f"/skip/{place}")
        if number is not None:
            events.append(EffectSkipped(invocation_id=call, number=number or None, **told))
    left = state
    for event in events:
        left = evolve(left, event)  # type: ignore[arg-type]  # only this slice's events are made here
    retried = () if command.go_on else tuple(sorted(left.failed))
    if state.is_over and (retried or events or (command.go_on and state.stopped_on is not None)):
        return _and_on(command.run_id, state, [*events, CompensationResumed(because="person", retried=retried, **told)])
    if events:
        return _and_on(command.run_id, state, events)
    if command.skip:
        return []  # said before
    if state.is_over:
        raise InvalidState(f"the compensation is {state.status}, and nothing of it can be tried again")
    raise InvalidState(f"the compensation is {state.status}: nothing of it waits for a person but what is skipped")


def _skippable(state: RunCompensation, call: UUID, pointer: str) -> int | None:
    """The number of the effect of a call that is to be skipped; 0: it has no outcome. None: it was skipped before."""
    number = state.calls.get(call)
    if number is None:
        raise InvalidCommand(f"the run has no call {call} whose effect can be taken back", pointer=pointer)
    if number == 0:
        if call in state.open:
            return 0
        if call in state.left:
            return None
        raise InvalidCommand(f"the call {call} had no effect", pointer=pointer)
    effect = state.effects[number]
    if effect.status == "skipped":
        return None
    if effect.status == "running":
        raise InvalidState(f"the effect of {call} is being taken back by the call {effect.compensation_id}: that one has the word")
    if effect.status == "compensated":
        raise InvalidState(f"the effect of {call} was taken back")
    return number


def _and_on(run_id: UUID, state: RunCompensation, events: list[Event]) -> list[Event]:
    """Adds what follows: the next effect to take back, or the end."""
    for event in events:
        state = evolve(state, event)  # type: ignore[arg-type]  # only this slice's events are made here
    while state.begun is not None and not state.is_over and not state.current and not state.open:
        following = _next(run_id, state)
        state = evolve(state, following)  # type: ignore[arg-type]
        events = [*events, following]
    return events


def _next(run_id: UUID, state: RunCompensation) -> Event:
    top = state.top
    while top and state.effects[top].status != "recorded":  # skipped meanwhile
        top = state.effects[top].below
    if not top or (state.stopped_on is not None and top < state.stopped_on):
        failed, skipped = len(state.failed), state.skipped
        whole = not (top or failed or skipped or state.left)
        return CompensationEnded(
            status="compensated" if whole else "partial", effects=len(state.effects), compensated=state.compensated, failed=failed,
            skipped=skipped, stopped_on=state.stopped_on, parent_id=state.parent_id,
        )  # fmt: skip
    effect = state.effects[top]
    if effect.unknown and effect.error is None:
        return EffectNotCompensated(
            number=top, invocation_id=effect.invocation_id, compensation_id=None, error=UNKNOWN, stops=effect.on_error == "stop"
        )
    round, own = effect.round + 1, compensation_id_of(run_id)
    return EffectStarted(
        number=top,
        invocation_id=effect.invocation_id,
        compensation_id=compensation_id_of(effect.invocation_id)
        if effect.run
        else derive_id(own, f"{effect.invocation_id}:{round}"),
        run=effect.run,
        round=round,
    )


UNKNOWN = Failure(
    type="EffectUnknown", kind="ambiguous",
    message="nobody knows whether the call had its effect: skip the effect, or try again to take it back all the same",
)  # fmt: skip


DECIDER: Decider[RunCompensation] = Decider("compensations", RunCompensation, decide, evolve)
