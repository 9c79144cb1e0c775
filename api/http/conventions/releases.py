"""What processes of the release before can read, while an upgrade goes on."""

import time
from collections.abc import Awaitable, Callable, Sequence

from fastapi import Request

from api.container import Container, MemberView
from api.http.conventions.request import container_of
from domain.agent_runs import PortionGranted
from domain.allowances import AllowanceDrawn
from domain.approval_policies import ApprovalPolicyPublished
from domain.approvals import ApprovalRequested
from domain.breakers import BreakerForced
from domain.budgets import BudgetSet
from domain.bulk_actions import BulkActionStarted, RunsSelected
from domain.chains import ChainStarted
from domain.errors import Unavailable
from domain.invocations import InvocationRequested
from domain.kernel import Event
from domain.run_keys import RunKeyTaken
from domain.runs import DeadlineSet, RunPaused, RunPriorityChanged, RunRetried, RunStarted, StepSkipped, StepTakenOver
from domain.schedules import ScheduleCreated, ScheduleFired
from domain.tenants import ApiKeyIssued, ApiKeyRotated
from domain.tools import ToolDeprecated, ToolRemoved
from domain.triggers import TriggerCreated
from domain.workflows import WorkflowPublished


def _shapes(*events: type[Event]) -> frozenset[str]:
    return frozenset(f"{event.TOPIC}/v{event.VERSION}" for event in events)


ROLES = frozenset({f"{ApiKeyIssued.TOPIC}/v2", f"{ApiKeyRotated.TOPIC}/v1"})
PROJECTS = frozenset({f"{ApiKeyIssued.TOPIC}/v3"})
OF_TOOLS = _shapes(ToolDeprecated, ToolRemoved)
"""A release that knows these also knows what a declaration of a tool says of its kind."""

OF_CHAINS = _shapes(ChainStarted) | {f"{InvocationRequested.TOPIC}/v2"}
BLOBS = frozenset({f"{InvocationRequested.TOPIC}/v2"})
"""A release that knows this event also notes to which blobs events refer."""
SCHEDULES = _shapes(ScheduleCreated, ScheduleFired)
BREAKERS = _shapes(BreakerForced)
WORKFLOWS = _shapes(WorkflowPublished, RunStarted)
"""A release that knows these knows what a run of a workflow is."""
PAUSES = _shapes(RunPaused, StepSkipped, RunPriorityChanged)
"""A release that knows these knows pauses, changes of priority, and what persons say about steps."""
TRIGGERS = _shapes(TriggerCreated, RunStarted)
BUDGETS = _shapes(BudgetSet, AllowanceDrawn, PortionGranted, RunStarted)
FORKS = _shapes(RunStarted, StepTakenOver)
KEYS = _shapes(RunStarted, RunKeyTaken)
BULK_ACTIONS = _shapes(BulkActionStarted, RunsSelected)
CALLS = frozenset({f"{InvocationRequested.TOPIC}/v2"})
APPROVALS = _shapes(InvocationRequested, ApprovalRequested, ApprovalPolicyPublished)
"""A release that knows these asks for the approvals that policies demand, and holds calls."""
RETRIES = _shapes(RunRetried, DeadlineSet)
"""A release that knows these also knows what a deadline is."""
SURE_S = 5.0
"""Seconds for which the answer counts that all processes know something: each request would ask."""


async def _all_know(container: Container, shapes: frozenset[str]) -> bool:
    return _know(await container.members(), shapes)


def _know(members: Sequence[MemberView], shapes: frozenset[str]) -> bool:
    for member in members:
        known = member.event_versions
        if member.alive and (known is None or ("*" not in known and not shapes <= set(known))):
            return False
    return True


async def _must_all_have_known(request: Request, shapes: frozenset[str], what: str) -> None:
    """For requests that come often: that all know is remembered for a while. Raises Unavailable."""
    known_at: dict[frozenset[str], float] = request.app.state.known_at
    now = time.monotonic()
    if now - known_at.get(shapes, -SURE_S) < SURE_S:
        return
    if not await _all_know(container_of(request), shapes):
        raise Unavailable(f"a process of an earlier release still runs, which does not know {what}: try again after the upgrade")
    known_at[shapes] = now


async def all_know_roles(container: Container) -> bool:
    """Whether every running process can read the events of keys that have a role, an expiry or a successor. Raises Unavailable."""
    return await _all_know(container, ROLES)


