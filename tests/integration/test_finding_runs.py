"""Filters of the list of runs over HTTP and in the SDK; events within times; the read model behind the filters."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.log import walks as log_walks
from application.reads import RunsWanted
from domain import runs
from domain.errors import ProjectionBehind
from domain.tenants import DEFAULT_TENANT_ID
from projections import runs as run_rows
from projections.run_terms import PROJECTION as RUN_TERMS
from projections.run_terms import term, words
from projections.runs import PROJECTION, RunQueries, walks
from tests.integration.projection_kit import NO_OLD_MEMBER, OLD_MEMBER, PROJECT, all_pages, handled, log_on
from tests.integration.system_kit import System, new_id, position_of, request_of, served, streaming
from tidelog import Client


async def started(system: System, agent: str, **given: Any) -> tuple[str, int]:
    answer = await system.http.post("/v1/runs", json={"agent": agent, **given})
    assert answer.status_code == 201
    return str(answer.json()["run_id"]), int(answer.json()["position"])


async def test_filters_over_http_and_the_sdk(shared: System) -> None:
    await shared.worker("finding").register("finder", "keeper")
    first, _ = await started(shared, "finder", metadata={"case": "=A 1&", "n": 5, "open": True})
    second, position = await started(shared, "finder", metadata={"case": "B"})
    other, _ = await started(shared, "keeper", metadata={"case": "=A 1&"})
    waits = {"Tidelog-Position": str(position + 2)}

    async def ids(**filters: Any) -> list[str]:
        answer = await shared.http.get("/v1/runs", params=filters, headers=waits)
        assert answer.status_code == 200, answer.text
        return [run["run_id"] for run in answer.json()["data"]]

    assert await ids(agent="finder") == [second, first]
    assert await ids(metadata="case==A 1&") == [other, first]
    assert await ids(metadata=["case==A 1&", "n=5", "open=true"]) == [first]
    assert await ids(agent="finder", status="running", limit=1) == [second]
    page = await shared.http.get("/v1/runs", params={"agent": "finder", "limit": 1})
    following = await shared.http.get("/v1/runs" + page.headers["link"].split(">")[0][1:])
    assert [run["run_id"] for run in following.json()["data"]] == [first]
    [event] = (await shared.http.get(f"/v1/runs/{second}/events", params={"types": "run.started"})).json()["data"]
    assert await ids(agent="finder", actor=event["actor"]) == [second, first]
    assert await ids(agent="finder", actor="key:nobody") == []
    assert await ids(agent="finder", as_of=position, metadata="case=B") == [second]
    assert await ids(agent="keeper", as_of=position) == []
    async with served(shared.container) as url, Client(url, shared.key) as client:
        found = await client.list_runs(
            agent="finder", metadata={"n": 5, "open": True}, started_after=datetime(2026, 1, 1, tzinfo=UTC)
        )
        assert [str(run.run_id) for run in found.data] == [first]
        later = await client.list_runs(agent="finder", started_after=datetime.now(UTC) + timedelta(days=1))
        assert not later.data


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("started_after=yesterday", "/started_after"),
        ("started_before=2026-01-01", "/started_before"),
        ("started_before=2026-01-01T00:00:00", "/started_before"),
        ("metadata=customer", "/metadata"),
        ("&".join(f"metadata=m{n}=1" for n in range(9)), "/metadata"),
        ("error=", "/error"),
        ("error=%2D%2D", "/error"),
        ("error=a&error=b", "/error"),
        ("error=refused&as_of=1", "/error"),
        ("agent=a&agent=b", "/agent"),
        ("metadata.customer=c1", "/metadata.customer"),
    ],
)
async def test_what_cannot_be_looked_for_is_refused(shared: System, query: str, place: str) -> None:
    answer = await shared.http.get(f"/v1/runs?{query}")
    assert answer.status_code == 422 and place in answer.text, answer.text


@pytest.mark.parametrize("odd", ["%00", "%ff", "x" * 5000, "%F0%9F%8C%8A", "'; DROP TABLE run_term; --", "%25s %25(term)s"])
async def test_odd_values_find_nothing(shared: System, odd: str) -> None:
    for name in ("agent", "actor", "on_behalf_of"):
        answer = await shared.http.get(f"/v1/runs?{name}={odd}")
        assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert (await shared.http.get(f"/v1/runs?metadata={odd}={odd}")).json()["data"] == []


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59.999999-12:00"])
async def test_times_at_the_ends_of_the_calendar(shared: System, time: str) -> None:
    for path, after, before in (("runs", "started_after", "started_before"), ("events", "recorded_after", "recorded_before")):
        for query in (f"{after}={time}", f"{before}={time}", f"{after}={time}&{before}={time}", f"{before}={time}&as_of=5"):
            answer = await shared.http.get(f"/v1/{path}?{query}&limit=1")
            assert answer.status_code == 200, (query, answer.text)


async def test_events_within_times(shared: System) -> None:
    await shared.worker("timed").register("timed")
    run_id, _ = await started(shared, "timed")
    events = (await shared.http.get(f"/v1/runs/{run_id}/events")).json()["data"]
    time = events[0]["time"]

    async def positions(path: str, **times: str) -> list[int]:
        answer = await shared.http.get(path, params={"limit": 1000, **times})
        assert answer.status_code == 200, answer.text
        return [event["position"] for event in answer.json()["data"]]

    whole = [event["position"] for event in events]
    of_run = f"/v1/runs/{run_id}/events"
    assert (await positions(of_run, recorded_after=time))[: len(whole)] == whole
    assert await positions(of_run, recorded_before=time) == []
    assert (await positions("/v1/events", recorded_after=time))[0] <= whole[0]
    assert whole[0] not in await positions("/v1/events", recorded_before=time)
    for wrong in ("recorded_after=today", "recorded_before=5"):
        assert (await shared.http.get(f"/v1/events?{wrong}")).status_code == 422
    streamed = await shared.http.get(f"/v1/events?recorded_after={time}", headers={"Accept": "text/event-stream"})
    assert streamed.status_code == 422 and "stream" in streamed.text


async def test_the_newest_events_first_page_by_page(shared: System) -> None:
    for name in ("one", "two", "three"):
        assert (await shared.http.post("/v1/projects", json={"name": name})).status_code == 201
    found: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"newest_first": "true", "limit": 2, "as_of": await shared.container.feed.head()}
    oldest_first = (await shared.http.get("/v1/events", params={"limit": 1000, "as_of": asked["as_of"]})).json()["data"]
    while len(found) < 12 and asked.get("cursor") != "":
        answer = await shared.http.get("/v1/events", params=asked)
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
        asked["cursor"] = answer.json()["next_cursor"] or ""
    assert len(oldest_first) < 1000 and found == oldest_first[::-1][: len(found)] and len(found) > 4
    of_one = {"newest_first": "true", "types": "project.created", "actor": found[0]["actor"], "limit": 2}
    assert (await shared.http.get("/v1/events", params=of_one)).json()["data"] == found[:2]
    refused = await shared.http.get("/v1/events?newest_first=true", headers={"Accept": "text/event-stream"})
    assert refused.status_code == 422 and "/newest_first" in refused.text
    assert (await shared.http.get("/v1/events?newest_first=1")).status_code == 422


async def test_events_of_who_asked_and_for_whom(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    for_whom = 'Zoë "Z" \\ <z@example.org>'
    header = {"Tidelog-On-Behalf-Of": for_whom.encode()}
    positions = [
        (await shared.http.post("/v1/projects", json={"name": f"of {number}"}, headers=header)).json()["position"]
        for number in range(3)
    ]
    await shared.worker("asked for").register("asked")
    run_id = (await shared.http.post("/v1/runs", json={"agent": "asked"}, headers=header)).json()["run_id"]
    actor = (await shared.http.get("/v1/events", params={"after": positions[0] - 1, "limit": 1})).json()["data"][0]["actor"]

    async def found(**asked: Any) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = (await shared.http.get("/v1/events", params={**asked, **({"cursor": cursor} if cursor else {})})).json()
            events, cursor = events + page["data"], page["next_cursor"]
            if cursor is None:
                return events

    whole = await found(on_behalf_of=for_whom)
    assert {event["onbehalfof"] for event in whole} == {for_whom} and {*positions} < {event["position"] for event in whole}
    assert await found(on_behalf_of=for_whom, actor=actor, types="project.created") == [
        event for event in whole if event["type"] == "project.created"
    ]
    of_run = await found(on_behalf_of=for_whom, root_id=run_id)
    assert of_run and of_run == [event for event in whole if event["position"] > positions[-1]]
    monkeypatch.setattr(log_walks, "LOOKED_AT", 2)  # so nearly each page is short, and goes on
    assert await found(on_behalf_of=for_whom) == whole and await found(on_behalf_of=for_whom, limit=1) == whole
    assert await found(actor="nobody") == [] and await found(on_behalf_of=for_whom, as_of=positions[0]) == whole[:1]
    for wrong in ("actor=", "on_behalf_of=%00", f"actor={'x' * 501}"):
        assert (await shared.http.get(f"/v1/events?{wrong}")).status_code == 422
    assert (await shared.http.get(f"/v1/runs/{run_id}/events?actor=x")).status_code == 422


async def test_a_stream_of_what_was_asked_for_on_ones_behalf(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed from the log, and live."""
    monkeypatch.setattr(log_walks, "LOOKED_AT", 3)
    header = {"Tidelog-On-Behalf-Of": "user:stream"}

    async def made(name: str, **headers: str) -> int:
        return int((await shared.http.post("/v1/projects", json={"name": name}, headers=headers)).json()["position"])

    expected = [await made("one", **header), await made("other") and await made("two", **header)]
    async with streaming(await shared.url(), shared.key, "/v1/events", on_behalf_of="user:stream", after=0) as stream:
        came = [position_of(await stream.next()) for _ in expected]
        for name in ("three", "four"):
            await made("another")
            expected.append(await made(name, **header))
            came.append(position_of(await stream.next()))
    assert came == expected


