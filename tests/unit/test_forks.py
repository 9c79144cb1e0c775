"""Forks of runs, on the whole engine in memory: what is taken over does not run again, and the rest goes on."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from application.engine.commands.request import CommandOutcome
from application.runs.forking.fork import UNCHANGED, AskedFork, Forks
from application.workflows.children import Children
from application.workflows.versions import Versions
from domain import agents, context, runs
from domain.amounts import BudgetLimits
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import Json
from domain.plans import Plan
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.memory import MemoryNames
from tests.kit.waiting import TENANT, new_id, request_of

ECHO = {"echo": {"policy": {}}}


def plan_of(*steps: Mapping[str, Any], result: str | None = None) -> Plan:
    return Plan.model_validate({"steps": steps, "result": result})


A_TO_C = plan_of(
    {"key": "a", "agent": "alpha"}, {"key": "b", "agent": "beta", "after": ["a"]}, {"key": "c", "agent": "gamma", "after": ["b"]}
)


class Forking:
    """An engine with a worker, and the forks of its runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.worker = PlayedWorker(engine)
        self.forks = Forks(
            engine.commands, engine.feed, engine.histories, Children(engine.commands, Versions(engine.commands, None))
        )

    async def begin(self, *agents_: str, tools: Any = ()) -> None:
        await self.engine.set_up()
        await self.worker.register(*agents_, tools_=tools)

    async def fork(self, run_id: UUID, fork_id: UUID | None = None, **asked: Any) -> UUID:
        fork_id = fork_id or new_id()
        outcome = await self.outcome(run_id, fork_id, **asked)
        return outcome.begun(fork_id)[0]

    async def outcome(self, run_id: UUID, fork_id: UUID, **asked: Any) -> CommandOutcome:
        return await self.forks.fork(
            request_of(TENANT, fork_id), run_id, AskedFork(**asked), fork_id=fork_id,
            known=MemoryNames(self.engine.log, agents.AgentRegistered), admission=self.engine.admission,
        )  # fmt: skip

    async def next(self, agent: str) -> Claim:
        return await self.worker.next(agent)

    def position(self, run_id: UUID, topic: str) -> int:
        """Of the last such event of a run."""
        return [event.position for event in self.engine.log.events if event.root_id == run_id and event.topic == topic][-1]

    async def taken(self, run_id: UUID) -> dict[str, tuple[str, Json]]:
        state = await self.engine.run(run_id)
        return {key: (step.status, step.result) for key, step in state.steps.items() if step.status != "pending"}


@pytest.fixture
async def forking(engine: Engine) -> Forking:
    return Forking(engine)


async def failed_at_c(forking: Forking) -> UUID:
    await forking.begin("alpha", "beta", "gamma")
    run_id = await forking.engine.start(plan=A_TO_C, input={"n": 1}, metadata={"ticket": "T-1"})
    await (await forking.next("alpha")).complete({"of": "a"})
    await (await forking.next("beta")).complete({"of": "b"})
    await (await forking.next("gamma")).fail()
    assert (await forking.engine.run(run_id)).status == "failed"
    return run_id


async def test_a_failed_run_goes_on_at_the_step_that_failed(forking: Forking) -> None:
    run_id = await failed_at_c(forking)
    fork_id = await forking.fork(run_id)
    assert await forking.taken(fork_id) == {
        "a": ("completed", {"of": "a"}), "b": ("completed", {"of": "b"}), "c": ("scheduled", None),
    }  # fmt: skip
    claim = await forking.next("gamma")
    assert (claim.given.run_id, claim.given.input, claim.given.results) == (fork_id, {"n": 1}, {"b": {"of": "b"}})
    await claim.complete("done")
    state = await forking.engine.run(fork_id)
    assert (state.status, state.metadata) == ("completed", {"ticket": "T-1"})
    assert (await forking.engine.run(run_id)).status == "failed"
    for agent in ("alpha", "beta"):
        assert await forking.worker.nothing_to_take(agent)


