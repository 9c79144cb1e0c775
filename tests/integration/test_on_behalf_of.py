"""`Tidelog-On-Behalf-Of`, through to the log, the wire, the run as people see it, and read models of releases."""

from contextlib import aclosing
from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.kernel import RecordedEvent, who_asked
from projections.runs import documents
from tests.integration.played_worker import PlayedWorker
from tests.integration.projection_kit import OLD_MEMBER
from tests.integration.system_kit import System, new_id

ADA = "Ada Ångström <ada@example.org>"


def for_whom(text: str | bytes, **others: str) -> list[tuple[str, str | bytes]]:
    """Headers of a request."""
    return [("Tidelog-On-Behalf-Of", text.encode() if isinstance(text, str) else text), *others.items()]


async def start(system: System, *agents: str, on_behalf_of: str | None = ADA, **body: Any) -> httpx2.Response:
    said = {"plan": {"kind": "sequential", "agents": list(agents)}, **body}
    return await system.http.post("/v1/runs", json=said, headers=for_whom(on_behalf_of) if on_behalf_of else [])


async def test_a_run_its_events_and_its_calls_say_for_whom_they_are(system: System, worker: PlayedWorker) -> None:
    began = await start(system, "alpha")
    assert began.status_code == 201, began.text
    run_id = began.json()["run_id"]
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "mail", to="ann@example.com")
    await (await worker.next("mail", "tool")).lose()
    said = {"result": None, "reason": "It is in the outbox."}
    resolved = await system.http.post(f"/v1/invocations/{invocation_id}/resolve", json=said, headers=for_whom("bob"))
    assert resolved.status_code == 200, resolved.text
    await system.until_topic(run_id, "agent_run.call_finished")
    await alpha.complete("done")
    run = await system.ended(run_id)
    [(key_id,)] = await system.sql("SELECT key_id FROM api_key")
    assert (run["actor"], run["on_behalf_of"]) == (f"key:{key_id}", ADA)
    then = (await system.http.get(f"/v1/runs/{run_id}?as_of={began.json()['position']}")).json()
    assert (then["actor"], then["on_behalf_of"]) == (f"key:{key_id}", ADA)
    for query in ("", f"?as_of={began.json()['position']}"):
        [listed] = (await system.http.get(f"/v1/runs{query}")).json()["data"]
        assert (listed["run_id"], listed["actor"], listed["on_behalf_of"]) == (run_id, f"key:{key_id}", ADA)
    call = (await system.http.get(f"/v1/invocations/{invocation_id}")).json()
    assert (call["resolution"]["by"], call["resolution"]["on_behalf_of"]) == (f"key:{key_id}", "bob")
    assert run["steps"][0]["calls"][0]["resolution"]["on_behalf_of"] == "bob"
    events = (await system.http.get(f"/v1/runs/{run_id}/events?limit=1000")).json()["data"]
    assert {event["type"] for event in events if event["onbehalfof"] == "bob"} == {"invocation.resolved", "agent_run.call_finished"}
    assert {event["onbehalfof"] for event in events} == {ADA, "bob"}
    copied = [who_asked(event.metadata)[1] for event in await read_from_nats(system) if str(event.root_id) == run_id]
    assert sorted(map(str, copied)) == sorted(event["onbehalfof"] for event in events), "the messages of NATS have the text, too"


async def read_from_nats(system: System) -> list[RecordedEvent]:
    head, found = await system.copied(), list[RecordedEvent]()
    async with aclosing(system.subscription.batches(after=0, name="test")) as batches:
        async for batch in batches:
            found += batch
            if found and found[-1].position >= head:
                break
    return found


async def test_without_the_header_events_and_runs_are_for_nobody(system: System, worker: PlayedWorker) -> None:
    run_id = (await start(system, "alpha", on_behalf_of=None)).json()["run_id"]
    await (await worker.next("alpha")).complete()
    run = await system.ended(run_id)
    assert run["actor"].startswith("key:") and run["on_behalf_of"] is None
    assert all("on_behalf_of" not in event.metadata for event in await system.events(run_id))
    assert all("onbehalfof" not in e for e in (await system.http.get(f"/v1/runs/{run_id}/events")).json()["data"])


@pytest.mark.parametrize("text", [b"", b"x" * 201, b"a\xff", "a\u202eb".encode(), "\u2028".encode()])
async def test_a_text_that_cannot_be_taken_is_refused_before_anything_is_done(shared: System, text: bytes) -> None:
    for path, body in (("/v1/runs", {"agent": "alpha"}), ("/v1/projects", {"name": "p"}), (f"/v1/runs/{new_id()}/cancel", {})):
        refused = await shared.http.post(path, json=body, headers=for_whom(text))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-command"), refused.text
        assert refused.json()["detail"].startswith("Tidelog-On-Behalf-Of ")
    stranger = await shared.http.get("/v1/runs", headers=[("Authorization", "Bearer no"), *for_whom(text)])
    assert stranger.status_code == 401, "who has no key learns nothing else"


async def test_two_of_them_are_refused(shared: System) -> None:
    twice = await shared.http.post("/v1/projects", json={"name": "p"}, headers=[*for_whom("ada"), *for_whom("ada")])
    assert (twice.status_code, twice.json()["detail"]) == (422, "the header tidelog-on-behalf-of is given more than once")


async def test_a_key_is_for_one_of_them(system: System, worker: PlayedWorker) -> None:
    run_id = str(new_id())
    path = f"/v1/runs/{run_id}/cancel"
    for route, body in (("/v1/runs", {"agent": "alpha", "run_id": run_id}), ("/v1/projects", {"name": "p"}), (path, {})):
        first = await system.http.post(route, json=body, headers=for_whom("ada", **{"Idempotency-Key": "k"}))
        assert first.status_code < 300, first.text
        again = await system.http.post(route, json=body, headers=for_whom(" ada ", **{"Idempotency-Key": "k"}))
        assert again.json() == first.json() and again.headers["idempotency-replayed"] == "true"
        for other in (for_whom("bob", **{"Idempotency-Key": "k"}), [("Idempotency-Key", "k")]):
            refused = await system.http.post(route, json=body, headers=other)
            assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused"), refused.text
    cancelled = [event for event in await system.events(run_id) if event.topic == "run.cancelled"]
    assert [who_asked(event.metadata)[1] for event in cancelled] == ["ada"]


async def test_a_start_under_a_name_of_its_own_is_for_one_of_them(system: System, worker: PlayedWorker) -> None:
    run_id = str(new_id())
    first = await start(system, "alpha", run_id=run_id)
    assert (await start(system, "alpha", run_id=run_id)).json() == first.json()
    for other in ("bob", None):
        refused = await start(system, "alpha", run_id=run_id, on_behalf_of=other)
        assert refused.status_code == 409 and "on behalf of another" in refused.json()["detail"], refused.text


async def test_runs_that_are_stored_as_documents_show_it_from_the_log(system: System, worker: PlayedWorker) -> None:
    """As long as a process of the release before is among the members, and afterwards until a rebuild."""
    await system.sql(OLD_MEMBER)
    run_id = (await start(system, "alpha")).json()["run_id"]
    run = await system.run(run_id)
    [(document,)] = await system.sql("SELECT view FROM run WHERE run_id = %s", UUID(run_id))
    assert document is not None and b"on_behalf_of" not in document and b"actor" not in document
    assert documents.read(document).on_behalf_of is None
    assert run["actor"].startswith("key:") and run["on_behalf_of"] == ADA
    [listed] = (await system.http.get("/v1/runs")).json()["data"]
    assert (listed["actor"], listed["on_behalf_of"]) == (run["actor"], ADA)
