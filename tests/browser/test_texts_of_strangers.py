"""Texts of agents, tools and callers are texts: they run nothing, move nothing, and break no page, in whatever field they come."""

import pytest
from playwright.async_api import expect

from tests.browser.browser_kit import NARROW, Browsing, assert_fits
from tests.browser.site_kit import Site
from tests.browser.test_every_page import PARTS, settled

SCRIPT = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>\"'><iframe srcdoc='<script>alert(4)</script>'>"
    "[x](javascript:alert(5)) javascript:alert(6) {{alert(7)}} ${alert(8)} </textarea><style>*{display:none}</style>"
)
TURNED = "\u202egnihton \u2066\u2067x\u2069 مرحبا \u200f\u200b\u0301\u0301\u0301 \ufeff🦑\U0001f469\u200d\U0001f680"
HOSTILE = {
    "scripts": SCRIPT,
    "signs that turn the text": TURNED,
    "long without a blank": "W" * 50_000,
    "lines": "line\r\n" * 5_000,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_a_run_says_is_a_text_in_every_part_of_its_page(browser: Browsing, site: Site, name: str) -> None:
    text = HOSTILE[name]
    run_id = await site.ended(
        agent="teller", input={"said": text, "fails": True}, metadata={"said": text[:200], text[:40].strip(): "1"},
    )  # fmt: skip
    page = await browser.open(f"/console/runs/{run_id}", width=NARROW)
    await settled(page)
    await assert_fits(page)
    parts = [str(await link.get_attribute("href")) for link in await page.locator(PARTS).all()]
    assert len(parts) > 1
    for place in [*parts, "/console/runs", "/console/feed"]:
        await page.goto(place)
        await settled(page)
        await assert_fits(page)
    await expect(page.locator("main script, main iframe, main style, main img")).to_have_count(0)


async def test_what_waits_for_a_person_is_a_text(browser: Browsing, site: Site) -> None:
    run_id = await site.until_event("approval.requested", agent="secretary", input={"to": SCRIPT + TURNED})
    page = await browser.open(f"/console/inbox/{await site.approval_of(run_id)}", width=NARROW)
    await settled(page)
    await page.get_by_text("alert(1)").first.wait_for()
    await assert_fits(page)


async def test_what_stands_in_the_address_is_a_text(browser: Browsing) -> None:
    browser.allow("400", "404", "422")
    said = "%3Cscript%3Ealert(1)%3C/script%3E%22%27"
    for place in (
        f"/console/runs/{said}", f"/console/runs?agent={said}&status={said}&metadata={said}", f"/console/agents/{said}",
        f"/console/tools/{said}", f"/console/inbox/{said}", f"/console/feed?type={said}&run={said}&at={said}", f"/console/{said}",
        f"/console/runs?at={said}#{said}",
    ):  # fmt: skip
        page = await browser.open(place)
        await settled(page)
        await page.close()
