"""The way of a request to its endpoint: its route, its arguments, and the requests that the framework handles."""

from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from fastapi import APIRouter, FastAPI, Query, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.http.conventions.errors import InvalidParameters
from api.http.conventions.routing import DirectRoute, RouteTable

router = APIRouter(route_class=DirectRoute)
ID = UUID(int=7)


def said(*values: Any) -> Response:
    return Response(repr(values))


@router.get("/things")
async def get_things(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=9)] = 5,
    kind: Literal["a", "b"] | None = None,
    owner: UUID | None = None,
) -> Response:
    return said("things", limit, kind, owner)


@router.post("/things")
async def post_thing(request: Request) -> Response:
    return said("posted", await request.body(), await request.body())


@router.get("/things/{thing_id}")
async def get_thing(request: Request, thing_id: UUID) -> Response:
    return said("thing", thing_id)


@router.get("/things/{thing_id}/parts/{number}")
async def get_part(request: Request, number: int, thing_id: UUID, name: str = "") -> Response:
    return said("part", thing_id, number, name)


@router.get("/schemas/{topic}/v{version}")
async def get_schema(request: Request, topic: str, version: int) -> Response:
    return said("schema", topic, version)


@router.get("/needed")
async def get_needed(request: Request, needed: int) -> Response:
    return said(needed)


@router.delete("/things/{thing_id}")
async def delete_thing(request: Request, thing_id: str) -> Response:
    return said("deleted", thing_id)


async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
    await said("elsewhere")(scope, receive, send)


async def ask(app: Any, method: str, path: str, query: str = "", *messages: Message) -> tuple[str, Scope]:
    given, sent = list(messages) or [{"type": "http.request", "body": b""}], list[Message]()

    async def receive() -> Message:
        return given.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": [], "app": app}
    await app(scope, receive, send)
    return b"".join(message.get("body", b"") for message in sent).decode(), scope


table = RouteTable(router.routes, elsewhere)


@pytest.mark.parametrize(
    ("method", "path", "query", "answer"),
    [
        ("GET", "/things", "", ("things", 5, None, None)),
        ("GET", "/things", f"limit=1&limit=9&kind=b&owner={ID}&unknown=1", ("things", 9, "b", ID)),
        ("GET", f"/things/{ID}", "", ("thing", ID)),
        ("DELETE", "/things/a b\n", "", ("deleted", "a b\n")),
        ("GET", f"/things/{ID}/parts/3", "name=x%20y", ("part", ID, 3, "x y")),
        ("GET", "/schemas/run.started/v12", "", ("schema", "run.started", 12)),
    ],
)
async def test_a_route_gets_its_arguments(method: str, path: str, query: str, answer: tuple[Any, ...]) -> None:
    text, scope = await ask(table, method, path, query)
    assert text == repr(answer)
    assert isinstance(scope["route"], DirectRoute)


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/things"), ("HEAD", "/things"), ("GET", "/things/"), ("GET", "/things/a/parts"), ("POST", "/things/a"), ("GET", "/")],
)
async def test_what_is_no_request_to_a_route_is_left_to_the_framework(method: str, path: str) -> None:
    text, scope = await ask(table, method, path)
    assert text == repr(("elsewhere",)) and "route" not in scope


async def refused(path: str, query: str = "") -> list[tuple[tuple[Any, ...], str]]:
    with pytest.raises(InvalidParameters) as caught:
        await ask(table, "GET", path, query)
    return [(problem["loc"], problem["msg"]) for problem in caught.value.problems]


async def test_all_parameters_that_do_not_fit_are_named_those_of_the_path_first() -> None:
    number = "Input should be a valid integer, unable to parse string as an integer"
    assert [place for place, _ in await refused("/things/x/parts/y")] == [("number",), ("thing_id",)]
    found = await refused("/things", "limit=10&kind=c&owner=x")
    assert [place for place, _ in found] == [("limit",), ("kind",), ("owner",)]
    assert found[0][1] == "Input should be less than or equal to 9"
    assert await refused("/things", "limit=") == [(("limit",), number)]
    assert await refused("/needed") == [(("needed",), "Field required")]


async def test_a_body_may_come_in_pieces_and_is_there_twice() -> None:
    pieces = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
    text, _ = await ask(table, "POST", "/things", "", *pieces)
    assert text == repr(("posted", b"ab", b"ab"))
    with pytest.raises(ClientDisconnect):
        await ask(table, "POST", "/things", "", pieces[0], {"type": "http.disconnect"})


async def test_the_frameworks_router_leads_to_the_same_endpoints() -> None:
    app = FastAPI()
    app.router.routes[:0] = router.routes
    text, scope = await ask(app.router, "GET", f"/things/{ID}/parts/3", "name=x")
    assert text == repr(("part", ID, 3, "x")) and scope["route"].path == "/things/{thing_id}/parts/{number}"
    with pytest.raises(HTTPException) as caught:
        await ask(app.router, "PUT", "/needed")
    assert (caught.value.status_code, dict(caught.value.headers or {})) == (405, {"Allow": "GET"})


async def test_the_first_of_two_routes_wins() -> None:
    two = APIRouter(route_class=DirectRoute)
    for number in (1, 2):

        async def endpoint(request: Request, number: int = number) -> Response:
            return said(number)

        two.get("/same")(endpoint)
        two.get("/same/{name}")(endpoint)
    both = RouteTable(two.routes, elsewhere)
    assert [(await ask(both, "GET", path))[0] for path in ("/same", "/same/x")] == [repr((1,))] * 2


def test_another_kind_of_route_is_refused() -> None:
    other = APIRouter()
    other.get("/other")(get_needed)
    with pytest.raises(TypeError, match="route_class"):
        RouteTable(other.routes, elsewhere)


def test_an_endpoint_without_the_request_is_refused() -> None:
    async def endpoint(limit: int = 1) -> Response:
        return said(limit)

    with pytest.raises(TypeError, match="the request"):
        APIRouter(route_class=DirectRoute).get("/wrong")(endpoint)
