"""The schemas of a session's messages, and golden frames of both sides: schemas, the server and the SDK agree about each type."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid4

import jsonschema
import pytest
from pydantic import BaseModel

from api.http.documents import session_messages
from api.http.sessions import answers
from api.http.sessions.answers import Answers
from api.http.sessions.frames import Unreadable
from api.http.sessions.frames import read as read_by_server
from application.workers.claims import ClaimedAgentRun
from application.workers.hosting import messages
from application.workers.hosting.messages import RESERVED, Answer, MalformedMessage
from application.workers.journal import EntryView, JournalView, MailItem
from application.workers.sessions import ClaimedCall
from domain.errors import InvalidCommand, WorkOver
from domain.failures import Failure
from tests.kit.scripted_work import agent_work, answer, running, tool_work
from tests.kit.session_server import scripted
from tests.kit.waiting import until
from tidelog import Agent, Context, Reconciled, tool
from tidelog.session.frames import read as read_by_sdk
from tidelog.worker.protocol import AgentWork

FOLDER = Path(__file__).parent.parent / "golden" / "frames"
SESSION, RUN, WORK, CALL, MAIL = (UUID(f"018f0000-0000-7000-8000-0000000000{end}") for end in ("02", "03", "0a", "0b", "0c"))

DEFINITION = {
    "kind": "http",
    "version": "1",
    "request": {"method": "GET", "url": "https://api.example.com/weather/{{city}}", "auth": {"secret": "weather"}},
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def golden() -> dict[str, list[dict[str, Any]]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@cache
def schemas() -> dict[str, Any]:
    """The components of the document, closed: here a field that the document does not know is a fault."""
    found = session_messages.schemas()
    for schema in found.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return {"schemas": found, "messages": session_messages.messages()}


@cache
def checker(name: str) -> Any:
    payload = schemas()["messages"][name]["payload"]
    return jsonschema.Draft202012Validator({**payload, "components": schemas()})


def check(side: str, message: dict[str, Any]) -> None:
    faults = [f"{fault.json_path}: {fault.message}" for fault in checker(f"{side}.{message['t']}").iter_errors(message)]
    assert not faults, (message, faults)


MODELS = {"worker": session_messages.WORKER, "server": session_messages.SERVER}


def fits(model: type[BaseModel], message: dict[str, Any]) -> bool:
    """Whether the model describes messages of this type, and of this kind of work."""
    if session_messages.type_of(model) != message["t"]:
        return False
    return message["t"] != "work" or message["kind"] in get_args(model.model_fields["kind"].annotation)


# --- golden frames -----------------------------------------------------------------------------------------------------


def test_there_is_a_golden_frame_of_each_type_of_both_sides() -> None:
    unused = {f"worker.{name}" for name in RESERVED}
    assert golden().keys() - unused == session_messages.messages().keys() - unused


@pytest.mark.parametrize("name", golden())
def test_the_schemas_accept_the_golden_frames_and_nothing_with_a_field_less_or_more(name: str) -> None:
    side, _, kind = name.partition(".")
    assert {message["t"] for message in golden()[name]} == {kind}
    for message in golden()[name]:
        if kind in RESERVED:
            continue
        check(side, message)
        [model] = [one for one in MODELS[side] if fits(one, message)]
        needed = session_messages.schemas()[f"session.{model.__name__}"]["required"]
        for faulty in ({**message, "more than that": 1}, *({**message, field: ...} for field in needed)):
            faulty = {field: value for field, value in faulty.items() if value is not ...}
            assert not checker(f"{side}.{kind}").is_valid(faulty), faulty


@pytest.mark.parametrize("name", [name for name in golden() if name.startswith("worker.")])
def test_the_server_reads_the_golden_frames_of_workers(name: str) -> None:
    kind = name.partition(".")[2]
    found = read_by_server((FOLDER / f"{name}.json").read_text())
    said = [one.t for one in found if not isinstance(one, Unreadable)]
    assert said == ([] if kind in RESERVED else [kind] * len(golden()[name]))


def examples() -> dict[str, list[Answer]]:
    """What stands in the golden frames of the server, but `error`."""
    failure = Failure(type="Timeout", message="too slow", kind="transient")
    entry = EntryView("parse", "step", "ok", {"n": 1}, None, None)
    call = EntryView("short", "call", "error", None, failure, CALL)
    mail = MailItem(MAIL, "other", {"text": "hi"}, datetime(2026, 11, 21, 10, 30, tzinfo=UTC))
    journal = JournalView("running", 1, 4, [entry, call], [mail])
    claimed = ClaimedAgentRun(
        run_id=RUN, attempt=1, step_key="greeter", agent="greeter", agent_version="1", version_asked=False, input={"name": "Ada"},
        results={"upstream": 1}, missing=["late"], peers=["other"], journal=journal,
    )  # fmt: skip
    verdicts = [messages.Verdict("greeter", "1")], [messages.Verdict("names.shorten", None, InvalidCommand("no schema"))]
    page = JournalView("running", 1, 9, [entry], [mail], more=True)
    return {
        "welcome": [messages.Welcome(SESSION, "c2VjcmV0", 10.0, *verdicts)],
        "work": [
            messages.WorkForAgent(1, WORK, "c2VjcmV0", claimed),
            messages.WorkForTool(2, CALL, "c2VjcmV0", ClaimedCall(RUN, WORK, 1, "names.shorten", {"name": "Ada"}, 60.0, True)),
            messages.WorkForTool(
                3, CALL, "c2VjcmV0", ClaimedCall(RUN, WORK, 2, "names.shorten", {"name": "Ada"}, 30.0, False, asks=True)
            ),
            messages.WorkForTool(
                4, CALL, "c2VjcmV0", ClaimedCall(RUN, WORK, 1, "weather.get", {"city": "Bergen"}, 30.0, True), DEFINITION
            ),
        ],
        "done": [
            messages.Done(1, {"version": 3}), messages.Done(2, {}, page), messages.Defined(3, *verdicts),
            messages.Done(4, {"version": 5, "invocation_id": str(CALL)}), messages.Done(5, {"result": [1]}),
        ],
        "refused": [messages.Refused(2, WorkOver("the agent run is cancelled")),
                    messages.Refused(3, InvalidCommand("two faults", faults=[("/a", "no"), ("/b", "no")]))],
        "update": [messages.Update(WORK, 1, journal)],
        "stop": [messages.Stop(WORK, 1, "cancelled")],
        "drain": [messages.Drain(3.0)],
        "beat": [messages.LifeSign()],
    }  # fmt: skip


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setattr(answers, "_RELEASE", "0.1.0")
    return Answers("0af7651916cd43dd8448eb211c80319c", 262_144)


def test_the_server_writes_its_golden_frames(writer: Answers) -> None:
    written = {f"server.{kind}": [json.loads(writer.written(one)) for one in said] for kind, said in examples().items()}
    written["server.error"] = [json.loads(writer.error(MalformedMessage("the frame is not JSON")))]
    assert written == {name: frame for name, frame in golden().items() if name.startswith("server.")}
    assert {type(one) for said in examples().values() for one in said} == set(get_args(Answer))


@pytest.mark.parametrize("name", [name for name in golden() if name.startswith("server.")])
def test_the_sdk_reads_the_golden_frames_of_the_server(name: str) -> None:
    assert read_by_sdk((FOLDER / f"{name}.json").read_bytes()) == golden()[name]


def test_an_execution_of_several_says_its_number(writer: Answers) -> None:
    answer = examples()["work"][0]
    assert isinstance(answer, messages.WorkForAgent) and "part" not in json.loads(writer.written(answer))
    written = writer.written(replace(answer, claimed=replace(answer.claimed, part=3)))
    check("server", json.loads(written))
    [read] = [AgentWork.model_validate(message) for message in read_by_sdk(b"[" + written + b"]")]
    assert read.part == 3


# --- what the SDK says ---------------------------------------------------------------------------------------------------


class Says(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.step("parse", lambda: {"n": 1})
        ctx.progress(1, 4, "parsed")
        await ctx.send("peer", "hi")
        await ctx.state.set("x", 1)
        await ctx.state.get("x")
        await ctx.schedule("later", in_s=60)
        await ctx.unschedule("later", reason="done")
        await ctx.receive(timeout_s=60)
        await ctx.sleep("1h")
        await ctx.child("critic")
        return await ctx.tool("math.add", a=1)


@tool("t.breaks", idempotent=True, reconcile=Reconciled.unknown)
def breaks(a: int = 1) -> None:
    raise ValueError("no")


async def test_the_schemas_accept_what_the_sdk_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted() as server, running(server, Says, breaks) as shown:
        peer = await server.welcomed(suspends=True, progress=True)
        shown.worker.show_problems([])
        await answer(peer, "define", agents=[], tools=[])
        work = agent_work(1, "says", more=True)
        named = {"work": work["work"], "attempt": 1}
        await peer.say(work, tool_work(2, "t.breaks"))
        await answer(peer, "more", version=3, journal=[], mailbox=[], more=False)
        await answer(peer, "record")
        await answer(peer, "send", message_id=str(uuid4()))
        await answer(peer, "progress")
        await answer(peer, "set", found=True, value=1, value_version=1)
        await answer(peer, "get", found=True, value=7, value_version=1)
        mail = {"message_id": str(MAIL), "sender": "peer", "body": "yes"}
        await peer.say({"t": "update", **named, "version": 9, "journal": [], "mailbox": [mail]})
        await answer(peer, "schedule", result={"did": "scheduled", "name": "says.later", "status": "active", "next_at": None})
        await answer(peer, "unschedule", result={"did": "unscheduled", "name": "says.later", "was_there": True})
        await answer(peer, "receive")
        await answer(peer, "wait")
        await answer(peer, "suspend", suspended=False)
        slept = {"key": "sleep#1", "kind": "sleep", "status": "ok", "result": None}
        await peer.say({"t": "update", **named, "version": 10, "journal": [slept], "mailbox": []})
        await answer(peer, "child")
        ended = {"key": "child:critic#1", "kind": "child", "status": "ok", "result": None}
        await peer.say({"t": "update", **named, "version": 11, "journal": [ended], "mailbox": []})
        await answer(peer, "call", invocation_id=str(CALL))
        entry = {"key": "math.add#1", "kind": "call", "status": "ok", "result": 11, "invocation_id": str(CALL)}
        await peer.say({"t": "update", **named, "version": 12, "journal": [entry], "mailbox": []})
        await answer(peer, "complete")
        await until(lambda: any(message["t"] == "fail" for frame in peer.frames for message in frame))
        await peer.say(tool_work(3, "t.breaks", kind="reconcile"))
        await answer(peer, "reconciled")
    said = [peer.hello, *(message for frame in peer.frames for message in frame)]
    for message in said:
        check("worker", message)
    known = {session_messages.type_of(model) for model in session_messages.WORKER}
    assert {message["t"] for message in said} >= known - {"beat", "return", "log"}