async def test_a_step_under_way_goes_on_from_its_journal(forking: Forking) -> None:
    await forking.begin("alpha", tools={"echo": {}})
    run_id = await forking.engine.start("alpha")
    claim = await forking.next("alpha")
    large = {"text": "x" * 2_000}
    await claim.step("small", 1)
    await claim.step("large", large)
    call_id = await claim.call("echo#1", "echo", n=1)
    await (await forking.worker.next("echo", "tool")).complete({"echoed": 1})
    await claim.call("echo#2", "echo", n=2)
    await claim.set("state.set:v#1", "v", "mine")
    await forking.engine.settled()
    at = forking.engine.log.head
    await claim.step("later", 3)

    fork_id = await forking.fork(run_id, position=at)
    again = await forking.next("alpha")
    assert again.given.run_id == fork_id
    found = {entry.key: (entry.kind, entry.status, entry.result) for entry in again.given.journal.entries}
    assert found == {
        "small": ("step", "ok", 1), "large": ("step", "ok", large), "echo#1": ("call", "ok", {"echoed": 1}),
        "state.set:v#1": ("state_set", "ok", {"name": "v", "found": True, "value": "mine", "value_version": 1}),
    }  # fmt: skip
    assert {entry.invocation_id for entry in again.given.journal.entries if entry.kind == "call"} == {call_id}
    assert (await again.get("state.get:v#1", "v"))["value"] == "mine"
    assert (await again.step("small", 1)).events == ()
    assert (await again.step("large", large)).events == ()

    # A fork of the fork has it all, too.
    await again.step("further", 4)
    third_id = await forking.fork(fork_id)
    third = await forking.next("alpha")
    assert third.given.run_id == third_id
    assert {entry.key: entry.result for entry in third.given.journal.entries} == {
        "small": 1, "large": large, "echo#1": {"echoed": 1}, "further": 4, "state.get:v#1": found["state.set:v#1"][2],
        "state.set:v#1": found["state.set:v#1"][2],
    }  # fmt: skip


async def test_a_failed_call_of_a_failed_step_is_made_again(forking: Forking) -> None:
    await forking.begin("alpha", tools={"echo": {"max_attempts": 1}})
    run_id = await forking.engine.start("alpha")
    claim = await forking.next("alpha")
    await claim.call("good", "echo")
    await (await forking.worker.next("echo", "tool")).complete(1)
    await claim.call("bad", "echo")
    await (await forking.worker.next("echo", "tool")).fail()
    await forking.engine.settled()
    before = await forking.fork(run_id)
    assert {entry.key for entry in (await forking.next("alpha")).given.journal.entries} == {"good", "bad"}, "it may have handled it"
    await claim.fail()
    await forking.engine.settled()
    after = await forking.fork(run_id)
    claim = await forking.next("alpha")
    assert before != after == claim.given.run_id
    assert {entry.key for entry in claim.given.journal.entries} == {"good"}
    await claim.call("bad", "echo")
    assert (await forking.worker.next("echo", "tool")).work_id


