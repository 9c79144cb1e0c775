"""The runs that the pages of other tests show are what their names say."""

import pytest

from tests.browser.site_kit import KINDS, Site

STATUS = {
    "failed": "failed", "approval": "running", "ambiguous": "running", "waiting": "running", "paused": "paused",
    "cancelled": "cancelled", "fork": "failed",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_of_each_kind(site: Site, kind: str) -> None:
    run = await site.client.get_run(await site.run(kind))
    assert run.status == STATUS.get(kind, "completed"), run
    assert run.degraded == (kind == "degraded")
