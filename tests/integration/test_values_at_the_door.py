"""Every entrance for clients' JSON: at most 64 levels, finite numbers. Other values get a 422 that names the place, and nothing is
written."""

import itertools
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from domain.invocations import InvocationRequested
from domain.values import MAX_DEPTH
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.session_kit import Message, worker_at
from tests.integration.system_kit import System, new_id

JSON = {"Content-Type": "application/json"}
number = itertools.count(1)


@dataclass(frozen=True)
class Way:
    """A body that holds a value, or its part `inner`, at `%s`."""

    path: str
    body: bytes
    pointer: str
    inner: str = ""
    ends: bool = False
    """Whether an accepted request ends the work: such a request is sent only once."""


AGENT, CALL = "/v1/agent-runs/{agent_run}", "/v1/invocations/{invocation}"
WAYS = {
    "run input": Way("/v1/runs", b'{"agent":"alpha","input":%s}', "/input"),
    "run metadata": Way("/v1/runs", b'{"agent":"alpha","metadata":{"m":%s}}', "/metadata", "/m"),
    "step input": Way(
        "/v1/runs", b'{"plan":{"kind":"graph","steps":[{"key":"a","agent":"alpha","input":%s}]}}', "/plan/steps/0/input"
    ),
    "project metadata": Way("/v1/projects", b'{"name":"p","metadata":{"m":%s}}', "/metadata", "/m"),
    "agent result": Way(AGENT + "/complete", b'{"attempt":1,"result":%s}', "/result", ends=True),
    "tool result": Way(CALL + "/complete", b'{"attempt":1,"result":%s}', "/result", ends=True),
    "resolved result": Way(CALL + "/resolve", b'{"reason":"seen","result":%s}', "/result", ends=True),
    "evidence": Way(CALL + "/resolve", b'{"reason":"seen","result":1,"evidence":%s}', "/evidence", ends=True),
}

SAID = {
    "recorded step": (b'{"t":"record","key":"KEY","result":%s', 0),
    "shared value": (b'{"t":"set","key":"KEY","name":"v","value":%s', 0),
    "tool arguments": (b'{"t":"call","key":"KEY","tool":"add","arguments":{"x":%s}', 1),
    "message": (b'{"t":"send","key":"KEY","to":"beta","body":%s', 0), "agent result": (b'{"t":"complete","result":%s', 0),
    "tool parameters": (b'{"t":"define","agents":[],"tools":[{"name":"t","parameters":{"default":%s}}],"problems":[]', 1),
    "agent schemas": (b'{"t":"define","agents":[{"name":"a","input_schema":%s,"output_schema":1}],"tools":[],"problems":[]', 0),
}  # fmt: skip
"""Messages of a session that hold a value at `%s`, and the levels around it that count. Each field of a definition counts alone."""
DEFINITIONS = ("tool parameters", "agent schemas")

BOUNDS = {b"[": b"]", b'{"k":': b"}", b'["]", ': b"]", b'{"{":1, "\\"}": ': b"}"}
openers = st.lists(st.sampled_from(sorted(BOUNDS)), min_size=1, max_size=3)
FINITE = (b"1", b'"1e400"', b'"NaN"', b"1e308", b"-1.7976931348623157e308", b"1e-400", b"9" * 400, b"0e999", b'"[[[["', b"true")
INFINITE = (b"1e400", b"-1e400", b"1E+309", b"NaN", b"-Infinity", b"Infinity", b"9" * 250 + b"e99", b"1" + b"0" * 309 + b".0")


def nested(depth: int, pattern: list[bytes], leaf: bytes) -> bytes:
    """JSON text of that depth."""
    opened = [pattern[level % len(pattern)] for level in range(depth)]
    return b"".join(opened) + leaf + b"".join(BOUNDS[opener] for opener in reversed(opened))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def work(shared: System) -> dict[str, Claim]:
    """A claimed agent run and a claimed invocation of it."""
    worker = shared.worker()
    await worker.register("alpha", "beta", tools=["add"])
    run_id = await shared.start("alpha", "beta")
    alpha = await worker.step(run_id, "alpha")
    await alpha.call("first", "add")
    return {"agent_run": alpha, "invocation": await worker.next("add", "tool")}


async def send(system: System, work: dict[str, Claim], way: Way, value: bytes) -> httpx2.Response:
    path = way.path.format(**{kind: claim.work_id for kind, claim in work.items()})
    body = way.body.replace(b"KEY", b"k%d" % next(number)) % value
    return await system.http.post(path, content=body, headers=JSON)


async def refused(system: System, response: httpx2.Response, pointer: str, before: int) -> None:
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid-request"), problem
    assert problem["errors"][0]["pointer"] == pointer, problem
    assert await system.container.feed.head() == before


over = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.parametrize("name", WAYS)
@over
@given(depth=st.integers(1, 40) | st.integers(60, 70) | st.integers(70, 180), pattern=openers, leaf=st.sampled_from(FINITE))
async def test_depth(shared: System, work: dict[str, Claim], name: str, depth: int, pattern: list[bytes], leaf: bytes) -> None:
    way = WAYS[name]
    before = await shared.settled()
    if depth + bool(way.inner) > MAX_DEPTH:
        await refused(shared, await send(shared, work, way, nested(depth, pattern, leaf)), way.pointer, before)
    elif not way.ends:
        response = await send(shared, work, way, nested(depth, pattern, leaf))
        assert response.status_code in (200, 201), response.text


async def say(claim: Claim, name: str, value: bytes) -> Message:
    """Says a message by hand, and returns the answer of the session."""
    socket, of = await claim.worker.socket(), claim.body
    id = next(number)
    text = SAID[name][0].replace(b"KEY", b"k%d" % id) % value
    where = b',"id":%d,"work":"%s","attempt":%d,"token":"%s"}]' % (id, of["work"].encode(), of["attempt"], of["token"].encode())
    await socket.connection.send((b"[" + text + where).decode())
    return await socket.answer(id)


@pytest.mark.parametrize("name", SAID)
@over
@given(depth=st.integers(1, 40) | st.integers(60, 70) | st.integers(70, 180), pattern=openers, leaf=st.sampled_from(FINITE))
async def test_depth_of_what_a_worker_says(
    shared: System, work: dict[str, Claim], name: str, depth: int, pattern: list[bytes], leaf: bytes
) -> None:
    before, inner = await shared.settled(), SAID[name][1]
    if depth + inner <= MAX_DEPTH and name != "agent result":  # a result ends the work
        answer = await say(work["agent_run"], name, nested(depth, pattern, leaf))
        assert answer["t"] == "done", answer
    elif depth + inner > MAX_DEPTH:
        answer = await say(work["agent_run"], name, nested(depth, pattern, leaf))
        problems = (
            [answer["problem"]] if answer["t"] == "refused" else [one["problem"] for one in answer["agents"] + answer["tools"]]
        )
        assert [(problem["status"], problem["code"]) for problem in problems] == [(422, "invalid-request")], answer
        assert "64 levels" in problems[0]["detail"] and await shared.container.feed.head() == before


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("value", INFINITE)
async def test_a_number_that_is_not_finite_refuses_its_definition_only(
    shared: System, work: dict[str, Claim], name: str, value: bytes
) -> None:
    before = await shared.settled()
    answer = await say(work["agent_run"], name, value)
    [verdict] = answer["agents"] + answer["tools"]
    assert not verdict["accepted"] and verdict["problem"]["status"] == 422, answer
    assert await shared.container.feed.head() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SAID if name not in DEFINITIONS for value in INFINITE[:3]),
        *((name, b"[" * 100_000 + b"]" * 100_000) for name in SAID),
    ],
    ids=lambda said: said if isinstance(said, str) else said[:8].decode(),
)
async def test_a_frame_that_is_no_json_ends_the_connection(shared: System, work: dict[str, Claim], name: str, value: bytes) -> None:
    before = await shared.settled()
    async with worker_at(await shared.url(), shared.key) as worker:
        await worker.hello()
        await worker.connection.send((b"[" + SAID[name][0] % value + b',"id":1}]').decode())
        assert await worker.until_closed() == 4400
        assert (await worker.wait(t="error"))["problem"]["code"] == "malformed-message"
    assert await shared.container.feed.head() == before


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("levels", [210, 1_100, 100_000])
async def test_what_no_parser_takes(shared: System, work: dict[str, Claim], name: str, levels: int) -> None:
    """The answer does not name the place, because the body was not parsed."""
    before = await shared.settled()
    response = await send(shared, work, WAYS[name], b"[" * levels + b"]" * levels)
    await refused(shared, response, "", before)
    assert "64 levels" in response.json()["detail"]


@pytest.mark.parametrize("name", WAYS)
@over
@given(depth=st.integers(0, 60), pattern=st.just([b"["]) | st.just([b'{"k":']), leaf=st.sampled_from(INFINITE))
async def test_numbers(shared: System, work: dict[str, Claim], name: str, depth: int, pattern: list[bytes], leaf: bytes) -> None:
    way = WAYS[name]
    pointer = way.pointer + way.inner + ("/0" if pattern == [b"["] else "/k") * depth
    before = await shared.settled()
    await refused(shared, await send(shared, work, way, nested(depth, pattern, leaf)), pointer, before)
    long = b'{"long":"%s","x":%s}' % (b"x" * 2_000, leaf)
    await refused(shared, await send(shared, work, way, long), way.pointer + way.inner + "/x", before)


