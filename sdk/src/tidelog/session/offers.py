"""What a worker offers to a server: its agents and tools, the files it cannot use, and how much it does at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidelog.agent import AgentDefinition
from tidelog.discovery import Problem
from tidelog.tools import ToolDefinition

MAX_PROBLEMS = 100
"""Problems of one report that the server accepts."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Numbers of agents and of tool calls."""

    agent: int
    tool: int


@dataclass(frozen=True, slots=True)
class Offer:
    """The whole set; a later offer replaces it."""

    agents: Sequence[AgentDefinition] = ()
    tools: Sequence[ToolDefinition] = ()
    problems: Sequence[Problem] = ()

    def fields(self) -> dict[str, Any]:
        return {
            "agents": [agent.model_dump(mode="json", exclude_none=True) for agent in self.agents],
            "tools": [tool.model_dump(mode="json") for tool in self.tools],
            "problems": [_reported(problem) for problem in self.problems[:MAX_PROBLEMS]],
        }


def _reported(problem: Problem) -> dict[str, str]:
    """With the bounds of the server. PostgreSQL stores no NUL."""
    texts = {"path": str(problem.path)[-500:], "kind": problem.kind, "message": problem.message[:4_000]}
    return {name: text.encode(errors="replace").decode().replace("\0", "?") for name, text in texts.items()}
