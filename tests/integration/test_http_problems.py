"""Refused requests and their answers: RFC 9457 problem details with a stable code and pointers, and without internals of the
server."""

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx2
import orjson
import pytest
import pytest_asyncio

from application.engine.ports.pages import encode_cursor
from tests.integration.session_kit import offer
from tests.integration.system_kit import System, issue_key_without_projector, new_id, running

GRAPH = {"kind": "graph", "steps": [{"key": "a", "agent": "alpha"}]}
HUGE = "9" * 40
VAST = "9" * 4_400
"""More digits than Python converts to an integer."""
VAST_CURSOR = encode_cursor(VAST)
RUN = "01a1fee4-5491-7acb-b298-f672838d6810"
"""The id of no run. The id is the same in each process that collects these tests."""


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def agents(shared: System) -> None:
    await shared.worker().register("alpha", "beta", tools=["add"])


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), response.text
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "code", "retryable", "trace_id"} <= problem.keys()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["instance"] == response.request.url.path
    assert problem["trace_id"] == response.headers["tidelog-trace-id"]
    for secret in ("Traceback", "SELECT", "psycopg", "pydantic", "/site-packages", ".py"):
        assert secret not in response.text
    return problem


def steps(*given: dict[str, Any]) -> dict[str, Any]:
    return {"plan": {"kind": "graph", "steps": list(given)}}


BODIES: list[tuple[str, Any, str, str | None]] = [
    ("/v1/runs", b"{", "invalid-request", ""),
    ("/v1/runs", b"", "invalid-request", ""),
    ("/v1/runs", b"[1]", "invalid-request", ""),
    ("/v1/runs", b'"\xff"', "invalid-request", ""),
    ("/v1/runs", b'{"agent":"alpha","input":' + b"[" * 100_000, "invalid-request", ""),
    ("/v1/runs", b'{"agent":"alpha","input":NaN}', "invalid-request", "/input"),
    ("/v1/runs", b'{"agent":"alpha","input":[-Infinity]}', "invalid-request", "/input/0"),
    ("/v1/runs", b'{"agent":"alpha","input":"\\ud800"}', "invalid-request", ""),
    ("/v1/runs", {"agent": "alpha", "input": "a\x00b"}, "invalid-command", None),
    ("/v1/runs", {"agent": "alpha", "inptu": 1}, "invalid-request", "/inptu"),
    ("/v1/runs", {"agent": "alpha", "a/b~c": 1}, "invalid-request", "/a~1b~0c"),
    ("/v1/runs", {}, "invalid-request", ""),
    ("/v1/runs", {"agent": "alpha", "plan": GRAPH}, "invalid-request", ""),
    ("/v1/runs", {"agent": "No Name"}, "invalid-request", "/agent"),
    ("/v1/runs", {"agent": "alpha", "run_id": "7"}, "invalid-request", "/run_id"),
    ("/v1/runs", {"plan": {"kind": "adaptive"}}, "invalid-request", "/plan"),
    ("/v1/runs", {"plan": {"kind": "graph"}}, "invalid-request", "/plan/steps"),
    ("/v1/runs", {"plan": {"kind": "sequential", "agents": ["alpha", "Beta"]}}, "invalid-request", "/plan/agents/1"),
    ("/v1/runs", steps({"key": "a", "agent": "alpha", "timeout_s": -1}), "invalid-request", "/plan/steps/0/timeout_s"),
    ("/v1/runs", steps({"key": "a", "agent": "alpha", "retry": {"max": 2}}), "invalid-request", "/plan/steps/0/retry/max"),
    ("/v1/runs", steps({"key": "a", "agent": "alpha", "after": ["b"]}), "invalid-request", "/plan/steps/0/after/0"),
    ("/v1/runs", steps(*({"key": "a", "agent": "alpha"},) * 2), "invalid-request", "/plan/steps/1/key"),
    (
        "/v1/runs",
        steps({"key": "a", "agent": "alpha", "after": ["b"]}, {"key": "b", "agent": "beta", "after": ["a"]}),
        "invalid-request",
        "/plan/steps/0/after/0",
    ),
    ("/v1/runs/" + RUN + "/cancel", {"expected_version": "x"}, "invalid-request", "/expected_version"),
    ("/v1/projects", {"name": " "}, "invalid-request", "/name"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "code", "pointer"), BODIES)
