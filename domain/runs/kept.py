"""The signals that a run keeps, and the agents that stand in line for one."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, assert_never
from uuid import UUID

from immutables import Map

from domain.kernel import Json
from domain.runs.steered import RunSignalled, SignalAwaited, SignalReceived, SignalWaitEnded

K = TypeVar("K")
V = TypeVar("V")
SignalEvent = RunSignalled | SignalAwaited | SignalReceived | SignalWaitEnded


@dataclass(frozen=True)
class KeptSignal:
    number: int
    """Its place among all signals and waits of the run."""
    signal_id: UUID
    name: str
    step: str | None
    payload: Json
    size: int
    """Bytes of the payload."""


@dataclass(frozen=True)
class SignalWait:
    number: int
    agent_run_id: UUID
    key: str
    step: str
    name: str
    timeout_s: float | None
    reopened: int = 0
    """The number of the retry of the run since which the agent waits."""


class KeepsSignals(Protocol):
    """What of a run signals change."""

    @property
    def signal_number(self) -> int: ...
    @property
    def signals_known(self) -> Map[UUID, str]: ...
    @property
    def signals(self) -> Map[UUID, KeptSignal]: ...
    @property
    def signal_waits(self) -> Map[str, SignalWait]: ...


def wait_id(agent_run_id: UUID, key: str) -> str:
    return f"{agent_run_id}:{key}"


def changed(run: KeepsSignals, event: SignalEvent) -> dict[str, Any]:
    """The fields of a run that an event changes."""
    match event:
        case RunSignalled():
            number = run.signal_number + 1
            known = run.signals_known.set(event.signal_id, content_of(event.name, event.step, event.payload))
            changes: dict[str, Any] = {"signal_number": number, "signals_known": known, "signal_depth": event.depth}
            if (to := event.received_by) is not None:
                return {**changes, "signal_waits": _without(run.signal_waits, wait_id(to.agent_run_id, to.key))}
            kept = KeptSignal(number, event.signal_id, event.name, event.step, event.payload, size_of(event.payload))
            return {**changes, "signals": run.signals.set(event.signal_id, kept)}
        case SignalAwaited():
            number = run.signal_number + 1
            wait = SignalWait(number, event.agent_run_id, event.key, event.step, event.name, event.timeout_s, event.reopened)
            waits = run.signal_waits.set(wait_id(event.agent_run_id, event.key), wait)
            return {"signal_number": number, "signal_waits": waits}
        case SignalReceived():
            return {"signals": _without(run.signals, event.signal_id)}
        case SignalWaitEnded():
            return {"signal_waits": _without(run.signal_waits, wait_id(event.agent_run_id, event.key))}
        case _:
            assert_never(event)


def _without(entries: Map[K, V], key: K) -> Map[K, V]:
    return entries.delete(key) if key in entries else entries


def size_of(payload: Json) -> int:
    return len(json.dumps(payload))


def content_of(name: str, step: str | None, payload: Json) -> str:
    """What a repeat of a signal must say again, as a hash."""
    text = json.dumps([name, step, payload], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
