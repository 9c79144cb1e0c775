"""Agent definitions: what an agent is called, what it can do, and what it takes and gives. Each change is a new revision."""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from domain.errors import InvalidState
from domain.kernel import Command, Decider, Event, Json, Name, ShortText, Text, derive_id


class AgentRegistered(Event):
    TOPIC = "agent.registered"
    name: str
    version: str
    description: str
    capabilities: tuple[str, ...]
    input_schema: Json = None
    output_schema: Json = None


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    current: AgentRegistered | None = None
    versions: tuple[str, ...] = ()
    """Every version that was registered, the one that was registered last at the end."""
    changes: int = 0
    """Events of the stream: a number that names this state."""


class AgentChanged(InvalidState):
    """The agent is not as the caller looked at it. Look again."""


class RegisterAgent(Command):
    agent_id: UUID
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    input_schema: Json = None
    output_schema: Json = None


class UseAgent(Command):
    """A run starts with the agent. Has no events: the append of the start holds only while the agent is as it was looked at."""

    agent_id: UUID
    name: Name
    changes: int


AgentCommand = RegisterAgent | UseAgent


@lru_cache(maxsize=10_000)
def agent_id_of(tenant_id: UUID, name: str) -> UUID:
    return derive_id(tenant_id, f"agent:{name}")


def decide(agent: AgentDefinition, command: AgentCommand) -> list[Event]:
    if isinstance(command, UseAgent):
        if agent.changes != command.changes:
            raise AgentChanged(f"the agent '{command.name}' has changed meanwhile")
        return []
    registered = AgentRegistered(**command.model_dump(exclude={"agent_id"}))
    return [] if agent.current == registered else [registered]


def evolve(agent: AgentDefinition, event: AgentRegistered) -> AgentDefinition:
    others = tuple(version for version in agent.versions if version != event.version)
    return AgentDefinition(current=event, versions=(*others, event.version), changes=agent.changes + 1)


DECIDER: Decider[AgentDefinition] = Decider("agents", AgentDefinition, decide, evolve)