async def test_a_body_that_makes_no_sense(shared: System, path: str, body: Any, code: str, pointer: str | None) -> None:
    before = await shared.settled()
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    response = await shared.http.post(path, content=content, headers={"Content-Type": "application/json"})
    problem = assert_problem(response, 422, code)
    assert problem["retryable"] is False
    if pointer is not None:
        assert problem["errors"][0]["pointer"] == pointer, problem
    assert await shared.container.feed.head() == before


@pytest.mark.parametrize(
    ("offers", "code", "pointer"),
    [
        ({"tools": [{"name": "t", "parameters": {"type": 7}}]}, "invalid-command", "/parameters"),
        ({"agents": [{"name": "A"}]}, "invalid-request", "/name"),
        ({"agents": [{"name": "a", "description": "x" * 100_001}]}, "invalid-request", "/description"),
        ({"tools": [{"name": "t", "parameters": {}, "timeout_s": 0}]}, "invalid-request", "/timeout_s"),
    ],
)
async def test_a_definition_that_makes_no_sense(shared: System, offers: dict[str, Any], code: str, pointer: str) -> None:
    before = await shared.settled()
    welcome = await offer(await shared.url(), shared.key, **offers)
    [verdict] = [*welcome["agents"], *welcome["tools"]]
    problem = verdict["problem"]
    assert (verdict["accepted"], problem["status"], problem["code"]) == (False, 422, code)
    assert problem["errors"][0]["pointer"] == pointer, problem
    assert await shared.container.feed.head() == before


async def test_the_cycle_of_a_plan_is_named(shared: System) -> None:
    plan = steps({"key": "a", "agent": "alpha", "after": ["b"]}, {"key": "b", "agent": "beta", "after": ["a"]})
    assert "cycle" in (await shared.http.post("/v1/runs", json=plan)).json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"agent": "nobody"}, "/agent"),
        ({"plan": {"kind": "sequential", "agents": ["alpha", "nobody"]}}, "/plan/agents/1"),
        ({"plan": {"kind": "parallel", "agents": ["alpha"], "aggregator": "nobody"}}, "/plan/aggregator"),
        (steps({"key": "a", "agent": "alpha"}, {"key": "b", "agent": "nobody"}), "/plan/steps/1/agent"),
        (steps({"key": "a", "agent": "alpha", "agent_version": "9"}), "/plan/steps/0/agent"),
    ],
)
async def test_an_unknown_agent(shared: System, body: dict[str, Any], pointer: str) -> None:
    problem = assert_problem(await shared.http.post("/v1/runs", json=body), 404, "unknown-agent")
    assert problem["errors"][0]["pointer"] == pointer


async def test_an_unknown_project(shared: System) -> None:
    response = await shared.http.post("/v1/runs", json={"agent": "alpha", "project_id": str(new_id())})
    assert assert_problem(response, 404, "unknown-project")["errors"][0]["pointer"] == "/project_id"