async def test_numbers_in_fields_of_their_own_are_refused_too(shared: System) -> None:
    before = await shared.settled()
    for leaf in INFINITE:
        body = b'{"plan":{"kind":"graph","steps":[{"key":"a","agent":"alpha","timeout_s":%s}]}}' % leaf
        response = await shared.http.post("/v1/runs", content=body, headers=JSON)
        await refused(shared, response, "/plan/steps/0/timeout_s", before)


@pytest.mark.parametrize("shape", ["items", "properties", "not", "allOf"])
async def test_schemas_that_the_door_takes_or_not_are_never_a_defect(shared: System, shape: str) -> None:
    for levels in range(1, 200, 9):
        schema: dict[str, Any] = {"type": "object"}
        for _ in range(levels):
            inner = {"p": schema} if shape == "properties" else [schema] if shape == "allOf" else schema
            schema = {shape: inner}
        async with worker_at(await shared.url(), shared.key) as worker:
            await worker.hello()
            await worker.say({"t": "define", "id": 1, "tools": [{"name": "odd", "parameters": schema}]})
            try:
                answer = await worker.answer(1)
            except ConnectionClosed:
                assert worker.closed == 4400 and levels > 60, "no parser takes it"
                continue
        verdicts = answer["tools"] if answer["t"] == "done" else [{**answer, "accepted": False}]
        for verdict in verdicts:
            assert verdict["accepted"] or verdict["problem"]["status"] == 422, verdict
            if not verdict["accepted"] and levels < 30:
                assert verdict["problem"]["errors"][0]["pointer"] == "/parameters"


async def test_the_deepest_values_go_all_the_way(system: System, worker: PlayedWorker) -> None:
    """Values of 64 levels in every place at once pass through journals, sagas, read models, replay and lists."""
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    [inner] = deep
    run_id = await system.start("alpha", "beta", input=deep, metadata={"m": inner})
    alpha = await worker.next("alpha")
    assert alpha.body["input"] == deep
    await alpha.ok("record", key="s", result=deep)
    await alpha.ok("set", key="v", name="v", value=deep)
    await alpha.ok("send", key="m", to="beta", body=deep)
    await alpha.call("c", "add", x=inner)
    call = await worker.next("add", "tool")
    assert call.body["arguments"] == {"x": inner}
    await call.complete(deep)
    await alpha.complete(deep)
    beta = await worker.next("beta")
    assert beta.body["results"] == {"alpha": deep}
    assert (await beta.ok("get", key="v", name="v"))["value"] == deep
    await system.settled()
    [mail] = (await beta.journal())["mailbox"]
    assert mail["body"] == deep
    await beta.ok("receive", key="r", message_id=mail["message_id"])
    await beta.complete(deep)
    run = await system.ended(run_id)
    assert (run["status"], run["result"], run["input"], run["metadata"]) == ("completed", deep, deep, {"m": inner})
    head = await system.container.feed.head()
    assert (await system.http.get(f"/v1/runs/{run_id}", params={"as_of": head})).json() == run
    [listed] = (await system.http.get("/v1/runs")).json()["data"]
    assert (listed["run_id"], listed["unreadable"]) == (run_id, False)
    [message] = (await system.http.get(f"/v1/runs/{run_id}/messages")).json()["data"]
    assert message["body"] == deep
    assert await system.sql("SELECT * FROM parked_event") == []
    assert InvocationRequested.TOPIC in await system.topics(run_id)


async def test_a_body_may_say_nothing_that_only_a_command_refuses(shared: System, work: dict[str, Claim]) -> None:
    """A value that only a command's own fields refuse would be a defect: bodies are as strict, or refuse the value themselves."""
    before = await shared.settled()
    alpha = work["agent_run"]
    value = (await alpha.post("set", key="nul", name="a\0b", value=1)).json()
    assert (value["code"], value["errors"][0]["pointer"]) == ("invalid-request", "/name")
    longest = "a" * 100
    await shared.worker().register(longest)
    before = await shared.settled()
    twice = await shared.http.post("/v1/runs", json={"plan": {"kind": "sequential", "agents": [longest, longest]}})
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (422, "/plan/agents"), twice.text
    assert await shared.container.feed.head() == before


async def test_a_command_with_a_value_that_is_too_deep_is_refused_where_events_are_written(system: System) -> None:
    """For writers that do not use HTTP: plug-ins, and users' own programs."""
    from domain.errors import InvalidCommand
    from domain.projects import CreateProject

    def project(levels: int) -> CreateProject:
        value: Any = 1
        for _ in range(levels - 1):
            value = [value]
        return CreateProject(project_id=new_id(), name="p", metadata={"m": value})

    await system.command(project(80))
    for levels in (81, 200, 400):
        with pytest.raises(InvalidCommand):
            await system.command(project(levels))
