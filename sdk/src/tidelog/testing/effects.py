"""Counted effects: a tool in a test says what it did, and the test asserts that it did it once."""

import json
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidelog.tools import ToolContext
from tidelog.values import to_json


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """The call of a tool that the present code belongs to."""

    tool: str
    key: str
    attempt: int
    idempotency_key: str


CURRENT: ContextVar[CurrentCall | None] = ContextVar("tidelog_testing_current_call", default=None)


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a tool did. `attempt`, `tool` and `call` (the key of the call) are None where nobody said them."""

    key: str
    details: dict[str, Any] = field(default_factory=dict)
    attempt: int | None = None
    tool: str | None = None
    call: str | None = None

    def __str__(self) -> str:
        where = "" if self.tool is None else f" of {self.tool}"
        call = "" if self.call is None else f" ({self.call})"
        return f"outside a call{call}" if self.attempt is None else f"in attempt {self.attempt}{where}{call}"


class Effects:
    """What happened in the world of a test.

        effects = Effects()

        @tool("payment.charge", idempotent=True)
        def charge(ctx: ToolContext, order: int) -> str:
            if ctx.idempotency_key not in effects:       # as the service does it
                effects.happened(ctx, order=order)
            return "charged"

    `file`: the effects stand in a file, so that tools in other processes and the test have the same ones.
    """

    def __init__(self, file: Path | str | None = None) -> None:
        self._file = None if file is None else Path(file)
        self._known: list[tuple[Effect, bool]] = []

    def happened(self, key: str | ToolContext, /, context: ToolContext | None = None, **details: Any) -> None:
        """Say that an effect happened. `key`: its name, or the context of the tool: then its idempotency key is the name."""
        if isinstance(key, ToolContext):
            context, key = key, key.idempotency_key
        current = CURRENT.get()
        attempt = context.attempt if context is not None else None if current is None else current.attempt
        known = (None, None) if current is None else (current.tool, current.key)
        self._add(Effect(key, details, attempt, *known), False)

    def taken_back(self, key: str) -> None:
        """Say that a compensation has taken an effect back."""
        self._add(Effect(key), True)

    @property
    def all(self) -> tuple[Effect, ...]:
        """In the order in which they happened."""
        return tuple(effect for effect, back in self._read() if not back)

    @property
    def standing(self) -> tuple[str, ...]:
        """The keys of the effects that were not taken back, one for each time that they happened."""
        found: list[str] = []
        for effect, back in self._read():
            if not back:
                found.append(effect.key)
            elif effect.key in found:
                found.remove(effect.key)
        return tuple(found)

    def __contains__(self, key: object) -> bool:
        return any(effect.key == key for effect in self.all)

    def __iter__(self) -> Iterator[Effect]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def count(self, key: str) -> int:
        return sum(effect.key == key for effect in self.all)

    def counts(self) -> dict[str, int]:
        """How often each effect happened, by key."""
        found: dict[str, int] = {}
        for effect in self.all:
            found[effect.key] = found.get(effect.key, 0) + 1
        return found

    def clear(self) -> None:
        self._known.clear()
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def assert_once(self, *keys: str) -> None:
        """Each of these effects happened once, and nothing else did. Without keys: something happened, and nothing twice."""
        found = self.counts()
        faults = [self.twice(key) for key, count in found.items() if count > 1]
        faults += [f"the effect {key!r} did not happen" for key in keys if key not in found]
        if keys:
            faults += [f"the effect {key!r} happened, which nobody expected" for key in found if key not in keys]
        elif not found:
            faults.append("no effect happened; does the tool say effects.happened(...)?")
        if faults:
            raise AssertionError("\n".join(faults))

    def assert_none(self) -> None:
        if found := self.counts():
            raise AssertionError(f"nothing should have happened, but this did: {', '.join(map(repr, found))}")

    def assert_none_stand(self) -> None:
        """Whatever happened was taken back."""
        if found := self.standing:
            raise AssertionError(f"these effects were not taken back: {', '.join(map(repr, found))}")

    def twice(self, key: str) -> str:
        """Says of an effect that happened more than once, where it did, and what helps."""
        found = [effect for effect in self.all if effect.key == key]
        told = f"the effect {key!r} happened {len(found)} times: {', then '.join(map(str, found))}"
        calls = {effect.call for effect in found}
        if len(calls) > 1:
            return f"{told}. Two calls did it: give the call a key that is the same in each execution, ctx.tool(..., key=...)"
        if any(effect.attempt is not None for effect in found):
            return (
                f"{told}. A tool with idempotent=True is called again with the same ctx.idempotency_key: do nothing for a key that "
                "is known, or pass it to a service that does so; else declare the tool without it, with a reconcile function"
            )
        return f"{told}. A step may run again after a crash: let a tool do what must happen once"

    def _add(self, effect: Effect, back: bool) -> None:
        if self._file is None:
            self._known.append((effect, back))
            return
        line = to_json([back, effect.key, effect.details, effect.attempt, effect.tool, effect.call], "the effect")
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self) -> list[tuple[Effect, bool]]:
        if self._file is None:
            return list(self._known)
        if not self._file.exists():
            return []
        lines = [json.loads(line) for line in self._file.read_text("utf-8").splitlines()]
        return [(Effect(*rest), back) for back, *rest in lines]