async def test_a_search_is_refused_while_old_runs_cannot_be_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with log_on(database_url) as log:
        run_id = await log.run()
        await handled(log, PROJECTION)
        reads, head = RunQueries(log.database), await log.feed.head()
        assert [run.run_id for run in (await reads.list(DEFAULT_TENANT_ID, RunsWanted(9))).value.data] == [run_id]
        late = await reads.list(DEFAULT_TENANT_ID, RunsWanted(9, agent="editor"))
        assert (late.value.data, late.position) == ([], 0), "the answer says how far it knows the log"
        with pytest.raises(ProjectionBehind):
            await reads.list_as_of(DEFAULT_TENANT_ID, head, RunsWanted(9, agent="editor"))
        monkeypatch.setattr(run_rows, "FAR_BEHIND", 3)
        with pytest.raises(ProjectionBehind, match="run_terms"):
            await reads.list(DEFAULT_TENANT_ID, RunsWanted(9, agent="editor"))
        await handled(log, RUN_TERMS)
        found = await reads.list(DEFAULT_TENANT_ID, RunsWanted(9, agent="editor"))
        assert ([run.run_id for run in found.value.data], found.position) == ([run_id], head)


async def test_runs_that_are_documents_are_found(database_url: str) -> None:
    async with log_on(database_url) as log:
        await log.rows(OLD_MEMBER)
        old = await log.run()
        await handled(log, PROJECTION)
        await log.rows(NO_OLD_MEMBER)
        new = await log.run()
        await handled(log, PROJECTION)
        await handled(log, RUN_TERMS)
        assert await log.rows("SELECT run_id FROM run WHERE view IS NOT NULL") == [(old,)]
        reads = RunQueries(log.database)
        for wanted in (RunsWanted(9, agent="editor"), RunsWanted(9, agent="editor", status="completed")):
            assert [run.run_id for run in (await reads.list(DEFAULT_TENANT_ID, wanted)).value.data] == [new, old]


