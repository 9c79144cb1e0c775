"""Rules of signals: the run decides who receives each one, once, whenever agents begin to wait."""

from typing import Any
from uuid import UUID, uuid4

from domain import runs
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import Scheduled
from domain.plans import Plan
from domain.runs import (
    MOST_KEPT,
    AwaitSignal,
    CancelRun,
    CompleteStep,
    ExpireSignalWait,
    LeaveSignals,
    Receiver,
    RunSignalled,
    SignalAwaited,
    SignalReceived,
    SignalRun,
    SignalWaitEnded,
    StartRun,
    TooManySignals,
    agent_run_id_of,
    scheduled_by,
)
from tests.kit import given

RUN, PROJECT = UUID(int=(0x0190_0000_0000 << 80) | (7 << 76) | (2 << 62)), uuid4()
PLAN = Plan.model_validate(
    {
        "steps": [
            {"key": "a", "agent": "a"},
            {"key": "b", "agent": "b"},
            {"key": "l", "agent": "l", "each": {"over": "[1, 2]"}, "after": ["a"]},
        ]
    }
)
A, B = agent_run_id_of(RUN, "a"), agent_run_id_of(RUN, "b")
running = given(runs.DECIDER).after(StartRun(run_id=RUN, project_id=PROJECT, plan=PLAN))


def signal(number: int = 1, name: str = "go", **fields: Any) -> SignalRun:
    return SignalRun(run_id=RUN, signal_id=UUID(int=number), name=name, **({"payload": number} | fields))


def wait(key: str = "k", step: str = "a", name: str = "go", **fields: Any) -> AwaitSignal:
    return AwaitSignal(run_id=RUN, agent_run_id=A if step == "a" else B, key=key, step=step, name=name, **fields)


def sent(number: int = 1, to: Receiver | None = None, **fields: Any) -> RunSignalled:
    return RunSignalled(signal_id=UUID(int=number), name="go", received_by=to, **({"payload": number} | fields))


def received(number: int, key: str = "k") -> SignalReceived:
    return SignalReceived(signal_id=UUID(int=number), agent_run_id=A, key=key, name="go", payload=number)


def test_a_signal_goes_to_who_has_waited_longest_for_its_name() -> None:
    awaited = SignalAwaited(agent_run_id=A, key="k", step="a", name="go", timeout_s=5.0)
    running.when(wait(timeout_s=5.0)).then(awaited)
    running.after(wait()).when(wait()).then()
    both = running.after(wait("other", name="stop"), wait("z"), wait("y", "b"))
    both.when(signal()).then(sent(to=Receiver(agent_run_id=A, key="z")))
    both.after(signal()).when(signal(2)).then(sent(2, to=Receiver(agent_run_id=B, key="y")))
    both.after(signal(), signal(2)).when(signal(3)).then(sent(3))
    both.when(signal(step="b")).then(sent(to=Receiver(agent_run_id=B, key="y"), step="b"))
    running.after(wait()).when(signal(step="b")).then(sent(step="b"))


def test_a_signal_that_nobody_waits_for_is_kept_in_order_and_received_once() -> None:
    kept = running.after(signal(9, step="b"), signal(3), signal(2), signal(1, "stop"))
    kept.when(wait()).then(received(3))
    kept.after(wait()).when(wait("l")).then(received(2, "l"))
    kept.after(wait(), wait("l")).when(wait("m")).then_topics("run.signal_awaited")
    [of_b] = kept.when(wait("k", "b")).events()
    assert (of_b.signal_id, of_b.agent_run_id) == (UUID(int=9), B)


def test_a_signal_with_a_known_id_counts_once() -> None:
    running.after(signal()).when(signal()).then()
    running.after(signal(), wait()).when(signal()).then()
    running.after(signal(), CancelRun(run_id=RUN)).when(signal()).then()
    for other in (signal(payload=2), signal(name="stop"), signal(step="a")):
        why = "a signal with this id was sent before, and this one differs"
        running.after(signal()).when(other).refused(InvalidState, why, pointer="/id")


