"""What a worker offers to a server: its agents and tools, the files it cannot use, and how much it does at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tidelog.agent import AgentDefinition
from tidelog.discovery import Problem
from tidelog.texts import text_of
from tidelog.tools import ToolDefinition
from tidelog.values import encode

MAX_PROBLEMS = 100
"""Problems of one report that the server accepts."""
MAX_DEFINITIONS = 500
"""Agents that the server accepts of one worker, and tools."""
MAX_DEFINITIONS_BYTES, MAX_PROBLEMS_BYTES = 768 * 1024, 192 * 1024
"""Of all definitions together, and of all problems, as JSON: the message that says them may have 1 MiB."""

Kind = Literal["agent", "tool"]


@dataclass(frozen=True, slots=True)
class Slots:
    """Numbers of agents and of tool calls."""

    agent: int
    tool: int

    def less(self, taken: "Slots") -> "Slots":
        return Slots(max(0, self.agent - taken.agent), max(0, self.tool - taken.tool))


class SlotsTold:
    """What the server has been told of the free slots on one socket, without those of the work that came since."""

    def __init__(self) -> None:
        self.counted: Slots | None = None
        """The last that was told, also where it still waits to be sent. None: nothing was told."""
        self._known = Slots(0, 0)
        """The last that was sent for sure."""

    def tell(self, slots: Slots, *, at_once: bool) -> None:
        self.counted = slots
        if at_once:
            self._known = slots

    def sent(self) -> None:
        """Nothing waits to be sent any more."""
        self._known = self.counted or self._known

    def work_came(self, kind: str) -> None:
        """The server has sent work, and counts one free slot less."""
        taken = Slots(kind == "agent", kind in ("tool", "reconcile"))
        self._known = self._known.less(taken)
        if self.counted is not None:
            self.counted = self.counted.less(taken)

    def is_pressing(self, slots: Slots) -> bool:
        """Whether the server must hear of these free slots at once: it may know of too many, or of half of them at most."""
        told, known = self.counted, self._known
        if told is None:
            return True
        kinds = ((told.agent, known.agent, slots.agent), (told.tool, known.tool, slots.tool))
        return any(max(told, known) > free or known * 2 <= free for told, known, free in kinds if free or told or known)


@dataclass(frozen=True, slots=True)
class Said:
    """An offer as the worker says it. `left_out`: by field, the verdicts on definitions that it does not say."""

    fields: Mapping[str, Any]
    left_out: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)


NOTHING = Said({"agents": [], "tools": [], "problems": []})


@dataclass(frozen=True, slots=True)
class Offer:
    """The whole set; a later offer replaces it."""

    agents: Sequence[AgentDefinition] = ()
    tools: Sequence[ToolDefinition] = ()
    problems: Sequence[Problem] = ()

    def said(self) -> Said:
        """The offer without what the server would not take at all. What is left out is among the problems, before all others.

        Left out are a definition that cannot be written as JSON; agents and tools after `MAX_DEFINITIONS`, in the order in which
        they were added; and, while all together are over `MAX_DEFINITIONS_BYTES`, the largest one, of equal ones the last.
        """
        written = [*(_written("agent", agent) for agent in self.agents), *(_written("tool", tool) for tool in self.tools)]
        taken = _within_bounds(written)
        left_out = [one for one in taken if one.reason]
        reports = [_left_out(one) for one in left_out] + list(self.problems)
        return Said(
            {
                "agents": [one.definition for one in taken if one.kind == "agent" and not one.reason],
                "tools": [one.definition for one in taken if one.kind == "tool" and not one.reason],
                "problems": _reported(reports[:MAX_PROBLEMS]),
            },
            {f"{kind}s": [_verdict(one) for one in left_out if one.kind == kind] for kind in ("agent", "tool")},
        )


class _Written(NamedTuple):
    """A definition as JSON data. `reason`: why the worker does not say it; empty if it does."""

    kind: Kind
    name: str
    definition: dict[str, Any]
    size: int
    reason: str


def _written(kind: Kind, definition: AgentDefinition | ToolDefinition) -> _Written:
    name = definition.name.encode(errors="replace").decode()
    try:
        plain = definition.said() if isinstance(definition, ToolDefinition) else definition.model_dump(exclude_none=True)
        return _Written(kind, name, plain, len(encode(plain)), "")
    except (TypeError, ValueError, RecursionError) as error:
        return _Written(kind, name, {}, 0, f"the definition cannot be written as JSON: {text_of(error, 500)}")


def _within_bounds(written: Sequence[_Written]) -> list[_Written]:
    """The definitions with a reason for each one that is over a bound."""
    found = list(written)
    counts = {"agent": 0, "tool": 0}
    for place, one in enumerate(found):
        counts[one.kind] += not one.reason
        if not one.reason and counts[one.kind] > MAX_DEFINITIONS:
            found[place] = one._replace(
                reason=f"a worker offers at most {MAX_DEFINITIONS} {one.kind}s, and this one comes after them"
            )
    total = sum(one.size for one in found if not one.reason)
    for place in sorted(range(len(found)), key=lambda place: (-found[place].size, -place)):
        if total <= MAX_DEFINITIONS_BYTES:
            break
        one = found[place]
        if not one.reason:
            total -= one.size
            why = f"all definitions together are over {MAX_DEFINITIONS_BYTES:,} bytes of JSON, and the largest go"
            found[place] = one._replace(reason=f"{why}: this one has {one.size:,}")
    return found


def _left_out(one: _Written) -> Problem:
    return Problem(Path(f"{one.kind} {one.name}"), "definition-refused", one.reason)


def _verdict(one: _Written) -> dict[str, Any]:
    """As the server would say it."""
    problem = {"status": 422, "code": "definition-refused", "title": "Unprocessable", "detail": one.reason, "retryable": False}
    return {"name": one.name, "accepted": False, "problem": problem}


def _reported(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """With the bounds of the server. PostgreSQL stores no NUL."""
    found = []
    size = 0
    for problem in problems:
        texts = {"path": str(problem.path)[-500:], "kind": problem.kind, "message": problem.message[:4_000]}
        report = {name: text.encode(errors="replace").decode().replace("\0", "?") for name, text in texts.items()}
        size += len(encode(report)) + 1
        if size <= MAX_PROBLEMS_BYTES:
            found.append(report)
    return found