QUERIES = [
    ("/v1/runs?cursor=%21", 422, "invalid-command"),
    ("/v1/runs?cursor=abcd", 422, "invalid-command"),
    ("/v1/runs?cursor=%C2%B2", 422, "invalid-command"),
    ("/v1/runs?limit=0", 422, "invalid-request"),
    ("/v1/runs?limit=1001", 422, "invalid-request"),
    ("/v1/runs?status=odd", 422, "invalid-command"),
    ("/v1/runs?project_id=7", 422, "invalid-request"),
    ("/v1/projects?cursor=abcd", 422, "invalid-command"),
    ("/v1/agents?cursor=_w", 422, "invalid-command"),
    ("/v1/agents?cursor=AA", 422, "invalid-command"),
    ("/v1/agents?capability=%00", 422, "invalid-command"),
    ("/v1/tools?cursor=AA", 422, "invalid-command"),
    ("/v1/workers?cursor=AA", 422, "invalid-command"),
    ("/v1/workers?cursor=MDE4ZjAwMDAtMDAwMC03MDAwLTgwMDAtMDAwMDAwMDAwMDAxIAA", 422, "invalid-command"),
    (f"/v1/runs/{RUN}/messages?cursor=YQ", 422, "invalid-command"),
    ("/v1/events?cursor=YQ", 422, "invalid-command"),
    ("/v1/events?cursor=wrI", 422, "invalid-command"),  # the digit ² in base64
    ("/v1/events?cursor=" + "OTk5" * 10, 422, "invalid-command"),  # 999…
    ("/v1/events?types=run.started,run.exploded", 422, "invalid-command"),
    ("/v1/events?after=-1", 422, "invalid-request"),
    (f"/v1/events?after={HUGE}", 422, "invalid-request"),
    ("/v1/events?root_id=7", 422, "invalid-request"),
    ("/v1/events?as_of=yesterday", 422, "invalid-command"),
    (f"/v1/events?as_of={HUGE}", 422, "invalid-command"),
    ("/v1/events/0", 404, "not-found"),
    ("/v1/events/-5", 404, "not-found"),
    ("/v1/events/987654321", 404, "not-found"),
    (f"/v1/events/{HUGE}", 404, "not-found"),
    ("/v1/events/x", 422, "invalid-request"),
    ("/v1/runs/x", 422, "invalid-request"),
    (f"/v1/runs/{RUN}", 404, "not-found"),
    (f"/v1/runs/{RUN}?as_of=1", 404, "not-found"),
    (f"/v1/runs/{RUN}?as_of=2020-01-01T00:00:00Z", 404, "not-found"),
    (f"/v1/runs/{RUN}?as_of=2020-01-01T00:00:00", 422, "invalid-command"),
    (f"/v1/runs/{RUN}?as_of=yesterday", 422, "invalid-command"),
    (f"/v1/runs/{RUN}?as_of=%C2%B2", 422, "invalid-command"),
    (f"/v1/runs/{RUN}?as_of={HUGE}", 422, "invalid-command"),
    (f"/v1/runs/{RUN}/events", 404, "not-found"),
    (f"/v1/runs/{RUN}/messages", 404, "not-found"),
    (f"/v1/runs?limit={VAST}", 422, "invalid-request"),
    (f"/v1/runs?cursor={VAST_CURSOR}", 422, "invalid-command"),
    (f"/v1/events?after={VAST}", 422, "invalid-request"),
    (f"/v1/events?cursor={VAST_CURSOR}", 422, "invalid-command"),
    (f"/v1/events?as_of={VAST}", 422, "invalid-command"),
    (f"/v1/events/{VAST}", 422, "invalid-request"),
    (f"/v1/runs/{RUN}?as_of={VAST}", 422, "invalid-command"),
    (f"/schemas/run.started/v{VAST}", 422, "invalid-request"),
    ("/v1/runs?stauts=failed&limit=5", 422, "invalid-request"),
    ("/v1/runs?agnet=nobody", 422, "invalid-request"),
    ("/v1/runs?metadata.team=x", 422, "invalid-request"),
    ("/v1/runs?STATUS=failed", 422, "invalid-request"),
    ("/v1/runs?status=failed&status=completed", 422, "invalid-request"),
    ("/v1/runs?limit=1_000", 422, "invalid-request"),
    ("/v1/runs?limit=%2b1", 422, "invalid-request"),
    ("/v1/runs?cursor=", 422, "invalid-command"),
    ("/v1/agents?cursor=", 422, "invalid-command"),
    ("/v1/agents?capabilty=x", 422, "invalid-request"),
    ("/v1/events?type=run.failed", 422, "invalid-request"),
    ("/v1/events?types=", 422, "invalid-command"),
    ("/v1/events?types=,", 422, "invalid-command"),
    ("/v1/events?as_of=", 422, "invalid-command"),
    ("/v1/events?as_of=9223372036854775807", 422, "invalid-command"),
    ("/v1/events?after=9223372036854775807", 422, "invalid-request"),
    ("/v1/events/1.0", 422, "invalid-request"),
    ("/v1/events/%2b1", 422, "invalid-request"),
    (f"/v1/runs/{RUN}?as-of=1", 422, "invalid-request"),
    (f"/v1/runs/{RUN}?as_of=", 422, "invalid-command"),
    (f"/v1/runs/{RUN}?as_of=9223372036854775807", 422, "invalid-command"),
    ("/health/live?x=1", 422, "invalid-request"),
    ("/openapi.json?x=1", 422, "invalid-request"),
    ("/docs?x=1", 422, "invalid-request"),
    ("/v1/runs//", 404, "not-found"),
    ("/v1/nowhere", 404, "not-found"),
    ("/nowhere", 404, "not-found"),
]