def test_a_signal_that_nobody_can_receive_is_refused() -> None:
    given(runs.DECIDER).when(signal()).refused(NotFound, f"there is no run {RUN}")
    running.after(CancelRun(run_id=RUN)).when(signal()).refused(InvalidState, "the run is cancelled: nobody waits for a signal")
    running.when(signal(step="x")).refused(InvalidCommand, "the run has no step 'x'", pointer="/step")
    running.when(signal(step="a.0")).refused(InvalidCommand, "the run has no step 'a.0'", pointer="/step")
    over = running.after(CompleteStep(run_id=RUN, step="b", agent_run_id=B))
    over.when(signal(step="b")).refused(InvalidState, "step 'b' is completed: nobody waits for a signal", pointer="/step")
    why = "step 'l' has parts: name one of them, as 'l.0'"
    running.when(signal(step="l")).refused(InvalidCommand, why, pointer="/step")
    running.when(signal(step="l.1")).then(sent(step="l.1"))


def test_a_run_keeps_a_bounded_number_of_signals_and_of_their_bytes() -> None:
    full = running.after(*(signal(number) for number in range(1, MOST_KEPT + 1)))
    why = "nobody has received 1,000 signals of the run, of 2,893 bytes"
    full.when(signal(5_000)).refused(TooManySignals, why)
    full.when(signal(1)).then()
    full.after(wait()).when(signal(5_000)).then(sent(5_000))
    full.after(wait("s", name="stop")).when(signal(5_000, "stop")).then_topics("run.signalled")
    large = running.after(*(signal(number, payload="x" * 499_998) for number in range(1, 5)))
    large.when(signal(9)).refused(TooManySignals, "nobody has received 4 signals of the run, of 2,000,000 bytes")


def test_the_end_of_a_wait() -> None:
    expire = ExpireSignalWait(run_id=RUN, agent_run_id=A, key="k")
    waiting = running.after(wait(timeout_s=5.0))
    ended = SignalWaitEnded(agent_run_id=A, key="k", name="go", reason="timed_out", timeout_s=5.0)
    waiting.when(expire).then(ended)
    waiting.after(expire).when(expire).then()
    waiting.after(expire).when(signal()).then(sent())
    waiting.after(signal()).when(expire).then()
    waiting.when(expire.model_copy(update={"reopened": 1})).then()
    after_retry = running.after(wait(timeout_s=5.0, reopened=1))
    after_retry.when(expire).then()
    after_retry.when(expire.model_copy(update={"reopened": 1})).then(ended)
    leave = LeaveSignals(run_id=RUN, agent_run_id=A, keys=("k", "x"))
    waiting.when(leave).then(SignalWaitEnded(agent_run_id=A, key="k", name="go", reason="agent_ended"))
    waiting.after(leave).when(signal()).then(sent())
    running.after(CancelRun(run_id=RUN)).when(wait()).then()


def test_timers_of_signals() -> None:
    awaited = SignalAwaited(agent_run_id=A, key="k", step="a", name="go", timeout_s=5.0)
    assert scheduled_by(awaited, RUN) == Scheduled(5.0, ExpireSignalWait(run_id=RUN, agent_run_id=A, key="k"))
    [later] = running.when(wait(timeout_s=5.0, reopened=2)).events()
    over = ExpireSignalWait(run_id=RUN, agent_run_id=A, key="k", reopened=2)
    assert scheduled_by(later, RUN) == Scheduled(5.0, over)
    assert scheduled_by(awaited.model_copy(update={"timeout_s": None}), RUN) is None
    assert scheduled_by(sent(), RUN) is None


def test_what_a_run_keeps_of_signals() -> None:
    state = running.after(wait("w"), signal(1), signal(2), wait("r"), wait("s", "b")).state
    assert set(state.signals_known) == {UUID(int=1), UUID(int=2)}
    assert state.signal_number == 4, "two waits that stand in line, and two signals"
    assert [(one.key, one.step, one.number) for one in state.signal_waits.values()] == [("s", "b", 4)]
    assert not state.signals
    [kept] = running.after(signal(7, payload="é")).state.signals.values()
    assert (kept.number, kept.name, kept.step, kept.payload, kept.size) == (1, "go", None, "é", 8)
