"""What holds for every page: people can use it, in both themes and on a phone, and a link to it opens it."""

import pytest
from playwright.async_api import Page, expect

from tests.browser.browser_kit import NARROW, WIDE, Browsing, assert_accessible, assert_fits
from tests.browser.site_kit import Site

PAGES = {
    "runs": "/console/runs",
    "runs that are failed": "/console/runs?status=failed",
    "runs that are none": "/console/runs?agent=nobody",
    "inbox": "/console/inbox",
    "feed": "/console/feed",
    "agents": "/console/agents",
    "an agent": "/console/agents/secretary",
    "tools": "/console/tools",
    "a tool": "/console/tools/mail.send",
    "workers": "/console/workers",
    "health": "/console/health",
    "no page": "/console/nowhere",
}
OF_RUNS = ("failed", "degraded", "approval", "family", "waiting")
PARTS = 'nav[aria-label="Parts of the run"] a'


async def settled(page: Page) -> None:
    """Waits until the page shows its data."""
    await expect(page.locator("main[aria-busy=true]")).to_have_count(0)
    await expect(page.get_by_test_id("loading")).to_have_count(0)
    await expect(page.locator("main")).not_to_be_empty()


async def assert_good(page: Page) -> None:
    """In both themes, wide and narrow. The page is asked for once: a page that looks at its window only when it opens is wrong."""
    await settled(page)
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        for width in (WIDE, NARROW):
            await page.set_viewport_size({"width": width, "height": 800})
            await assert_fits(page)
            await assert_accessible(page)


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_can_be_used_in_both_themes_and_on_a_phone(browser: Browsing, site: Site, name: str) -> None:
    await site.run("failed")
    page = await browser.open(PAGES[name])
    await assert_good(page)
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)


@pytest.mark.parametrize("kind", OF_RUNS)
async def test_the_page_of_a_run_can_be_used_in_both_themes_and_on_a_phone(browser: Browsing, site: Site, kind: str) -> None:
    page = await browser.open(f"/console/runs/{await site.run(kind)}")
    await assert_good(page)
    if kind != "failed":
        return
    for place in [await link.get_attribute("href") for link in await page.locator(PARTS).all()][1:]:
        await page.set_viewport_size({"width": WIDE, "height": 800})
        await page.goto(str(place))
        await assert_good(page)


async def test_signing_in_can_be_used_in_both_themes_and_on_a_phone(browser: Browsing) -> None:
    browser.allow("401")  # who is signed in? nobody
    await assert_good(await browser.open(key=None))


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_is_that_of_its_address(browser: Browsing, name: str) -> None:
    """Whoever opens a link, reloads, or goes back sees the same."""
    page = await browser.open(PAGES[name])
    await settled(page)
    address, heading = page.url, await page.locator("main").get_by_role("heading", level=1).all_inner_texts()
    await page.reload()
    await settled(page)
    assert page.url == address
    assert await page.locator("main").get_by_role("heading", level=1).all_inner_texts() == heading
