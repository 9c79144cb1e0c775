"""Whole runs of every form of plan, through the product's own catalog, in memory."""

from typing import Any

import pytest

from application.runs.start import UnknownAgent
from domain import runs
from domain.errors import RecipientOver
from domain.kernel import Json
from domain.plans import Plan
from domain.runs import CancelRun, child_id_of, part_key
from tests.kit.engine import Engine, PlayedWorker


def plan(*steps: Json, result: str | None = None) -> Plan:
    return Plan.model_validate({"steps": steps, "result": result})


def body(*steps: Json, result: str | None = None) -> Json:
    return {"steps": list(steps)} | ({} if result is None else {"result": result})


async def status(engine: Engine, run_id: object, key: str) -> str:
    return (await engine.run(run_id)).steps[key].status  # type: ignore[arg-type]


# --- conditions and inputs --------------------------------------------------------------------------------------------------


async def test_a_condition_decides_which_step_runs_and_its_input_is_mapped(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan(
        {"key": "read", "agent": "alpha"},
        {
            "key": "long", "agent": "beta", "after": ["read"], "when": "steps.read.result.pages > 10",
            "input_from": "steps.read.result.pages + input",
        },
        {"key": "short", "agent": "gamma", "after": ["read"], "when": "steps.read.result.pages <= 10"},
        {"key": "all", "value": "steps.long.result", "after": ["long", "short"]},
    )  # fmt: skip
    run_id = await engine.start(plan=graph, input=1)
    await (await worker.next("alpha")).complete({"pages": 12})
    assert await worker.nothing_to_take("gamma")
    beta = await worker.next("beta")
    assert beta.given.input == 13
    await beta.complete("read it")
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["all"].result == "read it" and run.steps["short"].status == "skipped"


async def test_a_step_that_looks_at_a_failure_mends_it(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan(
        {"key": "try", "agent": "alpha", "on_failure": "continue"},
        {
            "key": "mend", "agent": "beta", "after": ["try"], "when": "steps['try'].status == 'failed'",
            "input_from": "steps['try'].error.message",
        },
    )  # fmt: skip
    run_id = await engine.start(plan=graph)
    await (await worker.next("alpha")).fail()
    beta = await worker.next("beta")
    assert beta.given.input == "broken" and beta.given.missing == ["try"]
    await beta.complete()
    run = await engine.run(run_id)
    assert run.status == "completed" and run.missing == ("try",)


# --- parts ------------------------------------------------------------------------------------------------------------------


async def test_each_item_of_a_list_is_a_part_of_the_step(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan(
        {"key": "reviews", "agent": "alpha", "each": {"over": "input", "max_parallel": 2}, "input_from": "{'n': item, 'at': index}"}
    )
    run_id = await engine.start(plan=graph, input=[5, 6, 7])
    one, two = await worker.next("alpha"), await worker.next("alpha")
    assert await worker.nothing_to_take("alpha"), "two at once"
    assert [(c.given.step_key, c.given.input) for c in (one, two)] == [
        ("reviews.0", {"n": 5, "at": 0}),
        ("reviews.1", {"n": 6, "at": 1}),
    ]
    await two.complete("two")
    three = await worker.next("alpha")
    assert (three.given.step_key, three.given.part) == ("reviews.2", 2)
    await three.complete("three")
    await one.complete("one")
    run = await engine.run(run_id)
    assert (
        run.status == "completed" and run.steps["reviews"].result == ["one", "two", "three"] and not run.progress and not run.inputs
    )


async def test_a_failed_item_takes_the_others_along(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan(
        {"key": "reviews", "agent": "alpha", "each": {"over": "input"}, "on_failure": "continue"}, {"key": "z", "agent": "beta"}
    )
    run_id = await engine.start(plan=graph, input=[1, 2])
    one, two = await worker.next("alpha"), await worker.next("alpha")
    await one.fail()
    assert (await engine.run(run_id)).steps["reviews"].status == "failed"
    assert (await engine.agent_run(two.work_id)).status == "cancelled"


async def test_parts_write_to_one_another(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan({"key": "talk", "agent": "alpha", "each": {"over": "input"}}, {"key": "sum", "value": "1"})
    await engine.start(plan=graph, input=[1, 2])
    one, two = await worker.next("alpha"), await worker.next("alpha")
    await one.send("m", "talk.1", "hello")
    assert (await engine.agent_run(two.work_id)).mailbox
    for to, why in (("talk", "has parts"), ("sum", "has no agent")):
        with pytest.raises(RecipientOver, match=why):
            await one.send("n", to, "hello")


async def test_a_loop_goes_on_with_its_last_result_until_its_condition(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(
        plan=plan({"key": "polish", "agent": "alpha", "repeat": {"times": 5, "until": "result >= 3"}}), input=1
    )
    for expected in (1, 2):
        claim = await worker.next("alpha")
        assert claim.given.input == expected and claim.given.step_key == part_key("polish", expected - 1)
        await claim.complete(expected + 1)
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["polish"].result == 3


async def test_the_next_agent_is_tried_where_one_has_failed(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan({"key": "a", "agent": "alpha", "fallbacks": [{"agent": "beta"}], "input_from": "input + 1"})
    run_id = await engine.start(plan=graph, input=1)
    alpha = await worker.next("alpha")
    await alpha.fail()
    beta = await worker.next("beta")
    assert (beta.given.step_key, beta.given.input) == ("a", 2) and beta.work_id != alpha.work_id
    await beta.complete("mended")
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["a"].result == "mended" and not run.fell_back


async def test_an_agent_names_the_next_steps(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan({"key": "lead", "agent": "alpha", "adaptive": {"agents": [{"agent": "beta"}, {"agent": "gamma"}]}})
    run_id = await engine.start(plan=graph, input="goal")
    first = await worker.next("alpha")
    assert first.given.input == {"input": "goal", "round": 1, "results": None, "history": []}
    assert first.given.part == 0
    await first.complete({"steps": [{"key": "look", "agent": "beta", "input": 7}]})
    beta = await worker.next("beta")
    assert beta.given.input == 7 and beta.given.run_id == child_id_of(run_id, "lead", 1)
    await beta.complete("seen")
    second = await worker.next("alpha")
    assert second.given.input == {
        "input": "goal",
        "round": 2,
        "results": {"look": "seen"},
        "history": [{"round": 1, "steps": [{"key": "look", "agent": "beta"}], "results": {"look": "seen"}}],
    }
    assert (second.given.part, beta.given.part) == (2, None)
    await second.complete({"result": "done"})
    assert (await engine.run(run_id)).steps["lead"].result == "done"


# --- child runs -------------------------------------------------------------------------------------------------------------

CHILD = {"key": "child", "run": {"plan": body({"key": "inner", "agent": "beta"})}}


async def test_a_child_run_gives_its_result_to_its_parent(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(CHILD, {"key": "z", "value": "steps.child.result + 1", "after": ["child"]}), input=4)
    beta, child_id = await worker.next("beta"), child_id_of(run_id, "child", 0)
    assert (beta.given.run_id, beta.given.input, beta.given.step_key) == (child_id, 4, "inner")
    await beta.complete(5)
    run, child = await engine.run(run_id), await engine.run(child_id)
    assert run.status == child.status == "completed" and run.steps["z"].result == 6
    assert child.parent == runs.Parent(run_id=run_id, step="child", part=0, depth=1)


async def test_a_child_that_fails_fails_its_step(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(CHILD))
    await (await worker.next("beta")).fail()
    run = await engine.run(run_id)
    assert run.status == "failed" and run.steps["child"].error is not None and run.steps["child"].error.message == "broken"


async def test_children_are_cancelled_with_their_parent(engine: Engine, worker: PlayedWorker) -> None:
    outer = {"key": "outer", "run": {"plan": body(CHILD)}}
    run_id = await engine.start(plan=plan(outer))
    beta = await worker.next("beta")
    await engine.give(CancelRun(run_id=run_id, reason="enough"))
    child_id = child_id_of(run_id, "outer", 0)
    for each in (run_id, child_id, child_id_of(child_id, "child", 0)):
        assert (await engine.run(each)).status == "cancelled"
    assert (await engine.agent_run(beta.work_id)).status == "cancelled"


async def test_a_child_that_somebody_cancels_fails_its_step(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(CHILD | {"on_failure": "continue"}, {"key": "z", "value": "1"}))
    await worker.next("beta")
    await engine.give(CancelRun(run_id=child_id_of(run_id, "child", 0), reason="no more"))
    run = await engine.run(run_id)
    assert run.status == "completed" and run.missing == ("child",)
    assert run.steps["child"].error is not None and run.steps["child"].error.message == "the child run was cancelled: no more"


async def test_a_map_of_child_runs(engine: Engine, worker: PlayedWorker) -> None:
    steps = body({"key": "a", "agent": "alpha"}, {"key": "b", "value": "steps.a.result * 2", "after": ["a"]})
    run_id = await engine.start(
        plan=plan({"key": "map", "run": {"plan": steps}, "each": {"over": "input", "max_parallel": 100}}), input=list(range(100))
    )
    for _ in range(100):
        claim = await worker.next("alpha")
        await claim.complete(claim.given.input)
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["map"].result == [2 * n for n in range(100)]


async def test_a_child_is_not_needed_any_more(engine: Engine, worker: PlayedWorker) -> None:
    graph = plan(CHILD, {"key": "fast", "agent": "alpha"}, {"key": "one", "gather": {"mode": "any"}, "after": ["child", "fast"]})
    run_id = await engine.start(plan=graph)
    await worker.next("beta")
    await (await worker.next("alpha")).complete("first")
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["one"].result == {"fast": "first"} and run.steps["child"].status == "skipped"
    assert (await engine.run(child_id_of(run_id, "child", 0))).status == "cancelled"


async def test_agents_of_inner_plans_are_looked_up_at_the_start(engine: Engine, worker: PlayedWorker) -> None:
    inner = body({"key": "i", "agent": "delta"})
    with pytest.raises(UnknownAgent) as caught:
        await engine.start(
            plan=plan({"key": "c", "run": {"plan": inner}}, {"key": "f", "agent": "alpha", "fallbacks": [{"agent": "no"}]})
        )
    assert [place for place, _ in caught.value.faults] == [
        "/plan/steps/0/run/plan/steps/0/agent",
        "/plan/steps/1/fallbacks/0/agent",
    ]


async def test_a_child_begins_in_the_append_that_asks_for_it() -> None:
    engine = Engine()  # no saga manager runs
    await engine.set_up()
    await engine.worker().register("beta")
    run_id = await engine.start(plan=plan(CHILD))
    child_id = child_id_of(run_id, "child", 0)
    assert engine.of_stream(child_id) == ["run.started", "run.step_scheduled"]
    assert engine.topics(child_id) == ["run.started", "run.step_scheduled", "agent_run.requested"]


@pytest.mark.parametrize("body_of_items", [{"agent": "alpha"}, {"run": CHILD["run"]}], ids=["in the root", "roots of their own"])
@pytest.mark.parametrize("reactions", [True, False], ids=["in-the-append", "by-the-manager"])
async def test_parts_that_begin_at_once_go_into_few_appends(
    monkeypatch: pytest.MonkeyPatch, body_of_items: Json, reactions: bool
) -> None:
    engine = Engine(reactions=reactions)
    append, appends = engine.store.append, list[object]()

    async def counted(request: Any) -> Any:
        appends.append(request)
        return await append(request)

    monkeypatch.setattr(engine.store, "append", counted)
    async with engine.running():
        await engine.set_up()
        await engine.worker().register("alpha", "beta")
        before = len(appends)
        step = {"key": "items", "each": {"over": "input", "max_parallel": 1_000}, **body_of_items}
        run_id = await engine.start(plan=plan(step), input=list(range(300)))
        await engine.settled()
        begun = [event for event in engine.log.events if event.topic == "agent_run.requested"]
        assert len(begun) == 300 and len((await engine.run(run_id)).progress["items"].open) == 300
        roots = 300 if "run" in body_of_items and not reactions else 0  # the first step of each child is left to the manager, too
        assert len(appends) - before <= 30 + roots


# --- waits ------------------------------------------------------------------------------------------------------------------


async def test_a_step_waits_for_a_clock(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan({"key": "pause", "wait": {"s": 60}}, {"key": "z", "agent": "alpha", "after": ["pause"]}))
    await engine.advance(59)
    assert await status(engine, run_id, "pause") == "scheduled"
    await engine.advance(1)
    assert await status(engine, run_id, "pause") == "completed" and (await worker.next("alpha")).given.results == {"pause": None}


async def test_the_timer_of_a_wait_goes_with_its_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan({"key": "pause", "wait": {"until": "input"}}), input="2999-01-01T00:00:00Z")
    assert await status(engine, run_id, "pause") == "scheduled" and len(engine.timers.rows) == 1
    await engine.give(CancelRun(run_id=run_id))
    assert not engine.timers.rows
