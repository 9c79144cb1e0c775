"""Tool definitions: parameters as JSON Schema, and whether a call whose outcome is unknown may be repeated."""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from pydantic import Field

from domain.kernel import Command, Decider, Event, Json, Name, ShortText, Text, derive_id


class ToolRegistered(Event):
    TOPIC = "tool.registered"
    name: str
    version: str
    description: str
    capabilities: tuple[str, ...]
    parameters: Json
    """JSON Schema (2020-12) of the arguments object."""
    idempotent: bool
    """True: calling it again with the same idempotency key has no second effect, so an unknown outcome may be tried again."""
    timeout_s: float
    max_attempts: int
    reconcile_timeout_s: float | None = None
    """The limit of one call of the tool's `reconcile` function. None: the tool has no such function."""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    current: ToolRegistered | None = None


class RegisterTool(Command):
    tool_id: UUID
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    parameters: Json
    idempotent: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    max_attempts: int = Field(default=3, ge=1, le=20)
    reconcile_timeout_s: float | None = Field(default=None, gt=0, le=3600)


@lru_cache(maxsize=10_000)
def tool_id_of(tenant_id: UUID, name: str) -> UUID:
    return derive_id(tenant_id, f"tool:{name}")


def decide(tool: ToolDefinition, command: RegisterTool) -> list[Event]:
    registered = ToolRegistered(**command.model_dump(exclude={"tool_id"}))
    return [] if tool.current == registered else [registered]


def evolve(tool: ToolDefinition, event: ToolRegistered) -> ToolDefinition:
    return ToolDefinition(current=event)


DECIDER: Decider[ToolDefinition] = Decider("tools", ToolDefinition, decide, evolve)
