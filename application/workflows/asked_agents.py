"""Parameters that name agents: who starts a workflow may say which agent does some of its steps (`SlashCommand.agents`)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from domain.errors import InvalidCommand, json_pointer
from domain.kernel import NAME_PATTERN, Json
from domain.plans import Plan

_NAME = re.compile(NAME_PATTERN, re.ASCII)
MAX_NAME = 100
MAX_VERSION = 500
Wanted = Mapping[str, tuple[str, str | None]]
"""Key of a step → its agent, and the version of the agent that is asked for."""


def with_asked_agents(plan: Plan, parameters: Mapping[str, Sequence[str]], input: Json) -> Plan:
    """The plan with the agents that the input names, `name` or `name@version`. The same object, if the input names none.

    Raises InvalidCommand: a parameter is no name of an agent.
    """
    wanted: dict[str, tuple[str, str | None]] = {}
    for parameter, keys in parameters.items():
        given = input.get(parameter) if isinstance(input, dict) else None
        if given is None:
            continue
        name, at, version = given.partition("@") if isinstance(given, str) else ("", "", "")
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME or bool(at) != bool(version) or len(version) > MAX_VERSION:
            told = "it is no name of an agent, as `writer` or `writer@2`"
            raise InvalidCommand(told, pointer=f"/input{json_pointer((parameter,))}")
        wanted |= dict.fromkeys(keys, (name, version or None))
    if not wanted:
        return plan
    written = plan.model_dump(mode="json", exclude_defaults=True)
    changed = _of_plan(written, wanted)
    return plan if changed == written else Plan.model_validate(changed)


def _of_plan(plan: Json, wanted: Wanted) -> Json:
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list | tuple):
        return plan
    return {**plan, "steps": [_of_step(step, wanted) if isinstance(step, dict) else step for step in plan["steps"]]}


def _of_step(step: dict[str, Any], wanted: Wanted) -> Json:
    run = step.get("run")
    if isinstance(run, dict) and run.get("plan") is not None and run.get("workflow") is None:
        return {**step, "run": {**run, "plan": _of_plan(run["plan"], wanted)}}
    if step.get("agent") is None or step.get("key") not in wanted:
        return step
    name, version = wanted[step["key"]]
    if step["agent"] == name and version is None:
        return step  # the version of the plan, where it has one
    rest = {field: value for field, value in step.items() if field not in ("agent_version", "capability")}
    return {**rest, "agent": name, **({} if version is None else {"agent_version": version})}


def keys_with_agents(plan: Json) -> Iterator[str]:
    """The keys of the steps with an agent, of the plan and of the plans in it."""
    for step in plan.get("steps", ()) if isinstance(plan, dict) else ():
        run = step.get("run") if isinstance(step, dict) else None
        if isinstance(run, dict) and run.get("workflow") is None:
            yield from keys_with_agents(run.get("plan"))
        elif isinstance(step, dict) and step.get("agent") is not None:
            yield step["key"]
