"""All that people do in the console works by the keyboard alone, and the focus is seen on its way."""

from playwright.async_api import Page, expect

from tests.browser.browser_kit import Browsing, tab_to
from tests.browser.site_kit import Site
from tests.browser.test_every_page import settled


async def press_on(page: Page, role: str, name: str, key: str = "Enter") -> None:
    """Goes to it by Tab, and presses a key."""
    target = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]
    await expect(target).to_be_visible()
    await tab_to(page, target)
    await page.keyboard.press(key)


async def test_signing_in_and_out(browser: Browsing, site: Site) -> None:
    browser.allow("401")  # who is signed in? nobody
    page = await browser.open(key=None)
    await tab_to(page, page.get_by_label("API key"))
    await page.keyboard.type(site.key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1, name="Runs")).to_be_visible()
    await press_on(page, "button", "Sign out")
    await expect(page.get_by_label("API key")).to_be_visible()


async def test_the_content_is_one_key_away(browser: Browsing) -> None:
    page = await browser.open("/console/runs")
    await settled(page)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()


async def test_from_the_list_to_a_part_of_a_run_and_to_an_act(browser: Browsing, site: Site) -> None:
    run_id = await site.fresh("waiting")
    page = await browser.open("/console/runs")
    await settled(page)
    link = page.locator(f'a[href$="/runs/{run_id}"]').first
    row = page.get_by_test_id("run-row").first
    target = link if await link.count() else row
    await tab_to(page, target)
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("run-status")).to_have_attribute("data-status", "running")
    await press_on(page, "link", "Journal")
    await expect(page.get_by_role("link", name="Journal", exact=True)).to_have_attribute("aria-current", "page")
    await press_on(page, "button", "Cancel run")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("button", name="Cancel run", exact=True)).to_be_focused()
    await page.keyboard.press("Enter")
    await tab_to(page, dialog.get_by_label("Reason"))
    await page.keyboard.type("nobody needs it")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("run-status")).to_have_attribute("data-status", "cancelled")
    assert (await site.client.get_run(run_id)).status == "cancelled"