async def test_before_a_step_takes_over_what_does_not_come_after_it(forking: Forking) -> None:
    await forking.begin("alpha", "beta", "gamma")
    plan = plan_of(
        {"key": "a", "agent": "alpha"}, {"key": "b", "agent": "beta"}, {"key": "c", "agent": "gamma", "after": ["a", "b"]}
    )
    run_id = await forking.engine.start(plan=plan)
    alpha, beta = await forking.next("alpha"), await forking.next("beta")
    await alpha.step("s", 1)
    await alpha.set("k", "of-a", 1)
    await beta.set("k", "of-b", 2)
    await alpha.send("m", "c", "from a")
    await beta.send("m", "c", "from b")
    await alpha.complete("A")
    await beta.complete("B")
    await (await forking.next("gamma")).complete("C")
    assert (await forking.engine.run(run_id)).status == "completed"

    anew = await forking.fork(run_id, step="a", anew=True)
    assert await forking.taken(anew) == {"a": ("scheduled", None), "b": ("completed", "B")}
    claim = await forking.next("alpha")
    assert claim.given.journal.entries == []
    assert (await forking.worker.nothing_to_take("beta"), await forking.worker.nothing_to_take("gamma")) == (True, True)
    values = (await forking.engine.commands.load(context.DECIDER, TENANT, context.context_id_of(anew))).state.entries
    assert {name: entry.value for name, entry in values.items()} == {"of-b": 2}
    await claim.complete("A2")
    last = await forking.next("gamma")
    assert last.given.results == {"a": "A2", "b": "B"}
    assert [(mail.sender, mail.body) for mail in last.given.journal.mailbox] == [("b", "from b")]

    on = await forking.fork(run_id, step="a")
    claim = await forking.next("alpha")
    assert (claim.given.run_id, [entry.key for entry in claim.given.journal.entries]) == (on, ["s", "k", "m"])
    values = (await forking.engine.commands.load(context.DECIDER, TENANT, context.context_id_of(on))).state.entries
    assert {name: entry.value for name, entry in values.items()} == {"of-a": 1, "of-b": 2}


async def test_mail_that_was_received_stays_received(forking: Forking) -> None:
    await forking.begin("alpha", "beta")
    plan = plan_of({"key": "a", "agent": "alpha"}, {"key": "b", "agent": "beta"})
    run_id = await forking.engine.start(plan=plan)
    alpha, beta = await forking.next("alpha"), await forking.next("beta")
    first = await alpha.send("m1", "b", 1)
    await alpha.send("m2", "b", 2)
    await beta.receive("r1", first)
    await forking.fork(run_id)
    beta = await forking.next("beta")
    assert [(entry.key, entry.result["body"]) for entry in beta.given.journal.entries] == [("r1", 1)]
    assert [mail.body for mail in beta.given.journal.mailbox] == [2]
    assert [entry.key for entry in (await forking.next("alpha")).given.journal.entries] == ["m1", "m2"]


async def test_parts_that_had_ended_do_not_run_again(forking: Forking) -> None:
    await forking.begin("alpha")
    plan = plan_of({"key": "a", "agent": "alpha", "each": {"over": "input", "max_parallel": 2}})
    run_id = await forking.engine.start(plan=plan, input=[1, 2, 3, 4])
    claims = [await forking.next("alpha") for _ in range(2)]
    await claims[0].complete(10)
    assert (await forking.next("alpha")).given.step_key == "a.2"
    await claims[1].step("s", 1)
    await claims[1].fail()
    assert (await forking.engine.run(run_id)).status == "failed"
    fork_id = await forking.fork(run_id)
    again = sorted([await forking.next("alpha") for _ in range(2)], key=lambda claim: claim.given.step_key)
    assert [(claim.given.step_key, claim.given.input) for claim in again] == [("a.1", 2), ("a.2", 3)]
    assert [entry.key for entry in again[0].given.journal.entries] == ["s"]
    for claim, result in zip(again, (20, 30), strict=True):
        await claim.complete(result)
    await (await forking.next("alpha")).complete(40)
    state = await forking.engine.run(fork_id)
    assert (state.status, state.steps["a"].result) == ("completed", [10, 20, 30, 40])


async def test_a_child_run_under_way_is_forked_with_its_parent(forking: Forking) -> None:
    await forking.begin("alpha", "beta", "gamma")
    body = {"steps": [{"key": "x", "agent": "alpha"}, {"key": "y", "agent": "beta", "after": ["x"]}]}
    plan = plan_of({"key": "child", "run": {"plan": body}}, {"key": "c", "agent": "gamma", "after": ["child"]})
    run_id = await forking.engine.start(plan=plan, input="in")
    await (await forking.next("alpha")).complete("X")
    beta = await forking.next("beta")
    await beta.step("s", 1)
    await beta.fail()
    assert (await forking.engine.run(run_id)).status == "failed"
    fork_id = await forking.fork(run_id)
    beta = await forking.next("beta")
    assert (beta.given.run_id, beta.given.results) == (runs.child_id_of(fork_id, "child", 0), {"x": "X"})
    assert [entry.key for entry in beta.given.journal.entries] == ["s"]
    assert await forking.worker.nothing_to_take("alpha")
    await beta.complete("Y")
    assert (await forking.next("gamma")).given.results == {"child": "Y"}


