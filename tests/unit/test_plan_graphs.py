"""What is wrong with the graph of a plan: keys, edges, cycles, and what never runs."""

from collections.abc import Sequence

import pytest

from application.suggestions import similar_names
from domain.plans import GatherNeeds, GraphOf, Node, PlanFlaw, faults_of_graph, faults_of_reach, meant, shown

TWO = GatherNeeds("/steps/g/gather", "any", 2)


def node(key: str, *after: str, form: str | None = None, has_when: bool = False, gather: GatherNeeds | None = None) -> Node:
    return Node(f"/steps/{key}", key, tuple(enumerate(after)), form, has_when, gather)


def faults(*nodes: Node) -> list[PlanFlaw]:
    return list(faults_of_graph(GraphOf(nodes), similar_names))


def reach(*nodes: Node, never: Sequence[str] = ()) -> list[PlanFlaw]:
    graph = GraphOf(nodes)
    places = {graph.by_key[key]: f"/steps/{key}/when" for key in never}
    return list(faults_of_reach(graph, places))


def test_a_sound_graph_has_no_faults() -> None:
    nodes = (node("a"), node("b", "a"), node("c", "a", "b"), node("a.0"))
    assert (faults(*nodes), reach(*nodes)) == ([], [])


def test_two_steps_of_one_key_and_a_key_that_is_free() -> None:
    nodes = [node("a"), node("a"), node("a-3"), node("a")]
    assert faults(*nodes) == [
        ("/steps/a/key", "the step number 1 has the key 'a' already", "give one of them another key, such as 'a-2'"),
        ("/steps/a/key", "the step number 1 has the key 'a' already", "give one of them another key, such as 'a-4'"),
    ]


@pytest.mark.parametrize("form", ["each", "repeat", "adaptive"])
def test_a_key_that_names_a_part_of_a_step(form: str) -> None:
    told = f"'r.s.10' is the name of a part of the step 'r.s', which has `{form}`"
    cure = "give it a key without the dot, such as 'r.s-10'"
    assert faults(node("r.s", form=form), node("r.s.10"), node("r.s.x"), node("r.s.1.2")) == [("/steps/r.s.10/key", told, cure)]
    assert faults(node("r.s"), node("r.s.10"), node("q.1")) == []


def test_an_edge_to_nothing_names_the_step_that_is_meant() -> None:
    assert faults(node("writer"), node("critic", "writer", "wirter", "zzz"), node("criticc", "citicc")) == [
        ("/steps/critic/after/1", "there is no step 'wirter'", "did you mean 'writer'?"),
        ("/steps/critic/after/2", "there is no step 'zzz'", "name a step of the plan, or take it out of `after`"),
        ("/steps/criticc/after/0", "there is no step 'citicc'", "did you mean 'critic'?"),
    ]


def test_a_cycle_is_told_once_with_the_edge_that_closes_it() -> None:
    assert faults(node("a", "x", "c"), node("b", "a"), node("x"), node("c", "b", "x")) == [
        ("/steps/a/after/1", "the steps wait for one another in a cycle: a → b → c → a", "take 'c' out of `after` of 'a'")
    ]
    assert faults(node("c", "b"), node("b", "a"), node("a", "c")) == [
        ("/steps/c/after/0", "the steps wait for one another in a cycle: c → a → b → c", "take 'b' out of `after` of 'c'")
    ]
    assert faults(node("a", "a")) == [("/steps/a/after/0", "the step comes after itself", "take 'a' out of `after` of 'a'")]


def test_two_cycles_are_told_and_a_third_in_them_too() -> None:
    found = faults(node("a", "b"), node("b", "a"), node("c", "d", "e"), node("d", "c"), node("e", "c"))
    assert [fault.pointer for fault in found] == ["/steps/a/after/0", "/steps/c/after/0", "/steps/c/after/1"]


def test_of_many_cycles_ten_are_told() -> None:
    pairs = [each for n in range(11) for each in (node(f"a{n}", f"b{n}"), node(f"b{n}", f"a{n}"))]
    assert len(faults(*pairs)) == 10


@pytest.mark.parametrize(
    ("length", "told"), [(11, None), (12, "a0 → a1 → a2 → a3 → a4 → a5 → a6 → a7 → a8 → a9 → … 2 more … → a0")]
)
def test_a_long_cycle_is_shortened(length: int, told: str | None) -> None:
    [fault] = faults(*(node(f"a{n}", f"a{(n - 1) % length}") for n in range(length)))
    told = told or " → ".join(f"a{n % length}" for n in range(length + 1))
    assert fault == (
        "/steps/a0/after/0",
        f"the steps wait for one another in a cycle: {told}",
        f"take 'a{length - 1}' out of `after` of 'a0'",
    )


