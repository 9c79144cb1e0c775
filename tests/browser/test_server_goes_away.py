"""The server is killed and comes back: pages say so, go on by themselves, and miss nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio
from playwright.async_api import expect

from adapters.embedded import EmbeddedServices
from domain.tenants import DEFAULT_TENANT_ID
from tests.browser.browser_kit import Browsing
from tests.browser.conftest import closed
from tests.browser.site_kit import Site, running_site
from tests.browser.test_every_page import settled

if TYPE_CHECKING:
    from playwright.async_api import Browser

WHILE_IT_IS_AWAY = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "WebSocket connection", "502", "503", "ERR_ABORTED")


@pytest_asyncio.fixture(loop_scope="session")
async def own_site(services: EmbeddedServices, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(services, tmp_path) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="session")
async def own_browser(chromium: "Browser", own_site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Browsing]:
    browsing = Browsing(chromium, own_site.url, own_site.key)
    try:
        yield browsing
    finally:
        await closed(browsing, request.node)


async def test_pages_say_that_it_is_away_and_go_on_without_a_gap(own_browser: Browsing, own_site: Site) -> None:
    own_browser.allow(*WHILE_IT_IS_AWAY)
    await own_site.fresh("completed")
    feed = await own_browser.open("/console/feed")
    runs = await own_browser.open("/console/runs", context=feed.context)
    for page in (feed, runs):
        await settled(page)
        await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open")
    await expect(runs.get_by_test_id("run-row")).to_have_count(1)
    head = (await events_after(own_site, 0))[-1]
    await own_site.fresh("completed")
    await own_site.server.kill()
    for page in (feed, runs):
        await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "lost")
        await expect(page.get_by_text("cannot be reached").first).to_be_visible()
    await own_site.server.start()
    await own_site.fresh("completed")
    for page in (feed, runs):
        await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open", timeout=60_000)
    await own_site.fresh("completed")

    await expect(runs.get_by_test_id("run-row")).to_have_count(4)
    came = await events_after(own_site, head)
    await expect(feed.get_by_test_id("feed-count")).to_have_attribute("data-came", str(len(came)))
    shown = await feed.get_by_test_id("event-row").evaluate_all("rows => rows.map(row => Number(row.dataset.position))")
    assert shown == (await events_after(own_site, 0))[-len(shown) :]


async def events_after(site: Site, position: int) -> list[int]:
    """The positions of the tenant's events, as they are in the log."""
    async with await psycopg.AsyncConnection.connect(site.database_url) as connection:
        found = await connection.execute(
            "SELECT notification_id FROM event WHERE tenant_id = %s AND notification_id > %s ORDER BY 1",
            (DEFAULT_TENANT_ID, position),
        )
        return [row[0] for row in await found.fetchall()]
