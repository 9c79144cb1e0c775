"""Plans of runs. A plan is data: a graph of steps. `domain.runs` carries it out.

Others import from here, never from the modules:

- `variables`: what the expressions of a plan may name.
- `steps`: what a step does, when, with which input, and what follows from its failure.
- `checks`: what is wrong with a graph that somebody has written, all at once.
- `graph`: graphs of steps, and the constructors of the usual ones.
"""

from domain.plans.checks import (
    GatherNeeds,
    GraphOf,
    Node,
    PlanFlaw,
    faults_of_graph,
    faults_of_reach,
    meant,
    shown,
)
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
from domain.plans.variables import BASE, OF_EACH, OF_JUDGES, OF_REPEAT, OF_UNTIL

__all__ = [
    "BASE",
    "DOES",
    "FORMS",
    "MAX_DEPTH",
    "MAX_STEPS",
    "MAX_STEPS_V1",
    "MOST_FALLBACKS",
    "MOST_ITEMS",
    "NO_STEPS",
    "OF_EACH",
    "OF_JUDGES",
    "OF_REPEAT",
    "OF_UNTIL",
    "REMEMBERED_STEPS",
    "Adaptive",
    "AgentRef",
    "ChildRun",
    "Each",
    "Gather",
    "GatherNeeds",
    "Graph",
    "GraphOf",
    "Node",
    "Plan",
    "PlanFlaw",
    "PlanV3",
    "Repeat",
    "Step",
    "StepState",
    "StepStatus",
    "StepV3",
    "Wait",
    "body_of",
    "faults_of_graph",
    "faults_of_reach",
    "graph_of",
    "meant",
    "parallel",
    "sequential",
    "shown",
    "unique_keys",
]
