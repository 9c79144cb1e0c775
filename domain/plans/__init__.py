"""Plans of runs. A plan is data: a graph of steps. `domain.runs` carries it out.

Others import from here, never from the modules:

- `steps`: what a step does, when, with which input, and what follows from its failure.
- `graph`: graphs of steps, and the constructors of the usual ones.
"""

from domain.plans.graph import (
    MAX_STEPS,
    MAX_STEPS_V1,
    NO_STEPS,
    REMEMBERED_STEPS,
    Graph,
    Plan,
    PlanV3,
    StepState,
    StepStatus,
    body_of,
    graph_of,
    parallel,
    sequential,
    unique_keys,
)
from domain.plans.steps import (
    DOES,
    FORMS,
    MAX_DEPTH,
    MOST_FALLBACKS,
    MOST_ITEMS,
    Adaptive,
    AgentRef,
    ChildRun,
    Each,
    Gather,
    Repeat,
    Step,
    StepV3,
    Wait,
)

__all__ = [
    "DOES",
    "FORMS",
    "MAX_DEPTH",
    "MAX_STEPS",
    "MAX_STEPS_V1",
    "MOST_FALLBACKS",
    "MOST_ITEMS",
    "NO_STEPS",
    "REMEMBERED_STEPS",
    "Adaptive",
    "AgentRef",
    "ChildRun",
    "Each",
    "Gather",
    "Graph",
    "Plan",
    "PlanV3",
    "Repeat",
    "Step",
    "StepState",
    "StepStatus",
    "StepV3",
    "Wait",
    "body_of",
    "graph_of",
    "parallel",
    "sequential",
    "unique_keys",
]
