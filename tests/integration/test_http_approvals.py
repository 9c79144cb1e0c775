"""Approvals over HTTP: who may do what, what lists show, and what the trail keeps."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.system_kit import System, empty_work_queue, fresh_database, issue_key, running

GUARDED = {
    "name": "pay", "version": "1", "kind": "http", "request": {"url": "https://example.com/"},
    "parameters": {"type": "object", "properties": {"eur": {"type": "integer"}}, "additionalProperties": False},
    "policy": {"approval": "arguments.eur > 10"},
}  # fmt: skip
APPROVALS, POLICIES = "/v1/approvals", "/v1/approval-policies"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(services: EmbeddedServices) -> AsyncIterator[System]:
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as url, running(url, services.nats_url) as system:
        await issue_key(system)
        assert (await system.http.post("/v1/tools", json=GUARDED)).status_code == 201
        yield system


async def ask(system: System, eur: int, **headers: str) -> str:
    """A call that waits: the id of its approval."""
    called = await system.http.post("/v1/tools/pay/calls", json={"arguments": {"eur": eur}}, headers=headers)
    call = called.json()["invocation_id"]
    shown = (await system.http.get(f"/v1/invocations/{call}")).json()
    assert shown["status"] == "held", shown
    await system.settled()
    return str(shown["approval_id"])


async def of_role(system: System, role: str) -> httpx2.AsyncClient:
    issued = await system.http.post("/v1/keys", json={"label": role, "role": role})
    await system.settled()
    return system.client(issued.json()["key"])


async def listed(http: httpx2.AsyncClient, **params: Any) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await http.get(APPROVALS, params={"limit": 2, **params, **cursor})
        assert answer.status_code == 200, answer.text
        found += [one["approval_id"] for one in answer.json()["data"]]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


async def test_lists_by_every_filter(system: System) -> None:
    ids = [await ask(system, eur) for eur in (11, 12, 13, 14, 15)]
    assert (await system.http.post(f"{APPROVALS}/{ids[0]}/decision", json={"decision": "deny", "reason": "no"})).status_code == 200
    assert (await system.http.post(f"{APPROVALS}/{ids[1]}/decision", json={"decision": "approve"})).status_code == 200
    await system.settled()
    newest = ids[::-1]
    run = (await system.http.get(f"{APPROVALS}/{ids[3]}")).json()["run_id"]
    everything = await listed(system.http)
    assert [each for each in everything if each in ids] == newest
    assert await listed(system.http, status="open", tool="pay") == newest[:3] == await listed(system.http, mine=True)
    assert await listed(system.http, status="denied") == [ids[0]] and await listed(system.http, status="approved") == [ids[1]]
    assert await listed(system.http, run_id=run) == [ids[3]] == await listed(system.http, run_id=run, mine=True)
    assert await listed(system.http, run_id=run, status="denied") == []
    for nothing in ({"tool": "nothing"}, {"status": "withdrawn"}, {"project_id": str(UUID(int=1))}, {"run_id": str(UUID(int=1))}):
        assert await listed(system.http, **nothing) == []
    for id in ids[2:]:
        await system.http.post(f"{APPROVALS}/{id}/decision", json={"decision": "deny"})


async def test_roles_and_the_trail(system: System) -> None:
    id = await ask(system, 20)
    path = f"{APPROVALS}/{id}/decision"
    async with await of_role(system, "developer") as developer, await of_role(system, "operator") as operator:
        assert (await developer.get(f"{APPROVALS}/{id}")).json()["may_decide"] is False
        assert (await developer.post(path, json={"decision": "approve"})).status_code == 403
        assert (await operator.put(f"{POLICIES}/own", json={"rules": [{}]})).status_code == 403
        rule = {"tools": ["pay"], "roles": ["admin"], "approvers": 1}
        assert (await system.http.put(f"{POLICIES}/admins", json={"rules": [rule], "reason": "why"})).status_code == 200
        narrow = await ask(system, 5)
        refused = await operator.post(f"{APPROVALS}/{narrow}/decision", json={"decision": "approve", "reason": "quickly"})
        assert (refused.status_code, refused.json()["code"]) == (403, "not-an-approver"), refused.text
        assert narrow not in await listed(operator, mine=True) and id in await listed(operator, mine=True)
        assert (await operator.post(path, json={"decision": "approve", "reason": "fine"})).json()["status"] == "approved"
        again = await operator.post(path, json={"decision": "deny"})
        assert (again.status_code, again.json()["code"]) == (409, "already-decided") and "fine" in again.json()["detail"]
    assert (await system.http.delete(f"{POLICIES}/admins", headers={"Tidelog-Reason": "over"})).status_code == 200
    await system.settled()
    trail = (await system.http.get("/v1/audit", params={"limit": 20})).json()["data"]
    told = [(each["action"], each["operation"], each["result"], each["reason"]) for each in trail]
    assert ("approvals.decide", "approve", "done", "fine") in told and ("approvals.decide", "approve", "refused", "quickly") in told
    assert ("approvals.decide", "deny", "refused", None) in told
    assert ("approvals.define", "publish", "done", "why") in told and ("approvals.define", "remove", "done", "over") in told


async def test_a_rotated_key_is_the_same_approver(system: System) -> None:
    rule = {"rules": [{"tools": ["pay"], "when": "arguments.eur > 1000", "approvers": 2}]}
    assert (await system.http.put(f"{POLICIES}/two", json=rule)).status_code == 200
    path = f"{APPROVALS}/{await ask(system, 2000)}"
    issued = (await system.http.post("/v1/keys", json={"label": "o", "role": "operator"})).json()
    await system.settled()
    first = system.client(issued["key"])
    assert (await first.post(f"{path}/decision", json={"decision": "approve"})).json()["status"] == "open"
    rotated = await system.http.post(f"/v1/keys/{issued['key_id']}/rotate", json={"overlap_s": 0})
    await system.settled()
    second = system.client(rotated.json()["key"])
    shown = (await second.get(path)).json()
    assert (shown["may_decide"], shown["why_not"]) == (False, "you have decided before")
    again = await second.post(f"{path}/decision", json={"decision": "approve", "reason": "twice"})
    assert (again.status_code, again.json()["status"]) == (200, "open"), "a repeat"
    assert (await system.http.post(f"{path}/decision", json={"decision": "approve"})).json()["status"] == "approved"
    await system.http.delete(f"{POLICIES}/two")


async def test_changed_arguments_are_told_where_they_are_wrong(system: System) -> None:
    path = f"{APPROVALS}/{await ask(system, 30)}"
    wrong = await system.http.post(f"{path}/decision", json={"decision": "approve", "arguments": {"eur": "many"}})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["pointer"] == "/arguments/eur", wrong.text
    seen = (await system.http.get(path)).json()
    changed = {"decision": "approve", "arguments": {"eur": 11}, "arguments_hash": seen["arguments_hash"]}
    assert (await system.http.post(f"{path}/decision", json=changed)).json()["status"] == "approved"
    shown = (await system.http.get(path)).json()
    assert (shown["arguments"], shown["asked_arguments"]) == ({"eur": 11}, {"eur": 30})
    call = (await system.http.get(f"/v1/invocations/{shown['invocation_id']}")).json()
    assert (call["arguments"], call["asked_arguments"]) == ({"eur": 11}, {"eur": 30})


async def test_policies_that_cannot_be_used_are_refused(system: System) -> None:
    for rules, pointer in (
        ([], "/rules"), ([{"when": "arguments.eur >"}], "/rules/0/when"), ([{"default": "approve"}], "/rules/0"),
        ([{"roles": ["developer"]}], "/rules/0/roles/0"), ([{"approvers": 0}], "/rules/0/approvers"),
    ):  # fmt: skip
        refused = await system.http.put(f"{POLICIES}/odd", json={"rules": rules})
        assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == pointer, refused.text
    missing = await system.http.put(f"{POLICIES}/odd", json={"rules": [{}], "project_id": str(UUID(int=1))})
    assert missing.status_code == 404
    assert (await system.http.get(f"{POLICIES}/odd")).status_code == 404
    assert (await system.http.delete(f"{POLICIES}/odd")).status_code == 404
