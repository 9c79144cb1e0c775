"""Definitions that a server cannot take: each refuses itself only, by name and with the reason, and operators see it."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from api.http.sessions.answers import Answers
from api.http.sessions.frames import read
from api.http.sessions.limits import MAX_MESSAGE
from api.http.sessions.offers import read_offers
from application.workers.hosting.messages import Defined, MalformedMessage, Verdict, Welcome
from domain.errors import InvalidCommand
from domain.tenants import CreateTenant, IssueApiKey
from domain.tools import RegisterTool
from tests.kit.engine import Engine
from tests.kit.hosting import KEY, Hosting, SpeakingWorker, hosting
from tests.kit.waiting import TENANT

WRITER = Answers("0af7651916cd43dd8448eb211c80319c", 262_144)
GOOD = '{"name":"good","parameters":{"type":"object"}}'


@pytest_asyncio.fixture
async def process() -> AsyncIterator[Hosting]:
    engine = Engine()
    await engine.set_up()
    await engine.give(CreateTenant(tenant_id=TENANT, name="t"))
    await engine.give(IssueApiKey(tenant_id=TENANT, key_id=KEY, label="", sha256="0" * 64))
    async with engine.running(), hosting(engine) as found:
        yield found


def nested(levels: int) -> str:
    return '{"not":' * levels + "{}" + "}" * levels


def hello(agents: str = "", tools: str = "", problems: str = "") -> str:
    named = '"t":"hello","versions":[1],"worker":"w","incarnation":"018f0000-0000-7000-8000-000000000001"'
    return f'[{{{named},"agents":[{agents}],"tools":[{tools}],"problems":[{problems}]}}]'


def written(answer: Welcome | Defined) -> dict[str, Any]:
    """The answer as the worker reads it."""
    text = WRITER.written(answer)
    assert len(text) <= MAX_MESSAGE
    found: dict[str, Any] = json.loads(text)
    return found


async def said(process: Hosting, frame: str) -> tuple[SpeakingWorker, dict[str, Any]]:
    worker = process.connect(read=partial(read_offers, TENANT))
    [message] = read(frame)
    worker.say(message)
    return worker, written(await worker.hears(Welcome))


async def shown(process: Hosting) -> list[tuple[str, str, str]]:
    found = await process.engine.workers.registration._problems.of_tenant(TENANT, 1_000)
    return [(one.problem.path, one.problem.kind, one.problem.message) for one in found]


BAD_FIELDS = {
    "half a surrogate pair": ('"description":"half \\ud800"', "half a surrogate pair"),
    "half a surrogate pair in a key": ('"parameters":{"\\udfff":1}', "half a surrogate pair"),
    "no number": ('"parameters":{"default":NaN}', "not finite"),
    "a number without end": ('"parameters":{"maximum":1e999}', "not finite"),
    "digits without end": (f'"parameters":{{"maximum":{"9" * 5_000}}}', "not finite"),
    "65 levels": (f'"parameters":{nested(64)}', "64 levels"),
    "300 levels": (f'"parameters":{nested(299)}', "64 levels"),
    "a NUL": ('"description":"a\\u0000b"', "NUL"),
    "a NUL in the schema": ('"parameters":{"title":"a\\u0000b"}', "NUL"),
    "a number as text": ('"description":1', "must be a text"),
    "a description that is enormous": (f'"description":"{"x" * 200_000}"', "100,000"),
}


@pytest.mark.parametrize(("field", "reason"), BAD_FIELDS.values(), ids=BAD_FIELDS)
@pytest.mark.parametrize("kind", ["agent", "tool"])
async def test_a_bad_definition_refuses_itself_only(process: Hosting, kind: str, field: str, reason: str) -> None:
    field = field.replace("parameters", "output_schema") if kind == "agent" else field
    more = '"parameters":{},' if kind == "tool" and "parameters" not in field else ""
    others = GOOD, GOOD.replace("good", "better")
    worker, welcome = await said(process, hello(**{f"{kind}s": f'{others[0]},{{"name":"bad",{more}{field}}},{others[1]}'}))
    verdicts = welcome[f"{kind}s"]
    assert [(one["name"], one["accepted"]) for one in verdicts] == [("good", True), ("bad", False), ("better", True)]
    assert reason in verdicts[1]["problem"]["detail"]
    assert set(worker.session.offered(kind)) == {"good", "better"}
    [(path, what, message)] = await shown(process)
    assert (path, what) == (f"{kind} bad", "definition-refused") and reason in message


SCHEMAS: dict[str, tuple[Any, str]] = {
    "no schema": ({"type": "thing"}, "no JSON Schema"),
    "enormous": ({"enum": ["x" * 70_000]}, "65,536 are allowed"),
    "a reference to itself": ({"$ref": "#"}, "refers to itself"),
    "references in a circle": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "itself"),
    "a reference to another document": ({"$ref": "https://example.org/x"}, "no JSON Schema"),
    "a pattern that needs backtracking": ({"pattern": "(a+)\\1"}, "linear time"),
    "references that multiply": (
        {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 4} for i in range(12)} | {"d12": {}}},
        "places",
    ),
}


@pytest.mark.parametrize(("schema", "reason"), SCHEMAS.values(), ids=SCHEMAS)
async def test_a_bad_schema_refuses_its_tool_only(process: Hosting, schema: Any, reason: str) -> None:
    _, welcome = await said(process, hello(tools=f'{{"name":"bad","parameters":{json.dumps(schema)}}},{GOOD}'))
    bad, good = welcome["tools"]
    assert good["accepted"] and not bad["accepted"] and reason in bad["problem"]["detail"]


@pytest.mark.parametrize("given", ["null", "1", "[]", '"name"', "{}", "NaN", '"\\ud800"', '{"name":"\\ud800"}', '{"name":"A b"}'])
async def test_a_definition_without_a_name_of_this_protocol_refuses_itself_only(process: Hosting, given: str) -> None:
    _, welcome = await said(process, hello(agents=f"{given},{GOOD}", tools=f"{GOOD},{given}"))
    assert [one["accepted"] for one in welcome["agents"] + welcome["tools"]] == [False, True, True, False]


async def test_integers_of_any_size_are_taken(process: Hosting) -> None:
    _, welcome = await said(process, hello(tools=f'{{"name":"big","parameters":{{"maximum":{2**80}}}}}'))
    assert welcome["tools"] == [{"name": "big", "version": "1", "accepted": True}]


async def test_of_too_many_definitions_the_last_ones_are_refused(process: Hosting) -> None:
    agents, tools = (",".join(GOOD.replace("good", f"{kind}{number}") for number in range(502)) for kind in "at")
    worker, welcome = await said(process, hello(agents, tools))
    for kind in ("agent", "tool"):
        verdicts = welcome[f"{kind}s"]
        assert [one["name"] for one in verdicts if not one["accepted"]] == [f"{kind[0]}500", f"{kind[0]}501"]
        assert "at most 500" in verdicts[-1]["problem"]["detail"]
        assert len(worker.session.offered(kind)) == 500
    assert [path for path, _, _ in await shown(process)] == ["agent a500", "agent a501", "tool t500", "tool t501"]


async def test_a_bad_definition_of_a_define_refuses_itself_only(process: Hosting) -> None:
    worker, _ = await said(process, hello(GOOD))
    [define] = read(f'[{{"t":"define","id":7,"agents":[{GOOD},{{"name":"half","description":"\\ud800"}}]}}]')
    worker.say(define)
    answer = written(await worker.hears(Defined))
    assert [(one["name"], one["accepted"]) for one in answer["agents"]] == [("good", True), ("half", False)]
    worker.say(read(f'[{{"t":"define","id":8,"agents":[{GOOD}]}}]')[0])
    await worker.hears(Defined)
    assert await shown(process) == [], "what is mended is no problem any more"


async def test_a_defect_that_one_definition_brings_to_light_refuses_this_definition_only(
    process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    declarations = process.engine.workers.declarations
    check = declarations.check

    def breaks(declared: RegisterTool) -> None:
        if declared.name == "bad":
            raise RuntimeError("a defect")
        check(declared)

    monkeypatch.setattr(declarations, "check", breaks)
    _, welcome = await said(process, hello(tools=f"{GOOD.replace('good', 'bad')},{GOOD}"))
    assert [one["accepted"] for one in welcome["tools"]] == [False, True]
    assert welcome["tools"][0]["problem"]["code"] == "internal" and "a defect" not in json.dumps(welcome)


def test_a_thousand_refusals_fit_into_the_answer() -> None:
    faults = [(f"/parameters/{number}", "\u0001" * 50) for number in range(50)]
    error = InvalidCommand("\u0001" * 2_000, faults=faults)
    bad = [Verdict(f"bad{number}" + "\u0001" * 400, None, error) for number in range(500)]
    answer = written(Defined(1, [*bad, Verdict("good", "1")], [Verdict("good", "1"), *bad]))
    for kind in ("agents", "tools"):
        refused = [one for one in answer[kind] if not one["accepted"]]
        assert len(refused) > 100 and {"name": "good", "version": "1", "accepted": True} in answer[kind]
        assert "errors" in refused[0]["problem"] and refused[-1]["problem"]["code"] == "invalid-command"


async def test_problems_are_taken_with_their_texts_cut(process: Hosting) -> None:
    long = json.dumps({"path": "a" * 600, "kind": "k", "message": "m" * 5_000})
    await said(process, hello(problems=f'{{"path":"p\\ud800","kind":"k\\u0000","message":"m"}},1,{long}' + f",{long}" * 600))
    found = await shown(process)
    assert found[0] == ("p?", "k?", "m") and found[1] == ("a" * 500, "k", "m" * 4_000) and len(found) == 99


def test_half_a_surrogate_pair_in_a_report_refuses_the_report_only() -> None:
    work = '"work":"018f0000-0000-7000-8000-00000000000a","attempt":1,"token":"t","key":"k"'
    bad, good, unknown = read(
        f'[{{"t":"record","id":1,{work},"result":"\\ud800"}},{{"t":"record","id":2,{work}}},{{"t":"\\ud800","id":3}}]'
    )
    assert (bad.error.code, bad.id, good.t) == ("invalid-request", 1, "record")  # type: ignore[union-attr]
    assert unknown.error.code == "invalid-request"  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ['"worker":"\\ud800"', '"release":NaN', '"agents":{}'])
def test_a_hello_that_is_bad_outside_its_definitions_is_malformed(field: str) -> None:
    with pytest.raises(MalformedMessage):
        read(f'[{{"t":"hello","versions":[1],"worker":"w","incarnation":"018f0000-0000-7000-8000-000000000001",{field}}}]')
