"""An answer that is complete goes out as one piece, with the bytes that uvicorn would send in two."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.http.conventions.cycle import EXTENSIONS, RequestCycle, send_complete


class Flow:
    def __init__(self) -> None:
        self.write_paused = False
        self.drained = asyncio.Event()

    async def drain(self) -> None:
        await self.drained.wait()


class Written:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def close(self) -> None:
        self.closed = True


class Sending:
    """A request whose answer is sent by a cycle."""

    def __init__(self, kind: type[RequestResponseCycle], *, keep_alive: bool = True) -> None:
        self.transport, self.flow, self.answered = Written(), Flow(), 0
        self.scope: Any = {"type": "http", "method": "GET", "extensions": EXTENSIONS}
        log: Any = logging.getLogger()
        parts: Any = {"scope": self.scope, "transport": self.transport, "flow": self.flow, "logger": log, "access_logger": log}
        self.cycle = kind(
            **parts, access_log=False, default_headers=[(b"server", b"x")], message_event=asyncio.Event(),
            expect_100_continue=False, keep_alive=keep_alive, on_response=self._on_response,
        )  # fmt: skip

    def _on_response(self) -> None:
        self.answered += 1

    async def send(self, response: Response) -> bool:
        if await send_complete(response, self.scope, self.cycle.send):  # type: ignore[arg-type]
            return True
        await response(self.scope, self.cycle.receive, self.cycle.send)  # type: ignore[arg-type]
        return False


def plain(status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(b'{"a":1}', status, headers, "application/json")


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}, {"ETag": '"v1"', "Location": "/v1/runs/1"}])
async def test_the_bytes_are_those_of_uvicorn(keep_alive: bool, headers: dict[str, str]) -> None:
    ours, theirs = Sending(RequestCycle, keep_alive=keep_alive), Sending(RequestResponseCycle, keep_alive=keep_alive)
    theirs.scope = {**theirs.scope, "extensions": {}}
    assert await ours.send(plain(201, headers)) and not await theirs.send(plain(201, headers))
    assert len(ours.transport.pieces) == 1 and b"".join(ours.transport.pieces) == b"".join(theirs.transport.pieces)
    assert (ours.transport.closed, ours.answered) == (theirs.transport.closed, theirs.answered)
    assert ours.cycle.response_started and ours.cycle.response_complete and ours.cycle.message_event.is_set()


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b"])
async def test_a_header_never_becomes_two_lines(value: str) -> None:
    sending = Sending(RequestCycle)
    with pytest.raises(RuntimeError, match="line break or a NUL"):
        await sending.send(plain(200, {"X-Name": value}))
    assert sending.transport.pieces == []


async def test_answers_without_content_and_streams_go_the_way_of_asgi() -> None:
    async def parts() -> Any:
        yield b"a"

    for response in (Response(status_code=204), Response(status_code=304), StreamingResponse(parts())):
        sending = Sending(RequestCycle)
        assert not await send_complete(response, sending.scope, sending.cycle.send)  # type: ignore[arg-type]
        assert sending.transport.pieces == []


async def test_a_peer_that_does_not_read_is_waited_for_and_one_that_has_gone_gets_nothing() -> None:
    sending = Sending(RequestCycle)
    sending.flow.write_paused = True
    task = asyncio.create_task(sending.send(plain()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert sending.transport.pieces == []
    sending.flow.write_paused = False
    sending.flow.drained.set()
    assert await task and len(sending.transport.pieces) == 1
    gone = Sending(RequestCycle)
    gone.cycle.disconnected = True
    assert await gone.send(plain()) and gone.transport.pieces == [] and not gone.answered


async def test_a_second_answer_is_a_defect() -> None:
    sending = Sending(RequestCycle)
    await sending.send(plain())
    with pytest.raises(RuntimeError, match="follows the beginning"):
        await sending.send(plain())
