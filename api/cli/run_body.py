"""The body of a request that starts a run, from the options of `tidelog runs start`."""

from dataclasses import dataclass
from typing import Any, Literal

from api.cli import options, output
from api.cli.amounts import OnSpent, given_budget
from api.cli.options import seconds_of
from api.cli.plan_files import plan_of

OnFailure = Literal["fail", "continue"]
Priority = Literal["high", "normal", "low"]
OnBusy = Literal["reject", "queue", "replace"]
Compensate = Literal["on_failure", "on_cancel", "on_failure_or_cancel", "never"]


@dataclass(frozen=True)
class StartOptions:
    """The options as given. None: not given."""

    agents: tuple[str, ...] = ()
    parallel: bool = False
    aggregator: str | None = None
    plan: str | None = None
    input: str | None = None
    metadata: str | None = None
    project: str | None = None
    retry: str | None = None
    timeout_s: float | None = None
    on_failure: OnFailure | None = None
    priority: Priority | None = None
    compensate: Compensate | None = None
    workflow: str | None = None
    deadline: str | None = None
    budget: str | None = None
    on_spent: OnSpent | None = None
    concurrency_key: str | None = None
    on_busy: OnBusy | None = None


def body_of(given: StartOptions) -> dict[str, Any]:
    """The body, without an id for the run. Raises CommandFailed for options that contradict one another, and for wrong values."""
    body: dict[str, Any] = {}
    if given.workflow is not None:
        body["workflow"] = _workflow(given)
    else:
        body["plan"] = _given_plan(given) if given.plan is not None else _plan_of_agents(given)
    body["input"] = options.json_of("--input", given.input)
    if given.metadata is not None:
        body["metadata"] = options.object_of("--metadata", given.metadata)
    if given.project is not None:
        body["project_id"] = output.uuid_of(given.project, "a project", "projects list")
    if given.priority is not None:
        body["priority"] = given.priority
    if given.compensate is not None:
        body["compensate"] = given.compensate
    if given.deadline is not None:
        body["deadline_s"] = seconds_of("--deadline", given.deadline)
    if (budget := given_budget(given.budget, given.on_spent)) is not None:
        body["budget"] = budget
    if given.concurrency_key is not None:
        body["concurrency"] = {"key": given.concurrency_key} | ({} if given.on_busy is None else {"on_busy": given.on_busy})
    elif given.on_busy is not None:
        raise output.CommandFailed("--on-busy goes with --concurrency-key", output.WRONG_USAGE)
    return body


def check_key(key: str) -> None:
    """Raises CommandFailed for an idempotency key that no header can have."""
    if not (key.strip() and key.isascii() and key.isprintable() and len(key) <= 255):
        raise output.CommandFailed("--idempotency-key: must be 1 to 255 printable characters of ASCII", output.WRONG_USAGE)


def agents_of(plan: dict[str, Any]) -> set[str]:
    """The names of the agents in a plan of any kind."""
    steps = plan.get("steps") or ()
    named = [*(plan.get("agents") or ()), plan.get("aggregator"), *(step.get("agent") for step in steps if isinstance(step, dict))]
    return {name.partition("@")[0] for name in named if isinstance(name, str)}


def _workflow(given: StartOptions) -> dict[str, Any]:
    from tidelog.workflows import named_version

    also = _of_agents(given) + (["--plan"] if given.plan is not None else [])
    if also:
        raise output.CommandFailed(f"--workflow says what runs: give it without {', '.join(also)}", output.WRONG_USAGE)
    try:
        return named_version(str(given.workflow))
    except ValueError as error:
        raise output.CommandFailed(output.one_line(f"--workflow: {error}"), output.WRONG_USAGE) from None


def _of_agents(given: StartOptions) -> list[str]:
    """The given options that say what agents do."""
    for_agents = {
        "AGENT": given.agents,
        "--parallel": given.parallel,
        "--aggregator": given.aggregator,
        "--retry": given.retry,
        "--timeout": given.timeout_s,
        "--on-failure": given.on_failure,
    }
    return [name for name, value in for_agents.items() if value is not None and value is not False and value != ()]


def _given_plan(given: StartOptions) -> dict[str, Any]:
    if also := _of_agents(given):
        raise output.CommandFailed(f"--plan says everything about its steps: give it without {', '.join(also)}", output.WRONG_USAGE)
    plan = plan_of(str(given.plan))
    return {"kind": "graph", **plan} if "kind" not in plan and "steps" in plan else plan


def _plan_of_agents(given: StartOptions) -> dict[str, Any]:
    if not given.agents:
        raise output.CommandFailed("name one or more agents, or give --plan or --workflow", output.WRONG_USAGE)
    if given.aggregator is not None and not given.parallel:
        raise output.CommandFailed("--aggregator goes with --parallel", output.WRONG_USAGE)
    said = {
        "retry": None if given.retry is None else _retry(given.retry),
        "timeout_s": given.timeout_s,
        "on_failure": given.on_failure,
    }
    said = {name: value for name, value in said.items() if value is not None}
    if said:
        return _graph(given, said)
    if not given.parallel:
        return {"kind": "sequential", "agents": list(given.agents)}
    return {"kind": "parallel", "agents": list(given.agents)} | ({"aggregator": given.aggregator} if given.aggregator else {})


def _graph(given: StartOptions, said: dict[str, Any]) -> dict[str, Any]:
    """The plan as steps, each with what was said. A failure of the aggregator always ends the run."""
    from pydantic import ValidationError

    from domain import runs

    try:
        plan = runs.parallel(given.agents, given.aggregator) if given.parallel else runs.sequential(given.agents)
        aggregators = 1 if given.parallel and given.aggregator else 0
        steps = [step.model_dump(mode="json", exclude_defaults=True) for step in plan.steps]
        for number, step in enumerate(steps, 1):
            of_aggregator = number > len(steps) - aggregators
            step |= {name: value for name, value in said.items() if not (of_aggregator and name == "on_failure")}
        runs.Plan.model_validate({"steps": steps})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = {"retry": "--retry: ", "timeout_s": "--timeout: "}.get(str(next(iter(problem["loc"][2:]), "")), "")
        raise output.CommandFailed(f"{place}{problem['msg']}", output.WRONG_USAGE) from None
    return {"kind": "graph", "steps": steps}


def _retry(text: str) -> dict[str, float]:
    """`ATTEMPTS[:FIRST_S[:LONGEST_S]]`."""
    parts = text.split(":")
    try:
        if len(parts) > 3:
            raise ValueError
        said = {"max_attempts": int(parts[0])} | dict(zip(("initial_s", "max_s"), map(float, parts[1:]), strict=False))
    except ValueError:
        told = f"--retry: '{text}' is not ATTEMPTS[:FIRST_S[:LONGEST_S]], such as 5 or 5:0.5:60"
        raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE) from None
    if (fault := _retry_fault(said)) is not None:
        raise output.CommandFailed(output.one_line(f"--retry: '{text}': {fault}"), output.WRONG_USAGE)
    return said


def _retry_fault(said: dict[str, float]) -> str | None:
    if not 1 <= said["max_attempts"] <= 20:
        return "an agent has 1 to 20 attempts"
    if not 0 < said.get("initial_s", 0.5) <= 3_600:
        return "the first pause is longer than 0 and at most 3600 seconds"
    if not 0 < said.get("max_s", 60.0) <= 86_400:
        return "the longest pause is longer than 0 and at most 86400 seconds"
    if said.get("max_s", 86_400) < said.get("initial_s", 0.5):
        return "the longest pause is shorter than the first one"
    return None
