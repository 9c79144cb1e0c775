"""Tool calls and messages as of a position: equal to what the read model said when it was there, for every position of a log."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from adapters.postgres.log.histories import PostgresHistories
from application.engine.ports.pages import Page, position_cursor
from application.engine.ports.views import ListedRow
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import InvocationsWanted
from application.runs.contents import PageOf, RunContents
from application.views.large import LARGE_BYTES
from domain import agent_runs, runs
from domain.errors import NotFound, PayloadTooLarge, ProjectionBehind
from domain.failures import Failure, Retry
from domain.invocations import (
    AttemptStarted,
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationRequested,
    LapseAttempt,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
)
from domain.kernel import Command, Event
from domain.messages import MessageSent
from domain.tenants import DEFAULT_TENANT_ID
from projections import invocations, messages, moments
from projections.invocations import InvocationQueries
from projections.messages import MessageQueries
from projections.runs import RunQueries
from tests.integration.projection_kit import PLAN, PROJECT, Log, all_pages, at_every_position, handled, in_random_order, log_on
from tests.integration.system_kit import System, new_id, served
from tidelog import Client

RUNS = (new_id(), new_id())
STATUSES = ("requested", "running", "retrying", "succeeded", "failed", "ambiguous", "cancelled")
FILTERS = [
    *((status, None) for status in (None, *STATUSES)),
    *((status, RUNS[0]) for status in (None, "running", "succeeded")),
]
REQUESTED = InvocationRequested(
    run_id=RUNS[0], agent_run_id=new_id(), key="k", tool="t", arguments={}, idempotent=True, timeout_s=60, retry=Retry()
)
ERROR = Failure(type="KeyError", message="'ticket'")


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with log_on(database_url) as log:
        yield log


def lives_of_calls(run_id: UUID) -> list[list[Command]]:
    """Calls that come to each status in each way, with values that lists do not read."""

    def call(*steps: str, idempotent: bool = True) -> list[Command]:
        id, large = new_id(), "x" * LARGE_BYTES
        known: dict[str, Command] = {
            "request": RequestInvocation(
                invocation_id=id, run_id=run_id, agent_run_id=new_id(), key="k", tool="t", arguments={"a": large},
                idempotent=idempotent, timeout_s=60, retry=Retry(max_attempts=3),
            ),
            "claim": ClaimInvocation(invocation_id=id, worker_id="w", dispatch=1, session_id=new_id()),
            "claim again": ClaimInvocation(invocation_id=id, worker_id="w", dispatch=2, session_id=new_id()),
            "lapse": LapseAttempt(invocation_id=id, attempt=1, reason="lost"),
            "be refused": FailInvocation(invocation_id=id, attempt=1, error=ERROR.model_copy(update={"kind": "transient"})),
            "requeue": RequeueInvocation(invocation_id=id, dispatch=2),
            "fail": FailInvocation(invocation_id=id, attempt=1, error=ERROR),
            "complete": CompleteInvocation(invocation_id=id, attempt=1, result=large),
            "complete again": CompleteInvocation(invocation_id=id, attempt=2, result=1),
            "resolve": ResolveInvocation(invocation_id=id, error=ERROR, by="ann", reason="seen"),
            "cancel": CancelInvocation(invocation_id=id),
        }  # fmt: skip
        return [known[step] for step in steps]

    return [
        call("request"),
        call("request", "claim"),
        call("request", "cancel"),
        call("request", "claim", "fail"),
        call("request", "claim", "complete"),
        call("request", "claim", "cancel"),
        call("request", "claim", "cancel", "complete"),
        call("request", "claim", "be refused", "requeue"),
        call("request", "claim", "be refused", "requeue", "claim again", "complete again"),
        call("request", "claim", "lapse", "claim again"),
        call("request", "claim", "lapse", idempotent=False),
        call("request", "claim", "lapse", "cancel", idempotent=False),
        call("request", "claim", "lapse", "resolve", idempotent=False),
    ]


async def listed(reads: InvocationQueries, position: int | None, limit: int, **filters: Any) -> list[dict[str, Any]]:
    return await all_pages(reads, position, limit, lambda before: InvocationsWanted(limit, before, **filters))


@pytest.mark.parametrize("looked_at", [20_000, 4])
async def test_lists_of_calls_at_every_position_are_those_of_then(
    log: Log, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    """Also where a page looks at few calls."""
    reads = InvocationQueries(log.database)
    lives = lives_of_calls(RUNS[0]) + lives_of_calls(RUNS[1])[1:3]
    await in_random_order(log, looked_at, lives, reactions=False)
    started = AttemptStarted(attempt=1, worker_id="w", dispatch=1)
    head = await log.append(RUNS[0], (new_id(), 0, [REQUESTED, started]))  # events of one time
    then = await at_every_position(log, invocations.PROJECTION, lambda: listed(reads, None, 1_000))
    monkeypatch.setattr(moments, "LOOKED_AT", looked_at)
    found: Counter[tuple[str | None, ...]] = Counter()
    for position, calls in then.items():
        for status, run_id in FILTERS[position % 3 :: 3] if position < head else FILTERS:
            limit = 100 if position % 4 else 3
            given = [call for call in calls if status in (None, call["status"]) and run_id in (None, UUID(call["run_id"]))]
            assert await listed(reads, position, limit, status=status, run_id=run_id) == given, (position, status, run_id, limit)
            found[status, str(run_id)] += len(given)
    assert len(found) == len(FILTERS) and min(found.values()) > 0, "each filter found something"


async def test_a_list_of_calls_that_is_not_there_or_costs_too_much_is_refused(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await in_random_order(log, 1, lives_of_calls(RUNS[0])[:5], reactions=False)
    head, reads = await log.feed.head(), InvocationQueries(log.database)
    with pytest.raises(ProjectionBehind):
        await reads.list_as_of(DEFAULT_TENANT_ID, head, InvocationsWanted(10))
    await handled(log, invocations.PROJECTION)
    monkeypatch.setattr(moments, "MAX_EVENTS", 3)
    with pytest.raises(PayloadTooLarge, match="limit"):
        await reads.list_as_of(DEFAULT_TENANT_ID, head - 1, InvocationsWanted(10))
    with_few = await reads.list_as_of(DEFAULT_TENANT_ID, 2, InvocationsWanted(10))
    assert len(with_few.data) <= 2


async def make_mail(log: Log, run_id: UUID) -> None:
    """Messages that are sent, delivered, received and refused, alone or in one append, with small and with large bodies."""
    await log.append(run_id, (run_id, 0, [runs.RunStarted(project_id=PROJECT, plan=PLAN)]))
    given, mailbox = random.Random(3), new_id()
    waiting: list[list[Event]] = []
    for number in range(12):
        message_id, large = new_id(), number % 4 == 1
        body = {"n": number, "ü": "ö" * (LARGE_BYTES if large else 1)}
        sent = MessageSent(run_id=run_id, sender="a", sender_id=new_id(), recipient="b", recipient_id=mailbox, body=body)
        await log.append(run_id, (message_id, 0, [sent]))
        event = (await log.feed.read(after=await log.feed.head() - 1, limit=1))[0]
        delivered = agent_runs.MailDelivered(message_id=message_id, sender="a", sent_at=event.recorded_at)
        received = agent_runs.MailReceived(attempt=1, key=f"r{number}", message_id=message_id)
        refused = agent_runs.MailRefused(message_id=message_id, reason="the recipient is completed")
        waiting.append([[], [delivered], [delivered, received], [refused]][number % 4])
    timed_out = agent_runs.MailReceived(attempt=1, key="late", message_id=None)
    waiting.append([timed_out])
    version = 0
    while waiting := [left for left in waiting if left]:
        some = [left.pop(0) for left in given.sample(waiting, min(len(waiting), given.randint(1, 3)))]
        await log.append(run_id, (mailbox, version, some))
        version += len(some)


async def test_messages_at_every_position_are_those_of_then(log: Log) -> None:
    run_id, mail = new_id(), MessageQueries(log.database)
    histories = HistoryKeeper(PostgresHistories(log.database._pool))
    contents = RunContents(RunQueries(log.database), mail, log.feed, histories)
    await make_mail(log, run_id)

    def shown(page: Page[Any]) -> list[dict[str, Any]]:
        entries: list[ListedRow] = page.data
        return [entry.model_dump(mode="json") for entry in entries]

    async def now() -> list[dict[str, Any]]:
        return shown((await mail.list(DEFAULT_TENANT_ID, run_id, limit=100, after=0)).value)

    then = await at_every_position(log, messages.PROJECTION, now)
    assert {entry["status"] for entry in then[await log.feed.head()]} == {"sent", "delivered", "received", "refused"}
    assert any(entry["large"] for entry in then[await log.feed.head()])
    del then[0]
    for position, expected in then.items():
        found, after = [], 0
        while True:
            page = await contents.messages(PageOf(DEFAULT_TENANT_ID, run_id, 5, after, str(position)))
            assert page.position == position and len(page.value.data) <= 5
            found += shown(page.value)
            if page.value.next_cursor is None:
                break
            after = position_cursor(page.value.next_cursor) or 0
        assert found == expected, position
    with pytest.raises(NotFound):
        await contents.messages(PageOf(DEFAULT_TENANT_ID, run_id, 5, 0, "0"))


async def test_calls_and_messages_of_then_over_http_and_the_sdk(shared: System) -> None:
    """By position and by time, page by page, with filters; the answer has the position."""
    player = shared.worker("calls-of-then")
    await player.register("calls-of-then", tools=["of-then"])
    run_id = await shared.start("calls-of-then")
    claim = await player.next("calls-of-then")
    first, second = [await claim.call(key, "of-then", n=key) for key in ("one", "two")]
    await claim.ok("send", key="to-self", to="calls-of-then", body={"a": 1})
    before = (await shared.http.get(f"/v1/runs/{run_id}/events")).json()["data"][-1]
    at = before["position"]
    call = await player.next("of-then", "tool")
    await call.complete(1)
    await shared.settled()
    path = "/v1/invocations"
    for as_of in (str(at), before["time"][:-1] + "999Z"):
        given = {"as_of": as_of, "run_id": run_id, "limit": 1}
        page = await shared.http.get(path, params=given)
        assert (page.status_code, page.headers["tidelog-position"]) == (200, str(at)), page.text
        following = await shared.http.get(path + page.headers["link"].split(">")[0][1:])
        both = page.json()["data"] + following.json()["data"]
        assert {entry["invocation_id"]: entry["status"] for entry in both} == {first: "requested", second: "requested"}
        assert (await shared.http.get(path, params=given | {"status": "succeeded"})).json()["data"] == []
        one = await shared.http.get(f"{path}/{call.work_id}", params={"as_of": as_of})
        assert (one.json()["status"], one.json()["attempt"], one.headers["etag"]) == ("requested", 0, '"v1"')
    now = await shared.http.get(path, params={"run_id": run_id, "status": "succeeded"})
    assert [entry["invocation_id"] for entry in now.json()["data"]] == [call.work_id]
    sent = await shared.http.get(f"/v1/runs/{run_id}/messages", params={"as_of": at})
    assert [(entry["body"], entry["position"] <= at) for entry in sent.json()["data"]] == [({"a": 1}, True)]
    assert sent.headers["tidelog-position"] == str(at)
    none = await shared.http.get(f"/v1/runs/{run_id}/messages", params={"as_of": sent.json()["data"][0]["position"] - 1})
    assert none.json() == {"data": [], "next_cursor": None}
    beyond = 10**17  # means the newest event
    assert (await shared.http.get(path, params={"as_of": beyond, "run_id": run_id, "status": "succeeded"})).json() == now.json()
    assert (await shared.http.get(path, params={"as_of": 0})).json() == {"data": [], "next_cursor": None}
    for unknown in (f"{path}/{first}?as_of=1", f"/v1/runs/{run_id}/messages?as_of=1", f"/v1/runs/{new_id()}/messages?as_of={at}"):
        assert (await shared.http.get(unknown)).json()["code"] == "not-found"
    for wrong in (f"{path}?as_of=yesterday", f"{path}/{first}?as_of=-1", f"/v1/runs/{run_id}/messages?as_of="):
        assert (await shared.http.get(wrong)).status_code == 422
    async with served(shared.container) as url, Client(url, shared.key) as client:
        run, one_call = UUID(run_id), UUID(call.work_id)
        assert {entry.status for entry in await client.invocations(run_id=run, as_of=at)} == {"requested"}
        assert [(await client.invocation(one_call, as_of=moment)).status for moment in (at, None)] == ["requested", "succeeded"]
        assert await client.messages(run, as_of=at) == await client.messages(run)
