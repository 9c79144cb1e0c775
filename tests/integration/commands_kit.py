"""Every operation of workflows and of slash commands, asked once."""

import httpx2

from tests.integration.system_kit import System


async def use_workflows(http: httpx2.AsyncClient) -> None:
    said = {"plan": {"steps": [{"key": "a", "agent": "nobody"}]}}
    for description in "ab":
        created = await http.post("/v1/workflows", json={"name": "flow", **said, "description": description})
        assert created.status_code == 201, created.text
    path = "/v1/workflows/flow"
    for method, end, body in (
        ("PUT", "draft", said), ("POST", "publish", {}), ("PUT", "draft", said), ("DELETE", "draft", None),
        ("POST", "revert", {"version": 1}), ("POST", "deprecate", {"reason": "r"}), ("POST", "reinstate", {}),
        ("POST", "deprecate", {"version": 2}),
    ):  # fmt: skip
        changed = await http.request(method, f"{path}/{end}", json=body)
        assert changed.is_success, changed.text
    at = {"Tidelog-Position": changed.headers["tidelog-position"]}
    assert [one["name"] for one in (await http.get("/v1/workflows?prefix=flow", headers=at)).json()["data"]] == ["flow"]
    assert (await http.get(path, headers=at)).json()["version"] == 4
    assert len((await http.get(f"{path}/versions", headers=at)).json()["data"]) == 4
    assert (await http.get(f"{path}/versions/2", headers=at)).json()["deprecated"]["reason"] is None
    assert len((await http.get(f"{path}/diff", params={"from": "1", "to": "2"})).json()["differences"]) == 1


async def use_commands(shared: System, http: httpx2.AsyncClient) -> None:
    await shared.worker().register("slasher")
    said = {"plan": {"steps": [{"key": "a", "agent": "slasher"}]}, "command": {}}
    assert (await http.post("/v1/workflows", json={"name": "slash", **said})).status_code == 201
    for body, status in (
        ({"text": "/slash"}, 201), ({"text": "/slash", "dry_run": True}, 200), ({"text": "/query limit=1"}, 200),
        ({"text": "/query limit=1", "dry_run": True}, 200), ({"text": "/none"}, 404), ({"text": "none"}, 422),
    ):  # fmt: skip
        done = await http.post("/v1/commands", json=body)
        assert done.status_code == status, (body, done.text)
    assert {one["name"] for one in (await http.get("/v1/commands")).json()["data"]} >= {"task", "query"}
    for name in ("task", "query", "slash"):
        assert (await http.get(f"/v1/commands/{name}")).json()["name"] == name
