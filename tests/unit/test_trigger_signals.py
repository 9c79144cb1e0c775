"""Triggers that send signals: to a run of their project, once, with what went wrong for people; loops end."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import ValidationError

from api.cli.triggers import _outcome, _target
from application.triggers.firing import KnownTrigger
from application.triggers.matcher import CHECKPOINT
from application.triggers.occurrences import Occurrence
from domain import runs
from domain.kernel import Evaluated, Functions
from domain.projects import CreateProject, default_project_id
from domain.schedules import Definition
from domain.starting import SignalTarget, Target, Unmapped, signalled_run
from domain.triggers import TriggerDefinition, TriggerFired, TriggerMisfired
from tests.kit.engine import Engine
from tests.kit.triggers import Triggers
from tests.kit.waiting import TENANT, new_id

ON_END: dict[str, Any] = {"on": {"topics": ["run.step_completed"], "when": "has(event.data.result.run)"}}
PAID: dict[str, Any] = {
    "start": {"signal": {"run": "event.data.result.run", "name": "paid"}, "input_from": {"sum": "event.data.result.sum"}}
}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.set_up()
    await engine.worker().register("writer", "waiter")
    async with engine.running():
        yield engine


async def tells(engine: Engine, result: Any) -> UUID:
    """A run whose agent ends with a result."""
    run_id = await engine.start("writer")
    worker = engine.worker()
    await worker.register("writer")
    await (await worker.next("writer")).complete(result)
    return run_id


def signals_to(engine: Engine, run_id: UUID) -> list[runs.RunSignalled]:
    stream = engine.log.streams[run_id]
    return [engine.commands.registry.decoded(event) for event in stream if event.topic == "run.signalled"]  # type: ignore[misc]


async def test_an_event_sends_a_run_a_signal_once_with_its_payload(engine: Engine) -> None:
    of, waiting = Triggers(engine), await engine.start("waiter")
    await of.create("pay", **ON_END, **PAID)
    async with of.matching():
        await tells(engine, {"run": str(waiting), "sum": 7})
        await of.settled()
    del engine.checkpoints.rows[CHECKPOINT]  # another process begins, and reads all of it again
    async with of.matching():
        await of.settled()
    [signal] = signals_to(engine, waiting)
    assert (signal.name, signal.payload, signal.depth) == ("paid", {"sum": 7}, 1)
    [fired] = of.told("pay", TriggerFired)
    assert (fired.run_id, fired.signal, fired.invocation_id) == (waiting, "paid", None)
    state = await engine.run(waiting)
    assert state.signal_depth == 1 and not state.tainted and state.signals[signal.signal_id].payload == {"sum": 7}
    page = await of.tries.page(
        KnownTrigger(TENANT, new_id(), "t", TriggerDefinition(project_id=default_project_id(TENANT), **ON_END, **PAID)),
        after=0, until=engine.log.head, examples=3,
    )  # fmt: skip
    assert [(one["run_id"], one["input"]) for one in page.examples] == [(str(waiting), {"sum": 7})]


async def test_what_cannot_be_signalled_is_a_misfire_that_says_why(engine: Engine) -> None:
    of, elsewhere, ended = Triggers(engine), new_id(), await tells(engine, None)
    await engine.give(CreateProject(project_id=elsewhere, name="elsewhere"))
    foreign = await engine.start("waiter", project_id=elsewhere)
    await of.create("pay", **ON_END, **PAID)
    async with of.matching():
        for run in (str(new_id()), str(foreign), str(ended), "no id", 7):
            await tells(engine, {"run": run, "sum": 1})
        await of.settled()
    told = [(one.code, one.error) for one in of.told("pay", TriggerMisfired)]
    assert [code for code, _ in told] == ["not-found", "not-found", "invalid-state", "expression", "expression"]
    assert "in the project of the trigger" in told[0][1] and told[1][1].startswith(f"there is no run {foreign} ")
    assert told[2][1] == "the run is completed: nobody waits for a signal"
    assert told[3][1] == told[4][1] == "signal/run: the expression gives no id of a run"
    assert not signals_to(engine, foreign) and not of.told("pay", TriggerFired)


async def test_a_run_that_is_woken_by_what_it_does_goes_on_for_a_bounded_time(engine: Engine) -> None:
    of, run_id = Triggers(engine), await engine.start("waiter")
    again: dict[str, Any] = {"on": {"topics": ["run.signalled"]}, "start": {"signal": {"run": "event.subject", "name": "again"}}}
    await of.create("again", **again, max_depth=3)
    async with of.matching():
        await engine.give(runs.SignalRun(run_id=run_id, signal_id=new_id(), name="go"))
        await of.settled()
        await engine.give(runs.SignalRun(run_id=run_id, signal_id=new_id(), name="by a person"))
        await of.settled()
    assert [signal.depth for signal in signals_to(engine, run_id)] == [0, 1, 2, 3, 3]
    assert [one.code for one in of.told("again", TriggerMisfired)] == ["loop", "loop"]


async def test_what_a_webhook_brings_taints_the_run_first(engine: Engine) -> None:
    of, run_id = Triggers(engine), await engine.start("waiter")
    hook: dict[str, Any] = {
        "hook": {"scheme": "token"},
        "start": {"signal": {"run": "body.run", "name": "paid"}, "input_from": "body"},
    }
    address = new_id()
    trigger_id = await of.create("hook", **hook, hook_id=address)
    definition = TriggerDefinition(project_id=default_project_id(TENANT), **hook)
    body, command_id = {"run": str(run_id)}, new_id()
    occurrence = Occurrence(
        TENANT, engine.log.events[-1].recorded_at, {"body": body, "headers": {}}, command_id, "x", delivery="d1"
    )
    known = KnownTrigger(TENANT, trigger_id, "hook", definition, address)
    for _ in range(2):
        started = await of.firing.fire(known, occurrence, id=command_id, command_id=command_id)
        assert started.id == run_id
    assert (await engine.run(run_id)).tainted
    topics = [event.topic for event in engine.log.streams[run_id]]
    assert topics[-2:] == ["run.tainted", "run.signalled"] and topics.count("run.signalled") == 1
    [fired] = of.told("hook", TriggerFired)
    assert (fired.run_id, fired.signal, fired.delivery) == (run_id, "paid", "d1")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"agent": "a"}, "exactly one of `workflow`, `agent`, `plan`, `tool` and `signal`"),
        ({"priority": "high"}, "`input` and `input_from` go with a signal; all else is of what is started"),
        ({"compensate": "never"}, "all else is of what is started"),
        ({"deadline_s": 5}, "all else is of what is started"),
        ({"metadata": {"a": 1}}, "all else is of what is started"),
        ({"signal": {"run": "body.id", "name": ""}}, "at least 1 character"),
    ],
)
def test_what_is_no_target_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Target.model_validate({"signal": {"run": "body.id", "name": "go"}, **fields})


def test_a_schedule_sends_no_signals() -> None:
    with pytest.raises(ValidationError, match="a schedule starts runs"):
        Definition.model_validate({"when": {"every_s": 60}, "start": {"signal": {"run": "'x'", "name": "go"}}})


def test_the_expressions_of_a_target_are_known_by_their_places() -> None:
    signal = SignalTarget(run="body.id", name="go")
    assert Target(signal=signal).expressions == {"/signal/run": "body.id"}
    assert Target(signal=signal, input_from="body").expressions == {"/signal/run": "body.id", "/input_from": "body"}
    assert Target(signal=signal, input_from={"a": "body"}).expressions == {"/signal/run": "body.id", "/input_from/a": "body"}


def test_an_expression_that_fails_says_where() -> None:
    class Failing(Functions):
        def evaluate(self, *_: Any, **__: Any) -> Evaluated:
            return Evaluated(None, "no such key: id")

    with pytest.raises(Unmapped, match=r"^signal/run: no such key: id$") as caught:
        signalled_run(SignalTarget(run="body.id", name="go"), {}, Failing(), None)  # type: ignore[arg-type]
    assert caught.value.pointer == "/signal/run"


def test_words() -> None:
    assert _outcome({"run_id": "r", "signal": "paid"}) == "signal paid to run r" and _outcome({"run_id": "r"}) == "run r"
    assert _target({"start": {"signal": {"run": "body.id", "name": "paid"}}}) == "signal paid"
