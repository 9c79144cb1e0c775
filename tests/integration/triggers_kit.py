"""Each operation on triggers, once."""

from typing import Any

import httpx2

from tests.integration.system_kit import System


async def use_triggers(shared: System, http: httpx2.AsyncClient) -> None:
    body: dict[str, Any] = {"on": {"topics": ["project.removed"]}, "start": {"agent": "walker"}}
    assert (await http.post("/v1/triggers", json={"name": "documented", **body})).status_code == 201
    await shared.settled()
    path = "/v1/triggers/documented"
    assert (await http.get(path)).json()["status"] == "active"
    assert (await http.get("/v1/triggers", params={"limit": 1})).json()["data"]
    assert (await http.put(path, json={**body, "max_depth": 2})).status_code == 200
    assert (await http.post(f"{path}/pause", json={"reason": "why"})).status_code == 200
    assert (await http.post(f"{path}/resume", json={})).status_code == 200
    assert (await http.get(f"{path}/firings")).status_code == 200
    assert (await http.post("/v1/triggers:dry-run", json={"name": "documented"})).json()["events"] >= 0
    hook = {"name": "documented.hook", "hook": {"scheme": "token"}, "start": {"agent": "walker"}}
    made = (await http.post("/v1/triggers", json=hook)).json()
    rotated = (await http.post("/v1/triggers/documented.hook/rotate", json={})).json()
    for secret in (made["secret"], rotated["secret"]):
        sent = await http.post(made["hook_path"], json={}, headers={"Authorization": f"Bearer {secret}"})
        assert sent.status_code == 202, sent.text
    for name in ("documented", "documented.hook"):
        assert (await http.delete(f"/v1/triggers/{name}")).status_code == 200
