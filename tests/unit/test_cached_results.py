"""Results that answer later calls: whose, for how long, and that a tool which keeps none pays nothing."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from application.calls import WantedCall
from application.tool_calls import Called
from domain import invocations, tools
from domain.errors import Unavailable
from domain.failures import Retry
from domain.invocations import CachedResult, InvocationRequested, InvocationSucceeded, RequestInvocation, cache_key
from domain.kernel import Json
from domain.tool_policy import ToolPolicy
from domain.tools import tool_id_of
from tests.kit import given
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryCachedCalls
from tests.kit.waiting import TENANT, new_id, request_of

KEEPS = {"idempotent": True, "policy": ToolPolicy(cache_s=60.0)}
ID, FIRST = UUID("01900000-0000-7000-8000-0000000000ee"), UUID("01900000-0000-7000-8000-0000000000dd")


async def call(
    engine: Engine, *, cache: bool = True, tool: str = "rates", on_behalf_of: str | None = None, **given: Json
) -> Called:
    id = new_id()
    request = request_of(TENANT, id)._replace(on_behalf_of=on_behalf_of)
    return await engine.workers.client_calls.call("rates", WantedCall(request, id, "k", given, cache=cache))


async def answered(engine: Engine, worker: PlayedWorker, result: Json, **given: Any) -> UUID:
    """A call that the worker carries out."""
    called = await call(engine, **given)
    assert not called.cached
    await (await worker.next("rates", "tool")).complete(result)
    await engine.settled()
    return called.invocation_id


async def state_of(engine: Engine, called: Called) -> invocations.Invocation:
    return await engine.invocation(called.invocation_id)


async def test_a_call_of_the_same_is_answered_at_once_and_the_ledger_says_from_where() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        first = await answered(engine, worker, {"cents": 7}, country="no", weight=1)
        again = await call(engine, weight=1, country="no")
        state = await state_of(engine, again)
        assert again.cached and (state.status, state.result, state.attempt) == ("succeeded", {"cents": 7}, 0)
        assert state.requested is not None and (state.requested.cached_from, state.requested.cacheable) == (first, True)
        assert engine.topics(again.invocation_id) == ["invocation.requested", "invocation.succeeded"]
        assert await worker.nothing_to_take("rates", "tool")
        # An answer from the cache does not hold on from then: it is as old as the result.
        engine.clock.advance(40)
        assert (await call(engine, weight=1, country="no")).cached
        engine.clock.advance(21)
        assert not (await call(engine, weight=1, country="no")).cached


@pytest.mark.parametrize("other", [{"country": "se"}, {"country": "no", "weight": True}, {"country": "no"}])
async def test_other_arguments_are_another_call(other: dict[str, Json]) -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        await answered(engine, worker, 1, country="no", weight=1)
        assert not (await call(engine, **other)).cached


async def test_whoever_says_no_and_whoever_asks_for_somebody_else_calls_the_tool() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        await answered(engine, worker, 1, country="no", on_behalf_of="user:ada")
        assert not (await call(engine, country="no", on_behalf_of="user:bob")).cached
        assert not (await call(engine, country="no")).cached
        assert not (await call(engine, country="no", on_behalf_of="user:ada", cache=False)).cached
        assert (await call(engine, country="no", on_behalf_of="user:ada")).cached


async def test_a_failure_is_not_kept() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        await call(engine, country="no")
        await (await worker.next("rates", "tool")).fail()
        await engine.settled()
        assert not (await call(engine, country="no")).cached


async def test_another_version_has_results_of_its_own() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": {**KEEPS, "version": "1"}})
        await answered(engine, worker, 1, country="no")
        await worker.register(tools_={"rates": {**KEEPS, "version": "2"}})
        assert not (await call(engine, country="no")).cached


async def test_a_tool_that_keeps_nothing_asks_nothing() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": {"idempotent": True}})
        cached = engine.workers.calls._cached._calls
        assert isinstance(cached, MemoryCachedCalls)
        await answered(engine, worker, 1, country="no")
        state = await state_of(engine, await call(engine, country="no"))
        assert cached.asked == 0 and state.requested is not None and not state.requested.cacheable


async def test_where_the_cache_cannot_be_read_the_tool_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        await answered(engine, worker, 1, country="no")

        async def away(*_: object) -> None:
            raise Unavailable("the read model is away")

        monkeypatch.setattr(engine.workers.calls._cached._calls, "newest", away)
        called = await call(engine, country="no")
        assert not called.cached
        assert (await worker.next("rates", "tool")).work_id == called.invocation_id


async def test_a_call_that_is_not_the_same_is_not_taken_whatever_the_key_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        wrong = [await answered(engine, worker, 1, country="no"), new_id()]
        wrong.append(await answered(engine, worker, 1, country="se", on_behalf_of="user:ada"))
        for id in wrong:

            async def newest(_: UUID, keys: Sequence[UUID], __: float, id: UUID = id) -> dict[UUID, UUID]:
                return dict.fromkeys(keys, id)

            monkeypatch.setattr(engine.workers.calls._cached._calls, "newest", newest)
            assert not (await call(engine, country="se")).cached


async def test_an_agent_gets_a_result_of_before_in_the_append_of_its_call() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register("alpha", tools_={"rates": KEEPS})
        first = await answered(engine, worker, {"cents": 7}, country="no")
        run_id = await engine.start("alpha")
        alpha = await worker.next("alpha")
        id = await alpha.call("k", "rates", country="no")
        assert [event.topic for event in engine.log.events if event.root_id == run_id][-4:] == [
            "agent_run.call_started", "invocation.requested", "invocation.succeeded", "agent_run.call_finished",
        ]  # fmt: skip
        [entry] = (await alpha.journal()).entries
        assert (entry.status, entry.result) == ("ok", {"cents": 7})
        state = await engine.invocation(id)
        assert state.requested is not None and state.requested.cached_from == first
        await engine.settled()
        assert await worker.nothing_to_take("rates", "tool")


async def test_calls_that_are_answered_and_calls_that_are_not_go_together() -> None:
    async with Engine().running() as engine:
        worker = engine.worker()
        await worker.register(tools_={"rates": KEEPS})
        await answered(engine, worker, 1, country="no")
        calls = [WantedCall(request_of(TENANT), new_id(), "k", {"country": each}) for each in ("se", "no", "no", "dk")]
        answers = await engine.workers.client_calls.call_each(TENANT, "rates", calls)
        assert [isinstance(each, Called) and each.cached for each in answers] == [False, True, True, False]


# --- keys and rules -------------------------------------------------------------------------------------------------------


def test_a_key_is_of_the_tool_its_version_the_arguments_and_for_whom() -> None:
    given_: dict[str, Json] = {"a": 1, "b": {"c": 2, "d": 3}}
    key = cache_key("rates", "1", given_, None)
    assert key == cache_key("rates", "1", {"b": {"d": 3, "c": 2}, "a": 1}, None)
    others = [
        cache_key("rate", "1", given_, None), cache_key("rates", "2", given_, None), cache_key("rates", None, given_, None),
        cache_key("rates", "1", {**given_, "a": 1.0}, None), cache_key("rates", "1", given_, "x"),
    ]  # fmt: skip
    assert len({key, *others}) == 6
    assert cache_key("rates", "1", {"a": 2**70}, None) != cache_key("rates", "1", {"a": 2**70 + 1}, None)


def test_a_call_that_is_answered_begins_and_ends_in_one_decision() -> None:
    asked = RequestInvocation(
        invocation_id=ID, run_id=ID, agent_run_id=ID, key="k", tool="rates", arguments={"a": 1}, idempotent=True, timeout_s=5,
        retry=Retry(), asked_by="client", cacheable=True, cached=CachedResult(invocation_id=FIRST, result=[1]),
    )  # fmt: skip
    given(invocations.DECIDER).when(asked).then(
        InvocationRequested(
            run_id=ID, agent_run_id=ID, key="k", tool="rates", arguments={"a": 1}, idempotent=True, timeout_s=5, retry=Retry(),
            asked_by="client", cacheable=True, cached_from=FIRST,
        ),
        InvocationSucceeded(agent_run_id=ID, key="k", attempt=0, result=[1], asked_by="client", cached_from=FIRST),
    )  # fmt: skip
    given(invocations.DECIDER).after(asked).when(asked.model_copy(update={"cached": None})).then()


def test_only_an_idempotent_tool_keeps_results() -> None:
    wrong = tools.RegisterTool(
        tool_id=tool_id_of(TENANT, "rates"), name="rates", parameters={}, policy=ToolPolicy(cache_s=60), idempotent=False
    )
    assert tools.faults_of(wrong) == [("/policy/cache_s", "only results of an idempotent tool may answer later calls")]
