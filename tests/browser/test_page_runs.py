"""The list of runs, what is done to many of them, and the form that starts one, in a browser against the real server."""

import json
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.browser_kit import NARROW, Browsing, assert_accessible, assert_fits
from tests.browser.site_kit import Site
from tests.integration.sdk_kit import end_of

ORDERS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "description": "Who is greeted"},
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name"],
}


def row(page: Page, run_id: str) -> Locator:
    return page.locator(f'[data-testid="run-row"][data-run-id="{run_id}"]')


async def test_new_runs_and_their_ends_are_seen_at_once(site: Site, browser: Browsing) -> None:
    page = await browser.open("/console/runs")
    run_id = await site.until_event("agent_run.wait_started", agent="waiter")
    await expect(row(page, run_id)).to_have_attribute("data-status", "running")
    await site.client.signal_run(UUID(run_id), "go", 1)
    await expect(row(page, run_id)).to_have_attribute("data-status", "completed")


async def test_filters_are_in_the_address_and_kept_by_name(site: Site, browser: Browsing) -> None:
    failed, completed = await site.run("failed"), await site.run("completed")
    page = await browser.open("/console/runs")
    await expect(row(page, completed)).to_be_visible()
    await page.get_by_role("button", name="Failed").click()
    await page.get_by_role("button", name="Cancelled").click()
    await page.get_by_label("Agent").fill("breaker")
    await page.get_by_label("Metadata").fill("customer=acme")
    await page.get_by_label("Metadata").press("Enter")
    await expect(row(page, completed)).to_have_count(0)
    await expect(row(page, failed)).to_be_visible()
    await expect(page).to_have_url(f"{site.url}/console/runs?status=failed%2Ccancelled&agent=breaker&metadata=customer%3Dacme")

    await page.get_by_role("button", name="Save as").click()
    await page.get_by_label("Name of these filters").fill("broken")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_role("button", name="Clear all filters").click()
    await expect(row(page, completed)).to_be_visible()
    await page.reload()
    await page.get_by_label("Saved filters").select_option("broken")
    await expect(row(page, completed)).to_have_count(0)
    await page.go_back()
    await expect(row(page, completed)).to_be_visible()


async def test_picked_runs_are_cancelled_with_a_reason(site: Site, browser: Browsing) -> None:
    ids = [await site.fresh("waiting"), await site.fresh("waiting")]
    page = await browser.open("/console/runs?status=running")
    for one in ids:
        await row(page, one).get_by_role("checkbox").check()
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("dialog").get_by_label("Reason").fill("nobody needs them")
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("status").filter(has_text="2 runs were told")).to_be_visible()
    for one in ids:
        await expect(row(page, one)).to_have_count(0)
        assert (await site.client.get_run(UUID(one))).status == "cancelled"


async def test_all_that_match_are_told_in_bulk(site: Site, browser: Browsing) -> None:
    ids = [await site.until_event("agent_run.wait_started", agent="waiter", metadata={"batch": "seven"}) for _ in range(2)]
    page = await browser.open("/console/runs?metadata=batch%3Dseven&status=running")
    await expect(page.get_by_test_id("run-row")).to_have_count(2)
    await page.get_by_role("button", name="All that match").click()
    await page.get_by_role("button", name="Signal", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("status")).to_contain_text("2 runs")
    await dialog.get_by_label("Name of the signal").fill("go")
    await dialog.get_by_label("Payload as JSON").fill('{"n": 7}')
    await dialog.get_by_label("Reason").fill("all of them")
    await dialog.get_by_role("button", name="Signal").click()
    await expect(page.get_by_role("region", name="Bulk action")).to_contain_text("2 of 2 runs")
    for one in ids:
        assert (await end_of(site.client, UUID(one))).result == {"n": 7}


async def test_a_run_is_started_by_the_form_of_its_workflow(site: Site, browser: Browsing) -> None:
    plan = {"steps": [{"key": "greet", "agent": "greeter"}]}
    await site.client.publish_workflow("orders", {"parameters": ORDERS, "plan": plan, "description": "Greets."})
    page = await browser.open("/console/runs")
    await page.get_by_role("link", name="Start a run").click()
    await page.get_by_label("What runs").select_option("A workflow")
    await page.get_by_label("Workflow", exact=True).fill("orders")
    start = page.get_by_role("button", name="Start", exact=True)
    await expect(start).to_be_disabled()
    await page.get_by_label("name", exact=True).fill("Ada")
    await page.get_by_label("count", exact=True).fill("100")
    await expect(page.get_by_text("must be at most 99")).to_be_visible()
    await page.get_by_label("count", exact=True).fill("7")
    await page.get_by_role("button", name="Add to tags").click()
    await page.get_by_label("tags[0]", exact=True).fill("new")
    await assert_accessible(page)
    await start.click()
    await page.wait_for_url("**/console/runs/0*")
    run = await end_of(site.client, UUID(page.url.rsplit("/", 1)[1]))
    assert (run.input, run.result) == ({"name": "Ada", "count": 7, "tags": ["new"]}, {"hello": "Ada"})


async def test_several_agents_at_the_same_time(site: Site, browser: Browsing) -> None:
    page = await browser.open("/console/runs?start")
    await page.get_by_label("What runs").select_option("Agents, at the same time")
    await page.get_by_label("Agent 1", exact=True).fill("greeter")
    await page.get_by_role("button", name="Add an agent").click()
    await page.get_by_label("Agent 2", exact=True).fill("tell-tale")
    await page.get_by_label("Input as JSON").fill(json.dumps({"name": "Ada"}))
    browser.allow("404")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("tell-tale")
    await page.get_by_label("Agent 2", exact=True).fill("rival")
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url("**/console/runs/0*")
    assert (await end_of(site.client, UUID(page.url.rsplit("/", 1)[1]))).status == "completed"


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", NARROW)])
async def test_it_fits_and_is_accessible(site: Site, browser: Browsing, theme: Any, width: int) -> None:
    await site.run("degraded")
    page = await browser.open("/console/runs", theme=theme, width=width)
    await expect(page.get_by_test_id("run-row").first).to_be_visible()
    await page.get_by_text("More filters").click()
    await assert_fits(page)
    await assert_accessible(page)


async def test_who_has_no_runs_is_told_how_to_get_one(site: Site, browser: Browsing) -> None:
    await site.run("completed")
    page = await browser.open("/console/runs", key=await site.tenant())
    await expect(page.get_by_role("region", name="First steps")).to_contain_text("tidelog demo")
    await expect(page.get_by_test_id("run-row")).to_have_count(0)