@pytest.mark.parametrize(("path", "status", "code"), QUERIES)
async def test_a_query_that_makes_no_sense(shared: System, path: str, status: int, code: str) -> None:
    assert_problem(await shared.http.get(path), status, code)


HEADERS = [
    ("GET", "/v1/runs", {"Tidelog-Position": "x"}, 422, "invalid-command"),
    ("GET", "/v1/runs", {"Tidelog-Position": b"\xb2"}, 422, "invalid-command"),
    ("GET", "/v1/events", {"Accept": "text/event-stream", "Last-Event-ID": "x"}, 422, "invalid-command"),
    ("GET", "/v1/events", {"Accept": "text/event-stream", "Last-Event-ID": b"\xb2"}, 422, "invalid-command"),
    ("GET", "/v1/events", {"Accept": "text/event-stream", "Last-Event-ID": HUGE}, 422, "invalid-command"),
    ("POST", f"/v1/runs/{RUN}/cancel", {"If-Match": "7"}, 422, "invalid-command"),
    ("POST", f"/v1/runs/{RUN}/cancel", {"If-Match": f'"v{VAST}"'}, 422, "invalid-command"),
    ("POST", f"/v1/runs/{RUN}/cancel", {"If-Match": '"v5"'}, 404, "not-found"),
    ("POST", "/v1/projects", {"Content-Length": VAST}, 413, "payload-too-large"),
    ("GET", "/v1/runs", {"Tidelog-Position": VAST}, 422, "invalid-command"),
    ("GET", "/v1/events", {"Accept": "text/event-stream", "Last-Event-ID": VAST}, 422, "invalid-command"),
    ("GET", "/v1/events?limit=5", {"Accept": "text/event-stream"}, 422, "invalid-command"),
    ("GET", f"/v1/runs/{RUN}/events?as_of=5", {"Accept": "text/event-stream"}, 422, "invalid-command"),
    ("POST", "/v1/runs?wait=5", {}, 422, "invalid-request"),
    ("POST", "/v1/projects", {"Idempotency-Key": "k" * 256}, 422, "invalid-command"),
    ("POST", "/v1/projects", {"Idempotency-Key": ""}, 422, "invalid-command"),
    ("POST", "/v1/projects", {"Idempotency-Key": '""'}, 422, "invalid-command"),
    ("POST", "/v1/projects", {"Content-Type": "text/plain"}, 415, "unsupported-body"),
    ("POST", "/v1/projects", {"Content-Type": "application/xml"}, 415, "unsupported-body"),
    ("POST", "/v1/projects", {"Content-Encoding": "gzip"}, 415, "unsupported-body"),
    ("DELETE", "/v1/runs", {}, 405, "method-not-allowed"),
]


@pytest.mark.parametrize(("method", "path", "headers", "status", "code"), HEADERS)
async def test_a_header_that_makes_no_sense(
    shared: System, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    content = b'{"name":"p"}' if path == "/v1/projects" else b""
    assert_problem(await shared.http.request(method, path, headers=headers, content=content), status, code)


@pytest.mark.parametrize("name", ["Idempotency-Key", "If-Match", "Tidelog-Position", "Last-Event-ID", "Content-Type", "X-API-Key"])
async def test_a_header_of_one_value_is_given_once(shared: System, name: str) -> None:
    response = await shared.http.post("/v1/projects", content=b'{"name":"p"}', headers=[(name, "application/json")] * 2)
    assert name.lower() in assert_problem(response, 422, "invalid-command")["detail"]
    several = [("Accept", "text/html"), ("Accept", "application/json"), ("Prefer", "a=1"), ("Prefer", "b=2")]
    assert (await shared.http.get("/v1/runs", headers=several)).status_code == 200


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"])
async def test_forms_of_the_content_type_of_json(shared: System, kind: str) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": "identity"}
    assert (await shared.http.post("/v1/projects", content=b'{"name":"p"}', headers=headers)).status_code == 201


async def test_the_body_of_a_bare_curl_is_read_as_json(shared: System) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await shared.http.post("/v1/projects", content=b'{"name":"p"}', headers=headers)).status_code == 201
    assert_problem(await shared.http.post("/v1/projects", content=b"name=p", headers=headers), 422, "invalid-request")


