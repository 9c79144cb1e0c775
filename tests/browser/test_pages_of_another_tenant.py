"""Of what another tenant has, a page shows the same as of what is not there at all."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.browser_kit import Browsing
from tests.browser.site_kit import Site
from tests.browser.test_every_page import PARTS, settled

NOTHING = "00000000-0000-7000-8000-000000000000"


async def told(page: Page, place: str, id: str) -> str:
    """What the page shows, without the id that stands in the address."""
    await page.goto(place.format(id))
    await settled(page)
    shown = (await page.locator("main").inner_text()).replace(id, "ID")
    return re.sub(r"\btrace [0-9a-f]{32}\b", "trace", shown)


async def places_of_a_run(browser: Browsing, run_id: str) -> list[str]:
    page = await browser.open(f"/console/runs/{run_id}")
    await settled(page)
    found = [str(await link.get_attribute("href")) for link in await page.locator(PARTS).all()]
    return [place.replace(run_id, "{}") for place in found]


async def test_a_run_of_another_tenant_is_shown_as_one_that_is_not_there(browser: Browsing, site: Site) -> None:
    browser.allow("404")
    run_id, key = await site.run("failed"), await site.tenant()
    page = await browser.open(key=key)
    for place in [*await places_of_a_run(browser, run_id), "/console/runs/{}?at=5"]:
        shown = await told(page, place, run_id)
        assert shown == await told(page, place, NOTHING)
        assert "breaker" not in shown and "ValueError" not in shown
        await expect(page.get_by_role("alert")).not_to_have_count(0)


async def test_lists_have_nothing_of_another_tenant(browser: Browsing, site: Site) -> None:
    for kind in ("failed", "approval", "ambiguous"):
        await site.run(kind)
    page = await browser.open("/console/runs", key=await site.tenant())
    for place in ("runs", "inbox", "feed", "agents", "tools", "workers"):
        await page.goto(f"/console/{place}")
        await settled(page)
        shown = await page.locator("body").inner_text()
        for name in ("breaker", "secretary", "mail.send", "card.charge"):
            assert name not in shown, place


@pytest.mark.parametrize("place", ["/console/agents/{}", "/console/tools/{}"])
async def test_agents_and_tools_of_another_tenant_are_not_there(browser: Browsing, site: Site, place: str) -> None:
    browser.allow("404")
    page = await browser.open(key=await site.tenant())
    for name in ("secretary", "mail.send"):
        assert await told(page, place, name) == await told(page, place, "nobody.has")


async def test_an_approval_of_another_tenant_is_not_there(browser: Browsing, site: Site) -> None:
    browser.allow("404")
    approval_id = await site.approval_of(await site.run("approval"))
    page = await browser.open(key=await site.tenant())
    place = "/console/inbox/{}"
    assert await told(page, place, approval_id) == await told(page, place, NOTHING)
