"""`Tidelog-Caused-By`: the agent run or the tool call that asks, so that the chain of causes goes on through a request.

The SDK says it inside of agents and tools. The server takes from it where to look, and finds the depth itself. It cannot know what
a caller does not say: the header only ever makes a chain longer.
"""

from collections.abc import Mapping
from uuid import UUID

from fastapi import Request

from api.http.conventions.narrowing import projects_of
from api.http.conventions.request import container_of, principal_of
from domain.errors import InvalidCommand

NAME = b"tidelog-caused-by"
HEADER = "Tidelog-Caused-By"


def _given(headers: Mapping[bytes, bytes]) -> UUID | None:
    """Raises InvalidCommand."""
    given = headers.get(NAME)
    if given is None:
        return None
    try:
        return UUID(given.decode("ascii").strip())
    except ValueError:
        raise InvalidCommand(f"{HEADER} is the id of an agent run, a tool call or a run") from None


async def find_cause(request: Request) -> None:
    """From now on the commands of the request follow from the work that it names.

    What is not there, or what the key does not see, is no cause: an agent may ask a server that is not the one of its run. Raises
    InvalidCommand: it is no id; Unavailable.
    """
    state = request.scope["state"]
    work_id = _given(state["headers"])
    if work_id is None:
        return
    tenant_id, within = principal_of(request).tenant_id, projects_of(request)
    cause = await container_of(request).roots.cause(tenant_id, work_id)
    if cause is None:
        return
    if within is not None and (await container_of(request).roots.of(tenant_id, cause.root_id)).project_id not in within:
        return
    state["cause"] = cause.name
