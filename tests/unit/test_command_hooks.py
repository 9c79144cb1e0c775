"""Hooks of the command loop: the order of their calls, their refusals, and their errors."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application.catalog import CATALOG
from application.engine.commands.hooks import DecidedCommand, Hook
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from domain import projects, runs
from domain.errors import Forbidden, InvalidState, TidelogError, Unavailable
from domain.kernel import Command
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import new_id, request_of


class Onlooker:
    """Notes its calls, and refuses or raises when a test wants it."""

    def __init__(self, name: str = "a", notes: list[tuple[object, ...]] | None = None) -> None:
        self.name = name
        self.notes = [] if notes is None else notes
        self.refuses: Exception | None = None
        self.breaks: BaseException | None = None

    def before_decide(self, request: CommandRequest, command: Command, stream_id: UUID) -> Sequence[Command] | None:
        self.notes.append((self.name, "before", type(command).__name__, stream_id))
        if self.refuses is not None:
            raise self.refuses
        return None

    def before_append(self, request: CommandRequest, decided: Sequence[DecidedCommand]) -> Sequence[Command] | None:
        return None

    def after_commit(self, request: CommandRequest, commands: Sequence[Command], first_position: int, last_position: int) -> None:
        self.notes.append((self.name, "after", tuple(type(c).__name__ for c in commands), first_position, last_position))
        if self.breaks is not None:
            raise self.breaks


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def loop_with(log: MemoryLog, *hooks: Hook) -> CommandLoop:
    return CommandLoop(MemoryEventStore(log), CATALOG, hooks=hooks, reactions=False)


def create(name: str = "p") -> projects.CreateProject:
    return projects.CreateProject(project_id=new_id(), name=name)


def start() -> runs.StartRun:
    return runs.StartRun(run_id=new_id(), project_id=new_id(), plan=runs.sequential(("alpha",)))


async def test_hooks_are_called_in_their_order_for_each_command(log: MemoryLog) -> None:
    notes: list[tuple[object, ...]] = []
    loop, one, other = loop_with(log, Onlooker("a", notes), Onlooker("b", notes)), create(), start()
    await loop.execute(request_of(), create())
    notes.clear()
    await loop.execute(request_of(), one, other)
    assert notes == [
        ("a", "before", "CreateProject", one.project_id),
        ("b", "before", "CreateProject", one.project_id),
        ("a", "before", "StartRun", other.run_id),
        ("b", "before", "StartRun", other.run_id),
        ("a", "after", ("CreateProject", "StartRun"), 2, 4),
        ("b", "after", ("CreateProject", "StartRun"), 2, 4),
    ]


async def test_a_refusal_comes_before_anything_is_loaded(log: MemoryLog) -> None:
    first, second = Onlooker("a"), Onlooker("b")
    first.refuses = InvalidState("not on a Sunday")
    with pytest.raises(InvalidState, match="Sunday"):
        await loop_with(log, first, second).execute(request_of(), create(), start())
    assert log.events == [] and len(first.notes) == 1 and second.notes == [], "the first refusal is enough"


async def test_a_refused_second_command_refuses_the_first_one_too(log: MemoryLog) -> None:
    class NoRuns(Onlooker):
        def before_decide(self, request: CommandRequest, command: Command, stream_id: UUID) -> Sequence[Command] | None:
            if isinstance(command, runs.StartRun):
                raise InvalidState("no runs")
            return None

    with pytest.raises(InvalidState):
        await loop_with(log, NoRuns()).execute(request_of(), create(), start())
    assert log.events == []


async def test_a_repeat_of_what_was_recorded_is_answered_although_a_hook_refuses_now(log: MemoryLog) -> None:
    hook = Onlooker()
    loop, request, command = loop_with(log, hook), request_of(repeatable=True), create()
    first = await loop.execute(request, command)
    hook.refuses, hook.notes[:] = InvalidState("the budget is used up"), []
    again = await loop.execute(request, command)
    assert (again.duplicate, again.position, again.versions) == (True, first.position, first.versions)
    assert [note[1] for note in hook.notes] == ["before"], "nothing was committed"
    with pytest.raises(InvalidState, match="budget"):
        await loop.execute(request_of(), create())


@pytest.mark.parametrize("error", [Forbidden("no"), Unavailable("away"), RuntimeError("a defect")])
async def test_other_errors_pass_through_for_a_repeat_too(log: MemoryLog, error: Exception) -> None:
    hook = Onlooker()
    loop, request, command = loop_with(log, hook), request_of(), create()
    await loop.execute(request, command)
    hook.refuses = error
    for asked in (request, request_of()):
        with pytest.raises(type(error)) as caught:
            await loop.execute(asked, command)
        assert caught.value is error
    assert isinstance(error, TidelogError | RuntimeError) and log.head == 1


async def test_an_error_after_the_commit_is_logged_and_the_answer_stands(log: MemoryLog) -> None:
    first, second = Onlooker("a"), Onlooker("b")
    first.breaks = RuntimeError("the audit is full")
    with capture_logs() as logs:
        outcome = await loop_with(log, first, second).execute(request_of(), create())
    assert outcome.position == 1 == log.head
    assert [(entry["event"], entry["hook"]) for entry in logs] == [("hook_failed", "Onlooker")]
    assert [note[1] for note in second.notes] == ["before", "after"], "the others are told all the same"


async def test_a_cancellation_in_a_hook_is_not_swallowed(log: MemoryLog) -> None:
    hook = Onlooker()
    hook.breaks = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await loop_with(log, hook).execute(request_of(), create())


async def test_hooks_hear_nothing_of_what_was_not_recorded(log: MemoryLog) -> None:
    """A refused command, a command with nothing to do, and a command that was recorded before."""
    hook = Onlooker()
    loop, command, request = loop_with(log, hook), create(), request_of()
    await loop.execute(request, command)
    hook.notes.clear()
    await loop.execute(request_of(), command)
    with pytest.raises(TidelogError):
        await loop.execute(request_of(), runs.CancelRun(run_id=new_id()))
    run, run_request = start(), request_of()
    await loop.execute(run_request, run)
    await loop.execute(run_request, run)
    assert [note[1:3] for note in hook.notes if note[1] == "after"] == [("after", ("StartRun",))]
    assert log.head == 3


async def test_a_hook_sees_the_request_itself(log: MemoryLog) -> None:
    seen: list[CommandRequest] = []

    class Keeps(Onlooker):
        def before_decide(self, request: CommandRequest, command: Command, stream_id: UUID) -> Sequence[Command] | None:
            seen.append(request)
            return None

        def before_append(self, request: CommandRequest, decided: Sequence[DecidedCommand]) -> Sequence[Command] | None:
            seen.append(request)
            return None

        def after_commit(
            self, request: CommandRequest, commands: Sequence[Command], first_position: int, last_position: int
        ) -> None:
            seen.append(request)

    request = request_of()
    await loop_with(log, Keeps()).execute(request, create())
    assert [each is request for each in seen] == [True, True, True]


async def test_a_hook_is_asked_once_however_many_conflicts_there_are(log: MemoryLog) -> None:
    hook = Onlooker()
    loop, run = loop_with(log, hook), start()
    other = CommandLoop(MemoryEventStore(log), CATALOG)
    await other.execute(request_of(), run)
    await loop.execute(request_of(), runs.CancelRun(run_id=run.run_id))
    assert [note[1] for note in hook.notes] == ["before", "after"]
