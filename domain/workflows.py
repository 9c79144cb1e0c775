"""Workflows: plans that are drawn once, under a name, and started by it. Published versions are numbered and never change.

The stream of a workflow holds its draft, its versions, and which of them should not be used any more. Its state holds the draft and
the current version only, so it does not grow with the number of versions.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, assert_never
from uuid import UUID

from immutables import Map
from pydantic import Field

from domain.concurrency import Concurrency
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import Command, Deadline, Decider, Event, Json, Name, Priority, ShortText, Text, Value, derive_id, same_json
from domain.maps import PersistentMap
from domain.plans import Plan
from domain.tool_policy import ArgumentName
from domain.written_budgets import WrittenBudget

Compensate = Literal["on_failure", "on_cancel", "on_failure_or_cancel", "never"]
"""When the effects of a run are taken back, as the start of a run says it (`domain.runs.Compensate`)."""

MOST_DEPRECATED = 1_000
"""Versions of a workflow that are deprecated one by one."""


class SlashCommand(Value):
    """How a workflow is started by a line that begins with `/` and its name."""

    text: ShortText | None = None
    """The parameter that takes the free text of the line. None: the line has none."""
    help: ShortText = ""
    agents: dict[ArgumentName, tuple[Name, ...]] = {}
    """Parameters that name an agent → the keys of the steps that this agent does, in the plan or in the plans of its child runs."""


class WorkflowDefinition(Value):
    """What a version of a workflow says."""

    description: Text = ""
    parameters: dict[str, Json] | None = None
    """JSON Schema (2020-12) of the run's input. None: any input."""
    plan: Plan
    priority: Priority = "normal"
    compensate: Compensate = "never"
    deadline_s: Deadline | None = None
    """Of the runs, but not of child runs: those have the time of the run above. None: they take the time that they take."""
    metadata: dict[str, Json] = {}
    """Of the runs, unless the start says others."""
    budget: WrittenBudget | None = None
    """What each run may spend, unless the start says another. None: what runs have by default."""
    concurrency: Concurrency | None = None
    """The key that its runs share, unless the start says another. A child run has none: it and its parent would wait for one
    another."""
    command: SlashCommand | None = None

    def said(self) -> dict[str, Json]:
        """The definition as JSON without what it does not say, so a field that a later release adds does not change it."""
        return self.model_dump(mode="json", exclude_defaults=True)


class WorkflowDrafted(Event):
    """Takes the place of the draft before."""

    TOPIC = "workflow.drafted"
    name: str
    definition: Json
    """`WorkflowDefinition`, as JSON: releases that do not know all of it still read the event."""


class WorkflowDraftDiscarded(Event):
    TOPIC = "workflow.draft_discarded"
    name: str


class WorkflowPublished(Event):
    TOPIC = "workflow.published"
    name: str
    version: int
    """1, 2, 3 … It never means something else."""
    definition: Json
    note: str | None = None
    reverted_from: int | None = None
    """The older version that says the same, where the version was published to go back to it."""
    of_draft: bool = False
    """The draft became this version, so there is none any more."""


class WorkflowDeprecated(Event):
    TOPIC = "workflow.deprecated"
    name: str
    version: int | None = None
    """None: the whole workflow."""
    reason: str | None = None


class WorkflowReinstated(Event):
    """The workflow, or one version of it, is not deprecated any more."""

    TOPIC = "workflow.reinstated"
    name: str
    version: int | None = None


WorkflowEvent = WorkflowDrafted | WorkflowDraftDiscarded | WorkflowPublished | WorkflowDeprecated | WorkflowReinstated


class UnknownWorkflow(NotFound):
    """A workflow, or a version of it, is to be started that is not there."""

    code = "unknown-workflow"
    is_unknown_name = False
    """Whether there is no workflow of the name at all, so that another name may be meant."""


class DeprecatedWorkflow(InvalidState):
    """No new run starts with a deprecated workflow, or a deprecated version of one."""

    code = "workflow-deprecated"


class WorkflowChanged(InvalidState):
    """The workflow is not as the caller looked at it. Look again."""


