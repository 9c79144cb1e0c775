"""The inbox: what waits for people, and their decisions, in a browser against the real server."""

from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.browser_kit import NARROW, Browsing, assert_accessible, assert_fits
from tests.browser.site_kit import Site
from tests.integration.sdk_kit import end_of

STRANGE = "<img src=x onerror=alert(1)>"


async def waiting(site: Site, **more: Any) -> str:
    """The id of a new approval: of a mail to a stranger."""
    run_id = await site.until_event("approval.requested", agent="secretary", input={"to": "ada@example.org", **more})
    return await site.approval_of(run_id)


async def run_of(site: Site, approval_id: str) -> UUID:
    return (await site.client.approvals.get(UUID(approval_id))).run_id


def row(page: Page, approval_id: str) -> Locator:
    return page.locator(f'[data-testid="approval-row"][data-id="{approval_id}"]')


async def decide(page: Page, verb: str, reason: str = "") -> None:
    """Opens the dialog of a decision, and says it."""
    await page.get_by_role("button", name=verb, exact=True).click()
    dialog = page.get_by_role("dialog")
    if reason:
        await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button", name=verb, exact=True).click()


async def test_a_call_is_approved_with_changed_arguments(site: Site, browser: Browsing) -> None:
    approval_id = await waiting(site)
    page = await browser.open(f"/console/inbox/{approval_id}")
    facts = page.get_by_role("region", name="Facts")
    await expect(facts).to_contain_text("!arguments.to.endsWith('@example.com')")
    await expect(facts.get_by_role("link", name=str(await run_of(site, approval_id)))).to_be_visible()

    await page.get_by_role("button", name="Change arguments").click()
    await page.get_by_label("to", exact=True).fill("")
    await page.get_by_label("text", exact=True).fill("to be read")
    await expect(page.get_by_text("Changed: to, text.")).to_be_visible()
    await page.get_by_role("button", name="JSON").click()
    await page.get_by_label("Arguments as JSON").fill('{"to": 5, "text": "to be read"}')
    await expect(page.get_by_text("must be a text")).to_be_visible()
    await expect(page.get_by_role("button", name="Approve with changes")).to_be_disabled()
    await page.get_by_label("Arguments as JSON").fill('{"to": "grace@example.org", "text": "to be read"}')
    await decide(page, "Approve with changes", "a customer")
    await expect(page.get_by_role("status").filter(has_text="Approved by you")).to_be_visible()

    run = await end_of(site.client, await run_of(site, approval_id))
    assert run.result == "sent to grace@example.org: to be read"
    said = (await site.client.approvals.get(UUID(approval_id))).words[0]
    assert (said.reason, said.changed) == ("a customer", True)


async def test_a_denial_needs_a_reason_and_is_told_to_the_agent(site: Site, browser: Browsing) -> None:
    approval_id = await waiting(site)
    page = await browser.open(f"/console/inbox/{approval_id}")
    await page.get_by_role("button", name="Deny", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Deny").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_role("dialog").get_by_label("Reason").fill("not before Monday")
    await page.get_by_role("dialog").get_by_role("button", name="Deny").click()
    await expect(page.get_by_role("status").filter(has_text="Denied by you")).to_contain_text("not before Monday")
    run = await end_of(site.client, await run_of(site, approval_id))
    assert "not before Monday" in str(run.error)


async def test_what_others_decide_is_seen_at_once_and_a_stale_word_is_refused(site: Site, browser: Browsing) -> None:
    first = await waiting(site)
    page = await browser.open(f"/console/inbox/{first}")
    inbox = page.get_by_role("navigation", name="Console").get_by_role("link", name="Inbox")
    await expect(inbox).to_contain_text("waiting")
    await page.get_by_role("button", name="Approve", exact=True).click()
    second = await waiting(site)
    await expect(row(page, second)).to_be_visible()  # live, behind the dialog

    await site.client.approvals.deny(UUID(first), "somebody was faster")
    await expect(page.get_by_text("somebody was faster").first).to_be_visible()
    await expect(row(page, first)).to_have_count(0)
    await expect(page.get_by_role("dialog")).to_have_count(0)  # there is nothing left to be said
    await site.client.approvals.deny(UUID(second), "it too")
    await expect(row(page, second)).to_have_count(0)


async def test_by_keys_alone(site: Site, browser: Browsing) -> None:
    ids = [await waiting(site), await waiting(site)]
    page = await browser.open("/console/inbox")
    await expect(row(page, ids[1])).to_be_visible()
    await expect(page).to_have_url(f"{site.url}/console/inbox/{ids[1]}")  # the newest is open
    await page.keyboard.press("j")
    await expect(page).to_have_url(f"{site.url}/console/inbox/{ids[0]}")
    await page.keyboard.press("k")
    await expect(page).to_have_url(f"{site.url}/console/inbox/{ids[1]}")
    await expect(page.get_by_role("button", name="Deny", exact=True)).to_be_enabled()
    await page.keyboard.press("d")
    await expect(page.get_by_role("dialog", name="Deny")).to_be_visible()
    await page.keyboard.type("by keys")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").filter(has_text="by keys")).to_be_visible()
    await site.client.approvals.deny(UUID(ids[0]), "done")


async def test_several_at_once(site: Site, browser: Browsing) -> None:
    ids = [await waiting(site), await waiting(site)]
    page = await browser.open("/console/inbox")
    for one in ids:
        await row(page, one).get_by_role("checkbox").check()
    await decide(page, "Deny 2", "neither of them")
    for one in ids:
        await expect(row(page, one)).to_have_count(0)
        assert (await site.client.approvals.get(UUID(one))).status == "denied"


async def test_an_unknown_outcome_is_resolved(site: Site, browser: Browsing) -> None:
    run_id = await site.fresh("ambiguous")
    page = await browser.open("/console/inbox?show=calls")
    await page.get_by_test_id("call-row").first.get_by_role("link").click()
    await expect(page.get_by_role("heading", name="card.charge")).to_be_visible()
    await page.get_by_role("button", name="It happened").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Result as JSON").fill('"charged"')
    await dialog.get_by_label("Reason").fill("it is on the statement")
    await dialog.get_by_role("button", name="It happened").click()
    await expect(page.get_by_role("status").filter(has_text="it is on the statement")).to_be_visible()
    assert (await end_of(site.client, UUID(run_id))).result == "charged"


async def test_an_auditor_sees_it_and_decides_nothing(site: Site, browser: Browsing) -> None:
    approval_id = await waiting(site)
    page = await browser.open(f"/console/inbox/{approval_id}", key=await site.role("auditor"))
    await expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    await expect(page.get_by_role("region", name="Facts")).to_contain_text("do not decide it")
    await site.client.approvals.deny(UUID(approval_id), "done")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", NARROW)])
async def test_it_fits_and_is_accessible(site: Site, browser: Browsing, theme: Any, width: int) -> None:
    approval_id = await site.approval_of(await site.run("approval"))
    page = await browser.open(f"/console/inbox/{approval_id}", theme=theme, width=width)
    await page.get_by_role("button", name="Change arguments").click()
    await page.get_by_label("to", exact=True).fill(STRANGE + "x" * 50_000)
    await expect(page.get_by_text("Changed: to.")).to_be_visible()
    await assert_fits(page)
    await assert_accessible(page)


async def test_another_tenant_sees_nothing_of_it(site: Site, browser: Browsing) -> None:
    browser.allow("404")
    approval_id = await site.approval_of(await site.run("approval"))
    page = await browser.open(f"/console/inbox/{approval_id}", key=await site.tenant())
    await expect(page.get_by_role("alert")).to_contain_text("not-found")
    await expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
