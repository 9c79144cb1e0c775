"""Health: what the server tells of itself, and what an operator does about read models."""

from playwright.async_api import expect

from tests.browser.browser_kit import NARROW, Browsing, assert_accessible, assert_fits
from tests.browser.site_kit import Site


async def test_health_tells_dependencies_processes_and_read_models(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/health", theme="dark", width=NARROW)
    for name in ("postgres", "nats"):
        part = page.locator(f'[data-testid="health-part"][data-name="{name}"]')
        await expect(part).to_have_attribute("data-status", "ok")
    await expect(page.get_by_test_id("process-row").first).to_contain_text("alive")
    await expect(page.locator('[data-testid="read-model"][data-name="runs"]')).to_be_visible()
    await page.get_by_role("button", name="Look").click()
    await expect(page.get_by_text("has its event")).to_be_visible()
    await assert_fits(page)
    await assert_accessible(page)


async def test_a_read_model_is_rebuilt_with_a_reason(browser: Browsing, site: Site) -> None:
    page = await browser.open("/console/health")
    model = page.locator('[data-testid="read-model"][data-name="projects"]')
    await model.get_by_role("button", name="Rebuild").click()
    dialog = page.get_by_role("dialog", name="Rebuild")
    await dialog.get_by_label("Reason").fill("to be sure")
    await dialog.get_by_role("button", name="Rebuild").click()
    await expect(model.get_by_test_id("job")).to_have_attribute("data-status", "swapped")
    await expect(model.get_by_role("button", name="Roll back")).to_be_visible()


async def test_another_tenant_learns_why_it_sees_no_read_models(browser: Browsing, site: Site) -> None:
    browser.allow("403")
    page = await browser.open("/console/health", key=await site.tenant())
    await expect(page.get_by_text("only a key of the operator")).to_be_visible()
    await expect(page.locator('[data-testid="health-part"][data-name="postgres"]')).to_have_attribute("data-status", "ok")
    await expect(page.get_by_test_id("read-model")).to_have_count(0)
