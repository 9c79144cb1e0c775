"""Rules of tools: versions that were named keep their meaning, kinds keep their names, and a call depends on what it looked at."""

from typing import Any
from uuid import UUID

import pytest
from immutables import Map

from domain import tools
from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound, TidelogError
from domain.kernel import Event
from tests.kit import fold, given

ONE = UUID("01900000-0000-7000-8000-000000000001")
HTTP = {"kind": "http", "request": {"url": "https://a.example/{{x}}"}, "parameters": {"properties": {"x": {}}}, "pinned": True}


def register(**changed: Any) -> tools.RegisterTool:
    return tools.RegisterTool(**{"tool_id": ONE, "name": "add", "parameters": {"type": "object"}} | changed)


def registered(**changed: Any) -> Event:
    [event] = given(tools.DECIDER).when(register(**changed)).events()
    return event


def test_a_version_that_was_named_keeps_its_meaning() -> None:
    first = registered(pinned=True)
    given(tools.DECIDER, first).when(register(pinned=True)).then()
    given(tools.DECIDER, first).when(register()).then()  # says the same, and less
    for pinned in (True, False):
        given(tools.DECIDER, first).when(register(description="d", pinned=pinned)).refused(tools.VersionTaken)
    [second] = given(tools.DECIDER, first).when(register(description="d", version="2", pinned=True)).events()
    given(tools.DECIDER, first, second).when(register(description="e", pinned=True)).refused(tools.VersionTaken)
    [back] = given(tools.DECIDER, first, second).when(register(pinned=True)).events()
    assert fold(tools.DECIDER, [first, second, back]).current == first


def test_a_version_that_nobody_named_follows_the_code_until_somebody_names_it() -> None:
    first = registered()
    [second] = given(tools.DECIDER, first).when(register(description="d")).events()
    [named] = given(tools.DECIDER, first, second).when(register(description="e", pinned=True)).events()
    given(tools.DECIDER, first, second, named).when(register(description="f")).refused(tools.VersionTaken)
    [same] = given(tools.DECIDER, first, second).when(register(description="d", pinned=True)).events()
    assert same.pinned  # type: ignore[attr-defined]


def test_over_http_no_version_is_declared_twice() -> None:
    first = registered(**HTTP)
    given(tools.DECIDER, first).when(register(**HTTP, how="created")).then()
    given(tools.DECIDER, first).when(register(**HTTP, how="created", version="2")).refused(AlreadyExists)
    given(tools.DECIDER, first).when(register(**HTTP, how="version", description="d")).refused(tools.VersionTaken)
    given(tools.DECIDER).when(register(**HTTP, how="version")).refused(NotFound)
    [second] = given(tools.DECIDER, first).when(register(**HTTP, how="version", version="2")).events()
    assert fold(tools.DECIDER, [first, second]).current.version == "2"
    follows = registered(**HTTP | {"pinned": False})
    given(tools.DECIDER, follows).when(register(**HTTP, how="version", description="d")).refused(tools.VersionTaken)


def test_a_tool_keeps_its_kind() -> None:
    given(tools.DECIDER, registered(**HTTP)).when(register(version="2")).refused(tools.ToolTaken)
    given(tools.DECIDER, registered()).when(register(**HTTP, how="version", version="2")).refused(InvalidState)
    removed = tools.ToolRemoved(name="add")
    given(tools.DECIDER, registered(**HTTP), removed).when(register(version="2")).events()


def test_a_removed_tool_is_not_there_and_its_versions_keep_their_meaning() -> None:
    first, removed, remove = registered(pinned=True), tools.ToolRemoved(name="add"), tools.RemoveTool(tool_id=ONE, name="add")
    given(tools.DECIDER).when(remove).refused(NotFound)
    given(tools.DECIDER, first).when(remove).then(removed)
    given(tools.DECIDER, first, removed).when(remove).then()
    given(tools.DECIDER, first, removed).when(tools.DeprecateTool(tool_id=ONE, name="add")).refused(NotFound)
    given(tools.DECIDER, first, removed).when(tools.ReinstateTool(tool_id=ONE, name="add")).refused(NotFound)
    given(tools.DECIDER, first, removed).when(register(description="d")).refused(tools.VersionTaken)
    given(tools.DECIDER, first, removed).when(register(how="version")).refused(NotFound)
    given(tools.DECIDER, first, removed).when(register(pinned=True)).then(first)


def test_a_deprecated_tool_says_what_replaces_it() -> None:
    first, deprecate = registered(), tools.DeprecateTool(tool_id=ONE, name="add", replaced_by="sum", note="slow")
    hint, back = tools.ToolDeprecated(name="add", replaced_by="sum", note="slow"), tools.ToolReinstated(name="add")
    reinstate = tools.ReinstateTool(tool_id=ONE, name="add")
    given(tools.DECIDER).when(deprecate).refused(NotFound)
    given(tools.DECIDER, first).when(deprecate).then(hint)
    given(tools.DECIDER, first, hint).when(deprecate).then()
    given(tools.DECIDER, first).when(deprecate.model_copy(update={"replaced_by": "add"})).refused(InvalidCommand)
    given(tools.DECIDER, first).when(reinstate).then()
    given(tools.DECIDER, first, hint).when(reinstate).then(back)
    warnings = [fold(tools.DECIDER, history).warning for history in ([first], [first, hint], [first, hint, back])]
    assert warnings == [None, "the tool 'add' is deprecated; use 'sum' (slow)", None]
    assert fold(tools.DECIDER, [first, tools.ToolDeprecated(name="add")]).warning == "the tool 'add' is deprecated"
    removed = tools.ToolRemoved(name="add")
    assert fold(tools.DECIDER, [first, hint, removed, first]).warning is None


