"""Cases: recorded runs as files in a repository, against which agents are run in CI, without a server and without any effect."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tidelog.agent import Agent
from tidelog.policies import Cost
from tidelog.testing.records import Record, money_text
from tidelog.testing.replay import Divergence, Replayed, What, replay_agents
from tidelog.tool_classes import AnyTool, tool_of

VERSION = 1
SUFFIX = ".case.json"
WIDTH = 160
"""Characters of a value in a failure."""


class Expected(BaseModel):
    """What a case expects beside what was recorded. People may change it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    outcome: str = "completed"
    """Of the run. Another one than was recorded: the code of now must end so."""
    calls: dict[str, int] = {}
    """Tool → how often it may be called at most."""
    cost: Cost | None = None
    """What the calls may cost at most. None: anything."""
    ignore: tuple[What, ...] = ()
    """Kinds of divergences that do not count."""


class Case(BaseModel):
    """A run, as far as its agents see it: what they got, what they did under which key, and how they ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    case: int = Field(default=VERSION, ge=1, le=VERSION)
    name: str
    run: str
    """Id of the run. It need not be there any more."""
    outcome: str = "completed"
    """How the run ended."""
    plan: Any = None
    input: Any = None
    expect: Expected = Expected()
    records: tuple[Record, ...]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        expect = self.expect.model_dump(mode="json", exclude_none=True)
        first = {"case": self.case, "name": self.name, "run": self.run, "outcome": self.outcome, "expect": expect}
        rest = self.model_dump(mode="json", exclude_defaults=True, include={"plan", "input", "records"})
        path.write_text(json.dumps(first | rest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Case":
        """Raises ValueError for a file that is no case, OSError."""
        return cls.model_validate_json(path.read_bytes())


@dataclass(slots=True)
class CaseResult:
    """`failures`: one line each; none if the case holds. `left_out`: steps whose agents were not given."""

    name: str
    replayed: list[Replayed] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.failures


def case_of(name: str, run: Any, records: Sequence[Record]) -> Case:
    """The case of a run. `run`: its document, as `GET /v1/runs/{run_id}` gives it."""
    made = [call for record in records for call in record.calls.values()]
    calls, costs = Counter(call.tool for call in made), [call.cost for call in made if call.cost is not None]
    return Case(
        name=name, run=str(run["run_id"]), outcome=run["status"], plan=run.get("plan"), input=run.get("input"),
        expect=Expected(outcome=run["status"], calls=dict(sorted(calls.items())), cost=_sum(costs) if costs else None),
        records=tuple(records),
    )  # fmt: skip


def _sum(costs: Iterable[Cost]) -> Cost:
    money, tokens = Decimal(0), 0
    for cost in costs:
        money, tokens = money + Decimal(cost.money or "0"), tokens + (cost.tokens or 0)
    return Cost(money=money_text(money), tokens=tokens)


async def run_case(
    case: Case, agents: Iterable[type[Agent]], *, tools: Sequence[AnyTool] = (), run_steps: bool = False
) -> CaseResult:
    """Runs the agents' present code against the case. No tool is called.

    `tools`: a call that was not recorded counts what its tool declares as its `max_cost`. `run_steps`: as of `replay_agent`.

    Raises DefinitionError: an agent or a tool is not well-formed.
    """
    replayed, left = await replay_agents(agents, case.records, run_steps=run_steps)
    result = CaseResult(case.name, replayed, [record.step for record in left])
    if not replayed:
        result.failures.append("none of its agents was given")
    other = case.expect.outcome != case.outcome
    for one in replayed:
        counted = (each for each in one.divergences if each.what not in case.expect.ignore)
        result.failures += [_told(each) for each in counted if not (other and each.what == "other outcome")]
    result.failures += _of_outcome(case, replayed, left)
    result.failures += _of_calls(case.expect, replayed)
    result.failures += _of_cost(case.expect, replayed, tools)
    return result


def _told(divergence: Divergence) -> str:
    """In one line, with what was recorded and what is now."""
    values = [
        f"{name} {said if len(said) <= WIDTH else f'{said[:WIDTH]}…'}"
        for name, value in (("recorded", divergence.recorded), ("now", divergence.now))
        if value is not None and (said := json.dumps(value, ensure_ascii=False))
    ]
    return f"{divergence}: {', '.join(values)}" if values else str(divergence)


def _of_outcome(case: Case, replayed: Sequence[Replayed], left: Sequence[Record]) -> list[str]:
    """A divergence is told where the recorded outcome is expected. Told here is what no record says."""
    expected = case.expect.outcome
    if expected == case.outcome:
        beyond = [one.step for one in replayed if one.end == "beyond" and expected in ("degraded", "failed")]
        return [f"step '{step}' goes on where it had ended: {_ANEW}" for step in beyond]
    if expected == "completed":
        failed = [
            f"step '{one.step}' fails, 'completed' is expected: {one.error['type']}: {one.error['message']}"
            for one in replayed if one.end == "failed"
        ]  # fmt: skip
        beyond = [f"step '{one.step}' goes on where it had ended: {_ANEW}" for one in replayed if one.end == "beyond"]
        without = [f"step '{record.step}' had failed, and its agent was not given" for record in left if record.outcome == "failed"]
        return failed + beyond + without
    if expected in ("failed", "degraded"):
        return [] if any(one.end == "failed" for one in replayed) else [f"no step fails, '{expected}' is expected"]
    return [f"no case can tell whether its run would end '{expected}'"]


_ANEW = "nothing is recorded of that; fork or retry the run, and make a case of it"


def _of_calls(expect: Expected, replayed: Sequence[Replayed]) -> list[str]:
    made = Counter[str]()
    for one in replayed:
        made.update(one.calls)
    failures = [
        f"tool '{tool}' was called {made[tool]} times, at most {most} {'is' if most == 1 else 'are'} expected"
        for tool, most in expect.calls.items() if made[tool] > most
    ]  # fmt: skip
    return failures + [f"tool '{tool}' was called, which is not expected" for tool in sorted(set(made) - set(expect.calls))]


def _of_cost(expect: Expected, replayed: Sequence[Replayed], tools: Sequence[AnyTool]) -> list[str]:
    if expect.cost is None:
        return []
    unrecorded = Counter[str]()
    for one in replayed:
        unrecorded.update(one.unrecorded)
    declared = {given.describe().name: given.policy.max_cost for given in map(tool_of, tools) if given.policy is not None}
    costs = [Cost(money=one.money, tokens=one.tokens) for one in replayed]
    costs += [cost for tool, number in unrecorded.items() if (cost := declared.get(tool)) is not None for _ in range(number)]
    cost, most = _sum(costs), expect.cost
    failures = []
    if most.money is not None and Decimal(cost.money or "0") > Decimal(most.money):
        failures.append(f"calls cost {cost.money} of money, at most {most.money} is expected")
    if most.tokens is not None and (cost.tokens or 0) > most.tokens:
        failures.append(f"calls cost {cost.tokens:,} tokens, at most {most.tokens:,} are expected")
    return failures


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files of cases in folders, and the files that are named."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


__all__ = ["Case", "CaseResult", "Expected", "case_of", "files_in", "run_case"]
