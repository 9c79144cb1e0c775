"""What an id or its beginning names."""

from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.find_ids import MOST, Named, find_ids
from domain.errors import InvalidCommand
from tests.kit.memory import MemoryLog, MemoryLogIndex

TENANT = uuid7()
RUN = UUID("0198c0de-1234-7abc-8000-000000000001")
STEP = UUID("0198c0de-1234-7abd-8000-000000000002")
PROJECT = UUID("0198c0df-0000-7000-8000-000000000003")


@pytest.fixture
def index() -> MemoryLogIndex:
    log = MemoryLog()
    for stream, root, topics in (
        (RUN, RUN, ["run.started", "run.completed"]),
        (STEP, RUN, ["agent_run.requested"]),
        (PROJECT, PROJECT, ["project.created"]),
    ):
        events = tuple(NewEvent(topic, 1, b"{}") for topic in topics)
        log.add(one_command(TENANT, stream, (StreamAppend(stream, root, 0, events),), "{}"))
    return MemoryLogIndex(log)


A_RUN, A_STEP = Named(str(RUN), "run", RUN, 1), Named(str(STEP), "agent_run", RUN, 3)
A_PROJECT = Named(str(PROJECT), "project", None, 4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0198c0de-1234-7abc", [A_RUN]),
        ("0198C0DE12347ABD", [A_STEP]),
        ("0198c0de-1234", [A_RUN, A_STEP]),
        ("0198", [A_RUN, A_STEP, A_PROJECT]),
        ("0199", []),
        (str(RUN), [A_RUN, Named(str(RUN), "command", None, 1, 2)]),
        (f"{RUN}:2", [Named(f"{RUN}:2", "event", None, 2)]),
        (f"{RUN}:3", []),
        (f"{RUN}:9999999999999999999", []),
    ],
)
async def test_what_is_found(index: MemoryLogIndex, text: str, found: list[Named]) -> None:
    assert await find_ids(index, TENANT, text) == (found, True)
    assert (await find_ids(index, uuid7(), text))[0] == []


@pytest.mark.parametrize(
    "text",
    [
        "019",
        "",
        "----",
        "019g",
        "0198c0de-1234-7abc-8000-0000000000011",
        f"{RUN}:0",
        f"{RUN}:",
        "x" * 36 + ":1",
        "-" * 36 + ":1",
        "%",
        "0198 c0de",
    ],
)
async def test_another_text_is_refused(index: MemoryLogIndex, text: str) -> None:
    with pytest.raises(InvalidCommand):
        await find_ids(index, TENANT, text)


async def test_at_most_so_many_are_looked_at() -> None:
    log = MemoryLog()
    for n in range(MOST + 1):
        stream = UUID(int=(0x0198C0DE << 96) | n)
        log.add(one_command(TENANT, uuid7(), (StreamAppend(stream, stream, 0, (NewEvent("run.started", 1, b"{}"),)),), "{}"))
    found, complete = await find_ids(MemoryLogIndex(log), TENANT, "0198c0de")
    assert (len(found), complete) == (MOST, False)
