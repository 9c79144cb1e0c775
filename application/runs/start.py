"""Starting runs: looks up the project and the agents' versions, which the rules need for the decision."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from application.budgets.books import default_of_runs
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.plans.capabilities import KnownAgents, with_capable_agents
from application.runs.admission import RunAdmission
from application.runs.keys import key_of_run, take, with_key
from application.runs.pinning import NamedAgent, agents_of, asked_in, is_asked_for, pinned
from application.runs.terms import NO_TERMS, Terms
from application.suggestions import KnownNames, did_you_mean, names_of
from domain import agents, budgets, projects, runs
from domain.errors import AlreadyExists, NotFound, Unavailable
from domain.kernel import Command, Event, Json, Metadata, Priority, RecordedEvent, same_json
from domain.projects import UnknownProject

MAX_NAMED = 5
"""Versions of an agent that a refusal names: the last ones."""
MOST_LOOKS = 5
"""Looks at agents that others change meanwhile."""
NONE_KEPT: Mapping[int, Sequence[str | None]] = {}
MOST_REFUSED = 10
"""Unknown agents of a plan that a refusal names."""


class UnknownAgent(NotFound):
    code = "unknown-agent"

    def __init__(self, refused: Sequence[tuple[int, str, str]]) -> None:
        """`refused`: index of a step in the plan, where in the step the agent stands (`/agent`), and the reason; at least one."""
        (step, place, why), more = refused[0], len(refused) - 1
        super().__init__(f"{why} (and {more} more)" if more else why, pointer=f"/plan/steps/{step}{place}")
        self.refused = tuple(refused)
        self.faults = tuple((f"/plan/steps/{step}{place}", why) for step, place, why in refused)


class StartedDifferently(AlreadyExists):
    """The command started a run before, with another plan, input, project, priority, compensation, key or metadata, or on behalf of
    another."""


async def start_run(
    commands: CommandLoop,
    request: CommandRequest,
    *,
    run_id: UUID,
    project_id: UUID,
    plan: runs.Plan,
    input: Json,
    metadata: dict[str, Json],
    priority: Priority = "normal",
    compensate: runs.Compensate = "never",
    workflow: runs.WorkflowRef | None = None,
    origin: runs.Origin | None = None,
    budget: runs.RunBudget | None = None,
    with_children: runs.Plan | None = None,
    conditions: Sequence[Command] = (),
    terms: Terms = NO_TERMS,
    known: KnownAgents,
    admission: RunAdmission,
) -> CommandOutcome:
    """Checks the project, chooses an agent for each capability, gives each step the version that it asks for or else the registered
    one, and starts the run.

    `known`: the registered agents by capability, and their names for the refusal of a misspelt one. `workflow`: what the plan is
    of. `origin`: what starts the run, where no client does. `budget`: None: the one that the tenant's runs have by default.
    `with_children`: the plan with the plans of its child workflows.
    `conditions`: go into the append of the start.

    Raises:
        TooManyOpenRuns, TooManyOpenRunsOfTenant: as many runs are open as may be. A repeat of a recorded start is refused, too.
        RunKeyBusy, RunKeyQueueFull: as `terms` say.
        UnknownAgent, UnknownCapability, UnknownProject: with a pointer to the place in the body.
        AlreadyExists: the id of the run is taken, by something else or by a run of another command.
        StartedDifferently, RepeatedDifferently: the command started a run before, with other content.
    """
    if not admission.counted:
        await admission.ready()
    with admission.admitted(request.tenant_id) as start:
        of_project = await _part_of_project(commands, request.tenant_id, project_id)
        if budget is None:
            budget = await admission.default_budget(request.tenant_id, project_id, None if workflow is None else workflow.name)
        whole = await with_capable_agents(known, request.tenant_id, with_children or plan)
        key = (
            None
            if terms.concurrency is None
            else key_of_run(request.tenant_id, project_id, terms.concurrency, request.on_behalf_of)
        )
        for look in range(MOST_LOOKS):
            versions, of_agents = await _versions(commands, request.tenant_id, whole, known, fresh=look > 0)
            command = runs.StartRun(
                run_id=run_id,
                project_id=project_id,
                plan=_pinned(whole, versions),
                input=input,
                metadata=metadata,
                versions_asked=asked_in(whole),
                priority=priority,
                compensate=compensate,
                workflow=workflow,
                origin=origin,
                budget=budget,
                on_behalf_of=request.on_behalf_of,
                concurrency=key,
            )
            more = (*terms.commands(run_id), *of_project, *of_agents, *conditions)
            try:
                outcome = await _executed(commands, request, command, more)
            except agents.AgentChanged:  # this process had not heard of it
                continue
            except AlreadyExists:
                first = await first_answer(commands, request, run_id)
                if first is None:
                    raise
                outcome = first
            break
        else:
            raise Unavailable("the agents of the plan are being changed: try again")
        if outcome.duplicate:
            check_repeat(request, command, plan, outcome.recorded[0], commands.registry.decoded(outcome.recorded[0]))
            check_terms(terms, run_id, [commands.registry.decoded(recorded) for recorded in outcome.recorded])
        else:
            start.position = outcome.position
    return outcome


async def _executed(
    commands: CommandLoop, request: CommandRequest, start: runs.StartRun, more: Sequence[Command]
) -> CommandOutcome:
    if start.concurrency is None:
        return await commands.execute(request, start, *more)

    key_id = start.concurrency.key_id

    async def execute(of_key: tuple[Command, ...]) -> CommandOutcome:
        return await commands.execute(request, start, *of_key, *more, beside=(key_id,))

    return await with_key(commands, request.tenant_id, take(start.concurrency, start.run_id), execute)


async def prepared_start(
    commands: CommandLoop,
    tenant_id: UUID,
    *,
    project_id: UUID,
    plan: runs.Plan,
    priority: Priority,
    compensate: runs.Compensate,
    known: KnownAgents,
    fresh: bool,
    kept: Mapping[int, Sequence[str | None]] = NONE_KEPT,
) -> tuple[runs.StartRun, tuple[Command, ...]]:
    """The start of a run without its id and its input, and what it rests on, for one append with something else.

    `plan`: with the plans of its child workflows. `fresh`: the log is asked for the project and for each agent; else the append
    finds out (AgentChanged) that others changed them. `kept`: place of a step → the versions of its agents, which are not
    looked up.

    Raises UnknownAgent, UnknownCapability, UnknownProject, Unavailable.
    """
    of_project = await _part_of_project(commands, tenant_id, project_id, fresh=fresh)
    plan = await with_capable_agents(known, tenant_id, plan)
    versions, of_agents = await _versions(commands, tenant_id, plan, known, fresh=fresh, kept=kept)
    command = runs.StartRun(
        run_id=project_id, project_id=project_id, plan=_pinned(plan, versions), versions_asked=asked_in(plan), priority=priority,
        compensate=compensate, budget=await _default_budget(commands, tenant_id, project_id),
    )  # fmt: skip
    return command, (*of_project, *of_agents)


async def _default_budget(commands: CommandLoop, tenant_id: UUID, project_id: UUID) -> runs.RunBudget | None:
    """The budget of a run that is given none, as the log has it: many starts are prepared at once, and rest on one look."""
    book: budgets.Book = (await commands.load(budgets.DECIDER, tenant_id, budgets.book_id_of(tenant_id))).state
    return default_of_runs(book, project_id, None)


async def first_answer(commands: CommandLoop, request: CommandRequest, run_id: UUID) -> CommandOutcome | None:
    """The answer that the start of the run got, from the run's own events. None: another command started the run.

    The log recognises a command by its id for a bounded time. A start under an id that the client made is recognised for ever.
    """
    history = await commands.history(request.tenant_id, run_id)
    first = [event for event in history if Metadata.model_validate_json(event.metadata).command_id == request.command_id]
    if not first or first[0].version != 1:
        return None
    last, position = first[-1], await commands.end_of(request.tenant_id, first)
    return CommandOutcome(position, {run_id: last.version}, (), last.recorded_at, duplicate=True, recorded=tuple(first))


def check_repeat(request: CommandRequest, command: runs.StartRun, plan: runs.Plan, recorded: RecordedEvent, first: Event) -> None:
    """Raises StartedDifferently if a start differs from the recorded start of the run.

    Compares plans as asked for, without looked-up versions.
    """
    same = (
        isinstance(first, runs.RunStarted)
        and is_asked_for(plan, first.plan)
        and first.project_id == command.project_id
        and same_json(first.input, command.input)
        and same_json(first.metadata, command.metadata)
        and first.priority == command.priority
        and first.compensate == command.compensate
        and first.workflow == command.workflow
        and first.concurrency == command.concurrency
        and _own_budget(first.budget) == _own_budget(command.budget)
        and Metadata.model_validate_json(recorded.metadata).on_behalf_of == request.on_behalf_of
    )
    if not same:
        what = "with another plan, input, project, priority, compensation, key, budget or metadata, or on behalf of another"
        raise StartedDifferently(f"run {recorded.stream_id} was started before, {what}")


def check_terms(terms: Terms, run_id: UUID, first: Sequence[Event]) -> None:
    """Raises StartedDifferently if a start says other terms than the recorded start of the run."""
    said = next((event.deadline_s for event in first if isinstance(event, runs.DeadlineSet)), None)
    if said != terms.deadline_s:
        raise StartedDifferently(f"run {run_id} was started before, with another deadline")


def _own_budget(budget: runs.RunBudget | None) -> runs.RunBudget | None:
    """The budget that a start asked for, and not the one of all runs, which may have changed meanwhile."""
    return None if budget is None or budget.budget is not None else budget


async def _part_of_project(
    commands: CommandLoop, tenant_id: UUID, project_id: UUID, *, fresh: bool = False
) -> Sequence[projects.UseProject]:
    """What the start of a run needs of its project. The default project cannot be removed, so nothing is needed of it.

    Raises UnknownProject if there is no such project. Whether it was removed is decided in the append: a repeat of a start from
    before gets its answer.
    """
    if project_id == projects.default_project_id(tenant_id):
        return ()
    loaded = await commands.load(projects.DECIDER, tenant_id, project_id, fresh=fresh)
    if loaded.state.created is None:
        raise UnknownProject(f"there is no project {project_id}", pointer="/project_id")
    return (projects.UseProject(project_id=project_id),)


_PINNED: dict[tuple[int, tuple[str | None, ...]], tuple[runs.Plan, runs.Plan]] = {}
"""(id() of a plan, versions) → (plan, pinned plan). The stored plan stays alive, so its id() is not used again."""
_PINNED_SIZE = 256
_PINNED_STEPS = 20
"""Larger plans, and plans whose steps have inputs or other forms, are graphs of one request. They come once, and would fill the
memory."""


def _pinned(plan: runs.Plan, versions: tuple[str | None, ...]) -> runs.Plan:
    """The plan with its agents' versions.

    Pinned plans are cached: most runs have one of a few plans, and a copy costs as much as a decision. The constructors
    `sequential` and `parallel` return the same object for the same arguments, so the object's id() is a good key.
    """
    key = (id(plan), versions)
    found = _PINNED.get(key)
    if found is None:
        found = plan, pinned(plan, iter(versions))
        if len(plan.steps) <= _PINNED_STEPS and all(step.is_plain and step.input is None for step in plan.steps):
            if len(_PINNED) >= _PINNED_SIZE:
                _PINNED.clear()
            _PINNED[key] = found
    return found[1]


async def _versions(
    commands: CommandLoop,
    tenant_id: UUID,
    plan: runs.Plan,
    known: KnownNames,
    *,
    fresh: bool,
    kept: Mapping[int, Sequence[str | None]] = NONE_KEPT,
) -> tuple[tuple[str | None, ...], Iterable[agents.UseAgent]]:
    """The version of each agent that the plan names: the one that is asked for, or else the registered one; and what the start
    rests on.

    `fresh`: the log is asked for each agent. Raises UnknownAgent, which names the first `MOST_REFUSED` faults.
    """
    versions: list[str | None] = []
    of_kept = {place: iter(given) for place, given in kept.items()}
    looked_at: dict[UUID, agents.UseAgent] = {}
    refused: list[tuple[int, str, str]] = []
    names: Sequence[str] | None = None
    for wanted in agents_of(plan):
        if wanted.step in of_kept:
            versions.append(next(of_kept[wanted.step]))
            continue
        agent_id = agents.agent_id_of(tenant_id, wanted.agent)
        for again in (fresh and agent_id not in looked_at, True):  # another process may have registered the agent since
            definition: agents.AgentDefinition = (await commands.load(agents.DECIDER, tenant_id, agent_id, fresh=again)).state
            version = _version_of(definition, wanted)
            if version is not None:
                versions.append(version)
                looked_at[agent_id] = agents.UseAgent(agent_id=agent_id, name=wanted.agent, changes=definition.changes)
                break
        else:
            if names is None:
                names = await names_of(known, tenant_id)
            refused.append((wanted.step, wanted.place, _why(definition, wanted, names)))
            if len(refused) == MOST_REFUSED:
                break
    if refused:
        raise UnknownAgent(refused)
    return tuple(versions), looked_at.values()


def _version_of(definition: agents.AgentDefinition, wanted: NamedAgent) -> str | None:
    """The version of an agent. None: it is not registered."""
    if definition.current is None:
        return None
    if wanted.version is None:
        return definition.current.version
    return wanted.version if wanted.version in definition.versions else None


def _why(definition: agents.AgentDefinition, wanted: NamedAgent, names: Sequence[str]) -> str:
    if definition.current is None:
        return f"no agent '{wanted.agent}' is registered{did_you_mean(wanted.agent, names)}"
    registered = f"version{'s' if len(definition.versions) > 1 else ''} {' and '.join(definition.versions[-MAX_NAMED:])}"
    return f"agent '{wanted.agent}' is registered in {registered}, not {wanted.version}"
