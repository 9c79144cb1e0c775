"""Screenshots of every page, for whoever looks at the console: `make console-shots`.

`.browser/shots` gets each page in both themes, wide and narrow, with runs of all kinds and the demo's. `--docs`: the pictures of
the docs, too, into `docs/pictures`. `--only NAME`: pages whose names begin so. What no page may do is an error.
"""

import argparse
import asyncio
import base64
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Page, async_playwright

from benchmarks.servers import embedded, quiet
from tests.browser.browser_kit import NARROW, ROOT, WIDE, Browsing, Theme, launch
from tests.browser.site_kit import KINDS, Site, site_on
from tests.integration.sdk_kit import end_of, worker_process

SHOTS, PICTURES = ROOT / ".browser" / "shots", ROOT / "docs" / "pictures"
DEMO = ROOT / "examples" / "repo_review"
TEAM = {"kind": "parallel", "agents": ["historian", "surveyor", "inspector"], "aggregator": "editor"}
PAGES = ("runs", "inbox", "feed", "agents", "tools", "workers", "health")
MOST_PICTURE_BYTES = 60_000
PICTURE_WIDTH, PICTURE_HEIGHT = 1080, 640
PATIENCE_MS = 10_000
LONGEST_PX = 4_000
"""Of a page that is longer, the rest is not in its picture."""
SETTLED = """() => document.querySelector('main') !== null && !document.querySelector('[data-testid=loading], .loading')
    && !document.querySelector('main[aria-busy=true]')"""
QUIET = """() => new Promise(done => {
    let waiting = setTimeout(done, 250)
    new MutationObserver(() => { clearTimeout(waiting); waiting = setTimeout(done, 250) })
        .observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true })
    setTimeout(done, 3000)
})"""
"""Nothing on the page has changed for a quarter of a second; or it changes all the time."""
PARTS = 'nav[aria-label="Parts of the run"] a'


@dataclass(frozen=True)
class Shot:
    """A page, and what is done there before it is shown."""

    name: str
    path: str
    act: Callable[[Page], Awaitable[None]] | None = None
    signed_in: bool = True


async def settled(page: Page) -> None:
    """Waits until the page shows its data."""
    await page.wait_for_function(SETTLED)
    await page.evaluate(QUIET)


async def start_form(page: Page) -> None:
    await page.get_by_role("button", name="Start a run").or_(page.get_by_role("link", name="Start a run")).first.click()


async def fork_form(page: Page) -> None:
    await page.get_by_role("button", name="Fork from here").first.click()


async def first_item(page: Page) -> None:
    await page.get_by_test_id("approval-row").first.click()


async def shots_of(site: Site, page: Page) -> list[Shot]:
    """All pages there are. The parts of a run are those that its page has."""
    shots = [Shot("sign-in", "/console/", signed_in=False), *(Shot(name, f"/console/{name}") for name in PAGES)]
    shots += [
        Shot("runs-none", "/console/runs?agent=nobody"),
        Shot("runs-failed", "/console/runs?status=failed"),
        Shot("runs-start", "/console/runs", start_form),
        Shot("inbox-item", "/console/inbox", first_item),
        Shot("agents-one", "/console/agents/secretary"),
        Shot("tools-one", "/console/tools/mail.send"),
        Shot("no-such-run", "/console/runs/00000000-0000-7000-8000-000000000000"),
        Shot("no-such-page", "/console/nowhere"),
    ]
    shown = {kind: await site.run(kind) for kind in KINDS}
    shots += [Shot(f"run-{kind}", f"/console/runs/{run_id}") for kind, run_id in shown.items()]
    await page.goto(f"{site.url}/console/runs/{shown['demo']}")
    await settled(page)
    parts = [str(await link.get_attribute("href")).partition("?")[0].rsplit("/", 1)[-1] for link in await page.locator(PARTS).all()]
    for part in parts:
        shots += [Shot(f"run-{kind}-{part}", f"/console/runs/{shown[kind]}/{part}") for kind in ("demo", "failed", "family")]
    return shots


