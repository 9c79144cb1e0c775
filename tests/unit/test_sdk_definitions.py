"""Definitions read from agent classes and tool functions, and refused definitions."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from tidelog import Agent, Context, PermanentError, Tool, ToolContext, tool
from tidelog.agent import describe_agent
from tidelog.errors import DefinitionError, NotJsonError, ValueTooLargeError
from tidelog.failures import tool_failure
from tidelog.naming import kebab_case
from tidelog.tools import InvalidArgumentsError
from tidelog.values import MAX_JSON_BYTES, to_json

CONTEXT = ToolContext(Path("/w"), "key", 1)


class Commit(BaseModel):
    hash: str
    on: date


@tool("git.history", capabilities=("git",), idempotent=True, timeout_s=300, version="2")
def history(
    ctx: ToolContext, since: date, limit: Annotated[int, Field(ge=1, description="at most")] = 5, schema: str | None = None
) -> list[Commit]:
    """Commits of the repository,
    newest first.

    Not shown to anybody.
    """
    return [Commit(hash=ctx.idempotency_key, on=since)] * limit


def test_a_tool_is_described_by_its_hints_and_docstring() -> None:
    definition = history.describe()
    assert (definition.name, definition.version, definition.capabilities) == ("git.history", "2", ("git",))
    assert definition.description == "Commits of the repository, newest first."
    assert (definition.idempotent, definition.timeout_s, definition.max_attempts) == (True, 300.0, 3)
    assert definition.parameters == {
        "type": "object",
        "properties": {
            "since": {"type": "string", "format": "date", "title": "Since"},
            "limit": {"type": "integer", "minimum": 1, "default": 5, "title": "Limit", "description": "at most"},
            "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Schema"},
        },
        "required": ["since"],
        "additionalProperties": False,
    }


async def test_a_tool_gets_typed_arguments_and_gives_json() -> None:
    assert await history.invoke({"since": "2026-01-02", "limit": 2}, CONTEXT) == [{"hash": "key", "on": "2026-01-02"}] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "since: Field required"),
        ({"since": "2026-01-02", "limit": 0}, "limit: "),
        ({"since": "2026-01-02", "x": 1}, "x: Extra"),
    ],
)
async def test_arguments_that_break_the_schema_are_refused_by_name(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentsError, match=words) as caught:
        await history.invoke(arguments, CONTEXT)
    assert tool_failure(caught.value).kind == "invalid"


def test_a_tool_can_be_called_like_the_function_it_is() -> None:
    assert len(history(CONTEXT, date(2026, 1, 2), limit=1)) == 1


def test_the_bare_decorator_takes_the_functions_name() -> None:
    @tool
    async def plain(value: int) -> int:
        return value

    @tool()
    def called(value: int) -> int:
        return value

    assert plain.describe().name == "plain" and called.describe().name == "called"
    assert not plain.describe().idempotent


def _no_hint(value) -> None: ...  # type: ignore[no-untyped-def]  # the missing hint is the case


def _splat(*values: int) -> None: ...


def _keywords(**values: int) -> None: ...


def _late_context(value: int, ctx: ToolContext) -> None: ...


def _key(key: str) -> None: ...


def _unknown(value: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821  # the missing name is the case


def _no_schema(value: Tool[..., Any]) -> None: ...


def _no_json_schema(value: Callable[[], None]) -> None: ...


@pytest.mark.parametrize(
    "function", [_no_hint, _splat, _keywords, _late_context, _key, _unknown, _no_schema, _no_json_schema], ids=lambda f: f.__name__
)
def test_a_signature_that_cannot_be_a_tool_is_refused(function: Callable[..., None]) -> None:
    with pytest.raises(DefinitionError) as caught:
        tool(function).describe()
    assert caught.value.kind == "invalid-signature"
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"capabilities": "git"}, "invalid-metadata"),
        ({"capabilities": ("With Space",)}, "invalid-metadata"),
        ({"timeout_s": 0}, "invalid-metadata"),
        ({"max_attempts": 0}, "invalid-metadata"),
        ({"version": ""}, "invalid-metadata"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(options: dict[str, Any], kind: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        tool("t", **options)(lambda: None).describe()
    assert caught.value.kind == kind


@pytest.mark.parametrize("name", ["Git", "git..log", ".git", "git log", "", "gît", "git\n"])
def test_names_are_checked_whole(name: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        tool(name)(date.today).describe()
    assert caught.value.kind == "invalid-name"


def test_an_agent_is_described_by_its_class() -> None:
    class RepoReviewer(Agent):
        """Reviews a repository."""

        capabilities = ("git.review",)

        async def execute(self, ctx: Context) -> list[Commit]:
            return []

    class Second(RepoReviewer):
        pass

    definition = describe_agent(RepoReviewer)
    assert (definition.name, definition.version, definition.description) == ("repo-reviewer", "1", "Reviews a repository.")
    assert definition.output_schema is not None and definition.output_schema["type"] == "array"
    assert describe_agent(Second).name == "second"
    assert describe_agent(Second).description == ""


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("HTTPFetcher", "http-fetcher"),
        ("Agent2Go", "agent2-go"),
        ("A", "a"),
        ("My_Agent", "my_agent"),
    ],
)
def test_kebab_case(given: str, name: str) -> None:
    assert kebab_case(given) == name


def test_values_are_made_json() -> None:
    @dataclass
    class Point:
        x: int
        when: date

    assert to_json({"a": Point(1, date(2026, 1, 2)), "b": {3}, "c": (Path("x"),)}, "it") == {
        "a": {"x": 1, "when": "2026-01-02"},
        "b": [3],
        "c": ["x"],
    }


@pytest.mark.parametrize("value", [object(), float("nan"), "\udcff", lambda: None], ids=["object", "nan", "surrogate", "function"])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(NotJsonError, match="the result of step 'x' cannot be written as JSON"):
        to_json({"in": [value]}, "the result of step 'x'")


def deep_type(levels: int) -> Any:
    kind: Any = int
    for _ in range(levels):
        kind = list[kind]
    return kind


def test_a_schema_that_the_server_would_not_take_is_told_before_it_is_sent() -> None:
    def shallow(value: Any) -> None: ...

    def deep(value: Any) -> None: ...

    shallow.__annotations__["value"], deep.__annotations__["value"] = deep_type(61), deep_type(62)
    tool(shallow).describe()
    with pytest.raises(
        DefinitionError, match="tool function deep: the JSON Schema of its parameters is nested too deeply"
    ) as caught:
        tool(deep).describe()
    assert caught.value.kind == "invalid-signature"

    class Deep(Agent):
        async def execute(self, ctx: Context) -> Any: ...

    Deep.execute.__annotations__["return"] = deep_type(63)
    schema = describe_agent(Deep).output_schema
    assert schema is not None and schema["type"] == "array"
    Deep.execute.__annotations__["return"] = deep_type(64)
    assert describe_agent(Deep).output_schema is None


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(NotJsonError):
        to_json(cycle, "it")


def test_the_limit_is_bytes_of_json() -> None:
    assert to_json("ü" * ((MAX_JSON_BYTES - 2) // 2), "it")
    with pytest.raises(ValueTooLargeError, match="200 KiB") as caught:
        to_json("ü" * (MAX_JSON_BYTES // 2), "it")
    assert caught.value.size == MAX_JSON_BYTES + 2 and isinstance(caught.value, PermanentError)
