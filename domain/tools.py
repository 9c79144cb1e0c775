"""Tools: what each version declares, which version is the current one, and whether the tool should still be used.

A version that its author named (`pinned`) never changes its meaning. A tool whose author names no version has the version `1`, and
its declaration follows the code of its workers.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, assert_never
from uuid import UUID

from immutables import Map
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from domain import chain_plans, http_requests
from domain.chain_plans import ChainPlan
from domain.errors import AlreadyExists, InvalidCommand, InvalidState, NotFound, json_pointer
from domain.http_requests import Fault, HttpRequest
from domain.kernel import Command, Decider, Event, Json, Name, ShortText, Text, Value, derive_id
from domain.maps import PersistentMap
from domain.tool_policy import ToolPolicy, faults_of_policy, policy_of

Kind = Literal["python", "http", "builtin", "chain"]
"""What a tool is. `python`: code of the workers that announce it. `http`: a request, as data. `builtin`: a part of Tidelog.
`chain`: other tools, one after the other."""

DATA_KINDS: frozenset[str] = frozenset({"http", "builtin"})
"""Tools that are data: any worker that says so can carry them out."""

VersionName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
"""A version that is named over HTTP. Workers may announce any text."""

MOST_VERSIONS = 1_000
"""Versions of a tool whose declarations are compared. Of more, the one that was registered first is forgotten."""
MOST_EXAMPLES = 20
MOST_NEEDED = 50


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
    kind: str = "python"
    result: Json = None
    """JSON Schema of the result. None: any result."""
    examples: tuple[Json, ...] = ()
    """Objects with `arguments`, and perhaps `result` and `description`."""
    needs_tools: tuple[str, ...] = ()
    needs_services: tuple[str, ...] = ()
    untrusted_output: bool = False
    """The result holds text of strangers: a model must not take it for instructions."""
    request: Json = None
    """The HTTP request of a tool of the kind `http` (`domain.http_requests.HttpRequest`)."""
    builtin: str | None = None
    pinned: bool = False
    """Its author named the version, so another declaration of the version is refused."""
    chain: Json = None
    """The steps of a tool of the kind `chain` (`domain.chain_plans.ChainPlan`)."""
    policy: Json = None
    """What the tool declares about its calls (`domain.tool_policy.ToolPolicy`). None: nothing."""

    @cached_property
    def rules(self) -> ToolPolicy:
        """The policy, read once."""
        return policy_of(self.policy)


class ToolDeprecated(Event):
    TOPIC = "tool.deprecated"
    name: str
    replaced_by: str | None = None
    note: str | None = None


class ToolReinstated(Event):
    """The tool is not deprecated any more."""

    TOPIC = "tool.reinstated"
    name: str


class ToolRemoved(Event):
    TOPIC = "tool.removed"
    name: str


ToolEvent = ToolRegistered | ToolDeprecated | ToolReinstated | ToolRemoved


class VersionTaken(AlreadyExists):
    """The version is known with another declaration."""

    code = "version-taken"


class UnknownTool(NotFound):
    """A tool is to be called that is not there, or that was removed."""

    code = "unknown-tool"


class ToolChanged(InvalidState):
    """The tool is not as the caller looked at it. Look again."""


class ToolTaken(AlreadyExists):
    """The name belongs to a tool of another kind, which a worker's declaration must not change."""

    code = "tool-taken"


@dataclass(frozen=True, slots=True)
class KnownVersion:
    digest: str
    pinned: bool
    place: int


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    current: ToolRegistered | None = None
    """None: there is no such tool, or not any more."""
    deprecated: ToolDeprecated | None = None
    versions: PersistentMap[str, KnownVersion] = field(default_factory=Map)
    """Also of a tool that was removed: a version that was named once never means something else."""
    changes: int = 0
    """Events of the stream: a number that names this state."""

    @property
    def warning(self) -> str | None:
        """What a caller of a deprecated tool should know. None: the tool is not deprecated."""
        if self.deprecated is None:
            return None
        instead = f"; use '{self.deprecated.replaced_by}'" if self.deprecated.replaced_by else ""
        note = f" ({self.deprecated.note})" if self.deprecated.note else ""
        return f"the tool '{self.deprecated.name}' is deprecated{instead}{note}"


