"""What is started when its time has come or something has happened: a run or a call of a tool, with the input that it gets.

A schedule and a trigger say so in the same words. The values that an expression may use are theirs.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from domain.concurrency import Concurrency
from domain.errors import json_pointer
from domain.kernel import Deadline, Functions, Json, Name, Priority, ShortText, Spent, Value, is_empty
from domain.tool_policy import ArgumentName, Expression
from domain.written_budgets import WrittenBudget

MOST_NAMES = 50
"""Fields of an input that are mapped one by one."""

AgentVersion = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
Compensate = Literal["on_failure", "on_cancel", "on_failure_or_cancel", "never"]


class SignalTarget(Value):
    """A signal to a run that goes on. Its payload is the input of the target."""

    run: Expression
    """Which run: an expression that gives its id."""
    name: ShortText = Field(min_length=1)
    step: ShortText | None = Field(default=None, exclude_if=is_empty)
    """Only an agent of this step receives it."""


def _is_nothing(value: object) -> bool:
    return value is None


class Target(Value):
    """What is started, exactly one of: a workflow, an agent, a plan, a tool; or a signal that is sent."""

    workflow: Name | None = Field(default=None, exclude_if=is_empty)
    version: int | None = Field(default=None, ge=1, exclude_if=is_empty)
    """Of the workflow. None: the one that is current then; so with the agent."""
    agent: Name | None = Field(default=None, exclude_if=is_empty)
    agent_version: AgentVersion | None = Field(default=None, exclude_if=is_empty)
    plan: dict[str, Json] | None = Field(default=None, exclude_if=is_empty)
    """A plan, as `Plan` has it. Whoever takes a target from people checks the plan (`application.starting.plan_of`): an event whose
    plan would be refused today can be read for ever."""
    tool: Name | None = Field(default=None, exclude_if=is_empty)
    signal: SignalTarget | None = Field(default=None, exclude_if=is_empty)
    input: Json = Field(default=None, exclude_if=_is_nothing)
    """The input as it is. For a tool: the object of its arguments. For a signal: its payload."""
    input_from: Expression | dict[ArgumentName, Expression] | None = Field(default=None, exclude_if=_is_nothing)
    """The input by an expression, or each of its fields by one. The fields go over those of `input`."""
    priority: Priority | None = Field(default=None, exclude_if=is_empty)
    compensate: Compensate | None = Field(default=None, exclude_if=is_empty)
    """None: those of the workflow, or the usual ones."""
    deadline_s: Deadline | None = Field(default=None, exclude_if=is_empty)
    """Of the run. None: that of the workflow, or none."""
    metadata: dict[str, Json] = Field(default={}, exclude_if=is_empty)
    """Of the run."""
    budget: WrittenBudget | None = Field(default=None, exclude_if=_is_nothing)
    """What the run may spend. None: that of the workflow, or the one that runs have by default."""
    concurrency: Concurrency | None = Field(default=None, exclude_if=is_empty)
    """None: that of the workflow, or none."""

    @model_validator(mode="after")
    def _is_one(self) -> "Target":
        if sum(each is not None for each in (self.workflow, self.agent, self.plan, self.tool, self.signal)) != 1:
            raise ValueError("give exactly one of `workflow`, `agent`, `plan`, `tool` and `signal`")
        if self.version is not None and self.workflow is None:
            raise ValueError("`version` is that of a `workflow`")
        if self.agent_version is not None and self.agent is None:
            raise ValueError("`agent_version` is that of an `agent`")
        if self.tool is not None:
            if self.compensate is not None or self.metadata or self.concurrency is not None:
                raise ValueError("`compensate`, `metadata` and `concurrency` are of runs, not of a call of a tool")
            if self.deadline_s is not None:
                raise ValueError("`deadline_s` is of runs, not of a call of a tool")
            if self.budget is not None:
                raise ValueError("`budget` is of runs, not of a call of a tool")
            if self.input is not None and not isinstance(self.input, dict):
                raise ValueError("the `input` of a tool is the object of its arguments")
        of_runs = (self.priority, self.compensate, self.deadline_s, self.budget, self.concurrency)
        if self.signal is not None and (self.metadata or any(each is not None for each in of_runs)):
            raise ValueError("`input` and `input_from` go with a signal; all else is of what is started")
        if isinstance(self.input_from, dict):
            if len(self.input_from) > MOST_NAMES:
                raise ValueError(f"`input_from` names at most {MOST_NAMES} fields")
            if self.input is not None and not isinstance(self.input, dict):
                raise ValueError("fields of `input_from` go into an object: leave `input` out, or make it an object")
        elif self.input_from is not None and self.input is not None:
            raise ValueError("give either `input` or one expression as `input_from`")
        return self

    @property
    def expressions(self) -> dict[str, str]:
        """Its expressions, by the JSON Pointers of their places in it."""
        of_signal = {} if self.signal is None else {"/signal/run": self.signal.run}
        match self.input_from:
            case None:
                return of_signal
            case str():
                return {**of_signal, "/input_from": self.input_from}
            case _:
                return {**of_signal, **{json_pointer(("input_from", name)): text for name, text in self.input_from.items()}}


class Unmapped(Exception):
    """The input cannot be made of the values, or a condition has no truth. The text says where and why, for people."""

    def __init__(self, why: str, *place: str) -> None:
        super().__init__(f"{'/'.join(place)}: {why}")
        self.why = why
        self.pointer = json_pointer(place)
        """Of the place in the target or beside it."""


def input_of(target: Target, values: Mapping[str, Json], functions: Functions, spent: Spent) -> Json:
    """The input that the target gets. Raises Unmapped."""
    match target.input_from:
        case None:
            made = target.input
        case str():
            made = _value(("input_from",), target.input_from, values, functions, spent)
        case _:
            fields = {
                name: _value(("input_from", name), text, values, functions, spent) for name, text in target.input_from.items()
            }
            made = {**(target.input or {}), **fields}
    if target.tool is None:
        return made
    if made is None:
        return {}
    if not isinstance(made, dict):
        raise Unmapped("the arguments of a tool are an object", "input_from")
    return made


def signalled_run(signal: SignalTarget, values: Mapping[str, Json], functions: Functions, spent: Spent) -> UUID:
    """The run that a signal is for. Raises Unmapped."""
    found = _value(("signal", "run"), signal.run, values, functions, spent)
    try:
        return UUID(found)
    except (TypeError, ValueError, AttributeError):
        raise Unmapped("the expression gives no id of a run", "signal", "run") from None


def _value(place: tuple[str, ...], text: str, values: Mapping[str, Json], functions: Functions, spent: Spent) -> Json:
    found = functions.evaluate(text, values, spent)
    if found.error is not None:
        raise Unmapped(found.error, *place)
    return found.value


def holds(text: str | None, values: Mapping[str, Json], functions: Functions, spent: Spent) -> bool:
    """Whether a condition holds. Without one: yes. Raises Unmapped for one that has no truth value."""
    if text is None:
        return True
    found = functions.evaluate(text, values, spent)
    if found.error is not None:
        raise Unmapped(found.error, "when")
    if not isinstance(found.value, bool):
        raise Unmapped("the condition is neither true nor false", "when")
    return found.value


_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_OTHER_BITS = ((1 << 80) - 1) & ~(0xF << 76) & ~(0x3 << 62)


def id_at(at: datetime, parent: UUID, name: str) -> UUID:
    """A UUIDv7-shaped id of a time, which else follows from a parent and a name: so what is started stands among what else began
    then, and is started once."""
    milliseconds = int(at.timestamp() * 1000) & 0xFFFFFFFFFFFF
    digest = int.from_bytes(hashlib.sha256(parent.bytes + name.encode()).digest()[:10], "big")
    return UUID(int=(milliseconds << 80) | (digest & _OTHER_BITS) | _VERSION_AND_VARIANT)


class FiringLimits(Value):
    """How often, and how deep in a chain of causes, something may start."""

    max_per_minute: int = Field(default=600, ge=1, le=6_000)
    max_depth: int = Field(default=8, ge=1, le=32)
