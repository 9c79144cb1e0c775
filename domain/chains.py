"""Chains: calls of tools that consist of calls of other tools, one after the other. Each step is an invocation of its own.

The mapping of results to arguments is evaluated once, when a step is requested, and the arguments are in the event. The tools of
the steps are those that were the current ones when the chain began.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, assert_never
from uuid import UUID

import pydantic_core
from immutables import Map
from pydantic import Field

from domain import values
from domain.approval_rules import ApprovalCheck, demand_by
from domain.chain_plans import VARIABLES, ChainPlan, ChainStep, plan_of
from domain.errors import NotFound
from domain.failures import Failure
from domain.kernel import (
    Command,
    Decider,
    Event,
    Functions,
    Json,
    Name,
    Priority,
    ShortText,
    Spent,
    derive_id,
    replace,
    unsaid,
    without_functions,
)
from domain.maps import PersistentMap

MAX_MAPPED_BYTES = 200_000
"""Bytes of the arguments of a step, or of the result of a chain, as JSON. An event has a limit."""

Status = Literal["absent", "running", "completed", "failed", "cancelled"]
OVER: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


class ChainStarted(Event):
    TOPIC = "chain.started"
    run_id: UUID
    """The root."""
    invocation_id: UUID
    """The call that the chain carries out."""
    tool: str
    tool_version: str | None = None
    arguments: dict[str, Json]
    plan: Json
    """`domain.chain_plans.ChainPlan`."""
    kept: tuple[str, ...] = ()
    """The steps whose results an expression names."""
    tools: Json
    """Name → what the tool declared when the chain began: `version`, `idempotent`, `timeout_s`, `max_attempts`,
    `reconcile_timeout_s`, `parameters`, perhaps `options` and `approval` (`domain.approval_rules.ApprovalCheck`); of a chain `plan`
    and `kept`. With the tools of the chains in it."""
    priority: Priority = "normal"
    on_behalf_of: str | None = None
    """For whom the call is."""
    held: bool = Field(default=False, exclude_if=unsaid)
    """The call needs an approval: no step begins before it is released."""

    @cached_property
    def planned(self) -> ChainPlan:
        """The plan, read once."""
        return plan_of(self.plan)


class ChainReleased(Event):
    """The call that the chain carries out was approved: its steps begin."""

    TOPIC = "chain.released"
    arguments: dict[str, Json] | None = None
    """Those that a person has changed them to. None: as they were asked for."""


class ChainStepRequested(Event):
    """A step begins: its arguments were mapped, and a call of its tool is requested."""

    TOPIC = "chain.step_requested"
    run_id: UUID
    step: str
    tool: str
    tool_version: str | None = None
    invocation_id: UUID
    arguments: dict[str, Json]
    idempotent: bool
    timeout_s: float
    max_attempts: int
    reconcile_timeout_s: float | None = None
    chain: Json = None
    """Of a step that is a chain: its `plan`, `kept` and `tools`."""
    priority: Priority = "normal"
    on_behalf_of: str | None = None
    options: Json = None
    """Further fields of the call's `invocation.requested` that follow from what the tool declared. None: there are none."""


class ChainStepSkipped(Event):
    """The condition of a step was false."""

    TOPIC = "chain.step_skipped"
    step: str
    condition: str
    value: Json = False


class ChainStepFinished(Event):
    TOPIC = "chain.step_finished"
    step: str
    invocation_id: UUID
    result: Json = None
    """None also for a result that nothing needs: the invocation has it."""


class ChainCompleted(Event):
    TOPIC = "chain.completed"
    invocation_id: UUID
    result: Json = None


class ChainFailed(Event):
    TOPIC = "chain.failed"
    invocation_id: UUID
    step: str | None = None
    """The step that failed. None: the result could not be made."""
    error: Failure


class ChainCancelled(Event):
    TOPIC = "chain.cancelled"
    reason: str | None = None
    abandoned: tuple[UUID, ...] = ()
    """The invocation of the step that was under way."""


ChainEvent = (
    ChainStarted
    | ChainReleased
    | ChainStepRequested
    | ChainStepSkipped
    | ChainStepFinished
    | ChainCompleted
    | ChainFailed
    | ChainCancelled
)


@dataclass(frozen=True)
class Chain:
    status: Status = "absent"
    started: ChainStarted | None = None
    next: int = 0
    """Number of the step that comes next, or is under way."""
    pending: UUID | None = None
    """The invocation of the step under way."""
    results: PersistentMap[str, Json] = field(default_factory=Map)
    """Of the finished steps, as far as they are kept."""
    last: str | None = None
    """The step that finished last."""
    released: bool = False
    """Whether a chain that was held has begun."""