async def test_a_fork_of_a_child_run_is_a_run_of_its_own_and_has_a_budget_of_its_own(forking: Forking) -> None:
    """It does not draw from the run above, which may be over. A child run that is forked with its parent draws from the fork."""
    await forking.begin("alpha")
    plan = plan_of({"key": "child", "run": {"plan": {"steps": [{"key": "x", "agent": "alpha"}]}}})
    run_id = await forking.engine.start(plan=plan, budget=runs.RunBudget(limits=BudgetLimits(calls=5)))
    first = await forking.next("alpha")
    child_id = first.given.run_id
    assert (await forking.engine.agent_run(first.work_id)).requested.budgets == (run_id,)  # type: ignore[union-attr]
    await first.fail()
    assert (await forking.engine.run(run_id)).status == "failed"
    alone = await forking.fork(child_id)
    claim = await forking.next("alpha")
    assert claim.given.run_id == alone and (await forking.engine.run(alone)).parent is None
    assert (await forking.engine.agent_run(claim.work_id)).requested.budgets == ()  # type: ignore[union-attr]
    fork_id = await forking.fork(run_id)
    claim = await forking.next("alpha")
    assert (await forking.engine.agent_run(claim.work_id)).requested.budgets == (fork_id,)  # type: ignore[union-attr]


async def test_changes_are_checked_against_what_is_taken_over(forking: Forking) -> None:
    run_id = await failed_at_c(forking)
    with pytest.raises(InvalidCommand, match="step 'a' had completed by then: the plan must have it"):
        await forking.fork(run_id, plan=plan_of({"key": "b", "agent": "beta"}, {"key": "c", "agent": "gamma", "after": ["b"]}))
    swapped = plan_of(
        {"key": "new", "agent": "beta"}, {"key": "a", "agent": "alpha", "after": ["new"]},
        {"key": "b", "agent": "beta", "after": ["a"]}, {"key": "c", "agent": "gamma", "after": ["b"]},
    )  # fmt: skip
    with pytest.raises(InvalidCommand, match="step 'a' had completed by then, and cannot come after 'new', which had not"):
        await forking.fork(run_id, plan=swapped)
    with pytest.raises(InvalidCommand, match="the run has no step 'z'; it has: a, b, c"):
        await forking.fork(run_id, step="z")
    with pytest.raises(InvalidState, match="step 'c' had failed by then, and the plan does not tolerate it"):
        await forking.fork(run_id, position=forking.engine.log.head)
    with pytest.raises(NotFound):
        await forking.fork(new_id())
    with pytest.raises(NotFound):
        await forking.fork(run_id, position=1)
    with pytest.raises(InvalidCommand, match="step 'z' is not in the plan"):
        await forking.fork(run_id, agents={"z": "alpha"})
    more = plan_of(*A_TO_C.model_dump(mode="json", exclude_defaults=True)["steps"], {"key": "d", "agent": "alpha", "after": ["c"]})
    fork_id = await forking.fork(run_id, plan=more, input={"n": 2}, agents={"c": "beta"}, metadata={})
    claim = await forking.next("beta")
    assert (claim.given.step_key, claim.given.input) == ("c", {"n": 2})
    await claim.complete("C")
    await (await forking.next("alpha")).complete("D")
    state = await forking.engine.run(fork_id)
    assert (state.status, state.metadata) == ("completed", {})


