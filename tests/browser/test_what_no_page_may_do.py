"""The tests in a browser fail for what no page may do. Each page here does one of them, or is hard to use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, Route

from tests.browser.browser_kit import Browsing, assert_accessible, assert_fits, axe_findings, long_tasks, tab_to
from tests.pace import until

HERE = "http://console.test"
POLICY = "default-src 'self'"
FILES = {
    "/throws.js": "setTimeout(() => { throw new Error('on purpose') })",
    "/logs.js": "console.error('on purpose')",
    "/warns.js": "console.warn('on purpose')",
    "/asks.js": "fetch('http://other.test/').catch(() => null)",
    "/alerts.js": "alert('on purpose')",
    "/styles.js": "document.body.style.color = 'navy'",
    "/markup.js": "document.body.innerHTML = '<p style=\"color: red\">on purpose</p>'",
    "/works.js": "const until = performance.now() + 120; while (performance.now() < until);",
}


@asynccontextmanager
async def opened(chromium: Browser, body: str, policy: str = POLICY) -> AsyncIterator[tuple[Browsing, Page]]:
    """A page with this body, which the browser gets without a server."""
    browsing = Browsing(chromium, HERE, None)

    async def answer(route: Route) -> None:
        path = route.request.url.removeprefix(HERE)
        if script := FILES.get(path):
            await route.fulfill(body=script, content_type="text/javascript")
        elif path == "/":
            head = '<meta charset="utf-8"><title>Page</title>'
            text = f'<!doctype html><html lang="en"><head>{head}</head><body><main><h1>Page</h1>{body}</main></body></html>'
            await route.fulfill(body=text, content_type="text/html", headers={"Content-Security-Policy": policy})
        else:
            await route.fulfill(status=204)

    context = await browsing.context(key=None)
    await context.route("**/*", answer)
    page = await context.new_page()
    await page.goto("/")
    yield browsing, page
    await browsing.close(None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<script src="/throws.js"></script>', "thrown: on purpose"),
        ('<script src="/logs.js"></script>', "console error: on purpose"),
        ('<script src="/warns.js"></script>', "console warning: on purpose"),
        ('<script src="/asks.js"></script>', "Content Security Policy"),
        ('<script src="/alerts.js"></script>', "opened a dialog: alert: on purpose"),
        ("<script>1</script>", "Content Security Policy"),
        ('<img alt="" src="http://other.test/a.png">', "Content Security Policy"),
        ('<p style="color: red">x</p>', "Content Security Policy"),
        ('<script src="/markup.js"></script>', "Content Security Policy"),
    ],
)
async def test_is_noticed(chromium: Browser, body: str, said: str) -> None:
    async with opened(chromium, body) as (browsing, _):

        async def noticed() -> bool:
            return any(said in one for one in browsing.watched.problems())

        await until(noticed, 10)
        browsing.allow(".")
        assert browsing.watched.problems() == []


async def test_another_host_is_not_asked_where_the_policy_would_allow_it(chromium: Browser) -> None:
    async with opened(chromium, '<script src="/asks.js"></script>', "default-src 'self'; connect-src *") as (browsing, page):
        await page.wait_for_load_state("networkidle")
        assert "asked another host: http://other.test/" in browsing.watched.problems()


async def test_an_ordinary_page_is_not_blamed(chromium: Browser) -> None:
    async with opened(chromium, '<p>Fine</p><script src="/styles.js"></script>') as (browsing, page):
        assert await page.evaluate("document.body.style.color") == "navy"
        assert browsing.watched.problems() == []
        await assert_accessible(page)
        await assert_fits(page)


async def test_axe_finds_what_people_cannot_use(chromium: Browser) -> None:
    async with opened(chromium, "<button></button><img src='/x'>") as (_, page):
        found = await axe_findings(page)
        assert [line.partition(" ")[0] for line in found] == ["button-name", "image-alt"]
        assert await axe_findings(page, without=["button-name", "image-alt"]) == []
        with pytest.raises(AssertionError, match="button-name"):
            await assert_accessible(page)


async def test_a_page_wider_than_its_window_is_found(chromium: Browser) -> None:
    async with opened(chromium, '<p style="width: 3000px">x</p>', "default-src 'self'; style-src 'unsafe-inline'") as (_, page):
        with pytest.raises(AssertionError, match="pixels wide"):
            await assert_fits(page)


async def test_the_keyboard_reaches_what_has_a_visible_focus(chromium: Browser) -> None:
    body = '<button>a</button><button>b</button><button tabindex="-1">c</button><button style="outline: none">d</button>'
    async with opened(chromium, body, "default-src 'self'; style-src 'unsafe-inline'") as (_, page):
        await tab_to(page, page.get_by_role("button", name="b"))
        await tab_to(page, page.get_by_role("button", name="a"), back=True)
        with pytest.raises(AssertionError, match="did not reach"):
            await tab_to(page, page.get_by_role("button", name="c"), most=5)
        with pytest.raises(AssertionError, match="nobody sees"):
            await tab_to(page, page.get_by_role("button", name="d"))


async def test_long_tasks_are_noted_once(chromium: Browser) -> None:
    async with opened(chromium, '<script src="/works.js"></script>') as (_, page):
        found: list[float] = []

        async def noted() -> bool:
            found.extend(await long_tasks(page))
            return any(taken > 100 for taken in found)

        await until(noted, 10)
        assert not any(taken > 100 for taken in await long_tasks(page))
