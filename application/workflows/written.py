"""Plans and workflows as people write them: `agent: critic@2` instead of an agent and its version, also in lists of agents."""

from typing import Any

from domain.kernel import Json

ORDER = ("name", "description", "command", "parameters", "priority", "compensate", "metadata", "plan")
"""Of the parts of a written workflow."""
STEP_ORDER = (
    "key", "agent", "capability", "run", "gather", "value", "wait", "after", "when", "input", "input_from", "each", "repeat",
    "adaptive",
)  # fmt: skip
"""Of the first parts of a written step."""


def read_plan(written: Json) -> Json:
    """A written plan as `domain.plans.Plan` takes it. What is no plan stays as it is: the plan's own rules refuse it."""
    return _of_plan(written, _split_step)


def write_plan(plan: Json) -> Json:
    """The other way round. `read_plan` gives the same plan again."""
    return _of_plan(plan, _join_step)


def read_workflow(written: dict[str, Json]) -> dict[str, Json]:
    """A written workflow, with or without a name, as fields of `domain.workflows.WorkflowDefinition`."""
    return {**written, "plan": read_plan(written["plan"])} if "plan" in written else written


def write_workflow(name: str | None, definition: dict[str, Json]) -> dict[str, Json]:
    """A definition as it is written: with its name, its parts in our order."""
    said = {**({} if name is None else {"name": name}), **definition, "plan": write_plan(definition["plan"])}
    return _in_order(said, ORDER)


def _in_order(said: dict[str, Json], order: tuple[str, ...]) -> dict[str, Json]:
    first = {part: said[part] for part in order if part in said}
    return {**first, **{part: value for part, value in said.items() if part not in first}}


def _of_plan(plan: Json, change: Any) -> Json:
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list):
        return plan
    return {**plan, "steps": [change(step) if isinstance(step, dict) else step for step in plan["steps"]]}


def _split_step(step: dict[str, Json]) -> dict[str, Json]:
    return _of_step(_split(step), read_plan, _split_agents)


def _join_step(step: dict[str, Json]) -> dict[str, Json]:
    return _in_order(_of_step(_join(step), write_plan, _join_agents), STEP_ORDER)


def _of_step(step: dict[str, Json], of_plan: Any, of_agents: Any) -> dict[str, Json]:
    changed = dict(step)
    if isinstance(run := step.get("run"), dict) and "plan" in run:
        changed["run"] = {**run, "plan": of_plan(run["plan"])}
    if isinstance(step.get("fallbacks"), list):
        changed["fallbacks"] = of_agents(step["fallbacks"])
    if isinstance(adaptive := step.get("adaptive"), dict) and isinstance(adaptive.get("agents"), list):
        changed["adaptive"] = {**adaptive, "agents": of_agents(adaptive["agents"])}
    return changed


def _split(named: dict[str, Json]) -> dict[str, Json]:
    agent = named.get("agent")
    if not isinstance(agent, str) or "@" not in agent or "agent_version" in named:
        return named
    name, _, version = agent.partition("@")
    return {**named, "agent": name, "agent_version": version}


def _join(named: dict[str, Json]) -> dict[str, Json]:
    agent, version = named.get("agent"), named.get("agent_version")
    if not (isinstance(agent, str) and isinstance(version, str)):
        return named
    rest = {name: value for name, value in named.items() if name != "agent_version"}
    return {**rest, "agent": f"{agent}@{version}"}


def _split_agents(agents: list[Json]) -> list[Json]:
    return [_split({"agent": agent} if isinstance(agent, str) else agent) if _is_agent(agent) else agent for agent in agents]


def _join_agents(agents: list[Json]) -> list[Json]:
    joined = [_join(agent) if isinstance(agent, dict) else agent for agent in agents]
    return [agent["agent"] if isinstance(agent, dict) and list(agent) == ["agent"] else agent for agent in joined]


def _is_agent(agent: Json) -> bool:
    return isinstance(agent, str | dict)
