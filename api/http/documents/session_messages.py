"""The messages of a worker's session as the AsyncAPI document describes them.

What a worker says is described by the models that read it. What the server says is written field by field, and
`tests/unit/test_session_schemas.py` holds these models against it.
"""

from typing import Any, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from api.http.documents.openapi import Shown
from api.http.sessions.offers import AgentOffer, ProblemReport, ToolOffer
from application.engine.ports.views import Timestamp
from application.workers.hosting.messages import RESERVED, Definitions, Saying, StopReason
from domain.access import Action
from domain.failures import Failure
from domain.kernel import Json

PREFIX = "session."
"""Of the names of these schemas in the document."""
ITEMS: dict[str, type[BaseModel]] = {"agents": AgentOffer, "tools": ToolOffer, "problems": ProblemReport}
"""The definitions of `hello` and `define`. Each is read by itself, so the models of the messages do not name them."""


class Fault(Shown):
    pointer: str
    detail: str


class ProblemDocument(Shown):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retryable: bool
    trace_id: str
    errors: list[Fault] = []


class VerdictShown(Shown):
    """What became of a definition. `version` is there if it is accepted, `problem` if not."""

    name: str | None
    accepted: bool
    version: str | None = None
    problem: ProblemDocument | None = None


class JournalEntryShown(Shown):
    """One key of the journal."""

    key: str
    kind: Literal["step", "send", "receive", "state_get", "state_set", "call"]
    status: Literal["ok", "error", "pending"]
    result: Json
    error: Failure | None = None
    invocation_id: UUID | None = None
    fingerprint: str | None = None
    """Of the kind, the name and the arguments of the call. Missing: not known."""


class MailInHand(Shown):
    message_id: UUID
    sender: str
    body: Json
    sent_at: Timestamp


class WelcomeMessage(Shown):
    t: Literal["welcome"]
    version: Literal[1]
    session: UUID
    secret: str
    release: str
    lease_s: float
    max_event_bytes: int
    suspends: bool = True
    """Whether an agent that only waits may leave its worker, by `suspend`."""
    progress: bool = True
    """Whether an agent may say how far it is, by `progress`."""
    agents: list[VerdictShown]
    tools: list[VerdictShown]


class WorkOfAgent(Shown):
    t: Literal["work"]
    n: int = Field(ge=1)
    kind: Literal["agent"]
    work: UUID
    attempt: int
    token: str
    run: UUID
    step: str
    agent: str
    agent_version: str
    version_asked: bool
    input: Json
    results: dict[str, Json]
    missing: list[str]
    peers: list[str]
    version: int
    journal: list[JournalEntryShown]
    mailbox: list[MailInHand]
    more: bool
    deadline: Timestamp | None
    later: list[str] | None = None
    """Steps whose results did not fit."""
    part: int | None = None
    """The number of the execution, where the step has several."""
    receives: dict[str, float] | None = None
    """Key → the seconds that a `receive` has left which was open when the agent run was suspended. Missing: none was."""
    on_behalf_of: str | None = None
    """For whom the work is. Missing: for nobody."""


class DefinitionShown(Shown):
    """What a worker carries out. `request` and `parameters` are there for `http`, `builtin` for `builtin`."""

    kind: str
    version: str
    request: dict[str, Json] | None = None
    parameters: dict[str, Json] | None = None
    builtin: str | None = None


class WorkOfTool(Shown):
    t: Literal["work"]
    n: int = Field(ge=1)
    kind: Literal["tool"]
    work: UUID
    attempt: int
    token: str
    run: UUID
    agent_run: UUID
    tool: str
    arguments: dict[str, Json]
    timeout_s: float
    idempotent: bool
    definition: DefinitionShown | None = None
    """Of the version that was called, if the worker has said that it serves such tools."""
    on_behalf_of: str | None = None
    """For whom the call is. Missing: for nobody."""


