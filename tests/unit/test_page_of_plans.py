"""The example plans of the page about plans, each run to its end."""

import json
from typing import Any

import pytest

from domain.kernel import Json
from domain.plans import Plan
from tests.kit.engine import Claim, Engine
from tests.pages import blocks

EXAMPLES = {block.name: json.loads(block.text) for block in blocks("docs/reference/plans.md") if block.name}
AGENTS = (
    "reader", "critic", "editor", "builder", "other-builder", "mechanic", "shipper", "juror", "lead", "scout", "asker"
)  # fmt: skip


def review(claim: Claim) -> Json:
    return {"parts": ["x", "y"]} if claim.given.step_key == "read" else claim.given.input


def repair(claim: Claim) -> Json:
    if "builder" in claim.given.agent:
        raise ValueError
    return claim.given.input


def vote(claim: Claim) -> Json:
    return {"guilty": claim.given.step_key != "two", "by": claim.given.step_key}


def polish(claim: Claim) -> Json:
    return {"text": claim.given.input["text"] + "!", "score": 5 + len(claim.given.input["text"])}


def books(claim: Claim) -> Json:
    return claim.given.results.get("read", claim.given.input) + "."


def explore(claim: Claim) -> Json:
    if claim.given.agent != "lead":
        return "seen"
    if claim.given.input["round"] == 1:
        return {"steps": [{"key": "look", "agent": "scout"}, {"key": "judge", "agent": "critic", "after": ["look"]}]}
    return {"result": claim.given.input["results"]}


def later(claim: Claim) -> Json:
    return None if claim.given.step_key == "ask" else "reminded"


CASES: dict[str, tuple[Any, Json, str, Json]] = {
    "review": (review, "text", "sum", [{"part": "x", "number": 1}, {"part": "y", "number": 2}]),
    "repair": (repair, "code", "repair", "broken"),
    "vote": (vote, None, "verdict", {"guilty": True, "by": "one"}),
    "polish": (polish, "ab", "polish", {"text": "ab!!", "score": 8}),
    "books": (books, ["a", "b"], "books", ["a..", "b.."]),
    "explore": (explore, "goal", "explore", {"judge": "seen"}),
    "later": (later, None, "remind", "reminded"),
}
"""Example → what agents return, the input, a step and its result."""


def test_every_example_is_tried() -> None:
    assert EXAMPLES.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
async def test_an_example_does_what_the_page_says(name: str) -> None:
    answer, input_, key, result = CASES[name]
    async with Engine().running() as engine:
        await engine.set_up()
        worker = engine.worker()
        await worker.register(*AGENTS)
        run_id = await engine.start(plan=Plan.model_validate(EXAMPLES[name]), input=input_)
        for _ in range(20):
            if (run := await engine.run(run_id)).status != "running":
                break
            taken = [one for agent in AGENTS for one in await engine.queue.pull(worker.queues["agent", agent])]
            for claim in [await worker.claim(delivery) for delivery in taken]:
                try:
                    given = answer(claim)
                except ValueError:
                    await claim.fail()
                else:
                    await claim.complete(given)
            if not taken:
                await engine.advance(1)
        assert run.status == "completed" and run.steps[key].result == result
