"""A run of 100,000 events, and 1,000 events in a second: a page draws what is in sight, keeps a bounded number, and goes on."""

import asyncio

import psycopg
from playwright.async_api import Page, expect

from benchmarks.histories import History, completed_run
from tests.browser.browser_kit import Browsing
from tests.browser.site_kit import Site
from tests.browser.test_every_page import settled
from tests.integration.system_kit import eventually

MANY = 100_000
MOST_ROWS = 150
"""Elements of rows on a page, whatever it has to show."""


async def rows_of(page: Page) -> int:
    return await page.get_by_test_id("event-row").count()


async def test_a_run_of_100_000_events_is_read_from_its_begin_to_its_end(browser: Browsing, site: Site) -> None:
    run_id = str(await asyncio.to_thread(completed_run, site.database_url, MANY))

    async def read() -> bool:
        run = await site.client.get_run(run_id)
        return run.status == "completed"

    await eventually(read, "the run", 120)
    page = await browser.open(f"/console/runs/{run_id}/events")
    rows = page.get_by_test_id("event-row")
    await expect(rows.filter(has_text="run.started").first).to_be_visible()
    grid = page.get_by_role("grid")
    await expect(grid).to_have_attribute("aria-rowcount", str(MANY))
    await rows.first.focus()
    await page.keyboard.press("End")
    await expect(rows.filter(has_text="run.completed").last).to_be_visible()
    assert await rows_of(page) < MOST_ROWS
    heap = await page.evaluate("performance.memory.usedJSHeapSize")
    assert heap < 100e6, f"{heap:,} bytes"


async def test_a_thousand_events_in_a_second_are_all_told_and_a_bounded_number_is_drawn(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/feed")
    await settled(page)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open")
    count = 3_000

    def append() -> None:
        with psycopg.Connection.connect(site.database_url, autocommit=True) as connection:
            history = History(connection)
            history.begin()
            for _ in range(count // 20):
                history.record(20)
            history.end()

    await asyncio.to_thread(append)

    async def all_came() -> bool:
        return int(str(await page.get_by_test_id("feed-count").get_attribute("data-came"))) >= count

    await eventually(all_came, "all events")
    await expect(page.get_by_test_id("event-row").filter(has_text="run.completed").last).to_be_visible()
    assert await rows_of(page) < MOST_ROWS
