"""The testing kit's contract of tools: a good tool keeps it, and each fault is told with what helps."""

import asyncio
import logging
import os
import sys
import unittest
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from tests.kit.isolated import add, read
from tests.pace import finished
from tidelog import BaseTool, Compensation, Policy, Reconciled, ToolContext, calling, tool
from tidelog.testing import Effects, ToolContract, check_tool, checks
from tidelog.testing.contract import CHECKS
from tidelog.tools import Tool

EFFECTS = Effects()
BOOKED: dict[str, str] = {}
"""What the service of the tests knows: rooms by key."""


class Booking(BaseModel):
    id: str
    room: str


def look(ctx: ToolContext) -> Reconciled:
    if ctx.idempotency_key not in BOOKED:
        return Reconciled.not_happened()
    return Reconciled.succeeded({"id": ctx.idempotency_key, "room": BOOKED[ctx.idempotency_key]})


@tool(
    "hotel.book",
    idempotent=True,
    reconcile=look,
    returns=Booking,
    examples=({"arguments": {"room": "12", "nights": 2, "view": "sea", "guests": ["Ada"]}},),
    policy=Policy(compensation=Compensation(tool="hotel.cancel", arguments={"id": "result.id"})),
)
async def book(
    ctx: ToolContext, room: str, nights: int, view: Literal["sea", "yard"], guests: list[str], more: Any = None, slow: bool = False
) -> Booking:
    """Book a room."""
    if slow:
        await asyncio.Event().wait()
    if room == "none":
        raise ValueError("there is no such room")
    if ctx.idempotency_key not in BOOKED:
        BOOKED[ctx.idempotency_key] = room
        EFFECTS.happened(ctx)
    return Booking(id=ctx.idempotency_key, room=room)


@tool("hotel.cancel", idempotent=True)
def cancel(id: str) -> None:
    """Cancel a booking."""
    if BOOKED.pop(id, None) is not None:
        EFFECTS.taken_back(id)


SLOW = {**book.examples[0]["arguments"], "slow": True}


@pytest.fixture(autouse=True)
def empty_hotel() -> None:
    EFFECTS.clear()
    BOOKED.clear()


def told(caught: pytest.ExceptionInfo[AssertionError]) -> str:
    return str(caught.value)


async def test_a_good_tool_keeps_the_contract() -> None:
    checked = await check_tool(
        book,
        effects=EFFECTS,
        slow=SLOW,
        compensation=cancel,
        secrets=("HOTEL_KEY",),
        failing=[{**SLOW, "slow": False, "room": "none"}],
    )
    assert set(checked.done) == {*CHECKS} - {"works_in_a_process_of_its_own"}
    assert checked.left_out == {"works_in_a_process_of_its_own": "the tool does not ask for isolation='process'"}
    assert "HOTEL_KEY" not in os.environ
    EFFECTS.assert_once()


async def test_what_cannot_be_checked_is_named_with_what_is_missing() -> None:
    checked = await check_tool(book)
    assert checked.left_out == {
        "same_key_has_one_effect": "nobody counts the effects; give effects=Effects(), or a function that says how many stand",
        "a_cancelled_call_ends": "the call ends at once; give slow= the arguments of one that works for a while",
        "the_compensation_takes_the_effect_back": "give compensation= the tool 'hotel.cancel', which takes the effect back",
        "works_in_a_process_of_its_own": "the tool does not ask for isolation='process'",
    }
    left = await check_tool(cancel, examples=[{"id": "x"}], leave_out=["describes_itself"])
    assert left.left_out["describes_itself"] == "as the test asked"
    assert left.left_out["a_cancelled_call_ends"].startswith("a sync tool cannot be stopped")
    assert left.left_out["reconcile_tells_the_truth"] == "the tool has no reconcile function"
    assert left.left_out["the_compensation_takes_the_effect_back"] == "the tool declares no compensation"
    with pytest.raises(ValueError, match="there is no check 'speed'; there are describes_itself, "):
        await check_tool(book, leave_out=["speed"])


