"""Runs, started over HTTP by a client that never gives up, whatever happens to the server meanwhile."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx2

from tests.pace import Deadline

RETRY_FOR_S = 90.0
"""Seconds for which one request is repeated: longer than any part of the server is away."""
REQUEST_TIMEOUT_S = 10.0


@dataclass(slots=True)
class StartedRun:
    """A run that the server acknowledged. `expected`: the status with which the run must end."""

    id: UUID
    key: str
    body: Mapping[str, Any]
    expected: str
    degraded: bool = False
    end: dict[str, Any] | None = None
    resolved: list[str] = field(default_factory=list)
    """Invocations of the run that were resolved by hand."""


def _step(key: str, agent: str, *after: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "agent": agent, "after": list(after), **more}


def _gathering() -> dict[str, Any]:
    return {"plan": {"kind": "sequential", "agents": ["gatherer", "clerk", "editor"]}}


def _side_by_side() -> dict[str, Any]:
    return {"plan": {"kind": "parallel", "agents": ["gatherer", "clerk", "gatherer"], "aggregator": "editor"}}


def _talking() -> dict[str, Any]:
    steps = [
        _step("one", "speaker", timeout_s=600), _step("two", "speaker"), _step("listener", "listener", timeout_s=600),
        _step("late", "speaker", "one"), _step("editor", "editor", "listener", "late"),
    ]  # fmt: skip
    return {"plan": {"kind": "graph", "steps": steps}, "input": {"speakers": 3}}


def _stumbling() -> dict[str, Any]:
    retry = {"max_attempts": 10, "initial_s": 0.3, "max_s": 1.0}
    steps = [
        _step("moody", "moody", retry=retry), _step("broken", "broken", on_failure="continue"), _step("clerk", "clerk"),
        _step("editor", "editor", "moody", "broken", "clerk"),
    ]  # fmt: skip
    return {"plan": {"kind": "graph", "steps": steps}}


def _waiting() -> dict[str, Any]:
    return {"agent": "waiter"}


def _posting() -> dict[str, Any]:
    return {"plan": {"kind": "parallel", "agents": ["clerk", "clerk", "gatherer"], "aggregator": "editor"}}


SHAPES = (_gathering, _side_by_side, _talking, _stumbling, _waiting)
POSTING = (_posting, _gathering)
"""Runs with many calls that must not be repeated. They end by themselves."""


class Load:
    """Starts runs of changing shapes, a bounded number at once, until it is stopped. Then waits for the end of all runs."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        seed: int,
        *,
        at_once: int = 6,
        pause_s: float = 0.4,
        shapes: Sequence[Callable[[], dict[str, Any]]] = SHAPES,
    ) -> None:
        """`pause_s`: the longest pause between two starts."""
        self._http = http
        self._pause_s = pause_s
        self._shapes = shapes
        self._random = random.Random(seed)
        self._seed = seed
        self._at_once = at_once
        self.runs: list[StartedRun] = []

    @property
    def over(self) -> int:
        """The number of runs whose end the client has seen."""
        return sum(run.end is not None for run in self.runs)

    async def run(self, stop: asyncio.Event) -> None:
        """Starts runs until `stop`, then waits for their ends. Raises AssertionError for a wrong answer."""
        gate = asyncio.Semaphore(self._at_once)
        async with asyncio.TaskGroup() as group:
            number = 0
            while not stop.is_set():
                await gate.acquire()
                task = group.create_task(self._one(number, self._shapes[number % len(self._shapes)]()))
                task.add_done_callback(lambda _: gate.release())
                number += 1
                await asyncio.sleep(self._random.uniform(0.05, self._pause_s))

    async def _one(self, number: int, body: dict[str, Any]) -> None:
        key = f"chaos-{self._seed}-{number}"
        answer = await self._ask("POST", "/v1/runs", 201, body=body, key=key)
        cancelled = body.get("agent") == "waiter"
        degraded = any(step.get("agent") == "broken" for step in body.get("plan", {}).get("steps", ()))
        run = StartedRun(UUID(answer["run_id"]), key, body, "cancelled" if cancelled else "completed", degraded)
        self.runs.append(run)
        if cancelled:
            await asyncio.sleep(self._random.uniform(0.0, 2.0))
            await self._ask("POST", f"/v1/runs/{run.id}/cancel", 202, body={"reason": "enough"}, key=f"{key}-cancel")
        while True:
            shown = await self._ask("GET", f"/v1/runs/{run.id}", 200)
            if shown["status"] != "running":
                run.end = shown
                return
            await self._resolve(run, shown)
            await asyncio.sleep(0.3)

    async def _resolve(self, run: StartedRun, shown: Mapping[str, Any]) -> None:
        """Does the part of the person for whom an ambiguous call waits: looks at the witness, and resolves the call."""
        calls = [call for step in shown["steps"] for call in step["calls"] if call["status"] == "ambiguous"]
        for call in calls:
            if call["invocation_id"] not in run.resolved:
                body = {"result": f"by hand: {call['invocation_id']}", "reason": "the witness has no answer of it"}
                await self._ask("POST", f"/v1/invocations/{call['invocation_id']}/resolve", 200, body=body)
                run.resolved.append(call["invocation_id"])

    async def same_answer_again(self, run: StartedRun) -> None:
        """Repeats the request as a client that never saw the answer does: the answer must name the same run."""
        answer = await self._ask("POST", "/v1/runs", 201, body=run.body, key=run.key)
        assert UUID(answer["run_id"]) == run.id, f"key {run.key}: run {run.id}, and now {answer}"

    async def _ask(self, method: str, path: str, status: int, **more: Any) -> dict[str, Any]:
        return await ask(self._http, self._random, method, path, status, **more)


async def ask(
    http: httpx2.AsyncClient,
    chance: random.Random,
    method: str,
    path: str,
    status: int | tuple[int, ...],
    *,
    body: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Returns the JSON answer.

    The request is repeated as long as nobody answers, or the answer says that a repetition may help.
    """
    deadline = Deadline(RETRY_FOR_S)
    while True:
        headers = {"Idempotency-Key": key} if key else {}
        try:
            response = await http.request(method, path, json=body, headers=headers, timeout=REQUEST_TIMEOUT_S)
        except httpx2.TransportError as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            if response.status_code in (status if isinstance(status, tuple) else (status,)):
                answer: dict[str, Any] = response.json()
                return answer
            seen = f"{response.status_code} {response.text}"
            if not response.json().get("retryable") and not _not_there_yet(method, response):
                raise AssertionError(f"{method} {path}: {seen}")
        assert not await deadline.over(), f"{method} {path}: no answer for {RETRY_FOR_S:g} s; last: {seen}"
        await asyncio.sleep(chance.uniform(0.05, 0.3))


def _not_there_yet(method: str, response: httpx2.Response) -> bool:
    """Whether the answer comes from a read model that is behind.

    The read model may lack a new run, or show a call as ambiguous although a late worker has answered.
    """
    return (method == "GET" and response.status_code == 404) or (
        response.status_code == 409 and response.request.url.path.endswith("/resolve")
    )