def test_which_step_stands_before_which() -> None:
    graph = GraphOf([node("d", "c"), node("c", "b", "b"), node("b", "a"), node("a"), node("other", "nothing")])
    before = {(one, other) for one in range(5) for other in range(5) if graph.is_before(one, other)}
    assert before == {(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)}
    assert [list(graph.right_before(place)) for place in range(5)] == [[1], [2], [3], [], []]


def test_in_a_cycle_each_stands_before_each() -> None:
    graph = GraphOf([node("a", "c"), node("b", "a"), node("c", "b"), node("d", "c")])
    assert all(graph.is_before(one, other) for one in range(3) for other in range(4))
    assert not any(graph.is_before(3, other) for other in range(4))


def test_a_step_behind_one_that_never_runs_does_not_run() -> None:
    nodes = (
        node("d", "c"),
        node("a", has_when=True),
        node("b"),
        node("c", "a"),
        node("e", "a", "b"),
        node("f", "a", has_when=True),
    )
    never = "this is false whatever comes in, so the step 'a' never runs"
    cure = "let it come after a step that runs, or give it a `when`"
    assert reach(*nodes, never=["a"]) == [
        ("/steps/a/when", never, "let the condition name what it depends on, or take the step out"),
        ("/steps/c", "the step never runs: it comes only after 'a', which never runs", cure),
        ("/steps/d", "the step never runs: it comes only after 'c', which never runs", cure),
    ]


def test_the_steps_that_never_run_are_named_up_to_three() -> None:
    nodes = (*(node(f"a{n}", has_when=True) for n in range(4)), node("b", "a0", "a1", "a2", "a3"))
    found = reach(*nodes, never=["a0", "a1", "a2", "a3"])
    assert len(found) == 5
    assert found[-1].detail == "the step never runs: it comes only after 'a0' and 'a1' and 'a2', which never run"


def test_a_gathering_step_without_members_and_with_too_few() -> None:
    steps = (node("a"), node("b"))
    assert reach(node("g", gather=GatherNeeds("/steps/g/gather", "all", 1))) == [
        (
            "/steps/g/gather",
            "a gathering step gathers the results of the steps in `after`, and there are none",
            "name the steps whose results it gathers in `after`",
        )
    ]
    assert reach(*steps, node("g", "a", "b", gather=TWO)) == []
    assert reach(*steps, node("g", "a", "b", gather=GatherNeeds("/steps/g/gather", "any", 3_000))) == [
        (
            "/steps/g/gather/count",
            "3,000 results are wanted of 2 steps",
            "set `count` to 2 at most, or let more steps stand in `after`",
        )
    ]
    assert reach(*steps, node("g", "a", "a", gather=TWO)) == [
        ("/steps/g/gather/count", "2 results are wanted of 1 step", "set `count` to 1 at most, or let more steps stand in `after`")
    ]
    assert reach(*steps, node("g", "a", "b", gather=GatherNeeds("/steps/g/gather", "all", 3))) == [], (
        "the count is for the mode any"
    )
    assert reach(*steps, node("g", "nothing", gather=TWO)) == [], "the edge to nothing is told"


def test_members_of_a_gathering_step_that_never_run() -> None:
    nodes = (
        node("a", has_when=True),
        node("b"),
        node("g", "a", "b", gather=TWO),
        node("h", "a", "b", gather=GatherNeeds("/steps/g/gather", "any", 1)),
    )
    assert reach(*nodes, never=["a"])[1:] == [
        (
            "/steps/g/gather/count",
            "2 results are wanted, and only 1 step of `after` can ever run",
            "set `count` to 1 at most, or let the others run",
        )
    ]
    alone = (node("a", has_when=True), node("g", "a", gather=TWO))
    assert [fault.pointer for fault in reach(*alone, never=["a"])] == ["/steps/a/when", "/steps/g"], "it is told once"


def test_words_of_names_and_cures() -> None:
    assert (shown("a" * 100), shown("a" * 101)) == (f"'{'a' * 100}'", f"'{'a' * 100}…'")
    assert (meant((), "else"), meant(("a", "b"), "else")) == ("else", "did you mean 'a' or 'b'?")
