"""Work that is claimed in the append that asks for it, beside other answers of sagas: masks, bounds, and words about defects."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
import structlog

from application.engine.catalog import Catalog
from application.engine.commands import follow_ups
from application.engine.commands.loop import CommandLoop
from application.engine.commands.part import Part
from application.engine.commands.request import CommandRequest
from application.engine.commands.routes import Route
from application.engine.ports.queue import WorkItem
from application.engine.sagas.reactions import Reaction, ReactionCause
from domain.errors import InvalidState
from domain.event_registry import EventRegistry
from domain.kernel import Command, Decider, Event
from tests.kit.commands import CountingStore
from tests.kit.memory import MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of


class Noted(Event):
    TOPIC = "thing.noted"
    text: str
    answers: dict[str, str] = {}
    """What the sagas do, by name."""


class Note(Command):
    stream_id: UUID
    text: str = "x"
    answers: dict[str, str] = {}
    refused: bool = False


def _decide(_: None, command: Note) -> list[Event]:
    if command.refused:
        raise InvalidState("not that")
    return [Noted(text=command.text, answers=command.answers)]


THINGS: Decider[None] = Decider("things", lambda: None, _decide, lambda state, _: state)
REGISTRY = EventRegistry({"things": (Noted,)}, {})
ROUTE = Route(THINGS, lambda c: c.stream_id, lambda c, _: c.stream_id, creates=True)
WORK = WorkItem(TENANT, "agent", "a", UUID(int=1), 1, UUID(int=1))


def _saga(name: str) -> Callable[[Noted, ReactionCause], list[Reaction]]:
    def handler(event: Noted, cause: ReactionCause) -> list[Reaction]:
        match event.answers.get(name):
            case "work":
                return [WORK]
            case "broken":
                raise ValueError("what is this?")
            case None:
                return []
            case text:
                return [Note(stream_id=cause.stream_id, text=text, refused=text == "refused")]

    return handler


NUMBERS = {"one": 1, "two": 62, "three": 5}
CATALOG = Catalog({Note: ROUTE}, REGISTRY, {name: {Noted: _saga(name)} for name in NUMBERS}, NUMBERS)
ONE, TWO, THREE = (1 << number for number in NUMBERS.values())


class Claim:
    """Claimed work: the claim is a note in the stream that asked for the work."""

    def __init__(self, stream_id: UUID, text: str) -> None:
        self.request: CommandRequest = request_of()
        self.commands: Sequence[Command] = [Note(stream_id=stream_id, text=text)]
        self.ends: list[str] = []

    def appended(self) -> None:
        self.ends.append("appended")

    def dropped(self) -> None:
        self.ends.append("dropped")

    def doubtful(self) -> None:
        self.ends.append("doubtful")


class Taker:
    def __init__(self, text: str = "claimed") -> None:
        self.claims: list[Claim] = []
        self._text = text

    def take(self, item: WorkItem, cause: ReactionCause, state: Any) -> Claim:
        self.claims.append(Claim(cause.stream_id, self._text))
        return self.claims[-1]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def loop_on(log: MemoryLog, taker: Taker) -> CommandLoop:
    loop = CommandLoop(CountingStore(log), CATALOG)
    loop.hand_over_to(taker)
    return loop


def texts(log: MemoryLog) -> list[str]:
    return [REGISTRY.decoded(event).text for event in log.events]  # type: ignore[attr-defined]


async def test_claimed_work_is_settled_beside_what_other_sagas_have_settled(log: MemoryLog) -> None:
    taker = Taker()
    await loop_on(log, taker).execute(request_of(), Note(stream_id=new_id(), answers={"one": "y", "two": "work", "three": "z"}))
    assert texts(log) == ["x", "y", "claimed", "z"]
    assert log.events[0].settled == ONE | TWO | THREE
    assert [claim.ends for claim in taker.claims] == [["appended"]]


async def test_a_claim_counts_for_the_bytes_of_what_follows(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_ups, "MAX_FOLLOW_UP_BYTES", 3_000)
    large = "z" * 2_000
    loop = loop_on(log, Taker(large))
    await loop.execute(request_of(), Note(stream_id=new_id(), answers={"one": "work", "two": large}))
    assert texts(log) == ["x", large], "the answer of the second saga is left to the manager"
    assert log.events[0].settled == ONE


@pytest.mark.parametrize(("answer", "level"), [("broken", "warning"), ("refused", "debug")])
async def test_a_defect_is_told_and_a_refusal_is_not(log: MemoryLog, answer: str, level: str) -> None:
    with structlog.testing.capture_logs() as lines:
        await loop_on(log, Taker()).execute(request_of(), Note(stream_id=new_id(), answers={"one": answer}))
    assert [(line["event"], line["log_level"]) for line in lines] == [("reaction_left_to_manager", level)]
    assert texts(log) == ["x"]


def test_a_part_begins_before_all_events_of_its_stream() -> None:
    command = Note(stream_id=new_id())
    part = Part(command, ROUTE)
    assert (part.stream_id, part.version, part.position, part.events) == (command.stream_id, 0, 0, [])
