"""The work of sessions through the use cases and sagas, in memory: claims, lapses, tokens, and a worker that comes back."""

from uuid import UUID, uuid4

import pytest

from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import HeldWork, WorkerSession
from application.workers.claims import ClaimedAgentRun
from application.workers.sessions import ClaimedCall
from application.workers.tokens import LeaseTokens
from domain.agent_runs import CompleteAgentRun
from domain.errors import StaleAttempt
from domain.invocations import CompleteInvocation
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.memory import MemoryInstallationSecrets
from tests.kit.waiting import TENANT, new_id


async def session_at(engine: Engine, worker_id: str = "s1") -> WorkerSession:
    session = WorkerSession(new_id(), TENANT, worker_id, "key:test", uuid4(), "0.9.0")
    assert await engine.sessions.open(session, "secret", most_of_actor=10, most_of_tenant=10)
    return session


async def dispatched(engine: Engine, worker: PlayedWorker, pool: str = "alpha", kind: str = "agent") -> WorkItem:
    await engine.settled()
    delivery = await worker.take(pool, kind)
    await delivery.ack()
    return delivery.item


async def called(engine: Engine, worker: PlayedWorker, tool: str = "mail") -> WorkItem:
    """A call that waits for a session, of an agent that a worker without a session runs."""
    await engine.start("beta")
    agent: Claim = await worker.next("beta")
    await agent.call("c", tool, **({"a": 1} if tool == "add" else {}))
    return await dispatched(engine, worker, tool, "tool")


async def claim(engine: Engine, session: WorkerSession, item: WorkItem, worker: PlayedWorker, name: UUID | None = None) -> object:
    return await engine.workers.sessions.claim(worker.caller, session, item, name or uuid4())


async def held_by(engine: Engine, session: WorkerSession) -> list[HeldWork]:
    return list((await engine.sessions.held_by([session.session_id])).work)


async def test_the_same_claim_gets_its_first_answer_and_any_other_none(engine: Engine, worker: PlayedWorker) -> None:
    one, two, name = await session_at(engine), await session_at(engine), uuid4()
    await engine.start("alpha", input={"n": 1})
    item = await dispatched(engine, worker)
    first = await claim(engine, one, item, worker, name)
    assert isinstance(first, ClaimedAgentRun) and (first.attempt, first.agent, first.input) == (1, "alpha", {"n": 1})
    assert await claim(engine.another(), one, item, worker, name) == first
    assert await claim(engine, one, item, worker) is None
    assert await claim(engine, two, item, worker) is None
    assert await claim(engine.another(), two, item, worker) is None
    assert engine.of_stream(item.work_id).count("agent_run.claimed") == 1


async def test_a_lapsed_claim_does_not_come_back_under_its_old_name(engine: Engine, worker: PlayedWorker) -> None:
    one, name = await session_at(engine), uuid4()
    await engine.start("alpha")
    item = await dispatched(engine, worker)
    assert await claim(engine, one, item, worker, name)
    [held] = await held_by(engine, one)
    await engine.workers.sessions.give_back(held, "unsent")
    again = await dispatched(engine, worker)
    assert again.dispatch == 2 and await claim(engine, one, again, worker)
    assert await claim(engine, one, item, worker, name) is None


async def test_work_of_another_log_is_over(engine: Engine, worker: PlayedWorker) -> None:
    one = await session_at(engine)
    for kind in ("agent", "tool"):
        assert await claim(engine, one, WorkItem(TENANT, kind, "alpha", new_id(), 1, new_id()), worker) is None


async def test_a_session_finds_its_work_again(engine: Engine, worker: PlayedWorker) -> None:
    one, work = await session_at(engine), engine.workers.sessions
    call = await called(engine, worker)
    await engine.start("alpha")
    agent = await dispatched(engine, worker)
    given = {item.work_id: await claim(engine, one, item, worker) for item in (call, agent)}
    held = await held_by(engine, one)
    assert {h.work_id: await work.content_of(h) for h in held} == given
    got = given[call.work_id]
    assert isinstance(got, ClaimedCall) and (got.tool, got.arguments, got.idempotent, got.attempt) == ("mail", {}, False, 1)
    for h in held:
        wrong = HeldWork(h.tenant_id, h.kind, h.work_id, h.root_id, h.attempt, uuid4())
        assert await work.content_of(wrong) is None
        await work.give_back(h, "left")
        assert await work.content_of(h) is None


async def test_a_call_that_was_never_sent_is_dispatched_anew(engine: Engine, worker: PlayedWorker) -> None:
    one, two = await session_at(engine), await session_at(engine)
    call = await called(engine, worker)
    assert await claim(engine, one, call, worker)
    [held] = await held_by(engine, one)
    for _ in range(2):
        await engine.workers.sessions.give_back(held, "unsent")
    again = await dispatched(engine, worker, "mail", "tool")
    got = await claim(engine, two, again, worker)
    assert isinstance(got, ClaimedCall) and got.attempt == 2
    assert await held_by(engine, one) == []


