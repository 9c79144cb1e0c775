"""The client against a real HTTP server on a socket. Each test scripts the answers and the cuts of connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.pace import in_time
from tidelog import Client, TidelogAPIError, TidelogConnectionError, TidelogError
from tidelog.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    NotJsonError,
    RateLimitedError,
    UnreadableEventError,
    ValueTooDeepError,
)
from tidelog.sse import SseParser

RUN = "0190a5f0-0000-7000-8000-000000000001"


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """`cut`: the connection is closed without the end of the body that a chunked answer has."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


Script = Callable[[Request], Answer | None]


class Server:
    """Answers from a script; None closes the connection without an answer."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: Script = lambda request: Answer()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self.answer_one(reader, writer):
                pass
        writer.close()

    async def answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, target, headers, json.loads(content) if content else None)
        self.requests.append(request)
        answer = self.script(request)
        if answer is None:
            return False
        lines = [f"HTTP/1.1 {answer.status} X", "Transfer-Encoding: chunked", *(f"{k}: {v}" for k, v in answer.headers.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        for at in range(0, len(answer.body), 7):  # small chunks split lines and characters
            chunk = answer.body[at : at + 7]
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if not answer.cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not answer.cut


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield server
    listener.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, "secret", patience_s=5) as client:  # type: ignore[attr-defined]
        yield client


def problem(status: int, code: str, **more: Any) -> Answer:
    headers = {"Content-Type": "application/problem+json", **more.pop("headers", {})}
    document = {"type": "about:blank", "title": code, "status": status, "code": code, **more}
    return Answer(status, json.dumps(document).encode(), headers)


def ok(body: Any, **headers: str) -> Answer:
    return Answer(200, json.dumps(body).encode(), headers)


def in_turn(*answers: Answer | None) -> Script:
    rest = list(answers)
    return lambda request: rest.pop(0)


def sse(*positions: int, end: bool = False, extra: str = "") -> bytes:
    text = ": hello\n\n"
    for position in positions:
        data = {
            "specversion": "1.0",
            "id": f"s:{position}",
            "source": "/t",
            "type": "run.started",
            "time": "2026-01-02T03:04:05.000Z",
            "position": position,
            "data": {"text": "zwei\u2028Zeilen"},
        }
        text += f"id: {position}\nevent: run.started\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
    return (text + extra + ("event: end\ndata: {}\n\n" if end else "")).encode()


STARTED = {"run_id": RUN, "position": 7, "version": 1}


async def test_start_run_is_repeated_with_the_same_idempotency_key(server: Server, client: Client) -> None:
    server.script = in_turn(None, problem(503, "unavailable", retryable=True), ok(STARTED))
    started = await client.start_run(agent="a", input={"x": 1})
    assert started.run_id == UUID(RUN) and started.position == 7
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 3 and len(keys) == 1
    assert server.requests[0].body == {"agent": "a", "input": {"x": 1}}
    assert server.requests[0].headers["authorization"] == "Bearer secret"


async def test_the_three_ways_to_say_what_to_run(server: Server, client: Client) -> None:
    server.script = lambda request: ok(STARTED)
    await client.start_run(agents=["a", "b"], wait_s=3)
    await client.start_run(plan={"kind": "graph", "steps": []}, idempotency_key="mine")
    assert server.requests[0].body["plan"] == {"kind": "sequential", "agents": ["a", "b"]}
    assert server.requests[0].headers["prefer"] == "wait=3"
    assert server.requests[1].headers["idempotency-key"] == "mine"
    for wrong in ({}, {"agent": "a", "agents": ["b"]}):
        with pytest.raises(ValueError, match="exactly one"):
            await client.start_run(**wrong)  # type: ignore[arg-type]  # spread of a literal


async def test_reads_ask_for_what_was_written(server: Server, client: Client) -> None:
    step = {"key": "a", "agent": "a", "status": "running", "new_field": 1}
    run = {"run_id": RUN, "status": "running", "steps": [step], "position": 9}
    server.script = in_turn(ok(STARTED), ok(run, **{"Tidelog-Position": "99"}), ok(run))
    await client.start_run(agent="a")
    got = await client.get_run(UUID(RUN), as_of=5)
    assert got.step("a").status == "running" and not got.finished
    assert server.requests[1].target == f"/v1/runs/{RUN}?as_of=5"
    await client.get_run(UUID(RUN))
    assert [request.headers.get("tidelog-position") for request in server.requests] == [None, "7", "7"]


@pytest.mark.parametrize(("status", "kind"), [(404, NotFoundError), (409, ConflictError), (422, InvalidRequestError)])
async def test_refusals_are_typed_and_not_repeated(
    server: Server, client: Client, status: int, kind: type[TidelogAPIError]
) -> None:
    server.script = lambda request: problem(
        status, "some-code", detail="what happened", errors=[{"pointer": "/a", "detail": "bad"}], retryable=False
    )
    with pytest.raises(kind, match="some-code: what happened") as caught:
        await client.get_run(uuid4())
    error = caught.value
    assert (error.status, error.code, error.errors[0]["pointer"], error.retryable) == (status, "some-code", "/a", False)
    assert len(server.requests) == 1


async def test_retry_after_is_kept_and_patience_is_bounded(server: Server, client: Client) -> None:
    server.script = in_turn(problem(429, "slow-down", headers={"Retry-After": "0.5"}), ok({"data": []}))
    started = asyncio.get_running_loop().time()
    assert await client.agents() == []
    assert asyncio.get_running_loop().time() - started >= 0.5
    server.script = lambda request: problem(429, "slow-down", headers={"Retry-After": "3600"})
    with pytest.raises(RateLimitedError):
        await in_time(client.agents(), 20)
    assert len(server.requests) == 3, "not repeated before the server wants it to be"


async def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    async with Client("http://127.0.0.1:9", "k", patience_s=0.2) as client:
        with pytest.raises(TidelogConnectionError, match="/v1/agents"):
            await client.agents()


async def test_something_else_on_that_port_is_told_apart(server: Server, client: Client) -> None:
    server.script = in_turn(Answer(200, b"<html>"), Answer(502, b"<html>"), Answer(404, b"<html>"))
    with pytest.raises(TidelogConnectionError, match="not JSON"):
        await client.agents()
    with pytest.raises(NotFoundError, match="http-404"):
        await client.agents()


async def test_lists_are_read_page_by_page(server: Server, client: Client) -> None:
    server.script = in_turn(ok({"data": [{"name": "a"}], "next_cursor": "c/1"}), ok({"data": [{"name": "b"}], "next_cursor": None}))
    assert [agent.name for agent in await client.agents()] == ["a", "b"]
    assert server.requests[1].target == "/v1/agents?cursor=c%2F1"


async def test_a_broken_event_stream_is_resumed_without_loss_or_double(server: Server, client: Client) -> None:
    server.script = in_turn(
        Answer(200, sse(1, 2) + sse(3)[:-30], cut=True),  # event 3 is cut in the middle, so it was not received
        None,
        problem(503, "unavailable", retryable=True),
        Answer(200, sse(2, 3, extra="event: resync\ndata: {}\n\n") + sse(9)),  # event 2 again: a server may repeat events
        Answer(200, sse(4, 5, end=True) + sse(6)),
    )
    events = [event async for event in client.events(UUID(RUN))]
    assert [event.position for event in events] == [1, 2, 3, 4, 5]
    assert events[0].data == {"text": "zwei\u2028Zeilen"}
    assert [request.headers["last-event-id"] for request in server.requests] == ["0", "2", "2", "2", "3"]
    assert {request.target.split("?")[0] for request in server.requests} == {f"/v1/runs/{RUN}/events"}


async def test_an_event_stream_that_is_refused_or_gone_for_long_ends_with_an_error(server: Server, client: Client) -> None:
    server.script = lambda request: problem(404, "not-found", retryable=False)
    with pytest.raises(NotFoundError):
        _ = [event async for event in client.events(UUID(RUN))]
    server.script = lambda request: None
    with pytest.raises(TidelogConnectionError):
        _ = [event async for event in client.events(give_up_after_s=0.1)]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


UNREADABLE = {
    "no JSON": "{",
    "without its fields": '{"id": "s:2"}',
    "deeper than anything": '{"data": ' + "[" * 100_000 + "]" * 100_000 + "}",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_event_that_cannot_be_read_is_an_error_and_not_asked_for_for_ever(
    server: Server, client: Client, data: str
) -> None:
    server.script = lambda request: Answer(200, sse(1) + f"id: 2\nevent: run.odd\ndata: {data}\n\n".encode() + sse(3, end=True))
    got = []
    with pytest.raises(UnreadableEventError) as caught:
        async for event in client.events(UUID(RUN)):
            got.append(event.position)
    assert (got, caught.value.id, caught.value.type, len(server.requests)) == ([1], "2", "run.odd", 1)


async def test_a_page_with_such_an_event_is_the_same_error(server: Server, client: Client) -> None:
    server.script = lambda request: ok({"data": [{"id": "s:2", "type": "run.odd", "position": 2}], "next_cursor": None})
    with pytest.raises(UnreadableEventError) as caught:
        _ = [event async for event in client.events(follow=False)]
    assert (caught.value.id, caught.value.type) == ("2", "run.odd")


async def test_an_event_without_an_end_is_not_asked_for_for_ever(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidelog.sse.MAX_EVENT_BYTES", 1_000)
    server.script = lambda request: Answer(200, b"data: " + b"x" * 2_000)
    with pytest.raises(UnreadableEventError, match="without an end"):
        _ = [event async for event in client.events(UUID(RUN))]
    assert len(server.requests) == 1


@pytest.mark.parametrize("levels", [64, 199, 202, 500])
async def test_deep_values_that_a_server_has_are_read(server: Server, client: Client, levels: int) -> None:
    """Values of an older release are deeper than pydantic's own parser accepts."""
    event = {"id": "s:1", "type": "t", "source": "/", "time": "2026-01-02T03:04:05Z", "position": 1, "data": nested(levels)}
    stream = f"id: 1\nevent: t\ndata: {json.dumps(event)}\n\nevent: end\ndata: {{}}\n\n".encode()
    run = {"run_id": RUN, "status": "completed", "input": nested(levels)}
    server.script = in_turn(Answer(200, stream), ok({"data": [event], "next_cursor": None}), ok(run))
    assert [event.data async for event in client.events(UUID(RUN))] == [nested(levels)]
    assert [event.data async for event in client.events(UUID(RUN), follow=False)] == [nested(levels)]
    assert (await client.get_run(UUID(RUN))).input == nested(levels)