class Example(Value):
    """What a call may look like. A result that is not given says nothing."""

    arguments: dict[str, Json]
    result: Json = None
    description: Text = ""


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
    kind: Kind = "python"
    result: Json = None
    examples: tuple[Json, ...] = Field(default=(), max_length=MOST_EXAMPLES)
    needs_tools: tuple[Name, ...] = Field(default=(), max_length=MOST_NEEDED)
    needs_services: tuple[ShortText, ...] = Field(default=(), max_length=MOST_NEEDED)
    untrusted_output: bool = False
    request: Json = None
    builtin: Name | None = None
    chain: Json = None
    pinned: bool = False
    policy: ToolPolicy | None = None
    how: Literal["announced", "created", "version"] = "announced"
    """`announced`: by a worker. `created`: the tool must be new. `version`: the tool must be there, and the version new."""


class DeprecateTool(Command):
    tool_id: UUID
    name: Name
    replaced_by: Name | None = None
    note: ShortText | None = None


class ReinstateTool(Command):
    tool_id: UUID
    name: Name


class RemoveTool(Command):
    tool_id: UUID
    name: Name


class UseTool(Command):
    """The tool is called. Has no events: the append of the call holds only while the tool is as it was looked at."""

    tool_id: UUID
    name: Name
    changes: int


ToolCommand = RegisterTool | DeprecateTool | ReinstateTool | RemoveTool | UseTool


@lru_cache(maxsize=10_000)
def tool_id_of(tenant_id: UUID, name: str) -> UUID:
    return derive_id(tenant_id, f"tool:{name}")


