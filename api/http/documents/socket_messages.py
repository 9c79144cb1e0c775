"""The messages of the WebSocket of event streams as the AsyncAPI document describes them.

What a client says is described by the models that read it. What the server says is written field by field, and
`tests/integration/test_event_sockets.py` holds these models against it.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from api.http.documents.openapi import Shown
from api.http.documents.session_messages import ProblemDocument
from api.http.sockets.frames import Acknowledge, Ping, Subscribe, Unsubscribe

PREFIX = "socket."
"""Of the names of these messages and schemas in the document."""


class WelcomeOfSocket(Shown):
    """The first message, with the bounds of the connection."""

    type: Literal["welcome"]
    heartbeat_s: float = Field(description="The server says `heartbeat` each time after so many seconds")
    max_subscriptions: int
    max_frame_bytes: int = Field(description="Of a frame of the client")
    max_window: int


class SubscribedMessage(Shown):
    """The subscription has begun: at this cursor."""

    type: Literal["subscribed"]
    id: str
    cursor: str


class EventsMessage(Shown):
    """Events in their order, and the cursor after the last one."""

    type: Literal["events"]
    id: str
    cursor: str
    events: list[dict[str, Any]]


class LiveMessage(Shown):
    """All stored events were sent. What comes from now on is live."""

    type: Literal["live"]
    id: str
    cursor: str


class UnsubscribedMessage(Shown):
    """The answer to `unsubscribe`: nothing comes any more. `cursor`: of what was sent; null if nothing had begun."""

    type: Literal["unsubscribed"]
    id: str
    cursor: str | None


class EndMessage(Shown):
    """The run of the subscription has ended, and all its events were sent. The subscription is over."""

    type: Literal["end"]
    id: str
    cursor: str


class ResyncMessage(Shown):
    """The client has read too slowly. The subscription is over: subscribe again with the cursor."""

    type: Literal["resync"]
    id: str
    cursor: str


class ResetMessage(Shown):
    """The log was restored: drop all events after `last_common_position`. The subscription is over: go on with the cursor."""

    type: Literal["reset"]
    id: str
    cursor: str
    history: str = Field(description="Id of the present history")
    last_common_position: int = Field(description="Up to this position the log is unchanged")
    reason: str


class ErrorOfSocket(Shown):
    """What was asked for is refused, or a subscription failed. The connection goes on. Without an id: of a frame that names none,
    or of the whole connection, which then ends.
    """

    type: Literal["error"]
    id: str | None = None
    ended: bool | None = Field(None, description="There is no subscription with this id, or not any more")
    cursor: str | None = Field(None, description="Of a subscription that failed: with which to subscribe again")
    problem: ProblemDocument


class ReconnectMessage(Shown):
    """The process stops. Connect again after so many milliseconds, and subscribe with the last cursors."""

    type: Literal["reconnect"]
    after_ms: int


class HeartbeatMessage(Shown):
    type: Literal["heartbeat"]


class PongMessage(Shown):
    """The answer to `ping`."""

    type: Literal["pong"]


SERVER: tuple[type[BaseModel], ...] = (
    WelcomeOfSocket, SubscribedMessage, EventsMessage, LiveMessage, UnsubscribedMessage, EndMessage, ResyncMessage, ResetMessage,
    ErrorOfSocket, ReconnectMessage, HeartbeatMessage, PongMessage,
)  # fmt: skip
CLIENT: tuple[type[BaseModel], ...] = (Subscribe, Unsubscribe, Acknowledge, Ping)


def type_of(model: type[BaseModel]) -> str:
    """The `type` of a message."""
    [found] = get_args(model.model_fields["type"].annotation)
    return str(found)


def names(models: tuple[type[BaseModel], ...]) -> list[str]:
    """Of the messages of one side, in the document."""
    return [PREFIX + type_of(model) for model in models]


def messages() -> dict[str, dict[str, Any]]:
    """The messages by name."""
    return {
        PREFIX + type_of(model): {
            "name": type_of(model),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{PREFIX}{model.__name__}"},
        }
        for model in (*CLIENT, *SERVER)
    }


def schemas() -> dict[str, Any]:
    """The schemas of the messages. Those of the server may get further fields: the server may be newer than its client."""
    models = [(model, "validation") for model in (*CLIENT, *SERVER)]
    _, made = models_json_schema(models, ref_template=f"#/components/schemas/{PREFIX}{{model}}")  # type: ignore[arg-type]
    found: dict[str, Any] = made["$defs"]
    found[EventsMessage.__name__]["properties"]["events"]["items"] = {"$ref": "#/components/schemas/CloudEvent"}
    return {f"{PREFIX}{name}": schema for name, schema in found.items()}
