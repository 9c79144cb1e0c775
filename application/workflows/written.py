"""Workflows as people write them: `agent: critic@2` instead of an agent and its version, also in lists of agents."""

from application.plans.spelling import spelled_plan
from domain.kernel import Json

ORDER = (
    "name",
    "description",
    "command",
    "parameters",
    "priority",
    "compensate",
    "deadline_s",
    "budget",
    "concurrency",
    "metadata",
    "plan",
)
"""Of the parts of a written workflow."""
STEP_ORDER = (
    "key", "agent", "capability", "run", "gather", "value", "wait", "after", "when", "input", "input_from", "each", "repeat",
    "adaptive",
)  # fmt: skip
"""Of the first parts of a written step."""


def write_plan(plan: Json) -> Json:
    """A plan with its agents as `critic@2`. `spelled_plan` gives the same plan again."""
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list):
        return plan
    return {**plan, "steps": [_join_step(step) if isinstance(step, dict) else step for step in plan["steps"]]}


def read_workflow(written: dict[str, Json]) -> dict[str, Json]:
    """A written workflow, with or without a name, as fields of `domain.workflows.WorkflowDefinition`."""
    return {**written, "plan": spelled_plan(written["plan"])} if "plan" in written else written


def write_workflow(name: str | None, definition: dict[str, Json]) -> dict[str, Json]:
    """A definition as it is written: with its name, its parts in our order."""
    said = {**({} if name is None else {"name": name}), **definition, "plan": write_plan(definition["plan"])}
    return _in_order(said, ORDER)


def _in_order(said: dict[str, Json], order: tuple[str, ...]) -> dict[str, Json]:
    first = {part: said[part] for part in order if part in said}
    return {**first, **{part: value for part, value in said.items() if part not in first}}


def _join_step(step: dict[str, Json]) -> dict[str, Json]:
    joined = _join(step)
    if isinstance(run := step.get("run"), dict) and "plan" in run:
        joined["run"] = {**run, "plan": write_plan(run["plan"])}
    if isinstance(step.get("fallbacks"), list):
        joined["fallbacks"] = _join_agents(step["fallbacks"])
    if isinstance(adaptive := step.get("adaptive"), dict) and isinstance(adaptive.get("agents"), list):
        joined["adaptive"] = {**adaptive, "agents": _join_agents(adaptive["agents"])}
    return _in_order(joined, STEP_ORDER)


def _join(named: dict[str, Json]) -> dict[str, Json]:
    agent, version = named.get("agent"), named.get("agent_version")
    if not (isinstance(agent, str) and isinstance(version, str)):
        return dict(named)
    rest = {name: value for name, value in named.items() if name != "agent_version"}
    return {**rest, "agent": f"{agent}@{version}"}


def _join_agents(agents: list[Json]) -> list[Json]:
    joined = [_join(agent) if isinstance(agent, dict) else agent for agent in agents]
    return [agent["agent"] if isinstance(agent, dict) and list(agent) == ["agent"] else agent for agent in joined]
