"""Keys of runs: which run holds a key, and which ones wait for it. One stream for each key of a project.

A run holds a key for a turn: from its start, or from the retry that opened it, to its end. News of a turn may come late, in any
order, and more than once: what is said of a turn that is over changes nothing.
"""

from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from pydantic import Field

from domain.concurrency import KeyText, OnBusy
from domain.errors import RunKeyBusy, RunKeyQueueFull
from domain.kernel import Command, Decider, Event, Value, replace, unsaid

MOST_WAITING = 1_000
"""Runs that wait for one key."""


class Turn(Value):
    run_id: UUID
    number: int = 0
    """Of the retry that opened the run. 0: its start."""


class RunKeyTaken(Event):
    """A run holds the key."""

    TOPIC = "run_key.taken"
    key: str
    turn: Turn
    waited: bool = Field(default=False, exclude_if=unsaid)
    """Whether the run stood in line for it."""


class RunKeyQueued(Event):
    """A run stands in line for the key."""

    TOPIC = "run_key.queued"
    key: str
    turn: Turn
    holder: Turn
    replaced: tuple[Turn, ...] = Field(default=(), exclude_if=unsaid)
    """Runs that must end for it: the one that holds the key, and those that stood in line."""


class RunKeyLeft(Event):
    """A run stands in line no more: it has ended before its turn."""

    TOPIC = "run_key.left"
    key: str
    turn: Turn


class RunKeyReleased(Event):
    """The run that held the key has ended. `run_key.taken` of the next one in line follows, if there is one."""

    TOPIC = "run_key.released"
    key: str
    turn: Turn


RunKeyEvent = RunKeyTaken | RunKeyQueued | RunKeyLeft | RunKeyReleased


class TakeKey(Command):
    """A run begins, or begins once more. It goes into the append that says so."""

    key_id: UUID
    key: KeyText
    run_id: UUID
    turn: int = 0
    on_busy: OnBusy


class ReleaseKey(Command):
    """A turn of a run is over."""

    key_id: UUID
    run_id: UUID
    turn: int = 0


RunKeyCommand = TakeKey | ReleaseKey


@dataclass(frozen=True)
class RunKey:
    key: str = ""
    holder: Turn | None = None
    """None: the key is free, and nobody waits for it."""
    waiting: tuple[Turn, ...] = ()
    """In order of arrival."""


def decide(state: RunKey, command: RunKeyCommand) -> list[Event]:
    match command:
        case TakeKey():
            return _take(state, command)
        case ReleaseKey():
            return _release(state, command)
        case _:
            assert_never(command)


def _take(state: RunKey, command: TakeKey) -> list[Event]:
    turn, holder, waiting = Turn(run_id=command.run_id, number=command.turn), state.holder, state.waiting
    taken: list[Event] = [RunKeyTaken(key=command.key, turn=turn)]
    if holder is None:
        return taken
    if any(one.run_id == turn.run_id and turn.number <= one.number for one in (holder, *waiting)):
        return []  # it has it, or waits for it
    if holder.run_id == turn.run_id and not waiting:  # the end of its turn before has not been heard of
        return taken
    match command.on_busy:
        case "reject":
            first = holder if holder.run_id != turn.run_id else waiting[0]
            raise RunKeyBusy(f"run {first.run_id} holds the key '{command.key}'", run_id=first.run_id)
        case "queue":
            if len(waiting) >= MOST_WAITING:
                raise RunKeyQueueFull(
                    f"{len(waiting):,} runs wait for the key '{command.key}', and no more may: try again when some have begun"
                )
            return [RunKeyQueued(key=command.key, turn=turn, holder=holder)]
        case "replace":
            return [RunKeyQueued(key=command.key, turn=turn, holder=holder, replaced=(holder, *waiting))]
        case _:
            assert_never(command.on_busy)


def _release(state: RunKey, command: ReleaseKey) -> list[Event]:
    turn = Turn(run_id=command.run_id, number=command.turn)
    if turn != state.holder:
        return [RunKeyLeft(key=state.key, turn=turn)] if turn in state.waiting else []
    events: list[Event] = [RunKeyReleased(key=state.key, turn=turn)]
    if state.waiting:
        events.append(RunKeyTaken(key=state.key, turn=state.waiting[0], waited=True))
    return events


def evolve(state: RunKey, event: RunKeyEvent) -> RunKey:
    match event:
        case RunKeyTaken():
            return replace(state, key=event.key, holder=event.turn, waiting=_without(state.waiting, event.turn))
        case RunKeyQueued():
            waiting = tuple(one for one in state.waiting if one not in event.replaced)
            return replace(state, waiting=(*waiting, event.turn))
        case RunKeyLeft():
            return replace(state, waiting=_without(state.waiting, event.turn))
        case RunKeyReleased():
            return replace(state, holder=None)
        case _:
            assert_never(event)


def _without(waiting: tuple[Turn, ...], turn: Turn) -> tuple[Turn, ...]:
    return tuple(one for one in waiting if one != turn)


DECIDER: Decider[RunKey] = Decider("run_keys", RunKey, decide, evolve)