class WorkOfReconcile(WorkOfTool):
    """A worker is to ask the tool's `reconcile` function whether an attempt of the call took effect."""

    kind: Literal["reconcile"]  # type: ignore[assignment]
    timeout_s: float
    """The limit of the function."""


class DoneMessage(Shown):
    """The fields beside `id` are those of the report: see the page."""

    t: Literal["done"]
    id: int
    version: int | None = None
    invocation_id: UUID | None = None
    message_id: UUID | None = None
    warning: str | None = None
    retry: bool | None = None
    name: str | None = None
    found: bool | None = None
    value: Json = None
    value_version: int | None = None
    status: str | None = None
    journal: list[JournalEntryShown] | None = None
    mailbox: list[MailInHand] | None = None
    more: bool | None = None
    result: Json = None
    agents: list[VerdictShown] | None = None
    tools: list[VerdictShown] | None = None


class RefusedMessage(Shown):
    t: Literal["refused"]
    id: int
    problem: ProblemDocument


class UpdateMessage(Shown):
    t: Literal["update"]
    work: UUID
    attempt: int
    version: int
    journal: list[JournalEntryShown]
    mailbox: list[MailInHand]


class StopMessage(Shown):
    t: Literal["stop"]
    work: UUID
    attempt: int
    reason: StopReason


class DrainMessage(Shown):
    t: Literal["drain"]
    within_s: float


class ErrorMessage(Shown):
    """The connection ends."""

    t: Literal["error"]
    problem: ProblemDocument


class BeatMessage(Shown):
    t: Literal["beat"]


SERVER: tuple[type[BaseModel], ...] = (
    WelcomeMessage, WorkOfAgent, WorkOfTool, WorkOfReconcile, DoneMessage, RefusedMessage, UpdateMessage, StopMessage,
    DrainMessage, ErrorMessage, BeatMessage,
)  # fmt: skip
WORKER: tuple[type[BaseModel], ...] = get_args(Saying)


def type_of(model: type[BaseModel]) -> str:
    """The `t` of a message."""
    [found] = get_args(model.model_fields["t"].annotation)
    return str(found)


def messages() -> dict[str, dict[str, Any]]:
    """The messages by name: who says them, and their type. Of the types that are reserved nothing else is known yet."""
    found: dict[str, dict[str, Any]] = {}
    for side, models in (("worker", WORKER), ("server", SERVER)):
        for model in models:
            same = [_reference(other) for other in models if type_of(other) == type_of(model)]
            payload = same[0] if len(same) == 1 else {"oneOf": same}
            found[f"{side}.{type_of(model)}"] = {"name": type_of(model), "payload": payload}
            if isinstance(action := getattr(model, "ACTION", None), Action):
                found[f"{side}.{type_of(model)}"]["x-action"] = action.value
    for name in sorted(RESERVED):
        found[f"worker.{name}"] = {
            "name": name,
            "summary": "Reserved: refused by its id with the code not-yet, and ignored without an id.",
            "tags": [{"name": "reserved"}],
            "payload": {"type": "object", "properties": {"t": {"const": name}}, "required": ["t"]},
        }
    return found


def schemas() -> dict[str, Any]:
    """The schemas of the messages and of what is in them. Further fields are allowed: the other side may be newer."""
    models = [(model, "validation") for model in (*WORKER, *SERVER, *ITEMS.values())]
    _, made = models_json_schema(models, ref_template=f"#/components/schemas/{PREFIX}{{model}}")  # type: ignore[arg-type]
    found: dict[str, Any] = made["$defs"]
    for schema in found.values():
        schema.pop("additionalProperties", None)
    for model in (*WORKER, *SERVER):
        schema = found[model.__name__]
        schema["required"] = ["t", *(name for name in schema.get("required", ()) if name != "t")]
        if issubclass(model, Definitions):
            for field, item in ITEMS.items():
                schema["properties"][field]["items"] = _reference(item)
    return {f"{PREFIX}{name}": schema for name, schema in found.items()}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{PREFIX}{model.__name__}"}
