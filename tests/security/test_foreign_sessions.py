"""A worker of another tenant says every message about work that is not its own, with real tokens and the secret of a real session.

Each answer is the one about work that nobody has, and the work goes on as if nobody had said anything.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
import pytest_asyncio

from application.workers.hosting.messages import AnyReport
from tests.integration.session_kit import Message, SocketWorker, worker_at
from tests.integration.system_kit import System, eventually
from tests.security.two_tenants import ID

FRAMES = sorted((Path(__file__).parent.parent / "golden" / "frames").glob("worker.*.json"))
SAID = [message for path in FRAMES for message in json.loads(path.read_text())]
REPORTS = [message for message in SAID if "work" in message and "id" in message]
"""One or more of each type that is about a piece of work and has an answer."""


@dataclass
class Sides:
    system: System
    foreign: SocketWorker
    """Of the first tenant, with an agent run and a call in hand."""
    run: Message
    call: Message
    other: SocketWorker
    """Of the second tenant, with an agent run in hand."""
    own: Message
    key: str

    def held(self) -> list[Message]:
        return [self.run, self.call]

    async def answer(self, message: Message, **fields: Any) -> str:
        """What the second tenant is told, without the ids that it gave."""
        self.other.ids += 1
        said = {**message, **fields, "id": self.other.ids}
        await self.other.say(said)
        told = {**await self.other.answer(self.other.ids), "id": 0}
        text = json.dumps(told, sort_keys=True)
        for given in ID.findall(json.dumps(fields)):
            text = text.replace(given, "@")
        return text


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sides(shared: System) -> AsyncIterator[Sides]:
    url = await shared.url()
    _, key = await shared.tenant("other")
    async with worker_at(url, shared.key, name="socket-first") as foreign, worker_at(url, key, name="socket-other") as other:
        await foreign.hello(["same"], ["same_tool"])
        await foreign.credit(agent=2, tool=2)
        await shared.start("same")
        run = await foreign.work()
        await foreign.done(run, "call", key="c", tool="same_tool", arguments={"secret": "of the first"})
        call = await foreign.work("tool")
        await other.hello(["same"], ["same_tool"])
        await other.credit(agent=2, tool=2)
        async with shared.client(key) as http:
            assert (await http.post("/v1/runs", json={"agent": "same"})).status_code == 201
        yield Sides(shared, foreign, run, call, other, await other.work(), key)


async def test_every_message_about_foreign_work_is_refused_like_one_about_no_work(sides: Sides) -> None:
    before = await sides.system.settled()
    types = {model.model_fields["t"].annotation for model in get_args(AnyReport)}
    assert {message["t"] for message in REPORTS} == {t for one in types for t in get_args(one)}
    for message in REPORTS:
        for held in sides.held():
            token = {"attempt": held["attempt"], "token": held["token"]}
            nobody = await sides.answer(message, work=str(uuid4()), **token)
            assert json.loads(nobody)["problem"]["code"] == "invalid-token"
            assert await sides.answer(message, work=held["work"], **token) == nobody, message
            own = {"attempt": sides.own["attempt"], "token": sides.own["token"]}
            assert await sides.answer(message, work=held["work"], **own) == nobody, message
            assert await sides.answer(message, work=sides.own["work"], **token) == nobody, message
    assert await sides.system.settled() == before
    await sides.foreign.done(sides.run, "record", key="still", result=1)


async def test_lines_of_logs_about_foreign_work_are_dropped(sides: Sides) -> None:
    line = {"at": "2026-01-31T12:00:00Z", "level": "info", "text": "from another tenant"}
    for held in sides.held():
        fields = {name: held[name] for name in ("work", "attempt", "token")}
        await sides.other.say({"t": "log", **fields, "lines": [line], "dropped": 0})
    mine = {name: sides.own[name] for name in ("work", "attempt", "token")}
    await sides.other.say({"t": "log", **mine, "lines": [{**line, "text": "of its own"}], "dropped": 0})
    async with sides.system.client(sides.key) as http:
        path = f"/v1/runs/{sides.own['run']}/logs"

        async def there() -> bool:
            return bool((await http.get(path)).json()["data"])

        await eventually(there, "the line of its own")  # lines are written in the order in which they came
        assert [found["text"] for found in (await http.get(path)).json()["data"]] == ["of its own"]
    assert (await sides.system.http.get(f"/v1/runs/{sides.run['run']}/logs")).json()["data"] == []


@pytest.mark.parametrize("place", ["message_id", "to", "result"])
async def test_foreign_ids_inside_of_ones_own_reports_are_nobodys(sides: Sides, place: str) -> None:
    types = {"message_id": "receive", "to": "send", "result": "more"}
    message = {"t": types[place], **{name: sides.own[name] for name in ("work", "attempt", "token")}}
    for number, value in enumerate((sides.run["work"], sides.call["work"], str(sides.run["run"]))):
        extra = {"receive": {}, "send": {"body": 1}, "more": {"after": 0}}[types[place]]
        told = []
        for who, given in (("foreign", value), ("nobody", str(uuid4()))):
            key = {} if place == "result" else {"key": f"{place}-{number}-{who}"}
            text = await sides.answer(message, **extra, **key, **{place: given})
            told.append(text.replace(f"-{who}", ""))
        assert ID.sub("#", told[0]) == ID.sub("#", told[1]), told


async def test_the_session_of_another_tenant_cannot_be_taken_over(sides: Sides) -> None:
    """Not even with its id, its secret, its incarnation and its tokens: the answer is that of a session that nobody has."""
    url, told = await sides.system.url(), []
    in_hand = [{name: held[name] for name in ("work", "attempt", "token")} for held in sides.held()]
    for session, secret, work in (
        (str(uuid4()), "nobody's", [{**one, "work": str(uuid4())} for one in in_hand]),
        (sides.foreign.session, sides.foreign.secret, in_hand),
    ):
        known = {"session": session, "secret": secret, "incarnation": sides.foreign.incarnation}
        async with worker_at(url, sides.key, name=f"taking over {session}", **known) as worker:
            welcome = await worker.hello(["same"], ["same_tool"], work=work)
            assert welcome["session"] != session and welcome["secret"] != secret
            stops = [await worker.wait(t="stop") for _ in work]
            text = json.dumps([{**welcome, "session": "", "secret": ""}, stops], sort_keys=True)
            told.append(ID.sub("#", text))
    assert told[0] == told[1], told
    await sides.foreign.done(sides.run, "record", key="untouched", result=1)
    await sides.foreign.done(sides.call, "complete", result=2)
    await sides.foreign.done(sides.run, "complete", result={"done": True})
    assert (await sides.system.ended(str(sides.run["run"])))["status"] == "completed"
