"""What is going on, as sums: the figures behind metrics, health and `tidelog doctor`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Kind = Literal["run", "agent", "tool"]
State = Literal["waiting", "running", "retrying", "ambiguous", "paused", "held", "suspended"]
Outcome = Literal["completed", "degraded", "failed", "cancelled"]

STATES: tuple[State, ...] = ("waiting", "running", "retrying", "ambiguous", "paused", "held", "suspended")
"""A paused run is `running`, as long as it has not ended; its agent runs and calls are `paused`. `held`: the call waits for an
approval. `suspended`: the agent has left its worker, and only waits."""
AGENT_STATES: tuple[State, ...] = ("waiting", "running", "retrying", "suspended", "paused")
TOOL_STATES: tuple[State, ...] = ("waiting", "running", "retrying", "held", "ambiguous", "paused")
AGED: tuple[State, ...] = ("waiting", "retrying", "ambiguous", "paused", "held", "suspended")
"""States of which the oldest is known."""
OUTCOMES: tuple[Outcome, ...] = ("completed", "degraded", "failed", "cancelled")
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0)
"""Upper bounds of the histogram of durations, in seconds. Stored counts follow these bounds: a change needs a rebuild."""
MAX_LABELS = 50
"""Agents, and tools, that have figures of their own. The figures of all further ones are summed up under `OTHER`."""
OTHER = "(other)"
"""No agent or tool can have this name."""


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over all runs, over the runs of one agent, or over the calls of one tool."""

    kind: Kind
    label: str
    """Name of the agent or tool, or `OTHER`. Empty for runs."""
    started: int
    ended: Mapping[Outcome, int]
    retries: int
    became_ambiguous: int
    now: Mapping[State, int]
    """How many are in each state at present."""
    seconds: float
    """Sum of the durations from start to end."""
    durations: Sequence[int]
    """How many durations lie in each interval of `BOUNDS_S`, and beyond the last bound."""
    oldest_s: Mapping[State, float]
    """State → seconds since the oldest one came into the state. Only of `AGED`, and only if there are any."""


@dataclass(frozen=True, slots=True)
class OpenRunCount:
    """How many runs have not ended."""

    total: int
    of_tenants: Mapping[UUID, int]
    """By tenant. Empty where only the total was asked for."""
    position: int
    """The runs are counted up to this position of the log."""


@dataclass(frozen=True, slots=True)
class Activity:
    totals: Sequence[Total]

    def count(self, state: State) -> int:
        return sum(total.now[state] for total in self.totals)

    def oldest_s(self, state: State) -> float | None:
        """Seconds since the oldest one came into the state. None: there is none."""
        return max((total.oldest_s[state] for total in self.totals if state in total.oldest_s), default=None)
