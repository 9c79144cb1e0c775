"""The console in a real Chromium: what the first load costs, how long runs open and scroll, and what open consoles cost the api.

`python -m benchmarks.console [--only long] [--events 100000] [--consoles 200]`; parts: `load`, `long`, `feed`, `slider`, `idle`.
`make bench ARGS=console` takes three minutes. The figures of the browser are its own: its clock, its frames, its long tasks (those
of a page's thread that take more than 50 ms). The browser shares the cores with the servers and with what else runs there: a task
that waits for a core is long, too.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

PACKAGES = Path(__file__).parent.parent / ".venv-browser"
sys.path.append(str(PACKAGES))  # Playwright: `make bench ARGS=console` puts it there

from playwright.async_api import Browser, BrowserContext, Page, async_playwright  # noqa: E402

from adapters.embedded import EmbeddedServices  # noqa: E402
from benchmarks import table  # noqa: E402
from benchmarks.histories import AROUND, History, completed_run  # noqa: E402
from benchmarks.machine import command, cpu_seconds, part_of, pss_mb, stats, tree  # noqa: E402
from benchmarks.run_server import KEY, Tidelog  # noqa: E402
from benchmarks.servers import embedded, quiet  # noqa: E402
from tests.browser.browser_kit import NOTES_LONG_TASKS, launch, sign_in  # noqa: E402

RUNS = 200
LOADS, MOVES = 5, 30
MOST_KB, LOAD_MS, PAINT_MS, MEMORY_MB, TASK_MS, SLIDER_MS, CORE = 200, 1_000, 1_000, 300, 50, 150, 0.20
PATIENCE_MS = 60_000
SECONDS, RATE, IN_ONE_APPEND = 5.0, 1_000, 40

NOTES = """
window.__asking = 0;
const ask = window.fetch;
window.fetch = (...all) => { window.__asking++; return ask(...all).finally(() => window.__asking--) };
window.__first = {};
window.__noteFirst = (name, selector) => {
    const note = () => {
        if (!(name in window.__first) && document.querySelector(selector) !== null) {
            window.__first[name] = Infinity;
            requestAnimationFrame(() => setTimeout(() => { window.__first[name] = performance.now() }));
        }
    };
    new MutationObserver(note).observe(document, { subtree: true, childList: true });
};
window.__noteFirst('run', '[data-testid=run-row]');
window.__noteFirst('event', '[data-testid=event-row]');
window.__frames = async milliseconds => {
    const began = performance.now(), times = [];
    await new Promise(done => requestAnimationFrame(function frame(now) {
        times.push(now);
        now - began < milliseconds ? requestAnimationFrame(frame) : done();
    }));
    return times.slice(1).map((now, index) => now - times[index]);
};
"""
"""Counts requests under way, and notes when the first row of a list was painted, in milliseconds since the page began."""
SCROLLS = """async ([selector, seconds]) => {
    const rows = document.querySelector(selector);
    let box = rows;
    const scrolls = one => one.scrollHeight > one.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(one).overflowY);
    while (box && !scrolls(box)) box = box.parentElement;
    box ??= document.scrollingElement;
    window.__longTasks.length = 0;
    const last = box.scrollHeight - box.clientHeight, began = performance.now(), from = box.scrollTop;
    let down = from < last / 2 ? 1 : -1;
    const scrolling = new Promise(done => requestAnimationFrame(function step(now) {
        box.scrollTop += down * 900;
        now - began < seconds * 1000 ? requestAnimationFrame(step) : done();
    }));
    const [frames] = await Promise.all([window.__frames(seconds * 1000), scrolling]);
    return { frames, tasks: window.__longTasks.splice(0), moved: Math.abs(box.scrollTop - from) };
}"""
MOVES_SLIDER = """async ([key, count]) => {
    const slider = document.querySelector('input[type=range], [role=slider]');
    slider.focus();
    const frame = () => new Promise(requestAnimationFrame), took = [];
    for (let number = 0; number < count; number++) {
        const began = performance.now(), before = location.search;
        slider.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
        while (location.search === before && performance.now() - began < 5000) await frame();
        do { await frame() } while (window.__asking > 0);
        took.push(performance.now() - began);
    }
    return took;
}"""
"""From the key to the frame after the last answer: all that is shown is as of the new moment."""


@dataclass
class Console:
    """A server, and a browser that is signed in."""

    services: EmbeddedServices
    url: str
    chromium: Browser

    async def context(self) -> BrowserContext:
        made = await self.chromium.new_context(base_url=self.url, viewport={"width": 1280, "height": 800})
        made.set_default_timeout(PATIENCE_MS)
        await made.add_init_script(NOTES_LONG_TASKS + NOTES)
        await sign_in(made, self.url, KEY)
        return made

    @contextlib.asynccontextmanager
    async def page(self, path: str) -> Any:
        context = await self.context()
        page = await context.new_page()
        await page.goto(path)
        yield page
        await context.close()

    async def until_read(self, path: str, holds: Callable[[Any], bool]) -> None:
        """Waits until the read models have what was made up."""
        async with httpx2.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as client:
            async with asyncio.timeout(180):
                while True:
                    answer = await client.get(path)
                    if answer.status_code == 200 and holds(answer.json()):
                        return
                    await asyncio.sleep(0.2)

    async def long_run(self, events: int) -> str:
        run_id = await asyncio.to_thread(completed_run, self.services.database_url, events)
        await self.until_read(f"/v1/runs/{run_id}", lambda run: run["status"] == "completed")
        return str(run_id)


async def first_ms(page: Page, name: str) -> float:
    """When the first row was painted. Raises TimeoutError if there is none."""
    await page.wait_for_function(f"() => Number.isFinite(window.__first.{name})")
    return float(await page.evaluate(f"window.__first.{name}"))


def told_of(tasks: list[float], frames: list[float]) -> str:
    slow = sorted(frames, reverse=True)
    longest = f"longest task {max(tasks):.0f} ms ({len(tasks)} over {TASK_MS})" if tasks else f"no task over {TASK_MS} ms"
    return (
        f"{longest}; {len(frames):,} frames, p50 {statistics.median(frames):.1f} ms, "
        f"p99 {slow[len(slow) // 100]:.0f} ms, longest {slow[0]:.0f} ms"
    )


# --- parts ------------------------------------------------------------------------------------------------------------------


async def load(console: Console, given: argparse.Namespace) -> None:
    """The first load, up to the list of runs: bytes and time."""
    for _ in range(RUNS):
        last = await asyncio.to_thread(completed_run, console.services.database_url, AROUND + 3)
    await console.until_read(f"/v1/runs/{last}", lambda run: run["status"] == "completed")
    sizes: dict[str, tuple[int, int]] = {}
    took, empty = [], []
    for number in range(LOADS):
        context = await console.context()
        page = await context.new_page()
        bodies: list[asyncio.Future[tuple[str, int, int]]] = []
        if number == 0:
            page.on("response", lambda answer, bodies=bodies: bodies.append(asyncio.ensure_future(body_of(answer))))
        await page.goto("/console/runs")
        took.append(await first_ms(page, "run"))
        for name, whole, packed in await asyncio.gather(*bodies):
            sizes[name] = (whole, packed)
        await page.reload()
        empty.append(await first_ms(page, "run"))
        await context.close()
    async with httpx2.AsyncClient(base_url=console.url, trust_env=False) as client:
        body = (await client.get("/console/live.js")).content  # what browsers load for all tabs at once is not seen by the page
        sizes["live.js"] = (len(body), len(gzip.compress(body, 9, mtime=0)))
    kb = sum(packed for _, packed in sizes.values()) / 1_000
    print(f"\nThe first load, up to the list of {RUNS:,} runs")
    for name, (whole, packed) in sorted(sizes.items(), key=lambda one: -one[1][1]):
        print(f"  {name:20} {whole:10,} bytes, {packed:8,} gzip")
    first, again = statistics.median(took), statistics.median(empty)
    print(f"  {kb:.0f} kB gzip in {len(sizes)} files (reach: ≤ {MOST_KB}); list of runs after {first:.0f} ms, again {again:.0f} ms")
    table.row(
        "console: the first load, to the list of runs", f"{kb:.0f} kB gzip, {first:.0f} ms", f"again: {again:.0f} ms",
        f"≤ {MOST_KB} kB, ≤ {LOAD_MS / 1000:g} s", met=kb <= MOST_KB and first <= LOAD_MS,
    )  # fmt: skip


async def body_of(answer: Any) -> tuple[str, int, int]:
    path = urlsplit(answer.url).path
    if not path.startswith("/console"):
        return "answers of the API", 0, 0
    with contextlib.suppress(Exception):  # an answer without a body
        body = await answer.body()
        return path.removeprefix("/console/") or "index.html", len(body), len(gzip.compress(body, 9, mtime=0))
    return path, 0, 0


async def long(console: Console, given: argparse.Namespace) -> None:
    """A run of many events: when its events are seen, how they scroll, what the page holds."""
    run_id = await console.long_run(given.events)
    async with console.page(f"/console/runs/{run_id}/events") as page:
        painted = await first_ms(page, "event")
        scrolled = await page.evaluate(SCROLLS, ["[data-testid=event-row]", SECONDS])
        memory = await memory_mb(page)
    title = f"a run of {given.events:,} events"
    tasks = scrolled["tasks"]
    print(f"\nConsole: {title}")
    print(f"  first events seen after {painted:.0f} ms (reach: ≤ {PAINT_MS}); renderer {memory[0]:.0f} MB, heap {memory[1]:.0f} MB")
    print(f"  scrolled {scrolled['moved']:,.0f} px in {SECONDS:g} s: {told_of(tasks, scrolled['frames'])}")
    table.row(
        f"console: {title}", f"seen after {painted:.0f} ms, {memory[0]:.0f} MB", f"heap {memory[1]:.0f} MB",
        f"≤ {PAINT_MS / 1000:g} s, ≤ {MEMORY_MB} MB", met=painted <= PAINT_MS and memory[0] <= MEMORY_MB,
    )  # fmt: skip
    table.row("console: scrolling it", told_of(tasks, scrolled["frames"]), "", f"no task over {TASK_MS} ms", met=not tasks)


async def memory_mb(page: Page) -> tuple[float, float]:
    """The memory of the page's process, and its scripts' heap, in MB. The browser has other pages' processes, which are smaller."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    heap = float(await page.evaluate("performance.memory.usedJSHeapSize")) / 1e6
    sizes = []
    for pid in tree(os.getpid(), stats()):
        if is_renderer(pid):
            with contextlib.suppress(OSError, StopIteration):
                sizes.append(pss_mb(pid))
    return max(sizes, default=0.0), heap


