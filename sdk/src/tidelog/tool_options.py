"""The keywords of `@tool`. A new keyword stands here, with its default in `Tool`, and in `BaseTool` if classes may say it, too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from tidelog.isolation.declared import Kind, Limits
from tidelog.policies import Policy


class ToolOptions(TypedDict, total=False):
    """What an author says of a tool beside its name and function."""

    capabilities: tuple[str, ...]
    idempotent: bool
    timeout_s: float
    max_attempts: int
    version: str | None
    reconcile: Callable[..., Any] | None
    reconcile_timeout_s: float
    returns: Any
    examples: Sequence[Mapping[str, Any]]
    needs_tools: tuple[str, ...]
    needs_services: tuple[str, ...]
    untrusted_output: bool
    policy: Policy | None
    compensate: Callable[..., Any] | None
    isolation: Kind | None


class Keywords(ToolOptions, Limits, total=False):
    """All keywords of `@tool`: those of the tool, and those of the process of its own that a call may get."""
