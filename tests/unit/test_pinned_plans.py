"""Plans with the versions of their agents: cached for plans that are started again, and for no others."""

import gc
import weakref

import pytest

from application.runs.start import _pinned
from domain import runs


def test_a_plan_that_comes_again_is_pinned_once_for_each_set_of_versions() -> None:
    plan = runs.sequential(("historian", "editor"))
    first, again, other = (
        _pinned(runs.sequential(("historian", "editor")), versions) for versions in (("1", "1"), ("1", "1"), ("1", "2"))
    )
    assert first is again and first is not other
    assert [step.agent_version for step in first.steps] == ["1", "1"]
    assert [step.agent_version for step in other.steps] == ["1", "2"]
    assert [step.agent_version for step in plan.steps] == [None, None]


def test_what_a_request_brought_goes_with_the_request() -> None:
    """A plan whose inputs are as large as a body may be."""
    plan = runs.Plan(steps=(runs.Step(key="a", agent="historian", input={"text": "x" * 1_000_000}),))
    assert _pinned(plan, ("1",)).steps[0].input == plan.steps[0].input
    gone = weakref.ref(plan)
    del plan
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("shape", ["sequential", "parallel"])
def test_long_plans_are_not_kept(shape: str) -> None:
    """A thousand different plans of a thousand steps would take a gigabyte."""

    def made(count: int) -> runs.Plan:
        agents = tuple(f"agent-{number}" for number in range(count))
        return runs.sequential(agents) if shape == "sequential" else runs.parallel(agents, "editor")

    assert made(3) is made(3)
    long = made(999)
    assert made(999) == long
    gone = weakref.ref(long)
    del long
    gc.collect()
    assert gone() is None
