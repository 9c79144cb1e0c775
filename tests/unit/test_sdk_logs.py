"""What agents and tools log, in the worker: whose line it is, what is bounded, and that nothing comes twice."""

import asyncio
import contextvars
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import pytest

from tidelog import Agent, Context, ToolContext, capture, logs, tool
from tidelog.session import lines as module
from tidelog.session.frames import MAX_FRAME_BYTES, MAX_MESSAGES, frame, message, read
from tidelog.session.lines import Lines
from tidelog.session.outbox import Outbox, Report
from tidelog.testing import run_agent
from tidelog.work_log import MAX_TEXT, WORK_LOG, Log, WorkLog

HEAD = b'"work":"w","attempt":1,"token":"t",'


class Kept:
    """The lines of one execution."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.log = WorkLog(lambda line: self.lines.append(json.loads(line)))

    @property
    def texts(self) -> list[str]:
        return [line["text"] for line in self.lines]


@pytest.fixture
def kept() -> Iterator[Kept]:
    found = Kept()
    token = WORK_LOG.set(found.log)
    yield found
    WORK_LOG.reset(token)


@contextmanager
def capturing() -> Iterator[io.StringIO]:
    """A process that captures, with its standard output."""
    out, handlers, level = io.StringIO(), logging.root.handlers[:], logging.root.level
    logging.root.handlers[:] = []
    with redirect_stdout(out):
        capture.capture()
        logging.root.setLevel(logging.INFO)
        try:
            yield out
        finally:
            capture._handler = None
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)


# --- capture ------------------------------------------------------------------------------------------------------------


def test_printed_lines_belong_to_the_execution_and_are_printed_as_ever(kept: Kept) -> None:
    with capturing() as captured:
        print("one", 2)
        print("begun, ", end="")
        print("ended")
        print()
        sys.stdout.writelines(["a\r\n", "b\nrest"])
        assert kept.texts == ["one 2", "begun, ended", "a", "b"]
        kept.log.end()
        assert kept.texts[4:] == ["rest"] and {line["level"] for line in kept.lines} == {"info"}
        assert captured.getvalue() == "one 2\nbegun, ended\n\na\r\nb\nrest"


def test_records_of_the_standard_module_belong_to_the_execution(kept: Kept) -> None:
    with capturing():
        logger = logging.getLogger("agents.writer")
        logger.info("read %s", "it")
        logger.debug("hidden")
        logger.warning("%d", "no number")
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("failed")
        assert [line["level"] for line in kept.lines] == ["info", "warning", "error"]
        assert kept.texts[0] == "read it" and kept.texts[1].startswith("'%d'")
        assert kept.texts[2].startswith("failed\nTraceback") and kept.texts[2].endswith("ValueError: broken")


def test_the_sdks_own_lines_and_lines_of_nobody_do_not_come(kept: Kept) -> None:
    with capturing():
        logging.getLogger("tidelog.session.session").warning("of the SDK")
        logs.log(logging.getLogger("tidelog.worker.bench"), logging.ERROR, "of the worker")
        contextvars.Context().run(print, "nobody's")
        contextvars.Context().run(logging.getLogger("agents").error, "nobody's")
        assert kept.texts == []


def test_a_handler_that_writes_to_standard_output_gives_no_second_line(kept: Kept) -> None:
    with capturing() as captured:
        logging.root.addHandler(logging.StreamHandler(sys.stdout))
        logging.getLogger("agents").info("once")
        assert kept.texts == ["once"] and captured.getvalue() == "once\n"


def test_an_execution_after_code_that_set_up_logging_anew_is_captured_again(kept: Kept) -> None:
    with capturing():
        logging.basicConfig(force=True, level=logging.INFO, stream=io.StringIO())
        logging.getLogger("agents").info("lost")
        capture.ensure()
        capture.ensure()
        logging.getLogger("agents").info("kept")
        assert kept.texts == ["kept"]


async def test_threads_with_the_context_belong_to_the_execution(kept: Kept) -> None:
    with capturing():
        await asyncio.to_thread(print, "to_thread")
        copied = threading.Thread(target=contextvars.copy_context().run, args=(print, "copied"))
        bare = threading.Thread(target=contextvars.Context().run, args=(print, "bare"))
        for thread in (copied, bare):
            thread.start()
            thread.join()
        await asyncio.create_task(asyncio.to_thread(logging.getLogger("agents").info, "task"))
        assert kept.texts == ["to_thread", "copied", "task"]


def test_threads_do_not_mix_their_begun_lines(kept: Kept) -> None:
    kept.log.printed("mine ")
    thread = threading.Thread(target=kept.log.printed, args=("its own\n",))
    thread.start()
    thread.join()
    kept.log.printed("goes on\n")
    assert kept.texts == ["its own", "mine goes on"]


# --- texts --------------------------------------------------------------------------------------------------------------


def test_a_text_is_cut_with_a_mark_and_clean(kept: Kept) -> None:
    kept.log.put(logging.INFO, "x" * 1_000_000)
    kept.log.put(logging.INFO, "a\x00b \ud800 \N{WATER WAVE}")
    kept.log.put(logging.INFO, "\x00" * MAX_TEXT)
    long, odd, nuls = kept.texts
    assert len(long.encode()) <= MAX_TEXT and long.endswith("x… [cut: 1,000,000 bytes]")
    assert odd == "a\ufffdb ? \N{WATER WAVE}"
    assert len(nuls.encode()) <= MAX_TEXT and nuls.endswith("… [cut: 49,152 bytes]")


def test_a_long_text_without_a_line_feed_does_not_gather_for_ever(kept: Kept) -> None:
    for _ in range(3):
        kept.log.printed("x" * 10_000)
    assert [len(text.encode()) for text in kept.texts] == [MAX_TEXT]


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_ctx_log_has_levels_and_fields_and_never_fails(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    own = Log(kept.log, {"run_id": "r"})
    with caplog.at_level(logging.INFO):
        own("plain")
        own.info("with", n=1, name="two words")
        own.warning("careful")
        own.error(ValueError("wrong"))
        own.critical(Awkward())
        own.debug("hidden")
    assert [(line["level"], line["text"]) for line in kept.lines] == [
        ("info", "plain"), ("info", 'with n=1 name="two words"'), ("warning", "careful"), ("error", "wrong"),
        ("critical", "<text not available: RuntimeError>"),
    ]  # fmt: skip
    assert [record.message for record in caplog.records][:2] == ["plain", 'with n=1 name="two words"']
    with caplog.at_level(logging.DEBUG):
        own.debug("shown")
    assert kept.texts[-1] == "shown"


@tool(idempotent=True)
async def shout(ctx: ToolContext) -> str:
    ctx.log.warning("from the tool")
    return "!"


class Teller(Agent):
    async def execute(self, ctx: Context) -> Any:
        ctx.log.info("from the agent", attempt=ctx.attempt)
        return await ctx.tool("shout")


async def test_agents_and_tools_log_in_tests_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert (await run_agent(Teller, tools=[shout])).result == "!"
    assert [record.message for record in caplog.records] == ["from the agent attempt=1", "from the tool"]


# --- on the way to the socket --------------------------------------------------------------------------------------------


class Calls:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def line(number: int, size: int = 0) -> bytes:
    return b'{"n":%d,"x":"%b"}' % (number, b"x" * size)


def test_lines_of_one_attempt_go_in_one_message_and_the_sender_is_woken_once() -> None:
    calls = Calls()
    waiting = Lines(calls)
    for number in range(3):
        waiting.put(HEAD, line(number))
    waiting.put(b'"work":"v",', line(3))
    first, second = read(frame(waiting.take(MAX_MESSAGES, MAX_FRAME_BYTES)))
    assert (first["t"], first["work"], [one["n"] for one in first["lines"]], first["dropped"]) == ("log", "w", [0, 1, 2], 0)
    assert (second["work"], [one["n"] for one in second["lines"]]) == ("v", [3])
    assert calls.count == 1
    waiting.put(HEAD, line(4))
    assert calls.count == 2


def test_lines_without_room_are_counted_and_nothing_waits() -> None:
    waiting = Lines(Calls())
    for number in range(module.MAX_LINES + 7):
        waiting.put(HEAD, line(number))
    messages = read(frame(waiting.take(MAX_MESSAGES, 10_000_000)))
    assert sum(len(one["lines"]) for one in messages) == module.MAX_LINES
    assert sum(one["dropped"] for one in messages) == 7
    for _ in range(51):
        waiting.put(HEAD, line(2, 100_000))
    messages = read(frame(waiting.take(MAX_MESSAGES, 10_000_000)))
    assert sum(len(one["lines"]) for one in messages) == module.MAX_BYTES // 100_020
    assert sum(one["dropped"] for one in messages) == 51 - module.MAX_BYTES // 100_020


def test_what_was_dropped_is_told_also_without_lines() -> None:
    waiting = Lines(Calls())
    waiting.put(HEAD, line(1, module.MAX_BYTES_OF_LINE))
    [message] = read(frame(waiting.take(MAX_MESSAGES, MAX_FRAME_BYTES)))
    assert (message["lines"], message["dropped"]) == ([], 1)
    assert waiting.take(MAX_MESSAGES, MAX_FRAME_BYTES) == []


def test_lines_go_behind_reports_into_the_same_frame() -> None:
    outbox = Outbox(lambda: None)
    outbox.lines.put(HEAD, line(1))
    outbox.put(Report(1, message("complete", b'"id":1,', {}), None, 100.0))
    assert [one["t"] for one in read(frame(outbox.take(1, 0.0)))] == ["complete", "log"]
    for number in range(2, 5):
        outbox.put(Report(number, message("record", b'"id":%d,' % number, {"result": "x" * 100_000}), None, 100.0))
    outbox.lines.put(HEAD, line(2, 120_000))
    frames = [outbox.take(1, 0.0) for _ in range(3)]
    assert [[one["t"] for one in read(frame(each))] for each in frames] == [["record", "record"], ["record", "log"], []]
    assert all(len(frame(each)) <= MAX_FRAME_BYTES for each in frames)


def test_a_forked_process_of_user_code_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Lines(Calls())
    monkeypatch.setattr(module.os, "getpid", lambda: os.getppid())
    waiting.put(HEAD, line(1))
    assert waiting.take(MAX_MESSAGES, MAX_FRAME_BYTES) == []