def digest_of(declared: ToolRegistered) -> str:
    """A hash of what a version declares. A field with its default says the same as a missing one, so a later field changes none."""
    said = declared.model_dump(exclude={"pinned"}, exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def faults_of(declared: RegisterTool) -> list[Fault]:
    """All that a declaration says wrongly, by its rules without the JSON Schemas: JSON Pointers and descriptions."""
    return list(_faults(declared))


def _faults(declared: RegisterTool) -> Iterator[Fault]:
    if not declared.version.strip():
        yield "/version", "a version is not empty"
    if declared.name in declared.needs_tools:
        yield "/needs_tools", "a tool cannot need itself"
    for number, example in enumerate(declared.examples):
        for place, text in faults_of_model(Example, example):
            yield f"/examples/{number}{place}", text
    if declared.policy is not None:
        yield from faults_of_policy(declared.name, declared.idempotent, declared.policy)
    for name, kind in (("request", "http"), ("builtin", "builtin"), ("chain", "chain")):
        given = getattr(declared, name)
        if given is None and declared.kind == kind:
            yield f"/{name}", f"a tool of the kind {kind} has a {name}"
        elif given is not None and declared.kind != kind:
            yield f"/{name}", f"only a tool of the kind {kind} has a {name}"
    if declared.request is not None:
        faults = faults_of_model(HttpRequest, declared.request)
        if not faults:
            faults = http_requests.faults_of(HttpRequest.model_validate(declared.request), declared.parameters)
        for place, text in faults:
            yield f"/request{place}", text
    if declared.chain is not None:
        faults = faults_of_model(ChainPlan, declared.chain)
        if not faults:
            faults = list(chain_plans.faults_of(declared.name, ChainPlan.model_validate(declared.chain)))
        for place, text in faults:
            yield f"/chain{place}", text


def faults_of_model(model: type[BaseModel], given: Json) -> list[Fault]:
    """Where a JSON value does not fit a model. The texts do not repeat the value."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        return [
            (json_pointer([part for part in fault["loc"] if part != "[key]"]), fault["msg"])
            for fault in error.errors(include_input=False, include_url=False)
        ]
    return []


def decide(tool: ToolDefinition, command: ToolCommand) -> list[Event]:
    if isinstance(command, RegisterTool):
        return _register(tool, command)
    if isinstance(command, UseTool):
        return _use(tool, command)
    if tool.current is None:
        if isinstance(command, RemoveTool) and tool.changes:
            return []
        raise NotFound(f"there is no tool '{command.name}'")
    match command:
        case DeprecateTool():
            if command.replaced_by == command.name:
                raise InvalidCommand("a tool cannot replace itself", pointer="/replaced_by")
            deprecated = ToolDeprecated(**command.model_dump(exclude={"tool_id"}))
            return [] if tool.deprecated == deprecated else [deprecated]
        case ReinstateTool():
            return [] if tool.deprecated is None else [ToolReinstated(name=command.name)]
        case RemoveTool():
            return [ToolRemoved(name=command.name)]
        case _:
            assert_never(command)


def _use(tool: ToolDefinition, command: UseTool) -> list[Event]:
    if tool.current is None:
        raise UnknownTool(f"no tool '{command.name}' is registered", pointer="/tool")
    if tool.changes != command.changes:
        raise ToolChanged(f"the tool '{command.name}' has changed meanwhile")
    return []


def _register(tool: ToolDefinition, command: RegisterTool) -> list[Event]:
    faults = faults_of(command)
    if faults:
        place, text = faults[0]
        raise InvalidCommand(f"tool '{command.name}': {place}: {text}", pointer=place, faults=faults)
    policy = None if command.policy is None else command.policy.said()
    registered = ToolRegistered(**command.model_dump(exclude={"tool_id", "how", "policy"}), policy=policy)
    digest, known = digest_of(registered), tool.versions.get(command.version)
    if tool.current is not None and (known is None or known.digest != digest):
        _check_other(tool.current, command)
    if command.how == "version" and tool.current is None:
        raise NotFound(f"there is no tool '{command.name}'")
    if known is not None and known.digest != digest and (known.pinned or command.how != "announced"):
        raise VersionTaken(
            f"version {command.version!r} of the tool '{command.name}' is known with another declaration: name another version",
            pointer="/version",
        )
    same = tool.current is not None and digest_of(tool.current) == digest
    return [] if same and tool.current is not None and tool.current.pinned >= command.pinned else [registered]


def _check_other(current: ToolRegistered, command: RegisterTool) -> None:
    """Raises an error for a declaration of a tool that is there already, and that may not change it."""
    if command.how == "created":
        raise AlreadyExists(
            f"there is a tool '{command.name}' already: add a version to it, or choose another name", pointer="/name"
        )
    if current.kind != command.kind:
        what = f"'{command.name}' is a tool of the kind {current.kind}, and stays one"
        raise ToolTaken(what, pointer="/name") if command.how == "announced" else InvalidState(what, pointer="/kind")


def evolve(tool: ToolDefinition, event: ToolEvent) -> ToolDefinition:
    changes = tool.changes + 1
    match event:
        case ToolRegistered():
            versions = tool.versions.set(event.version, KnownVersion(digest_of(event), event.pinned, changes))
            if len(versions) > MOST_VERSIONS:
                versions = versions.delete(min(versions, key=lambda version: versions[version].place))
            return replace(tool, current=event, versions=versions, changes=changes)
        case ToolDeprecated():
            return replace(tool, deprecated=event, changes=changes)
        case ToolReinstated():
            return replace(tool, deprecated=None, changes=changes)
        case ToolRemoved():
            return replace(tool, current=None, deprecated=None, changes=changes)
        case _:
            assert_never(event)


DECIDER: Decider[ToolDefinition] = Decider("tools", ToolDefinition, decide, evolve)


LATER_FIELDS = frozenset({
    "kind", "result", "examples", "needs_tools", "needs_services", "untrusted_output", "request", "builtin", "chain",
    "pinned", "reconcile_timeout_s", "policy",
})  # fmt: skip


def later_fields_of(declared: ToolRegistered) -> dict[str, Any]:
    """What a declaration says beyond what the first release knew. Empty if it says no more."""
    return declared.model_dump(include=set(LATER_FIELDS), exclude_defaults=True)
