"""Values on their way to the log: one conversion everywhere, and an error instead of a value that would change or lose a part."""

import collections
import dataclasses
import enum
import ipaddress
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, PlainSerializer, SecretBytes, SecretStr, field_serializer
from typer.testing import CliRunner

from tests.ports import free_port
from tidelog import Agent, Client, Context, PermanentError, TidelogError, ToolError, tool
from tidelog.errors import NotJsonError
from tidelog.testing import run_agent
from tidelog.values import to_json

ID = UUID("0190a5f0-0000-7000-8000-000000000001")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Brief(BaseModel):
    name: str
    due: datetime


@dataclasses.dataclass
class Data:
    name: str
    parts: tuple[Path, ...] = ()


class Pair(NamedTuple):
    left: int
    right: str


class Shout(str):
    def __str__(self) -> str:
        return self.upper() + "!"


class Odd(int):
    def __str__(self) -> str:
        return "odd"

    __repr__ = __str__


WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Brief(name="Ada", due=WHEN), {"name": "Ada", "due": "2026-01-02T03:04:05.678901Z"}),
        (Data("Ada", (Path("a"),)), {"name": "Ada", "parts": ["a"]}),
        (ID, str(ID)), (Path("a/b"), "a/b"), (Decimal("1.50"), "1.50"), ({1}, [1]), (frozenset({"a"}), ["a"]),
        ((1, (2,)), [1, [2]]),
        (Pair(1, "r"), [1, "r"]), (collections.deque([1]), [1]), (iter([1, 2]), [1, 2]), (Colour.RED, "red"), (Level.HIGH, 3),
        (WHEN, "2026-01-02T03:04:05.678901Z"), (date(2026, 1, 2), "2026-01-02"), (time(1, 2), "01:02:00"),
        (timedelta(hours=1), "PT1H"), (b"bytes", "bytes"), (Fraction(1, 3), "1/3"), (ipaddress.ip_address("::1"), "::1"),
        (collections.OrderedDict(a=1), {"a": 1}), (collections.Counter("aa"), {"a": 2}),
        ({1: "a", None: 2, 1.5: 4, ID: 5, date(2026, 1, 2): 6}, {"1": "a", "None": 2, "1.5": 4, str(ID): 5, "2026-01-02": 6}),
        (Shout("quiet"), "quiet"), (Odd(7), 7), ({Shout("k"): Odd(1)}, {"k": 1}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_plain_is_converted(value: Any, plain: Any) -> None:
    assert_same(to_json(value, "it"), plain)


PLAIN: list[Any] = [
    True, False, None, 0, 1, -1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, 1.0, -0.0, 1e308, 5e-324, 0.1, 1e16, "", "\\u0000",
    "\u2028", "\x1b[31m", "🌊", "e\u0301", {}, [], {"": {"1": 1, "true": True}}, [[], [[]]],
]  # fmt: skip


def assert_same(one: Any, other: Any) -> None:
    """Equal, and of the same types: `True` is not `1`, `-0.0` is not `0.0`."""
    assert json.dumps(one) == json.dumps(other)


def test_what_is_plain_stays_as_it_is() -> None:
    assert_same(to_json(PLAIN, "it"), PLAIN)
    assert_same(to_json({"in": PLAIN}, "it"), {"in": PLAIN})


# --- losses -----------------------------------------------------------------------------------------------------------


class Anything(BaseModel):
    value: Any = None


class Breaks(BaseModel):
    x: int = 1

    @field_serializer("x")
    def broken(self, x: int) -> int:
        raise LookupError("no such x")


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


NO_JSON: dict[str, Any] = {
    "an int and its text": {1: "a", "1": "b"},
    "true and its text": {True: "a", "true": "b"},
    "none and its text": {None: "a", "None": "b"},
    "a path and its text": {Path("a"): 1, "a": 2},
    "an enum and its text": {Colour.RED: 1, "red": 2},
    "two tuples": {(1, 2): 1, "1,2": 2},
    "keys of a model's field": Anything(value={1: 1, "1": 2}),
    "keys of a dataclass": Data({1: 1, "1": 2}),  # type: ignore[arg-type]
    "a secret": SecretStr("hunter2"),
    "a secret of bytes": SecretBytes(b"hunter2"),
    "a secret in a model": Anything(value=[SecretStr("hunter2")]),
    "a field that cannot be written": Breaks(),
    "nan": float("nan"),
    "infinite": float("1e400"),
    "nan in a model": Anything(value=float("nan")),
    "infinite in a list of a model": Anything(value=[1.5, -float("inf")]),
    "half a surrogate pair": "\ud800",
    "half a surrogate pair as a key": {"\ud800": 1},
    "bytes that are no text": b"\xff",
    "a NUL character": "a\0b",
    "a NUL character in a key": {"\0": 1},
    "a cycle": cycle(),
    "a function": print,
    "a class": Brief,
    "more digits than Python writes": 10**5000,
}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_json_would_lose_is_refused(name: str) -> None:
    for value in (NO_JSON[name], [NO_JSON[name]], {"in": (NO_JSON[name],)}):
        with pytest.raises(NotJsonError, match=r"^the result cannot be written as JSON") as caught:
            to_json(value, "the result")
        assert "hunter2" not in str(caught.value)


def test_the_error_names_the_keys() -> None:
    with pytest.raises(NotJsonError, match="two keys of a dict are the same text, among them 1 and '1'"):
        to_json({"x": [{1: "a", 2: "b", "1": "c"}]}, "it")


def test_what_the_model_itself_leaves_out_or_writes_is_no_loss() -> None:
    class Login(BaseModel):
        user: str = "**********"
        password: SecretStr = Field(SecretStr("hunter2"), exclude=True)

    class Shown(BaseModel):
        password: SecretStr = SecretStr("shown")

        @field_serializer("password")
        def show(self, value: SecretStr) -> str:
            return value.get_secret_value()

    class Gap(BaseModel):
        one: Annotated[float, PlainSerializer(lambda value: None)] = float("nan")
        other: float = float("inf")

        @field_serializer("other")
        def nothing(self, value: float) -> None:
            return None

    assert to_json([Login(), Shown(), Gap()], "it") == [
        {"user": "**********"},
        {"password": "shown"},
        {"one": None, "other": None},
    ]


# --- every way to the log ---------------------------------------------------------------------------------------------


@tool("values.echo")
def echo(value: Any = None) -> Any:
    return value


@tool("values.gives")
def gives(name: str) -> Any:
    return NO_JSON[name]


Call = Callable[[Context, Any], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "step": lambda ctx, value: ctx.step(f"s{id(value)}", lambda: value),
    "tool": lambda ctx, value: ctx.tool("values.echo", value=value),
    "send": lambda ctx, value: ctx.send("peer", value),
    "state": lambda ctx, value: ctx.state.set("name", value),
}


@pytest.mark.parametrize("call", [*CALLS, "result"])
async def test_no_call_of_the_context_loses_a_part(call: str) -> None:
    class Giver(Agent):
        async def execute(self, ctx: Context) -> Any:
            for value in NO_JSON.values():
                if call != "result":
                    with pytest.raises(NotJsonError):
                        await CALLS[call](ctx, value)
            return ctx.input and NO_JSON[ctx.input]

    outcome = await run_agent(Giver, tools=[echo], peers=["peer"])
    assert (outcome.sent, outcome.state, outcome.calls, outcome.journal.recorded()) == ([], {}, [], {})
    if call == "result":
        for name in NO_JSON:
            with pytest.raises(NotJsonError):
                await run_agent(Giver, name)


async def test_a_tool_whose_result_is_no_json_has_failed_for_good() -> None:
    class Asks(Agent):
        async def execute(self, ctx: Context) -> Any:
            for name in NO_JSON:
                with pytest.raises(ToolError, match=r"the result of tool 'values.gives' cannot be written as JSON") as caught:
                    await ctx.tool("values.gives", name=name)
                assert (caught.value.kind, caught.value.type) == ("permanent", "NotJsonError")

    outcome = await run_agent(Asks, tools=[gives])
    assert len(outcome.calls) == len(NO_JSON)


@pytest.mark.parametrize("key", ["\ud800", "a\0b", "", "x" * 501, 5])
async def test_a_key_that_the_log_cannot_hold_is_refused(key: Any) -> None:
    class Keyed(Agent):
        async def execute(self, ctx: Context) -> Any:
            with pytest.raises(PermanentError, match="a key"):
                await ctx.step(key, lambda: 1)

    await run_agent(Keyed)


@pytest.mark.parametrize("name", NO_JSON)
async def test_no_call_of_the_client_sends_such_a_value(name: str) -> None:
    value = NO_JSON[name]
    async with Client(f"http://127.0.0.1:{free_port()}", "key", patience_s=0) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.start_run(agent="a", input=value),
            lambda: client.start_run(agent="a", metadata={"m": value}),
            lambda: client.start_run(plan={"kind": "graph", "steps": [{"key": "s", "agent": "a", "input": value}]}),
            lambda: client.start_run(plan={"kind": "graph", "steps": [{"key": "s", "agent": value}]}),
            lambda: client.start_run(plan={"kind": value}),
            lambda: client.create_project("p", {"m": value}),
            lambda: client.resolve(ID, reason="seen", result=value),
            lambda: client.resolve(ID, reason="seen", error={"type": "T", "message": "m", "more": value}),
            lambda: client.resolve(ID, reason="seen", result=1, evidence=value),
        ]
        for sending in calls:
            with pytest.raises(NotJsonError):
                await sending()