async def test_a_worker_may_report_what_its_session_claimed(engine: Engine, worker: PlayedWorker) -> None:
    one, work = await session_at(engine), engine.workers.sessions
    call, tokens = await called(engine, worker), work.tokens
    await tokens.ready()
    await engine.start("alpha")
    agent = await dispatched(engine, worker)
    for item, kind in ((call, "tool"), (agent, "agent")):
        assert await claim(engine, one, item, worker)
        token = tokens.token_of(item.work_id, 1, one.session_id)
        assert await work.may_report(TENANT, item.work_id, 1, token) == kind
        assert await work.may_report(TENANT, item.work_id, 1, tokens.token_of(item.work_id, 1, uuid4())) is None
        assert await work.may_report(TENANT, item.work_id, 2, tokens.token_of(item.work_id, 2, one.session_id)) is None
        assert await work.may_report(new_id(), item.work_id, 1, token) is None
    for held in await held_by(engine, one):
        await work.give_back(held, "lost")
    assert (await engine.invocation(call.work_id)).status == "ambiguous"
    assert await work.may_report(TENANT, call.work_id, 1, tokens.token_of(call.work_id, 1, one.session_id)) == "tool"
    assert await work.may_report(TENANT, agent.work_id, 1, tokens.token_of(agent.work_id, 1, one.session_id)) is None
    with pytest.raises(StaleAttempt):
        await engine.workers.outcomes.complete(worker.caller, CompleteAgentRun(agent_run_id=agent.work_id, attempt=1))


async def test_an_ambiguous_call_is_taken_back_by_the_report_of_its_worker(engine: Engine, worker: PlayedWorker) -> None:
    one, work = await session_at(engine), engine.workers.sessions
    call = await called(engine, worker)
    assert await claim(engine, one, call, worker)
    [held] = await held_by(engine, one)
    await work.give_back(held, "lost")
    done = CompleteInvocation(invocation_id=call.work_id, attempt=1, result="sent")
    await engine.workers.invocations.complete(worker.caller, done)
    await engine.settled()
    assert (await engine.invocation(call.work_id)).status == "succeeded"
    [*_, last] = engine.of_stream(call.work_id)
    assert last == "invocation.succeeded" and engine.topics(call.root_id).count("agent_run.call_finished") == 1


async def test_a_claim_of_a_lost_session_lapses_also_where_the_read_model_does_not_know_of_it(
    engine: Engine, worker: PlayedWorker
) -> None:
    """As after a projector of the release before, which does not write down who has claimed the work."""
    lost, two = await session_at(engine), await session_at(engine)
    await engine.start("alpha")
    item = await dispatched(engine, worker)
    assert await claim(engine, lost, item, worker)
    engine.open_work.claims.clear()
    assert await claim(engine, two, item, worker) is None
    await engine.sessions.end([lost.session_id])
    assert await claim(engine, two, item, worker) is None
    again = await dispatched(engine, worker)
    assert again.dispatch == 2 and await claim(engine, two, again, worker)


async def test_the_queue_is_not_filled_with_work_that_a_session_has(engine: Engine, worker: PlayedWorker) -> None:
    one = await session_at(engine)
    await engine.start("alpha")
    item = await dispatched(engine, worker)
    assert await claim(engine, one, item, worker)
    await engine.advance(3600)
    await engine.reconciler.sweep()
    assert await worker.nothing_to_take("alpha")
    await engine.workers.outcomes.complete(worker.caller, CompleteAgentRun(agent_run_id=item.work_id, attempt=1))
    assert engine.session_board.held() == []


async def tokens_with(secret: bytes) -> LeaseTokens:
    tokens = LeaseTokens(MemoryInstallationSecrets(secret))
    await tokens.ready()
    return tokens


async def test_a_token_is_of_one_attempt_and_one_session() -> None:
    tokens, work, session = await tokens_with(b"s" * 32), new_id(), new_id()
    token = tokens.token_of(work, 3, session)
    assert len(token) == 22 and tokens.fits(token, work, 3, session)
    assert tokens.token_of(work, 3, session) == (await tokens_with(b"s" * 32)).token_of(work, 3, session)
    assert not tokens.fits(token, new_id(), 3, session) and not tokens.fits(token, work, 2, session)
    assert not tokens.fits(token, work, 3, new_id()) and not tokens.fits(token[:-1], work, 3, session)
    assert not (await tokens_with(b"t" * 32)).fits(token, work, 3, session)
    for odd in ("", "é", "\ud800", "x" * 100_000):
        assert not tokens.fits(odd, work, 3, session)
    assert not tokens.fits(token, work, -1, session) and not tokens.fits(token, work, 2**64, session)


def test_without_a_secret_there_is_no_token() -> None:
    with pytest.raises(RuntimeError):
        LeaseTokens(MemoryInstallationSecrets()).token_of(new_id(), 1, new_id())
