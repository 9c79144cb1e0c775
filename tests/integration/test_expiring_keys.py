"""Who is warned of keys that soon expire, and with which command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.cli import keys as commands
from api.cli import output
from api.cli.diagnosis import diagnose
from api.cli.diagnosis.findings import Finding
from tests.integration.system_kit import System, new_id, served, sha256


@asynccontextmanager
async def server(system: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with served(system.container) as url:
        monkeypatch.setenv("TIDELOG_URL", url)
        yield url


async def issue(system: System, label: str, days: float | None, **more: Any) -> tuple[str, str]:
    """Issues a key. Returns its id and the key."""
    key = f"key-{label}-{new_id()}"
    expiry = {} if days is None else {"expires_at": (datetime.now(UTC) + timedelta(days=days)).isoformat()}
    body = {"label": label, "role": "admin", "key_id": str(new_id()), "sha256": sha256(key), **expiry, **more}
    answer = await system.http.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    await system.settled()
    return body["key_id"], key


async def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> list[Finding]:
    monkeypatch.setenv("TIDELOG_API_KEY", key)
    found = (await diagnose(tmp_path / "none", None)).findings
    return [finding for finding in found if finding.subject in ("key", "keys")]


async def test_the_doctor_warns_of_keys_that_soon_expire(
    system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server(system, monkeypatch):
        assert await findings(tmp_path, monkeypatch, system.key) == [Finding("keys", "ok", "none expires within 14 days")]
        soon, key = await issue(system, "soon", 3.5)
        await issue(system, "late", 20)
        await issue(system, "for ever", None)
        turned, _ = await issue(system, "turned", 5)
        assert (await system.http.post(f"/v1/keys/{turned}/rotate", json={"expires_at": "2099-01-01T00:00:00Z"})).status_code == 201
        own, developer = await issue(system, "mine", 9.5, role="developer")
        project = (await system.http.get("/v1/projects")).json()["data"][0]["project_id"]
        narrow, narrowed = await issue(system, "narrow", 13.5, projects=[project])
        worker_id, worker = await issue(system, "worker", 1.5, role="worker")

        seen = await findings(tmp_path, monkeypatch, system.key)
        assert [(each.status, each.mend) for each in seen] == [
            ("warning", f"tidelog keys rotate {id} --expires 90d") for id in (worker_id, soon, own, narrow)
        ]
        assert seen[1].detail.startswith("soon (admin) expires in 3 days, at 20")
        assert (await findings(tmp_path, monkeypatch, key))[0].detail.startswith("the key that you use expires in 3 days")
        for theirs, id in ((developer, own), (narrowed, narrow)):
            [mine] = await findings(tmp_path, monkeypatch, theirs)
            assert mine.mend == f"ask an owner or admin of the tenant for: tidelog keys rotate {id} --expires 90d"
            assert mine.detail.startswith("the key that you use expires in ")
        assert await findings(tmp_path, monkeypatch, worker) == [], "it may ask nothing"

        monkeypatch.setenv("TIDELOG_API_KEY", system.key)
        monkeypatch.setenv("COLUMNS", "200")
        await commands._list(True, 100, tmp_path, None, False)
        printed = capsys.readouterr()
        marked = {line.split()[0] for line in printed.out.splitlines() if " ! " in line}
        assert marked == {soon, own, narrow, worker_id} and "tidelog keys rotate" in printed.err
        monkeypatch.setenv("TIDELOG_API_KEY", developer)
        await commands._show("self", tmp_path, None, False)
        assert f"Key {own}" in capsys.readouterr().out
        with pytest.raises(output.CommandFailed, match="is not a key's id"):
            await commands._show("selfish", tmp_path, None, False)