@pytest.mark.parametrize("value", [5, "text", None, [1], {1, 2}, Brief], ids=str)
async def test_an_object_is_asked_for_where_the_log_has_one(value: Any) -> None:
    async with Client(f"http://127.0.0.1:{free_port()}", "key", patience_s=0) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.start_run(plan={"kind": "graph", "steps": [value]}),
            lambda: client.resolve(ID, reason="seen", error=5),  # type: ignore[arg-type]
        ]
        if value is not None:
            calls.append(lambda: client.start_run(agent="a", metadata=value))
        for sending in calls:
            with pytest.raises(NotJsonError, match=r"must be a JSON object|cannot be written as JSON"):
                await sending()


async def test_texts_that_are_no_text_are_typed_errors_too() -> None:
    half = "\ud800"
    async with Client(f"http://127.0.0.1:{free_port()}", "key", patience_s=0) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.start_run(agent=half),
            lambda: client.start_run(agents=[half]),
            lambda: client.start_run(agents=[object()]),  # type: ignore[list-item]
            lambda: client.start_run(agent="a", idempotency_key=half),
            lambda: client.cancel_run(ID, half),
            lambda: client.pause_run(ID, half),
            lambda: client.resume_run(ID, half),
            lambda: client.create_project(half),
            lambda: client.resolve(ID, reason=half, result=1),
            lambda: client.list_runs(status=half),
        ]
        for sending in calls:
            with pytest.raises(NotJsonError):
                await sending()


