"""Schedules that agents make: by the right of the agent run that a worker has claimed, in the project of its run."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.reads import MadeByAgents
from application.schedules.defining import Schedules
from application.starting import spelled_start
from application.triggers.roots import Roots
from application.wording import meant, told
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import runs, schedules
from domain.access import Action
from domain.agent_runs import AgentRun, RecordStep
from domain.audit import RecordAction
from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound, RepeatedDifferently, Unavailable, json_pointer
from domain.kernel import Command, Json, derive_id, timestamp
from domain.projects import default_project_id
from domain.schedules import ChangeSchedule, CreateSchedule, Definition, Maker, Owner, RemoveSchedule, Schedule

MOST_OF_RUN = 100
"""Schedules that the agents of one run have made, and that were not removed."""
MOST_OF_PROJECT = 1_000
"""Schedules of agents of one project that are not finished."""
MOST_NAME = 100
MOST_LOOKS = 5
"""Looks at a schedule that others change meanwhile."""
BY_AGENT_RUN = "agent_run:"
"""How the name of who did it begins, in the events of the schedule."""

Did = Literal["scheduled", "unscheduled"]


class TooManySchedules(InvalidState):
    """Agents of the run, or of its project, have as many schedules as they may have."""

    code = "too-many-schedules"


class AskedOfAgent(NamedTuple):
    """What an agent asks under a key of its journal."""

    agent_run_id: UUID
    attempt: int
    key: str
    name: str
    """As the agent says it, without what the server puts around."""


class _Asker(NamedTuple):
    agent: str
    run_id: UUID
    project_id: UUID
    on_behalf_of: str | None
    by: str

    @property
    def owner(self) -> Owner:
        return Owner(agent=self.agent, project_id=self.project_id)


def _now() -> datetime:
    return datetime.now(UTC)


class _Wanted(NamedTuple):
    definition: Mapping[str, Json]
    in_s: float | None


class AgentSchedules:
    """Makes, changes and removes schedules for agents. Each use is one append with the entry of the agent's journal."""

    def __init__(
        self,
        commands: CommandLoop,
        schedules: Schedules,
        made: MadeByAgents,
        roots: Roots,
        known: Callable[[], Awaitable[bool]],
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """`known`: whether every process that runs knows schedules."""
        self._commands = commands
        self._schedules = schedules
        self._made = made
        self._roots = roots
        self._known = known
        self._clock = clock

    async def put(
        self, caller: Caller, asked: AskedOfAgent, definition: Mapping[str, Json], in_s: float | None
    ) -> tuple[Json, CommandOutcome]:
        """Makes a schedule, or gives the agent's schedule of this name another definition. `in_s`: due once, after so many seconds.

        Raises:
            InvalidCommand, NotFound: what is to be started, or when, is not right.
            AlreadyExists: the name is taken, and not by this agent.
            TooManySchedules
            WorkOver, StaleAttempt, RepeatedDifferently, Unavailable
        """
        if not await self._known():
            raise Unavailable(
                "a process of an earlier release still runs, which does not know schedules: try again after the upgrade"
            )

        async def putting(asker: _Asker, name: str, state: Schedule) -> tuple[Command | None, dict[str, Json]]:
            return await self._put(caller, asked, asker, name, state, _Wanted(definition, in_s))

        return await self._do(caller, asked, "scheduled", putting)

    async def remove(self, caller: Caller, asked: AskedOfAgent, reason: str | None) -> tuple[Json, CommandOutcome]:
        """Removes a schedule of the agent. One that is not there, or is another's, is left alone: `was_there` says so."""

        async def removal(asker: _Asker, name: str, state: Schedule) -> tuple[Command | None, dict[str, Json]]:
            there = state.is_there and state.is_of(asker.owner)
            removed = RemoveSchedule(
                schedule_id=schedules.schedule_id_of(caller.tenant_id, name), reason=reason, at=self._clock(), by=asker.by,
                on_behalf_of=asker.on_behalf_of, owner=asker.owner,
            )  # fmt: skip
            return (removed if there else None), {"was_there": there}

        return await self._do(caller, asked, "unscheduled", removal, reason)

    async def _do(
        self, caller: Caller, asked: AskedOfAgent, did: Did,
        decide: Callable[[_Asker, str, Schedule], Awaitable[tuple[Command | None, dict[str, Json]]]], reason: str | None = None,
    ) -> tuple[Json, CommandOutcome]:  # fmt: skip
        tenant_id = caller.tenant_id
        named = await request_for_agent_run(self._commands, caller, asked.agent_run_id, f"schedule:{asked.attempt}:{asked.key}")
        for look in range(MOST_LOOKS):
            state = await load_agent_run(self._commands, tenant_id, asked.agent_run_id, fresh=True)
            asker = await self._asker(tenant_id, asked.agent_run_id, state)
            name = _full_name(tenant_id, asker, asked.name)
            answer = _before(state, asked.key, did, name)
            work: dict[str, Any] = {"agent_run_id": asked.agent_run_id, "attempt": asked.attempt, "key": asked.key}
            if answer is not None:
                return answer, await self._commands.execute(named, RecordStep(**work, result=answer))
            loaded = await self._commands.load(schedules.DECIDER, tenant_id, schedules.schedule_id_of(tenant_id, name))
            command, more = await decide(asker, name, loaded.state)
            answer = {"did": did, "name": name, **more}
            entry = () if command is None else (command,)
            request = named if command is None else named._replace(along=_entry(named, caller, command, name, reason))
            try:
                return answer, await self._commands.execute(request, RecordStep(**work, result=answer), *entry)
            except (AlreadyExists, NotFound, RepeatedDifferently):  # the schedule or the journal has changed meanwhile
                if look == MOST_LOOKS - 1:
                    raise
        raise AssertionError("the last look ends")

    async def _asker(self, tenant_id: UUID, agent_run_id: UUID, state: AgentRun) -> _Asker:
        requested = state.requested
        assert requested is not None
        run = (await self._commands.load(runs.DECIDER, tenant_id, requested.run_id, fresh=False)).state
        if run.project_id is None:
            raise NotFound(f"there is no run {requested.run_id}")
        by = f"{BY_AGENT_RUN}{agent_run_id}"
        return _Asker(requested.agent, requested.run_id, run.project_id, requested.on_behalf_of, by)

    async def _put(
        self, caller: Caller, asked: AskedOfAgent, asker: _Asker, name: str, state: Schedule, wanted: _Wanted
    ) -> tuple[Command | None, dict[str, Json]]:  # fmt: skip
        at, schedule_id = self._clock(), schedules.schedule_id_of(caller.tenant_id, name)
        definition = _kept_anchor(_definition(wanted, at), state)
        await self._schedules.check(caller.tenant_id, asker.project_id, name, definition, at)
        if not state.is_there:
            await self._must_have_room(caller.tenant_id, asker)
            depth = (await self._roots.of(caller.tenant_id, asker.run_id)).depth
            command: CreateSchedule | ChangeSchedule = CreateSchedule(
                schedule_id=schedule_id, name=name, project_id=asker.project_id, definition=definition, at=at, by=asker.by,
                on_behalf_of=asker.on_behalf_of,
                made_by=Maker(agent=asker.agent, run_id=asker.run_id, agent_run_id=asked.agent_run_id, depth=depth),
            )  # fmt: skip
        elif not state.is_of(asker.owner):
            raise AlreadyExists(
                f"a schedule '{name}' exists, which no agent '{asker.agent}' of this project has made", pointer="/name"
            )
        else:
            changes = {field: getattr(definition, field) for field in Definition.model_fields}
            command = ChangeSchedule(
                schedule_id=schedule_id, changes=changes, at=at, by=asker.by, on_behalf_of=asker.on_behalf_of, owner=asker.owner
            )
        events = schedules.decide(state, command)  # on what this process knows; the append decides again
        for event in events:
            state = schedules.DECIDER.evolve(state, event)
        next_at = None if state.next_at is None else timestamp(state.next_at)
        return (command if events else None), {"status": state.status, "next_at": next_at}

    async def _must_have_room(self, tenant_id: UUID, asker: _Asker) -> None:
        of_run, of_project = await self._made.made_by_agents(
            tenant_id, asker.project_id, asker.run_id, MOST_OF_RUN, MOST_OF_PROJECT
        )
        if of_run >= MOST_OF_RUN:
            raise TooManySchedules(f"the agents of this run have made {MOST_OF_RUN} schedules: remove some, or use them again")
        if of_project >= MOST_OF_PROJECT:
            raise TooManySchedules(f"agents of this project have {MOST_OF_PROJECT:,} schedules that are not finished: remove some")


def _full_name(tenant_id: UUID, asker: _Asker, name: str) -> str:
    """The name of the schedule: it says which agent made it, and in a project of its own, in which."""
    where = "" if asker.project_id == default_project_id(tenant_id) else f".{asker.project_id.hex[-12:]}"
    full = f"{asker.agent}.{name}{where}"
    if len(full) > MOST_NAME:
        most = MOST_NAME - len(full) + len(name)
        raise InvalidCommand(f"with the name of the agent it is {len(full)} characters long: use at most {most}", pointer="/name")
    return full


def _definition(wanted: _Wanted, at: datetime) -> Definition:
    given = spelled_start(dict(wanted.definition))
    if wanted.in_s is not None:
        if "when" in given:
            raise InvalidCommand("give either `when` or `in_s`", pointer="/in_s")
        given["when"] = {"at": at + timedelta(seconds=wanted.in_s)}
    try:
        return Definition.model_validate(given)
    except ValidationError as error:
        faults = [(json_pointer(each["loc"]), told(each)) for each in meant(error.errors(include_url=False))][:50]
        pointer, detail = faults[0]
        raise InvalidCommand(f"{pointer}: {detail}" if pointer else detail, pointer=pointer, faults=faults) from None


def _kept_anchor(definition: Definition, state: Schedule) -> Definition:
    """An interval that goes on as it was keeps its times: else each run of the agent would move them."""
    was, when = state.definition, definition.when
    if (
        was is None
        or not state.is_there
        or when.every_s is None
        or when.anchored_at is not None
        or was.when.every_s != when.every_s
    ):
        return definition
    return definition.model_copy(update={"when": when.model_copy(update={"anchored_at": was.when.anchored_at})})


def _before(state: AgentRun, key: str, did: Did, name: str) -> Json:
    """What was answered under the key before. Raises RepeatedDifferently: something else was asked."""
    entry = state.journal.get(key)
    if entry is None:
        return None
    before = entry.result
    if entry.kind != "step" or not isinstance(before, dict) or (before.get("did"), before.get("name")) != (did, name):
        raise RepeatedDifferently(f"key '{key}' was recorded before, of something else", pointer="/key")
    return before


def _entry(request: CommandRequest, caller: Caller, command: Command, name: str, reason: str | None) -> RecordAction:
    """The entry in the audit trail: the key of the worker did it, for the agent run that the events name."""
    operation = {CreateSchedule: "create", ChangeSchedule: "change", RemoveSchedule: "remove"}[type(command)]
    assert isinstance(command, CreateSchedule | ChangeSchedule | RemoveSchedule)
    return RecordAction(
        entry_id=derive_id(request.command_id, "audit"), tenant_id=request.tenant_id, action=Action.SCHEDULES_DEFINE,
        operation=operation, actor=caller.actor, on_behalf_of=command.on_behalf_of, target_kind="schedule", target_id=name,
        reason=reason or f"asked by {command.by}", result="done",
    )  # fmt: skip
