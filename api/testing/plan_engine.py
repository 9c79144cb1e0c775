"""Plans without a server: the command loop, the sagas and the timers of the product over a log in memory, step by step.

The testing kit of the SDK finds `PlanEngine` by its entry point, executes the agents, and moves the clock. Only JSON data and
standard types go between them: the kit knows nothing of this distribution, and this module nothing of the kit. What is refused is
raised as `TidelogError`, with its `code`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from pydantic import ValidationError
from uuid_utils.compat import uuid7

from adapters.expressions import CelExpressions
from adapters.memory import MemoryEventStore, MemoryLog
from api.http.routes.run_bodies import StartRunBody
from api.testing.in_memory import LogNames, NoOpenRuns, NoVersions, PlayedClock, WorkList
from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandRequest
from application.engine.ports.queue import WorkQueue
from application.engine.ports.timers import DueTimer
from application.engine.sagas.manager import effects_of
from application.engine.timers import effect_of
from application.functions import RuleFunctions
from application.plans.check import PlanChecks
from application.runs.admission import RunAdmission
from application.runs.signals import signal_of
from application.views.runs import RunView
from application.workers.agent_runs import request_for_agent_run
from application.workers.children import ChildRuns
from application.workers.claims import Claims
from application.workers.journal import Journals
from application.workers.mail import Mailboxes
from application.workers.outcomes import Outcomes
from application.workers.state import SharedContext
from application.workflows import WorkflowChanges, Workflows
from application.workflows.written import read_workflow
from application.workflows.yaml_text import load
from domain import agent_runs, agents, runs
from domain.errors import InvalidCommand, WorkOver, json_pointer
from domain.failures import Failure
from domain.kernel import Json, RecordedEvent
from domain.projects import default_project_id
from domain.workflows import WorkflowDefinition
from projections import timers as timer_table
from projections.runs.folded import evolve_view

TENANT = UUID("01900000-0000-7000-8000-000000007e57")
CALLER = Caller(TENANT, "test")
UNNAMED = "plan-under-test"
"""The name of a workflow that says none."""


class NotABody(InvalidCommand):
    """What is said of the run has not the form of the body of `POST /v1/runs`."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__("the body is not valid")
        self.faults = tuple((json_pointer(one["loc"]), one["msg"]) for one in error.errors(include_url=False))