@pytest.mark.parametrize("version", [True, "2", -1, 1.0, 1.5, [1]])
async def test_a_version_is_a_whole_number(shared: System, version: Any) -> None:
    response = await shared.http.post(f"/v1/runs/{RUN}/cancel", json={"expected_version": version})
    assert assert_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == "/expected_version"
    unknown = await shared.http.post(f"/v1/runs/{RUN}/cancel", json={"expected_version": 5})
    assert_problem(unknown, 404, "not-found")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("wait=1;foo=bar", "wait=1"), ('wait="1"', "wait=1"), ("respond-async, wait = 1", "wait=1"), ("Wait=1", "wait=1")],
)
async def test_forms_of_the_wish_to_wait(shared: System, prefer: str, applied: str) -> None:
    run_id = await shared.start("alpha")
    await shared.http.post(f"/v1/runs/{run_id}/cancel", json={})
    body = {"run_id": run_id, "plan": {"kind": "sequential", "agents": ["alpha"]}}
    response = await shared.http.post("/v1/runs", json=body, headers={"Prefer": prefer})
    assert (response.status_code, response.headers["preference-applied"]) == (201, applied)
    assert response.json()["run"]["status"] == "cancelled"


async def test_a_trusted_proxy_may_serve_the_server_under_a_path(shared: System) -> None:
    """The test's client is 127.0.0.1. Nobody else's header counts, nor a header that is no path."""
    body, given = (
        {"plan": {"kind": "sequential", "agents": ["alpha"]}},
        {"X-Forwarded-Prefix": "/tidelog/", "Host": "proxy.example"},
    )
    trusting = shared.container.settings.model_copy(update={"trusted_proxies": (ip_network("127.0.0.0/8"),)})
    async with shared.client(shared.key, container=replace(shared.container, settings=trusting)) as http:
        started = await http.post("/v1/runs", json=body, headers=given)
        assert started.headers["location"] == f"/tidelog/v1/runs/{started.json()['run_id']}"
        second = await http.post("/v1/runs", json=body)
        position = {"Tidelog-Position": second.headers["tidelog-position"]}
        page = await http.get("/v1/runs?limit=1", headers={**given, **position})
        assert page.headers["link"].startswith("<?limit=1&cursor=") and page.headers["link"].endswith('>; rel="next"')
        for wrong in ("//evil.example", "tidelog", "/a b", "/a?b", "/../x;y"):
            refused = await http.post("/v1/runs", json=body, headers={"X-Forwarded-Prefix": wrong})
            assert refused.headers["location"].startswith("/v1/runs/"), wrong
    ignored = await shared.http.post("/v1/runs", json=body, headers=given)
    assert ignored.headers["location"].startswith("/v1/runs/")


async def test_a_wish_to_wait_that_is_no_number_is_ignored(shared: System) -> None:
    """RFC 7240: unknown preferences are ignored."""
    response = await shared.http.post("/v1/runs", json={"agent": "alpha"}, headers=[(b"Prefer", b"wait=\xb2, respond-async")])
    assert response.status_code == 201 and "run" not in response.json()


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/v1/runs", "GET, HEAD, OPTIONS, POST"), (f"/v1/runs/{RUN}", "GET, HEAD, OPTIONS"), ("/docs", "GET, HEAD, OPTIONS")],
)
async def test_a_wrong_method_names_the_right_ones(shared: System, path: str, allow: str) -> None:
    response = await shared.http.delete(path)
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allow
    asked = await shared.http.options(path)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, allow, b"")


async def test_head_is_answered_wherever_get_is(shared: System) -> None:
    paths = ["/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/v1/runs?limit=1", "/v1/events", "/"]
    for path in paths:
        got, asked = await shared.http.get(path), await shared.http.head(path)
        assert (asked.status_code, asked.content) == (got.status_code, b""), path
        assert asked.headers.keys() == got.headers.keys()
    refused = await shared.http.head(f"/v1/runs/{RUN}")
    assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")