@dataclass(frozen=True, slots=True)
class Workflow:
    current: WorkflowPublished | None = None
    """The version that was published last. None: none was published."""
    draft: WorkflowDrafted | None = None
    deprecated: WorkflowDeprecated | None = None
    """Of the whole workflow."""
    deprecated_versions: PersistentMap[int, str | None] = field(default_factory=Map)
    """Version → the reason."""
    changes: int = 0
    """Events of the stream: a number that names this state."""

    @property
    def versions(self) -> int:
        """How many versions there are. The current one has this number."""
        return 0 if self.current is None else self.current.version

    @property
    def is_there(self) -> bool:
        """False also for a workflow that never was more than a draft, which was discarded."""
        return self.current is not None or self.draft is not None


class DraftWorkflow(Command):
    workflow_id: UUID
    name: Name
    definition: WorkflowDefinition


class DiscardDraft(Command):
    workflow_id: UUID
    name: Name


class PublishWorkflow(Command):
    workflow_id: UUID
    name: Name
    definition: WorkflowDefinition | None = None
    """None: there was no draft to publish, as far as the giver of the command knows."""
    of_draft: bool = False
    """The definition is that of the draft."""
    note: ShortText | None = None
    reverted_from: int | None = Field(default=None, ge=1)
    """The version whose definition this is. It is taken from the log, so it is not compared again."""


class DeprecateWorkflow(Command):
    workflow_id: UUID
    name: Name
    version: int | None = Field(default=None, ge=1)
    reason: ShortText | None = None


class ReinstateWorkflow(Command):
    workflow_id: UUID
    name: Name
    version: int | None = Field(default=None, ge=1)


class UseWorkflow(Command):
    """A run starts with the workflow. Has no events: the append of the start holds only while it is as it was looked at."""

    workflow_id: UUID
    name: Name
    changes: int


WorkflowCommand = DraftWorkflow | DiscardDraft | PublishWorkflow | DeprecateWorkflow | ReinstateWorkflow | UseWorkflow


@lru_cache(maxsize=10_000)
def workflow_id_of(tenant_id: UUID, name: str) -> UUID:
    return derive_id(tenant_id, f"workflow:{name}")


def defaults_of(parameters: Json) -> dict[str, Json]:
    """The defaults of the parameters: those of the properties at the top level."""
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    found = properties.items() if isinstance(properties, dict) else ()
    return {name: schema["default"] for name, schema in found if isinstance(schema, dict) and "default" in schema}


def version_to_start(workflow: Workflow, name: str, version: int | None) -> int:
    """The version with which a new run starts. `version`: the one that was asked for. None: the current one.

    Raises UnknownWorkflow, DeprecatedWorkflow.
    """
    if workflow.current is None:
        draft = ": it is a draft, which is to be published first" if workflow.draft is not None else ""
        unknown = UnknownWorkflow(f"there is no workflow '{name}'{draft}")
        unknown.is_unknown_name = workflow.draft is None
        raise unknown
    chosen = workflow.versions if version is None else version
    if not 1 <= chosen <= workflow.versions:
        raise UnknownWorkflow(f"workflow '{name}' has the versions 1 to {workflow.versions}, not {chosen}")
    if workflow.deprecated is not None:
        raise DeprecatedWorkflow(f"workflow '{name}' is deprecated{_because(workflow.deprecated.reason)}")
    if chosen in workflow.deprecated_versions:
        why = _because(workflow.deprecated_versions[chosen])
        raise DeprecatedWorkflow(f"version {chosen} of workflow '{name}' is deprecated{why}{_instead(workflow, chosen)}")
    return chosen


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _instead(workflow: Workflow, refused: int) -> str:
    """The end of a refusal that names the newest version that may be used."""
    usable = next((n for n in range(workflow.versions, 0, -1) if n not in workflow.deprecated_versions), None)
    if usable is None:
        return "; so are all others"
    return f"; use version {usable}" + (", which is the current one" if usable == workflow.versions else "")


