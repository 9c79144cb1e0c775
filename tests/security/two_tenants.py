"""Two tenants that share an installation: what the first one was shown, and the second one, who puts all of that into requests."""

import base64
import binascii
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx2

from application.engine.ports.pages import decode_cursor
from domain.approval_rules import approval_id_of
from domain.errors import InvalidCommand
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.session_kit import Message, SocketWorker, worker_at
from tests.integration.system_kit import BASE, Stream, System, sha256
from tests.pace import ANSWER_S
from tidelog.http_client import http_client

CURSOR = re.compile(r"[0-9]+-[0-9a-f]{12}-[0-9a-f]{8}")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)")
WORDS = ("walker", "I looked.", "import-failed", '"walk"', "hello", "enough", "socket-1", "worker-1")
"""Names and values that only the first tenant has."""
OPERATIONS_ON_ALL = "/v1/projections"
"""Read models are shared: their routes are for the default tenant, and answer 403 to all others."""


class Pair(NamedTuple):
    """A value of the first tenant, and one of the same kind that is nobody's. Both must be answered alike."""

    foreign: str
    absent: str


@dataclass
class Seen:
    """What the first tenant was shown."""

    ids: set[str] = field(default_factory=set)
    cursors: set[str] = field(default_factory=set)
    """Cursors of events."""
    places: set[str] = field(default_factory=set)
    """Cursors of lists."""
    positions: set[int] = field(default_factory=set)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last body that was given to each path, with the ids of the path left out."""
    keys: set[str] = field(default_factory=set)

    async def note(self, response: httpx2.Response) -> None:
        text = (await response.aread()).decode("utf-8", "replace")
        if not response.request.url.path.startswith("/v1/"):
            return
        self.ids |= set(ID.findall(text)) | set(ID.findall(str(response.request.url)))
        given = set(re.findall(r'"next_cursor":"([^"]+)"', text)) | set(re.findall(r"^id: (\S+)$", text, re.MULTILINE))
        self.cursors |= {cursor for cursor in given if CURSOR.fullmatch(cursor)}
        self.places |= {cursor for cursor in given if not CURSOR.fullmatch(cursor)}
        self.positions |= {int(found) for found in re.findall(r'"position":(\d+)', text)}
        self.keys |= {response.request.headers[name] for name in ("idempotency-key",) if name in response.request.headers}
        if response.request.content and response.status_code < 300:
            self.bodies[ID.sub("{}", response.request.url.path)] = json.loads(response.request.content)


def is_cursor(text: str) -> bool:
    try:
        decode_cursor(text)
    except InvalidCommand:
        return False
    return True


@dataclass
class Other:
    """The second tenant."""

    system: System
    http: httpx2.AsyncClient
    key: str
    seen: Seen
    given: set[str] = field(default_factory=set)
    """Ids and words of the first tenant in requests of the second one that change something: what is its own may have them."""
    own: dict[str, str] = field(default_factory=dict)
    """Values of its own, by the names of parameters of paths."""
    made: set[tuple[str, str]] = field(default_factory=set)
    """`tools` or `workflows`, and a name of the first tenant that it has given to one of its own."""
    about_nothing: dict[tuple[str, str, str, int], tuple[int, str, Any]] = field(default_factory=dict)
    """The last answers about things that nobody has, by what was asked."""
    blob: str = ""
    """The hash of a content of the first tenant."""
    gap: tuple[int, int] = (0, 0)
    """The last position of its own before events of the first tenant, and the first one after them."""

    async def learns_nothing(self, method: str, path: str, given: str = "", **request: Any) -> httpx2.Response:
        """Asks, and makes sure that the answer has nothing of the first tenant but what was given."""
        answer = await self.http.request(method, path, **request)
        asked = f"{path} {json.dumps(request)} {given}"
        if method != "GET" or path == "/v1/audit/export":  # an export leaves an entry with its reason
            self.given |= set(ID.findall(asked)) | {word for word in WORDS if word in asked}
        text = f"{answer.text} {json.dumps(dict(answer.headers))}"
        assert answer.status_code < 500, (method, path, request, text)
        leaked = {found for found in ID.findall(text) if found in self.seen.ids - self.given and found not in asked}
        if path.startswith("/v1/"):  # the documents have such words as examples
            leaked |= {word for word in WORDS if word in text and word.strip('"') not in asked and word not in self.given}
        assert not leaked, (method, path, request, answer.status_code, text)
        return answer

    async def streamed(self, path: str, last: str) -> httpx2.Response:
        """What a stream of events has after an event of the reader's, up to the own event after the gap, as one text."""
        text = ""
        asked = {"Authorization": f"Bearer {self.key}", "Accept": "text/event-stream", "Last-Event-ID": last}
        async with (
            http_client(await self.system.url(), timeout_s=ANSWER_S) as client,
            client.stream("GET", path, headers=asked) as response,
        ):
            if response.status_code == 200:
                stream = Stream(response)
                while True:
                    event = await stream.next(timeout_s=60)
                    text += f"{event.id} {event.event} {event.data}\n"
                    if event.event == "reset" or int(event.id.partition("-")[0]) >= self.gap[1]:
                        break
            else:
                text = (await response.aread()).decode()
        leaked = {found for found in ID.findall(text) if found in self.seen.ids - self.given}
        assert not leaked, (path, last, text)
        return httpx2.Response(response.status_code, text=text, request=httpx2.Request("GET", BASE + path))

    async def same_as_nothing(self, method: str, path: str, foreign: str, **request: Any) -> None:
        """Compares the answer about a thing of the first tenant with the one about a thing that nobody has. `path` and the values
        of `request` have `@` in the place of the id.

        Nobody's thing is asked about again only where the last answer is another one: something may have moved.
        """
        asked = (method, path, json.dumps(request, sort_keys=True), len(foreign))
        told = await self._answer_about(foreign, method, path, request)
        if self.about_nothing.get(asked) == told:
            return
        nothing = self.about_nothing[asked] = await self._answer_about(str(uuid4())[: len(foreign)], method, path, request)
        assert told == nothing, (method, path, request, foreign)

    async def _answer_about(self, id: str, method: str, path: str, request: dict[str, Any]) -> tuple[int, str, Any]:
        given = json.loads(json.dumps(request).replace('"@"', f'"{id}"'))
        answer = await self.learns_nothing(method, path.replace("@", id), **given)
        text = re.sub(r'"trace_id":"[^"]*"|at position \d+', "", answer.text).replace(id, "@").replace(id[:18], "@")
        headers = {name: value for name, value in answer.headers.items() if name in ("etag", "location", "allow", "link")}
        return answer.status_code, text, json.loads(json.dumps(headers).replace(id, "@"))

    async def settle(self) -> None:
        """Has something of each kind, before and after further events of the first tenant."""
        async with worker_at(await self.system.url(), self.key, name="own worker") as worker:
            await worker.hello(["own"], ["own_tool"])
            await worker.credit(agent=1, tool=1)
            await self._use(worker)
            self.blob = await self._blob_of_the_first()
            before = await self.system.settled()
            await self.system.start("walker")
            await self.system.settled()
            events = (await self.http.get("/v1/events", params={"limit": 1000})).json()["data"]
            last = max(event["position"] for event in events)
            after = (await self.http.post("/v1/projects", json={"name": "own, later"})).json()["position"]
        assert last <= before < after - 1
        self.gap = (last, after)
        self.own |= {"name": "runs", "topic": "run.started", "version": "1", "place": "own", "id": self.own["run_id"]}
        self.seen.positions |= set(range(last + 1, after))

    async def _blob_of_the_first(self) -> str:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"of the first tenant"

        put = self.system.container.blobs.put
        return (await put(DEFAULT_TENANT_ID, pieces(), made_by="test", type="text/plain", size=None)).blob.sha256

    async def _use(self, worker: SocketWorker) -> None:
        own = self.own
        own["project_id"] = (await self.http.post("/v1/projects", json={"name": "own"})).json()["project_id"]
        own["key_id"] = (await self.http.post("/v1/keys", json={"label": "own", "role": "auditor"})).json()["key_id"]
        parts = {"key": "parts", "agent": "own", "after": ["own"], "each": {"over": "[1]"}}
        plan = {"kind": "graph", "steps": [{"key": "own", "agent": "own", "input": 1}, parts]}
        assert (await self.http.post(f"/v1/keys/{own['key_id']}/rotate", json={})).status_code == 201  # it can be done once
        body = {"plan": plan, "project_id": own["project_id"], "input": 1, "metadata": {"team": "own"}, "budget": {"calls": 999}}
        own["run_id"] = (await self.http.post("/v1/runs", json=body)).json()["run_id"]
        own["step"], own["number"] = "own", "0"
        own["sha256"] = (await self.http.post("/v1/blobs", content=b"own")).json()["sha256"]
        tool = {"name": "own_http", "version": "1", "kind": "http", "parameters": {}, "request": {"url": "https://example.com/"}}
        assert (await self.http.post("/v1/tools", json=tool)).status_code == 201
        guarded = {**tool, "name": "own_held", "policy": {"approval": True}}
        assert (await self.http.post("/v1/tools", json=guarded)).status_code == 201
        held = (await self.http.post("/v1/tools/own_held/calls", json={"arguments": {}})).json()["invocation_id"]
        own["approval_id"] = str(approval_id_of(UUID(held), 0))
        bulk = {"action": "resume", "filter": {"agent": "nobody"}, "reason": "own"}
        own["bulk_action_id"] = (await self.http.post("/v1/bulk-actions", json=bulk)).json()["id"]
        assert (await self.http.put("/v1/approval-policies/own", json={"rules": [{"when": "false"}]})).status_code == 200
        flow = {"name": "own_flow", "plan": {"steps": [{"key": "own", "agent": "own"}]}, "command": {}}
        for note in ("first", "second"):
            assert (await self.http.post("/v1/workflows", json={**flow, "description": note, "note": note})).status_code == 201
        due = {"name": "own-schedule", "when": {"at": "2099-01-01T00:00:00Z"}, "start": {"plan": plan}, "overlap": "allow"}
        assert (await self.http.post("/v1/schedules", json=due)).status_code == 201
        trigger: dict[str, Any] = {"name": "own", "on": {"topics": ["project.removed"]}, "start": {"agent": "own"}}
        assert (await self.http.post("/v1/triggers", json=trigger)).status_code == 201
        hook: dict[str, Any] = {"name": "own.hook", "hook": {"scheme": "token"}, "start": {"agent": "own"}}
        made = (await self.http.post("/v1/triggers", json=hook)).json()
        own["hook_id"] = made["hook_path"].rpartition("/")[2]
        work = await worker.work()
        own["agent_run_id"] = work["work"]
        own["session_id"] = (await self.http.get("/v1/workers")).json()["data"][0]["session_id"]
        budget = {"scope": "agent", "agent": "of_nobody", "limits": {"calls": 9_999}}
        own["budget_id"] = (await self.http.put("/v1/budgets", json=budget)).json()["id"]
        await worker.done(work, "record", key="k", result={"a": 1})
        await worker.done(work, "send", key="m", to="own", body={"x": 1})
        own["invocation_id"] = (await worker.done(work, "call", key="c", tool="own_tool", arguments={"a": 1}))["invocation_id"]
        await worker.done(await worker.work("tool"), "complete", result=2)
        await worker.done(work, "complete", result={"done": True})
        await worker.credit(agent=1)
        await worker.done(await worker.work(), "complete", result=1)
        run = f"/v1/runs/{own['run_id']}"

        ended = await self.http.get(run, headers={"Prefer": "wait=30"})
        assert ended.json()["status"] == "completed", ended.text
        await self.system.settled()
        [sent] = (await self.http.get(f"{run}/messages")).json()["data"]
        own["message_id"] = sent["message_id"]
        entry = next(entry for entry in (await self.http.get(f"{run}/journal")).json()["data"] if entry["key"] == "k")
        own["position"] = str(entry["position"])

    async def pairs(self, *, digits_only: bool = False) -> list[Pair]:
        """Values of the first tenant, each with one of nobody."""
        last, _ = self.gap
        alike = is_cursor(str(last))  # some numbers happen to be cursors: whether one is refused tells nothing of tenants
        after = [position for position in sorted(self.seen.positions) if position > last]
        between = [position for position in after if is_cursor(str(position)) == alike] or after
        early = some({position for position in self.seen.positions if position < last}, 2)
        found = [Pair(str(position), str(last).zfill(len(str(position)))) for position in some(set(between), 3)]
        if digits_only:
            return found
        found += [Pair(id, nobodys(id)) for id in some(self.seen.ids, 5)]
        found += [Pair(f"key:{id}", f"key:{nobodys(id)}") for id in some(self.seen.ids, 2)]
        found += [Pair(cursor, _twin(cursor)) for cursor in some(self.seen.places, 6)]
        history = next(iter(sorted(self.seen.cursors))).partition("-")[2]
        found += [Pair(f"{position}-{history}", f"{last}-{history}") for position in some(set(between), 2)]
        found += [Pair(str(position), "0".zfill(len(str(position)))) for position in early if position < self._first_own]
        found += [Pair("walker", "rekwal"), Pair("add", "dad"), Pair("m=[1]", "m=[7]"), Pair("broken", "nekorb")]
        found += [Pair(hash, nobodys(hash)) for hash in (sha256(self.system.key), self.blob)]
        times = await self.system.sql(
            "SELECT f.recorded_at, o.recorded_at + interval '1 microsecond' FROM event f, event o"
            " WHERE f.notification_id = %s AND o.notification_id = %s", between[0], last,
        )  # fmt: skip
        return found + [Pair(*(time.isoformat() for time in row)) for row in times]

    @property
    def _first_own(self) -> int:
        return min(int(self.own["position"]), self.gap[0])


def nobodys(id: str) -> str:
    """An id like another one that nobody has."""
    return id[:-12] + uuid4().hex[:12]


def _twin(cursor: str) -> str:
    """A cursor of a list with another id in the place of each id."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        return cursor
    return base64.urlsafe_b64encode(ID.sub(lambda found: nobodys(found[0]), text).encode()).decode().rstrip("=")


def some(values: set[Any], most: int = 12) -> list[Any]:
    """Values from the whole range, in order. All of them would take minutes."""
    ordered = sorted(values)
    return ordered[:: -(-len(ordered) // most)]


def work_of(message: Message) -> dict[str, Any]:
    return {name: message[name] for name in ("work", "attempt", "token")}