class PlanEngine:
    """One installation in memory, for one run and the runs below it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        expressions = CelExpressions()
        self._catalog = replace(CATALOG, functions=RuleFunctions(expressions))
        self._log = MemoryLog(PlayedClock(now))
        self._commands = CommandLoop(MemoryEventStore(self._log), self._catalog)
        self._known = LogNames(self._log, self._catalog.registry)
        self._admission = RunAdmission(NoOpenRuns(), most=1_000_000)
        self._workflows = Workflows(self._commands, NoVersions())
        self._frames = PlanChecks(expressions, frame=WorkflowDefinition)
        self._changes = WorkflowChanges(self._commands, self._workflows, self._frames)
        self._checks = PlanChecks(expressions)
        self._journals = Journals(self._commands)
        self._claims = Claims(self._commands, self._journals)
        self._mail = Mailboxes(self._commands)
        self._context = SharedContext(self._commands)
        self._outcomes = Outcomes(self._commands)
        self._children = ChildRuns(self._commands, self._workflows, self._known)
        self._handled = 0
        self._settling = asyncio.Lock()
        self._queue = WorkList()
        self._timers: dict[UUID, tuple[datetime, RecordedEvent, DueTimer]] = {}
        self._run_id: UUID | None = None

    # --- before the run -----------------------------------------------------------------------------------------------------

    @staticmethod
    def read(text: str) -> Json:
        """A plan or a workflow as YAML. Raises YamlFault."""
        return load(text)

    async def register(self, definition: Mapping[str, Any]) -> None:
        """An agent: `name`, `version`, `description`, `capabilities`, `input_schema`, `output_schema`."""
        command = agents.RegisterAgent(agent_id=agents.agent_id_of(TENANT, definition["name"]), **definition)
        await self._commands.execute(_request(), command)

    async def publish(self, written: Mapping[str, Any]) -> str:
        """A workflow as it is written. Returns its name."""
        said = read_workflow(dict(written))
        name = str(said.pop("name", UNNAMED))
        await self._frames.must_be_valid(said, None, at="")
        await self._changes.publish(_request(), name, WorkflowDefinition.model_validate(said), None, None)
        return name

    async def start(self, said: Mapping[str, Any], on_behalf_of: str | None) -> UUID:
        """Starts the run: `said` is the body of `POST /v1/runs`."""
        written = StartRunBody.in_full(dict(said))
        if isinstance(plan := written.get("plan"), dict) and plan.get("kind") == "graph":
            await self._checks.must_be_valid(plan, None, at="/plan")
        try:
            body = StartRunBody.model_validate_json(json.dumps(written))
        except ValidationError as error:
            raise NotABody(error) from error
        run_id = uuid7()
        request, project_id = _request(run_id, on_behalf_of), default_project_id(TENANT)
        if body.workflow is not None:
            await self._workflows.start(
                request, body.asked(), run_id=run_id, project_id=project_id, terms=body.terms, known=self._known,
                admission=self._admission,
            )  # fmt: skip
        else:
            await self._workflows.start_plan(
                request, run_id=run_id, project_id=project_id, plan=body.to_plan(), input=body.input, metadata=body.metadata,
                priority=body.priority, compensate=body.compensate, terms=body.terms, known=self._known,
                admission=self._admission,
            )  # fmt: skip
        self._run_id = run_id
        return run_id

    # --- going on -----------------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Does all that follows from what was recorded, as the sagas do it, in the order of the log."""
        async with self._settling:
            while self._handled < self._log.head:
                recorded = self._log.events[self._handled]
                self._handled += 1
                self._note_timers(recorded)
                for effect in effects_of(recorded, self._catalog, self._commands, cast(WorkQueue, self._queue)):
                    await effect()

    def take_work(self) -> list[tuple[UUID, int]]:
        """Agent runs that wait for a worker, each with the number of its dispatch. Each is given out once."""
        return [(item.work_id, item.dispatch) for item in self._queue.take() if item.kind == "agent"]

    def next_due(self) -> datetime | None:
        """When the next timer is due."""
        return min((due_at for due_at, _, _ in self._timers.values()), default=None)

    async def fire(self) -> None:
        """Fires the timers that are due, in the order of their time."""
        now = self._now()
        due = sorted((due_at, timer_id) for timer_id, (due_at, _, _) in self._timers.items() if due_at <= now)
        for _, timer_id in due:
            if (found := self._timers.pop(timer_id, None)) is not None:
                await effect_of(found[2], self._commands, self._catalog.commands)()
                await self.settle()

    def _note_timers(self, recorded: RecordedEvent) -> None:
        if recorded.topic in timer_table.ENDS:
            mine = [timer_id for timer_id, (_, event, _) in self._timers.items() if event.stream_id == recorded.stream_id]
            for timer_id in mine:
                del self._timers[timer_id]
        if recorded.topic in timer_table.PROJECTION.topics and (found := timer_table.timer_of(recorded)) is not None:
            self._timers[found[1].timer_id] = (found[0], recorded, found[1])

    # --- agents -------------------------------------------------------------------------------------------------------------

    async def claim(self, agent_run_id: UUID, dispatch: int) -> dict[str, Any] | None:
        """What a worker gets of an agent run. None: it is over."""
        command = agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="kit", dispatch=dispatch)
        try:
            given, _ = await self._claims.claim(CALLER, command, str(dispatch))
        except WorkOver:
            return None
        state = (await self._commands.load(agent_runs.DECIDER, TENANT, agent_run_id)).state
        assert state.requested is not None
        names = ("run_id", "attempt", "step_key", "agent", "agent_version", "input", "results", "missing", "peers", "part")
        return {**{name: getattr(given, name) for name in names}, "on_behalf_of": given.on_behalf_of, "key": state.requested.step}

    async def has(self, agent_run_id: UUID, attempt: int) -> bool:
        """Whether the attempt is under way: not cancelled, not timed out."""
        state = (await self._commands.load(agent_runs.DECIDER, TENANT, agent_run_id)).state
        return bool(state.status == "running" and state.attempt == attempt)

    async def news(self, agent_run_id: UUID, after: int) -> dict[str, Any]:
        """What came after a version from outside the agent: outcomes of its waits, and messages."""
        page = await self._journals.page(TENANT, agent_run_id, after_version=after)
        entries = [_entry(one) for one in page.entries if one.kind in ("signal", "child") and one.status != "pending"]
        return {"version": page.version, "entries": entries, "mail": [asdict(one) for one in page.mailbox], "more": page.more}

    async def complete(self, agent_run_id: UUID, attempt: int, result: Json, unused_keys: Sequence[str]) -> None:
        command = agent_runs.CompleteAgentRun(
            agent_run_id=agent_run_id, attempt=attempt, result=result, unused_keys=tuple(unused_keys)
        )
        await self._outcomes.complete(CALLER, command)

    async def fail(self, agent_run_id: UUID, attempt: int, error: Mapping[str, Any]) -> None:
        command = agent_runs.FailAgentRun(agent_run_id=agent_run_id, attempt=attempt, error=Failure.model_validate(error))
        await self._outcomes.fail(CALLER, command)

    async def send(self, agent_run_id: UUID, attempt: int, key: str, to: str, body: Json) -> UUID:
        sent = await self._mail.send(CALLER, agent_run_id=agent_run_id, attempt=attempt, key=key, to=to, body=body)
        return sent[0]

    async def receive(self, agent_run_id: UUID, attempt: int, key: str, message_id: UUID | None) -> None:
        command = agent_runs.ReceiveMail(agent_run_id=agent_run_id, attempt=attempt, key=key, message_id=message_id)
        await self._mail.receive(CALLER, command)

    async def get(self, agent_run_id: UUID, attempt: int, key: str, name: str) -> dict[str, Json]:
        got = await self._context.get(CALLER, agent_run_id=agent_run_id, attempt=attempt, key=key, name=name)
        return got[0]

    async def set(self, agent_run_id: UUID, attempt: int, key: str, name: str, value: Json, expect: int | None) -> dict[str, Json]:
        done = await self._context.set(
            CALLER, agent_run_id=agent_run_id, attempt=attempt, key=key, name=name, value=value, expect=expect
        )
        return done[0]

    async def await_signal(
        self, agent_run_id: UUID, attempt: int, key: str, name: str, timeout_s: float | None, fingerprint: str | None
    ) -> None:
        wait = agent_runs.StartWait(
            agent_run_id=agent_run_id,
            attempt=attempt,
            key=key,
            kind="signal",
            name=name,
            delay_s=timeout_s,
            fingerprint=fingerprint,
        )
        request = await request_for_agent_run(self._commands, CALLER, agent_run_id, f"wait:{attempt}:{key}")
        await self._commands.execute(request, wait)

    async def start_child(self, agent_run_id: UUID, attempt: int, key: str, fingerprint: str, child: Mapping[str, Any]) -> None:
        """`child`: `agent`, `workflow`, `version`, `input`, `plan`."""
        wait = agent_runs.StartWait(agent_run_id=agent_run_id, attempt=attempt, key=key, kind="child", fingerprint=fingerprint)
        await self._children.start(CALLER, wait, **child)

    # --- people and outcomes ------------------------------------------------------------------------------------------------

    async def signal(self, name: str, payload: Json, step: str | None) -> None:
        request = _request()
        command = signal_of(self._run, name, payload, step, None, request.command_id)
        await self._commands.execute(request, command)

    async def is_over(self) -> bool:
        state = (await self._commands.load(runs.DECIDER, TENANT, self._run)).state
        return state.status in runs.OVER

    def views(self) -> list[dict[str, Any]]:
        """The runs as `GET /v1/runs/{id}` shows them, in the order of their starts."""
        found: dict[UUID, RunView] = {}
        for event in self._log.events:
            if event.root_id in found or event.topic == runs.RunStarted.TOPIC:
                view = evolve_view(found.get(event.root_id), event, None)
                assert view is not None
                found[event.root_id] = view
        return [view.model_dump(mode="json") for view in found.values()]

    @property
    def _run(self) -> UUID:
        if self._run_id is None:
            raise InvalidCommand("the run has not been started")
        return self._run_id


def _request(run_id: UUID | None = None, on_behalf_of: str | None = None) -> CommandRequest:
    command_id = run_id or uuid7()
    return CommandRequest(TENANT, "test", command_id, command_id, "test", repeatable=run_id is not None, on_behalf_of=on_behalf_of)


def _entry(one: Any) -> dict[str, Any]:
    error = None if one.error is None else one.error.model_dump(mode="json")
    return {
        "key": one.key, "kind": one.kind, "status": one.status, "result": one.result, "error": error,
        "fingerprint": one.fingerprint,
    }  # fmt: skip