async def test_all_faults_are_told_at_once() -> None:
    @tool("nameless")
    def nameless(given: Any) -> Any:
        raise OSError("away")

    with pytest.raises(AssertionError) as caught:
        await check_tool(nameless, examples=[{"given": 1}])
    assert told(caught).startswith(
        "<Tool nameless> breaks the contract of tools:\n- describes_itself: <Tool nameless> does not say"
    )
    assert '\n- results_are_what_it_declares: the example {"given": 1} fails with OSError: away. Give the check' in told(caught)
    with pytest.raises(AssertionError, match=r"<Tool nameless> has no examples. Declare them: @tool\(examples="):
        await check_tool(nameless)


# --- one fault each ----------------------------------------------------------------------------------------------------


async def fault(check: str, given: Any, **options: Any) -> str:
    """What one check says of a tool."""
    others = [name for name in CHECKS if name != check]
    with pytest.raises(AssertionError) as caught:
        await check_tool(given, leave_out=others, **{"examples": [{"room": "12"}], **options})
    return told(caught)


async def test_a_declaration_that_cannot_be_used() -> None:
    assert "cannot be described" in await fault("describes_itself", tool("Bad Name")(lambda: None))


async def test_an_example_that_is_refused() -> None:
    text = await fault("accepts_its_examples", book, examples=[{"room": 12}])
    assert "the example {\"room\": 12} is refused: tool 'hotel.book' refuses its arguments: room: Input should" in text


class Loose(BaseTool):
    """Takes anything."""

    name = "loose"

    async def execute(self, room: str, other: Any = None) -> None: ...


async def test_arguments_that_should_be_refused() -> None:
    accepting: Tool[..., Any] = tool("accepting")(lambda room: None)
    accepting.function.__annotations__["room"] = str
    accepting.validate = lambda arguments: dict(arguments)  # type: ignore[method-assign]
    text = await fault("refuses_other_arguments", accepting)
    assert "is accepted, but an argument that the tool does not have ('canary-7f3a9c'). Give the parameter a stricter" in text
    checked = await check_tool(Loose, examples=[{"room": "1", "other": 1}])
    assert "refuses_other_arguments" in checked.done


@tool("counts", returns={"type": "integer"})
def counts(room: str) -> Any:
    return room


async def test_a_result_that_is_not_what_the_tool_declares() -> None:
    assert "'12' is not of type 'integer'. Mend the tool, or what it declares with returns=" in await fault(
        "results_are_what_it_declares", counts
    )

    @tool
    def opens(room: str) -> Any:
        return object()

    assert "NotJsonError: the result of tool 'opens' cannot be written as JSON" in await fault(
        "results_are_what_it_declares", opens
    )


async def test_a_second_effect_for_the_same_key() -> None:
    @tool("books", idempotent=True)
    def books(ctx: ToolContext, room: str) -> None:
        EFFECTS.happened(ctx)

    text = await fault("same_key_has_one_effect", books, effects=EFFECTS)
    assert "two attempts with the same key had 2 effects" in text and "pass the key to the service" in text
    assert "had 2 effects" in await fault("same_key_has_one_effect", books, effects=lambda: len(EFFECTS))


@pytest.mark.parametrize(
    ("answers", "part"),
    [
        ([Reconciled.succeeded()], "says that a call took effect that never was"),
        ([Reconciled.unknown(), Reconciled.not_happened()], "says that a call had no effect which took effect"),
        ([Reconciled.not_happened(), Reconciled.unknown()], "does not know of a call that took effect"),
        ([Reconciled.not_happened(), Reconciled.succeeded("other")], 'another result than the call: "other", not "12"'),
        ([OSError("away")], "reconcile fails with OSError: away. It must answer"),
    ],
)
async def test_a_reconcile_function_that_lies(answers: list[Any], part: str) -> None:
    left = list(answers)

    def says() -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @tool("books", reconcile=says)
    def books(room: str) -> str:
        return room

    assert part in await fault("reconcile_tells_the_truth", books)


