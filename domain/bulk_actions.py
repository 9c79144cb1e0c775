"""Bulk actions: one command for all runs that a filter finds, with its progress.

A bulk action has a stream of its own. It begins with the filter. Then the runs that the filter finds are written down, so that it
ends, and so that everybody can read later which runs were meant. Then the runs get their commands, some at a time, and after each
time the stream says how far it has come and what became of them. So any process can go on where another one was killed, and a run
gets its command once: the id of the command follows from the bulk action and the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal, assert_never
from uuid import UUID

from immutables import Map
from pydantic import Field

from domain.errors import AlreadyExists, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, Json, Priority, ShortText, Value, derive_id, is_empty, replace
from domain.maps import PersistentMap

BulkVerb = Literal["pause", "resume", "cancel", "retry", "signal", "priority"]
BulkStatus = Literal["absent", "selecting", "acting", "completed", "cancelled", "failed"]
OPEN: frozenset[str] = frozenset({"selecting", "acting"})
SELECTED_TOGETHER = 1_000
"""Runs that one event names. Each event but the last names so many."""
MOST_EXAMPLES = 20
"""Refused runs that are named."""
EXAMPLES_OF_CODE = 3
"""Refused runs that are named for each reason."""


class SignalSaid(Value):
    """The signal that each run gets."""

    name: ShortText = Field(min_length=1)
    payload: Json = None
    step: Annotated[ShortText, Field(min_length=1)] | None = None
    """Only an agent of this step receives it."""


class BulkOrder(Value):
    """What each run is told."""

    verb: BulkVerb
    reason: ShortText | None = None
    compensate: bool | None = None
    """Of `cancel`: whether the effects of the runs are taken back. None: as the start of each run said."""
    fresh: bool = False
    """Of `retry`: whether the agents begin without their journals."""
    signal: SignalSaid | None = None
    priority: Priority | None = None
    """Of `priority`: which."""

    def said(self) -> dict[str, Json]:
        """As JSON without what it does not say, so a field that a later release adds does not change it."""
        return self.model_dump(mode="json", exclude_defaults=True)


class RunFilter(Value):
    """Which runs are meant: those for which all fields hold that are given, as in the list of runs."""

    statuses: tuple[str, ...] = ()
    """One of these. Empty: those in which the command can have an effect."""
    project_id: UUID | None = None
    agent: str | None = None
    workflow: str | None = None
    actor: str | None = None
    on_behalf_of: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None
    parent: UUID | None = None
    origin: str | None = None
    unmoved_s: float | None = None

    def said(self) -> dict[str, Json]:
        return self.model_dump(mode="json", exclude_defaults=True)


class ExampleOfRun(Value):
    """A run that refused the command."""

    run_id: UUID
    code: str
    message: str


class BulkActionStarted(Event):
    TOPIC = "bulk_action.started"
    order: Json
    """`BulkOrder`."""
    filter: Json
    """`RunFilter`."""
    within: tuple[UUID, ...] | None = None
    """Only runs of these projects. None: of the whole tenant."""
    by: str
    on_behalf_of: str | None = None


class RunsSelected(Event):
    """Runs that the filter has found, the newest first."""

    TOPIC = "bulk_action.runs_selected"
    number: int
    """1, 2, 3 …"""
    runs: tuple[UUID, ...]
    reached: int = 0
    """The status, by its place in the filter, up to which runs were looked for."""
    before: UUID | None = None
    """The last run of this status that was found. None: none was looked at."""
    complete: bool = False
    """These are the last ones."""


class BulkActionAdvanced(Event):
    """Some more of the runs have had their turn, the oldest first."""

    TOPIC = "bulk_action.advanced"
    handled: int
    """Of all runs, up to now."""
    done: int
    """Of these runs: the command has changed them."""
    unchanged: int = 0
    """They were already so."""
    refused: dict[str, int] = Field(default={}, exclude_if=is_empty)
    """The code of an error → how many refused the command with it."""
    examples: tuple[ExampleOfRun, ...] = Field(default=(), exclude_if=is_empty)


class BulkActionCompleted(Event):
    """All runs have had their turn."""

    TOPIC = "bulk_action.completed"
    handled: int
    """All of them."""


class BulkActionCancelled(Event):
    """Runs that have not had their turn are left alone."""

    TOPIC = "bulk_action.cancelled"
    by: str
    on_behalf_of: str | None = None
    reason: str | None = None


class BulkActionFailed(Event):
    """The runs cannot be found."""

    TOPIC = "bulk_action.failed"
    code: str
    message: str


BulkEvent = (
    BulkActionStarted | RunsSelected | BulkActionAdvanced | BulkActionCompleted | BulkActionCancelled | BulkActionFailed
)  # fmt: skip


@dataclass(frozen=True)
class BulkAction:
    status: BulkStatus = "absent"
    order: BulkOrder | None = None
    filter: RunFilter | None = None
    within: tuple[UUID, ...] | None = None
    by: str = ""
    on_behalf_of: str | None = None
    parts: int = 0
    """Events that name runs. They stand behind the first event of the stream."""
    selected: int = 0
    """Runs that were found."""
    reached: int = 0
    before: UUID | None = None
    complete: bool = False
    """All runs were found."""
    handled: int = 0
    done: int = 0
    unchanged: int = 0
    refused: PersistentMap[str, int] = field(default_factory=Map)
    examples: tuple[ExampleOfRun, ...] = ()

    @property
    def left(self) -> int:
        """Runs that were found and have not had their turn."""
        return self.selected - self.handled


class StartBulkAction(Command):
    bulk_action_id: UUID
    order: BulkOrder
    filter: RunFilter
    within: tuple[UUID, ...] | None = None
    by: str
    on_behalf_of: str | None = None


class SelectRuns(Command):
    """Names runs that the filter has found. Does nothing if others were named under the number, or the bulk action is over."""

    bulk_action_id: UUID
    number: int
    runs: tuple[UUID, ...] = Field(max_length=SELECTED_TOGETHER)
    reached: int
    before: UUID | None = None
    complete: bool = False


class AdvanceBulkAction(Command):
    """Says what became of runs. Does nothing if somebody said so before."""

    bulk_action_id: UUID
    begin: int
    """How many runs had had their turn before these."""
    count: int = Field(ge=1)
    done: int
    unchanged: int
    refused: dict[str, int] = {}
    examples: tuple[ExampleOfRun, ...] = ()


class CancelBulkAction(Command):
    bulk_action_id: UUID
    by: str
    on_behalf_of: str | None = None
    reason: ShortText | None = None


class FailBulkAction(Command):
    bulk_action_id: UUID
    code: str
    message: str


BulkCommand = StartBulkAction | SelectRuns | AdvanceBulkAction | CancelBulkAction | FailBulkAction


def command_id_of(bulk_action_id: UUID, run_id: UUID) -> UUID:
    """The id of the command that a run gets. A repeat is the same command."""
    return derive_id(bulk_action_id, f"run:{run_id}")


def decide(state: BulkAction, command: BulkCommand) -> list[Event]:
    if isinstance(command, StartBulkAction):
        if state.status != "absent":
            raise AlreadyExists(f"bulk action {command.bulk_action_id} was started before")
        return [
            BulkActionStarted(
                order=command.order.said(), filter=command.filter.said(), within=command.within, by=command.by,
                on_behalf_of=command.on_behalf_of,
            )
        ]  # fmt: skip
    if state.status == "absent":
        raise NotFound(f"there is no bulk action {command.bulk_action_id}")
    match command:
        case SelectRuns():
            return _select(state, command)
        case AdvanceBulkAction():
            return _advance(state, command)
        case CancelBulkAction():
            if state.status == "cancelled":
                return []
            if state.status not in OPEN:
                raise InvalidState(f"the bulk action is {state.status}: nothing is left to cancel")
            return [BulkActionCancelled(by=command.by, on_behalf_of=command.on_behalf_of, reason=command.reason)]
        case FailBulkAction():
            return [BulkActionFailed(code=command.code, message=command.message)] if state.status in OPEN else []
        case _:
            assert_never(command)


def _select(state: BulkAction, command: SelectRuns) -> list[Event]:
    if state.status != "selecting" or command.number != state.parts + 1:
        return []
    events: list[Event] = [
        RunsSelected(
            number=command.number, runs=command.runs, reached=command.reached, before=command.before, complete=command.complete
        )
    ]
    if command.complete and not state.selected and not command.runs:
        events.append(BulkActionCompleted(handled=0))
    return events


def _advance(state: BulkAction, command: AdvanceBulkAction) -> list[Event]:
    """Also after the bulk action was cancelled: the runs have had their commands."""
    if command.begin != state.handled or not state.complete or command.count > state.left:
        return []
    examples, room = [], MOST_EXAMPLES - len(state.examples)
    named: dict[str, int] = {}
    for example in state.examples:
        named[example.code] = named.get(example.code, 0) + 1
    for example in command.examples:
        if room > 0 and named.get(example.code, 0) < EXAMPLES_OF_CODE:
            named[example.code] = named.get(example.code, 0) + 1
            room -= 1
            examples.append(example)
    handled = state.handled + command.count
    events: list[Event] = [
        BulkActionAdvanced(
            handled=handled, done=command.done, unchanged=command.unchanged, refused=command.refused, examples=tuple(examples)
        )
    ]
    if handled == state.selected and state.status == "acting":
        events.append(BulkActionCompleted(handled=handled))
    return events


def evolve(state: BulkAction, event: BulkEvent) -> BulkAction:
    match event:
        case BulkActionStarted():
            order, filter_ = BulkOrder.model_validate(event.order), RunFilter.model_validate(event.filter)
            return replace(
                state, status="selecting", order=order, filter=filter_, within=event.within, by=event.by,
                on_behalf_of=event.on_behalf_of,
            )  # fmt: skip
        case RunsSelected():
            return replace(
                state, status="acting" if event.complete else state.status, parts=event.number, reached=event.reached,
                before=event.before, selected=state.selected + len(event.runs), complete=event.complete,
            )  # fmt: skip
        case BulkActionAdvanced():
            return replace(
                state, handled=event.handled, done=state.done + event.done, unchanged=state.unchanged + event.unchanged,
                refused=_summed(state.refused, event.refused), examples=state.examples + event.examples,
            )  # fmt: skip
        case BulkActionCompleted():
            return replace(state, status="completed")
        case BulkActionCancelled():
            return replace(state, status="cancelled")
        case BulkActionFailed():
            return replace(state, status="failed")
        case _:
            assert_never(event)


def _summed(counts: PersistentMap[str, int], more: Mapping[str, int]) -> PersistentMap[str, int]:
    for code, number in more.items():
        counts = counts.set(code, counts.get(code, 0) + number)
    return counts


DECIDER: Decider[BulkAction] = Decider("bulk_actions", BulkAction, decide, evolve)