def is_renderer(pid: int) -> bool:
    """Whether the process draws pages. Chromium writes all words of such a process into one."""
    return any("--type=renderer" in word for word in command(pid))


async def feed(console: Console, given: argparse.Namespace) -> None:
    """The feed while a thousand events come in each second."""
    with psycopg.Connection.connect(console.services.database_url, autocommit=True) as connection:
        history = History(connection)
        history.begin()
        await console.until_read(f"/v1/runs/{history.run_id}", lambda run: run["status"] == "running")
        await at_rate(console, "the feed", "/console/feed", history)
        await at_rate(console, "a run's events", f"/console/runs/{history.run_id}/events", history)


async def at_rate(console: Console, title: str, path: str, history: History) -> None:
    async with console.page(path) as page:
        await first_ms(page, "event")
        await page.evaluate("window.__longTasks.length = 0")
        appending = asyncio.create_task(asyncio.to_thread(append_steadily, history))
        frames = await page.evaluate("milliseconds => window.__frames(milliseconds)", SECONDS * 1000)
        rate = await appending
        tasks = await page.evaluate("window.__longTasks.splice(0)")
    print(f"\nConsole: {title} at {rate:,.0f} events/s for {SECONDS:g} s\n  {told_of(tasks, frames)}")
    table.row(f"console: {title} at {rate:,.0f} events/s", told_of(tasks, frames), "", f"no task over {TASK_MS} ms", met=not tasks)