async def test_what_starts_a_run_is_made_json(server: Server, client: Client) -> None:
    server.script = lambda request: ok(STARTED)
    await client.start_run(agent="a", input={UUID(RUN)}, metadata={"at": Path("x")})
    step = {"key": "s", "agent": "a", "input": nested(64), "after": ("r",)}
    await client.start_run(plan={"kind": "graph", "steps": (step,)}, input=nested(64))
    assert server.requests[0].body == {"agent": "a", "input": [RUN], "metadata": {"at": "x"}}
    assert server.requests[1].body["plan"] == {"kind": "graph", "steps": [{**step, "after": ["r"]}]}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (nested(65), ValueTooDeepError), (nested(2_000), ValueTooDeepError), (float("nan"), NotJsonError),
        (float("-inf"), NotJsonError), ("\ud800", NotJsonError), (object(), NotJsonError),
    ],
    ids=["65 levels", "2,000 levels", "nan", "infinite", "half a surrogate pair", "object"],
)  # fmt: skip
async def test_values_that_the_server_would_not_take_are_not_sent(
    server: Server, client: Client, value: Any, error: type[TidelogError]
) -> None:
    steps = {"kind": "graph", "steps": [{"key": "s", "agent": "a", "input": value}]}
    for start in (
        client.start_run(agent="a", input=value),
        client.start_run(agent="a", metadata={"m": value}),
        client.start_run(plan=steps),
        client.create_project("p", {"m": value}),
    ):
        with pytest.raises(error):
            await start
    assert server.requests == []


