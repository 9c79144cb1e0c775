"""Triggers: what people make of them, the limit of a minute, misfires in a row; and what a target says."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from adapters.expressions import CelExpressions
from application.functions import RuleFunctions
from domain import triggers
from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound
from domain.kernel import Command, Json, Spent
from domain.starting import FiringLimits, Target, Unmapped, holds, id_at, input_of
from domain.triggers import (
    MOST_IN_A_ROW,
    ChangeTrigger,
    CreateTrigger,
    EventFilter,
    FireTrigger,
    PauseTrigger,
    RecordLimited,
    RecordMisfire,
    RemoveTrigger,
    ResumeTrigger,
    Trigger,
    TriggerChanged,
    TriggerCreated,
    TriggerDefinition,
    TriggerFired,
    TriggerLimited,
    TriggerMisfired,
    TriggerNotActive,
    TriggerOverLimit,
    TriggerPaused,
    TriggerRemoved,
    TriggerResumed,
    Webhook,
    bounds_of,
    trigger_id_of,
)
from tests.kit import Given, given

ID, PROJECT, OTHER, HOOK, RUN = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(5))
ON = EventFilter(topics=("run.failed",))
START = Target(agent="a")
PLAIN = TriggerDefinition(on=ON, start=START, project_id=PROJECT)
OF_HOOK = TriggerDefinition(hook=Webhook(scheme="github"), start=START, project_id=PROJECT)
SAID: Json = {"on": {"topics": ["run.failed"]}, "start": {"agent": "a"}, "project_id": str(PROJECT)}
FUNCTIONS = RuleFunctions(CelExpressions())
NEW = given(triggers.DECIDER)
FIXED = "01a22ad2-fcfb-727e-9723-8477120e1f02"


def create(definition: TriggerDefinition = PLAIN, **fields: Any) -> CreateTrigger:
    return CreateTrigger(trigger_id=ID, name="t", definition=definition, **fields)


def change(definition: TriggerDefinition, **fields: Any) -> ChangeTrigger:
    return ChangeTrigger(trigger_id=ID, name="t", definition=definition, **fields)


def fire(minute: int = 1, **fields: Any) -> FireTrigger:
    return FireTrigger(trigger_id=ID, name="t", minute=minute, **{"event": "e", "run_id": RUN, **fields})


def misfire(minute: int = 1) -> RecordMisfire:
    return RecordMisfire(trigger_id=ID, name="t", event="e", code="loop", error="why", minute=minute)


PAUSE, RESUME, REMOVE = (kind(trigger_id=ID, name="t") for kind in (PauseTrigger, ResumeTrigger, RemoveTrigger))
MADE: Given = NEW.after(create())


def limited(most: int) -> Given:
    return NEW.after(create(PLAIN.model_copy(update={"max_per_minute": most})))


# --- what people make of it -----------------------------------------------------------------------------------------------------


def test_a_trigger_says_what_differs_from_the_defaults() -> None:
    NEW.when(create(within=(PROJECT,))).then(TriggerCreated(name="t", definition=SAID, within=(PROJECT,)))
    state: Trigger = MADE.state
    assert (state.status, state.definition, state.max_per_minute, state.exists) == ("active", SAID, 600, True)
    assert limited(7).state.max_per_minute == 7
    assert not NEW.state.exists


def test_there_is_one_trigger_of_a_name() -> None:
    MADE.when(create()).refused(
        AlreadyExists, r"there is a trigger 't' already: change it, or choose another name", pointer="/name"
    )
    MADE.after(PAUSE).when(create()).refused(AlreadyExists)
    again = MADE.after(misfire(), REMOVE).when(create()).then_topics("trigger.created")
    assert triggers.evolve(MADE.after(misfire(), REMOVE).state, again[0]).misfires == 0


def test_a_webhook_has_an_address_and_nothing_else_has() -> None:
    NEW.when(create(OF_HOOK)).refused(InvalidCommand, "has an address exactly when it is about a webhook", pointer="/hook")
    NEW.when(create(hook_id=HOOK)).refused(InvalidCommand, pointer="/hook")
    made = NEW.after(create(OF_HOOK, hook_id=HOOK))
    assert made.state.hook_id == HOOK
    assert made.after(REMOVE).state.hook_id is None


def test_a_change_counts_if_it_changes_something() -> None:
    other = PLAIN.model_copy(update={"description": "d"})
    MADE.when(change(other, within=(OTHER,))).then(
        TriggerChanged(name="t", definition={**SAID, "description": "d"}, within=(OTHER,))
    )  # fmt: skip
    assert MADE.after(change(other, within=(OTHER,))).state.within == (OTHER,)
    MADE.when(change(PLAIN)).then()
    MADE.when(change(PLAIN, within=(OTHER,))).then_topics("trigger.changed")
    assert MADE.after(misfire(), change(other)).state.misfires == 0


def test_events_stay_events_and_webhooks_keep_their_scheme() -> None:
    MADE.when(change(OF_HOOK)).refused(
        InvalidState, "a trigger on events stays one, and one on a webhook, too: remove it, and create"
    )
    hooked = NEW.after(create(OF_HOOK, hook_id=HOOK))
    hooked.when(change(PLAIN)).refused(InvalidState, "a trigger on events stays one")
    token = OF_HOOK.model_copy(update={"hook": Webhook(scheme="token")})
    hooked.when(change(token)).refused(InvalidState, "a webhook keeps its scheme, for which its secrets are made: remove it, and")
    narrower = OF_HOOK.model_copy(update={"hook": Webhook(scheme="github", when="true")})
    hooked.when(change(narrower)).then_topics("trigger.changed")


def test_pauses_resumptions_and_removals() -> None:
    MADE.when(PauseTrigger(trigger_id=ID, name="t", reason="r")).then(TriggerPaused(name="t", because="asked", reason="r"))
    paused = MADE.after(PauseTrigger(trigger_id=ID, name="t", reason="r"))
    assert (paused.state.status, paused.state.because, paused.state.reason) == ("paused", "asked", "r")
    paused.when(PAUSE).then()
    paused.when(RESUME).then(TriggerResumed(name="t"))
    resumed = paused.after(RESUME)
    assert (resumed.state.status, resumed.state.because, resumed.state.reason) == ("active", None, None)
    resumed.when(RESUME).then()
    paused.when(REMOVE).then(TriggerRemoved(name="t"))
    removed = paused.after(REMOVE)
    assert (removed.state.status, removed.state.because, removed.state.reason) == ("removed", None, None)
    removed.when(REMOVE).then()
    created = removed.after(create())
    assert (created.state.status, created.state.because) == ("active", None)
    assert MADE.after(misfire(), PAUSE, RESUME).state.misfires == 0


@pytest.mark.parametrize("command", [change(PLAIN), PAUSE, RESUME], ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("state", [NEW, MADE.after(REMOVE)], ids=["new", "removed"])
def test_what_is_not_there_is_not_found(state: Given, command: Command) -> None:
    state.when(command).refused(NotFound, "there is no trigger 't'")
    NEW.when(REMOVE).refused(NotFound, "there is no trigger 't'")


def test_the_id_follows_from_tenant_and_name() -> None:
    assert trigger_id_of(PROJECT, "t") == trigger_id_of(PROJECT, "t") != trigger_id_of(OTHER, "t")
    assert trigger_id_of(PROJECT, "t") != trigger_id_of(PROJECT, "u")


# --- firing ---------------------------------------------------------------------------------------------------------------------


def test_a_firing_says_what_it_was_about_and_what_it_started() -> None:
    MADE.when(fire(7, depth=3)).then(TriggerFired(name="t", event="e", run_id=RUN, depth=3, minute=7))
    hooked = NEW.after(create(OF_HOOK, hook_id=HOOK))
    hooked.when(fire(hook_id=HOOK, event=None, delivery="d", run_id=None, invocation_id=RUN)).then(
        TriggerFired(name="t", delivery="d", invocation_id=RUN, minute=1)
    )
    assert MADE.after(misfire(), fire()).state.misfires == 0


@pytest.mark.parametrize(
    ("state", "command", "what"),
    [
        (NEW, fire(), "not there"),
        (MADE.after(PAUSE), fire(), "paused"),
        (MADE.after(REMOVE), fire(), "removed"),
        (MADE, fire(hook_id=HOOK), "active"),
        (NEW.after(create(OF_HOOK, hook_id=HOOK)), fire(), "active"),
        (NEW.after(create(OF_HOOK, hook_id=HOOK)), fire(hook_id=OTHER), "active"),
    ],
)
def test_nothing_fires_that_is_not_active_or_has_another_address(state: Given, command: FireTrigger, what: str) -> None:
    state.when(command).refused(TriggerNotActive, f"the trigger 't' is {what}")


def test_the_limit_is_one_of_each_minute() -> None:
    few = limited(2)
    full = few.after(fire(5), misfire(5))
    why = "the trigger 't' fires 2 times in a minute at most"
    full.when(fire(5)).refused(TriggerOverLimit, why)
    full.when(misfire(5)).refused(TriggerOverLimit, why)
    full.when(fire(4)).refused(TriggerOverLimit, why)
    full.when(fire(6)).then_topics("trigger.fired")
    assert (full.state.minute, full.state.in_minute) == (5, 2)
    late = few.after(fire(5), fire(4))
    assert (late.state.minute, late.state.in_minute) == (5, 2)
    following = full.after(fire(6))
    assert (following.state.minute, following.state.in_minute) == (6, 1)


@pytest.mark.parametrize("code", ["run-key-busy", "run-key-queue-full"])
def test_a_busy_key_of_its_runs_is_no_fault_of_a_trigger(code: str) -> None:
    at_the_end = MADE.after(*[misfire()] * (MOST_IN_A_ROW - 1))
    busy = misfire().model_copy(update={"code": code})
    at_the_end.when(busy).then_topics("trigger.misfired")
    at_the_end.after(busy).when(misfire()).then_topics("trigger.misfired", "trigger.paused")
    MADE.after(busy, *[misfire()] * (MOST_IN_A_ROW - 2)).when(misfire()).then_topics("trigger.misfired")


def test_after_twenty_misfires_in_a_row_it_pauses_itself() -> None:
    state = MADE.after(*[misfire()] * (MOST_IN_A_ROW - 1))
    assert MOST_IN_A_ROW == 20
    assert (state.state.status, state.state.misfires) == ("active", 19)
    state.when(misfire()).then(
        TriggerMisfired(name="t", event="e", code="loop", error="why", minute=1),
        TriggerPaused(name="t", because="misfires", reason="it misfired 20 times in a row, the last time with: loop: why"),
    )
    state.after(fire()).when(misfire()).then_topics("trigger.misfired")
    long = RecordMisfire(trigger_id=ID, name="t", code="loop", error="x" * 900, minute=1)
    _, paused = state.when(long).then_topics("trigger.misfired", "trigger.paused")
    assert isinstance(paused, TriggerPaused)
    assert len(paused.reason or "") == 500
    for idle in (NEW, MADE.after(PAUSE), MADE.after(REMOVE)):
        idle.when(misfire()).then()


def test_what_was_over_the_limit_is_counted_once() -> None:
    def over(until: int | None, count: int = 3) -> RecordLimited:
        return RecordLimited(trigger_id=ID, name="t", count=count, minute=9, until=until)

    MADE.when(over(10)).then(TriggerLimited(name="t", count=3, minute=9, until=10))
    counted = MADE.after(over(10))
    assert counted.state.limited_until == 10
    for known in (9, 10):
        counted.when(over(known)).then()
    counted.when(over(11)).then_topics("trigger.limited")
    of_hook = counted.after(over(None))
    assert of_hook.state.limited_until == 10
    of_hook.when(over(None)).then_topics("trigger.limited")
    for idle in (NEW, MADE.after(PAUSE), MADE.after(REMOVE)):
        idle.when(over(20)).then()


# --- definitions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"on": {}, "start": {"agent": "a"}}, "name the events: at least one of `topics` and `slices`"),
        ({"on": {"topics": ["trigger.fired"]}, "start": {"agent": "a"}}, "cannot fire on the events of triggers"),
        ({"on": {"slices": ["runs", "triggers"]}, "start": {"agent": "a"}}, "cannot fire on the events of triggers"),
        (
            {"hook": {"scheme": "token", "headers": ["authorization"]}, "start": {"agent": "a"}},
            "no expression sees the header auth",
        ),
        ({"start": {"agent": "a"}}, "give either `on`, for events, or `hook`, for a webhook"),
        ({"on": {"topics": ["a.b"]}, "hook": {"scheme": "token"}, "start": {"agent": "a"}}, "give either `on`, for events, or"),
        ({"on": {"topics": ["a.b"]}, "start": {"agent": "a"}, "max_depth": 33}, "less than or equal to 32"),
        ({"on": {"topics": ["a.b"]}, "start": {"agent": "a"}, "max_per_minute": 0}, "greater than or equal to 1"),
    ],
)
def test_a_definition_that_makes_no_sense(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TriggerDefinition.model_validate({**fields, "project_id": PROJECT})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "give exactly one of `workflow`, `agent`, `plan`, `tool` and `signal`"),
        ({"agent": "a", "tool": "b"}, "give exactly one of"),
        ({"agent": "a", "version": 1}, "`version` is that of a `workflow`"),
        ({"workflow": "a", "agent_version": "1"}, "`agent_version` is that of an `agent`"),
        ({"tool": "a", "deadline_s": 1}, "`deadline_s` is of runs, not of a call of a tool"),
        ({"tool": "a", "compensate": "on_cancel"}, "`compensate`, `metadata` and `concurrency` are of runs, not of a call"),
        ({"tool": "a", "metadata": {"m": 1}}, "`compensate`, `metadata` and `concurrency` are of runs"),
        ({"tool": "a", "input": 1}, "the `input` of a tool is the object of its arguments"),
        ({"agent": "a", "input_from": {f"n{n}": "1" for n in range(51)}}, "`input_from` names at most 50 fields"),
        ({"agent": "a", "input": 1, "input_from": {"b": "1"}}, "fields of `input_from` go into an object: leave `input` out, or"),
        ({"agent": "a", "input": {"b": 1}, "input_from": "1"}, "give either `input` or one expression as `input_from`"),
        ({"agent": "a", "agent_version": ""}, "at least 1 character"),
    ],
)
def test_a_target_that_makes_no_sense(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Target.model_validate(fields)


def test_a_target_tells_its_expressions_with_their_places() -> None:
    assert Target(agent="a").expressions == {}
    assert Target(agent="a", input_from="1").expressions == {"/input_from": "1"}
    named = Target(agent="a", input_from={"b": "1", "c/d~e": "2"})
    assert named.expressions == {"/input_from/b": "1", "/input_from/c~1d~0e": "2"}


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"agent": "a"}, None),
        ({"agent": "a", "input": [1]}, [1]),
        ({"agent": "a", "input_from": "event.n + 1"}, 3),
        ({"agent": "a", "input": {"a": 1, "b": 2}, "input_from": {"b": "event.n", "c": "event.t"}}, {"a": 1, "b": 2, "c": "x"}),
        ({"tool": "a"}, {}),
        ({"tool": "a", "input_from": "{'a': event.t}"}, {"a": "x"}),
    ],
)
def test_the_input_is_made_of_what_is_given_and_what_is_mapped(fields: dict[str, Any], made: Json) -> None:
    assert input_of(Target.model_validate(fields), {"event": {"n": 2, "t": "x"}}, FUNCTIONS, Spent()) == made


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"agent": "a", "input_from": "event.m"}, r"^input_from: .*m"),
        ({"agent": "a", "input_from": {"b": "event.m"}}, r"^input_from/b: .*m"),
        ({"tool": "a", "input_from": "event.n"}, "^input_from: the arguments of a tool are an object$"),
    ],
)
def test_an_input_that_cannot_be_made(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(Unmapped, match=why) as unmapped:
        input_of(Target.model_validate(fields), {"event": {"n": 2}}, FUNCTIONS, Spent())
    place, _, told = str(unmapped.value).partition(": ")
    assert (unmapped.value.pointer, unmapped.value.why) == (f"/{place}", told)


def test_what_is_mapped_has_one_bound_of_time() -> None:
    spent = Spent()
    input_of(Target(agent="a", input_from={"a": "event.n", "b": "event.n"}), {"event": {"n": 1}}, FUNCTIONS, spent)
    both = spent.units
    input_of(Target(agent="a", input_from="event.n"), {"event": {"n": 1}}, FUNCTIONS, spent)
    assert 0 < both < spent.units
    assert not holds("event.n > 1", {"event": {"n": 1}}, FUNCTIONS, spent)
    assert spent.units > both * 1.4


def test_a_condition_is_true_or_false() -> None:
    values = {"event": {"n": 2}}
    assert holds(None, values, FUNCTIONS, Spent())
    assert holds("event.n == 2", values, FUNCTIONS, Spent())
    assert not holds("event.n == 3", values, FUNCTIONS, Spent())
    with pytest.raises(Unmapped, match=r"^when: the condition is neither true nor false$"):
        holds("event.n", values, FUNCTIONS, Spent())
    with pytest.raises(Unmapped, match=r"^when: .*m"):
        holds("event.m", values, FUNCTIONS, Spent())


def test_an_id_of_a_time_follows_from_what_it_is_of() -> None:
    at = datetime(2026, 11, 30, 5, 0, 0, 123_000, tzinfo=UTC)
    id = id_at(at, PROJECT, "a")
    assert id == id_at(at, PROJECT, "a")
    assert len({id, id_at(at, OTHER, "a"), id_at(at, PROJECT, "b"), id_at(at + timedelta(milliseconds=1), PROJECT, "a")}) == 4
    assert id.int >> 80 == int(at.timestamp() * 1000)
    assert (id.version, id.variant) == (7, "specified in RFC 4122")
    assert str(id_at(at, PROJECT, "a")) == FIXED, "ids that were given out stay what they are"


def test_the_bounds_of_what_a_trigger_sees() -> None:
    of_project: Json = {"on": {"topics": ["a.b"], "project_id": str(PROJECT)}}
    assert bounds_of(SAID, None) is None
    assert bounds_of(SAID, [OTHER]) == (OTHER,)
    assert bounds_of(of_project, None) == (PROJECT,)
    assert bounds_of(of_project, [PROJECT, OTHER]) == (PROJECT,)
    assert bounds_of(of_project, [OTHER]) == (OTHER,)
    assert bounds_of({"hook": {"scheme": "token"}}, None) == ()


def test_limits_have_their_defaults() -> None:
    assert FiringLimits().model_dump() == {"max_per_minute": 600, "max_depth": 8}
    assert FiringLimits(max_per_minute=6_000, max_depth=32)
