"""The work of workers in a run: journal, tool calls, mail, shared values; through the use cases and sagas, in memory."""

from dataclasses import replace

import pytest

from domain.agent_runs import CompleteAgentRun
from domain.agents import RegisterAgent, agent_id_of
from domain.errors import InvalidCommand, InvalidState, NotFound, RecipientOver, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS
from domain.invocations import ResolveInvocation
from domain.kernel import Json
from domain.runs import Plan, Step, agent_run_id_of, parallel
from tests.kit.engine import RETRY, Claim, Engine, PlayedWorker, plan
from tests.kit.waiting import TENANT


async def started(engine: Engine, worker: PlayedWorker) -> Claim:
    await engine.start("alpha", "beta")
    return await worker.next("alpha")


# --- journal --------------------------------------------------------------------------------------------------------------


async def test_a_step_is_recorded_once_and_stays(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    first = await alpha.step("k", {"n": 1})
    again = await alpha.step("k", {"n": 1})
    assert again.duplicate and again.position == first.position
    with pytest.raises(RepeatedDifferently):
        await alpha.step("k", {"n": 2})
    assert [(entry.key, entry.kind, entry.result) for entry in (await alpha.journal()).entries] == [("k", "step", {"n": 1})]


async def test_a_key_has_one_kind(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    await alpha.step("k", 1)
    with pytest.raises(InvalidState):
        await alpha.call("k", "add", a=1)


async def test_the_journal_after_a_version_has_what_changed_since(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    await alpha.step("one", 1)
    before = await alpha.journal()
    await alpha.step("two", 2)
    assert [entry.key for entry in (await alpha.journal(before.version)).entries] == ["two"]
    assert [entry.key for entry in (await alpha.journal(before.version - 1)).entries] == ["one", "two"]
    assert (await alpha.journal((await alpha.journal()).version)).entries == []


async def test_the_next_attempt_gets_the_journal(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start(plan=plan(retry=RETRY))
    alpha = await worker.next("alpha")
    await alpha.step("k", "kept")
    await alpha.fail("transient")
    await engine.advance(RETRY.max_s)
    again = await worker.next("alpha")
    assert again.attempt == 2
    assert [(entry.key, entry.result) for entry in again.given.journal.entries] == [("k", "kept")]


@pytest.mark.parametrize("report", ["complete", "fail", "step"])
async def test_an_older_attempt_is_refused(engine: Engine, worker: PlayedWorker, report: str) -> None:
    await engine.start("alpha")
    first = await worker.next("alpha")
    engine.clock.advance(10)  # the worker is silent: the queue hands the item out again
    second = await worker.next("alpha")
    assert (second.attempt, second.delivery.delivery) == (2, 2)
    with pytest.raises(StaleAttempt):
        await (first.step("k") if report == "step" else getattr(first, report)())
    await second.complete()


async def test_work_that_kills_its_workers_fails(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    for attempt in range(1, MAX_LOST_CLAIMS + 1):
        assert (await worker.next("alpha")).attempt == attempt
        engine.clock.advance(10)
    with pytest.raises(WorkOver, match="failed"):
        await worker.next("alpha")
    assert (await engine.run(run_id)).status == "failed"


async def test_progress_begins_the_count_of_lost_workers_anew(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start("alpha")
    for number in range(MAX_LOST_CLAIMS + 3):
        claim = await worker.next("alpha")
        await claim.step(f"k{number}")
        engine.clock.advance(10)
    await (await worker.next("alpha")).complete()


async def test_a_repeated_claim_of_one_delivery_is_one_claim(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start("alpha")
    delivery = await worker.take("alpha")
    one, again = await worker.claim(delivery), await worker.claim(delivery)
    assert (one.attempt, again.attempt) == (1, 1) and again.outcome.duplicate


async def test_another_worker_takes_over_and_the_first_one_hears_of_it(engine: Engine, worker: PlayedWorker) -> None:
    other = engine.worker("worker-2")
    await other.register("alpha")
    await engine.start("alpha")
    delivery = await worker.take("alpha")
    await worker.claim(delivery)
    engine.clock.advance(10)
    assert (await other.next("alpha")).attempt == 2
    with pytest.raises(WorkOver, match="worker-2"):
        await worker.claim(delivery)  # the first answer was lost, so the worker asks again


# --- calls ----------------------------------------------------------------------------------------------------------------


async def test_a_call_comes_back_into_the_journal(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    invocation_id = await alpha.call("k", "add", a=1)
    entry = (await alpha.journal()).entries[0]
    assert (entry.kind, entry.status, entry.invocation_id) == ("call", "pending", invocation_id)
    tool = await worker.next("add", "tool")
    assert (tool.work_id, tool.attempt) == (invocation_id, 1)
    await tool.complete(3)
    await engine.settled()
    entry = (await alpha.journal()).entries[0]
    assert (entry.status, entry.result, entry.error) == ("ok", 3, None)


async def test_a_failed_call_comes_back_with_its_error(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).fail("invalid", "no such thing")
    await engine.settled()
    entry = (await alpha.journal()).entries[0]
    assert entry.status == "error" and entry.error is not None
    assert (entry.error.message, entry.error.kind) == ("no such thing", "invalid")


async def test_a_call_that_is_repeated_is_one_call(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    assert await alpha.call("k", "add", a=1) == await alpha.call("k", "add", a=1)
    with pytest.raises(RepeatedDifferently):
        await alpha.call("k", "add", a=2)
    await worker.next("add", "tool")
    assert await worker.nothing_to_take("add", "tool")


@pytest.mark.parametrize("arguments", [{}, {"a": "1"}, {"a": 1.5}, {"a": None}, {"a": []}])
async def test_arguments_that_break_the_tools_schema_are_refused(
    engine: Engine, worker: PlayedWorker, arguments: dict[str, Json]
) -> None:
    alpha = await started(engine, worker)
    with pytest.raises(InvalidCommand):
        await alpha.call("k", "add", **arguments)
    assert (await alpha.journal()).entries == []


async def test_a_tool_that_nobody_registered_is_not_found(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    with pytest.raises(NotFound, match=r"no tool 'sub' is registered$"):
        await alpha.call("k", "sub")
    with pytest.raises(NotFound, match=r"no tool 'ad' is registered; did you mean 'add'\?$"):
        await alpha.call("k", "ad")


async def test_a_tool_that_another_process_registered_is_found(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    with pytest.raises(NotFound):
        await alpha.call("k", "late")
    await engine.another().worker().register(tools_=["late"])
    await alpha.call("k", "late")


async def test_a_run_notes_the_version_that_another_process_registered_meanwhile(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register("alpha")
    first = await engine.run(await engine.start("alpha"))
    await engine.another().give(RegisterAgent(agent_id=agent_id_of(TENANT, "alpha"), name="alpha", version="2"))
    then = await engine.run(await engine.start("alpha"))
    assert [run.step("alpha").agent_version for run in (first, then)] == ["1", "2"]


async def test_a_call_is_tried_again_until_its_attempts_are_used_up(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    invocation_id = await alpha.call("k", "add", a=1)
    for attempt in (1, 2, 3):
        claim = await worker.next("add", "tool")
        assert claim.attempt == attempt
        await claim.fail("transient")
        await engine.advance(60)
    assert (await engine.invocation(invocation_id)).status == "failed"
    assert engine.of_stream(invocation_id).count("invocation.retry_scheduled") == 2


async def test_a_retry_waits_for_its_time(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    invocation_id = await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).fail("rate_limited", retry_after_s=30)
    await engine.advance(29.9)
    assert (await engine.invocation(invocation_id)).status == "waiting"
    assert await worker.nothing_to_take("add", "tool")
    await engine.advance(0.1)
    assert (await worker.next("add", "tool")).attempt == 2


async def test_a_tool_that_must_not_be_repeated_is_not_tried_again(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    invocation_id = await alpha.call("k", "mail")
    await (await worker.next("mail", "tool")).fail("transient")
    await engine.settled()
    assert (await engine.invocation(invocation_id)).status == "failed"
    assert engine.timers.rows == {}


async def test_a_vanished_worker_leaves_an_effect_that_a_person_must_judge(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    invocation_id = await alpha.call("k", "mail")
    lost = await worker.next("mail", "tool")
    engine.clock.advance(10)
    with pytest.raises(WorkOver, match="ambiguous"):
        await worker.next("mail", "tool")
    assert (await engine.invocation(invocation_id)).status == "ambiguous"
    assert (await alpha.journal()).entries[0].status == "pending"
    resolve = ResolveInvocation(invocation_id=invocation_id, result={"sent": True}, by="key:1", reason="I looked")
    await engine.give(resolve)
    await engine.settled()
    entry = (await alpha.journal()).entries[0]
    assert (entry.status, entry.result) == ("ok", {"sent": True})
    with pytest.raises(WorkOver):
        await lost.complete({"sent": False})


async def test_an_idempotent_tool_is_called_again_after_its_worker_vanished(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    await alpha.call("k", "add", a=1)
    await worker.next("add", "tool")
    engine.clock.advance(10)
    again = await worker.next("add", "tool")
    assert again.attempt == 2
    await again.complete(2)


async def test_calls_of_a_failed_agent_run_are_called_off(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    waiting, begun = await alpha.call("one", "add", a=1), await alpha.call("two", "add", a=2)
    held = [await worker.next("add", "tool") for _ in range(2)]
    await held[1].complete()
    await alpha.fail()
    await engine.settled()
    assert (await engine.invocation(waiting)).cancel_request is not None
    assert (await engine.invocation(begun)).status == "succeeded"


# --- mail and shared values -----------------------------------------------------------------------------------------------


async def test_a_message_reaches_the_mailbox_and_is_received_once(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start(plan=parallel(("alpha", "beta"), None))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    message_id = await alpha.send("s", "beta", {"hello": 1})
    await engine.settled()
    [mail] = (await beta.journal()).mailbox
    assert (mail.message_id, mail.sender, mail.body) == (message_id, "alpha", {"hello": 1})
    await beta.receive("r", message_id)
    view = await beta.journal()
    assert view.mailbox == [] and view.entries[0].result["body"] == {"hello": 1}
    with pytest.raises(InvalidState):
        await beta.receive("r2", message_id)
    assert (await beta.receive("nothing", None)).events


async def test_mail_waits_for_an_agent_run_that_is_not_there_yet(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta")
    alpha = await worker.next("alpha")
    message_id = await alpha.send("s", "beta", "early")
    await engine.settled()
    assert message_id in (await engine.agent_run(agent_run_id_of(run_id, "beta"))).mailbox
    await alpha.complete()
    beta = await worker.next("beta")
    assert [mail.body for mail in beta.given.journal.mailbox] == ["early"]


async def test_mail_in_another_process_hides_no_agent_run_that_is_requested_later(engine: Engine) -> None:
    """The sender's process has seen the message and no request; the request is recorded by the process of the sagas."""
    worker = engine.another().worker()
    await worker.register("alpha", "beta")
    await engine.start("alpha", "beta")
    alpha = await worker.next("alpha")
    await alpha.send("s", "beta", "early")
    await alpha.complete()
    beta = await worker.next("beta")
    assert [mail.body for mail in beta.given.journal.mailbox] == ["early"]


async def test_mail_for_one_that_has_ended_is_refused_to_the_sender(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=parallel(("alpha", "beta"), None))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    assert await alpha.send("early", "beta", "in time")
    await beta.complete()
    head = await engine.settled()
    with pytest.raises(RecipientOver, match="the recipient is completed"):
        await alpha.send("s", "beta", "late")
    assert await engine.settled() == head, "nothing is recorded"
    assert await alpha.send("early", "beta", "in time"), "a message that was sent before is repeated"
    assert "agent_run.mail_refused" not in engine.topics(run_id)


async def test_mail_for_a_step_that_never_begins_is_refused(engine: Engine, worker: PlayedWorker) -> None:
    steps = (Step(key="a", agent="alpha", on_failure="continue"), Step(key="b", agent="beta", after=("a",), on_failure="continue"))
    await engine.start(plan=Plan(steps=(*steps, Step(key="c", agent="gamma"))))
    alpha, gamma = await worker.next("alpha"), await worker.next("gamma")
    assert await gamma.send("s", "b", "it may still begin")
    elsewhere = engine.another()
    await elsewhere.workers.journals.page(TENANT, gamma.work_id, after_version=0)
    await alpha.fail()
    await engine.settled()
    stranger = replace(gamma, worker=PlayedWorker(elsewhere, worker.worker_id))
    for sender in (gamma, stranger):
        with pytest.raises(RecipientOver, match="step 'b' is failed"):
            await sender.send("s2", "b", "never")


async def test_a_recipient_that_ends_elsewhere_gets_the_message_or_refuses_it(engine: Engine, worker: PlayedWorker) -> None:
    """The sender's process believes that the recipient still works."""
    run_id = await engine.start(plan=parallel(("alpha", "beta"), None))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    await alpha.send("first", "beta", 1)
    await engine.settled()
    end = CompleteAgentRun(agent_run_id=beta.work_id, attempt=beta.attempt)
    for task in engine.tasks:
        task.cancel()
    await engine.another().workers.outcomes.complete(worker.caller, end)
    with pytest.raises(RecipientOver):
        await alpha.send("second", "beta", 2)
    delivered = [topic for topic in engine.of_stream(beta.work_id) if topic.startswith("agent_run.mail")]
    assert delivered == ["agent_run.mail_delivered"]
    assert engine.topics(run_id).count("message.sent") == 1


async def test_a_step_writes_to_itself(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    message_id = await alpha.send("s", "alpha", "note")
    await engine.settled()
    assert [mail.message_id for mail in (await alpha.journal()).mailbox] == [message_id]


async def test_mail_to_nobody_names_those_that_there_are(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    with pytest.raises(NotFound, match=r"there are: alpha, beta$"):
        await alpha.send("s", "gamma", 1)
    with pytest.raises(NotFound, match=r"no step or agent 'bta' in this run; did you mean 'beta'\?$"):
        await alpha.send("s", "bta", 1)


async def test_mail_to_nobody_in_a_large_run_names_the_first_steps(engine: Engine, worker: PlayedWorker) -> None:
    steps = tuple(Step(key=f"k{number:03}", agent="alpha") for number in range(50))
    await engine.start(plan=Plan(steps=steps))
    alpha = await worker.next("alpha")
    with pytest.raises(NotFound, match=r"there are: k000, k001, .*k019 and 30 more$"):
        await alpha.send("s", "gamma", 1)


async def test_a_message_that_is_repeated_is_one_message(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    assert await alpha.send("s", "beta", {"n": 1}) == await alpha.send("s", "beta", {"n": 1})
    with pytest.raises(RepeatedDifferently):
        await alpha.send("s", "beta", {"n": 2})


async def test_shared_values_are_read_as_they_were_read(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start(plan=parallel(("alpha", "beta"), None))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    assert await alpha.get("g0", "n") == {"name": "n", "found": False, "value": None, "value_version": 0}
    assert await beta.set("s1", "n", {"x": 1}) == {"name": "n", "found": True, "value": {"x": 1}, "value_version": 1}
    assert (await alpha.get("g1", "n"))["value"] == {"x": 1}
    await beta.set("s2", "n", 2)
    assert (await alpha.get("g1", "n"))["value"] == {"x": 1}, "under its key it stays what it was"
    assert (await alpha.get("g0", "n"))["found"] is False
    assert await alpha.get("g2", "n") == {"name": "n", "found": True, "value": 2, "value_version": 2}
    with pytest.raises(RepeatedDifferently):
        await alpha.get("g2", "other")


async def test_a_shared_value_is_set_at_the_expected_version_only(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    await alpha.set("s1", "n", 1, expect=0)
    with pytest.raises(InvalidState):
        await alpha.set("s2", "n", 2, expect=0)
    assert (await alpha.set("s2", "n", 2, expect=1))["value_version"] == 2
    assert (await alpha.set("s2", "n", 2, expect=1))["value_version"] == 2, "a repeat sets nothing"
    assert (await alpha.get("g", "n"))["value_version"] == 2


@pytest.mark.parametrize(
    ("key", "name", "value", "expect"), [("s", "n", 2, None), ("s", "other", 1, None), ("s", "n", True, None), ("s", "n", 1, 5)]
)
async def test_a_key_sets_one_thing(
    engine: Engine, worker: PlayedWorker, key: str, name: str, value: Json, expect: int | None
) -> None:
    alpha = await started(engine, worker)
    await alpha.set("s", "n", 1)
    with pytest.raises(RepeatedDifferently):
        await alpha.set(key, name, value, expect)
