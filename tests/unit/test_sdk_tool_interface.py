"""What a tool says of itself beyond its arguments, as a function and as a class."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from tests.unit.test_sdk_discovery import problems, scan
from tidelog import Agent, BaseTool, Context, InvalidResultError, ToolContext, tool
from tidelog.errors import DefinitionError, ToolError
from tidelog.failures import tool_failure
from tidelog.testing import run_agent
from tidelog.tool_classes import tool_of
from tidelog.tool_options import ToolOptions
from tidelog.tools import InvalidArgumentsError, Tool

CONTEXT = ToolContext(Path("/w"), "key", 1)


class Weather(BaseModel):
    city: str
    celsius: float


def weather(**given: Any) -> Any:
    @tool("weather", **{"returns": Weather, **given})
    def function(city: str, wrong: bool = False) -> Any:
        """The weather."""
        return {"city": city, "celsius": "7" if wrong else 7}

    return function


class Transfer(BaseTool):
    """Moves money.

    Not shown.
    """

    version = "2"
    idempotent = True
    capabilities = ("bank",)
    needs_tools = ("bank.login",)
    made: ClassVar[int] = 0

    def __init__(self) -> None:
        type(self).made += 1

    def validate(self, source: str, target: str) -> None:
        if source == target:
            raise ValueError("both are the same account")

    async def execute(self, ctx: ToolContext, source: str, target: str) -> str:
        return f"{source} to {target} as {ctx.idempotency_key}"


def test_a_tool_says_what_it_is() -> None:
    definition = weather(
        version="1",
        examples=[{"arguments": {"city": "Bergen"}, "result": {"city": "Bergen", "celsius": 7}}, {"arguments": {"city": ""}}],
        needs_tools=("maps",), needs_services=("weather service",), untrusted_output=True,
    ).describe()  # fmt: skip
    assert definition.result is not None and set(definition.result["properties"]) == {"city", "celsius"}
    assert [set(example) for example in definition.examples] == [{"arguments", "result"}, {"arguments"}]
    assert (definition.needs_tools, definition.needs_services) == (("maps",), ("weather service",))
    assert (definition.untrusted_output, definition.pinned, definition.version) == (True, True, "1")
    assert weather(returns={"type": "object"}).describe().result == {"type": "object"}


def test_a_tool_without_more_to_say_says_what_every_server_knows() -> None:
    said = weather(returns=None).describe().said()
    known = {"name", "version", "description", "capabilities", "parameters", "idempotent", "timeout_s", "max_attempts"}
    assert set(said) == known and said["version"] == "1"
    assert weather(version="1").describe().said()["pinned"] is True


async def test_a_result_is_what_the_tool_declares() -> None:
    assert await weather().invoke({"city": "Oslo"}, CONTEXT) == {"city": "Oslo", "celsius": 7}
    with pytest.raises(InvalidResultError, match="'weather' is not what it declares: celsius: ") as raised:
        await weather().invoke({"city": "Oslo", "wrong": True}, CONTEXT)
    assert tool_failure(raised.value).kind == "permanent"
    assert await weather(returns=None).invoke({"city": "Oslo", "wrong": True}, CONTEXT)
    assert await weather(returns={"type": "null"}).invoke({"city": "Oslo"}, CONTEXT), "a schema is checked by the server"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"examples": [{"arguments": {"city": 7}}]}, "example 1: tool 'weather' refuses its arguments: city"),
        ({"examples": [{"arguments": {"city": "x"}}, {"arguments": {"city": "x"}, "result": 7}]}, "example 2: the result"),
        ({"examples": [{"argument": {}}]}, "example 1: "),
        ({"needs_tools": "maps"}, "a tuple of names, not 'maps'"),
        ({"needs_tools": ("Maps",)}, "Maps"),
        ({"needs_services": (7,)}, "a tuple of names"),
        ({"returns": object()}, "has no JSON Schema"),
    ],
)
def test_what_is_wrong_with_it_is_told_when_it_is_described(given: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        weather(**given).describe()
    assert told in str(refused.value)


async def test_a_class_is_a_tool() -> None:
    made = tool_of(Transfer)
    definition = made.describe()
    assert (definition.name, definition.description, definition.version) == ("transfer", "Moves money.", "2")
    assert (definition.idempotent, definition.capabilities, definition.needs_tools) == (True, ("bank",), ("bank.login",))
    assert set(definition.parameters["properties"]) == {"source", "target"}
    assert await made.invoke({"source": "a", "target": "b"}, CONTEXT) == "a to b as key"
    with pytest.raises(InvalidArgumentsError, match="both are the same account"):
        await made.invoke({"source": "a", "target": "a"}, CONTEXT)
    assert tool_of(Transfer) is made and tool_of(made) is made and Transfer.made == 1


def test_a_class_that_is_no_tool_says_why() -> None:
    class Idle(BaseTool):
        pass

    class Broken(BaseTool):
        def __init__(self) -> None:
            raise OSError("no disk")

        def execute(self) -> None: ...

    for cls, told in ((Idle, "no method `execute`"), (Broken, "OSError: no disk")):
        with pytest.raises(DefinitionError, match=told):
            tool_of(cls)


async def test_an_agent_meets_the_errors_of_a_tool_that_is_a_class() -> None:
    class Mover(Agent):
        async def execute(self, ctx: Context) -> Any:
            moved = await ctx.tool("transfer", source="a", target="b")
            try:
                await ctx.tool("transfer", source="a", target="a")
            except ToolError as error:
                return [moved, error.kind]

    [moved, kind] = (await run_agent(Mover, tools=[Transfer])).result
    assert moved.startswith("a to b as ") and kind == "invalid"


def test_tools_that_are_classes_are_found_and_their_bases_are_not(tmp_path: Path) -> None:
    found = scan(
        tmp_path,
        classes="""
            from tidelog import BaseTool

            class Base(BaseTool):
                version = "3"

            class Look(Base):
                name = "look.up"
                def execute(self, word: str) -> str:
                    return word

            class _Private(Base):
                def execute(self) -> None: ...
        """,
        more="""
            from tidelog import BaseTool
            from .classes import Look

            class NoExecute(BaseTool):
                pass
        """,
    )
    assert set(found.tools) == {"good.tool", "look.up"}
    assert found.tools["look.up"].definition.version == "3"
    assert problems(found) == [("more.py", "no-execute")]


def test_every_attribute_of_a_tool_class_is_a_keyword_of_the_decorator_with_the_same_default() -> None:
    """A new keyword stands in `ToolOptions`, with its default in `Tool`. A class says the same by the same name."""
    plain = Tool(lambda: None, name="plain")
    attributes = {name: getattr(BaseTool, name) for name in ToolOptions.__annotations__ if name in vars(BaseTool)}
    assert attributes.keys() >= {"capabilities", "idempotent", "policy"}
    assert {name: getattr(plain, name) for name in attributes if name != "version"} == {
        name: default for name, default in attributes.items() if name != "version"
    }
    said = {name for name in vars(BaseTool) if not name.startswith("_")} - {"name", "validate"}
    assert said <= ToolOptions.__annotations__.keys()


@pytest.mark.parametrize("keyword", sorted(ToolOptions.__annotations__))
def test_every_keyword_arrives_at_the_tool(keyword: str) -> None:
    given = "process" if keyword == "isolation" else object()
    made: Any = tool("some.tool", **{keyword: given})(lambda: None)  # type: ignore[call-overload]
    assert (made._isolation[0] if keyword == "isolation" else getattr(made, keyword)) is given
