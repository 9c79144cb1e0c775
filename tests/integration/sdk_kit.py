"""For tests of the SDK's worker: a server that keeps the contract between server and workers, and workers that run against it.

The HTTP side is the other party's stand-in: it has journal, fencing and queues, but no log behind it.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import nats
import uvicorn
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tidelog.worker import Worker

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