def append_steadily(history: History) -> float:
    """Appends for a while. Returns the rate that was reached."""
    began, count = time.perf_counter(), 0
    while count < RATE * SECONDS:
        time.sleep(max(0.0, began + count / RATE - time.perf_counter()))
        history.record(IN_ONE_APPEND)
        count += IN_ONE_APPEND
    return count / (time.perf_counter() - began)


async def slider(console: Console, given: argparse.Namespace) -> None:
    """The moves of the slider over a run of 1,000 events, key by key."""
    run_id = await console.long_run(1_000)
    async with console.page(f"/console/runs/{run_id}") as page:
        await page.locator("input[type=range]:enabled, [role=slider]").first.wait_for()
        await page.evaluate(MOVES_SLIDER, ["PageUp", 2])
        took = sorted(await page.evaluate(MOVES_SLIDER, ["ArrowLeft", MOVES]))
    p50, longest = statistics.median(took), took[-1]
    print(
        f"\nConsole: the slider over a run of 1,000 events: p50 {p50:.0f} ms, longest {longest:.0f} ms (reach: p50 ≤ {SLIDER_MS})"
    )
    table.row(
        "console: a move of the slider, 1,000 events",
        f"p50 {p50:.0f} ms",
        f"longest {longest:.0f} ms",
        f"≤ {SLIDER_MS} ms",
        met=p50 <= SLIDER_MS,
    )