async def test_a_reconcile_function_that_has_an_effect() -> None:
    def books_itself(ctx: ToolContext) -> Reconciled:
        if ctx.idempotency_key not in EFFECTS:
            return Reconciled.not_happened()
        EFFECTS.happened(ctx)
        return Reconciled.succeeded()

    @tool("books", reconcile=books_itself)
    def books(ctx: ToolContext, room: str) -> None:
        EFFECTS.happened(ctx)

    assert "reconcile has an effect itself" in await fault("reconcile_tells_the_truth", books, effects=EFFECTS)


async def test_a_cancellation_that_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CANCEL_S", 0.1)
    monkeypatch.setattr(calling, "STOP_WAIT_S", 0.1)
    over = asyncio.Event()

    @tool("stays")
    async def stays(room: str) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    assert "the call goes on 0.1 s after it was cancelled" in await fault("a_cancelled_call_ends", stays)
    over.set()
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_compensation_that_takes_nothing_back_or_is_another_tool() -> None:
    @tool("hotel.cancel")
    def forgets(id: str) -> None: ...

    examples = [dict(book.examples[0]["arguments"])]
    options = {"effects": EFFECTS, "examples": examples}
    text = await fault("the_compensation_takes_the_effect_back", book, compensation=forgets, **options)
    assert "after attempt 1 of hotel.cancel 1 effects stand that did not before" in text
    other = tool("other")(forgets.function)
    text = await fault("the_compensation_takes_the_effect_back", book, compensation=other, **options)
    assert "the policy names 'hotel.cancel' as compensation, and the check was given 'other'" in text
    quiet = tool("quiet", policy=Policy(compensation=Compensation(tool="hotel.cancel")))(lambda: None)
    text = await fault("the_compensation_takes_the_effect_back", quiet, compensation=cancel, effects=EFFECTS, examples=[{}])
    assert "the call {} had no effect that is counted, so none can be taken back" in text


async def test_a_compensation_beside_the_tool_is_found() -> None:
    keys: list[str] = []

    @tool("does.undo", idempotent=True)
    def undo(result: str, invocation_id: str) -> None:
        keys.append(invocation_id)
        EFFECTS.taken_back(invocation_id)

    @tool("does", compensate=undo)
    def does(ctx: ToolContext) -> str:
        EFFECTS.happened(ctx)
        return "done"

    only = [name for name in CHECKS if name != "the_compensation_takes_the_effect_back"]
    checked = await check_tool(does, examples=[{}], effects=EFFECTS, leave_out=only)
    assert checked.done == ("the_compensation_takes_the_effect_back",)
    assert keys == [EFFECTS.all[0].key] * 2, "it is called again with the same key, and takes back the effect of the call"


async def test_arguments_of_a_compensation() -> None:
    given: list[dict[str, Any]] = []

    @tool("undo")
    def undo(arguments: Any = None, result: Any = None, room: Any = None) -> None:
        given.append({"arguments": arguments, "result": result, "room": room})
        EFFECTS.taken_back(EFFECTS.standing[0])

    def does(expressions: dict[str, str] | None) -> Tool[..., Any]:
        @tool("does", policy=Policy(compensation=Compensation(tool="undo", arguments=expressions)))
        def does(ctx: ToolContext, room: str) -> str:
            EFFECTS.happened(ctx)
            return "done"

        return does

    options: dict[str, Any] = {"effects": EFFECTS, "compensation": undo, "examples": [{"room": "12"}]}
    options["leave_out"] = [name for name in CHECKS if name != "the_compensation_takes_the_effect_back"]
    await check_tool(does(None), **options)
    await check_tool(does({"room": "arguments.room"}), **options)
    await check_tool(does({"room": "1 + 1"}), compensation_arguments=lambda arguments, result: {"room": result}, **options)
    assert given == [
        {"arguments": {"room": "12"}, "result": "done", "room": None},
        {"arguments": None, "result": None, "room": "12"},
        {"arguments": None, "result": None, "room": "done"},
    ]
    checked = await check_tool(does({"room": "1 + 1"}), **options)
    assert "the expression '1 + 1' needs the server" in checked.left_out["the_compensation_takes_the_effect_back"]