async def test_an_entry_of_one_tenant_shows_no_run_of_another(database_url: str) -> None:
    """As if the hashes of two tenants' terms were the same."""
    async with log_on(database_url) as log:
        foreign, tenant_id = new_id(), new_id()
        start = runs.StartRun(run_id=foreign, project_id=PROJECT, plan=runs.sequential(("editor",)))
        await log.commands.execute(request_of(tenant_id), start)
        own = await log.run()
        await handled(log, PROJECTION)
        await handled(log, RUN_TERMS)
        same = term(DEFAULT_TENANT_ID, "agent", "editor")
        await log.rows("INSERT INTO run_term SELECT %s, created_at, run_id FROM run WHERE run_id = %s", same, foreign)
        reads = RunQueries(log.database)
        for wanted in (RunsWanted(9, agent="editor"), RunsWanted(9, agent="editor", project_id=PROJECT)):
            found = (await reads.list(DEFAULT_TENANT_ID, wanted)).value
            assert [run.run_id for run in found.data] == [own] and found.next_cursor is None
            then = await reads.list_as_of(DEFAULT_TENANT_ID, await log.feed.head(), wanted)
            assert [run.run_id for run in then.data] == [own]


def asked(before: UUID | None, **filters: Any) -> RunsWanted:
    return RunsWanted(2, before, **filters)