async def idle(console: Console, given: argparse.Namespace) -> None:
    """What open consoles cost while nothing happens: each a socket with two subscriptions, as a browser has on a page of a run."""
    cookie = await cookie_of(console.url)
    api = next(pid for pid in tree(os.getpid(), stats()) if part_of(command(pid)) == "api")
    async with AsyncExitStack() as stack:
        for _ in range(given.consoles):
            socket = await stack.enter_async_context(
                connect(
                    f"{console.url.replace('http', 'ws', 1)}/v1/ws", subprotocols=[Subprotocol("tidelog.events.v1")], proxy=None,
                    additional_headers={"Cookie": cookie, "Origin": console.url}, ping_interval=None, close_timeout=2,
                )
            )  # fmt: skip
            for name in "ab":
                wanted = {} if name == "a" else {"types": ["run.started", "run.completed"]}
                await socket.send(json.dumps({"type": "subscribe", "id": name, "filter": wanted}))
        await asyncio.sleep(3)
        before, began = cpu_seconds(api), time.perf_counter()
        await asyncio.sleep(10)
        share = (cpu_seconds(api) - before) / (time.perf_counter() - began)
    print(f"\n{given.consoles} open consoles while nothing happens: the api takes {share:.1%} of a core (reach: ≤ {CORE:.0%})")
    table.row(
        f"console: {given.consoles} open, nothing happens", f"api {share:.1%} of a core", "", f"≤ {CORE:.0%}", met=share <= CORE
    )


async def cookie_of(url: str) -> str:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.post("/v1/sessions", json={"key": KEY}, headers={"Origin": url})
        answer.raise_for_status()
        return answer.headers["set-cookie"].partition(";")[0]


PARTS: dict[str, Callable[[Console, argparse.Namespace], Awaitable[None]]] = {
    "load": load, "long": long, "feed": feed, "slider": slider, "idle": idle,
}  # fmt: skip


async def main(given: argparse.Namespace) -> int:
    failed = []
    async with embedded() as services, async_playwright() as playwright:
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as name:
            os.chmod(name, 0o711)
            with Tidelog(services, Path(name)).up() as url:
                chromium = await launch(playwright)
                for part in given.only or PARTS:
                    try:
                        await PARTS[part](Console(services, url, chromium), given)
                    except Exception as error:  # noqa: BLE001  # the other parts are measured all the same
                        failed.append(part)
                        print(f"\n{part}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
                await chromium.close()
    return 1 if failed else 0


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--consoles", type=int, default=200)
    sys.exit(asyncio.run(main(parser.parse_args())))
