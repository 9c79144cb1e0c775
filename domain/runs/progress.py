"""How far a step of several parts has come, and what a step that gathers results has seen. Every outcome costs the same."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from immutables import Map
from pydantic_core import to_json

from domain.kernel import Json, derive_id, replace
from domain.maps import PersistentMap
from domain.plans import Gather
from domain.runs.events import PartCompleted, PartFailed, PartScheduled, StepCompleted
from domain.runs.taken_over import PartTakenOver, StepTakenOver

SHORTEST_HASHED = 71
LARGEST_REMEMBERED = 16 * 1024
"""Bytes of the results of a round of an adaptive step that its agent sees again later, as JSON."""
LARGEST_VOTE = 1_000
"""Bytes of a vote in an event, as JSON."""


def part_key(step: str, part: int) -> str:
    """The key of a part of a step: the name of its agent run in the run."""
    return f"{step}.{part}"


def agent_run_id_of(run_id: UUID, step: str, fallback: int = 0) -> UUID:
    """The id of the agent run that executes a step, or a part of one. The id is known before the agent run exists, so that mail can
    wait for it. `fallback`: the number of the fallback that is tried."""
    return derive_id(run_id, f"step:{step}:fallback:{fallback}" if fallback else f"step:{step}")


def child_id_of(run_id: UUID, step: str, part: int) -> UUID:
    """The id of the child run that is a part of a step."""
    return derive_id(run_id, f"child:{part_key(step, part)}")


@dataclass(frozen=True)
class OpenPart:
    """A part without an outcome."""

    execution_id: UUID
    is_run: bool = False


@dataclass(frozen=True)
class StepProgress:
    form: Literal["each", "repeat", "adaptive", "run", "wait"]
    items: tuple[Json, ...] = ()
    begun: int = 0
    """Parts that have begun."""
    ended: int = 0
    """Parts that have ended."""
    open: PersistentMap[int, OpenPart] = field(default_factory=Map)
    results: PersistentMap[int, Json] = field(default_factory=Map)
    """`each`: of the parts that completed."""
    last: Json = None
    """Of the part that completed last."""
    base: Json = None
    """`adaptive`: the input of the first round."""
    named: int = 0
    """`adaptive`: steps that were named so far."""
    only: str | None = None
    """`adaptive`: the only step of the last child run that nothing comes after."""
    rounds: tuple[Json, ...] = ()
    """`adaptive`: the rounds with steps so far, as their agent sees them again."""
    failed: int | None = None
    """The part whose failure was not tolerated: the step failed because of it."""


def part_begun(progress: StepProgress, event: PartScheduled) -> StepProgress:
    execution_id = event.agent_run_id or event.child_id
    assert execution_id is not None
    changes: dict[str, Json] = {"open": progress.open.set(event.part, OpenPart(execution_id, event.agent_run_id is None))}
    changes["begun"] = max(progress.begun, event.part + 1)  # a fallback begins a part again
    if progress.form == "adaptive":
        if event.part == 0:
            changes["base"] = event.input["input"]
        if event.agent_run_id is None and event.plan is not None:  # a child run that goes on is known
            steps = event.plan["steps"]
            followed = {key for step in steps for key in step.get("after", ())}
            last = [step["key"] for step in steps if step["key"] not in followed]
            changes |= {"named": progress.named + len(steps), "only": last[0] if len(last) == 1 else None}
            said = [{"key": step["key"], "agent": step["agent"]} for step in steps]
            changes["rounds"] = (*progress.rounds, {"round": event.part // 2 + 1, "steps": said, "results": None})
    return replace(progress, **changes)


def part_ended(progress: StepProgress, event: PartCompleted | PartFailed) -> StepProgress:
    changes: dict[str, Json] = {"ended": progress.ended + 1}
    if event.part in progress.open:
        changes["open"] = progress.open.delete(event.part)
    if isinstance(event, PartFailed) and not event.tolerated:
        changes["failed"] = event.part
    elif isinstance(event, PartCompleted):
        if progress.form == "each":
            changes["results"] = progress.results.set(event.part, event.result)
        else:
            changes["last"] = event.result
        if progress.form == "adaptive" and event.part % 2:
            changes["rounds"] = (*progress.rounds[:-1], _remembered(progress, event.result))
    return replace(progress, **changes)


def results_of_round(progress: StepProgress, result: Json) -> Json:
    """The results of the last child run, by the keys of its steps."""
    return result if progress.only is None else {progress.only: result}


def _remembered(progress: StepProgress, result: Json) -> Json:
    """The last round with its results, unless they are large."""
    results = results_of_round(progress, result)
    return {**progress.rounds[-1], "results": results if len(to_json(results)) <= LARGEST_REMEMBERED else None}


def part_taken_over(progress: StepProgress, event: PartTakenOver) -> StepProgress:
    changes: dict[str, Json] = {"begun": max(progress.begun, event.part + 1), "ended": progress.ended + 1}
    if event.input is not None:
        changes["base"] = event.input["input"]
    if event.steps:
        of_round = {"round": event.part // 2 + 1, "steps": list(event.steps), "results": None}
        progress = replace(progress, only=event.only, rounds=(*progress.rounds, of_round))
        rounds = (*progress.rounds[:-1], _remembered(progress, event.result))
        changes |= {"named": progress.named + len(event.steps), "rounds": rounds}
    if event.status == "completed":
        if progress.form == "each":
            changes["results"] = progress.results.set(event.part, event.result)
        else:
            changes["last"] = event.result
    return replace(progress, **changes)


@dataclass(frozen=True)
class Votes:
    number: int
    """How many."""
    came: int
    """Place of the first of them among all votes."""
    step: str
    """Whose it was."""


@dataclass(frozen=True)
class Tally:
    """What a step that gathers results has seen."""

    completed: int = 0
    first: tuple[str, ...] = ()
    """`any`: the steps that completed first, as many as are enough. `first_good`: the first good one."""
    votes: PersistentMap[str, Votes] = field(default_factory=Map)
    leader: str | None = None
    """The vote that has most. Of several, the one that came first."""
    second: int = 0
    """How many the best of the others has."""

    def with_one(self, key: str, gather: Gather, event: StepCompleted | StepTakenOver) -> "Tally":
        """With a step that completed. `key`: of the step that gathers."""
        tally = replace(self, completed=self.completed + 1)
        if gather.mode == "vote" and key in event.judged:
            return tally._voted(event.step, name_of(event.judged[key]))
        enough = gather.count if gather.mode == "any" else 1 if event.judged.get(key) is True else 0
        return replace(tally, first=(*self.first, event.step)) if len(self.first) < enough else tally

    def _voted(self, step: str, vote: str) -> "Tally":
        before = self.votes.get(vote)
        votes = Votes(1, self.completed, step) if before is None else replace(before, number=before.number + 1)
        leading = None if self.leader is None else self.votes[self.leader]
        tally = replace(self, votes=self.votes.set(vote, votes))
        if leading is None or vote == self.leader:
            return replace(tally, leader=vote)
        if (votes.number, -votes.came) > (leading.number, -leading.came):
            return replace(tally, leader=vote, second=leading.number)
        return replace(tally, second=max(self.second, votes.number))


def vote_of(value: Json, *, few: bool = True) -> Json:
    """A vote as events have it: the value, or its SHA-256 where it is large, or one of many."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return (
        value if len(text) <= (LARGEST_VOTE if few else SHORTEST_HASHED) else "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    )


def name_of(vote: Json) -> str:
    return json.dumps(vote, sort_keys=True, separators=(",", ":"))
