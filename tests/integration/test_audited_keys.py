"""Keys and projects in the audit trail."""

from typing import Any

from domain.access import AUDITED, Action
from tests.integration.system_kit import System, eventually, new_id
from tests.integration.test_audit import REASON, WHY, actor_of, entries, told


async def issued(system: System, role: str = "developer", **headers: Any) -> dict[str, Any]:
    answer = await system.http.post("/v1/keys", json={"label": "ci", "role": role}, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_issue_rotate_and_revoke_leave_an_entry_each(system: System) -> None:
    key = await issued(system, **REASON)
    again = {"Idempotency-Key": "once", **REASON}
    for _ in range(2):
        rotated = await system.http.post(f"/v1/keys/{key['key_id']}/rotate", json={"overlap_s": 60}, headers=again)
        assert rotated.status_code == 201, rotated.text
    revoked = await system.http.post(f"/v1/keys/{key['key_id']}/revoke", json={"reason": "lost"})
    assert revoked.status_code == 202, revoked.text
    missing = str(new_id())
    assert (await system.http.post(f"/v1/keys/{missing}/revoke", json={})).status_code == 404
    last, third, second, first = await entries(system)
    assert told(first) == ("keys.issue", "developer", "key", key["key_id"], WHY, "done", None)
    assert first["actor"] == await actor_of(system)
    assert told(second) == ("keys.rotate", None, "key", key["key_id"], WHY, "done", None)
    assert told(third) == ("keys.revoke", None, "key", key["key_id"], "lost", "done", None)
    assert told(last) == ("keys.revoke", None, "key", missing, None, "refused", "not-found")
    text = b"".join(event.state for event in await system.events())
    assert key["key"].encode() not in text and rotated.json()["key"] is None


async def test_the_removal_of_a_project_leaves_an_entry(system: System) -> None:
    project = (await system.http.post("/v1/projects", json={"name": "p"})).json()["project_id"]
    for _ in range(2):  # the second time changes nothing
        assert (await system.http.delete(f"/v1/projects/{project}", headers=REASON)).status_code == 200
    [entry] = await entries(system)
    assert told(entry) == ("projects.remove", None, "project", project, WHY, "done", None)


async def test_what_a_role_may_not_do_is_counted_with_its_action(system: System) -> None:
    key = await issued(system)
    async with system.client(key["key"]) as developer:

        async def known() -> bool:
            return (await developer.get("/v1/runs")).status_code == 200

        await eventually(known, "the new key")
        for path in ("/v1/keys", "/v1/audit", "/v1/audit", "/v1/audit/export"):
            assert (await developer.get(path)).status_code == 403
    await system.container.refusals.record()
    counted = await entries(system, actor=f"key:{key['key_id']}")
    assert {(entry["action"], entry["count"], entry["kind"]) for entry in counted if entry["kind"] == "refusals"} >= {
        ("keys.read", 1, "refusals"), ("audit.read", 2, "refusals"), ("audit.export", 1, "refusals"),
    }  # fmt: skip


def test_the_table_names_the_actions_of_operators() -> None:
    assert {action for action in Action if action.value.startswith("keys.")} - {Action.KEYS_READ} <= AUDITED


async def test_an_entry_says_on_whose_behalf(system: System) -> None:
    person = "user:ada@example.org"
    key = await issued(system, **{"Tidelog-On-Behalf-Of": person})
    assert (await system.http.post("/v1/projections/agents/verify", json={}, headers={"Tidelog-On-Behalf-Of": person})).is_success
    begun, entry = await entries(system, on_behalf_of=person)
    assert (entry["target_id"], begun["target_id"]) == (key["key_id"], "agents")
    assert {entry["on_behalf_of"], begun["on_behalf_of"]} == {person}
