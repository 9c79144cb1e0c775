"""The messages of the server to a worker: in their order, many in one frame, and one that is alone without a turn of the loop."""

import asyncio
from itertools import chain
from typing import Any

import orjson
import pytest
import pytest_asyncio

from api.http.sessions.answers import Answers
from api.http.sessions.limits import CROWDED
from api.http.sessions.outbox import Outbox
from application.workers.hosting.messages import Done, LifeSign
from tests.pace import until, within


class Socket:
    """Takes frames, at once or, while it is full, when it has room again."""

    def __init__(self) -> None:
        self.frames: list[list[Any]] = []
        self.room = asyncio.Event()
        self.room.set()

    def write(self, frame: bytes) -> bool:
        if self.room.is_set():
            self.frames.append(orjson.loads(frame))
        return self.room.is_set()

    async def send(self, message: Any) -> None:
        await self.room.wait()
        if message["type"] == "websocket.send":
            self.frames.append(orjson.loads(message["text"]))

    @property
    def ids(self) -> list[list[int]]:
        return [[message["id"] for message in frame if "id" in message] for frame in self.frames]

    async def has(self, ids: list[int]) -> None:
        """Waits until these messages have come, in this order."""

        async def all_came() -> bool:
            return len(list(chain(*self.ids))) >= len(ids)

        await until(all_came, 10)
        assert list(chain(*self.ids)) == ids


@pytest.fixture
def socket() -> Socket:
    return Socket()


@pytest_asyncio.fixture
async def outbox(socket: Socket) -> Any:
    outbox = Outbox(socket.send, Answers("trace", 10_000), lambda: None, socket.write)
    running = asyncio.create_task(outbox.run())
    await asyncio.sleep(0)
    yield outbox
    outbox.end("left")
    socket.room.set()
    await running
    outbox.close()


async def test_what_is_alone_is_sent_at_once(outbox: Outbox, socket: Socket) -> None:
    outbox.put(Done(1), alone=True)
    outbox.put(Done(2), alone=True)
    assert socket.ids == [[1], [2]]


async def test_others_go_together_and_in_order(outbox: Outbox, socket: Socket) -> None:
    for number in (1, 2):
        outbox.put(Done(number))
    outbox.put(Done(3), alone=True)
    assert socket.ids == [], "two messages wait, and the third must not overtake them"
    await socket.has([1, 2, 3])
    assert socket.ids == [[1, 2, 3]]
    outbox.put(Done(4), alone=True)
    assert socket.ids[1:] == [[4]]


async def test_a_full_socket_keeps_the_order(outbox: Outbox, socket: Socket) -> None:
    socket.room.clear()
    outbox.put(Done(1), alone=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    socket.room.set()
    outbox.put(Done(2), alone=True)
    await socket.has([1, 2])


async def test_a_crowd_is_sent_and_tells_of_its_relief(outbox: Outbox, socket: Socket) -> None:
    relieved = asyncio.Event()
    outbox.on_relief = relieved.set
    socket.room.clear()
    outbox.put(Done(1, {"value": "x" * (CROWDED // 2)}))
    await asyncio.sleep(0)
    outbox.put(Done(2, {"value": "x" * (CROWDED // 2)}))
    outbox.put(Done(3, {"value": "x" * (CROWDED // 2)}))
    outbox.put(Done(4, {"value": "x" * (CROWDED // 2)}))
    assert outbox.is_crowded and not outbox.relieved.is_set()
    outbox.put(LifeSign(), urgent=True)
    socket.room.set()
    async with within(10):
        await relieved.wait()
    await socket.has([1, 2, 3, 4])
