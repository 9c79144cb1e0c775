"""The verdict of the golden schema check on each kind of change of an event."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import Field, StringConstraints, create_model

from domain import runs
from domain.event_registry import Upcast
from domain.kernel import Event, Json, Value
from domain.registry import REGISTRY, UPCASTS
from tests.golden.compatibility import compare, normal
from tests.golden.generate import breaks, current, write_schemas


class Inner(Value):
    a: int
    b: str = ""


class WiderInner(Value):
    a: int
    b: str = ""
    c: int = 0


class OpenInner(Event):
    a: int
    b: str = ""


class Renamed(Value):
    """Another class with the same fields."""

    a: int
    b: str = ""


class Endless(Value):
    inner: "Endless | None" = None


def schema(**fields: Any) -> dict[str, Any]:
    model: Any = create_model(
        "Something", __base__=Event, **{name: kind if isinstance(kind, tuple) else (kind, ...) for name, kind in fields.items()}
    )
    return normal(model.model_json_schema())


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[bool, str]]:
    return [(change.breaks, change.words) for change in compare(schema(**old), schema(**new))]


BREAKS = {
    "removed": (dict(x=int, y=int), dict(x=int), "y: is gone"),
    "renamed": (dict(x=int), dict(z=(int, 0)), "x: is gone (or has another name)"),
    "new and required": (dict(x=int), dict(x=int, y=int), "y: is new and required"),
    "required": (dict(x=(int, 0)), dict(x=int), "x: is required now"),
    "no longer required": (dict(x=int), dict(x=(int, 0)), "x: is no longer required"),
    "another type": (dict(x=int), dict(x=str), "x: was integer, is string"),
    "a wider type": (dict(x=int), dict(x=float), "x: was integer, is number"),
    "anything narrowed": (dict(x=Json), dict(x=str), "x: was anything, is string"),
    "nullable": (dict(x=int), dict(x=int | None), "x: may now be null, too"),
    "no longer nullable": (dict(x=int | None), dict(x=int), "x: may no longer be null"),
    "a member of a union": (dict(x=int | str), dict(x=int | bool), "x: may no longer be string"),
    "choice gone": (dict(x=Literal["a", "b"]), dict(x=Literal["a"]), 'x: may no longer be "b"'),
    "choice come": (dict(x=Literal["a", "b"]), dict(x=Literal["a", "b", "c"]), 'x: may now be "c"'),
    "choices at all": (dict(x=str), dict(x=Literal["a", "b"]), "x: is now one of"),
    "no choices": (dict(x=Literal["a", "b"]), dict(x=str), "x: is no longer one of"),
    "upper bound narrower": (
        dict(x=Annotated[int, Field(le=9)]), dict(x=Annotated[int, Field(le=8)]), "x: maximum was 9, is 8: stored events",
    ),
    "upper bound wider": (dict(x=Annotated[str, Field(max_length=9)]), dict(x=str), "x: maxLength was 9, is none: a reader"),
    "lower bound narrower": (dict(x=int), dict(x=Annotated[int, Field(gt=0)]), "x: exclusiveMinimum was none, is 0: stored events"),
    "pattern": (dict(x=str), dict(x=Annotated[str, StringConstraints(pattern="^a")]), 'x: pattern was null, is "^a"'),
    "format": (dict(x=UUID), dict(x=str), 'x: format was "uuid", is null'),
    "default": (dict(x=(int, 1)), dict(x=(int, 2)), "x: the default was 1, is 2"),
    "inside": (dict(x=Inner), dict(x=WiderInner), "x.c: is new in an object that is closed"),
    "inside a list": (dict(x=tuple[Inner, ...]), dict(x=tuple[WiderInner, ...]), "x[].c: is new in an object that is closed"),
    "opened": (dict(x=Inner), dict(x=OpenInner), "x: additionalProperties was false, is true"),
    "values of a map": (dict(x=dict[str, int]), dict(x=dict[str, str]), "x.*: was integer, is string"),
    "items": (dict(x=list[int]), dict(x=list[str]), "x[]: was integer, is string"),
    "a pair": (dict(x=tuple[int, int]), dict(x=tuple[int, str]), "x[1]: was integer, is string"),
    "a keyword of later": (dict(x=float), dict(x=Annotated[float, Field(multiple_of=2)]), "x: multipleOf was null, is 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_found_and_said_in_words(name: str) -> None:
    old, new, words = BREAKS[name]
    found = changes(old, new)
    assert any(breaking and said.startswith(words) for breaking, said in found), found


def test_a_new_field_that_may_be_missing_is_no_break() -> None:
    assert changes(dict(x=int), dict(x=int, y=(int | None, None))) == [(False, "y: is new, and may be missing")]
    assert changes(dict(x=OpenInner), dict(x=create_model("More", __base__=OpenInner, c=(int, 0)))) == [
        (False, "x.c: is new, and may be missing")
    ]


def test_names_texts_and_order_are_no_change() -> None:
    described = Annotated[Literal["b", "a"], Field(description="new words", title="Other")]
    assert changes(dict(x=Inner, y=int | str, z=Literal["a", "b"]), dict(z=described, y=str | int, x=Renamed)) == []


def test_a_schema_that_holds_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="Endless holds itself"):
        schema(x=Endless)


def test_a_break_says_what_to_do_in_which_file() -> None:
    old = current("run.failed", 1)
    new = json.loads(json.dumps(old))
    del new["properties"]["step"]
    text = breaks("run.failed", 1, old, new)
    for part in (
        "step: is gone",
        "domain/runs/events.py",
        "VERSION = 2",
        "RunFailedV1",
        "UPCASTS['run.failed', 1]",
        "tests.golden.generate",
    ):
        assert part in text
    assert breaks("run.failed", 1, old, old) == ""


def test_a_break_in_a_slice_that_is_a_package_names_the_file_of_the_event() -> None:
    old = current("agent_run.claimed", 1)
    assert "domain/agent_runs/events.py: the class AgentRunClaimed" in breaks("agent_run.claimed", 1, old, old | {"properties": {}})


def test_generator_takes_additions_and_refuses_breaks(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    assert write_schemas(tmp_path) == ([], [])
    grown, broken = tmp_path / "run.failed.v1.json", tmp_path / "run.started.v1.json"
    before = json.loads(grown.read_text())
    before["properties"].pop("abandoned")
    grown.write_text(json.dumps(before))
    broken.write_text(broken.read_text().replace('"project_id"', '"project"'))
    kept = broken.read_text()
    written, refused = write_schemas(tmp_path)
    assert written == [grown] and broken.read_text() == kept
    assert len(refused) == 1 and "project: is gone" in refused[0]


class RunCancelledV1(Event):
    TOPIC = "run.cancelled"
    why: str


def test_an_older_version_keeps_its_schema_and_is_read_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    from api.http.documents import asyncapi, schemas

    topic = RunCancelledV1.TOPIC
    upcast = Upcast(RunCancelledV1, lambda old: {"reason": old["why"]})
    monkeypatch.setitem(UPCASTS, (topic, 1), upcast)
    monkeypatch.setattr(runs.RunCancelled, "VERSION", 2)
    monkeypatch.delitem(REGISTRY._read_newest, (topic, 1))  # made from the versions when the module was loaded
    assert REGISTRY.decode(topic, 1, b'{"why":"enough"}') == runs.RunCancelled(reason="enough")
    assert schemas.event_schema(topic, 1)["required"] == ["why"]
    assert "reason" in schemas.event_schema(topic, 2)["properties"]
    listed = [(event["version"], event["newest"], event["schema"]) for event in schemas.index()["events"] if event["type"] == topic]
    assert listed == [(1, False, "/schemas/run.cancelled/v1"), (2, True, "/schemas/run.cancelled/v2")]
    document = asyncapi.build("1")
    assert {"run.cancelled.v1", "run.cancelled.v2"} <= document["components"]["messages"].keys()
    assert document["components"]["schemas"]["run.cancelled.v1"]["required"] == ["why"]
