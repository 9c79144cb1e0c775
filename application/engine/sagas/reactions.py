"""Reactions: the answers of a saga to an event."""

from collections.abc import Callable
from typing import Any

from application.engine.ports.queue import WorkItem
from domain.kernel import Command, Event, RecordedEvent

Reaction = Command | WorkItem
"""A command to another stream, or work to put on the queue."""

Reactions = dict[type[Event], Callable[[Any, RecordedEvent], list[Reaction]]]
