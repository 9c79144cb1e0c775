"""What is wrong with the graph of a plan, all at once: each fault with its place, and what to do about it.

The graph may be any: two steps of one key, edges to nothing, cycles. What only follows from another fault is not told.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_CYCLES = 10
"""Cycles of a plan that are told."""
MOST_SHOWN = 12
"""Steps of a cycle that are named."""
_PART = re.compile(r"^(.+)\.([0-9]+)$")

Similar = Callable[[str, Collection[str]], Sequence[str]]
"""The known names most like a name."""


class PlanFlaw(NamedTuple):
    """What is wrong, or for a warning, what is perhaps not meant so."""

    pointer: str
    """JSON Pointer to the place."""
    detail: str
    cure: str
    """What to do about it."""


class GatherNeeds(NamedTuple):
    """A step that gathers the results of the steps before it."""

    pointer: str
    """Where that is said."""
    mode: str
    needed: int


class Node(NamedTuple):
    """A step of a plan that may be wrong, as far as its graph goes."""

    pointer: str
    key: str
    after: tuple[tuple[int, str], ...] = ()
    """Place in `after`, and the key that stands there."""
    form: str | None = None
    """`each`, `repeat`, `adaptive` or `run`: the step has numbered parts."""
    has_when: bool = False
    gather: GatherNeeds | None = None


def shown(name: str) -> str:
    """A name of somebody's, as it stands in a text."""
    return f"'{name}'" if len(name) <= 100 else f"'{name[:100]}…'"


def meant(found: Sequence[str], otherwise: str) -> str:
    """The cure for a name that is not known."""
    return f"did you mean {' or '.join(shown(name) for name in found)}?" if found else otherwise


@dataclass
class GraphOf:
    """The graph of a plan that may be wrong."""

    nodes: Sequence[Node]
    by_key: Mapping[str, int] = field(init=False)
    """Key → place of the first step with it."""
    cycles: Sequence[Sequence[int]] = field(init=False)
    """Places of the steps of each cycle: each stands before the next one, and the last one before the first. The edge from the
    last one to the first closes it."""

    def __post_init__(self) -> None:
        by_key: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            by_key.setdefault(node.key, place)
        self.by_key = by_key
        self._before = [self._known(node) for node in self.nodes]
        self.cycles, self.order = _cycles_and_order(self._before)
        self._masks = _masks(self._before, self.order)

    def _known(self, node: Node) -> list[int]:
        """The places of the steps right before a step, each once."""
        return list(dict.fromkeys(self.by_key[key] for _, key in node.after if key in self.by_key))

    def right_before(self, place: int) -> Sequence[int]:
        return self._before[place]

    def is_before(self, one: int, other: int) -> bool:
        """Whether a step has ended when the other one begins."""
        return bool(self._masks[other] >> one & 1)


def _cycles_and_order(before: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[int]]:
    """The cycles, at most `MOST_CYCLES` of them, and the steps in an order in which each comes after those before it, but for the
    edges that close cycles."""
    cycles: list[list[int]] = []
    order: list[int] = []
    state = [0] * len(before)  # 1: on the path, 2: done
    for root in range(len(before)):
        if state[root]:
            continue
        state[root] = 1
        path, left = [root], [iter(before[root])]
        while path:
            step = next(left[-1], None)
            if step is None:
                state[path[-1]] = 2
                order.append(path.pop())
                left.pop()
            elif state[step] == 1:
                if len(cycles) < MOST_CYCLES:
                    cycles.append(_turned(path[path.index(step) :][::-1]))
            elif not state[step]:
                state[step] = 1
                path.append(step)
                left.append(iter(before[step]))
    return cycles, order


