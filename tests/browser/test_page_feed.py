"""The feed: events as they come, a pause that loses nothing, older ones by scrolling, one event as a whole."""

from uuid import UUID

from playwright.async_api import Locator, Page, expect

from tests.browser.browser_kit import NARROW, Browsing, assert_accessible, assert_fits, tab_to
from tests.browser.site_kit import Site
from tests.pace import until

HOSTILE = '<img src=x onerror="window.hurt = true"><script>window.hurt = true</script>'


def rows(page: Page, topic: str = "") -> Locator:
    found = page.get_by_test_id("event-row")
    return found if not topic else page.locator(f'[data-testid="event-row"][data-topic="{topic}"]')


async def positions(page: Page) -> list[int]:
    return [int(text) for text in await rows(page).evaluate_all("all => all.map(one => one.dataset.position)")]


async def scroll_to(page: Page, top: str) -> None:
    await page.get_by_test_id("feed").evaluate(f"feed => {{ feed.scrollTop = {top} }}")


async def is_live(page: Page) -> None:
    await expect(page.get_by_text("live", exact=True)).to_be_visible()


async def test_events_are_shown_as_they_come_and_a_pause_keeps_them(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/feed?type=run.started")
    await is_live(page)
    first = await site.start(agent="greeter")
    await expect(rows(page).filter(has_text=first[-8:])).to_be_visible()
    await page.get_by_role("button", name="Pause").click()
    later = [await site.start(agent="greeter", metadata={"note": HOSTILE}) for _ in range(2)]
    waiting = page.get_by_test_id("feed-waiting")
    await expect(waiting).to_have_attribute("data-count", "2")
    await expect(rows(page).filter(has_text=later[1][-8:])).to_have_count(0)
    await page.get_by_role("button", name="Go on").click()
    for run in later:
        await expect(rows(page).filter(has_text=run[-8:])).to_be_visible()
    await expect(waiting).to_have_count(0)
    assert await page.evaluate("window.hurt") is None


async def test_filters_stand_in_the_address_and_a_slice_is_all_its_types(browser: Browsing, site: Site) -> None:
    run = await site.run("failed")
    page = await browser.open("/console/feed")
    await page.get_by_label("Type", exact=True).fill("run.*")
    await page.keyboard.press("Enter")
    await page.get_by_label("Run", exact=True).fill(run)
    await page.keyboard.press("Enter")
    await expect(rows(page, "run.failed")).to_be_visible()
    topics = set(await rows(page).evaluate_all("all => all.map(one => one.dataset.topic)"))
    assert {"run.started", "run.failed"} <= topics and all(topic.startswith("run.") for topic in topics)
    assert "type=run.*" in page.url and f"run={run}" in page.url
    await page.reload()
    await expect(rows(page, "run.failed")).to_be_visible()
    await page.get_by_role("button", name="Remove run.*").click()
    await expect(rows(page, "agent_run.failed")).to_be_visible()
    await page.get_by_label("Type", exact=True).fill("run.strated")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("run.strated")


async def test_older_events_come_by_scrolling_up_and_stay_in_place(browser: Browsing, site: Site) -> None:
    run = await site.run("long")
    page = await browser.open(f"/console/feed?run={run}")
    await expect(rows(page, "run.completed")).to_be_visible()
    assert await rows(page).count() < 120, "only what is in sight is there"

    async def at_the_beginning() -> bool:
        await scroll_to(page, "0")
        return bool(await rows(page, "run.started").count() == 1)

    await until(at_the_beginning, 30)
    top = await positions(page)
    assert top == sorted(top)
    await scroll_to(page, "feed.scrollHeight")
    await expect(rows(page, "run.completed")).to_be_visible()


async def test_a_time_to_go_to_shows_what_was_then(browser: Browsing, site: Site) -> None:
    run = await site.run("failed")
    started = (await site.client.get_run(UUID(run))).created_at
    await site.ended(agent="greeter")
    page = await browser.open(f"/console/feed?type=run.started&at={started:%Y-%m-%dT%H:%M:%S.%fZ}")
    await expect(rows(page).filter(has_text=run[-8:])).to_be_visible()
    await expect(page.get_by_text("in the past")).to_be_visible()
    await page.get_by_role("button", name="Go on").click()
    await is_live(page)


async def test_an_event_is_opened_and_closed_by_keys_alone(browser: Browsing, site: Site) -> None:
    run = await site.run("failed")
    page = await browser.open(f"/console/feed?run={run}", theme="dark", width=NARROW)
    failed = rows(page, "run.failed")
    await expect(failed).to_be_visible()
    await assert_fits(page)
    await tab_to(page, rows(page).last)
    newest = await page.evaluate("document.activeElement.dataset.position")
    await page.keyboard.press("ArrowUp")
    await page.wait_for_function("newest => (document.activeElement.dataset.position ?? newest) !== newest", arg=newest)
    position = await page.evaluate("document.activeElement.dataset.position")
    await page.keyboard.press("Enter")
    panel = page.get_by_role("region", name=f"Event {position}")
    await expect(panel.get_by_role("link", name="Why it happened")).to_have_attribute(
        "href", f"/console/runs/{run}/events?event={position}"
    )
    await assert_fits(page)
    await assert_accessible(page)
    await page.keyboard.press("Escape")
    await expect(panel).to_have_count(0)
    assert await page.evaluate("document.activeElement.dataset.position") == position


async def test_a_burst_is_shown_whole_with_the_rows_in_sight_alone(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/feed")
    await is_live(page)
    run = await site.ended(agent="counter", input={"steps": 500})
    total = (await site.client.get_run(UUID(run))).event_count
    await expect(rows(page).last).to_have_attribute("data-topic", "run.completed")

    async def all_came() -> bool:
        return int(await page.get_by_test_id("feed-count").get_attribute("data-came") or 0) >= total

    await until(all_came, 30)
    assert await rows(page).count() < 120


async def test_another_tenant_sees_nothing_of_it(browser: Browsing, site: Site) -> None:
    run = await site.run("failed")
    page = await browser.open(f"/console/feed?run={run}", key=await site.tenant())
    await expect(page.get_by_text("No event yet")).to_be_visible()
    await assert_accessible(page)
