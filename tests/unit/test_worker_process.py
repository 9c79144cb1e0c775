"""The process of a worker: its end comes in time, and its loop goes on, whatever user code does in the process."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator

import pytest

from tests.pace import in_time, slowness_lately, within

FRAME = """
import asyncio, atexit, concurrent.futures, multiprocessing, os, signal, subprocess, sys, threading, time
from tidelog.crews import CREW, Crew
from tidelog.logs import configure_logs
from tidelog.process import WorkerProcess

configure_logs("text")
process = WorkerProcess(limit_s={limit})

def say(*words):
    print(*words, flush=True)

async def swallow():
    while True:
        try:
            await asyncio.sleep(1000)
        except BaseException:
            pass

async def main():
    loop = asyncio.get_running_loop()
{body}
    say("ready")
    await process.stop.wait()
    return 0

sys.exit(process.run(main()))
"""


class Started:
    """A process with this code of a user in its main coroutine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self._lines = process.stdout
        self.log: list[str] = []

    async def line(self, text: str) -> None:
        """Wait for a line with this text in the output."""
        async with within(10):
            while True:
                line = (await self._lines.readline()).decode()
                assert line, "".join(self.log)
                self.log.append(line)
                if text in line:
                    return

    def kill(self) -> None:
        """End the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ended(self) -> int:
        code = await in_time(self.process.wait(), 10)
        self.kill()  # children would keep the pipe of the output open
        self.log.append((await self._lines.read()).decode())
        return code


STARTED: list[Started] = []


async def start(body: str, limit: float | None = None) -> Started:
    """`limit`: seconds. By default 0.4 s of an idle machine, because a process that needs longer for its end is forced to."""
    limit = limit or 0.4 * await slowness_lately()
    source = FRAME.format(limit=limit, body=textwrap.indent(textwrap.dedent(body).strip("\n"), "    "))
    out, same = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=out, stderr=same, start_new_session=True)
    STARTED.append(Started(process))
    return STARTED[-1]


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """The processes of a test end with the test, and their children too."""
    yield
    for started in STARTED:
        started.kill()
        await in_time(started.process.wait(), 10)
    STARTED.clear()


HABITS = {
    "nothing": ("pass", 0),
    "a task that swallows its cancellation": ("loop.create_task(swallow())", 0),
    "a thread that is no daemon": ("threading.Thread(target=time.sleep, args=(1000,)).start()", 0),
    "a hanging exit handler": ("atexit.register(time.sleep, 1000)", 0),
    "a pool whose thread hangs": ("concurrent.futures.ThreadPoolExecutor().submit(time.sleep, 1000)", 0),
    "a hanging asyncio.to_thread": ("loop.create_task(asyncio.to_thread(time.sleep, 1000))", 0),
    "a child of multiprocessing": (
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,)); child.start()",
        0,
    ),
    "a generator that does not close": (
        """
        async def generator():
            try:
                yield 1
            finally:
                await swallow()
        kept = generator()
        await anext(kept)
        """,
        0,
    ),
    "a value that takes long to be freed": (
        """
        class Slow:
            def __del__(self):
                for _ in iter(int, 1):
                    pass
        globals()["kept"] = Slow()
        """,
        0,
    ),
    "a blocked event loop": ("loop.call_later(0.1, lambda: (say('blocked'), time.sleep(1000)))", 1),
    "a busy event loop": ("loop.call_later(0.1, lambda: (say('blocked'), [None for _ in iter(int, 1)]))", 1),
}


@pytest.mark.parametrize("habit", HABITS)
async def test_the_process_ends_in_time_whatever_goes_on_in_it(habit: str) -> None:
    body, code = HABITS[habit]
    started = await start(body)
    await started.line("ready")
    if code:
        await started.line("blocked")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == code, started.log


async def test_what_kept_the_process_is_named() -> None:
    started = await start(
        """
        def export():
            threading.Event().wait()
        threading.Thread(target=export, name="exporter").start()
        """
    )
    await started.line("ready")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == 0
    assert "process_ended_by_force" in started.log[-1] and "exporter (<string>, line " in started.log[-1], started.log


async def test_a_second_signal_ends_the_process_at_once() -> None:
    started = await start("atexit.register(time.sleep, 1000)", limit=1000)
    await started.line("ready")
    started.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    started.process.send_signal(signal.SIGINT)
    assert await started.ended() == 130


async def test_signals_that_user_code_takes_are_taken_back() -> None:
    started = await start("signal.signal(signal.SIGTERM, signal.SIG_IGN); loop.add_signal_handler(signal.SIGINT, print)")
    await started.line("signal_handler_replaced")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == 0
    assert "SIGTERM" in "".join(started.log) and "SIGINT" in "".join(started.log)


EXITS = {
    "in a task": "loop.create_task(asyncio.to_thread(leave))",
    "in a callback": "loop.call_soon(leave)",
    "in a timer": "loop.call_later(0.01, leave)",
    "in a callback of a future": "done = loop.create_future(); done.add_done_callback(lambda _: leave()); done.set_result(None)",
    "in a signal handler": "signal.signal(signal.SIGALRM, lambda *_: leave()); signal.setitimer(signal.ITIMER_REAL, 0.01)",
    "in a thread": "threading.Thread(target=leave).start()",
    "by an interrupt": "loop.call_soon(lambda: (_ for _ in ()).throw(KeyboardInterrupt()))",
    "by an error of a signal handler": (
        "signal.signal(signal.SIGALRM, lambda *_: 1 / 0); signal.setitimer(signal.ITIMER_REAL, 0.01)"
    ),
    "by stopping the loop": "loop.call_soon(loop.stop)",
}


async def test_the_loop_goes_on_after_an_exit() -> None:
    tried = "\n".join(f"{code}\nawait asyncio.sleep(0.03)\nsay({how!r})" for how, code in EXITS.items())
    started = await start(f"leave = lambda: sys.exit('the key is missing')\n{tried}")
    for how in EXITS:
        await started.line(how)
    await started.line("ready")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == 0, started.log


async def test_an_exit_is_an_exit_of_the_call_whose_code_asked_for_it() -> None:
    started = await start(
        """
        crews = [Crew(), Crew()]
        async def work(crew, callback):
            CREW.set(crew)
            loop.call_soon(callback)
        for crew, callback in zip(crews, (lambda: sys.exit("no key"), lambda: None)):
            await loop.create_task(work(crew, callback))
        await asyncio.sleep(0.05)
        say([crew.exited.done() and repr(crew.exited.result()) for crew in crews])
        """
    )
    await started.line("[\"SystemExit('no key')\", False]")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == 0
    assert any("process_exit_refused" in line for line in started.log)


async def test_a_loop_that_cannot_go_on_ends_the_process() -> None:
    started = await start("loop.call_soon(loop._selector.close)", limit=5)
    assert await started.ended() == 1
    assert "event_loop_interrupted" in "".join(started.log)


async def test_a_signal_to_a_forked_child_does_not_reach_the_worker() -> None:
    started = await start(
        """
        child = os.fork()
        if not child:
            time.sleep(1000)
        os.kill(child, signal.SIGTERM)
        say("child", os.waitpid(child, 0)[1])
        try:
            await asyncio.wait_for(process.stop.wait(), 0.3)
        except TimeoutError:
            say("not asked to end")
        """
    )
    await started.line(f"child {int(signal.SIGTERM)}")
    await started.line("not asked to end")


async def test_a_forked_child_that_comes_back_ends_instead_of_working_as_a_second_worker() -> None:
    started = await start(
        """
        from tidelog.calling import keep_process
        def forks(how):
            with keep_process():
                child = os.fork()
                if not child:
                    how()
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        say([forks(lambda: None), forks(lambda: sys.exit(3)), forks(lambda: sys.exit("a reason")), forks(lambda: 1 / 0)])
        """
    )
    await started.line("[0, 3, 1, 1]")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == 0
    assert sum("ready" in line for line in started.log) == 1


async def test_host_names_are_looked_up_while_threads_of_user_code_hang() -> None:
    count = 4 * min(32, (os.cpu_count() or 1) + 4)
    started = await start(
        f"""
        tasks = [loop.create_task(asyncio.to_thread(time.sleep, 1000)) for _ in range({count})]
        await asyncio.sleep(0.1)
        say(bool(await loop.getaddrinfo("localhost", 80)), await asyncio.to_thread(lambda: "and user code goes on"))
        """
    )
    await started.line("True and user code goes on")
    started.process.send_signal(signal.SIGTERM)
    assert await started.ended() == 0


async def test_a_loop_that_does_not_come_back_is_named_with_its_place() -> None:
    started = await start(
        """
        from tidelog import process as tidelog_process
        tidelog_process.BLOCKED_S = 0.5
        def blocks():
            time.sleep(1000)
        loop.call_later(0.1, blocks)
        """
    )
    await started.line("event_loop_does_not_come_back")
    assert 'at="<string>, line ' in started.log[-1] and "in blocks" in started.log[-1]


async def test_log_lines_of_the_worker_come_out_whatever_user_code_does_to_logging_and_stderr() -> None:
    started = await start(
        """
        import logging, logging.config
        from tidelog.logs import log
        class Fails(logging.Handler):
            def emit(self, record):
                raise RuntimeError("a handler of user code")
        ours = logging.getLogger("tidelog.worker.example")
        logging.getLogger().addHandler(Fails())
        log(ours, logging.WARNING, "first_line")
        logging.config.dictConfig({"version": 1})
        log(ours, logging.WARNING, "second_line")
        logging.disable()
        sys.stderr.close()
        os.close(2)
        log(ours, logging.WARNING, "third_line")
        """
    )
    for line in ("first_line", "second_line", "third_line", "ready"):
        await started.line(line)
    assert sum("_line" in line for line in started.log) == 3, started.log
