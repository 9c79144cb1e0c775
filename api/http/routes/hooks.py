"""Webhooks: deliveries of others, each of which starts what the trigger of its webhook starts.

The route is public: what proves the sender is the signature of the delivery. An unknown webhook, a removed one and a wrong
signature get the same answer.
"""

from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.conventions.answers import answer
from api.http.conventions.bodies import takes_content
from api.http.conventions.permissions import public
from api.http.conventions.request import container_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.triggers.deliveries import BODY_BYTES, HookDelivery
from domain import values
from domain.errors import InvalidCommand, PayloadTooLarge
from domain.kernel import Json

router = APIRouter(tags=["triggers"], route_class=DirectRoute)


class DeliveryTaken(openapi.Shown):
    delivery: str
    """The id of the delivery."""
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    """Neither: the condition of the trigger does not hold for the delivery."""


@router.post(
    "/hooks/{hook_id}",
    status_code=202,
    summary="A delivery of a webhook",
    responses={202: openapi.gives(DeliveryTaken)},
    openapi_extra=openapi.takes_content(),
)
@public
@takes_content(BODY_BYTES)
async def post_delivery(request: Request, hook_id: UUID) -> Response:
    """What it starts is durable when the request is answered. The same delivery again gets the same answer."""
    body = await request.body()
    if len(body) > BODY_BYTES:
        raise PayloadTooLarge(f"a delivery has at most {BODY_BYTES:,} bytes")
    state = request.scope["state"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in state["headers"].items()}
    taken = await container_of(request).triggers.deliveries.take(
        HookDelivery(hook_id, headers, body, state.get("traceparent")), _read
    )
    said: dict[str, Any] = {"delivery": taken.delivery}
    if taken.run_id is not None:
        said["run_id"] = str(taken.run_id)
    if taken.invocation_id is not None:
        said["invocation_id"] = str(taken.invocation_id)
    return answer(said, 202)


def _read(body: bytes) -> Json:
    """The JSON value of a body. Raises InvalidCommand."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidCommand(f"the body of a delivery is JSON: {error}") from None
    if values.is_deeper(body, values.MAX_DEPTH):
        raise InvalidCommand(f"a value may be nested {values.MAX_DEPTH} levels deep, no deeper")
    return value
