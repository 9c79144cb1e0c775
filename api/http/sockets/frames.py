"""What a client sends: each frame is one message, a JSON object."""

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from api.http.conventions.cursors import PATTERN
from api.http.sessions.frames import invalid
from api.http.sockets.limits import MAX_ID, MAX_WINDOW
from application.engine.ports.log import AskedBy
from application.engine.reading.channels import Filter
from application.suggestions import did_you_mean
from application.workers.hosting.messages import MalformedMessage
from domain.errors import InvalidCommand
from domain.registry import REGISTRY

SLICES = frozenset(topic.partition(".")[0] for topic in REGISTRY.events)
_MOST_NAMES = 1_000

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID, description="Chosen by the client; of one subscription at a time")]
Person = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SocketFilter(_Part):
    """Which events a subscription brings: those that meet all that is given. Without anything: all of the key's tenant."""

    types: Annotated[list[str] | None, Field(min_length=1, max_length=_MOST_NAMES, description="Types, as run.started")] = None
    slices: Annotated[
        list[str] | None,
        Field(min_length=1, max_length=_MOST_NAMES, description="First words of event types, as run. In addition to `types`"),
    ] = None
    root_id: Annotated[UUID | None, Field(description="Only events inside this run, or of this other stream")] = None
    run_id: Annotated[
        UUID | None, Field(description="Only events of this run, which must exist; the subscription ends with the run")
    ] = None
    actor: Annotated[Person | None, Field(description="Only what this one has asked for, as `key:<key id>`")] = None
    on_behalf_of: Annotated[Person | None, Field(description="Only what was asked for on behalf of this one")] = None

    def wanted(self, tenant_id: UUID) -> Filter:
        """Raises InvalidCommand for a filter that cannot be met."""
        if self.root_id is not None and self.run_id is not None:
            raise InvalidCommand("root_id and run_id cannot both be given", pointer="/filter/root_id")
        return Filter(tenant_id, self.run_id or self.root_id, self._topics(), AskedBy(self.actor, self.on_behalf_of))

    def _topics(self) -> frozenset[str] | None:
        if self.types is None and self.slices is None:
            return None
        types, slices = self.types or (), self.slices or ()
        for field, names, known in (("types", types, REGISTRY.events), ("slices", slices, SLICES)):
            for at, name in enumerate(names):
                if name not in known:
                    what = "event type" if field == "types" else "slice"
                    meant = did_you_mean(name[:100], known)
                    raise InvalidCommand(
                        f"unknown {what}: {name[:100]}{meant} (GET /schemas lists all)", pointer=f"/filter/{field}/{at}"
                    )
        return frozenset(types) | {topic for topic in REGISTRY.events if topic.partition(".")[0] in slices}


class Subscribe(_Part):
    """Asks for events: those after a cursor, then live ones, without a gap or a repetition."""

    type: Literal["subscribe"]
    id: Id
    filter: SocketFilter = SocketFilter()
    after: Annotated[
        str | None,
        Field(
            pattern=PATTERN,
            description="The cursor of the last message that the client has, or a position; 0: from the first event on. "
            "Missing or null: from now on",
        ),
    ] = None
    window: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_WINDOW,
            description="No more events than this are sent and not acknowledged. Missing or null: nothing is acknowledged",
        ),
    ] = None


class Unsubscribe(_Part):
    """Ends a subscription. Answered by `unsubscribed`, also if there is no such subscription any more."""

    type: Literal["unsubscribe"]
    id: Id


class Acknowledge(_Part):
    """The client is done with all events of a subscription with a `window` up to a cursor."""

    type: Literal["ack"]
    id: Id
    cursor: Annotated[str, Field(pattern=PATTERN)]


class Ping(_Part):
    """Asks for a `pong`, for clients that want to know at once whether the connection is still there."""

    type: Literal["ping"]


Said = Subscribe | Unsubscribe | Acknowledge | Ping
_SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


def read(text: str | None) -> Said:
    """The message of a frame; None: a binary frame. Raises MalformedMessage, InvalidCommand."""
    if text is None:
        raise MalformedMessage("frames are text, not binary")
    try:
        return _SAID.validate_json(text)
    except ValidationError as problem:
        kind = problem.errors(include_url=False, include_input=False)[0]
        if kind["type"] == "json_invalid":
            raise MalformedMessage(f"the frame is not JSON: {kind['ctx']['error']}") from None
        if kind["type"] in ("model_attributes_type", "dict_type"):
            raise MalformedMessage("a frame is a JSON object with the type of the message in `type`") from None
        if kind["type"] in ("union_tag_invalid", "union_tag_not_found"):
            raise InvalidCommand(f"type must be one of {kind['ctx'].get('expected_tags', _TYPES)}", pointer="/type") from None
        raise invalid(problem, skip=1) from None


_TYPES = "'subscribe', 'unsubscribe', 'ack', 'ping'"


def id_in(text: str | None) -> str | None:
    """The id in a frame that is not valid, so that the client knows what the refusal is about. None: there is none."""
    try:
        found: Any = pydantic_core.from_json(text or "")
    except ValueError:
        return None
    id = found.get("id") if isinstance(found, dict) else None
    return id if isinstance(id, str) and len(id) <= MAX_ID else None


def message(type: str, **fields: Any) -> bytes:
    """A message of the server."""
    return orjson.dumps({"type": type, **fields})
