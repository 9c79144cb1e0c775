"""A contract suite for tools: what every tool must do, checked without a server."""

import asyncio
import unittest
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidelog.testing.checks import LeftOut, ToolChecks
from tidelog.tool_classes import AnyTool


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check_tool` has checked. `left_out`: the other checks, with the reason."""

    done: tuple[str, ...]
    left_out: dict[str, str]


CHECKS = (
    "describes_itself",
    "accepts_its_examples",
    "refuses_other_arguments",
    "results_are_what_it_declares",
    "same_key_has_one_effect",
    "reconcile_tells_the_truth",
    "a_cancelled_call_ends",
    "the_compensation_takes_the_effect_back",
    "errors_have_no_secrets",
    "works_in_a_process_of_its_own",
)


async def check_tool(tool: AnyTool, *, leave_out: Sequence[str] = (), **given: Any) -> Checked:
    """Check everything that a tool must do; `given` are the fields of `ToolChecks`. Raises AssertionError with all that is wrong.

    leave_out: names of checks.
    """
    if unknown := sorted(set(leave_out) - set(CHECKS)):
        raise ValueError(f"there is no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    checks, faults, done, left = ToolChecks(tool, **given), list[str](), list[str](), dict[str, str]()
    try:
        for name in CHECKS:
            if name in leave_out:
                left[name] = "as the test asked"
                continue
            try:
                await getattr(checks, name)()
                done.append(name)
            except LeftOut as reason:
                left[name] = str(reason)
            except AssertionError as fault:
                faults.append(f"{name}: {fault}")
    finally:
        checks.close()
    if faults:
        raise AssertionError(f"{checks.made!r} breaks the contract of tools:\n- " + "\n- ".join(faults))
    return Checked(tuple(done), left)


class ToolContract:
    """The same checks as a class of tests, for pytest and the like: derive from it, and name the class `Test…`. Its attributes are
    the fields of `ToolChecks`; a function among them is a `staticmethod`.

    class TestCharge(ToolContract):
        tool = charge
        effects = effects
    """

    tool: Any = None
    examples: Any = None
    failing: Any = ()
    slow: Any = None
    effects: Any = None
    secrets: Any = ()
    compensation: Any = None
    compensation_arguments: Any = None
    workspace: Any = None

    def test_describes_itself(self) -> None:
        self._check("describes_itself")

    def test_accepts_its_examples(self) -> None:
        self._check("accepts_its_examples")

    def test_refuses_other_arguments(self) -> None:
        self._check("refuses_other_arguments")

    def test_results_are_what_it_declares(self) -> None:
        self._check("results_are_what_it_declares")

    def test_same_key_has_one_effect(self) -> None:
        self._check("same_key_has_one_effect")

    def test_reconcile_tells_the_truth(self) -> None:
        self._check("reconcile_tells_the_truth")

    def test_a_cancelled_call_ends(self) -> None:
        self._check("a_cancelled_call_ends")

    def test_the_compensation_takes_the_effect_back(self) -> None:
        self._check("the_compensation_takes_the_effect_back")

    def test_errors_have_no_secrets(self) -> None:
        self._check("errors_have_no_secrets")

    def test_works_in_a_process_of_its_own(self) -> None:
        self._check("works_in_a_process_of_its_own")

    def _check(self, name: str) -> None:
        if self.tool is None:
            raise AssertionError(f"{type(self).__name__} has no tool; write: tool = my_tool")
        given = {
            each: getattr(self, each) for each in ToolChecks.__dataclass_fields__ if not each.startswith("_") and each != "made"
        }
        checks = ToolChecks(**given)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(getattr(checks, name)())
        except LeftOut as reason:
            raise unittest.SkipTest(str(reason)) from None
        finally:
            checks.close()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
