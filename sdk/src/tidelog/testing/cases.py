"""Cases: recorded runs as files in a repository, against which agents are run in CI, without a server and without any effect."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tidelog.agent import Agent
from tidelog.testing.records import Record
from tidelog.testing.replay import Replayed, What, replay_agents

VERSION = 1
SUFFIX = ".case.json"


class Expected(BaseModel):
    """What a case expects beside what was recorded. People may change it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    outcome: str = "completed"
    """Of the run."""
    calls: dict[str, int] = {}
    """Tool → how often it may be called at most."""
    ignore: tuple[What, ...] = ()
    """Kinds of divergences that do not count."""


class Case(BaseModel):
    """A run, as far as its agents see it: what they got, what they did under which key, and how they ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    case: int = Field(default=VERSION, ge=1, le=VERSION)
    name: str
    run: str
    """Id of the run. It need not be there any more."""
    plan: Any = None
    input: Any = None
    expect: Expected = Expected()
    records: tuple[Record, ...]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2, exclude_defaults=True) + "\n")

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
    calls = Counter(call.tool for record in records for call in record.calls.values())
    return Case(
        name=name, run=str(run["run_id"]), plan=run.get("plan"), input=run.get("input"),
        expect=Expected(outcome=run["status"], calls=dict(sorted(calls.items()))), records=tuple(records),
    )  # fmt: skip


async def run_case(case: Case, agents: Iterable[type[Agent]], *, run_steps: bool = False) -> CaseResult:
    """Runs the agents' present code against the case. `run_steps`: as of `replay_agent`.

    Raises DefinitionError: an agent is not well-formed.
    """
    replayed, left = await replay_agents(agents, case.records, run_steps=run_steps)
    result = CaseResult(case.name, replayed, [record.step for record in left])
    if not replayed:
        result.failures.append("none of its agents was given")
    for one in replayed:
        result.failures += [str(each) for each in one.divergences if each.what not in case.expect.ignore]
    made = Counter[str]()
    for one in replayed:
        made.update(one.calls)
    for tool, most in case.expect.calls.items():
        if made[tool] > most:
            result.failures.append(f"tool '{tool}' was called {made[tool]} times, at most {most} are expected")
    made_others = sorted(set(made) - set(case.expect.calls))
    result.failures += [f"tool '{tool}' was called, which is not expected" for tool in made_others]
    return result


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files of cases in folders, and the files that are named."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


__all__ = ["Case", "CaseResult", "Expected", "case_of", "files_in", "run_case"]
