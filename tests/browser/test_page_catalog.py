"""Agents, tools and workers: who is there, what they declare, calls by hand, breakers by hand."""

from uuid import UUID

from playwright.async_api import expect

from tests.browser.browser_kit import NARROW, Browsing, assert_accessible, assert_fits, tab_to
from tests.browser.site_kit import Site
from tests.integration.system_kit import eventually


async def test_an_agent_is_found_by_its_words_and_opened_by_keys(browser: Browsing, site: Site) -> None:
    await site.run("completed")
    page = await browser.open("/console/agents")
    await page.get_by_label("Search agents").fill("completes AT once")
    row = page.get_by_test_id("agent-row")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("1 worker")
    await assert_accessible(page)
    await tab_to(page, row)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("greeter")
    await expect(page.get_by_test_id("run-row").first).to_contain_text("completed")
    await expect(page.get_by_role("region", name="Workers").get_by_role("listitem")).to_have_count(1)
    await assert_accessible(page)


async def test_a_tool_is_called_by_hand_with_a_reason(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/tools/tell?part=try")
    await page.get_by_label("text").fill("<b>tides</b>")
    await page.get_by_role("button", name="Check").click()
    await expect(page.get_by_role("status").filter(has_text="The arguments fit")).to_be_visible()
    await page.get_by_role("button", name="Call", exact=True).click()
    dialog = page.get_by_role("dialog", name="Call")
    await dialog.get_by_label("Reason").fill("to see whether it works")
    await dialog.get_by_role("button", name="Call").click()
    outcome = page.get_by_test_id("outcome")
    await expect(outcome).to_have_attribute("data-status", "succeeded")
    await expect(outcome).to_contain_text("<b>tides</b>")

    async def audited() -> bool:
        return "to see whether it works" in str(await site.client.audit(action="tools.call"))

    await eventually(audited, "the entry in the audit trail")
    await page.get_by_role("link", name="Calls").click()
    await expect(page.get_by_test_id("call-row").first).to_have_attribute("data-status", "succeeded")


async def test_a_breaker_is_held_open_and_let_go(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/tools/web.search?part=breaker", width=NARROW, theme="dark")
    for name, state in (("Hold open", "open"), ("Let it follow", "closed")):
        await page.get_by_role("button", name=name).click()
        dialog = page.get_by_role("dialog", name=name)
        await dialog.get_by_label("Reason").fill(f"{state} <i>please</i>")
        await dialog.get_by_role("button", name=name).click()
        await expect(page.get_by_role("region", name="Breaker")).to_contain_text(state)
        await expect(page.get_by_test_id("breaker-history")).to_contain_text(f"{state} <i>please</i>")
    await assert_fits(page)
    await assert_accessible(page)


async def test_versions_are_compared_and_an_older_one_comes_back(browser: Browsing, site: Site) -> None:
    request = {"method": "GET", "url": "https://example.com/{{city}}"}
    declared = {
        "kind": "http", "description": "The weather.", "request": request,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }  # fmt: skip
    await site.client.define_tool("weather", {**declared, "version": "1"})
    await site.client.add_tool_version("weather", {**declared, "version": "2", "description": "The weather of a city."})
    page = await browser.open("/console/tools/weather?part=versions")
    difference = page.get_by_test_id("diff")
    await expect(difference).to_contain_text('"description": "The weather of a city."')
    await assert_accessible(page)
    await page.get_by_test_id("version-row").filter(has_text="1").get_by_role("button", name="Go back to it").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill("the new text says too much")
    await dialog.get_by_role("button", name="Go back to it").click()
    await expect(page.get_by_test_id("version-row").first).to_have_attribute("data-name", "3")

    async def back() -> bool:
        return (await site.client.tool("weather")).description == "The weather."

    await eventually(back, "the older text")


async def test_a_worker_tells_what_it_has_in_hand(browser: Browsing, site: Site) -> None:
    run = await site.start(agent="cashier")
    page = await browser.open("/console/workers")
    await expect(page.get_by_test_id("worker-row")).to_have_count(1)
    await page.get_by_test_id("worker-row").click()
    panel = page.get_by_role("region", name="Worker ")
    await expect(panel.get_by_role("link", name="greeter")).to_be_visible()
    await assert_accessible(page)
    await page.keyboard.press("Escape")
    await expect(panel).to_have_count(0)
    await site.client.cancel_run(UUID(run), "the test is over")


async def test_things_of_another_tenant_are_not_there(browser: Browsing, site: Site) -> None:
    browser.allow("404")
    key = await site.tenant()
    page = await browser.open("/console/agents/greeter", key=key)
    await expect(page.get_by_role("alert")).to_be_visible()
    page = await browser.open("/console/tools/tell", key=key)
    await expect(page.get_by_role("alert")).to_be_visible()
