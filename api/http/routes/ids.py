"""Ids over HTTP: what an id or its beginning names."""

from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import answer
from api.http.conventions.narrowing import seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from application.find_ids import find_ids
from domain.access import Action

router = APIRouter(tags=["events"], route_class=DirectRoute)


class NamedView(BaseModel):
    id: str
    kind: str
    """`run`, `agent_run`, `invocation`, `message` and other slices; `command`; `event`."""
    run_id: UUID | None
    """The run itself, or the run around it."""
    position: int
    """Position of the first event."""
    event_count: int | None
    """For a command: the number of its events, which follow one another in the log."""


class FoundIds(BaseModel):
    data: list[NamedView]
    complete: bool
    """Whether these are all. If not, a longer beginning is needed."""


@router.get("/v1/ids/{id}", summary="What an id or its beginning names", responses={200: {"model": FoundIds}})
@needs(Action.CATALOG_READ, Reach.LIMITED)
async def get_ids(request: Request, id: str) -> Response:
    """`id`: a complete id, at least four digits of its beginning, or the id of an event (`<stream id>:<version>`).

    A short text may name several things. At most 100 ids are looked at, so the answer takes as long in a long log.
    """
    found, complete = await find_ids(container_of(request).index, principal_of(request).tenant_id, id)
    if (seen := seen_by(request)) is not None:
        found = await seen.named(found)
    return answer(FoundIds(data=[NamedView.model_validate(named, from_attributes=True) for named in found], complete=complete))
