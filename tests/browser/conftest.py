"""Fixtures of the tests in a browser: one Chromium and one server for all tests of a process, pages for each test.

What needs Playwright is imported where it is used: pytest reads this file where Playwright is not installed, too.
"""

import re
import shutil
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.browser.chromium import NoChromium, executable
from tests.browser.site_kit import Site, running_site

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.browser.browser_kit import Browsing

HERE = Path(__file__).parent
FAILURES = HERE.parents[1] / ".browser" / "failures"
ASKED_FOR = "browser"
_failed = pytest.StashKey[bool]()


def asked(config: pytest.Config) -> bool:
    return re.search(rf"(?<!not ){ASKED_FOR}", config.option.markexpr) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without `-m browser` the files of the tests are not even read."""
    return True if collection_path.name.startswith("test_") and not asked(config) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(ASKED_FOR)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Without a browser the run ends here, with an error: tests that are skipped look like tests that pass."""
    if not asked(session.config):
        return
    try:
        executable()
    except NoChromium as missing:
        pytest.exit(str(missing), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator["Browser"]:
    from playwright.async_api import async_playwright

    from tests.browser.browser_kit import launch

    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The server for all tests that leave it as it is: it is never stopped, and each test may add runs."""
    async with running_site(services, tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: "Browser", site: Site, request: pytest.FixtureRequest) -> AsyncIterator["Browsing"]:
    """The browser, for one test. Nobody is signed in before the test opens a page, by default as the owner of the site."""
    from tests.browser.browser_kit import Browsing

    browsing = Browsing(chromium, site.url, site.key)
    try:
        yield browsing
    finally:
        await closed(browsing, request.node)


async def closed(browsing: "Browsing", item: pytest.Item) -> None:
    """Ends the pages of a test. Raises AssertionError if they did what no page may do."""
    problems = browsing.watched.problems()
    folder = FAILURES / re.sub(r"[^\w.-]+", "-", item.nodeid.removeprefix("tests/browser/"))
    shutil.rmtree(folder, ignore_errors=True)
    failed = problems or item.stash.get(_failed, False)
    if failed:
        folder.mkdir(parents=True)
    await browsing.close(folder if failed else None)
    if failed:
        print(f"what the pages looked like and did: {folder} (a trace opens with `playwright show-trace`)")
    assert not problems, "\n".join(problems)


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: "Browsing") -> "Page":
    """The console's first page, light and wide, signed in as the owner of the site."""
    return await browser.open()
