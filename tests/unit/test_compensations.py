"""The rules of a compensation: what each command brings about, and that any order of outcomes comes out as a simple model says."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st

from domain.compensations import (
    DECIDER,
    MAX_TOLD,
    UNKNOWN,
    BeginCompensation,
    CallExpected,
    CompensationEnded,
    CompensationResumed,
    CompensationStarted,
    EffectCompensated,
    EffectNotCompensated,
    EffectRecorded,
    EffectRuledOut,
    EffectSkipped,
    EffectStarted,
    ExpectCall,
    RecordCompensation,
    RecordEffect,
    ResumeCompensation,
    RuleOutEffect,
    RunCompensation,
    compensation_id_of,
)
from domain.errors import DomainError, InvalidCommand, InvalidState
from domain.failures import Failure
from domain.kernel import Event, derive_id
from tests.kit import given

RUN = UUID("01900000-0000-7000-8000-000000000001")
CALLS = tuple(UUID(f"01900000-0000-7000-8000-00000000010{n}") for n in range(5))
A, B, C, D, E = CALLS
BROKEN = Failure(type="Broken", message="broken", kind="transient", retry_after_s=3.0, traceback="trace")
SHORT = Failure(type="Broken", message="broken", kind="transient")
WORD: dict[str, Any] = {"reason": "why", "by": "key:ops", "on_behalf_of": "user:ada"}


def effect(call: UUID, **more: Any) -> RecordEffect:
    return RecordEffect(run_id=RUN, invocation_id=call, key="k", tool="pay", compensated_by="refund", **more)


def recorded(number: int, call: UUID, **more: Any) -> EffectRecorded:
    return EffectRecorded(number=number, invocation_id=call, key="k", tool="pay", compensated_by="refund", **more)


def undo(call: UUID, round: int = 1) -> UUID:
    return derive_id(compensation_id_of(RUN), f"{call}:{round}")


def started(number: int, call: UUID, round: int = 1) -> EffectStarted:
    return EffectStarted(number=number, invocation_id=call, compensation_id=undo(call, round), round=round)


def outcome(call: UUID, error: Failure | None = None, round: int = 1) -> RecordCompensation:
    return RecordCompensation(run_id=RUN, invocation_id=call, compensation_id=undo(call, round), error=error)


def resume(*skip: UUID, go_on: bool = False) -> ResumeCompensation:
    return ResumeCompensation(run_id=RUN, skip=skip, go_on=go_on, **WORD)


def ended(
    status: Any, effects: int, compensated: int, failed: int = 0, skipped: int = 0, at: int | None = None
) -> CompensationEnded:
    return CompensationEnded(status=status, effects=effects, compensated=compensated, failed=failed, skipped=skipped, stopped_on=at)


BEGIN = BeginCompensation(run_id=RUN, because="failed")
START = CompensationStarted(because="failed")
nothing = given(DECIDER)
two = nothing.after(effect(A), effect(B))
stopped = two.after(BEGIN, outcome(B, BROKEN))


def test_a_call_is_expected_once_and_its_outcome_may_come_first() -> None:
    nothing.when(ExpectCall(run_id=RUN, invocation_id=A)).then(CallExpected(invocation_id=A))
    for first in (ExpectCall(run_id=RUN, invocation_id=A), effect(A), RuleOutEffect(run_id=RUN, invocation_id=A)):
        nothing.after(first).when(ExpectCall(run_id=RUN, invocation_id=A)).then()
    nothing.when(RuleOutEffect(run_id=RUN, invocation_id=A)).then(EffectRuledOut(invocation_id=A))
    ruled_out = nothing.after(RuleOutEffect(run_id=RUN, invocation_id=A))
    ruled_out.when(RuleOutEffect(run_id=RUN, invocation_id=A)).then()
    nothing.after(effect(A)).when(RuleOutEffect(run_id=RUN, invocation_id=A)).then()
    expected = nothing.after(ExpectCall(run_id=RUN, invocation_id=A))
    expected.when(RuleOutEffect(run_id=RUN, invocation_id=A)).then(EffectRuledOut(invocation_id=A))


def test_effects_are_numbered_and_noted_once() -> None:
    nothing.when(effect(A, on_error="continue", unknown=True)).then(recorded(1, A, on_error="continue", unknown=True))
    two.when(effect(C)).then(recorded(3, C))
    two.when(effect(A)).then()


def test_it_begins_with_the_last_effect() -> None:
    two.when(BEGIN).then(START, started(2, B))
    nothing.when(BEGIN).then(START, ended("compensated", 0, 0))
    two.after(BEGIN).when(BEGIN).then()
    asked = BeginCompensation(run_id=RUN, because="requested", **WORD)
    two.when(asked).then(CompensationStarted(because="requested", **WORD), started(2, B))
    two.after(asked).when(asked).then()
    two.after(asked).when(asked.model_copy(update={"reason": "other"})).refused(InvalidState, "has begun before")
    two.after(asked).when(asked.model_copy(update={"by": "key:other"})).refused(InvalidState, "has begun before")
    two.after(BEGIN).when(asked).refused(InvalidState, "the compensation of the run has begun before: it is running")
    over = two.after(BEGIN, outcome(B), outcome(A))
    over.when(asked).refused(InvalidState, "the compensation of the run has begun before: it is compensated")
    nothing.when(asked).refused(InvalidState, "the run has no effect that can be taken back: no tool that it called declares")
    nothing.after(RuleOutEffect(run_id=RUN, invocation_id=A)).when(asked).refused(InvalidState, "no effect")
    open_call = nothing.after(ExpectCall(run_id=RUN, invocation_id=A))
    open_call.when(asked).then(CompensationStarted(because="requested", **WORD))


def test_open_calls_are_waited_for() -> None:
    waiting = two.after(ExpectCall(run_id=RUN, invocation_id=C), BEGIN)
    two.after(ExpectCall(run_id=RUN, invocation_id=C)).when(BEGIN).then(START)
    waiting.when(effect(C)).then(recorded(3, C), started(3, C))
    waiting.when(RuleOutEffect(run_id=RUN, invocation_id=C)).then(EffectRuledOut(invocation_id=C), started(2, B))
    later = two.after(BEGIN, ExpectCall(run_id=RUN, invocation_id=C))
    later.when(outcome(B)).then(EffectCompensated(number=2, invocation_id=B, compensation_id=undo(B)))


def test_the_next_one_is_started_with_the_outcome_before() -> None:
    running = two.after(BEGIN)
    done = EffectCompensated(number=2, invocation_id=B, compensation_id=undo(B))
    running.when(outcome(B)).then(done, started(1, A))
    last = EffectCompensated(number=1, invocation_id=A, compensation_id=undo(A))
    running.after(outcome(B)).when(outcome(A)).then(last, ended("compensated", 2, 2))
    for none in (outcome(A), outcome(C), outcome(B, round=2)):
        running.when(none).then()
    running.after(outcome(B)).when(outcome(B)).then()


def test_where_one_fails_it_stops_or_goes_on() -> None:
    failed = EffectNotCompensated(number=2, invocation_id=B, compensation_id=undo(B), error=SHORT, stops=True)
    two.after(BEGIN).when(outcome(B, BROKEN)).then(failed, ended("partial", 2, 0, failed=1, at=2))
    going_on = nothing.after(effect(A), effect(B, on_error="continue"), BEGIN)
    passed = EffectNotCompensated(number=2, invocation_id=B, compensation_id=undo(B), error=SHORT, stops=False)
    going_on.when(outcome(B, BROKEN)).then(passed, started(1, A))
    last = EffectCompensated(number=1, invocation_id=A, compensation_id=undo(A))
    going_on.after(outcome(B, BROKEN)).when(outcome(A)).then(last, ended("partial", 2, 1, failed=1))
    long = Failure(type="Broken", message="x" * (MAX_TOLD + 1))
    [told, _] = two.after(BEGIN).when(outcome(B, long)).events()
    assert isinstance(told, EffectNotCompensated) and told.error.message == "x" * MAX_TOLD


def test_an_unknown_effect_stops_it_and_is_taken_back_if_a_person_says_so() -> None:
    unknown = nothing.after(effect(A), effect(B, unknown=True))
    asks = EffectNotCompensated(number=2, invocation_id=B, compensation_id=None, error=UNKNOWN, stops=True)
    unknown.when(BEGIN).then(START, asks, ended("partial", 2, 0, failed=1, at=2))
    resumed = CompensationResumed(because="person", retried=(2,), **WORD)
    unknown.after(BEGIN).when(resume()).then(resumed, started(2, B))
    passing = nothing.after(effect(A), effect(B, unknown=True, on_error="continue"))
    passing.when(BEGIN).then(START, asks.model_copy(update={"stops": False}), started(1, A))


def test_a_person_has_it_tried_again() -> None:
    resumed = CompensationResumed(because="person", retried=(2,), **WORD)
    stopped.when(resume()).then(resumed, started(2, B, round=2))
    again = stopped.after(resume())
    again.when(outcome(B)).then()
    done = EffectCompensated(number=2, invocation_id=B, compensation_id=undo(B, 2))
    again.when(outcome(B, round=2)).then(done, started(1, A))
    both = nothing.after(
        effect(A, on_error="continue"), effect(B, on_error="continue"), BEGIN, outcome(B, BROKEN), outcome(A, BROKEN)
    )
    both.when(resume()).then(CompensationResumed(because="person", retried=(1, 2), **WORD), started(2, B, round=2))


def test_a_person_skips_effects() -> None:
    skipped = EffectSkipped(invocation_id=B, number=2, **WORD)
    resumed = CompensationResumed(because="person", **WORD)
    stopped.when(resume(B)).then(skipped, resumed, started(1, A))
    stopped.when(resume(B, B)).then(skipped, resumed, started(1, A))
    over = stopped.after(resume(B), outcome(A))
    assert over.state.status == "partial" and over.state.effects[2].reason == "why"
    over.when(resume(B)).then()
    other = EffectSkipped(invocation_id=A, number=1, **WORD)
    retried = CompensationResumed(because="person", retried=(2,), **WORD)
    stopped.when(resume(A)).then(other, retried, started(2, B, round=2))
    two.after(BEGIN).when(resume(A)).then(other)
    two.after(BEGIN, resume(A)).when(outcome(B)).then(
        EffectCompensated(number=2, invocation_id=B, compensation_id=undo(B)), ended("partial", 2, 1, skipped=1)
    )


def test_a_person_goes_on_without_it() -> None:
    stopped.when(resume(go_on=True)).then(CompensationResumed(because="person", **WORD), started(1, A))
    left = stopped.after(resume(go_on=True), outcome(A))
    assert (left.state.status, left.state.stopped_on) == ("partial", None)
    left.when(resume()).then(CompensationResumed(because="person", retried=(2,), **WORD), started(2, B, round=2))


def test_a_person_does_not_wait_for_an_open_call() -> None:
    waiting = two.after(ExpectCall(run_id=RUN, invocation_id=C), BEGIN)
    left = EffectSkipped(invocation_id=C, number=None, **WORD)
    waiting.when(resume(C)).then(left, started(2, B))
    gone = waiting.after(resume(C))
    gone.when(resume(C)).then()
    gone.when(ExpectCall(run_id=RUN, invocation_id=C)).then()
    over = gone.after(outcome(B), outcome(A))
    assert over.state.status == "partial"
    late = CompensationResumed(because="late_effect")
    over.when(effect(C)).then(recorded(3, C), late, started(3, C))
    done = EffectCompensated(number=3, invocation_id=C, compensation_id=undo(C))
    over.after(effect(C)).when(outcome(C)).then(done, ended("compensated", 3, 3))
    over.when(RuleOutEffect(run_id=RUN, invocation_id=C)).then(EffectRuledOut(invocation_id=C))


def test_a_late_effect_does_not_pass_the_one_at_which_it_stands() -> None:
    late = CompensationResumed(because="late_effect")
    stopped.when(effect(C)).then(recorded(3, C), late, started(3, C))
    done = EffectCompensated(number=3, invocation_id=C, compensation_id=undo(C))
    stopped.after(effect(C)).when(outcome(C)).then(done, ended("partial", 3, 1, failed=1, at=2))


def test_what_makes_no_sense_is_refused() -> None:
    two.when(resume()).refused(InvalidState, "the compensation of the run has not begun")
    running = two.after(BEGIN)
    running.when(resume()).refused(
        InvalidState, "the compensation is running: nothing of it waits for a person but what is skipped"
    )
    running.when(resume(B)).refused(InvalidState, f"the effect of {B} is being taken back by the call {undo(B)}: that one has the")
    over = running.after(outcome(B), outcome(A))
    over.when(resume()).refused(InvalidState, "the compensation is compensated, and nothing of it can be tried again")
    over.when(resume(A)).refused(InvalidState, f"the effect of {A} was taken back")
    stopped.when(resume(B, D)).refused(InvalidCommand, f"the run has no call {D} whose effect can be taken back", pointer="/skip/1")
    none = stopped.after(RuleOutEffect(run_id=RUN, invocation_id=D))
    none.when(resume(D)).refused(InvalidCommand, f"the call {D} had no effect", pointer="/skip/0")


# --- any order --------------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """A compensation as a list that is walked over at each question."""

    begun: bool = False
    over: bool = False
    calls: dict[UUID, str] = field(default_factory=dict)
    """Call → open, left, none, or effect."""
    effects: list[list[Any]] = field(default_factory=list)
    """Call, status, whether it stops, unknown, rounds."""
    stop: int | None = None

    def settle(self) -> None:
        """What goes on by itself."""
        while self.begun and not self.over:
            if "open" in self.calls.values() or any(each[1] == "running" for each in self.effects):
                return
            due = [number for number, each in enumerate(self.effects) if each[1] == "recorded"]
            if not due or (self.stop is not None and due[-1] < self.stop):
                self.over = True
                return
            each = self.effects[due[-1]]
            if each[3] and not each[4]:
                each[1], each[4] = "failed", 1
                self.stop = due[-1] if each[2] else self.stop
                continue
            each[1], each[4] = "running", each[4] + 1

    @property
    def status(self) -> str:
        if not self.begun:
            return "none"
        if not self.over:
            return "running" if any(each[1] == "running" for each in self.effects) else "waiting"
        whole = all(each[1] == "compensated" for each in self.effects) and "left" not in self.calls.values()
        return "compensated" if whole else "partial"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("expect"), st.sampled_from(CALLS)),
        st.tuples(st.just("effect"), st.sampled_from(CALLS), st.booleans(), st.booleans()),
        st.tuples(st.just("none"), st.sampled_from(CALLS)),
        st.tuples(st.just("begin")),
        st.tuples(st.just("outcome"), st.booleans()),
        st.tuples(st.just("outcome"), st.just(True)),
        st.tuples(st.just("resume"), st.lists(st.sampled_from(CALLS), max_size=2), st.booleans()),
    ),
    max_size=40,
)


@settings(max_examples=500)
@given_any(steps)
def test_any_order_of_outcomes_late_ones_retries_and_skips_comes_out_as_the_model_says(steps: list[Any]) -> None:
    state, model = RunCompensation(), Model()
    taken_back: list[UUID] = []

    def give(command: Any) -> list[Event]:
        nonlocal state
        events = DECIDER.decide(state, command)
        for event in events:
            state = DECIDER.evolve(state, event)
            if isinstance(event, EffectCompensated):
                taken_back.append(event.invocation_id)
        return events

    for kind, *more in steps:
        try:
            _step(give, model, state, kind, more)
        except DomainError:
            continue
        model.settle()
        statuses = [state.effects[number].status for number in range(1, len(state.effects) + 1)]
        assert statuses == [each[1] for each in model.effects], kind
        assert statuses.count("running") == bool(state.current)
        # A call left open after the end makes a compensated one no longer so only when it goes on.
        if state.status != "compensated" or not model.over:
            assert (state.status in ("waiting", "running")) == (model.status in ("waiting", "running")), kind
        assert state.is_over == (model.begun and model.over)
        assert state.stopped_on == (None if model.stop is None else model.stop + 1)
        assert state.compensated == statuses.count("compensated") and state.skipped == statuses.count("skipped")
        assert set(state.failed) == {number for number, each in enumerate(statuses, 1) if each == "failed"}
    assert len(set(taken_back)) == len(taken_back), "each effect is taken back once"


def _step(give: Any, model: Model, state: RunCompensation, kind: str, more: list[Any]) -> None:
    match kind:
        case "expect":
            give(ExpectCall(run_id=RUN, invocation_id=more[0]))
            model.calls.setdefault(more[0], "open")
        case "effect":
            call, stops, unknown = more
            give(effect(call, on_error="stop" if stops else "continue", unknown=unknown))
            if model.calls.get(call) != "effect":
                model.calls[call] = "effect"
                model.effects.append([call, "recorded", stops, unknown, 0])
                model.over = False
        case "none":
            give(RuleOutEffect(run_id=RUN, invocation_id=more[0]))
            if model.calls.get(more[0]) != "effect":
                model.calls[more[0]] = "none"
        case "begin":
            give(BEGIN)
            model.begun = True
        case "outcome":
            running = next((each for each in model.effects if each[1] == "running"), None)
            if running is not None:
                compensation_id = state.effects[state.current].compensation_id
                assert compensation_id is not None
                error = None if more[0] else BROKEN
                give(RecordCompensation(run_id=RUN, invocation_id=running[0], compensation_id=compensation_id, error=error))
                running[1] = "compensated" if more[0] else "failed"
                if not more[0] and running[2]:
                    model.stop = model.effects.index(running)
        case "resume":
            _resume(model, give(resume(*more[0], go_on=more[1])), *more)


def _resume(model: Model, events: list[Event], skip: list[UUID], go_on: bool) -> None:
    for call in skip:
        if model.calls[call] == "open":
            model.calls[call] = "left"
        for number, each in enumerate(model.effects):
            if each[0] == call and each[1] in ("recorded", "failed"):
                each[1] = "skipped"
                model.stop = None if model.stop == number else model.stop
    if any(isinstance(event, CompensationResumed) for event in events):
        model.over, model.stop = False, None
        for each in model.effects if not go_on else ():
            each[1] = "recorded" if each[1] == "failed" else each[1]


def test_only_the_effect_at_which_it_stands_still_lets_it_go_on_when_it_is_skipped() -> None:
    stands = given(
        DECIDER, recorded(1, A), recorded(2, B), CompensationStarted(because="failed"), started(2, B),
        EffectNotCompensated(number=2, invocation_id=B, compensation_id=undo(B), error=SHORT, stops=True),
    )  # fmt: skip
    assert stands.state.stopped_on == 2
    skipped = {number: EffectSkipped(number=number, invocation_id=call, reason="why", by="me") for number, call in ((1, A), (2, B))}
    assert DECIDER.evolve(stands.state, skipped[1]).stopped_on == 2
    assert DECIDER.evolve(stands.state, skipped[2]).stopped_on is None
