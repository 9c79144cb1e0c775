"""Pages of journals and mailboxes: complete, in order, and each as cheap as the first."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from immutables import Map

from application.engine.ports.log import StreamPlace
from application.workers.hosting.hand import Hand, news_of
from application.workers.hosting.messages import Update
from application.workers.journal import LOADED_AT_ONCE, JournalView
from domain.agent_runs import AgentRun, invocation_id_of
from domain.kernel import RecordedEvent, replace
from domain.runs import Plan, Step, agent_run_id_of
from tests.kit.engine import RETRY, Claim, Engine, PlayedWorker, plan
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import TENANT


@pytest.fixture
async def alpha(engine: Engine, worker: PlayedWorker) -> AsyncIterator[Claim]:
    await engine.start(plan=plan(retry=RETRY))
    yield await worker.next("alpha")


class CountingStore(MemoryEventStore):
    """Counts the statements that read streams. Each is noted with the number of its streams."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.statements: list[int] = []

    async def read_stream(self, *arguments: Any, **bounds: Any) -> list[RecordedEvent]:
        self.statements.append(1)
        return await super().read_stream(*arguments, **bounds)

    async def read_streams(self, places: Sequence[StreamPlace]) -> list[list[RecordedEvent]]:
        found = [
            await super(CountingStore, self).read_stream(one.tenant_id, one.stream_id, after_version=one.after_version)
            for one in places
        ]
        self.statements.append(len(places))
        return found


class CountingMap:
    """A persistent map that counts the looks at it."""

    def __init__(self, inner: Map[int, Any]) -> None:
        self.inner = inner
        self.looks = 0

    def get(self, key: int) -> Any:
        self.looks += 1
        return self.inner.get(key)


async def all_pages(engine: Engine, work_id: UUID, **options: Any) -> list[JournalView]:
    pages = [await engine.workers.journals.page(TENANT, work_id, after_version=0, **options)]
    while pages[-1].more:
        after = pages[-1].version
        pages.append(await engine.workers.journals.page(TENANT, work_id, after_version=after, **options))
    return pages


@pytest.mark.parametrize("number", [1, LOADED_AT_ONCE, LOADED_AT_ONCE + 1, 3 * LOADED_AT_ONCE])
async def test_pages_have_each_entry_once_and_in_order(engine: Engine, alpha: Claim, number: int) -> None:
    for key in range(number):
        await alpha.step(f"k{key}", "x" * 100)
    pages = await all_pages(engine, alpha.work_id, max_bytes=3_000)
    assert [entry.key for page in pages for entry in page.entries] == [f"k{key}" for key in range(number)]
    assert all(len(page.entries) == 10 for page in pages[:-1])
    assert pages[-1].version == (await engine.agent_run(alpha.work_id)).version


