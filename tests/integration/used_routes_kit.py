"""Every operation of the HTTP API used with success, for tests of all routes."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

import httpx2

from adapters.postgres.work_logs import PostgresWorkLogs
from application.engine.ports.work_logs import Author, NewLines, WorkLine
from domain.agent_runs import ClaimAgentRun
from domain.bulk_actions import BulkOrder, CancelBulkAction, RunFilter, StartBulkAction
from domain.invocations import ClaimInvocation
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.documented_kit import use_steering
from tests.integration.played_worker import PlayedWorker
from tests.integration.session_kit import offer, worker_at
from tests.integration.system_kit import System, eventually, new_id


async def use_forks(shared: System, http: httpx2.AsyncClient) -> None:
    await shared.settled()
    run_id = (await http.get("/v1/runs", params={"status": "cancelled", "limit": 1})).json()["data"][0]["run_id"]
    forked = await http.post(f"/v1/runs/{run_id}/fork", json={"reason": "again"})
    assert forked.status_code == 201
    await shared.settled()
    assert [fork["run_id"] for fork in (await http.get(f"/v1/runs/{run_id}/forks")).json()["data"]] == [forked.json()["run_id"]]


async def use_keys(shared: System, http: httpx2.AsyncClient) -> None:
    issued = (await http.post("/v1/keys", json={"label": "ci", "role": "auditor"})).json()
    await shared.settled()
    path = f"/v1/keys/{issued['key_id']}"
    assert (await http.get(path)).json()["status"] == "valid"
    assert (await http.post(f"{path}/rotate", json={"overlap_s": 60})).status_code == 201
    assert (await http.post(f"{path}/revoke", json={"reason": "over"})).status_code == 202
    assert (await http.get("/v1/keys")).json()["data"]
    assert (await http.get("/v1/keys/self")).json()["role"] == "owner"
    await use_browser_sessions(shared, http)


async def use_browser_sessions(shared: System, http: httpx2.AsyncClient) -> None:
    local = {"Host": "127.0.0.1"}
    link = (await http.post("/v1/sessions/links", headers=local)).json()["link"]
    signed = await http.post("/v1/sessions", json={"link": link}, headers=local)
    assert signed.status_code == 201 and (await http.get("/v1/sessions/self")).json()["session_id"] is None, "by key"
    cookie = {
        **local,
        "Cookie": signed.headers["set-cookie"].partition(";")[0],
        "Sec-Fetch-Site": "same-origin",
        "Authorization": "",
    }
    assert (await http.get("/v1/sessions/self", headers=cookie)).json() == signed.json()
    assert (await http.delete("/v1/sessions/self", headers=cookie)).status_code == 204


async def use_tools(shared: System, http: httpx2.AsyncClient) -> None:
    declared = {"version": "1", "kind": "builtin", "builtin": "fetch", "parameters": {}, "examples": [{"arguments": {}}]}
    assert (await http.post("/v1/tools", json={"name": "data", **declared})).status_code == 201
    assert (await http.post("/v1/tools/data/versions", json={**declared, "version": "2"})).status_code == 201
    assert (await http.post("/v1/tools/data/validate", json={"arguments": 7})).json()["valid"]
    patched = await http.patch("/v1/tools/data", json={"deprecated": True, "note": "n"})
    at = {"Tidelog-Position": patched.headers["tidelog-position"]}
    assert (await http.get("/v1/tools/data", headers=at)).json()["deprecated"]["note"] == "n"
    assert len((await http.get("/v1/tools/data/versions", headers=at)).json()["data"]) == 2
    assert (await http.get("/v1/tools/data/versions/1", headers=at)).json()["version"] == "1"
    held = await http.post("/v1/tools/data/breaker", json={"state": "open", "reason": "r"})
    at = {"Tidelog-Position": held.headers["tidelog-position"]}
    assert (await http.get("/v1/tools/data/breaker")).json()["state"] == "open"
    assert [one["tool"] for one in (await http.get("/v1/breakers", headers=at)).json()["data"]] == ["data"]
    await use_calls(http)
    assert (await http.delete("/v1/tools/data")).status_code == 200


async def use_blobs(shared: System, http: httpx2.AsyncClient) -> None:
    """Also for the work of a run in hand."""
    hashes = [hashlib.sha256(content).hexdigest() for content in (b"one", b"two")]
    assert (await http.put(f"/v1/blobs/{hashes[0]}", content=b"one", headers={"Content-Type": "text/html"})).status_code == 201
    assert (await http.post("/v1/blobs", content=b"one")).status_code == 200
    assert (await http.get("/v1/blobs", params={"limit": 1})).status_code == 200
    for given, status in (({}, 200), ({"Range": "bytes=0-0"}, 206), ({"Range": "bytes=9-"}, 416), ({"If-None-Match": "*"}, 304)):
        assert (await http.get(f"/v1/blobs/{hashes[0]}", headers=given)).status_code == status
    assert (await http.head(f"/v1/blobs/{hashes[0]}")).status_code == 200
    assert (await http.get(f"/v1/blobs/{hashes[0]}/details")).status_code == 200
    async with worker_at(await shared.url(), shared.key, name="of blobs") as worker:
        await worker.hello(["filer"])
        await worker.credit(agent=1)
        run_id = (await http.post("/v1/runs", json={"agent": "filer", "input": {"$blob": hashes[0]}})).json()["run_id"]
        work = await worker.work()
        lease = {"Tidelog-Lease": f"{work['work']} {work['attempt']} {work['token']}"}
        assert (await http.put(f"/v1/work/blobs/{hashes[1]}", content=b"two", headers=lease)).status_code == 201
        assert (await http.post("/v1/work/blobs", content=b"two", headers=lease)).status_code == 200
        assert (await http.get(f"/v1/work/blobs/{hashes[1]}", headers=lease)).content == b"two"
        assert (await http.get(f"/v1/work/blobs/{hashes[1]}")).json()["code"] == "invalid-command"
        in_use = await http.delete(f"/v1/blobs/{hashes[1]}")
        assert (in_use.status_code, in_use.json()["referred_by"]) == (409, [run_id])
        await worker.done(work, "complete", result=1)
    assert (await http.post("/v1/blobs", content=b"three")).status_code == 201
    assert (await http.delete(f"/v1/blobs/{hashlib.sha256(b'three').hexdigest()}")).status_code == 204


async def use_calls(http: httpx2.AsyncClient) -> None:
    """Calls without a run, of a tool that is deprecated, and that no worker has."""
    called = (await http.post("/v1/tools/data/calls", json={"arguments": {}})).json()
    assert called["warning"] == "the tool 'data' is deprecated (n)"
    batch = {"calls": [{"arguments": {}, "key": "one"}, {"arguments": {}, "timeout_s": 80_000}]}
    answers = (await http.post("/v1/tools/data/calls:batch", json=batch, headers={"Prefer": "wait=1"})).json()["calls"]
    assert [each["status"] for each in answers] == [202, 422]
    path = f"/v1/invocations/{called['invocation_id']}"
    assert (await http.post(f"{path}/cancel", json={"reason": "over"})).status_code == 202
    assert (await http.get(path, headers={"Prefer": "wait=1"})).json()["status"] == "cancelled"


async def use_runs(shared: System, http: httpx2.AsyncClient) -> None:
    """A run with a call, mail, shared context, a failure and a cancellation, and everything that reads it."""
    worker = shared.worker(http=http)
    await worker.register("walker", "other", tools=["add", {"name": "mail", "idempotent": False}])
    problem = {"path": "a.py", "kind": "import-failed", "message": "broken"}
    await offer(await shared.url(), shared.key, problems=[problem])
    project = await http.post("/v1/projects", json={"name": "walk"}, headers={"Idempotency-Key": "walk"})
    assert (await http.post("/v1/projects", json={"name": "walk"}, headers={"Idempotency-Key": "walk"})).json() == project.json()
    plan = {
        "kind": "graph",
        "steps": [{"key": "walker", "agent": "walker", "input": 2, "retry": {"max_attempts": 2, "initial_s": 0.01}}],
    }
    body = {"plan": plan, "project_id": project.json()["project_id"], "input": {"n": 1}, "metadata": {"m": [1]}}
    started = await http.post("/v1/runs", json=body)
    run_id = started.json()["run_id"]
    first = await worker.next("walker")
    await first.ok("record", key="k", result={"a": None})
    await first.ok("set", key="set", name="v", value=[1])
    await first.ok("get", key="get", name="v")
    await first.ok("get", key="none", name="nothing")
    await first.ok("send", key="m", to="walker", body={"x": 1})
    adding, mailing = await first.call("add", "add", a=1), await first.call("mail", "mail")
    add = await worker.claim(adding, "tool")
    await add.complete(2)
    mail = await worker.claim(mailing, "tool")
    await mail.fail()
    await first.fail("transient")
    second = await worker.next("walker")
    await second.ok("receive", key="r", message_id=second.body["mailbox"][0]["message_id"])
    assert {entry["status"] for entry in second.body["journal"]} == {"ok", "error"}
    lost = await second.call("lost", "mail")
    await (await worker.claim(lost, "tool")).lose()
    await second.complete({"done": True})
    await shared.ended(run_id)
    resolved = await http.post(f"/v1/invocations/{lost}/resolve", json={"result": 1, "reason": "I looked.", "evidence": 7})
    assert resolved.status_code == 200, resolved.text
    position = resolved.json()["position"]
    run = await http.get(f"/v1/runs/{run_id}", headers={"Tidelog-Position": str(position)})
    assert run.json()["result"] == {"done": True}
    assert (await http.get(f"/v1/runs/{run_id}?as_of={position}")).json()["steps"] == run.json()["steps"]
    line = WorkLine(Author(DEFAULT_TENANT_ID, UUID(run_id), "walker", "walker", 1), datetime.now(UTC), 20, "hello")
    await PostgresWorkLogs(shared.container.database).write([NewLines(DEFAULT_TENANT_ID, UUID(run_id), [line, line], lost=1)])
    assert (await http.get(f"/v1/runs/{run_id}/logs", params={"limit": 1})).json()["data"][0]["text"] == "hello"
    rest = (await http.get(f"/v1/runs/{run_id}/logs", params={"after": 1, "level": "info", "agent": "walker"})).json()
    assert [(line["line"], line["dropped"]) for line in rest["data"]] == [(2, None), (None, 1)]
    for path in (
        "/v1/runs",
        "/v1/agents",
        "/v1/tools",
        "/v1/projects",
        "/v1/invocations",
        f"/v1/runs/{run_id}/messages",
        f"/v1/runs/{run_id}/calls",
        f"/v1/runs/{run_id}/journal",
    ):
        page = await http.get(path, params={"limit": 1}, headers={"Tidelog-Position": str(position)})
        assert len(page.json()["data"]) == 1, path
    assert (await http.get(f"/v1/invocations/{adding}")).json()["result"] == 2
    await use_values(shared, http, worker, run_id, {"called": adding, "failed": mailing, "resolved": lost})
    removed = (await http.post("/v1/projects", json={"name": "removed"})).json()["project_id"]
    assert (await http.delete(f"/v1/projects/{removed}")).status_code == 200
    assert (await http.get(f"/v1/ids/{run_id[:18]}")).json()["data"][0]["run_id"] == run_id
    [session] = (await http.get("/v1/workers", params={"limit": 1})).json()["data"]
    assert (await http.get(f"/v1/workers/{session['session_id']}/work")).status_code == 200
    assert (await http.get("/v1/workers/problems")).json()["data"] and (await http.get("/v1/log/gaps")).json()["missing"] == 0
    for path in ("/v1/events", f"/v1/runs/{run_id}/events"):
        assert (await http.get(path, params={"limit": 2, "as_of": position})).json()["next_cursor"]
    assert (await http.get(f"/v1/events/{started.json()['position']}")).json()["type"] == "agent_run.requested"
    for asked in ("causes", "effects?limit=1"):
        assert (await http.get(f"/v1/events/{started.json()['position']}/{asked}")).json()["data"]
    agent = (await http.get("/v1/agents", params={"limit": 1})).json()["data"][0]
    assert (await http.get(f"/v1/agents/{agent['name']}")).json() == agent
    assert (await http.get("/v1/runs/counts", params={"longer_s": 0})).json()["completed"]["count"]
    assert (await http.get(f"/v1/runs/{run_id}/diff", params={"with_as_of": position, "limit": 1})).json()["same"]
    assert (await http.get(f"/v1/runs/{run_id}/rows", params={"around": position, "limit": 2})).json()["total"]
    stream = {"Accept": "text/event-stream"}
    end = (await http.get(f"/v1/runs/{run_id}/events", headers=stream)).text.rpartition("id: ")[2].partition("\n")[0]
    assert (await http.get(f"/v1/runs/{run_id}/events", headers={**stream, "Last-Event-ID": end})).status_code == 204
    assert (await http.head("/v1/events", headers=stream)).status_code == 200
    await use_reports_without_a_session(shared, http, worker)
    other = {"agent": "other", "run_id": str(new_id())}
    assert (await http.post("/v1/runs", json=other)).status_code == 201
    await use_steering(http, f"/v1/runs/{other['run_id']}")
    signalled = await http.post(f"/v1/runs/{other['run_id']}/signals", json={"name": "go", "payload": [1]})
    assert signalled.status_code == 202
    cancelled = await http.post(f"/v1/runs/{other['run_id']}/cancel", json={"reason": "enough"})
    assert cancelled.status_code == 202
    waited = await http.post("/v1/runs", json=other, headers={"Prefer": "wait=9"})
    assert waited.json()["run"]["status"] == "cancelled" and waited.headers["preference-applied"] == "wait=9"
    refused = await http.post(f"/v1/runs/{run_id}/cancel", json={}, headers={"If-Match": '"v1"'})
    assert refused.status_code == 412 and refused.json()["current_version"]


async def use_bulk_actions(shared: System, http: httpx2.AsyncClient) -> None:
    """A dry run, a bulk action that finds nothing, and the end of one that was ended before the engine saw it."""
    body = {"action": "signal", "filter": {"agent": "nobody", "metadata": {"m": 1}}, "signal": {"name": "go"}, "reason": "why"}
    assert (await http.post("/v1/bulk-actions", json={**body, "dry_run": True})).json()["matched"] == 0
    begun = await http.post("/v1/bulk-actions", json=body)
    assert begun.status_code == 202, begun.text
    one = f"/v1/bulk-actions/{begun.json()['id']}"
    shown = await http.get(one, headers={"Tidelog-Position": str(begun.json()["position"])})
    assert shown.json()["options"] == {"signal": {"name": "go"}}, shown.text
    assert (await http.get("/v1/bulk-actions")).json()["data"][0]["reason"] == "why"
    start = StartBulkAction(bulk_action_id=new_id(), order=BulkOrder(verb="pause"), filter=RunFilter(agent="nobody"), by="key:a")
    await shared.command(start, CancelBulkAction(bulk_action_id=start.bulk_action_id, by="key:a"))
    ended = await http.post(f"/v1/bulk-actions/{start.bulk_action_id}/cancel", json={})
    assert ended.status_code == 202, ended.text


async def use_compensation(http: httpx2.AsyncClient, worker: PlayedWorker) -> None:
    """Of a completed run, with an effect that cannot be taken back and one that can."""
    once = {"parameters": {}, "policy": {"compensation": {"tool": "unpay"}}}
    await worker.register("buyer", tools=[{"name": "unpay", "idempotent": False}, {"name": "pay", **once}])
    path = f"/v1/runs/{(await http.post('/v1/runs', json={'agent': 'buyer'})).json()['run_id']}/compensation"
    buyer = await worker.next("buyer")
    for key in ("one", "two"):
        await (await worker.claim(await buyer.call(key, "pay"), "tool")).complete(key)
    await buyer.complete()
    begun = await http.post(path, json={"reason": "taken back"}, headers={"Idempotency-Key": "back"})
    assert begun.status_code == 202, begun.text
    await (await worker.next("unpay", "tool")).fail()
    stopped = (await http.get(path, params={"limit": 1})).json()
    assert (stopped["status"], stopped["stopped_on"], stopped["data"][0]["status"]) == ("partial", 2, "failed")
    skip = {"skip": [stopped["data"][0]["invocation_id"]], "reason": "by hand"}
    assert (await http.post(f"{path}/resume", json=skip)).status_code == 202
    await (await worker.next("unpay", "tool")).complete()
    rest = (await http.get(path, params={"limit": 1, "cursor": stopped["next_cursor"]})).json()
    assert (rest["status"], rest["data"][0]["status"], rest["next_cursor"]) == ("partial", "compensated", None)


async def use_values(shared: System, http: httpx2.AsyncClient, worker: PlayedWorker, run_id: str, calls: dict[str, str]) -> None:
    """Each value of the run at the path of its own, twice: the second time it is still the same."""
    [sent] = (await http.get(f"/v1/runs/{run_id}/messages")).json()["data"]
    entry = next(e for e in (await http.get(f"/v1/runs/{run_id}/journal")).json()["data"] if e["key"] == "k")
    step, values = (
        f"/v1/runs/{run_id}/steps/walker",
        [(f"/v1/runs/{run_id}/input", {"n": 1}), (f"/v1/runs/{run_id}/metadata", {"m": [1]})],
    )
    values += [(f"/v1/runs/{run_id}/result", {"done": True}), (f"{step}/input", 2), (f"{step}/result", {"done": True})]
    values += [(f"/v1/runs/{run_id}/messages/{sent['message_id']}/body", {"x": 1})]
    values += [(f"/v1/runs/{run_id}/journal/{entry['position']}/result", {"a": None})]
    values += [(f"/v1/invocations/{calls['called']}/arguments", {"a": 1}), (f"/v1/invocations/{calls['called']}/result", 2)]
    values += [(f"/v1/invocations/{calls['resolved']}/evidence", 7)]
    for path, expected in values:
        answer = await http.get(path)
        assert (answer.status_code, answer.json()) == (200, expected), path
        assert (await http.get(path, headers={"If-None-Match": answer.headers["etag"]})).status_code == 304
    for path in (f"{step}/error", f"/v1/invocations/{calls['failed']}/error"):
        assert (await http.get(path)).json()["message"] == "broken", path
    failing = (await http.post("/v1/runs", json={"agent": "other"})).json()["run_id"]
    await (await worker.next("other")).fail()
    await shared.ended(failing)
    assert (await http.get(f"/v1/runs/{failing}/error")).json()["message"]


async def use_reports_without_a_session(shared: System, http: httpx2.AsyncClient, worker: PlayedWorker) -> None:
    """Of attempts that a worker of 0.1.0 began."""
    error = {"type": "T", "message": "m"}
    for verb, body in (("complete", {"result": 1}), ("fail", {"error": error})):
        alpha = await worker.step(await shared.start("walker"), "walker")
        call = UUID(await alpha.call("k", "add", a=1))
        await shared.command(ClaimInvocation(invocation_id=call, worker_id="old", dispatch=1))
        assert (await http.post(f"/v1/invocations/{call}/{verb}", json={"attempt": 1, **body})).status_code == 200
        await alpha.lose()
        await shared.command(ClaimAgentRun(agent_run_id=UUID(alpha.work_id), worker_id="old", dispatch=2))
        assert (await http.post(f"/v1/agent-runs/{alpha.work_id}/{verb}", json={"attempt": 2, **body})).status_code == 200


async def use_projections(shared: System, http: httpx2.AsyncClient) -> None:
    """Every operation on a read model, until the read model is as before."""
    place = "/v1/projections/messages"

    async def until(purpose: str, *statuses: str) -> None:
        async def there() -> bool:
            job = (await http.get(place)).json()[purpose]
            return job is not None and job["status"] in statuses

        await eventually(there, f"{purpose} to be {statuses}")

    assert (await http.get("/v1/projections")).json()["data"]
    assert (await http.get(f"{place}/parked")).json() == {"data": [], "next_cursor": None}
    assert (await http.post(f"{place}/retry", json={})).status_code == 200
    assert (await http.post(f"{place}/verify", json={})).status_code == 202
    await until("check", "equal")
    assert (await http.post(f"{place}/rebuild", json={"swap": False})).status_code == 202
    await until("build", "ready")
    assert (await http.post(f"{place}/swap", json={})).status_code == 202
    await until("build", "swapped")
    assert (await http.post(f"{place}/rollback", json={"swap": False})).status_code == 202
    assert (await http.post(f"{place}/cancel", json={})).status_code == 200
    assert (await http.delete(f"{place}/previous")).status_code == 200
    assert (await http.get("/v1/audit")).json()["data"]
    for form in ("jsonl", "csv"):
        assert (await http.get("/v1/audit/export", params={"format": form}, headers={"Tidelog-Reason": "why"})).text


async def use_approvals(shared: System, http: httpx2.AsyncClient) -> None:
    """A call that waits for a person, asked for twice, and a policy that comes and goes."""
    guarded = {"version": "1", "kind": "http", "request": {"url": "https://example.com/"}, "parameters": {}}
    guarded["policy"] = {"approval": True}
    assert (await http.post("/v1/tools", json={"name": "guarded", **guarded})).status_code == 201
    held = (await http.post("/v1/tools/guarded/calls", json={"arguments": {}})).json()["invocation_id"]
    approval = (await http.get(f"/v1/invocations/{held}")).json()["approval_id"]
    path = f"/v1/approvals/{approval}"
    assert (await http.get(path)).json()["status"] == "open"
    denied = await http.post(f"{path}/decision", json={"decision": "deny", "reason": "no"}, headers={"Idempotency-Key": "deny"})
    assert (denied.status_code, denied.json()["status"]) == (200, "denied"), denied.text
    at = {"Tidelog-Position": denied.headers["tidelog-position"]}
    listed = await http.get("/v1/approvals", params={"status": "denied"}, headers=at)
    assert [one["approval_id"] for one in listed.json()["data"]] == [approval]
    policy = "/v1/approval-policies/of-none"
    published = await http.put(policy, json={"rules": [{"tools": ["none"]}], "reason": "why"})
    assert published.status_code == 200, published.text
    assert (await http.get(policy)).status_code == 200 and (await http.get("/v1/approval-policies")).json()["data"]
    assert (await http.delete(policy, headers={"Tidelog-Reason": "over"})).status_code == 200
