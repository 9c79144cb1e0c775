"""The page of a run: why it failed, what can be done about it, and how it looks."""

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.browser_kit import NARROW, WIDE, Browsing, Theme, assert_accessible, assert_fits, tab_to
from tests.browser.site_kit import Site


async def act(page: Page, name: str, reason: str, **fields: str) -> None:
    """Does an act of the page, by its button and its dialog."""
    await page.get_by_role("button", name=name, exact=True).first.click()
    dialog = page.get_by_role("dialog", name=name)
    for label, value in fields.items():
        await dialog.get_by_label(label.replace("_", " ")).fill(value)
    await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button", name=name, exact=True).click()
    await expect(dialog).to_have_count(0)


async def until(page: Page, status: str) -> None:
    await expect(page.get_by_test_id("run-status")).to_have_attribute("data-status", status)


def step(page: Page, key: str) -> Locator:
    return page.get_by_test_id("step-node").and_(page.locator(f'[data-step="{key}"]'))


async def test_why_a_run_failed_and_a_fork_from_before(browser: Browsing, site: Site) -> None:
    run_id = await site.run("failed")
    page = await browser.open(f"/console/runs/{run_id}")
    box = page.get_by_test_id("error").first
    await expect(box).to_contain_text("ValueError")
    await expect(box).to_contain_text("gallery.py:")
    await expect(box.get_by_test_id("traceback")).to_contain_text("number_in")
    await page.get_by_role("link", name="What it had done").click()
    await expect(page.get_by_test_id("step-panel").get_by_test_id("call-row")).to_have_count(1)
    await act(page, "Fork before this step", "once more")
    await page.wait_for_url(lambda url: run_id not in url)
    fork_id = page.url.split("/runs/")[1].split("/")[0]
    await expect(page.get_by_text("Forked from")).to_be_visible()
    fork = await site.client.get_run(fork_id)
    assert fork.forked_from is not None and str(fork.forked_from.run_id) == run_id


async def test_a_run_is_paused_resumed_signalled_and_seen_to_end(browser: Browsing, site: Site) -> None:
    run_id = await site.fresh("waiting")
    page = await browser.open(f"/console/runs/{run_id}")
    await expect(page.get_by_test_id("waits")).to_contain_text("signal")
    await act(page, "Pause", "lunch")
    await until(page, "paused")
    await expect(page.get_by_text("The run is paused.")).to_be_visible()
    await act(page, "Resume", "lunch is over")
    await until(page, "running")
    await act(page, "Send signal", "go on", Name_of_the_signal="go")
    await until(page, "completed")


async def test_a_failed_run_is_retried_with_a_reason(browser: Browsing, site: Site) -> None:
    run_id = await site.fresh("failed")
    page = await browser.open(f"/console/runs/{run_id}")
    await act(page, "Retry", "the service is back")
    await expect(page.get_by_text("1×")).to_be_visible()
    await until(page, "failed")
    assert (await site.client.get_run(run_id)).retries == 1


async def test_the_plan_is_a_graph_that_a_keyboard_reaches(browser: Browsing, site: Site) -> None:
    page = await browser.open(f"/console/runs/{await site.run('degraded')}")
    await expect(page.get_by_test_id("step-node")).to_have_count(6)
    await expect(step(page, "second-opinion")).to_have_attribute("data-status", "failed")
    await expect(page.get_by_text("was completed without")).to_be_visible()
    await tab_to(page, step(page, "skipped"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("step-panel")).to_contain_text("its condition was false: size(input.topic) > 100")
    await page.get_by_role("button", name="List").click()
    await expect(page.get_by_test_id("step-row")).to_have_count(6)


async def test_in_the_past_only_a_fork_begins(browser: Browsing, site: Site) -> None:
    run = await site.client.get_run(await site.run("waiting"))
    page = await browser.open(f"/console/runs/{run.run_id}?at={run.position}")
    await expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    await expect(page.get_by_role("button", name="Fork from here")).to_be_enabled()
    await expect(page.get_by_text("You look at the past").first).to_be_visible()


async def test_another_tenants_run_is_not_there(browser: Browsing, site: Site) -> None:
    browser.allow("404")
    page = await browser.open(f"/console/runs/{await site.run('failed')}", key=await site.tenant())
    await expect(page.get_by_role("alert")).to_contain_text("not-found")


PARTS = ("overview?step=breaker", "timeline", "calls", "journal", "logs", "children")


@pytest.mark.parametrize(("theme", "width"), [("light", WIDE), ("dark", NARROW)])
async def test_every_part_is_accessible_and_fits(browser: Browsing, site: Site, theme: Theme, width: int) -> None:
    page = await browser.open(theme=theme, width=width)
    run_id = await site.run("failed")
    for part in PARTS:
        await page.goto(f"/console/runs/{run_id}/{part}")
        await expect(page.get_by_test_id("run-status")).to_be_visible()
        await expect(page.get_by_text("Loading")).to_have_count(0)
        await assert_accessible(page)
        await assert_fits(page)