async def test_events_without_following_are_read_as_pages(server: Server, client: Client) -> None:
    event = {"id": "x", "type": "t", "source": "/", "time": "2026-01-02T03:04:05Z"}
    server.script = in_turn(
        ok({"data": [{**event, "position": 4}], "next_cursor": "4"}), ok({"data": [{**event, "position": 5}], "next_cursor": None})
    )
    got = [event.position async for event in client.events(after=3, follow=False, types=["t", "u"])]
    assert got == [4, 5] and server.requests[0].headers["accept"] == "application/json"
    assert server.requests[0].target == "/v1/events?types=t%2Cu&after=3"


async def test_wait_follows_the_run_to_its_end(server: Server, client: Client) -> None:
    status = "running"

    def script(request: Request) -> Answer:
        nonlocal status
        if "/events" in request.target:
            status = "failed"
            return Answer(200, sse(8, 9, end=True))
        return ok({"run_id": RUN, "status": status, "position": 7, "error": {"message": "no"}})

    server.script = script
    run = await client.wait(UUID(RUN), timeout=5)
    assert run.status == "failed" and run.error == {"message": "no"}
    assert "after=7" in server.requests[1].target and server.requests[-1].headers["tidelog-position"] == "9"


async def test_wait_has_a_time_limit(server: Server, client: Client) -> None:
    server.script = lambda request: (
        Answer(200, b": nothing\n\n", cut=True) if "/events" in request.target else ok({"run_id": RUN, "status": "running"})
    )
    with pytest.raises(TimeoutError):
        await client.wait(UUID(RUN), timeout=0.5)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_parser_takes_any_line_end_in_any_pieces(newline: str, size: int) -> None:
    text = "id: 5\nevent: a\ndata: one\ndata:two\nretry: 9\nunknown\n\n: comment\n\ndata: ü\u2028\nid: 6\n\ndata: incomplete\n"
    raw = text.replace("\n", newline).encode()
    parser = SseParser()
    events = [event for at in range(0, len(raw), size) for event in parser.feed(raw[at : at + size])]
    events += list(parser.feed(b"")) if newline != "\r" else []
    assert [(event.event, event.data, event.id) for event in events] == [("a", "one\ntwo", "5"), ("message", "ü\u2028", "6")]