async def test_references_name_no_host(shared: System) -> None:
    """The host of a request is the caller's choice. Nothing of it comes back: not in headers, not in documents."""
    header = {"Host": "evil.example"}
    for path, location in (("/docs/", "../docs"), ("/", "console/"), ("/v1/runs/?limit=1", "../runs?limit=1")):
        response = await shared.http.get(path, headers=header)
        assert (response.status_code, response.headers["location"]) == (307, location)
    for path in ("/openapi.json", "/asyncapi.json", "/schemas", "/docs", "/docs/errors", "/v1/events?limit=1", "/v1/nowhere"):
        response = await shared.http.get(path, headers=header)
        assert "evil.example" not in response.text and "evil.example" not in str(response.headers), path


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}, {"X-API-Key": "no"}],
)  # fmt: skip
async def test_without_a_valid_key(shared: System, headers: dict[str, str]) -> None:
    async with shared.client(None) as stranger:
        for path in ("/v1/runs", "/v1/events", "/v1/nowhere"):
            response = await stranger.get(path, headers=headers)
            assert_problem(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_in_the_other_header_will_do(shared: System) -> None:
    both = {"X-API-Key": "", "Authorization": f"Bearer {shared.key}"}
    async with shared.client(None) as other:
        assert (await other.get("/v1/runs", headers=both)).status_code == 200, "an empty header is no key"
        assert (await other.get("/v1/runs", headers={"X-API-Key": shared.key})).status_code == 200


async def test_a_body_over_the_limit(shared: System) -> None:
    body = b'{"agent":"alpha","input":"' + b"x" * shared.container.settings.max_body_bytes + b'"}'
    announced = await shared.http.post("/v1/runs", content=body)
    assert "content-length" in announced.request.headers
    assert_problem(announced, 413, "payload-too-large")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    chunked = await shared.http.post("/v1/runs", content=pieces())
    assert chunked.request.headers["transfer-encoding"] == "chunked"
    assert_problem(chunked, 413, "payload-too-large")


async def test_an_event_over_the_limit_writes_nothing(shared: System) -> None:
    before = await shared.settled()
    body = {"agent": "alpha", "input": "x" * shared.container.settings.max_event_bytes}
    problem = assert_problem(await shared.http.post("/v1/runs", json=body), 413, "payload-too-large")
    assert "run.started" in problem["detail"] and await shared.container.feed.head() == before


async def test_a_defect_says_nothing_of_the_inside(database_url: str, nats_url: str) -> None:
    """A table is gone: only a defect explains that."""
    async with running(database_url, nats_url, roles=["api"]) as system:
        await issue_key_without_projector(system)
        await system.sql("DROP TABLE run")
        assert_problem(await system.http.get("/v1/runs"), 500, "internal")
        await system.sql("DROP TABLE api_key")
        async with system.client("another key") as client:
            assert_problem(await client.get("/v1/runs"), 500, "internal")


async def test_the_trace_of_the_caller_goes_on(shared: System) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = await shared.http.post(
        "/v1/runs", json={"agent": "alpha"}, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    )
    assert response.headers["tidelog-trace-id"] == trace
    events = await shared.events(response.json()["run_id"])
    assert f"00-{trace}-" in events[0].metadata


async def test_numbers_of_any_size_survive(shared: System) -> None:
    """JSON has no bound for integers. A large integer comes out unchanged everywhere."""
    worker = shared.worker()
    await worker.register("alpha")
    big = 123456789012345678901234567890
    run_id = await shared.start("alpha", input={"n": big}, metadata={"m": -big})
    alpha = await worker.step(run_id, "alpha")
    assert alpha.body["input"] == {"n": big}
    await alpha.ok("record", key="k", result=big)
    await alpha.ok("send", key="m", to="alpha", body=[big])
    await alpha.ok("set", key="s", name="v", value=big)
    assert (await alpha.ok("get", key="g", name="v"))["value"] == big
    await alpha.complete(big)
    run = await shared.ended(run_id)
    assert (run["result"], run["input"], run["metadata"]) == (big, {"n": big}, {"m": -big})
    [message] = (await shared.http.get(f"/v1/runs/{run_id}/messages")).json()["data"]
    assert message["body"] == [big]
    project = await shared.http.post("/v1/projects", json={"name": "big", "metadata": {"n": big}})
    projects = await shared.http.get("/v1/projects", headers={"Tidelog-Position": str(project.json()["position"])})
    assert {"n": big} in [p["metadata"] for p in projects.json()["data"]]
    parked = await shared.sql("SELECT * FROM parked_event")
    assert parked == []