def decide(workflow: Workflow, command: WorkflowCommand) -> list[Event]:
    match command:
        case DraftWorkflow():
            drafted = WorkflowDrafted(name=command.name, definition=command.definition.said())
            same = workflow.draft is not None and same_json(workflow.draft.definition, drafted.definition)
            return [] if same else [drafted]
        case DiscardDraft():
            if workflow.draft is None and not workflow.changes:
                raise no_workflow(command.name)
            return [] if workflow.draft is None else [WorkflowDraftDiscarded(name=command.name)]
        case PublishWorkflow():
            return _publish(workflow, command)
        case DeprecateWorkflow():
            return _deprecate(workflow, command)
        case ReinstateWorkflow():
            _must_have(workflow, command.name, command.version)
            is_deprecated = (
                workflow.deprecated is not None if command.version is None else command.version in workflow.deprecated_versions
            )
            return [WorkflowReinstated(name=command.name, version=command.version)] if is_deprecated else []
        case UseWorkflow():
            if workflow.changes != command.changes:
                raise WorkflowChanged(f"the workflow '{command.name}' has changed meanwhile")
            return []
        case _:
            assert_never(command)


def no_workflow(name: str) -> NotFound:
    return NotFound(f"there is no workflow '{name}'")


def no_version(name: str, version: int | str) -> NotFound:
    return NotFound(f"there is no version {version} of a workflow '{name}'")


def _must_have(workflow: Workflow, name: str, version: int | None) -> None:
    """Raises NotFound for a workflow without versions, and for a version that is not there."""
    if workflow.current is None:
        raise no_workflow(name)
    if version is not None and version > workflow.versions:
        raise no_version(name, version)


def _publish(workflow: Workflow, command: PublishWorkflow) -> list[Event]:
    if command.definition is None:
        if not workflow.is_there:
            raise no_workflow(command.name)
        raise InvalidState(f"workflow '{command.name}' has no draft to publish")
    definition = command.definition.said()
    if command.of_draft and (workflow.draft is None or not same_json(workflow.draft.definition, definition)):
        raise WorkflowChanged(f"the draft of the workflow '{command.name}' has changed meanwhile: look at it again")
    if command.reverted_from is not None and command.reverted_from > workflow.versions:
        raise no_version(command.name, command.reverted_from)
    if workflow.current is not None and same_json(workflow.current.definition, definition):
        return [WorkflowDraftDiscarded(name=command.name)] if command.of_draft else []
    published = WorkflowPublished(
        name=command.name,
        version=workflow.versions + 1,
        definition=definition,
        note=command.note,
        reverted_from=command.reverted_from,
        of_draft=command.of_draft,
    )
    return [published]


def _deprecate(workflow: Workflow, command: DeprecateWorkflow) -> list[Event]:
    _must_have(workflow, command.name, command.version)
    deprecated = WorkflowDeprecated(name=command.name, version=command.version, reason=command.reason)
    if command.version is None:
        return [] if workflow.deprecated == deprecated else [deprecated]
    known = workflow.deprecated_versions
    if command.version in known:
        return [] if known[command.version] == command.reason else [deprecated]
    if len(known) >= MOST_DEPRECATED:
        raise InvalidCommand(
            f"{MOST_DEPRECATED:,} versions of workflow '{command.name}' are deprecated, which is the most: deprecate the workflow",
            pointer="/version",
        )
    return [deprecated]


def evolve(workflow: Workflow, event: WorkflowEvent) -> Workflow:
    changes = workflow.changes + 1
    match event:
        case WorkflowDrafted():
            return replace(workflow, draft=event, changes=changes)
        case WorkflowDraftDiscarded():
            return replace(workflow, draft=None, changes=changes)
        case WorkflowPublished():
            return replace(workflow, current=event, draft=None if event.of_draft else workflow.draft, changes=changes)
        case WorkflowDeprecated():
            if event.version is None:
                return replace(workflow, deprecated=event, changes=changes)
            known = workflow.deprecated_versions.set(event.version, event.reason)
            return replace(workflow, deprecated_versions=known, changes=changes)
        case WorkflowReinstated():
            if event.version is None:
                return replace(workflow, deprecated=None, changes=changes)
            known = workflow.deprecated_versions.delete(event.version)
            return replace(workflow, deprecated_versions=known, changes=changes)
        case _:
            assert_never(event)


DECIDER: Decider[Workflow] = Decider("workflows", Workflow, decide, evolve)