async def take(browsing: Browsing, shots: list[Shot], theme: Theme, width: int) -> list[str]:
    """Writes the pictures. Returns which of the pages could not be shown."""
    inside = await browsing.context(theme=theme, width=width)
    outside = await browsing.context(theme=theme, width=width, key=None)
    failed = []
    for context in (inside, outside):
        context.set_default_timeout(PATIENCE_MS)
    page, stranger = await inside.new_page(), await outside.new_page()
    for shot in shots:
        one = page if shot.signed_in else stranger
        try:
            await one.goto(shot.path)
            await settled(one)
            if shot.act is not None:
                await shot.act(one)
                await settled(one)
        except Exception as error:  # noqa: BLE001 - the other pages are shown all the same
            failed.append(f"{shot.name}, {theme}, {width} px: {str(error).splitlines()[0]}")
        height = min(LONGEST_PX, await one.evaluate("document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        await one.screenshot(path=SHOTS / f"{shot.name}.{theme}.{width}.png", full_page=True, clip=clip)
    return failed


# --- the pictures of the docs -----------------------------------------------------------------------------------------------


async def picture(page: Page, name: str) -> None:
    """Writes what the window shows, as small as it stays legible. Raises ValueError if it is too large to be committed."""
    await settled(page)
    session = await page.context.new_cdp_session(page)
    for quality in (90, 80, 65):
        answer = await session.send("Page.captureScreenshot", {"format": "webp", "quality": quality})
        made = base64.b64decode(answer["data"])
        if len(made) <= MOST_PICTURE_BYTES:
            break
    else:
        raise ValueError(f"{name} has {len(made):,} bytes, more than {MOST_PICTURE_BYTES:,}")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.webp").write_bytes(made)
    print(f"docs/pictures/{name}.webp: {len(made):,} bytes")


async def take_pictures(browsing: Browsing, site: Site) -> None:
    context = await browsing.context(width=PICTURE_WIDTH, height=PICTURE_HEIGHT)
    page = await context.new_page()
    failed = f"/console/runs/{await site.run('failed')}"
    pictures: tuple[tuple[str, str, Callable[[Page], Awaitable[None]] | None], ...] = (
        ("runs", "/console/runs", None),
        ("why-it-failed", failed, None),
        ("approve", "/console/inbox", first_item),
        ("fork", failed, fork_form),
    )
    for name, path, act in pictures:
        await page.goto(path)
        await settled(page)
        if act is not None:
            await act(page)
        await picture(page, name)


# --- the site ---------------------------------------------------------------------------------------------------------------


async def review(site: Site) -> str:
    """The run of the demo, over this repository."""
    run = await site.client.start_run(plan=TEAM, input={"repo": ROOT.name}, metadata={"started_by": "tidelog demo"})
    await end_of(site.client, run.run_id, timeout_s=120)
    return str(run.run_id)


@asynccontextmanager
async def running() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory(prefix="tidelog-shots-") as name:
        folder = Path(name)
        os.chmod(folder, 0o711)
        team = folder / "team"
        shutil.copytree(DEMO, team / "repo_review", ignore=shutil.ignore_patterns("__pycache__"))
        os.environ |= {"TIDELOG_WORKER_RUN_AS": "root", "TIDELOG_REPORT_DIR": str(folder / "reports")}
        async with (
            embedded() as services,
            site_on(services.database_url, services.nats_url, folder) as site,
            worker_process(site.url, team, "--workspace", str(ROOT)),
        ):
            KINDS["demo"] = review
            yield site


async def main(given: argparse.Namespace) -> int:
    SHOTS.mkdir(parents=True, exist_ok=True)
    async with running() as site, async_playwright() as playwright:
        chromium = await launch(playwright)
        browsing = Browsing(chromium, site.url, site.key)
        browsing.allow("404", "401")  # pages of things that are not there; nobody is signed in
        begin = await browsing.open()
        shots = [shot for shot in await shots_of(site, begin) if shot.name.startswith(given.only)]
        failed = []
        for theme in ("light", "dark"):
            for width in (WIDE, NARROW):
                failed += await take(browsing, shots, theme, width)
        if given.docs:
            await take_pictures(browsing, site)
        await browsing.close(None)
        await chromium.close()
    print(f"{len(shots)} pages, in two themes and two widths: {SHOTS.relative_to(ROOT)}")
    problems = [*dict.fromkeys([*failed, *browsing.watched.problems()])]
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--only", default="")
    sys.exit(asyncio.run(main(parser.parse_args())))
