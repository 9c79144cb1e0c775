"""Messages of sessions: what the page about the protocol shows is what the server reads and writes; frames and their faults."""

import json
import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from api.http.sessions import answers
from api.http.sessions.answers import Answers
from api.http.sessions.frames import Unreadable, read
from api.http.sessions.limits import MAX_MESSAGE
from application.workers.claims import ClaimedAgentRun
from application.workers.hosting.messages import (
    Answer,
    Done,
    Drain,
    Hello,
    LifeSign,
    MalformedMessage,
    Record,
    Refused,
    Stop,
    Update,
    Verdict,
    Welcome,
    WorkForAgent,
    WorkForTool,
)
from application.workers.journal import EntryView, JournalView
from application.workers.sessions import ClaimedCall
from domain.errors import InvalidCommand, WorkOver
from domain.kernel import Json
from tests.architecture.sources import ROOT
from tidelog.worker.protocol import AgentWork, ToolWork

PAGE = (ROOT / "docs" / "reference" / "worker-sessions.md").read_text()
TRACE = "0af7651916cd43dd8448eb211c80319c"
RUN, WORK, CALL = (UUID(f"018f0000-0000-7000-8000-0000000000{end}") for end in ("03", "0a", "0b"))


def frames_after(heading: str) -> list[str]:
    part = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    return re.findall(r"^```json\n(.*?)^```", part, re.MULTILINE | re.DOTALL)


def writer() -> Answers:
    return Answers(TRACE, 262_144)


def claimed(journal: JournalView, input: Json = None, results: dict[str, Json] | None = None) -> ClaimedAgentRun:
    return ClaimedAgentRun(
        run_id=RUN, attempt=1, step_key="greeter", agent="greeter", agent_version="1", version_asked=False, input=input,
        results=results or {}, missing=[], peers=["other"], journal=journal,
    )  # fmt: skip


def entry(key: str = "parse", result: Json = 1, **more: Any) -> EntryView:
    return EntryView(**{"key": key, "kind": "step", "status": "ok", "result": result, "error": None, "invocation_id": None, **more})


def test_what_the_page_says_of_workers_is_read() -> None:
    said = [message for frame in frames_after("What a worker says") for message in read(frame)]
    assert not [one for one in said if isinstance(one, Unreadable)]
    assert [one.t for one in said if not isinstance(one, Unreadable)] == [
        "hello", "credit", "log", "record", "call", "send", "receive", "get", "set", "schedule", "unschedule", "more", "more",
        "complete", "fail", "reconciled", "return", "define", "beat", "leaving",
    ]  # fmt: skip
    assert isinstance(said[0], Hello) and said[0].work[0].version == 17


