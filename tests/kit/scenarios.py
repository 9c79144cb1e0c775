"""Faults of tools that are played in the SDK's testing kit and in workers of a real server: both must do the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidelog import PermanentError, Reconciled, ServiceRateLimitedError, TransientError
from tidelog.errors import ProcessCrashedError
from tidelog.testing import ScriptedTool

BUSY = TransientError("busy")


def _like(**options: Any) -> Callable[[str, Path | None], ScriptedTool]:
    return lambda name, file: ScriptedTool(name, timeout_s=0.5, file=file, **options)


_ONCE, _TWICE = _like(), _like(idempotent=True)
_Scene = Callable[[str, Path | None], ScriptedTool]

IN_ONE_WORKER: dict[str, _Scene] = {
    "works": lambda name, file: _ONCE(name, file).returns({"cents": 7}),
    "is-busy-and-not-repeated": lambda name, file: _ONCE(name, file).fails(BUSY).then_returns(1),
    "is-busy-and-repeated": lambda name, file: _TWICE(name, file).fails(BUSY).then_returns(1),
    "is-always-busy": lambda name, file: _like(idempotent=True, max_attempts=2)(name, file).fails(BUSY),
    "refuses": lambda name, file: _TWICE(name, file).fails(PermanentError("no")),
    "has-a-rate": lambda name, file: _TWICE(name, file).fails(ServiceRateLimitedError("slow", 0.1)).then_returns(1),
    "has-a-rate-and-is-not-repeated": lambda name, file: _ONCE(name, file).fails(ServiceRateLimitedError("slow", 0.1)),
    "is-late": lambda name, file: _ONCE(name, file).times_out(),
    "is-late-and-repeated": lambda name, file: _TWICE(name, file).times_out(after_effect=True).then_returns(1),
    "is-late-and-asked": lambda name, file: _ONCE(name, file).times_out(after_effect=True).then_returns(1).reconciles(),
    "is-late-and-had-no-effect": lambda name, file: _ONCE(name, file).times_out().then_returns(1).reconciles(),
    "has-crashed-and-is-asked": lambda name, file: (
        _ONCE(name, file).fails(ProcessCrashedError("SEGV")).then_returns(1).reconciles()
    ),
    "is-asked-twice": lambda name, file: _ONCE(name, file).times_out().reconciles(BUSY, Reconciled.succeeded("found")),
    "knows-nothing": lambda name, file: _ONCE(name, file).times_out().reconciles(Reconciled.unknown()),
    "cannot-be-asked": lambda name, file: _ONCE(name, file).times_out().reconciles(PermanentError("broken")),
    "never-had-an-effect": lambda name, file: _like(max_attempts=2)(name, file).times_out().reconciles(),
}
"""The scenes in which no worker vanishes."""

OF_A_VANISHED_WORKER: dict[str, _Scene] = {
    "vanishes-and-is-repeated": lambda name, file: _TWICE(name, file).vanishes(after_effect=True).then_returns(1),
    "vanishes-and-is-asked": lambda name, file: _ONCE(name, file).vanishes(after_effect=True).then_returns(1).reconciles(),
    "vanishes-without-effect": lambda name, file: _ONCE(name, file).vanishes().then_returns(1).reconciles(),
    "vanishes": lambda name, file: _ONCE(name, file).vanishes(after_effect=True).then_returns(1),
}

A_PERSON_SAYS = "it took effect"