def _turned(cycle: list[int]) -> list[int]:
    """The same cycle from its first step in the plan on. Plans are written in their order: the edge back to it is the odd one."""
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def _masks(before: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """For each step the steps that stand before it, near or far, as bits."""
    masks = [0] * len(before)
    changed = True
    while changed:  # twice for a graph without cycles
        changed = False
        for place in order:
            mask = masks[place]
            for step in before[place]:
                mask |= masks[step] | 1 << step
            if mask != masks[place]:
                masks[place], changed = mask, True
    return masks


def faults_of_graph(graph: GraphOf, similar: Similar) -> Iterator[PlanFlaw]:
    """What is wrong with keys and edges."""
    yield from _faults_of_keys(graph)
    for node in graph.nodes:
        yield from _faults_of_edges(graph, node, similar)
    for cycle in graph.cycles:
        yield _fault_of_cycle(graph, cycle)


def _faults_of_keys(graph: GraphOf) -> Iterator[PlanFlaw]:
    numbers: Counter[str] = Counter()
    for place, node in enumerate(graph.nodes):
        first = graph.by_key[node.key]
        if first != place:
            numbers[node.key] += 1
            other = _free(f"{node.key}-", numbers[node.key] + 1, graph.by_key)
            detail = f"the step number {first + 1} has the key {shown(node.key)} already"
            yield PlanFlaw(f"{node.pointer}/key", detail, f"give one of them another key, such as '{other}'")
        part = _PART.match(node.key)
        whole = graph.by_key.get(part[1]) if part else None
        if part and whole is not None and (form := graph.nodes[whole].form) is not None:
            detail = f"{shown(node.key)} is the name of a part of the step {shown(part[1])}, which has `{form}`"
            yield PlanFlaw(f"{node.pointer}/key", detail, f"give it a key without the dot, such as '{part[1]}-{part[2]}'")


def _free(begin: str, number: int, taken: Mapping[str, int]) -> str:
    while f"{begin}{number}" in taken:
        number += 1
    return f"{begin}{number}"


def _faults_of_edges(graph: GraphOf, node: Node, similar: Similar) -> Iterator[PlanFlaw]:
    for place, key in node.after:
        if key not in graph.by_key:
            others = [other for other in graph.by_key if other != node.key]
            cure = meant(similar(key, others), "name a step of the plan, or take it out of `after`")
            yield PlanFlaw(f"{node.pointer}/after/{place}", f"there is no step {shown(key)}", cure)


def _fault_of_cycle(graph: GraphOf, cycle: Sequence[int]) -> PlanFlaw:
    first, last = graph.nodes[cycle[0]], graph.nodes[cycle[-1]]
    keys = [graph.nodes[place].key for place in (*cycle, cycle[0])]
    if len(keys) > MOST_SHOWN:
        keys = [*keys[: MOST_SHOWN - 2], f"… {len(keys) - MOST_SHOWN + 1} more …", keys[-1]]
    at = next(place for place, key in first.after if key == last.key)
    detail = "the step comes after itself" if len(cycle) == 1 else f"the steps wait for one another in a cycle: {' → '.join(keys)}"
    return PlanFlaw(f"{first.pointer}/after/{at}", detail, f"take {shown(last.key)} out of `after` of {shown(first.key)}")


def faults_of_reach(graph: GraphOf, never: Mapping[int, str]) -> Iterator[PlanFlaw]:
    """What never runs, and what can never end well. `never`: the place of a step whose condition is false whatever comes in → the
    pointer to the condition."""
    unreached = dict.fromkeys(never)
    for place, pointer in never.items():
        detail = f"this is false whatever comes in, so the step {shown(graph.nodes[place].key)} never runs"
        yield PlanFlaw(pointer, detail, "let the condition name what it depends on, or take the step out")
    for place in graph.order:
        node, before = graph.nodes[place], graph.right_before(place)
        if place in unreached or node.has_when or not before or not all(step in unreached for step in before):
            continue
        unreached[place] = None
        keys = " and ".join(shown(graph.nodes[step].key) for step in before[:3])
        detail = f"the step never runs: it comes only after {keys}, which never run{'s' if len(before) == 1 else ''}"
        yield PlanFlaw(node.pointer, detail, "let it come after a step that runs, or give it a `when`")
    for place, node in enumerate(graph.nodes):
        if node.gather is not None and place not in unreached:
            yield from _faults_of_gather(graph, place, node, node.gather, unreached)


def _faults_of_gather(
    graph: GraphOf, place: int, node: Node, gather: GatherNeeds, unreached: Mapping[int, object]
) -> Iterator[PlanFlaw]:
    members = graph.right_before(place)
    if not node.after:
        cure = "name the steps whose results it gathers in `after`"
        yield PlanFlaw(gather.pointer, "a gathering step gathers the results of the steps in `after`, and there are none", cure)
    elif gather.mode == "any" and members:
        possible = [step for step in members if step not in unreached]
        if gather.needed > len(members):
            detail = f"{gather.needed:,} results are wanted of {_steps(len(members))}"
            cure = f"set `count` to {len(members)} at most, or let more steps stand in `after`"
            yield PlanFlaw(f"{gather.pointer}/count", detail, cure)
        elif gather.needed > len(possible):
            detail = f"{gather.needed:,} results are wanted, and only {_steps(len(possible))} of `after` can ever run"
            yield PlanFlaw(f"{gather.pointer}/count", detail, f"set `count` to {len(possible)} at most, or let the others run")


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"