async def must_all_know_projects(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before would take a narrowed key for one of the whole tenant."""
    if not await _all_know(container, PROJECTS):
        raise Unavailable(
            "a process of an earlier release still runs, which does not know narrowed keys: try again after the upgrade"
        )


async def must_all_know_tools(container: Container) -> None:
    """Raises Unavailable during an upgrade: a read model that is moved by a process of before would miss what is said of a tool."""
    if not await _all_know(container, OF_TOOLS):
        raise Unavailable("a process of an earlier release still runs, which cannot show what is said of tools: try again later")


async def must_all_know_chains(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before would wait for a worker that carries out a chain."""
    if not await _all_know(container, OF_CHAINS):
        raise Unavailable("a process of an earlier release still runs, which does not know chains of tools: try again later")


async def must_all_know_blobs(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before would append references without a note of them."""
    if not await _all_know(container, BLOBS):
        raise Unavailable("a process of an earlier release still runs, which does not know blobs: try again after the upgrade")


async def must_all_know_breakers(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before would go on calling a tool that a person wants nobody to call."""
    if not await _all_know(container, BREAKERS):
        raise Unavailable("a process of an earlier release still runs, which does not obey breakers: try again after the upgrade")


async def all_know_schedules(members: Callable[[], Awaitable[Sequence[MemberView]]]) -> bool:
    """Whether every running process knows schedules. `members`: the processes. Raises Unavailable."""
    return _know(await members(), SCHEDULES)


async def must_all_know_schedules(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before would neither fire a schedule nor show it."""
    if not await _all_know(container, SCHEDULES):
        raise Unavailable("a process of an earlier release still runs, which does not know schedules: try again after the upgrade")


async def must_all_know_triggers(container: Container) -> None:
    """Raises Unavailable during an upgrade: an engine of before would not fire the trigger, and not hear of its firings."""
    if not await _all_know(container, TRIGGERS):
        raise Unavailable("a process of an earlier release still runs, which does not know triggers: try again after the upgrade")


async def must_all_know_pauses(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before could not read the run any more."""
    if not await _all_know(container, PAUSES):
        raise Unavailable("a process of an earlier release still runs, which does not know pauses: try again after the upgrade")


async def must_all_know_approvals(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before would let a call begin without the approval that it needs."""
    if not await _all_know(container, APPROVALS):
        raise Unavailable("a process of an earlier release still runs, which does not know approvals: try again after the upgrade")


async def must_all_know_bulk_actions(container: Container) -> None:
    """Raises Unavailable during an upgrade: a process of before could neither carry it out nor show it."""
    if not await _all_know(container, BULK_ACTIONS):
        raise Unavailable("a process of an earlier release still runs, which does not know bulk actions: try again later")


async def must_all_know_roles(container: Container) -> None:
    """Raises Unavailable during an upgrade: a read model that is moved by a process of before would stop at such an event."""
    if not await all_know_roles(container):
        raise Unavailable(
            "a process of an earlier release still runs, which does not know roles of keys: try again after the upgrade"
        )


async def must_all_know_workflows(request: Request) -> None:
    """Raises Unavailable during an upgrade: a process of before would miss workflows, and could not carry out their runs."""
    await _must_all_have_known(request, WORKFLOWS, "workflows")


async def must_all_know_retries(request: Request) -> None:
    """Raises Unavailable during an upgrade: a process of before takes the end of a run for its last event, and knows no
    deadline."""
    if not await _all_know(container_of(request), RETRIES):
        raise Unavailable(
            "a process of an earlier release still runs, which knows neither retries nor deadlines of runs: try again later"
        )


async def must_all_know_keys(request: Request) -> None:
    """Raises Unavailable during an upgrade: a process of before would begin a run that waits for its key."""
    await _must_all_have_known(request, KEYS, "keys of runs")


async def must_all_know_budgets(request: Request) -> None:
    """Raises Unavailable during an upgrade: a process of before would let calls go on without asking their budgets."""
    await _must_all_have_known(request, BUDGETS, "budgets")


async def must_all_know_calls(request: Request) -> None:
    """Raises Unavailable during an upgrade: an engine of before would take the call for one of an agent."""
    await _must_all_have_known(request, CALLS, "calls without a run")


async def must_all_know_forks(request: Request) -> None:
    """Raises Unavailable during an upgrade: a process of before would run what a fork takes over again."""
    await _must_all_have_known(request, FORKS, "forks of runs")