async def test_a_completed_run_needs_a_step_to_begin_at(forking: Forking) -> None:
    await forking.begin("alpha")
    run_id = await forking.engine.start("alpha")
    await (await forking.next("alpha")).complete(1)
    await forking.engine.settled()
    with pytest.raises(InvalidState, match="the run had completed by then: name the step at which the fork begins"):
        await forking.fork(run_id)


async def test_a_repeat_finds_the_first_fork(forking: Forking) -> None:
    run_id = await failed_at_c(forking)
    fork_id = new_id()
    first = await forking.outcome(run_id, fork_id)
    head = forking.engine.log.head
    again = await forking.outcome(run_id, fork_id)
    assert again.duplicate and again.begun(fork_id) == first.begun(fork_id)
    assert forking.engine.log.head == head


async def test_a_cancelled_run_goes_on_where_it_was(forking: Forking) -> None:
    await forking.begin("alpha", "beta", "gamma")
    run_id = await forking.engine.start(plan=A_TO_C)
    await (await forking.next("alpha")).complete("A")
    beta = await forking.next("beta")
    await beta.step("s", 1)
    await forking.engine.give(runs.CancelRun(run_id=run_id))
    await forking.engine.settled()
    await forking.fork(run_id)
    beta = await forking.next("beta")
    assert [entry.key for entry in beta.given.journal.entries] == ["s"]


async def test_a_fork_of_a_run_with_untrusted_output_has_it_too(forking: Forking) -> None:
    await forking.begin("alpha", "beta", "gamma")
    run_id = await forking.engine.start(plan=A_TO_C)
    await (await forking.next("alpha")).complete()
    await forking.engine.settled()
    before = forking.engine.log.head
    await forking.engine.give(runs.TaintRun(run_id=run_id, invocation_id=new_id(), key="k"))
    assert (await forking.engine.run(await forking.fork(run_id))).tainted
    assert not (await forking.engine.run(await forking.fork(run_id, position=before))).tainted


async def test_a_fork_of_a_fork_takes_over_what_that_had_taken_over(forking: Forking) -> None:
    run_id = await failed_at_c(forking)
    first = await forking.fork(run_id)
    await (await forking.next("gamma")).fail()
    await forking.engine.settled()
    second = await forking.fork(first)
    before, after = (await forking.engine.run(run_id)).steps, (await forking.engine.run(second)).steps
    assert [after[key].agent_run_id for key in "ab"] == [before[key].agent_run_id for key in "ab"]
    again = await forking.fork(second, step="b")
    assert await forking.taken(again) == {"a": ("completed", {"of": "a"}), "b": ("scheduled", None)}


async def test_steps_that_a_person_ended_are_taken_over(forking: Forking) -> None:
    await forking.begin("alpha", "beta", "gamma")
    run_id = await forking.engine.start(plan=A_TO_C)
    person = runs.ByPerson(by="key:ann", reason="known already")
    await forking.engine.give(runs.ForceStep(run_id=run_id, step="b", result="B", person=person))
    await forking.engine.give(runs.SkipStep(run_id=run_id, step="c", person=person))
    fork_id = await forking.fork(run_id)
    assert await forking.taken(fork_id) == {"a": ("scheduled", None), "b": ("completed", "B"), "c": ("skipped", None)}


async def test_a_paused_run_is_forked_and_the_fork_goes_on(forking: Forking) -> None:
    await forking.begin("alpha", "beta", "gamma")
    run_id = await forking.engine.start(plan=A_TO_C)
    await forking.engine.settled()
    alpha = await forking.next("alpha")
    await alpha.step("s", 1)
    await forking.engine.give(runs.PauseRun(run_id=run_id, by="key:ann"))
    await forking.engine.settled()
    await forking.fork(run_id)
    assert [entry.key for entry in (await forking.next("alpha")).given.journal.entries] == ["s"]


def test_unchanged_is_no_value() -> None:
    assert AskedFork().input is UNCHANGED
