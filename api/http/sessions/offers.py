"""The definitions of a worker: each is read by itself, so that one that is not valid refuses itself only."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

import pydantic_core
from pydantic import Field, StringConstraints, ValidationError

from api.http.conventions.bodies import Body
from api.http.sessions.frames import BadDefinition, InvalidMessage, invalid, shown
from application.engine.ports.problems import MAX_PROBLEMS, WorkerProblem
from application.workers.hosting.messages import MAX_OFFERS, Definitions
from application.workers.hosting.session import Offers
from application.workers.registering import Offer
from domain import agents, tools
from domain.errors import TidelogError
from domain.kernel import Json, Name, ShortText, Text
from domain.tool_policy import ToolPolicy

M = TypeVar("M", bound=Body)


class AgentOffer(Body):
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    input_schema: Json = None
    output_schema: Json = None


class ToolOffer(Body):
    name: Name
    version: ShortText = "1"
    description: Text = ""
    capabilities: tuple[Name, ...] = ()
    parameters: dict[str, Json]
    idempotent: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    max_attempts: int = Field(default=3, ge=1, le=20)
    reconcile_timeout_s: float | None = Field(default=None, gt=0, le=3600)
    """The limit of one call of the tool's `reconcile` function. Missing: the tool has none."""
    result: Json = None
    examples: tuple[Json, ...] = Field(default=(), max_length=tools.MOST_EXAMPLES)
    needs_tools: tuple[Name, ...] = Field(default=(), max_length=tools.MOST_NEEDED)
    needs_services: tuple[ShortText, ...] = Field(default=(), max_length=tools.MOST_NEEDED)
    untrusted_output: bool = False
    pinned: bool = False
    policy: ToolPolicy | None = None


class ProblemReport(Body):
    path: ShortText
    kind: ShortText
    message: Annotated[Text, StringConstraints(max_length=4_000)]


def read_offers(tenant_id: UUID, given: Definitions) -> Offers:
    """The definitions and the problems that a worker names. The first `MAX_OFFERS` agents and tools count."""
    agents_read = (_agent(tenant_id, item) for item in given.agents[:MAX_OFFERS])
    tools_read = (_tool(tenant_id, item) for item in given.tools[:MAX_OFFERS])
    return Offers(
        [*_once(agents_read), *_beyond("agents", given.agents)],
        [*_once(tools_read), *_beyond("tools", given.tools)],
        [WorkerProblem(**one.model_dump()) for one in map(_problem, given.problems[:MAX_PROBLEMS]) if one is not None],
    )


def _beyond(kind: str, items: Sequence[Json]) -> Iterator[Offer]:
    """Refuses the definitions that are too many. Of very many, the last ones are not named."""
    for item in items[MAX_OFFERS : 2 * MAX_OFFERS]:
        yield _refused(item, InvalidMessage(f"a worker offers at most {MAX_OFFERS} {kind}, and this one comes after them"))


def _agent(tenant_id: UUID, item: Json) -> Offer:
    offer = _model(AgentOffer, item)
    if not isinstance(offer, AgentOffer):
        return _refused(item, offer)
    command = agents.RegisterAgent(agent_id=agents.agent_id_of(tenant_id, offer.name), **offer.model_dump())
    return Offer(offer.name, offer.version, command)


def _tool(tenant_id: UUID, item: Json) -> Offer:
    offer = _model(ToolOffer, item)
    if not isinstance(offer, ToolOffer):
        return _refused(item, offer)
    command = tools.RegisterTool(tool_id=tools.tool_id_of(tenant_id, offer.name), **offer.model_dump())
    return Offer(offer.name, offer.version, command)


def _problem(item: Json) -> ProblemReport | None:
    """A problem, with the bounds of the log. None: nothing of it can be shown."""
    if isinstance(item, BadDefinition):
        item = item.given
    if not isinstance(item, dict):
        return None
    texts = {name: _text(item, name, most) for name, most in (("path", 500), ("kind", 500), ("message", 4_000))}
    found = _model(ProblemReport, {name: (text or "").replace("\0", "?") for name, text in texts.items()})
    return found if isinstance(found, ProblemReport) else None


def _model(model: type[M], item: Json) -> M | TidelogError:
    """An object as a model. Fields that this release does not know are left out: a server may be older than its workers."""
    if isinstance(item, BadDefinition):
        return item.error
    if not isinstance(item, dict):
        return InvalidMessage("a definition is an object")
    known = {name: value for name, value in item.items() if name in model.model_fields}
    text = pydantic_core.to_json(known)  # not orjson, which knows no integers of more than 64 bits
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as problem:
        return invalid(problem)


def _refused(item: Json, error: TidelogError | Body) -> Offer:
    assert isinstance(error, TidelogError)
    given = item.given if isinstance(item, BadDefinition) else item
    return Offer(_text(given, "name"), _text(given, "version"), None, error)


def _text(item: Json, name: str, most: int = 500) -> str | None:
    """A field of a definition that is not valid, as far as it can be shown."""
    value = item.get(name) if isinstance(item, dict) else None
    return shown(value, most) if isinstance(value, str) else None


def _once(offers: Any) -> "Sequence[Offer]":
    """The offers. The second one of a name is refused: either would be as good a guess."""
    found: list[Offer] = []
    names: set[str] = set()
    for offer in offers:
        twice = offer.command is not None and offer.name in names
        found.append(Offer(offer.name, offer.version, None, InvalidMessage("the name is given twice")) if twice else offer)
        if offer.command is not None:
            names.add(offer.name)
    return found