class StartChain(Command):
    chain_id: UUID
    run_id: UUID
    invocation_id: UUID
    tool: Name
    tool_version: ShortText | None = None
    arguments: dict[str, Json] = {}
    plan: Json
    kept: tuple[str, ...] = ()
    tools: Json
    priority: Priority = "normal"
    on_behalf_of: str | None = None
    held: bool = False


class ReleaseChain(Command):
    """The call of the chain may begin, with other arguments if the decision named some."""

    chain_id: UUID
    arguments: dict[str, Json] | None = None


class FinishChainStep(Command):
    chain_id: UUID
    invocation_id: UUID
    result: Json = None
    error: Failure | None = None


class CancelChain(Command):
    chain_id: UUID
    reason: ShortText | None = None


ChainCommand = StartChain | ReleaseChain | FinishChainStep | CancelChain


def chain_id_of(invocation_id: UUID) -> UUID:
    """The stream of the chain that carries out a call."""
    return derive_id(invocation_id, "chain")


def decide(chain: Chain, command: ChainCommand, functions: Functions) -> list[Event]:
    if isinstance(command, StartChain):
        if chain.started is not None:
            return []
        started = ChainStarted(**{name: getattr(command, name) for name in type(command).model_fields if name != "chain_id"})
        if started.held:
            return [started]
        return [started, *_go_on(evolve(chain, started), started, command.chain_id, functions)]
    started_before = chain.started
    if started_before is None:
        raise NotFound(f"there is no chain {command.chain_id}")
    if chain.status in OVER:
        return []
    match command:
        case ReleaseChain():
            return _release(chain, started_before, command, functions)
        case FinishChainStep():
            return _finish(chain, started_before, command, functions)
        case CancelChain():
            return [ChainCancelled(reason=command.reason, abandoned=() if chain.pending is None else (chain.pending,))]
        case _:
            assert_never(command)


def _release(chain: Chain, started: ChainStarted, command: ReleaseChain, functions: Functions) -> list[Event]:
    """Nothing, for a chain that was not held, or that has begun."""
    if not started.held or chain.released:
        return []
    released = ChainReleased(arguments=command.arguments)
    chain = evolve(chain, released)
    assert chain.started is not None
    return [released, *_go_on(chain, chain.started, command.chain_id, functions)]


def _finish(chain: Chain, started: ChainStarted, command: FinishChainStep, functions: Functions) -> list[Event]:
    if command.invocation_id != chain.pending:
        return []
    step = started.planned.steps[chain.next]
    if command.error is not None:
        return [_failed(started, step, command.error, f"{_named(step)} failed: {command.error.message}")]
    result = command.result if step.key in started.kept else None
    if result is not None and (fault := _fault_of_size(result)) is not None:
        return [_failed(started, step, None, f"the result of {_named(step)} is {fault}")]
    finished = ChainStepFinished(step=step.key, invocation_id=command.invocation_id, result=result)
    return [finished, *_go_on(evolve(chain, finished), started, command.chain_id, functions)]


def _go_on(chain: Chain, started: ChainStarted, chain_id: UUID, functions: Functions) -> list[Event]:
    """The next step that is not skipped, or the end."""
    events: list[Event] = []
    given, spent = dict(zip(VARIABLES, (started.arguments, dict(chain.results)), strict=True)), Spent()
    for step in started.planned.steps[chain.next :]:
        if step.when is not None:
            found = functions.evaluate(step.when, given, spent)
            if found.error is not None:
                return [*events, _unusable(started, step, f"`when`: {found.error}")]
            if not isinstance(found.value, bool):
                return [*events, _unusable(started, step, "`when` is neither true nor false")]
            if not found.value:
                events.append(ChainStepSkipped(step=step.key, condition=step.when))
                continue
        return [*events, _requested(started, step, chain_id, given, functions, spent)]
    return [*events, _ended(chain, started, given, functions, spent)]


