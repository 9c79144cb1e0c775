"""Creating schedules, changing them, and runs out of turn."""

from datetime import datetime
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.plans.capabilities import KnownAgents
from application.plans.check import PlanChecks
from application.plans.registry import TenantRegistry
from application.runs.admission import RunAdmission
from application.schedules.firing import cancel_run, open_runs
from application.schedules.starting import ScheduleStarts
from application.workflows import Workflows
from domain import schedules
from domain.agents import AgentChanged
from domain.errors import InvalidCommand, InvalidState, NotFound, TidelogError, Unavailable
from domain.kernel import Functions
from domain.schedules import DECIDER, ChangeSchedule, CreateSchedule, Definition, Schedule, schedule_id_of
from domain.starting import Target
from domain.workflows import WorkflowChanged

MOST_LOOKS = 5


class ScheduleBusy(InvalidState):
    """A run of the schedule has not ended, and the schedule lets no two run at once."""

    code = "schedule-busy"


class Schedules:
    """What people do with schedules."""

    def __init__(
        self,
        commands: CommandLoop,
        workflows: Workflows,
        known: KnownAgents,
        functions: Functions,
        admission: RunAdmission,
        plans: PlanChecks,
    ) -> None:
        self._commands = commands
        self._workflows = workflows
        self._known = known
        self._functions = functions
        self._admission = admission
        self._plans = plans

    async def get(self, tenant_id: UUID, name: str) -> tuple[Schedule, int]:
        """A schedule that is there, and its version. Raises NotFound, Unavailable."""
        loaded = await self._commands.load(DECIDER, tenant_id, schedule_id_of(tenant_id, name))
        if not loaded.state.is_there:
            raise NotFound(f"there is no schedule '{name}'")
        return loaded.state, loaded.version

    async def create(self, request: CommandRequest, command: CreateSchedule) -> CommandOutcome:
        """Creates a schedule. A schedule of the name with the same content is left as it is.

        Raises InvalidCommand, NotFound: what is to be started, or an expression, is not right; AlreadyExists: there is another one
        of the name.
        """
        await self.check(request.tenant_id, command.project_id, command.name, command.definition, command.at)
        return await self._commands.execute(request, command)

    async def change(self, request: CommandRequest, name: str, command: ChangeSchedule, expected: int | None) -> CommandOutcome:
        """Changes fields of a schedule's definition. Raises as `create`, and NotFound, VersionConflict."""
        schedule, _ = await self.get(request.tenant_id, name)
        assert schedule.created is not None
        for event in schedules.decide(schedule, command):
            assert isinstance(event, schedules.ScheduleChanged)
            await self.check(request.tenant_id, schedule.created.project_id, name, event.definition, command.at)
        return await self._commands.execute(request, command, expected_version=expected)

    async def check(self, tenant_id: UUID, project_id: UUID, name: str, definition: Definition, at: datetime) -> None:
        """Raises what the start of the next run would be refused with, with a pointer into the definition."""
        due_at = definition.after(at)
        if due_at is None:
            return  # the rules say so
        if definition.start.plan is not None:  # agents are looked up by the start
            workflows = TenantRegistry(self._commands, None, self._workflows.lookup, tenant_id)
            await self._plans.must_be_valid(definition.start.plan, workflows, at="/start/plan")
        starts = ScheduleStarts(self._commands, self._workflows, self._known, self._functions, tenant_id)
        try:
            await starts.check(project_id, definition.start, name, due_at)
        except Unavailable:
            raise
        except TidelogError as error:
            if error.pointer is not None and not error.pointer.startswith(("/start", "/project_id")):
                error.pointer = f"/start{_within(definition.start, error.pointer)}"
                error.faults = tuple((f"/start{_within(definition.start, place)}", why) for place, why in error.faults)
            raise

    async def run_now(self, request: CommandRequest, name: str, run_id: UUID, at: datetime) -> tuple[CommandOutcome, UUID]:
        """Starts a run of a schedule out of turn. Its times stay as they are. Returns the run, too: a repeat finds the first one.

        Raises ScheduleBusy, NotFound, TooManyOpenRuns, TooManyOpenRunsOfTenant, and what the start of a run is refused with.
        """
        tenant_id = request.tenant_id
        schedule_id = schedule_id_of(tenant_id, name)
        if not self._admission.counted:
            await self._admission.ready()
        with self._admission.admitted(tenant_id) as admitted:
            for look in range(MOST_LOOKS):
                schedule, _ = await self.get(tenant_id, name)
                starts = ScheduleStarts(self._commands, self._workflows, self._known, self._functions, tenant_id, fresh=look > 0)
                if request.repeatable and (first := await self._commands.recorded(request)) is not None and first.recorded:
                    return first, self._first_run(first)
                await self._make_room(tenant_id, name, schedule)
                start = await starts.of(schedule, run_id, at)
                command = schedules.RunNow(schedule_id=schedule_id, run_id=run_id, at=at, by=request.actor)
                try:
                    outcome = await self._commands.execute(request, command, *start.commands)
                except (AgentChanged, WorkflowChanged):
                    continue
                if outcome.duplicate:
                    return outcome, self._first_run(outcome)
                admitted.position = outcome.position
                return outcome, run_id
        raise Unavailable("the agents or the workflow of the schedule are being changed: try again")

    def _first_run(self, outcome: CommandOutcome) -> UUID:
        fired = self._commands.registry.decoded(outcome.recorded[0])
        assert isinstance(fired, schedules.ScheduleFired)
        return fired.run_id

    async def _make_room(self, tenant_id: UUID, name: str, schedule: Schedule) -> None:
        """Cancels the run of before, or raises ScheduleBusy, as the schedule says."""
        last, definition = schedule.last_run_id, schedule.definition
        assert definition is not None
        if last is None or definition.overlap == "allow":
            return
        if not await open_runs(self._commands, tenant_id, {last}):
            return
        if definition.overlap == "cancel":
            await cancel_run(self._commands, tenant_id, name, last)
            return
        raise ScheduleBusy(f"run {last} of the schedule has not ended, and its overlap is '{definition.overlap}'")


def _within(start: Target, pointer: str) -> str:
    """The place in a start of what a run's start points to."""
    if start.agent is not None and pointer.startswith("/plan"):
        return "/agent"
    return pointer


def preview(name: str, tenant_id: UUID, definition: Definition, at: datetime, count: int) -> list[datetime]:
    """The next times at which runs would start, with their jitter. Raises InvalidCommand if there are none."""
    schedule_id = schedule_id_of(tenant_id, name)
    found = [schedules.starts_at(schedule_id, definition.jitter_s, due) for due in schedules.next_times(definition, at, count)]
    if not found:
        raise InvalidCommand("the schedule would never be due: no time is left", pointer="/when")
    return found