async def test_models_are_taken_wherever_a_value_is() -> None:
    """Converted, so that the next thing that goes wrong is the server that is not there."""

    class Step(BaseModel):
        key: str = "s"
        agent: str = "a"

    class Plan(BaseModel):
        kind: str = "graph"
        steps: list[Step] = [Step()]

    async with Client(f"http://127.0.0.1:{free_port()}", "key", patience_s=0) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.start_run(plan=Plan(), input=Brief(name="Ada", due=WHEN), metadata=Data("x")),  # type: ignore[arg-type]
            lambda: client.start_run(plan={"kind": "graph", "steps": [Step()]}),
            lambda: client.resolve(ID, reason="seen", result={1, 2}, evidence=Path("x")),
        ]
        for sending in calls:
            with pytest.raises(TidelogError, match="no answer from the server"):
                await sending()


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"x": NaN}', "cannot be written as JSON"), ("1e400", "cannot be written as JSON"),
        ('"\\ud800"', "cannot be written as JSON"), ("[" * 65 + "]" * 65, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "two fields of an object have the name 'c'"),
        ("[" * 100_000, "nested too deeply"), ("1" * 5000, "is not JSON"), ("{'a': 1}", "is not JSON"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_a_value_that_is_no_json_is_one_line_and_wrong_usage(text: str, why: str) -> None:
    for command in (
        ["runs", "start", "greeter", "--input", text],
        ["invocations", "resolve", str(ID), "--reason", "seen", "--result", text],
    ):
        told = refused(*command)
        assert why in told


def test_a_text_that_is_no_text_is_one_line_and_wrong_usage() -> None:
    half = b"\xff".decode("utf-8", "surrogateescape")  # as the shell hands it over
    for command in (
        ["runs", "start", half],
        ["runs", "cancel", str(ID), "--reason", half],
        ["invocations", "resolve", str(ID), "--reason", half, "--error", "no"],
    ):
        assert "cannot be written as JSON" in refused(*command)


def refused(*command: str) -> str:
    """The one line on stderr of a command that ends with exit code 2. No server is there, and none is missed."""
    from api.cli.main import app

    environment = {"TIDELOG_API_KEY": "key", "TIDELOG_URL": f"http://127.0.0.1:{free_port()}"}
    done = CliRunner().invoke(app, list(command), env=environment)
    assert done.exit_code == 2, (done.exit_code, done.output, done.exception)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    return done.stderr