@pytest.mark.parametrize("way", ["raises", "causes", "prints", "logs", "returns"])
async def test_a_secret_in_what_the_tool_says(way: str) -> None:
    @tool("tells")
    def tells(room: str) -> Any:
        secret = os.environ["HOTEL_KEY"]
        match way:
            case "raises":
                raise OSError(f"GET https://hotel.example/?key={secret}")
            case "causes":
                raise ValueError("no") from OSError(secret)
            case "prints":
                print(secret)
            case "logs":
                logging.getLogger("hotel").info("key %s", secret)
            case "returns":
                return {"key": secret}
        return None

    text = await fault("errors_have_no_secrets", tells, secrets=["HOTEL_KEY"])
    place = {"raises": "the report of its failure", "causes": "the report of its failure", "returns": "the result"}.get(way)
    assert f"{place or 'what it prints and logs'} of the call" in text and "has the value of HOTEL_KEY" in text


async def test_a_value_in_a_refusal() -> None:
    class Tells(BaseTool):
        """Tells what it got."""

        def validate(self, room: str) -> None:
            raise ValueError(f"no room {room}")

        async def execute(self, room: str) -> None: ...

    assert "the refusal of 'room' (a text that it hardly knows) has the value in its text" in await fault(
        "errors_have_no_secrets", Tells
    )


@pytest.mark.skipif(sys.platform != "linux", reason="isolation is of Linux")
async def test_a_tool_that_works_in_a_process_of_its_own(tmp_path: Path) -> None:
    only = [name for name in CHECKS if name != "works_in_a_process_of_its_own"]
    assert (await check_tool(add, examples=[{"a": 1}], leave_out=only)).done == ("works_in_a_process_of_its_own",)
    text = await fault("works_in_a_process_of_its_own", read, examples=[{"path": str(tmp_path / "none")}])
    assert "in a process of its own the call" in text and "FileNotFoundError" in text and "no memory of this process" in text


ALONE = """
import asyncio, sys
sys.modules["pytest"] = sys.modules["jsonschema"] = None  # neither is there
from tidelog import tool
from tidelog.testing import ToolContract, check_tool

@tool("count", returns={"type": "integer"})
def count(given: str) -> object:
    "Counts."
    return given

class TestCount(ToolContract):
    tool = count
    examples = ({"given": "x"},)

left = asyncio.run(check_tool(count, examples=[{"given": "x"}])).left_out
assert "install the package jsonschema" in left["results_are_what_it_declares"], left
TestCount().test_accepts_its_examples()
"""


def test_the_kit_needs_neither_pytest_nor_jsonschema() -> None:
    ended = finished([sys.executable, "-W", "error", "-c", ALONE], 60)
    assert ended.returncode == 0, ended.stderr


# --- the class ---------------------------------------------------------------------------------------------------------


class TestBooking(ToolContract):
    tool = book
    effects = EFFECTS
    slow = SLOW
    compensation = cancel
    secrets = ("HOTEL_KEY",)
    test_works_in_a_process_of_its_own: Any = None  # it does not


class Counted(ToolContract):
    tool = book

    @staticmethod
    def effects() -> int:
        return len(BOOKED)


class Bad(ToolContract):
    tool = counts
    examples = ({"room": "12"},)


def test_a_class_without_a_tool_or_with_a_bad_one() -> None:
    with pytest.raises(AssertionError, match="ToolContract has no tool; write: tool = my_tool"):
        ToolContract().test_describes_itself()
    with pytest.raises(AssertionError, match="'12' is not of type 'integer'"):
        Bad().test_results_are_what_it_declares()
    Counted().test_same_key_has_one_effect()
    with pytest.raises(unittest.SkipTest, match="the tool has no reconcile function"):
        Bad().test_reconcile_tells_the_truth()
    assert {f"test_{name}" for name in CHECKS} == {name for name in vars(ToolContract) if name.startswith("test_")}
