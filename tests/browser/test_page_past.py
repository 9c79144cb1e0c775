"""The past of a run in the console: the slider, its events, why they happened, two runs side by side, messages."""

import re

from playwright.async_api import Page, expect

from tests.browser.browser_kit import NARROW, Browsing, assert_accessible, assert_fits
from tests.browser.site_kit import Site

LONG = 1_000
"""Steps of the run `long`; each is an event."""


async def total_of(page: Page) -> int:
    return int(await page.get_by_test_id("events").get_attribute("aria-rowcount") or 0)


async def test_the_slider_shows_the_run_as_it_was_event_by_event(browser: Browsing, site: Site) -> None:
    run_id = await site.run("failed")
    page = await browser.open(f"/console/runs/{run_id}/events")
    await expect(page.get_by_test_id("event-row").first).to_have_attribute("data-topic", "run.started")
    total = await total_of(page)
    slider, shown = page.get_by_role("slider", name="Position"), page.get_by_test_id("shown-position")
    await slider.focus()
    await page.keyboard.press("Home")
    await expect(page.get_by_test_id("events")).to_have_attribute("aria-rowcount", "1")
    await expect(page.get_by_role("note", name="The past")).to_be_visible()
    await expect(page).to_have_url(re.compile(r"[?&]at=\d+"))
    for _ in range(3):
        await page.keyboard.press("ArrowRight")
    await expect(page.get_by_test_id("events")).to_have_attribute("aria-rowcount", "4")
    position = await page.get_by_test_id("event-row").nth(3).get_attribute("data-position")
    await expect(shown).to_have_attribute("data-position", position or "")
    await page.reload()
    await expect(page.get_by_test_id("events")).to_have_attribute("aria-rowcount", "4")
    await page.get_by_label("Go to a position or time").fill("#2")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("events")).to_have_attribute("aria-rowcount", "2")
    await page.get_by_role("button", name="Back to now").click()
    await expect(page.get_by_test_id("events")).to_have_attribute("aria-rowcount", str(total))
    await expect(page).not_to_have_url(re.compile(r"[?&]at="))


async def test_a_fast_hand_on_the_slider_asks_for_few_moments(browser: Browsing, site: Site) -> None:
    run_id = await site.run("long")
    page = await browser.open(f"/console/runs/{run_id}/events")
    await expect(page.get_by_test_id("event-row").first).to_have_attribute("data-topic", "run.started")
    total, asked = await total_of(page), list[str]()
    page.on("request", lambda request: asked.append(request.url) if f"/v1/runs/{run_id}?as_of=" in request.url else None)
    await page.get_by_role("slider", name="Position").focus()
    for _ in range(100):
        await page.keyboard.press("ArrowLeft")
    await expect(page.get_by_test_id("events")).to_have_attribute("aria-rowcount", str(total - 99))
    assert len(set(asked)) == len(asked) < 100


async def test_an_event_says_all_and_why_it_happened(browser: Browsing, site: Site) -> None:
    run_id = await site.run("failed")
    page = await browser.open(f"/console/runs/{run_id}/events?types=agent_run.failed")
    row = page.get_by_test_id("event-row")
    await expect(row).to_have_count(1)
    await row.focus()
    await page.keyboard.press("Enter")
    why = page.get_by_test_id("why")
    await expect(why.get_by_test_id("cause").first).to_contain_text("This event")
    await expect(why.get_by_test_id("request")).to_contain_text("Asked for")
    await expect(page.get_by_role("region", name="data of the event")).to_contain_text("ValueError")
    await expect(page.get_by_test_id("effect").first).to_be_visible()
    await assert_accessible(page)
    first = why.get_by_test_id("cause").last
    position = await first.get_attribute("data-position")
    await first.get_by_role("button").first.click()
    await expect(page).to_have_url(re.compile(rf"[?&]event={position}\b"))
    await expect(page.get_by_role("heading", name="run.started")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("why")).to_have_count(0)


async def test_any_event_of_a_long_run_is_found(browser: Browsing, site: Site) -> None:
    run_id = await site.run("long")
    page = await browser.open(f"/console/runs/{run_id}/events", theme="dark", width=NARROW)
    events = page.get_by_test_id("events")
    await expect(page.get_by_test_id("event-row").first).to_have_attribute("data-topic", "run.started")
    assert await total_of(page) > LONG
    assert await page.get_by_test_id("event-row").count() < 100
    await page.get_by_test_id("event-row").first.focus()
    await page.keyboard.press("End")
    await expect(page.get_by_test_id("event-row").last).to_have_attribute("data-topic", "run.completed")
    await page.get_by_label("Find").fill("count-777 recorded")
    await expect(events).to_have_attribute("aria-rowcount", "1")
    await expect(page.get_by_test_id("event-row")).to_contain_text("recorded")
    await assert_fits(page)
    await assert_accessible(page)


async def test_a_fork_beside_its_run(browser: Browsing, site: Site) -> None:
    fork = await site.run("fork")
    page = await browser.open(f"/console/runs/{fork}/compare")
    await page.get_by_test_id("suggestion").filter(has_text="forked from").click()
    await expect(page.get_by_test_id("pair-row").first).to_be_visible()
    await expect(page.get_by_role("heading", name="Steps and calls")).to_be_visible()
    await assert_accessible(page)
    await assert_fits(page)


async def test_two_moments_of_a_run_differ_first_at(browser: Browsing, site: Site) -> None:
    run_id = await site.run("failed")
    page = await browser.open(f"/console/runs/{run_id}/compare")
    await page.get_by_test_id("suggestion").filter(has_text="before the first failure").click()
    await expect(page.get_by_test_id("first-difference")).to_be_visible()
    await expect(page.get_by_test_id("change-row").first).to_be_visible()


async def test_messages_and_shared_values(browser: Browsing, site: Site) -> None:
    run_id = await site.run("messages")
    page = await browser.open(f"/console/runs/{run_id}/messages")
    await expect(page.get_by_test_id("message-row")).to_have_count(3)
    await page.get_by_test_id("message-row").first.click()
    await expect(page.get_by_role("region", name="body of the message")).to_contain_text("one thing after the other")
    await page.get_by_role("button", name="History of said").click()
    await expect(page.get_by_test_id("shared-value")).to_contain_text("version 3")
    await assert_accessible(page)
    await assert_fits(page)
