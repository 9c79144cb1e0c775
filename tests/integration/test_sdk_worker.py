"""The worker against a real NATS server and a real HTTP server that keeps the contract between server and workers.

The HTTP side is the other party's stand-in: it has journal, fencing and queues, but no log behind it.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import nats
import pytest
import uvicorn
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tidelog import Agent, Context, PermanentError, ToolContext, ToolError, TransientError, tool
from tidelog.worker import Worker
from tidelog.worker.runtime import RefusedError

KEY = "test-key"
ACK_WAIT_S = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Any, timeout_s: float = 20) -> Any:
    """The first truthy value of a condition."""
    async with asyncio.timeout(timeout_s):
        while True:
            if value := condition():
                return value
            await asyncio.sleep(0.02)


class NatsServer:
    """A real nats-server with JetStream in a folder of its own, on a fixed port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "nats-server"),
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-js",
            "-sd",
            str(self.folder),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        await until(listens)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Refusal(Exception):
    def __init__(self, status: int, code: str, **more: Any) -> None:
        self.answer = JSONResponse(
            {"code": code, "title": code, "status": status, "retryable": False, **more},
            status_code=status,
            media_type="application/problem+json",
        )


class StandIn:
    """The server side of the contract, in memory."""

    def __init__(self, nats_server: NatsServer) -> None:
        self.nats_server = nats_server
        self.port = free_port()
        self.agent_runs: dict[UUID, dict[str, Any]] = {}
        self.invocations: dict[UUID, dict[str, Any]] = {}
        self.registrations: list[dict[str, Any]] = []
        self.tools: dict[str, dict[str, Any]] = {}
        self.state: dict[str, Any] = {}
        self.down = self.closing = False
        self.changed = asyncio.Event()
        self.requests: list[str] = []
        self.http: uvicorn.Server | None = None
        self.serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        url = f"nats://127.0.0.1:{self.nats_server.port}"
        self.connection = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
        self.jetstream = self.connection.jetstream()
        await self.make_stream()
        app = Starlette(routes=[Route("/v1/{path:path}", self.handle, methods=["GET", "POST"])])
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_level="warning", lifespan="off", timeout_graceful_shutdown=1
        )
        self.http = uvicorn.Server(config)
        self.serving = asyncio.create_task(self.http.serve())
        await until(lambda: self.http is not None and self.http.started)

    async def make_stream(self) -> None:
        await self.jetstream.add_stream(StreamConfig(name="WORK", subjects=["work.>"], retention=RetentionPolicy.WORK_QUEUE))

    async def stop(self) -> None:
        assert self.http is not None and self.serving is not None
        self.http.should_exit = True
        self.closing = True
        self.changed.set()  # ends the long polls
        await self.serving
        await self.connection.close()

    # --- what the engine behind the API would do ---

    async def start_agent(self, agent: str, input: Any = None, **more: Any) -> dict[str, Any]:
        run: dict[str, Any] = {
            "id": uuid4(),
            "run_id": uuid4(),
            "agent": agent,
            "input": input,
            "attempt": 0,
            "dispatch": 1,
            "status": "requested",
            "journal": {},
            "changed_in": {},
            "mailbox": [],
            "version": 1,
            "result": None,
            "error": None,
            "workers": [],
            **more,
        }
        self.agent_runs[run["id"]] = run
        await self.dispatch("agent", agent, run)
        return run

    async def dispatch(self, kind: str, pool: str, work: dict[str, Any]) -> None:
        message = {
            "kind": kind,
            "pool": pool,
            "work_id": str(work["id"]),
            "dispatch": work["dispatch"],
            "tenant_id": str(uuid4()),
            "root_id": str(work["run_id"]),
        }
        await self.jetstream.publish(f"work.{kind}.{pool.replace('.', '_')}", json.dumps(message).encode())

    def touch(self, run: dict[str, Any], key: str | None = None) -> None:
        run["version"] += 1
        if key is not None:
            run["changed_in"][key] = run["version"]
        self.changed.set()
        self.changed = asyncio.Event()

    def deliver_mail(self, run: dict[str, Any], sender: str, body: Any) -> dict[str, Any]:
        mail = {"message_id": str(uuid4()), "sender": sender, "body": body, "sent_at": datetime.now(UTC).isoformat()}
        run["mailbox"].append({**mail, "version": run["version"] + 1})
        self.touch(run)
        return mail

    def cancel(self, run: dict[str, Any]) -> None:
        run["status"] = "cancelled"
        self.touch(run)

    # --- the API ---

    async def handle(self, request: Request) -> JSONResponse:
        parts = request.path_params["path"].split("/")
        self.requests.append(f"{request.method} {'/'.join(p if len(p) != 36 else '*' for p in parts)}")
        if self.down:
            return JSONResponse({"code": "unavailable", "title": "down", "retryable": True}, status_code=503)
        try:
            if request.headers["authorization"] != f"Bearer {KEY}":
                raise Refusal(401, "unauthenticated")
            body = await request.json() if request.method == "POST" else dict(request.query_params)
            if parts == ["workers"]:
                return JSONResponse(await self.register(body))
            kind, id, verb = parts
            table = self.agent_runs if kind == "agent-runs" else self.invocations
            work = table[UUID(id)]
            if verb == "claim":
                self.claim(work, body)
            elif body.get("attempt") is not None and int(body["attempt"]) != work["attempt"]:
                raise Refusal(409, "stale-attempt")
            elif work["status"] in ("completed", "failed", "cancelled") and verb != "journal":
                raise Refusal(409, "work-over")
            method = getattr(self, f"{kind.replace('-', '_')}_{verb}_{request.method.lower()}")
            answer: dict[str, Any] = await method(work, body)
            return JSONResponse(answer)
        except Refusal as refusal:
            return refusal.answer

    async def register(self, body: dict[str, Any]) -> dict[str, Any]:
        self.registrations.append(body)
        self.tools |= {tool["name"]: tool for tool in body["tools"]}
        queues = []
        for kind in ("agent", "tool"):
            for declared in body[f"{kind}s"]:
                pool = declared["name"]
                durable = f"{kind}_{pool.replace('.', '_')}"
                await self.jetstream.add_consumer(
                    "WORK",
                    ConsumerConfig(
                        durable_name=durable,
                        filter_subject=f"work.{kind}.{pool.replace('.', '_')}",
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=ACK_WAIT_S,
                        max_deliver=-1,
                    ),
                )
                queues.append({"kind": kind, "pool": pool, "stream": "WORK", "consumer": durable})
        access = {"url": f"nats://127.0.0.1:{self.nats_server.port}", "inbox_prefix": "_INBOX_w"}
        return {"worker_id": body["worker_id"], "nats": access, "queues": queues, "ack_wait_s": ACK_WAIT_S}

    def claim(self, work: dict[str, Any], body: dict[str, Any]) -> None:
        if work["status"] in ("completed", "failed", "cancelled") or body["dispatch"] < work["dispatch"]:
            raise Refusal(409, "work-over")
        work["attempt"] += 1
        work["status"] = "running"
        work["workers"].append(body["worker_id"])

    def entries(self, run: dict[str, Any], after: int) -> list[dict[str, Any]]:
        return [entry for key, entry in run["journal"].items() if run["changed_in"][key] > after]

    def mail(self, run: dict[str, Any], after: int) -> list[dict[str, Any]]:
        return [{k: v for k, v in mail.items() if k != "version"} for mail in run["mailbox"] if mail["version"] > after]

    async def agent_runs_claim_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        return {
            "agent_run_id": str(run["id"]),
            "run_id": str(run["run_id"]),
            "attempt": run["attempt"],
            "step_key": run["agent"],
            "agent": run["agent"],
            "input": run["input"],
            "results": run.get("results", {}),
            "missing": [],
            "peers": run.get("peers", []),
            "journal": self.entries(run, 0),
            "mailbox": self.mail(run, 0),
            "version": run["version"],
        }

    async def agent_runs_journal_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        for entry in body["entries"]:
            self.record(run, entry["key"], "step", entry["result"])
        return {"version": run["version"]}

    def record(self, run: dict[str, Any], key: str, kind: str, result: Any) -> None:
        if key not in run["journal"]:
            run["journal"][key] = {"key": key, "kind": kind, "status": "ok", "result": result}
            self.touch(run, key)

    async def agent_runs_calls_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if body["tool"] not in self.tools:
            raise Refusal(404, "unknown-tool", detail=f"there is no tool {body['tool']}")
        key = body["key"]
        if key not in run["journal"]:
            invocation = {
                "id": uuid4(),
                "run_id": run["run_id"],
                "tool": body["tool"],
                "arguments": body["arguments"],
                "dispatch": 1,
                "attempt": 0,
                "status": "requested",
                "workers": [],
                "agent_run": run,
                "key": key,
                "error": None,
            }
            self.invocations[invocation["id"]] = invocation
            run["journal"][key] = {"key": key, "kind": "call", "status": "pending", "invocation_id": str(invocation["id"])}
            self.touch(run, key)
            await self.dispatch("tool", body["tool"], invocation)
        return {"invocation_id": run["journal"][key]["invocation_id"], "version": run["version"]}

    async def agent_runs_messages_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        to = next((r for r in self.agent_runs.values() if r["agent"] == body["to"]), None)
        if to is None:
            raise Refusal(404, "unknown-recipient", detail=f"nobody is called {body['to']}")
        if body["key"] not in run["journal"]:
            self.record(run, body["key"], "send", self.deliver_mail(to, run["agent"], body["body"])["message_id"])
        return {"message_id": run["journal"][body["key"]]["result"], "version": run["version"]}

    async def agent_runs_receipts_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        mail = next((m for m in run["mailbox"] if m["message_id"] == body["message_id"]), None)
        if mail is not None:
            run["mailbox"].remove(mail)
        self.record(run, body["key"], "receive", mail)
        return {"version": run["version"]}

    async def agent_runs_state_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        name = body["name"]
        if body["op"] == "set":
            if "expect" in body and body["expect"] != self.state.get(name, (None, 0))[1]:
                raise Refusal(409, "version-conflict", detail=f"{name} is at another version")
            self.state[name] = (body["value"], self.state.get(name, (None, 0))[1] + 1)
        value, version = self.state.get(name, (None, 0))
        answer = {"value": value, "found": name in self.state, "value_version": version}
        self.record(run, body["key"], f"state_{body['op']}", answer)
        return {**run["journal"][body["key"]]["result"], "version": run["version"]}

    async def agent_runs_journal_get(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        after = int(body["after_version"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(body["wait_s"])):
                while run["version"] <= after and float(body["wait_s"]) and not self.closing:
                    await self.changed.wait()
        news = {"journal": self.entries(run, after), "mailbox": self.mail(run, after)}
        return {"version": run["version"], "status": run["status"], **news}

    async def agent_runs_complete_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        run |= {"status": "completed", "result": body["result"], "unused_keys": body.get("unused_keys", [])}
        return {}

    async def agent_runs_fail_post(self, run: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        run |= {"status": "failed", "error": body["error"]}
        return {"retry": False}

    async def invocations_claim_post(self, work: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        return {
            "invocation_id": str(work["id"]),
            "attempt": work["attempt"],
            "tool": work["tool"],
            "arguments": work["arguments"],
            "idempotency_key": str(work["id"]),
            "timeout_s": self.tools[work["tool"]]["timeout_s"],
            "run_id": str(work["run_id"]),
        }

    async def invocations_complete_post(self, work: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        return self.settle(work, {"status": "ok", "result": body["result"]})

    async def invocations_fail_post(self, work: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        work["error"] = body["error"]
        error = {k: v for k, v in body["error"].items() if k != "retry_after_s"}
        return self.settle(work, {"status": "error", "error": error})

    def settle(self, work: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
        work["status"] = "completed"
        work["agent_run"]["journal"][work["key"]] |= outcome
        self.touch(work["agent_run"], work["key"])
        return {}


@pytest.fixture
async def nats_server() -> AsyncIterator[NatsServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder))
        await server.start()
        yield server
        await server.stop()


@pytest.fixture
async def server(nats_server: NatsServer) -> AsyncIterator[StandIn]:
    stand_in = StandIn(nats_server)
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@contextlib.asynccontextmanager
async def running(server: StandIn, *parts: Any, **options: Any) -> AsyncIterator[Worker]:
    worker = Worker(
        url=server.url,
        api_key=KEY,
        agents=[part for part in parts if isinstance(part, type)],
        tools=[part for part in parts if not isinstance(part, type)],
        **options,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        await asyncio.wait_for(worker.registered.wait(), 10)
        yield worker
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def finished(run: dict[str, Any], timeout_s: float = 20) -> dict[str, Any]:
    await until(lambda: run["status"] in ("completed", "failed"), timeout_s)
    return run


async def all_acknowledged(server: StandIn) -> None:
    async with asyncio.timeout(5):
        while True:
            if (await server.jetstream.stream_info("WORK")).state.messages == 0:
                return
            await asyncio.sleep(0.05)


# --- agents and tools of the tests ------------------------------------------------------------------------------------


@tool("math.add", idempotent=True)
def add(ctx: ToolContext, a: int, b: int = 1) -> dict[str, Any]:
    return {"sum": a + b, "key": ctx.idempotency_key, "workspace": str(ctx.workspace)}


@tool
async def explode(how: str) -> None:
    if how == "permanent":
        raise PermanentError("no use")
    if how == "exit":
        sys.exit(3)
    if how == "slow":
        await asyncio.sleep(30)
    raise TransientError("later", retry_after_s=7)


class Adder(Agent):
    async def execute(self, ctx: Context) -> Any:
        sums = await asyncio.gather(*(ctx.tool("math.add", a=number, b=10) for number in ctx.input))
        return [part["sum"] for part in sums]


class Asker(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.send("answerer", {"question": 41})
        answer = await ctx.receive(timeout_s=10, sender="answerer")
        nothing = await ctx.receive(timeout_s=0.1)
        await ctx.state.set("answer", answer.body if answer else None)
        return [await ctx.state.get("answer"), await ctx.state.get("none", default="-"), nothing]


class Answerer(Agent):
    async def execute(self, ctx: Context) -> Any:
        question = await ctx.receive(timeout_s=10)
        assert question is not None
        await ctx.send(question.sender, question.body["question"] + 1)
        return "sent"


async def test_an_agent_gets_the_results_of_tools_that_run_side_by_side(server: StandIn) -> None:
    async with running(server, Adder, add):
        run = await finished(await server.start_agent("adder", [1, 2, 3]))
    assert run["result"] == [11, 12, 13]
    assert list(run["journal"]) == ["math.add#1", "math.add#2", "math.add#3"]
    # One long poll at a time serves all three: the journal was not polled once per call and round.
    assert server.requests.count("GET agent-runs/*/journal") <= 7


async def test_agents_talk_and_share_state(server: StandIn) -> None:
    async with running(server, Asker, Answerer):
        await server.start_agent("answerer")
        run = await finished(await server.start_agent("asker"))
    assert run["result"] == [42, "-", None]


class Prodder(Agent):
    async def execute(self, ctx: Context) -> Any:
        kinds = []
        for name, arguments in (
            ("explode", {"how": "permanent"}),
            ("explode", {"how": "transient"}),
            ("explode", {"how": "exit"}),
            ("explode", {"wrong": 1}),
            ("nothing", {}),
        ):
            try:
                await ctx.tool(name, **arguments)
            except ToolError as error:
                kinds.append((error.kind, str(error).split(":")[0]))
        return kinds


async def test_failures_of_tools_reach_the_agent_with_their_kind(server: StandIn) -> None:
    async with running(server, Prodder, explode):
        run = await finished(await server.start_agent("prodder"))
    assert run["result"] == [
        ["permanent", "PermanentError"],
        ["transient", "TransientError"],
        ["permanent", "ProcessExitError"],
        ["invalid", "InvalidArgumentsError"],
        ["permanent", "there is no tool nothing"],
    ]
    errors = [invocation["error"] for invocation in server.invocations.values()]
    assert errors[1]["retry_after_s"] == 7
    assert "line" in errors[0]["message"] and "raise PermanentError" in errors[0]["message"]


class Slow(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            await ctx.tool("slow")
        except ToolError as error:
            return [error.kind, str(error)]
        return "no time-out"


@tool(timeout_s=0.3)
def slow() -> None:
    time.sleep(3)


async def test_the_timeout_of_a_sync_tool_is_enforced(server: StandIn) -> None:
    async with running(server, Slow, slow):
        run = await finished(await server.start_agent("slow"), 5)
    assert run["result"][0] == "transient" and "within 0.3 s" in run["result"][1]


class Failing(Agent):
    async def execute(self, ctx: Context) -> Any:
        if ctx.input == "exit":
            sys.exit(1)
        if ctx.input == "transient":
            raise TransientError("try again")
        if ctx.input == "large":
            return "x" * 300_000
        secret_local = "hunter2"
        raise ValueError(f"broken {len(secret_local)}")


@pytest.mark.parametrize(
    ("input", "type", "kind"),
    [
        ("value", "ValueError", "permanent"),
        ("exit", "ProcessExitError", "permanent"),
        ("transient", "TransientError", "transient"),
        ("large", "ValueTooLargeError", "permanent"),
    ],
)
async def test_an_exception_fails_the_agent_run_and_not_the_worker(server: StandIn, input: str, type: str, kind: str) -> None:
    async with running(server, Failing, Adder, add):
        run = await finished(await server.start_agent("failing", input))
        assert (run["status"], run["error"]["type"], run["error"]["kind"]) == ("failed", type, kind)
        assert len(run["error"]["message"].encode()) <= 4096
        assert "hunter2" not in run["error"]["message"]
        assert (await finished(await server.start_agent("adder", [1])))["result"] == [11]


STARTED: list[str] = []


class Waiter(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("waiter")
        try:
            await ctx.receive(timeout_s=60)
        except asyncio.CancelledError:
            STARTED.append("stopped")
            raise


async def test_cancelling_a_run_stops_the_agent_that_waits(server: StandIn) -> None:
    STARTED.clear()
    async with running(server, Waiter):
        run = await server.start_agent("waiter")
        await until(lambda: STARTED)
        await until(lambda: "GET agent-runs/*/journal" in server.requests)
        server.cancel(run)
        await until(lambda: STARTED == ["waiter", "stopped"], 5)
        await all_acknowledged(server)


async def test_a_newer_attempt_elsewhere_ends_this_one(server: StandIn) -> None:
    class Stepper(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("stepping")
            await ctx.step("first", asyncio.sleep, 0.3)
            STARTED.append("never")

    STARTED.clear()
    async with running(server, Stepper):
        run = await server.start_agent("stepper")
        await until(lambda: STARTED)
        run["attempt"] += 1  # as if another worker had claimed it
        await all_acknowledged(server)
    assert STARTED == ["stepping"]
    assert server.requests[-1].endswith("/journal")  # no report of its own: the newer attempt has the say
    assert run["journal"] == {} and run["status"] == "running"


async def test_work_survives_an_outage_of_the_server(server: StandIn) -> None:
    class Patient(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("started")
            return [await ctx.step(f"s{number}", asyncio.sleep, 0.1, number) for number in range(3)]

    STARTED.clear()
    async with running(server, Patient):
        run = await server.start_agent("patient")
        await until(lambda: STARTED)
        server.down = True
        await asyncio.sleep(2)
        server.down = False
        assert (await finished(run))["result"] == [0, 1, 2]
    assert STARTED == ["started"] and run["attempt"] == 1


async def test_a_lost_stream_and_a_restarted_nats_are_survived(server: StandIn, nats_server: NatsServer) -> None:
    async with running(server, Adder, add):
        await server.jetstream.delete_stream("WORK")
        await server.make_stream()
        await until(lambda: len(server.registrations) >= 2)
        assert (await finished(await server.start_agent("adder", [1])))["result"] == [11]
        await nats_server.stop()
        await asyncio.sleep(0.5)
        await nats_server.start()
        await until(lambda: server.connection.is_connected)
        # Well before the missing heartbeats of the pulls that the old server took with it are noticed.
        assert (await finished(await server.start_agent("adder", [2]), 9))["result"] == [12]


async def test_a_wrong_key_ends_the_worker_with_a_clear_error(server: StandIn) -> None:
    with pytest.raises(RefusedError, match="401 unauthenticated"):
        await asyncio.wait_for(Worker(url=server.url, api_key="wrong", agents=[Adder]).run(asyncio.Event()), 10)


async def test_agents_beyond_the_concurrency_wait_their_turn(server: StandIn) -> None:
    class Counter(Agent):
        running = 0
        most = 0

        async def execute(self, ctx: Context) -> Any:
            Counter.running += 1
            Counter.most = max(Counter.most, Counter.running)
            await asyncio.sleep(0.1)
            Counter.running -= 1

    async with running(server, Counter, concurrency=2):
        runs = [await server.start_agent("counter") for _ in range(8)]
        for run in runs:
            assert (await finished(run))["status"] == "completed"
    assert Counter.most == 2


async def test_a_full_worker_takes_work_of_all_its_queues_in_turn(server: StandIn) -> None:
    class One(Agent):
        async def execute(self, ctx: Context) -> Any:
            await asyncio.sleep(0.2)

    class Two(One):
        pass

    async with running(server, One, Two, concurrency=1):
        runs = [await server.start_agent(name) for name in ("one", "two", "one", "two")]
        for run in runs:
            assert (await finished(run))["status"] == "completed"
            assert run["attempt"] == 1


async def test_work_that_is_delivered_again_to_its_own_worker_is_not_started_twice(
    server: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    class Blocking(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("blocking")
            await asyncio.sleep(0.1)
            time.sleep(ACK_WAIT_S + 1.5)  # noqa: ASYNC251  # the mistake that is tried: no heartbeat goes out meanwhile
            await ctx.step("next", asyncio.sleep, 1)
            return "done"

    STARTED.clear()
    async with running(server, Blocking):
        run = await finished(await server.start_agent("blocking"))
    assert run["result"] == "done" and run["attempt"] == 1 and STARTED == ["blocking"]
    assert "event_loop_blocked" in caplog.messages


# --- the worker as a process ------------------------------------------------------------------------------------------

TWO_STEPS = """
    from pathlib import Path
    from tidelog import Agent, Context

    def note(folder: str, what: str) -> str:
        with (Path(folder) / "effects").open("a") as file:
            file.write(what + "\\n")
        return what.upper()

    class TwoSteps(Agent):
        async def execute(self, ctx: Context) -> list:
            first = await ctx.step("first", note, ctx.input, "first")
            await ctx.receive(timeout_s=120, key="go")
            return [first, await ctx.step("second", note, ctx.input, "second")]
"""


async def start_process(server: StandIn, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tidelog.worker",
        "--agents",
        str(folder),
        "--workspace",
        str(folder),
        "--log-format",
        "json",
        env={**os.environ, "TIDELOG_URL": server.url, "TIDELOG_API_KEY": KEY},
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_after_a_sigkill_another_worker_does_not_repeat_the_finished_step(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO_STEPS))
    (tmp_path / "broken.py").write_text("raise SystemExit(9)")
    first = await start_process(server, tmp_path)
    run = await server.start_agent("two-steps", str(tmp_path))
    await until(lambda: "first" in run["journal"])
    await until(lambda: "GET agent-runs/*/journal" in server.requests)
    first.kill()
    await first.wait()
    second = await start_process(server, tmp_path)
    try:
        await until(lambda: run["attempt"] == 2, 30)
        server.deliver_mail(run, "test", "go on")
        assert (await finished(run))["result"] == ["FIRST", "SECOND"]
        assert (tmp_path / "effects").read_text() == "first\nsecond\n"
        assert run["workers"][0] != run["workers"][1]
    finally:
        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), 10) == 0


async def test_a_worker_that_is_told_to_stop_hands_its_work_over_at_once(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO_STEPS))
    first = await start_process(server, tmp_path)
    run = await server.start_agent("two-steps", str(tmp_path))
    await until(lambda: "first" in run["journal"])
    second = await start_process(server, tmp_path)
    try:
        await until(lambda: len(server.registrations) == 2)
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 10) == 0
        await until(lambda: run["attempt"] == 2, 2)  # less than the ack wait
        server.deliver_mail(run, "test", "go on")
        assert (await finished(run))["result"] == ["FIRST", "SECOND"]
    finally:
        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), 10) == 0