DEFINITION = {
    "kind": "http",
    "version": "1",
    "request": {"method": "GET", "url": "https://api.example.com/weather/{{city}}", "auth": {"secret": "weather"}},
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_what_the_page_says_of_the_server_is_what_the_server_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_RELEASE", "0.1.0")
    session = UUID("018f0000-0000-7000-8000-000000000002")
    refused = Verdict("names.shorten", None, InvalidCommand("no schema"))
    journal = JournalView("running", 1, 2, [entry()], [])
    news = JournalView("running", 1, 4, [entry("short", "A.", kind="call", invocation_id=CALL)], [])
    call = ClaimedCall(RUN, WORK, 1, "names.shorten", {"name": "Ada"}, 60.0, True)
    weather = replace(call, tool="weather.get", arguments={"city": "Bergen"}, timeout_s=30.0)
    expected: list[Answer] = [
        Welcome(session, "c2VjcmV0", 10.0, [Verdict("greeter", "1")], [refused]),
        WorkForAgent(1, WORK, "c2VjcmV0", claimed(journal, {"name": "Ada"}, {"upstream": 1})),
        WorkForTool(2, CALL, "c2VjcmV0", call),
        WorkForTool(3, CALL, "c2VjcmV0", replace(call, attempt=2, timeout_s=30.0, idempotent=False, asks=True)),
        WorkForTool(4, CALL, "c2VjcmV0", weather, DEFINITION),
        Done(1, {"version": 3}),
        Refused(2, WorkOver("the agent run is cancelled")),
        Update(WORK, 1, news),
        Stop(WORK, 1, "cancelled"),
        Drain(3.0),
        LifeSign(),
    ]
    [frame] = frames_after("What the server says")
    shown = json.loads(frame)
    for message, answer in zip(shown, expected, strict=True):
        assert json.loads(writer().written(answer)) == message


@pytest.mark.parametrize("name", [None, "Ada"])
def test_work_says_for_whom_it_is_if_it_is_for_somebody(name: str | None) -> None:
    """A worker of before ignores the field, as every unknown one."""
    agent = replace(claimed(JournalView("running", 1, 2, [], [])), on_behalf_of=name)
    call = ClaimedCall(RUN, WORK, 1, "names.shorten", {}, 60.0, True, name)
    said = [json.loads(writer().written(one)) for one in (WorkForAgent(1, WORK, "t", agent), WorkForTool(2, WORK, "t", call))]
    assert [one.get("on_behalf_of", "missing") for one in said] == ["missing" if name is None else name] * 2
    assert (AgentWork.model_validate(said[0]).on_behalf_of, ToolWork.model_validate(said[1]).on_behalf_of) == (name, name)


def test_a_message_that_is_not_valid_refuses_itself_only() -> None:
    good = {"t": "record", "id": 1, "work": str(WORK), "attempt": 1, "token": "t", "key": "a", "result": 1}
    frame = [
        good,
        {**good, "id": 2, "attempt": "1"},
        {**good, "id": 3, "result": [[[]]], "of_a_later_release": 1},
        {**good, "id": 4, "key": "k" * 501},
    ]
    first, second, third, fourth = read(json.dumps(frame))
    assert isinstance(first, Record) and isinstance(third, Record)
    assert isinstance(second, Unreadable) and (second.id, second.error.faults[0][0]) == (2, "/attempt")
    assert isinstance(fourth, Unreadable) and fourth.error.code == "invalid-request"


@pytest.mark.parametrize("value", ["1e400", "NaN", "-Infinity"])
def test_a_number_that_is_not_finite_is_no_json(value: str) -> None:
    with pytest.raises(MalformedMessage):
        read(f'[{{"t":"record","id":1,"work":"{WORK}","attempt":1,"token":"t","key":"a","result":{value}}}]')


@pytest.mark.parametrize(("levels", "valid"), [(64, True), (65, False)])
def test_a_value_may_be_64_levels_deep(levels: int, valid: bool) -> None:
    value = "[" * levels + "]" * levels
    [message] = read(f'[{{"t":"record","id":1,"work":"{WORK}","attempt":1,"token":"t","key":"a","result":{value}}}]')
    assert isinstance(message, Record) is valid


@pytest.mark.parametrize(
    "frame", ["", "1", "{}", "[1]", "[[]]", '[{"t":1}]', '[{"x":1}]', '[{"t":"record","id":0}]', '[{"t":"hello"}]']
)
def test_a_frame_that_is_not_of_the_protocol(frame: str) -> None:
    with pytest.raises(MalformedMessage):
        read(frame)


def test_types_of_other_releases() -> None:
    frame = '[{"t":"delta","id":1},{"t":"delta"},{"t":"new","id":2},{"t":"new","id":true},{"t":"beat","id":"x"}]'
    found = read(frame)
    assert [(one.id, one.error.code) if isinstance(one, Unreadable) else one.t for one in found] == [
        (1, "not-yet"), (2, "unknown-message"), "beat",
    ]  # fmt: skip


def test_work_that_does_not_fit_leaves_results_and_then_the_journal_for_later() -> None:
    large = "x" * 600_000
    view = JournalView("running", 1, 9, [entry(result=large)], [], more=True)
    results: dict[str, Json] = {"a": large, "b": large}
    whole = json.loads(writer().written(WorkForAgent(1, WORK, "t", claimed(JournalView("running", 1, 9, [], []), 1, {"a": large}))))
    assert whole["results"] == {"a": large} and "later" not in whole
    some = writer().written(WorkForAgent(1, WORK, "t", claimed(view, 1, results)))
    assert len(some) <= MAX_MESSAGE
    assert json.loads(some)["later"] == ["a", "b"] and len(json.loads(some)["journal"]) == 1
    least = json.loads(writer().written(WorkForAgent(1, WORK, "t", claimed(view, large, results))))
    assert (least["journal"], least["version"], least["more"], least["input"]) == ([], 0, True, large)
