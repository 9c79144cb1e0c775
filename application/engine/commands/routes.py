"""What a routing table says of a command: which stream it is for, and whose rules decide it."""

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
    """The command begins its stream as a rule: the loop does not look for events first, the append itself finds out."""
    said: tuple[str, ...] = ()
    """What a repeat from outside must say again: fields of the command that its first event has too, under the same names.

    Not what the server looks up or computes: that may be different at the second time. Empty: the command's id says all
    (a claim, a cancellation by a saga), or whoever gives the command compares by itself (the start of a run).
    """
