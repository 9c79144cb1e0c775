"""What plans may name, in memory."""

from collections.abc import Iterable, Mapping, Sequence

from application.plans.registry import FoundAgent, FoundWorkflow
from domain.kernel import Json


class MemoryRegistry:
    """Implements `application.plans.registry.Registry`. Counts what is looked up."""

    def __init__(
        self,
        agents: Iterable[FoundAgent] = (),
        capabilities: Mapping[str, str] | None = None,
        workflows: Mapping[str, FoundWorkflow] | None = None,
    ) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._capabilities = capabilities or {}
        self._workflows = workflows
        self.asked: list[str] = []

    @property
    def has_workflows(self) -> bool:
        return self._workflows is not None

    @property
    def has_agents(self) -> bool:
        return True

    async def agent(self, name: str) -> FoundAgent:
        self.asked.append(f"agent {name}")
        return self._agents.get(name, FoundAgent(name, ()))

    async def agent_names(self) -> Sequence[str]:
        self.asked.append("agents")
        return sorted(self._agents)

    async def capabilities(self, wanted: Iterable[str]) -> Mapping[str, str]:
        names = sorted(wanted)
        self.asked.append(f"capabilities {' '.join(names)}")
        return {name: self._capabilities[name] for name in names if name in self._capabilities}

    async def capability_names(self) -> Sequence[str]:
        self.asked.append("capabilities")
        return sorted(self._capabilities)

    async def workflow(self, name: str, version: int | None) -> FoundWorkflow | None:
        self.asked.append(f"workflow {name} {version}")
        return (self._workflows or {}).get(name)

    async def workflow_names(self) -> Sequence[str]:
        self.asked.append("workflows")
        return sorted(self._workflows or {})


def object_of(properties: Json, *required: str, closed: bool = True) -> Json:
    """The JSON Schema of an object."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {**schema, "additionalProperties": False} if closed else schema