def test_a_call_depends_on_the_tool_as_it_was_looked_at() -> None:
    first, hint = registered(), tools.ToolDeprecated(name="add")

    def use(changes: int) -> tools.UseTool:
        return tools.UseTool(tool_id=ONE, name="add", changes=changes)

    given(tools.DECIDER).when(use(0)).refused(tools.UnknownTool)
    given(tools.DECIDER, first).when(use(1)).then()
    given(tools.DECIDER, first, hint).when(use(1)).refused(tools.ToolChanged)
    given(tools.DECIDER, first, hint, tools.ToolReinstated(name="add")).when(use(3)).then()
    given(tools.DECIDER, first, tools.ToolRemoved(name="add")).when(use(2)).refused(tools.UnknownTool)


def test_of_very_many_versions_the_first_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MOST_VERSIONS", 2)
    history = [registered(version=version, pinned=True) for version in "123"]
    assert set(fold(tools.DECIDER, history).versions) == {"2", "3"}
    again = [*history[:2], history[0], history[2]]  # the first one was registered again
    assert set(fold(tools.DECIDER, again).versions) == {"1", "3"}
    assert isinstance(fold(tools.DECIDER, history).versions, Map)


def test_a_hash_leaves_out_what_a_later_release_adds() -> None:
    plain, pinned = registered(), registered(pinned=True)
    assert isinstance(plain, tools.ToolRegistered) and isinstance(pinned, tools.ToolRegistered)
    assert tools.digest_of(plain) == tools.digest_of(pinned)
    assert tools.digest_of(plain) == "06fc6d544b9e99aae5ab48ed3369fcc1bc8e3454df9bed848b6e03a449c63bd8", (
        "stored hashes stay what they are"
    )


@pytest.mark.parametrize(
    ("changed", "places"),
    [
        ({}, []),
        ({"version": " "}, ["/version"]),
        ({"needs_tools": ("add",)}, ["/needs_tools"]),
        ({"needs_tools": ("sum",)}, []),
        ({"examples": ({"arguments": {}}, {"arguments": 1}, {"result": 1}, 7)},
         ["/examples/1/arguments", "/examples/2/arguments", "/examples/3"]),
        ({"kind": "http"}, ["/request"]),
        ({"kind": "builtin"}, ["/builtin"]),
        ({"kind": "builtin", "builtin": "fetch"}, []),
        ({"builtin": "fetch"}, ["/builtin"]),
        ({"request": {"url": "https://a.example"}}, ["/request"]),
        ({"kind": "http", "request": {"url": "https://a.example", "method": "BREW", "x": 1}}, ["/request/method", "/request/x"]),
        ({"kind": "http", "request": {"url": "ftp://a.example"}}, ["/request/url"]),
        (HTTP, []),
    ],
)  # fmt: skip
def test_all_faults_of_a_declaration_are_found(changed: dict[str, Any], places: list[str]) -> None:
    command = register(**changed)
    assert [place for place, _ in tools.faults_of(command)] == places
    if places:
        error = given(tools.DECIDER).when(command).refused(InvalidCommand)
        assert error is None or [place for place, _ in error.faults] == places
    else:
        given(tools.DECIDER).when(command).events()


def test_what_a_declaration_says_beyond_the_first_release() -> None:
    plain, http = registered(), registered(**HTTP)
    assert isinstance(plain, tools.ToolRegistered) and isinstance(http, tools.ToolRegistered)
    assert tools.later_fields_of(plain) == {}
    assert tools.later_fields_of(http) == {name: HTTP[name] for name in ("kind", "request", "pinned")}


@pytest.mark.parametrize(
    ("before", "command", "code", "pointer", "message"),
    [
        ({}, {"how": "version"} | HTTP, "not-found", None, "there is no tool 'add'"),
        (
            HTTP,
            {"how": "created", "version": "2"} | HTTP,
            "already-exists",
            "/name",
            "there is a tool 'add' already: add a version to it, or choose another name",
        ),
        (
            HTTP,
            {"how": "version", "version": "2", "kind": "builtin", "builtin": "time.now"},
            "invalid-state",
            "/kind",
            "'add' is a tool of the kind http, and stays one",
        ),
        (HTTP, {"version": "2"}, "tool-taken", "/name", "'add' is a tool of the kind http, and stays one"),
        (
            HTTP,
            {"how": "version", "description": "d"} | HTTP,
            "version-taken",
            "/version",
            "version '1' of the tool 'add' is known with another declaration: name another version",
        ),
    ],
)
def test_a_refused_declaration_says_why_and_where(
    before: dict[str, Any], command: dict[str, Any], code: str, pointer: str | None, message: str
) -> None:
    with pytest.raises(TidelogError) as caught:
        tools.decide(fold(tools.DECIDER, [registered(**before)] if before else []), register(**command))
    told = caught.value
    assert (told.code, getattr(told, "pointer", None), told.message) == (code, pointer, message)


def test_the_first_fault_is_in_the_message_and_all_faults_beside_it() -> None:
    wrong = register(kind="http", request={"url": "ftp://a.example"}, needs_tools=("add",))
    faults = tools.faults_of(wrong)
    with pytest.raises(InvalidCommand) as caught:
        tools.decide(fold(tools.DECIDER, []), wrong)
    assert len(faults) > 1 and (caught.value.pointer, caught.value.faults) == (faults[0][0], tuple(faults))
    assert caught.value.message == f"tool 'add': {faults[0][0]}: {faults[0][1]}"
