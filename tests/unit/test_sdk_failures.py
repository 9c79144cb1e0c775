"""Reports of exceptions of user code: text, place, causes and kind, also of exceptions that are hard to look at."""

import asyncio
import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain.failures import Failure
from tidelog import Agent, Context, InvalidError, PermanentError, ServiceRateLimitedError, ToolError, TransientError, tool
from tidelog.calling import ProcessExitError, call
from tidelog.errors import OutcomeUnknownError
from tidelog.failures import (
    MAX_CAUSES,
    MAX_MESSAGE_BYTES,
    MAX_TRACEBACK_BYTES,
    ErrorReport,
    ReportedError,
    agent_failure,
    tool_failure,
)
from tidelog.logs import LineFormatter
from tidelog.testing import run_agent
from tidelog.texts import NOT_AVAILABLE, type_of
from tidelog.tools import InvalidArgumentsError

HERE = Path(__file__).name


def raised(error: BaseException) -> BaseException:
    """The exception with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


# --- exceptions that are hard to look at ------------------------------------------------------------------------------


class NoString(Exception):
    def __str__(self) -> str:
        return {"code": 7}  # type: ignore[return-value]


class Raises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)


class Sly(str):
    """A text that cannot be cut."""

    def __getitem__(self, key: Any) -> str:
        raise IndexError("no part of it")


class Subtle(Exception):
    def __str__(self) -> str:
        return Sly("text")


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise AttributeError("nameless")


class Nameless(Exception, metaclass=Meta):
    pass


class Masked(Exception):
    """Even `isinstance` fails."""

    @property
    def __class__(self) -> Any:
        raise LookupError("who asks?")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class Closed(Exception):
    __cause__ = property(lambda self: 1 / 0)


class Unready(TransientError):
    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "type_", "text"),
    [
        (NoString(), "NoString", NOT_AVAILABLE),
        (Raises(), "Raises", NOT_AVAILABLE),
        (Exits(), "Exits", NOT_AVAILABLE),
        (Endless(), "Endless", NOT_AVAILABLE),
        (Subtle(), "Subtle", "text"),
        (Nameless("text"), "Nameless", "text"),
        (Masked("text"), "Masked", "text"),
        (Closed("text"), "Closed", "text"),
        (Unready(), "Unready", "Unready"),
        (ValueError("half \ud800, nul \0"), "ValueError", "half ?, nul \N{REPLACEMENT CHARACTER}"),
        (type("", (Exception,), {})("text"), "Exception", "text"),
        (type("Ü" * 1000, (Exception,), {})("text"), "Ü" * 100, "text"),
    ],
    ids=lambda value: type.__repr__(type(value))[:60] if isinstance(value, BaseException) else None,
)
def test_every_exception_has_a_report_that_the_server_takes(error: BaseException, type_: str, text: str) -> None:
    for report in (tool_failure(raised(error)), agent_failure(raised(error))):
        assert (report.type, report.message) == (type_, text)
        Failure.model_validate_json(json.dumps(report.model_dump()))


def test_a_report_is_bounded_whatever_the_exception_holds() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("x\0" * 1_000_000)

    group: Exception = ExceptionGroup("many", [ValueError("ü" * 10_000) for _ in range(1000)])
    for _ in range(500):
        group = ExceptionGroup("nested", [group])
    chain: BaseException = ValueError("ü" * 10_000)
    for _ in range(500):
        outer = ValueError("ü" * 10_000)
        outer.__cause__ = chain
        chain = outer
    errors = [raised(group), raised(chain)]
    with pytest.raises(ValueError, match="x") as caught:
        deep(300)
    for error in (*errors, caught.value):
        report = tool_failure(error)
        assert len(report.message.encode()) <= MAX_MESSAGE_BYTES and len(report.causes) <= MAX_CAUSES
        assert len((report.traceback or "").encode()) <= MAX_TRACEBACK_BYTES
        Failure.model_validate_json(json.dumps(report.model_dump()))
    assert tool_failure(group).message.endswith("; and 990 more")


@pytest.mark.parametrize("form", [LineFormatter("json"), LineFormatter("text")], ids=["json", "text"])
@pytest.mark.parametrize("make", [NoString, Exits, Nameless, Masked, lambda: ValueError("x" * 10_000_000)])
def test_the_log_of_a_worker_has_a_line_of_bounded_length(form: logging.Formatter, make: Callable[[], BaseException]) -> None:
    error = make()
    record = logging.makeLogRecord({"msg": "agent_run_failed", "exc_info": (type(error), error, raised(error).__traceback__)})
    line = form.format(record)
    assert "agent_run_failed" in line and type_of(error) in line and len(line) < 50_000


def test_a_cycle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert [cause.message for cause in tool_failure(one).causes] == ["two"]


@pytest.mark.parametrize(("wait", "taken"), [(float("nan"), None), ("soon", None), (float("inf"), 86_400.0), (-1, 0.0), ("7", 7.0)])
def test_a_wait_that_is_no_number_of_seconds_is_left_out(wait: Any, taken: float | None) -> None:
    report = tool_failure(TransientError("later", retry_after_s=wait))
    assert (report.kind, report.retry_after_s) == ("transient", taken)


async def test_a_sync_function_may_raise_anything_too() -> None:
    class Stop(StopIteration):
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

        __str__ = __repr__

    class Exit(SystemExit):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Callable_:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def __call__(self) -> None:
            raise self.error

        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    def raises(error: BaseException) -> None:
        raise error

    async def leaves(error: BaseException) -> None:
        raise error

    for function in (Callable_(Stop()), functools.partial(raises, Stop())):
        with pytest.raises(RuntimeError, match=r"the function raised Stop\("):
            await asyncio.wait_for(call(function, (), {}), 10)
    for exits in (functools.partial(raises, Exit()), functools.partial(leaves, Exit())):
        with pytest.raises(ProcessExitError, match=NOT_AVAILABLE):
            await asyncio.wait_for(call(exits, (), {}), 10)


# --- place and causes -------------------------------------------------------------------------------------------------


def test_a_report_has_class_text_and_place_apart() -> None:
    secret = "hunter2"
    try:
        raise ValueError(f"no {len(secret)}")
    except ValueError as error:
        report = tool_failure(error)
    line = error_line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "raise ValueError(f" in text)
    assert (report.type, report.message, report.line) == ("ValueError", "no 7", line)
    assert report.file == __file__
    assert report.traceback is not None and f"line {error_line}, in test_a_report_has" in report.traceback
    assert "hunter2" not in report.model_dump_json()


def test_the_place_is_in_the_users_code_and_not_in_a_library() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    report = tool_failure(caught.value)
    assert report.file == __file__
    assert "json/decoder.py" in (report.traceback or "")


def test_causes_and_contexts_are_kept_in_order() -> None:
    def innermost() -> None:
        raise KeyError("id")

    def middle() -> None:
        try:
            innermost()
        except KeyError:
            raise LookupError("no customer")  # noqa: B904  # the context of an exception is what is tested

    try:
        try:
            middle()
        except LookupError as error:
            raise TransientError("crm") from error
    except TransientError as error:
        report = agent_failure(error)
    assert [(c.relation, c.type, c.message, Path(c.file or "").name) for c in report.causes] == [
        ("cause", "LookupError", "no customer", HERE),
        ("context", "KeyError", "'id'", HERE),
    ]
    assert report.causes[0].line != report.causes[1].line
    found = [(report.traceback or "").find(f"raise {name}(") for name in ("KeyError", "LookupError", "TransientError")]
    assert -1 < found[0] < found[1] < found[2]
    try:
        raise ValueError("alone") from None
    except ValueError as error:
        assert agent_failure(error).causes == ()


# --- groups -----------------------------------------------------------------------------------------------------------


async def together(*errors: Exception) -> BaseException:
    """The exception of a TaskGroup whose tasks raise these errors."""

    async def fail(error: Exception) -> None:
        raise error

    try:
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(fail(error))
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


async def test_a_group_names_its_leaves_and_has_their_kind() -> None:
    report = tool_failure(await together(PermanentError("card\n declined")))
    assert report.message == "unhandled errors in a TaskGroup (1 sub-exception): PermanentError: card declined"
    assert (report.type, report.kind) == ("ExceptionGroup", "permanent")
    assert [(c.relation, c.type, c.message) for c in report.causes] == [("member", "PermanentError", "card\n declined")]
    assert "in fail" in (report.traceback or ""), "the traceback shows where the leaf was raised"
    busy = await together(TransientError("busy", 1), TransientError("still busy", 5))
    assert (agent_failure(busy).kind, agent_failure(busy).retry_after_s) == ("transient", 5)


@pytest.mark.parametrize(
    ("failure", "leaves", "kind"),
    [
        (agent_failure, [TransientError("a"), ValueError("b")], "permanent"),
        (agent_failure, [TransientError("a")], "transient"),
        (agent_failure, [ValueError("a")], "permanent"),
        (tool_failure, [PermanentError("a"), ValueError("b")], "permanent"),
        (tool_failure, [ValueError("a"), TransientError("b")], "transient"),
        (tool_failure, [InvalidArgumentsError("a")], "invalid"),
        (tool_failure, [InvalidArgumentsError("a"), ValueError("b")], "permanent"),
    ],
)
def test_leaves_that_do_not_agree_make_a_permanent_failure(
    failure: Callable[[BaseException], ErrorReport], leaves: list[Exception], kind: str
) -> None:
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", leaves[:1]), *leaves[1:]])
    assert failure(nested).kind == kind


# --- the tool's exception behind a ToolError --------------------------------------------------------------------------


@tool("no")
async def no() -> str:
    raise PermanentError("the reason")


class Asks(Agent):
    async def execute(self, ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.tool("no"))
        return "never"


async def test_a_failed_tool_is_named_with_its_place() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run_agent(Asks, tools=[no])
    [leaf] = caught.value.exceptions
    assert isinstance(leaf, ToolError)
    assert (str(leaf), leaf.type, leaf.reason, leaf.file) == (
        "PermanentError: the reason",
        "PermanentError",
        "the reason",
        __file__,
    )
    report = agent_failure(caught.value)
    assert report.message.endswith(": ToolError: PermanentError: the reason")
    assert [(c.relation, c.type, c.message, c.line) for c in report.causes[1:2]] == [
        ("cause", "PermanentError", "the reason", leaf.line)
    ]


# --- kinds that an exception says itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "retry_after_s"),
    [
        (ServiceRateLimitedError("later", retry_after_s=7), "rate_limited", 7),
        (ServiceRateLimitedError("later"), "rate_limited", None),
        (InvalidError("no such room"), "invalid", None),
        (ExceptionGroup("both", [ServiceRateLimitedError("a", 3), TransientError("b", 5)]), "transient", 5),
        (ExceptionGroup("both", [ServiceRateLimitedError("a", 3), ServiceRateLimitedError("b", 9)]), "rate_limited", 9),
        (ExceptionGroup("both", [ServiceRateLimitedError("a", 3), PermanentError("b")]), "permanent", None),
        (ExceptionGroup("both", [InvalidError("a"), TransientError("b", 5)]), "permanent", None),
    ],
)
def test_an_exception_says_its_kind(error: Exception, kind: str, retry_after_s: float | None) -> None:
    for report in (tool_failure(error), agent_failure(error)):
        assert (report.kind, report.retry_after_s) == (kind, retry_after_s)


@pytest.mark.parametrize(
    ("header", "seconds"), [("120", 120.0), (" 0 ", 0.0), (None, None), ("", None), ("soon", None), ("-3", None), ("\u00b2", None)]
)
def test_the_time_of_a_header(header: str | None, seconds: float | None) -> None:
    error = ServiceRateLimitedError.of_header(header)
    assert (error.retry_after_s, str(error)) == (seconds, "the service takes no more for now")
    assert str(ServiceRateLimitedError.of_header(header, "429")) == "429"


def test_the_date_of_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_767_225_600.0)
    for text, seconds in (
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0), ("Thu, 01 Jan 2026 00:00:30 -0000", 30.0), ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0),
    ):  # fmt: skip
        assert ServiceRateLimitedError.of_header(text).retry_after_s == seconds


def test_a_rate_and_an_unknown_outcome_are_kinds_of_their_own() -> None:
    limited = tool_failure(ServiceRateLimitedError("too many", retry_after_s=7))
    assert (limited.kind, limited.retry_after_s) == ("rate_limited", 7)
    both = tool_failure(ExceptionGroup("both", [ServiceRateLimitedError("a", 3), ServiceRateLimitedError("b", 9)]))
    assert (both.kind, both.retry_after_s) == ("rate_limited", 9)
    assert tool_failure(OutcomeUnknownError("sent")).kind == "permanent"
    report = ErrorReport(type="T", message="m", kind="invalid")
    assert tool_failure(ReportedError(report)) == report