CALL = "0190a5f0-0000-7000-8000-000000000002"
RESOLVED = {"invocation_id": CALL, "position": 9, "version": 4}


async def test_resolving_says_exactly_one_thing(server: Server, client: Client) -> None:
    server.script = lambda request: ok(RESOLVED, **{"Tidelog-Position": "9"})
    await client.resolve(UUID(CALL), result=None, reason="I looked")
    await client.resolve(UUID(CALL), error="not sent", reason="I looked", evidence={"log": 1})
    done = await client.resolve(UUID(CALL), error={"type": "NotSent", "message": "no", "kind": "permanent"}, reason="I looked")
    await client.resolve(UUID(CALL), not_happened=True, attempt=2, reason="I looked")
    assert (done.invocation_id, done.position) == (UUID(CALL), 9)
    assert [request.body for request in server.requests] == [
        {"reason": "I looked", "result": None},
        {"reason": "I looked", "error": {"type": "ResolvedByHand", "message": "not sent"}, "evidence": {"log": 1}},
        {"reason": "I looked", "error": {"type": "NotSent", "message": "no", "kind": "permanent"}},
        {"reason": "I looked", "not_happened": True, "attempt": 2},
    ]
    assert server.requests[0].target == f"/v1/invocations/{CALL}/resolve"
    with pytest.raises(ValueError, match="exactly one"):  # a forgotten result must not mean "succeeded"
        await client.resolve(UUID(CALL), reason="I looked")
    with pytest.raises(ValueError, match="exactly one"):
        await client.resolve(UUID(CALL), result=1, error="no", reason="I looked")
    with pytest.raises(ValueError, match="exactly one"):
        await client.resolve(UUID(CALL), not_happened=True, result=None, reason="I looked")
    assert len(server.requests) == 4
    server.script = lambda request: problem(409, "already-resolved", detail="key:ann said before …")
    with pytest.raises(ConflictError) as refused:
        await client.resolve(UUID(CALL), result=1, reason="I looked")
    assert refused.value.code == "already-resolved"


async def test_calls_are_listed_page_by_page(server: Server, client: Client) -> None:
    call = {
        "invocation_id": CALL, "run_id": RUN, "agent_run_id": RUN, "key": "k", "tool": "t", "status": "ambiguous",
        "since": "2026-01-02T03:04:05.000Z", "attempt": 1, "cancel_requested": True, "new": "field",
    }  # fmt: skip
    server.script = in_turn(ok({"data": [call], "next_cursor": "more"}), ok({"data": [call], "next_cursor": None}), ok(call))
    calls = await client.invocations(status="ambiguous", run_id=UUID(RUN))
    assert [(found.tool, found.cancel_requested) for found in calls] == [("t", True)] * 2
    assert server.requests[0].target == f"/v1/invocations?status=ambiguous&run_id={RUN}"
    assert "cursor=more" in server.requests[1].target
    assert (await client.invocation(UUID(CALL))).status == "ambiguous"


async def test_a_stream_ends_if_nothing_follows(server: Server, client: Client) -> None:
    """The server answers 204 to a reader that has all events of a run that has ended."""
    server.script = in_turn(Answer(200, sse(5), {"Content-Type": "text/event-stream"}), Answer(204, b"", {}))

    async def positions() -> list[int]:
        return [event.position async for event in client.events(UUID(RUN))]

    assert await in_time(positions(), 15) == [5]
    assert [request.headers["last-event-id"] for request in server.requests] == ["0", "5"]


async def test_commands_say_for_whom_they_are_and_reads_do_not(server: Server) -> None:
    server.script = lambda request: ok({**STARTED, "project_id": RUN, "invocation_id": RUN, "data": [], "next_cursor": None})
    async with Client(server.url, "secret", on_behalf_of=" Ada Ångström ") as client:  # type: ignore[attr-defined]
        await client.start_run(agent="a")
        await client.start_run(agent="a", on_behalf_of="bob")
        await client.cancel_run(UUID(RUN))
        await client.resolve(UUID(RUN), reason="r", result=1)
        await client.create_project("p")
        await client.agents()
        for wrong in ("", " ", "x" * 201, "a\nX-Other: b", "a\x1b[31m", "\u202e", "\ud800"):
            with pytest.raises(ValueError, match="on_behalf_of must be 1 to 200 printable characters"):
                await client.start_run(agent="a", on_behalf_of=wrong)
    said = [request.headers.get("tidelog-on-behalf-of") for request in server.requests]
    assert said == ["Ada Ångström", "bob", *["Ada Ångström"] * 3, None], "and nothing was sent of what the server would refuse"
