"""A snapshot and the events after it make the same state as all events, for the rules of every slice."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map
from pydantic import BaseModel

from application.engine.commands.state_models import StateModel, model_of
from application.routes import ROUTES
from domain import (
    agent_runs,
    context,
    invocations,
)
from domain.errors import DomainError
from domain.failures import Failure
from domain.kernel import Decider
from domain.registry import REGISTRY, SLICES
from tests.golden.examples import EXAMPLES
from tests.kit.slice_commands import COMMANDS, ID, failure, json

DECIDERS: dict[str, Decider[Any]] = {route.decider.slice: route.decider for route in ROUTES.values()}


def types_in(value: Any) -> Any:
    """The types of a value and of all its parts, and the keys of mappings in order."""
    if is_dataclass(value):
        return type(value), [(f.name, types_in(getattr(value, f.name))) for f in fields(value)]
    if isinstance(value, BaseModel):
        return type(value), [(name, types_in(getattr(value, name))) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        return type(value), [(types_in(key), key, types_in(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types_in(item) for item in value]
    if isinstance(value, datetime):
        return type(value), type(value.tzinfo)
    return type(value)


def test_every_slice_is_tried() -> None:
    assert COMMANDS.keys() == DECIDERS.keys()


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=40)
@given(data=st.data())
def test_snapshot_and_later_events_make_the_state_of_all_events(name: str, data: st.DataObject) -> None:
    decider, (first, others) = DECIDERS[name], COMMANDS[name]
    model, decided, states = model_of(REGISTRY, decider), decider.initial(), [decider.initial()]
    recorded = []
    more = [] if others.is_empty else data.draw(st.lists(others, max_size=25))
    for command in (first, *more):
        try:
            events = decider.decide(decided, command)
        except DomainError:
            continue
        for event in events:
            decided = decider.evolve(decided, event)
            recorded.append(REGISTRY.decode(event.TOPIC, event.VERSION, REGISTRY.encode(event)))
            states.append(decider.evolve(states[-1], recorded[-1]))
    assert model.decode(model.encode(decided)) == states[-1], "taken from what the command loop has in memory"
    begin = data.draw(st.integers(0, len(recorded)))
    at_once = decider.fold(states[begin], recorded[begin:])
    assert (at_once, types_in(at_once)) == (states[-1], types_in(states[-1])), "many events at once"
    assert model.encode(at_once) == model.encode(states[-1])
    at_version = data.draw(st.integers(0, len(recorded)))
    state = model.decode(model.encode(states[at_version]))
    assert state == states[at_version]
    assert types_in(state) == types_in(states[at_version])
    for event in recorded[at_version:]:
        state = decider.evolve(state, event)
    assert state == states[-1]
    assert model.encode(state) == model.encode(states[-1])
    if is_dataclass(states[-1]):
        between = data.draw(st.integers(at_version, len(recorded)))
        steps = [(states[at_version], states[between]), (states[between], states[-1])]
        changes = [model.encode_change(model.change(before, after), after) for before, after in steps]
        state = model.decode(model.encode(states[at_version]), changes)
        assert state == states[-1]
        assert types_in(state) == types_in(states[-1])
        assert model.encode(state) == model.encode(states[-1])


@pytest.mark.parametrize("name", DECIDERS)
def test_a_restored_state_has_the_types_of_a_folded_one(name: str) -> None:
    """A history with every event of the slice and every field set."""
    decider, model = DECIDERS[name], model_of(REGISTRY, DECIDERS[name])
    history = [event for event in EXAMPLES if isinstance(event, SLICES[name])]
    assert {type(event) for event in history} == set(SLICES[name])
    state = decider.initial()
    for event in history:
        state = decider.evolve(state, REGISTRY.decode(event.TOPIC, event.VERSION, REGISTRY.encode(event)))
        restored = model.decode(model.encode(state))
        assert restored == state
        assert types_in(restored) == types_in(state), event.TOPIC


def test_types_are_told_apart_however_deep() -> None:
    one = agent_runs.AgentRun(journal=Map({"k": agent_runs.Entry("step", "ok", {"a": [1]})}))
    other = agent_runs.AgentRun(journal=Map({"k": agent_runs.Entry("step", "ok", {"a": [1.0]})}))
    assert one == other
    assert types_in(one) != types_in(other)


@given(result=json, error=st.none() | failure, evidence=json)
def test_a_call_that_a_person_resolved_is_kept(result: Any, error: Failure | None, evidence: Any) -> None:
    request: Any = COMMANDS["invocations"][0].model_copy(update={"idempotent": False})
    claims = [invocations.ClaimInvocation(invocation_id=ID, worker_id=name, dispatch=1) for name in ("vanished", "next")]
    said = invocations.ResolveInvocation(
        invocation_id=ID, result=result, error=error, by="key:ann", reason="I looked", evidence=evidence
    )
    cancel = invocations.CancelInvocation(invocation_id=ID, reason="over")
    state: Any = invocations.DECIDER.initial()
    for command in (request, *claims, cancel, said):
        for event in invocations.decide(state, command):
            state = invocations.evolve(state, event)  # type: ignore[arg-type]  # only this slice's events are made here
    model = model_of(REGISTRY, invocations.DECIDER)
    assert state.resolved is not None and state.cancel_request is not None
    assert model.decode(model.encode(state)) == state


@dataclass(frozen=True)
class OtherContext:
    entries: dict[str, context.ContextEntry] = field(default_factory=dict)
    owner: str | None = None


def test_digest_tells_models_apart() -> None:
    digests = {model_of(REGISTRY, decider).digest for decider in DECIDERS.values()}
    assert len(digests) == len(DECIDERS)
    other: Decider[Any] = Decider("context", OtherContext, context.decide, context.evolve)
    assert StateModel(REGISTRY, other).digest not in digests
    assert StateModel(REGISTRY, context.DECIDER).digest == model_of(REGISTRY, context.DECIDER).digest, "the same in every process"