def _requested(
    started: ChainStarted, step: ChainStep, chain_id: UUID, given: Mapping[str, Json], functions: Functions, spent: Spent
) -> Event:
    arguments: dict[str, Json] = {}
    for name, expression in step.arguments.items():
        found = functions.evaluate(expression, given, spent)
        if found.error is not None:
            return _unusable(started, step, f"argument '{name}': {found.error}")
        arguments[name] = found.value
    if (fault := _fault_of_size(arguments)) is not None:
        return _unusable(started, step, f"its arguments are {fault}")
    tool = started.tools[step.tool]
    if (misfit := functions.misfit(tool["parameters"], arguments)) is not None:
        return _unusable(started, step, f"its arguments do not fit the tool '{step.tool}': {misfit}")
    inner = None
    if tool.get("plan") is not None:
        inner = {"plan": tool["plan"], "kept": tool["kept"], "tools": started.tools}
    return ChainStepRequested(
        run_id=started.run_id,
        step=step.key,
        tool=step.tool,
        tool_version=tool["version"],
        invocation_id=derive_id(chain_id, f"step:{step.key}"),
        arguments=arguments,
        idempotent=tool["idempotent"],
        timeout_s=tool["timeout_s"],
        max_attempts=tool["max_attempts"],
        reconcile_timeout_s=tool["reconcile_timeout_s"],
        chain=inner,
        priority=started.priority,
        on_behalf_of=started.on_behalf_of,
        options=_options_of(tool, arguments, functions),
    )


def _options_of(tool: Mapping[str, Json], arguments: Mapping[str, Json], functions: Functions) -> Json:
    """Further fields of a step's call, with the approval that it needs."""
    options: dict[str, Json] = tool.get("options") or {}
    if (check := tool.get("approval")) is None:
        return options or None
    demand = demand_by(ApprovalCheck.model_validate(check), arguments, functions)
    if demand is None:
        return options or None
    return {**options, "approval": demand.model_dump(mode="json", exclude_defaults=True)}


def _ended(chain: Chain, started: ChainStarted, given: Mapping[str, Json], functions: Functions, spent: Spent) -> Event:
    if started.planned.result is None:
        result = None if chain.last is None else chain.results.get(chain.last)
        return ChainCompleted(invocation_id=started.invocation_id, result=result)
    found = functions.evaluate(started.planned.result, given, spent)
    if found.error is not None:
        return _failed(started, None, None, f"the result of the chain '{started.tool}': {found.error}")
    if (fault := _fault_of_size(found.value)) is not None:
        return _failed(started, None, None, f"the result of the chain '{started.tool}' is {fault}")
    return ChainCompleted(invocation_id=started.invocation_id, result=found.value)


def _fault_of_size(value: Json) -> str | None:
    text = pydantic_core.to_json(value)
    if len(text) > MAX_MAPPED_BYTES:
        return f"too large: {len(text):,} bytes of JSON, a chain can pass on {MAX_MAPPED_BYTES:,}"
    if values.is_deeper(text, values.MAX_DEPTH):
        return f"nested more than {values.MAX_DEPTH} levels deep"
    return None


def _unusable(started: ChainStarted, step: ChainStep, fault: str) -> ChainFailed:
    return _failed(started, step, None, f"{_named(step)} cannot begin: {fault}")


def _named(step: ChainStep) -> str:
    return f"the step '{step.key}' (tool '{step.tool}')"


def _failed(started: ChainStarted, step: ChainStep | None, error: Failure | None, message: str) -> ChainFailed:
    """`error`: of the step's call. None: the chain itself found out."""
    key, kind = None if step is None else step.key, "permanent" if error is None else error.kind
    failure = Failure(type="ChainStepFailed" if error is not None else "ChainMappingError", message=message[:10_000], kind=kind)
    return ChainFailed(invocation_id=started.invocation_id, step=key, error=failure)


def evolve(chain: Chain, event: ChainEvent) -> Chain:
    match event:
        case ChainStarted():
            return replace(chain, status="running", started=event)
        case ChainReleased():
            started = chain.started
            if event.arguments is not None and started is not None:
                started = started.model_copy(update={"arguments": event.arguments})
            return replace(chain, released=True, started=started)
        case ChainStepRequested():
            return replace(chain, pending=event.invocation_id)
        case ChainStepSkipped():
            return replace(chain, next=chain.next + 1)
        case ChainStepFinished():
            kept = chain.started is not None and event.step in chain.started.kept
            results = chain.results.set(event.step, event.result) if kept else chain.results
            return replace(chain, next=chain.next + 1, pending=None, results=results, last=event.step)
        case ChainCompleted():
            return replace(chain, status="completed")
        case ChainFailed():
            return replace(chain, status="failed", pending=None)
        case ChainCancelled():
            return replace(chain, status="cancelled", pending=None)
        case _:
            assert_never(event)


DECIDER: Decider[Chain] = Decider("chains", Chain, without_functions(decide), evolve, decide_with=decide)
