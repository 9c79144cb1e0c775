"""Given / when / then for deciders: `given(DECIDER, *events).when(command).then(*events)`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from domain.kernel import Command, Decider, Event


@dataclass(frozen=True, slots=True)
class Given:
    decider: Decider[Any]
    state: Any

    def when(self, command: Command) -> "When":
        return When(self, command)

    def after(self, *commands: Command) -> "Given":
        """Returns the state after the events of the commands."""
        state = self.state
        for command in commands:
            for event in self.decider.decide(state, command):
                state = self.decider.evolve(state, event)
        return Given(self.decider, state)


@dataclass(frozen=True, slots=True)
class When:
    given: Given
    command: Command

    def events(self) -> list[Event]:
        return self.given.decider.decide(self.given.state, self.command)

    def then(self, *expected: Event) -> None:
        assert self.events() == list(expected)

    def then_topics(self, *topics: str) -> list[Event]:
        events = self.events()
        assert [event.TOPIC for event in events] == list(topics)
        return events

    def refused(self, error: type[Exception], match: str | None = None, *, pointer: str | None = None) -> None:
        with pytest.raises(error, match=match) as refusal:
            self.events()
        if pointer is not None:
            assert getattr(refusal.value, "pointer", None) == pointer


def given(decider: Decider[Any], *events: Event) -> Given:
    return Given(decider, fold(decider, events))


def fold(decider: Decider[Any], events: Sequence[Event]) -> Any:
    state = decider.initial()
    for event in events:
        state = decider.evolve(state, event)
    return state
