"""Triggers through the whole system: the pages, webhooks and their secrets, keys that are narrowed, and a list of very many."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
import pytest_asyncio
from ruamel.yaml import YAML

from adapters.embedded import EmbeddedServices
from api.cli import options
from api.cli import triggers as commands
from application.triggers.stray_secrets import remove_strays
from domain.tenants import DEFAULT_TENANT_ID
from domain.triggers import trigger_id_of
from tests.integration.sdk_kit import running as sdk_running
from tests.integration.system_kit import (
    System,
    empty_work_queue,
    eventually,
    fresh_database,
    issue_key,
    new_id,
    running,
    served,
)
from tests.pages import block
from tidelog import Agent, Client, Context, ToolContext, tool
from tidelog.errors import NotFoundError

EVENTS_PAGE = "docs/how-to/start-a-run-when-something-happens.md"
HOOKS_PAGE = "docs/how-to/take-a-webhook.md"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(services: EmbeddedServices) -> AsyncIterator[System]:
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as url, running(url, services.nats_url) as system:
        await issue_key(system)
        await system.worker().register("walker", "reviewer", "builder")
        yield system


def of_page(page: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(block(page, "trigger"))
    return found


async def created(system: System, definition: dict[str, Any], http: httpx2.AsyncClient | None = None) -> dict[str, Any]:
    answer = await (http or system.http).post("/v1/triggers", json=definition)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def firings(system: System, name: str, count: int) -> list[dict[str, Any]]:
    """The firings of a trigger, newest first, once there are so many."""

    async def there() -> list[dict[str, Any]]:
        found = (await system.http.get(f"/v1/triggers/{name}/firings")).json()["data"]
        return found if len(found) >= count else []

    return await eventually(there, f"{count} firings of {name}")


async def send(system: System, path: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
    async with system.client(None) as anybody:
        return await anybody.post(path, content=body, headers={"content-type": "application/json", **headers})


def by_github(secret: str, body: bytes, delivery: str, **headers: str) -> dict[str, str]:
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": signature, "x-github-delivery": delivery, "x-github-event": "push", **headers}


def by_standard(secret: str, body: bytes, delivery: str) -> dict[str, str]:
    """As any sender makes it that knows Standard Webhooks."""
    at = str(int(datetime.now(UTC).timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = base64.b64encode(hmac.digest(key, f"{delivery}.{at}.".encode() + body, "sha256")).decode()
    return {"webhook-id": delivery, "webhook-timestamp": at, "webhook-signature": f"v1,{made}"}


async def test_the_page_about_events_says_what_happens(shared: System) -> None:
    definition = of_page(EVENTS_PAGE)
    early = await shared.start("walker")
    await (await shared.worker().step(early, "walker")).fail()
    await shared.ended(early)
    tried = {"definition": {name: part for name, part in definition.items() if name != "name"}, "since": "2026-01-01T00:00:00Z"}
    page = (await shared.http.post("/v1/triggers:dry-run", json=tried)).json()
    assert (page["fired"], page["next_cursor"]) == (1, None)
    assert page["examples"][0]["input"] == {"run": early, "error": "broken"}
    await created(shared, definition)
    later = await shared.start("walker")
    await (await shared.worker().step(later, "walker")).fail()
    [fired] = await firings(shared, "review.failures", 1)
    assert (fired["kind"], fired["event"].partition(":")[0], fired["depth"]) == ("fired", later, 1)
    run = await shared.run(fired["run_id"])
    assert run["input"] == {"run": later, "error": "broken"}
    first = (await shared.events(fired["run_id"]))[0]
    assert json.loads(first.metadata)["actor"] == "trigger:review.failures"
    await shared.settled()
    shown = (await shared.http.get("/v1/triggers/review.failures")).json()
    assert (shown["status"], shown["fired"], shown["misfired"]) == ("active", 1, 0)
    again = (await shared.http.post("/v1/triggers:dry-run", json={"name": "review.failures"})).json()
    assert again["fired"] == 2, "that which fired is among what would have fired"


async def test_the_page_about_webhooks_says_what_happens(shared: System) -> None:
    made = await created(shared, of_page(HOOKS_PAGE))
    path, secret = made["hook_path"], made["secret"]
    body = json.dumps({"after": "abc", "ref": "main"}).encode()
    first = await send(shared, path, body, by_github(secret, body, "one"))
    assert first.status_code == 202, first.text
    run = await shared.run(first.json()["run_id"])
    assert run["input"] == {"commit": "abc", "branch": "main"}
    assert (await send(shared, path, body, by_github(secret, body, "one"))).json() == first.json()
    other = await send(shared, path, body, by_github(secret, body, "two", **{"x-github-event": "ping"}))
    assert (other.status_code, other.json()) == (202, {"delivery": "two"})
    [fired] = await firings(shared, "on.push", 1)
    assert (fired["delivery"], fired["run_id"]) == ("one", first.json()["run_id"])
    without = b'{"ref": "main"}'
    refused = await send(shared, path, without, by_github(secret, without, "three"))
    assert (refused.status_code, refused.json()["code"]) == (422, "delivery-refused")
    assert (await firings(shared, "on.push", 2))[0]["code"] == "expression"
    rotated = (await shared.http.post("/v1/triggers/on.push/rotate", json={"overlap_s": 3600})).json()
    for number, valid in enumerate((secret, rotated["secret"])):
        assert (await send(shared, path, body, by_github(valid, body, f"rotated {number}".replace(" ", "-")))).status_code == 202
    ended = (await shared.http.post("/v1/triggers/on.push/rotate", json={"overlap_s": 0})).json()
    for gone in (secret, rotated["secret"]):
        assert (await send(shared, path, body, by_github(gone, body, "gone"))).status_code == 401
    assert (await shared.http.post("/v1/triggers/on.push/pause", json={})).status_code == 200
    assert (await send(shared, path, body, by_github(ended["secret"], body, "paused"))).status_code == 409
    assert (await send(shared, path, body, by_github(ended["secret"], body, "rotated-1"))).status_code == 202, "it was taken before"
    await _nobody_has(shared, secret, rotated["secret"], ended["secret"])


async def _nobody_has(system: System, *secrets: str) -> None:
    """Neither the log nor any table that reads of requests see has one of the secrets."""
    for secret in secrets:
        for event in await system.events():
            assert secret.encode() not in event.state
            assert secret not in event.metadata
        for path in ("/v1/triggers", "/v1/audit", "/v1/events?limit=1000"):
            assert secret not in (await system.http.get(path)).text
    async with system.container.read_database.connection(DEFAULT_TENANT_ID) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
            await connection.execute("SELECT secret FROM hook_secret")


async def test_a_webhook_wakes_the_run_that_it_names_and_says_which(shared: System) -> None:
    definition = YAML(typ="safe", pure=True).load(block(HOOKS_PAGE, "signal"))
    made = await created(shared, definition)
    run_id = (await shared.http.post("/v1/runs", json={"plan": {"kind": "sequential", "agents": ["builder"]}})).json()["run_id"]
    data = {"metadata": {"run_id": run_id}, "amount": 7}
    body = json.dumps({"type": "payment.succeeded", "data": data}).encode()
    for _ in range(2):
        taken = await send(shared, made["hook_path"], body, by_standard(made["secret"], body, "paid"))
        assert (taken.status_code, taken.json()) == (202, {"delivery": "paid", "run_id": run_id}), taken.text
    for unknown in (str(uuid4()), "none"):
        lost = body.replace(run_id.encode(), unknown.encode())
        refused = await send(shared, made["hook_path"], lost, by_standard(made["secret"], lost, unknown))
        assert (refused.status_code, refused.json()["code"]) == (422, "delivery-refused")
    [no_id, no_run, fired] = await firings(shared, "on.payment", 3)
    assert (fired["signal"], fired["run_id"]) == ("paid", run_id)
    assert (no_id["code"], no_run["code"]) == ("expression", "not-found")
    topics = [event.topic for event in await shared.events() if str(event.root_id) == run_id]
    assert topics.count("run.signalled") == topics.count("run.tainted") == 1


async def test_nobody_can_tell_a_wrong_signature_from_no_webhook(shared: System) -> None:
    made = await created(shared, {"name": "told.nothing", "hook": {"scheme": "standard"}, "start": {"agent": "builder"}})
    body = b"{}"
    good = by_standard(made["secret"], body, "msg_1")
    assert (await send(shared, made["hook_path"], body, good)).status_code == 202
    wrong = [
        await send(shared, made["hook_path"], body, {**good, "webhook-id": "msg_2"}),
        await send(shared, made["hook_path"], b"[]", good),
        await send(shared, made["hook_path"], body, {}),
        await send(shared, f"/hooks/{uuid4()}", body, good),
    ]
    assert (await shared.http.delete("/v1/triggers/told.nothing")).status_code == 200
    wrong.append(await send(shared, made["hook_path"], body, good))
    told = {
        (answer.status_code, answer.json()["detail"], frozenset(answer.headers) - {"tidelog-trace-id"}, answer.json()["code"])
        for answer in wrong
    }
    assert len(told) == 1
    assert told.pop()[0] == 401


async def test_a_repeated_creation_shows_no_secret_and_another_body_is_refused(shared: System) -> None:
    definition = {"name": "once", "hook": {"scheme": "token"}, "start": {"agent": "builder"}}
    key = {"Idempotency-Key": "once"}
    first = (await shared.http.post("/v1/triggers", json=definition, headers=key)).json()
    again = (await shared.http.post("/v1/triggers", json=definition, headers=key)).json()
    assert (again["hook_path"], again["secret"]) == (first["hook_path"], None)
    assert (await send(shared, first["hook_path"], b"{}", {"authorization": f"Bearer {first['secret']}"})).status_code == 202
    other = await shared.http.post("/v1/triggers", json={**definition, "description": "x"}, headers=key)
    assert other.json()["code"] == "idempotency-key-reused"
    assert (await shared.http.post("/v1/triggers", json=definition)).json()["code"] == "already-exists"
    assert (await send(shared, first["hook_path"], b"{}", {"authorization": f"Bearer {first['secret']}"})).status_code == 202


async def test_deliveries_over_the_limit_are_refused_and_counted(shared: System) -> None:
    definition = {"name": "few", "hook": {"scheme": "token"}, "start": {"agent": "builder"}, "max_per_minute": 1}
    made = await created(shared, definition)
    headers = {"authorization": f"Bearer {made['secret']}"}
    answers = [(await send(shared, made["hook_path"], b"{}", headers)).status_code for _ in range(4)]
    assert answers.count(429) >= 2, "two of them at least came in one minute"
    await shared.container.triggers.deliveries.close()
    limited = [each for each in await firings(shared, "few", 2) if each["kind"] == "limited"]
    assert sum(each["count"] for each in limited) == answers.count(429)


async def test_a_narrowed_key_makes_and_sees_triggers_of_its_projects_alone(shared: System) -> None:
    project = (await shared.http.post("/v1/projects", json={"name": "narrow"})).json()["project_id"]
    issued = await shared.http.post("/v1/keys", json={"label": "narrow", "role": "developer", "projects": [project]})
    await shared.settled()
    on = {"topics": ["run.cancelled"]}
    await created(shared, {"name": "whole", "on": on, "start": {"agent": "builder"}, "project_id": project})
    bounded = {"on": {**on, "project_id": project}, "start": {"agent": "builder"}, "project_id": project}
    await created(shared, {"name": "of.project", **bounded})
    async with shared.client(issued.json()["key"]) as narrow:
        await created(shared, {"name": "own", "on": on, "start": {"agent": "builder"}}, narrow)
        await shared.settled()
        names = [one["name"] for one in (await narrow.get("/v1/triggers")).json()["data"]]
        assert names == ["of.project", "own"], "one that sees the whole tenant would tell of other projects"
        for status, expected in (("active", names), ("paused", [])):
            listed = (await narrow.get("/v1/triggers", params={"status": status})).json()["data"]
            assert [one["name"] for one in listed] == expected
        for method, path in (
            ("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/rotate"),
            ("GET", "/firings"),
        ):  # fmt: skip
            given = {"on": on, "start": {"agent": "x"}} if method == "PUT" else {}
            body = {"json": given} if method in ("PUT", "POST") else {}
            answers = {name: await narrow.request(method, f"/v1/triggers/{name}{path}", **body) for name in ("whole", "no.such")}
            assert {answer.status_code for answer in answers.values()} == {404}, path
        refused = await narrow.post("/v1/triggers", json={"name": "calls", "on": on, "start": {"tool": "note"}})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        outside = {**on, "project_id": str(new_id())}
        foreign = await narrow.post("/v1/triggers", json={"name": "foreign", "on": outside, "start": {"agent": "builder"}})
        assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown-project")
        elsewhere, inside = await shared.start("walker"), await shared.start("walker", project_id=project)
        for run_id in (elsewhere, inside):
            assert (await shared.http.post(f"/v1/runs/{run_id}/cancel", json={})).status_code == 202
        [fired] = await firings(shared, "own", 1)
        assert fired["event"].partition(":")[0] == inside
        await firings(shared, "whole", 2)
        page = (await narrow.post("/v1/triggers:dry-run", json={"definition": {"on": on, "start": {"agent": "x"}}})).json()
        assert [one["event"].partition(":")[0] for one in page["examples"]] == [inside]
        own = await shared.http.get("/v1/triggers/own/firings")
        assert own.json()["data"], "and a key of the whole tenant sees all"


async def test_what_fired_while_nobody_matched_fires_once_later(shared: System, services: EmbeddedServices) -> None:
    """The process that matches is away, and comes back twice."""
    async with fresh_database(services) as url:
        async with running(url, services.nats_url) as system:
            await issue_key(system)
            await system.worker().register("walker", "reviewer")
            await created(system, {"name": "later", "on": {"topics": ["run.cancelled"]}, "start": {"agent": "reviewer"}})
            await system.settled()
            key = system.key
        async with running(url, services.nats_url, roles=("api", "relay", "projector"), key=key) as system:
            runs = [await system.start("walker") for _ in range(3)]
            for run_id in runs:
                await system.http.post(f"/v1/runs/{run_id}/cancel", json={})
        for _ in range(2):
            async with running(url, services.nats_url, key=key) as system:
                fired = await firings(system, "later", 3)
                await system.settled()
                await system.sql("UPDATE checkpoint SET position = 0, epoch = epoch + 1 WHERE name = 'trigger-matcher'")
        assert sorted(one["event"].partition(":")[0] for one in fired) == sorted(runs)
        assert len(fired) == 3


FAULTY = {
    "steps": [
        {"key": "a", "value": "inputt"},
        {"key": "b", "value": "steps.z.result", "after": ["a"]},
        {"key": "c", "agent": "comes-later", "after": ["b"], "when": "1 + 1"},
    ]
}
FAULTS = ["/steps/0/value", "/steps/1/value", "/steps/2/when"]


async def test_the_plan_of_what_starts_is_told_all_of_its_faults(shared: System) -> None:
    """An agent that is not there is none: of a trigger it may come later, and a schedule says so once the plan is right."""
    trigger = {"name": "faulty", "on": {"topics": ["run.failed"], "when": "nonsense"}, "start": {"plan": FAULTY}}
    definition = {name: part for name, part in trigger.items() if name != "name"}
    for path, body, place in (
        ("/v1/triggers", trigger, ""),
        ("/v1/triggers:dry-run", {"definition": definition}, "/definition"),
    ):
        refused = await shared.http.post(path, json=body)
        found = [fault["pointer"] for fault in refused.json()["errors"]]
        assert (refused.status_code, found) == (422, [f"{place}/on/when", *(f"{place}/start/plan{fault}" for fault in FAULTS)])
    schedule = {"name": "faulty", "when": {"every_s": 60}, "start": {"plan": {"kind": "graph", **FAULTY}}}
    refused = await shared.http.post("/v1/schedules", json=schedule)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-plan")
    assert [fault["pointer"] for fault in refused.json()["errors"]] == [f"/start/plan{fault}" for fault in FAULTS]


async def test_secrets_that_belong_to_no_trigger_go_and_no_other(shared: System) -> None:
    """Also one that the read model does not know: the log does."""
    hooks = {}
    for name in ("kept", "behind"):
        made = await created(shared, {"name": f"stray-{name}", "hook": {"scheme": "token"}, "start": {"agent": "builder"}})
        hooks[name] = made["hook_path"].rpartition("/")[2]
        position = (await shared.http.get("/v1/triggers", headers={"Tidelog-Position": str(made["position"])})).status_code
        assert position == 200
    await shared.sql("DELETE FROM trigger WHERE name = 'stray-behind'")
    secrets, loop = shared.container.triggers.secrets, shared.container.commands
    strays = {name: new_id() for name in ("never", "another", "young")}
    for name, of in (("never", "stray-never"), ("another", "stray-kept"), ("young", "stray-young")):
        await secrets.add(strays[name], DEFAULT_TENANT_ID, of, "token", b"x", overlap_s=0)
    await shared.sql("UPDATE hook_secret SET made_at = now() - interval '2 hours' WHERE hook_id <> %s", strays["young"])
    assert await remove_strays(loop, secrets) == 2
    left = {str(row[0]) for row in await shared.sql("SELECT hook_id FROM hook_secret")}
    assert {hooks["kept"], hooks["behind"], str(strays["young"])} <= left
    assert not {str(strays["never"]), str(strays["another"])} & left
    assert await remove_strays(loop, secrets) == 0


async def test_a_loop_through_requests_of_agents_and_tools_ends(shared: System) -> None:
    """The trigger starts an agent, which calls a tool, which starts the run on which the trigger fires."""
    async with served(shared.container) as url:

        @tool("hops.start", idempotent=True)
        async def start(ctx: ToolContext) -> str:
            async with Client(url, shared.key) as client:
                return str((await client.start_run(agent="leaf", idempotency_key=ctx.idempotency_key)).run_id)

        class Looper(Agent):
            async def execute(self, ctx: Context) -> Any:
                async with Client(url, shared.key) as client:
                    called = await client.call_tool("hops.start", key=str(ctx.run_id))
                    return str(called.invocation_id)

        class Leaf(Agent):
            async def execute(self, ctx: Context) -> Any:
                return None

        await created(
            shared,
            {
                "name": "looped", "on": {"topics": ["run.started"], "when": "event.data.plan.steps[0].agent == 'leaf'"},
                "start": {"agent": "looper"}, "max_depth": 3, "max_per_minute": 20,
            },
        )  # fmt: skip
        async with sdk_running(url, Looper, Leaf, start, key=shared.key):
            first = await shared.http.post("/v1/runs", json={"agent": "leaf"})
            found = await firings(shared, "looped", 4)
        assert [(one["kind"], one.get("depth"), one.get("code")) for one in found] == [
            ("misfired", None, "loop"), ("fired", 3, None), ("fired", 2, None), ("fired", 1, None),
        ]  # fmt: skip
        event = found[-1]["event"]
        assert event.startswith(first.json()["run_id"])
        second = found[-2]["event"].partition(":")[0]
        [begun] = (await shared.http.get("/v1/events", params={"root_id": second, "types": "run.started"})).json()["data"]
        asked = await shared.http.get(f"/v1/invocations/{begun['causationid'].partition(':')[0]}")
        assert asked.json()["tool"] == "hops.start"


async def test_what_is_no_cause_starts_all_the_same(shared: System) -> None:
    _, other = await shared.tenant("another")
    async with shared.client(other) as http:
        value = {"plan": {"kind": "graph", "steps": [{"key": "v", "value": "1"}]}}
        foreign = (await http.post("/v1/runs", json=value)).json()["run_id"]
    mine = await shared.start("walker")
    known = (await shared.http.post("/v1/projects", json={"name": "cause"})).json()["project_id"]
    for cause, says in ((str(new_id()), None), (foreign, None), (known, None), (mine, f"{mine}:1")):
        begun = await shared.http.post("/v1/runs", json={"agent": "walker"}, headers={"Tidelog-Caused-By": cause})
        assert begun.status_code == 201, begun.text
        events = await shared.http.get("/v1/events", params={"root_id": begun.json()["run_id"], "types": "run.started"})
        assert events.status_code == 200, events.text
        [event] = events.json()["data"]
        assert event["causationid"] == says or (says is None and not event["causationid"].startswith(cause))
    for nonsense in ("", "no-id", "1"):
        refused = await shared.http.post("/v1/runs", json={"agent": "walker"}, headers={"Tidelog-Caused-By": nonsense})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-command")


async def test_a_page_of_firings_goes_on_where_the_one_before_ended(shared: System) -> None:
    found = (await shared.http.get("/v1/triggers/whole/firings", params={"limit": 1})).json()
    rest = (await shared.http.get("/v1/triggers/whole/firings", params={"limit": 1, "cursor": found["next_cursor"]})).json()
    whole = await firings(shared, "whole", 2)
    assert [*found["data"], *rest["data"]] == whole[:2]
    assert trigger_id_of(DEFAULT_TENANT_ID, "whole") in {event.stream_id for event in await shared.events()}


async def test_the_sdk_and_the_command_line_do_the_same(
    shared: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = {"on": {"topics": ["run.cancelled"]}, "start": {"agent": "reviewer", "input_from": "event.subject"}}
    run_id = await shared.start("walker")
    await shared.http.post(f"/v1/runs/{run_id}/cancel", json={})
    url = await shared.url()
    async with Client(url, shared.key) as client:
        of = client.triggers
        tried = await of.dry_run(definition, since=datetime(2026, 1, 1, tzinfo=UTC), examples=20)
        assert run_id in [each["input"] for each in tried.examples]
        made = await of.create("by.sdk", definition)
        assert (made.name, made.hook_path, made.secret) == ("by.sdk", None, None)
        await of.change("by.sdk", {**definition, "description": "changed"})
        await of.pause("by.sdk", "why")
        shown = await of.get("by.sdk")
        assert (shown.status, shown.reason, shown.description) == ("paused", "why", "changed")
        assert [each.name async for each in of.list(status="paused")] == ["by.sdk", "on.push"]
        await of.resume("by.sdk")
        later = await shared.start("walker")
        await shared.http.post(f"/v1/runs/{later}/cancel", json={})
        await firings(shared, "by.sdk", 2)
        fired, paused = [each async for each in of.firings("by.sdk")]
        assert (fired.kind, str(fired.event).partition(":")[0], paused.kind) == ("fired", later, "paused")
        hooked = await of.create("by.sdk.hook", {"hook": {"scheme": "standard"}, "start": {"agent": "builder"}})
        rotated = await of.rotate_secret("by.sdk.hook")
        assert hooked.secret and rotated.secret and hooked.secret != rotated.secret
        for name in ("by.sdk", "by.sdk.hook"):
            await of.remove(name)
        with pytest.raises(NotFoundError):
            await of.get("by.sdk")
    monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
    file, where = tmp_path / "trigger.yaml", options.Where(tmp_path, url, as_json=True)
    file.write_text("name: by.file\non:\n  topics: [run.cancelled]\nstart:\n  agent: reviewer\n  input_from: event.subject\n")
    capsys.readouterr()
    await commands._create(str(file), None, None, where)
    await commands._test({"name": "by.file"}, "7d", 1, where)
    out = capsys.readouterr().out
    documents, decoder = [], json.JSONDecoder()
    while (begin := out.find("{\n")) >= 0:
        document, end = decoder.raw_decode(out[begin:])
        documents.append(document)
        out = out[begin + end :]
    assert documents[0] == {"name": "by.file", "hook_path": None, "secret": None}
    assert documents[1]["fired"] == documents[1]["events"] >= 2
    assert len(documents[1]["examples"]) == 1
