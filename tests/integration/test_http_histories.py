"""The answers to readers over HTTP when their history has ended, or when they name a position that does not exist."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from domain.projects import CreateProject
from tests.integration.parts_kit import begun_elsewhere, live_feed
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, new_id, position_of, served, streaming
from tests.pace import ANSWER_S, within
from tidelog import Client, HistoryReplaced
from tidelog.errors import PositionBeyondHead

STREAM = {"Accept": "text/event-stream"}


@pytest_asyncio.fixture
async def url(system: System) -> AsyncIterator[str]:
    async with served(system.container) as url:
        yield url


async def projects(system: System, count: int) -> int:
    for _ in range(count):
        await system.command(CreateProject(project_id=new_id(), name="p"))
    return await system.container.feed.head()


async def current(system: System) -> str:
    return (await system.container.histories.fresh()).histories.current.history_id


def gone(response: httpx2.Response, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (410, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["retryable"] is False
    return document


async def test_a_position_beyond_the_head_is_gone_and_nobody_waits_for_it(system: System) -> None:
    object.__setattr__(system.container.settings, "read_timeout_s", 60.0)
    head = await system.settled()
    began = time.monotonic()
    for path, headers in (
        ("/v1/events?after=9999999", {}),
        (f"/v1/events?after=9999999-{await current(system)}", {}),
        ("/v1/events?after=9999999", STREAM),
        ("/v1/events", {**STREAM, "Last-Event-ID": "9999999"}),
        ("/v1/runs", {"Tidelog-Position": "9999999"}),
        (f"/v1/runs/{new_id()}", {"Tidelog-Position": "9999999"}),
    ):
        assert gone(await system.http.get(path, headers=headers), "position-beyond-head")["head"] == head, path
    assert time.monotonic() - began < system.container.settings.read_timeout_s, "a wait for one of them alone takes as long"
    page = await system.http.get(f"/v1/events?after={head}")
    assert (page.status_code, page.json()["data"], page.headers["Tidelog-Position"]) == (200, [], str(head))


async def test_a_read_as_of_later_than_now_says_what_it_shows(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    head = await system.settled()
    shown = await system.http.get(f"/v1/runs/{run_id}?as_of=9999999")
    assert (shown.status_code, shown.headers["Tidelog-Position"]) == (200, str(head))


async def test_answers_say_of_which_history_they_are(system: System, url: str) -> None:
    head, history = await projects(system, 3), await current(system)
    for path in ("/v1/events", f"/v1/events/{head}"):
        assert (await system.http.get(path)).headers["Tidelog-History"] == history
    async with streaming(url, system.key, "/v1/events", after="0") as stream:
        assert stream.response.headers["Tidelog-History"] == history
        assert (await stream.next()).id.split("-")[:2] == ["1", history]


async def test_a_cursor_of_an_ended_history(system: System, url: str) -> None:
    """A cursor is valid up to the last common position.

    For a later cursor, in each form, the answer gives the cursor with which the reader continues.
    """
    head = await projects(system, 12)
    first, page = await current(system), (await system.http.get("/v1/events", params={"limit": head - 2})).json()
    history = await begun_elsewhere(system, head - 4)

    problem = gone(await system.http.get("/v1/events", params={"after": f"{head}-{first}"}), "history-replaced")
    assert (problem["history"], problem["last_common_position"]) == (history, head - 4)
    assert problem["cursor"].startswith(f"{head - 4}-{history}-")
    assert (
        gone(await system.http.get("/v1/events", params={"cursor": page["next_cursor"]}), "history-replaced")["history"] == history
    )
    again = await system.http.get("/v1/events", params={"after": problem["cursor"]})
    assert [event["position"] for event in again.json()["data"]] == list(range(head - 3, head + 1))
    still = await system.http.get("/v1/events", params={"after": f"{head - 4}-{first}"})
    assert still.json()["data"] == again.json()["data"], "in common"
    bare = await system.http.get("/v1/events", params={"after": head - 1})
    assert [event["position"] for event in bare.json()["data"]] == [head], "a bare position is taken as it is"

    async with streaming(url, system.key, "/v1/events", {"Last-Event-ID": f"{head}-{first}"}) as stream:
        [reset] = await stream.rest()
    assert reset.event == "reset" and reset.id == problem["cursor"]
    assert json.loads(reset.data) == {"history": history, "last_common_position": head - 4, "reason": "a test"}
    async with streaming(url, system.key, "/v1/events", {"Last-Event-ID": reset.id}) as stream:
        assert [position_of(await stream.next()) for _ in range(4)] == list(range(head - 3, head + 1))


async def test_open_streams_are_told(system: System, url: str, worker: PlayedWorker) -> None:
    """Streams of a tenant and of a run whose reader has more than the common part get a message.

    The others end, and reconnect with their id.
    """
    run_id = await system.start("alpha")
    started = await system.settled()
    head = await projects(system, 5)
    async with AsyncExitStack() as opened:
        tenant = await opened.enter_async_context(streaming(url, system.key, "/v1/events", after="0"))
        assert position_of([await tenant.next() for _ in range(head)][-1]) == head
        run = await opened.enter_async_context(streaming(url, system.key, f"/v1/runs/{run_id}/events"))
        behind = await opened.enter_async_context(streaming(url, system.key, "/v1/events", after="0", types="tenant.created"))
        fresh = await opened.enter_async_context(streaming(url, system.key, "/v1/events"))  # the feed has told of everything by now
        seen = [await run.next() for event in await system.events(run_id)]
        assert position_of(await behind.next()) == 1
        await listening(system, 4)
        history = await begun_elsewhere(system, started - 1)
        [reset] = await tenant.rest()
        assert (reset.event, json.loads(reset.data)["last_common_position"]) == ("reset", started - 1)
        [told] = await run.rest()
        assert position_of(seen[-1]) == started and (told.event, told.id) == ("reset", reset.id)
        assert await behind.rest() == [], "its last event still is in the log"
        [begins] = await fresh.rest()
        assert (begins.event, json.loads(begins.data)["history"]) == ("reset", history), "it has no id yet to come again with"
    async with streaming(url, system.key, "/v1/events", {"Last-Event-ID": reset.id}) as again:
        assert position_of(await again.next()) == started
        assert (await current(system)) == history


async def listening(system: System, count: int) -> None:
    async def joined() -> bool:
        return system.container.live.listeners >= count

    await eventually(joined, "listeners")


async def test_the_sdk_raises_and_goes_on_with_the_cursor_of_the_error(system: System, url: str) -> None:
    head = await projects(system, 8)
    async with Client(url, system.key) as client:
        streamed, paged = [], [event async for event in client.events(follow=False)]
        with pytest.raises(HistoryReplaced) as caught:
            async for event in client.events():
                streamed.append(event)
                if event.position == head:
                    history = await begun_elsewhere(system, head - 3)
        error = caught.value
        assert (error.last_common_position, error.history, error.status) == (head - 3, history, 410)
        assert [event.position for event in streamed] == list(range(1, head + 1))
        assert {event.history for event in (*streamed, *paged)} == {streamed[0].history} != {history}
        assert "cursor" not in streamed[0].model_dump()
        for cursor in (streamed[-1].cursor, paged[-1].cursor):
            assert cursor is not None
            for follow in (True, False):
                with pytest.raises(HistoryReplaced) as again:
                    _ = [event async for event in client.events(after=cursor, follow=follow)]
                assert again.value.last_common_position == head - 3
        rest = [event async for event in client.events(after=error.cursor, follow=False)]
        assert [(event.position, event.history) for event in rest] == [(at, history) for at in range(head - 2, head + 1)]


async def test_a_client_whose_command_was_lost_is_told_once(system: System, url: str) -> None:
    async with Client(url, system.key) as client:
        written = await client.create_project("lost")
        await system.settled()
        client._position = 9_999_999  # as if the log were older
        with pytest.raises(PositionBeyondHead):
            await client.projects()
        assert written.project_id in [project.project_id for project in await client.projects()]


async def test_others_events_bring_no_heartbeat(system: System, worker: PlayedWorker) -> None:
    """A run's stream with only one type is silent while other events happen in the run.

    The stream has an hour until the heartbeat that silence brings: the events may take as long as they like.
    """
    run_id = await system.start("alpha")
    path, headers = f"/v1/runs/{run_id}/events", {**STREAM, "Authorization": f"Bearer {system.key}"}
    async with (
        live_feed(system, silence_s=3_600.0) as feed,
        served(replace(system.container, live=feed)) as url,
        httpx2.AsyncClient(base_url=url, timeout=ANSWER_S) as client,
        client.stream("GET", path, params={"types": "run.started,run.completed"}, headers=headers) as response,
    ):
        lines = response.aiter_lines()
        seen = await until(lines, "event: run.started")
        claim = await worker.next("alpha")
        for number in range(10):
            await claim.call(f"k{number}", "add", a=1)
            await system.settled()
        await claim.complete()
        seen += await until(lines, "event: run.completed")
    assert ": heartbeat" not in seen


async def until(lines: AsyncIterator[str], wanted: str) -> list[str]:
    seen = []
    async with within(30):
        async for line in lines:
            seen.append(line)
            if line == wanted:
                return seen
    raise AssertionError(f"the stream ended without {wanted}")


async def test_states_of_the_lost_history_are_forgotten(system: System, worker: PlayedWorker) -> None:
    """A process has a cancelled run in its cache.

    The log has lost the cancellation, and the run goes on from the state in the log.
    """
    run_id = await system.start("alpha")
    kept = await system.settled()
    assert (await system.http.post(f"/v1/runs/{run_id}/cancel", json={})).status_code == 202
    await system.settled()
    await system.sql("DELETE FROM command WHERE last_position > %s", kept)
    await system.sql("DELETE FROM event WHERE notification_id > %s", kept)
    await system.sql("UPDATE log_head SET position = %s", kept)
    await begun_elsewhere(system, kept)

    async def cancelled() -> bool:
        await system.http.post(f"/v1/runs/{run_id}/cancel", json={})
        return "run.cancelled" in await system.topics(run_id)

    await eventually(cancelled, "the run as the log has it")
