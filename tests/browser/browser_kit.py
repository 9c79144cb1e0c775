"""Pages in a real Chromium: how a test opens one, and what no page may do.

A test fails if one of its pages writes an error or a warning to the console, throws, breaks the content security policy, opens a
dialog, asks another host, or crashes. A test that causes such a thing on purpose says so before: `browser.allow("401")`.
"""

import re
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Playwright,
    Request,
    WebError,
    expect,
)

from tests.browser.chromium import FLAGS, executable
from tests.pace import slowness_lately

Theme = Literal["light", "dark"]
ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
WIDE, NARROW = 1280, 360
"""Pixels. The narrow one is that of a small phone."""
PATIENCE_S = 15.0
"""Seconds of an idle machine for what a page does."""
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
NOTES_LONG_TASKS = """
window.__longTasks = [];
new PerformanceObserver(list => list.getEntries().forEach(task => window.__longTasks.push(task.duration)))
    .observe({ type: 'longtask', buffered: true });
"""


async def launch(playwright: Playwright) -> Browser:
    """A Chromium without a window. Raises NoChromium."""
    return await playwright.chromium.launch(executable_path=executable(), args=[*FLAGS])


@dataclass
class Watched:
    """What the pages of one test did that no page may do."""

    url: str
    """The only server that they may ask."""
    allowed: list[re.Pattern[str]] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("request", self._request)
        context.on("page", lambda page: page.on("crash", lambda _: self._note("a page crashed")))

    def problems(self) -> list[str]:
        return [one for one in self.found if not any(pattern.search(one) for pattern in self.allowed)]

    def _note(self, what: str) -> None:
        self.found.append(what)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            place = message.location
            self._note(f"console {message.type}: {message.text} ({place.get('url', '')}:{place.get('lineNumber', 0)})")

    def _error(self, error: WebError) -> None:
        self._note(f"thrown: {error.error}")

    def _request(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme not in ("data", "blob") and f"{asked.scheme}://{asked.netloc}" != self.url:
            self._note(f"asked another host: {request.url}")

    async def dialog(self, dialog: Dialog) -> None:
        self._note(f"opened a dialog: {dialog.type}: {dialog.message}")
        await dialog.dismiss()


class Browsing:
    """The browser, for one test. Its pages are closed when the test is over."""

    def __init__(self, chromium: Browser, url: str, key: str | None) -> None:
        self.chromium = chromium
        self.url = url
        self.key = key
        self.watched = Watched(url)
        self.contexts: list[BrowserContext] = []
        self._opened = AsyncExitStack()

    def allow(self, *patterns: str) -> None:
        """The test causes what these regular expressions describe, for instance the 401 of a wrong key."""
        self.watched.allowed += map(re.compile, patterns)

    async def context(
        self, *, key: str | None = "", theme: Theme = "light", width: int = WIDE, height: int = 800, scripts: Iterable[str] = (),
        **options: Any,
    ) -> BrowserContext:  # fmt: skip
        """A browser of its own: cookies, storage, workers. `key`: None for nobody who is signed in; by default that of the site."""
        made = await self.chromium.new_context(
            base_url=self.url, color_scheme=theme, viewport={"width": width, "height": height}, **options
        )
        self._opened.push_async_callback(made.close)
        self.contexts.append(made)
        patience_ms = PATIENCE_S * 1000 * await slowness_lately()
        made.set_default_timeout(patience_ms)
        expect.set_options(timeout=patience_ms)
        self.watched.watch(made)
        made.on("dialog", self.watched.dialog)
        for script in (NOTES_LONG_TASKS, *scripts):
            await made.add_init_script(script)
        await made.tracing.start(screenshots=False, snapshots=True)
        if key is not None:
            await sign_in(made, self.url, key or self.key or "")
        return made

    async def open(self, path: str = "/console/", *, context: BrowserContext | None = None, **options: Any) -> Page:
        """A page of the site. `context`: a tab beside other pages; else a browser of its own, with the options of `context`."""
        page = await (context or await self.context(**options)).new_page()
        await page.goto(path)
        return page

    async def close(self, keep: Path | None) -> None:
        """Closes all pages. `keep`: the folder for what they looked like and did, because the test failed."""
        for number, context in enumerate(self.contexts):
            if keep is None:
                continue
            for place, page in enumerate(context.pages):
                await page.screenshot(path=keep / f"page-{number}-{place}.png", full_page=True)
            await context.tracing.stop(path=keep / f"trace-{number}.zip")
        await self._opened.aclose()


async def sign_in(context: BrowserContext, url: str, key: str) -> None:
    """Signs the browser in, as the console's form does."""
    answer = await context.request.post(f"{url}/v1/sessions", data={"key": key}, headers={"Origin": url})
    assert answer.ok, f"{answer.status} {await answer.text()}"


# --- accessibility ------------------------------------------------------------------------------------------------------------


async def axe_findings(page: Page, *, without: Iterable[str] = ()) -> list[str]:
    """What axe-core finds on the page as it is now, one line for each element. `without`: names of rules that are left out."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(AXE.read_text("utf-8"))  # by the protocol of the browser, which no policy of the page refuses
    rules = {rule: {"enabled": False} for rule in without}
    found = await page.evaluate(
        "options => axe.run(document, options)",
        {"runOnly": {"type": "tag", "values": RULES}, "rules": rules, "resultTypes": ["violations"]},
    )
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:200]}\n    {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


async def assert_accessible(page: Page, *, without: Iterable[str] = ()) -> None:
    found = await axe_findings(page, without=without)
    assert not found, f"{page.url}:\n" + "\n".join(found)


async def assert_fits(page: Page) -> None:
    """The page is no wider than its window: nobody has to scroll sideways to read it."""
    wide, window = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= window, f"{page.url} is {wide} pixels wide in a window of {window}"


async def tab_to(page: Page, target: Locator, *, most: int = 150, back: bool = False) -> None:
    """Presses Tab until the element has the focus, and looks whether the focus can be seen there. Raises AssertionError."""
    for _ in range(most):
        await page.keyboard.press("Shift+Tab" if back else "Tab")
        if await target.evaluate("element => element === document.activeElement"):
            break
    else:
        raise AssertionError(f"Tab did not reach {target} within {most} times")
    seen = await target.evaluate(
        "element => { const style = getComputedStyle(element);"
        " return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none' }"
    )
    assert seen, f"nobody sees that {target} has the focus"


async def long_tasks(page: Page) -> list[float]:
    """The milliseconds of each task of the page's thread that took longer than 50, since the page began or was asked last."""
    return list(await page.evaluate("window.__longTasks.splice(0)"))
