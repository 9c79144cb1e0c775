"""An entry of a routing table: the stream that a command is for, and the rules that decide it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domain.kernel import Decider

Root = Callable[[Any, Any], UUID]
"""(command, state) → the root id of the stream."""


@dataclass(frozen=True, slots=True)
class Route:
    decider: Decider[Any]
    stream: Callable[[Any], UUID]
    root: Root
    creates: bool = False
    """The command usually begins its stream. So the loop does not read the stream first; the append finds out."""
    said: tuple[str, ...] = ()
    """Fields that a repeat from outside must have with the same values. The first event has fields of the same names.

    Values that the server looks up or computes do not belong here: they may differ the second time. Empty: the command's id says
    everything (a claim, a cancellation by a saga), or the giver of the command compares by itself (the start of a run).
    """
    on_behalf_of: Callable[[Any], str | None] | None = None
    """For whom the work of the stream is, by its state, where the stream is work."""
    own_cause: bool = False
    """As the answer of a saga, the command goes on with work that its cause is no part of: for whom that work is (`on_behalf_of`),
    and under the id of its stream as correlation."""
    of_state: bool = False
    """The root stands in the state only, not in the command: the stream must be loaded before its root is known."""