async def test_a_page_looks_at_what_is_behind_its_place_only(engine: Engine, alpha: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in range(100):
        await alpha.step(f"k{key}", "x" * 100)
    state = await engine.agent_run(alpha.work_id)
    changed = CountingMap(state.changed)
    seen: AgentRun = replace(state, changed=changed)  # type: ignore[arg-type]

    async def load(*_: Any, **__: Any) -> AgentRun:
        return seen

    monkeypatch.setattr("application.workers.journal.load_agent_run", load)
    page = await engine.workers.journals.page(TENANT, alpha.work_id, after_version=state.version - 3)
    assert [entry.key for entry in page.entries] == ["k97", "k98", "k99"]
    assert changed.looks == 3
    changed.looks = 0
    page = await engine.workers.journals.page(TENANT, alpha.work_id, after_version=0, max_bytes=300)
    assert (len(page.entries), page.more) == (1, True)
    assert changed.looks <= 2 + LOADED_AT_ONCE


async def finish_calls(worker: PlayedWorker, alpha: Claim, number: int) -> None:
    for key in range(number):
        await alpha.call(f"c{key}", "add", a=key)
        await (await worker.next("add", "tool")).complete(key)


async def test_a_claim_loads_few_outcomes(engine: Engine, worker: PlayedWorker, alpha: Claim) -> None:
    """And those with one statement, in a process that has just started."""
    number = 2 * LOADED_AT_ONCE + 20
    await finish_calls(worker, alpha, number)
    await engine.settled()
    await alpha.fail("transient")
    await engine.advance(RETRY.max_s)
    store = CountingStore(engine.log)
    cold = engine.another(store=store)
    again = await PlayedWorker(cold, "worker-2", queues=worker.queues).next("alpha")
    journal = again.given.journal
    assert (len(journal.entries), journal.more) == (LOADED_AT_ONCE, True)
    assert store.statements.count(LOADED_AT_ONCE) == 1
    assert sum(store.statements) < LOADED_AT_ONCE + 10, "the outcomes, the run, the agent run"
    store.statements.clear()
    rest = await cold.workers.journals.page(TENANT, alpha.work_id, after_version=journal.version)
    entries = journal.entries + rest.entries
    assert [(entry.key, entry.status, entry.result) for entry in entries] == [(f"c{n}", "ok", n) for n in range(number)]
    assert not rest.more
    assert sorted(store.statements) == [1, 20, LOADED_AT_ONCE], "what is newer of the agent run, and the outcomes"


async def test_outcomes_that_another_process_recorded_are_read_together(engine: Engine, worker: PlayedWorker, alpha: Claim) -> None:
    number = 10
    store = CountingStore(engine.log)
    other = engine.another(store=store)
    for key in range(number):
        await alpha.call(f"c{key}", "add", a=key)
        await other.invocation(invocation_id_of(alpha.work_id, f"c{key}"))
    for key in range(number):
        await (await worker.next("add", "tool")).complete(key)
    await engine.settled()
    store.statements.clear()
    [page] = await all_pages(other, alpha.work_id)
    assert [(entry.key, entry.result) for entry in page.entries] == [(f"c{n}", n) for n in range(number)]
    assert sorted(store.statements) == [1, number]


async def test_a_mailbox_is_given_in_pages(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=Plan(steps=(Step(key="alpha", agent="alpha"), Step(key="beta", agent="beta"))))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    number = 2 * LOADED_AT_ONCE + 1
    for key in range(number):
        await alpha.send(f"m{key}", "beta", {"n": key})
    pages = await all_pages(engine, agent_run_id_of(run_id, "beta"), max_loads=LOADED_AT_ONCE)
    assert [len(page.mailbox) for page in pages] == [LOADED_AT_ONCE, LOADED_AT_ONCE, 1]
    assert [mail.body["n"] for page in pages for mail in page.mailbox] == list(range(number))
    first = pages[0].mailbox[0].message_id
    await beta.receive("r", first)
    [after] = await all_pages(engine, beta.work_id)
    assert len(after.mailbox) == number - 1 and after.mailbox[0].body["n"] == 1
    assert [(entry.key, entry.result["body"]) for entry in after.entries] == [("r", {"n": 0})]


async def test_what_was_looked_at_for_news_is_not_looked_at_again(engine: Engine, worker: PlayedWorker, alpha: Claim) -> None:
    hand = Hand("agent", alpha.work_id, engine.live, lambda *_: None)
    hand.attempt = alpha.attempt
    for key in range(5):
        await alpha.step(f"k{key}")
    assert await news_of(engine.commands, engine.workers.journals, TENANT, hand) is None
    version = (await engine.agent_run(alpha.work_id)).version
    assert hand.seen == version, "the worker's own steps are no news"
    await finish_calls(worker, alpha, 1)
    await engine.settled()
    hand.heard = version + 2
    news = await news_of(engine.commands, engine.workers.journals, TENANT, hand)
    assert isinstance(news, Update) and [entry.key for entry in news.news.entries] == ["c0"]
    hand.drop()