async def test_values_that_are_rare_together_are_found_page_by_page(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks at two runs. No run is lost or comes twice, whichever list is walked over."""
    monkeypatch.setattr(walks, "LOOKED_AT", 2)
    async with log_on(database_url) as log:
        begun: list[tuple[str, dict[str, str]]] = []
        for number in range(24):
            metadata = {"two": str(number % 2), "three": str(number % 3), "old": str(number < 3)}
            run_id = new_id()
            plan = runs.sequential(("even" if number % 2 == 0 else "odd",))
            await log.commands.execute(request_of(), runs.StartRun(run_id=run_id, project_id=PROJECT, plan=plan, metadata=metadata))
            if number % 4 == 0:
                await log.commands.execute(request_of(), runs.CancelRun(run_id=run_id))
            begun.insert(0, (str(run_id), metadata | {"status": "cancelled" if number % 4 == 0 else "running"}))
        await handled(log, PROJECTION)
        await handled(log, RUN_TERMS)
        reads, head = RunQueries(log.database), await log.feed.head()
        for wanted in (
            {"two": "1"}, {"two": "1", "three": "0"}, {"two": "1", "old": "True"}, {"two": "0", "three": "2", "old": "True"},
            {"three": "1", "status": "cancelled"}, {"old": "True", "status": "running"}, {"two": "1", "status": "cancelled"},
        ):  # fmt: skip
            expected = [run_id for run_id, has in begun if wanted.items() <= has.items()]
            given = [(name, value) for name, value in wanted.items() if name != "status"]
            for position in (None, head):
                page = partial(asked, status=wanted.get("status"), metadata=given)
                listed = await all_pages(reads, position, 2, page)
                assert [run["run_id"] for run in listed] == expected, (wanted, position)
        monkeypatch.setattr(walks, "LOOKED_AT", 7)
        common = [("two", "0")]
        for rare in ({"metadata": [*common, ("old", "True")]}, {"metadata": common, "status": "cancelled"}):
            found = (await reads.list(DEFAULT_TENANT_ID, RunsWanted(9, **rare))).value
            assert found.data and found.next_cursor is None, "a page looks at all runs of the rarer list"


def test_terms_differ_by_tenant_kind_name_and_value() -> None:
    other = DEFAULT_TENANT_ID.int + 1
    found = {
        term(DEFAULT_TENANT_ID, "agent", "x"), term(UUID(int=other), "agent", "x"),
        term(DEFAULT_TENANT_ID, "actor", "x"), term(DEFAULT_TENANT_ID, "agent", "y"), term(DEFAULT_TENANT_ID, "metadata", "x", "n"),
        term(DEFAULT_TENANT_ID, "metadata", "n", "x"), term(DEFAULT_TENANT_ID, "agent", "\ud800"),
    }  # fmt: skip
    assert len(found) == 7 and all(-(2**63) <= number < 2**63 for number in found)
    assert term(DEFAULT_TENANT_ID, "agent", "x") == 2519695366426458079, "terms are stored: they never change"


def test_words_of_a_text() -> None:
    assert words("KeyError: 'Ticket_7' not found; KEYERROR (Straße)") == ["keyerror", "ticket_7", "not", "found", "strasse"]
    assert words("") == [] and words("x" * 100) == ["x" * 64]
