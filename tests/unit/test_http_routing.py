"""The way of a request to its endpoint: its route, its arguments, and the answers without a route."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote, urljoin
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Scope

from api.http.conventions.errors import InvalidParameters
from api.http.conventions.permissions import BY_PATH, Reach, needs, public
from api.http.conventions.request import Principal
from api.http.conventions.routing import DirectRoute, RouteTable
from domain.access import PERMISSIONS, Action, KeyIsNarrowed, NotPermitted, Role

router = APIRouter(route_class=DirectRoute)
ID = UUID(int=7)


def said(*values: Any) -> Response:
    return Response(repr(values))


@router.get("/things")
@public
async def get_things(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=9)] = 5,
    kind: Literal["a", "b"] | None = None,
    owner: UUID | None = None,
) -> Response:
    return said("things", limit, kind, owner)


@router.post("/things")
@public
async def post_thing(request: Request) -> Response:
    return said("posted", await request.body(), await request.body())


@router.get("/things/{thing_id}")
@public
async def get_thing(request: Request, thing_id: UUID) -> Response:
    return said("thing", thing_id)


@router.get("/things/{thing_id}/parts/{number}")
@public
async def get_part(request: Request, number: int, thing_id: UUID, name: str = "") -> Response:
    return said("part", thing_id, number, name)


@router.get("/schemas/{topic}/v{version}")
@public
async def get_schema(request: Request, topic: str, version: int) -> Response:
    return said("schema", topic, version)


@router.get("/needed")
@public
async def get_needed(request: Request, needed: int) -> Response:
    return said(needed)


@router.post("/only-post")
@public
async def post_only(request: Request) -> Response:
    return said("posted")


@router.delete("/things/{thing_id}")
@public
async def delete_thing(request: Request, thing_id: str) -> Response:
    return said("deleted", thing_id)


@router.get("/streamed")
@public
async def get_stream(request: Request) -> Response:
    async def source() -> AsyncIterator[bytes]:
        raise AssertionError("the stream was begun")
        yield b""

    return StreamingResponse(source(), 200, {"X-Of": "get"})


@router.get("/numbers/{whole}")
@public
async def get_numbers(request: Request, whole: int, real: float | None = None, yes: bool = False) -> Response:
    return said(whole, real, yes)


@router.get("/named")
@public
async def get_named(request: Request, names: list[str] | None = None, kind: str | None = None) -> Response:
    return said(names, kind)


@dataclass(frozen=True)
class Shared:
    """Parameters that several routes have."""

    owner: UUID | None = None
    limit: Annotated[int, Query(ge=1, le=9)] = 5
    names: Annotated[list[str] | None, Query()] = None


@router.get("/shared")
@public
async def get_shared(request: Request, shared: Annotated[Shared, Depends()], kind: str | None = None) -> Response:
    return said(shared.owner, shared.limit, shared.names, kind)


async def ask(app: Any, method: str, path: str, query: str = "", *messages: Message) -> tuple[str, Scope]:
    given, sent = list(messages) or [{"type": "http.request", "body": b""}], list[Message]()

    async def receive() -> Message:
        return given.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": [], "app": app}
    await app(scope, receive, send)
    scope["answered"] = {name.decode(): value.decode() for name, value in sent[0]["headers"]} | {"status": sent[0]["status"]}
    return b"".join(message.get("body", b"") for message in sent).decode(), scope


table = RouteTable(router.routes)


@pytest.mark.parametrize(
    ("method", "path", "query", "answer"),
    [
        ("GET", "/things", "", ("things", 5, None, None)),
        ("GET", "/things", f"limit=9&kind=b&owner={ID}", ("things", 9, "b", ID)),
        ("GET", f"/things/{ID}", "", ("thing", ID)),
        ("DELETE", "/things/a b\n", "", ("deleted", "a b\n")),
        ("GET", f"/things/{ID}/parts/3", "name=x%20y", ("part", ID, 3, "x y")),
        ("GET", "/schemas/run.started/v12", "", ("schema", "run.started", 12)),
        ("GET", "/named", "kind=x", (None, "x")),
        ("GET", "/named", "names=b%3D1&kind=x&names=a", (["b=1", "a"], "x")),
        ("GET", "/shared", "", (None, 5, None, None)),
        ("GET", "/shared", f"owner={ID}&limit=9&names=a&names=b&kind=x", (ID, 9, ["a", "b"], "x")),
    ],
)
async def test_a_route_gets_its_arguments(method: str, path: str, query: str, answer: tuple[Any, ...]) -> None:
    text, scope = await ask(table, method, path, query)
    assert text == repr(answer)
    assert isinstance(scope["route"], DirectRoute)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/things", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/things/a", "DELETE, GET, HEAD, OPTIONS"),
        ("HEAD", "/only-post", "OPTIONS, POST"),
        ("TRACE", "*", "DELETE, GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_another_method_is_refused_and_all_methods_of_the_path_are_named(method: str, path: str, allow: str) -> None:
    with pytest.raises(HTTPException) as caught:
        await ask(table, method, path)
    assert (caught.value.status_code, dict(caught.value.headers or {})) == (405, {"Allow": allow})
    _, scope = await ask(table, "OPTIONS", path)
    assert scope["answered"] == {"status": 204, "allow": allow}


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
@pytest.mark.parametrize("path", ["/", "/things/a/parts", "/nowhere/", "/things//", "//things", "/things/a/parts/3/more"])
async def test_an_unknown_path_is_not_found(method: str, path: str) -> None:
    with pytest.raises(HTTPException) as caught:
        await ask(table, method, path)
    assert caught.value.status_code == 404


async def test_head_has_the_status_and_headers_of_get_and_no_content() -> None:
    got, asked = await ask(table, "GET", "/things", "limit=1")
    head, of_head = await ask(table, "HEAD", "/things", "limit=1")
    assert got and not head and asked["answered"] == of_head["answered"]
    assert of_head["route"].path == "/things"
    _, of_stream = await ask(table, "HEAD", "/streamed")
    assert of_stream["answered"] == {"status": 200, "x-of": "get"}


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/things/", "", "../things"),
        ("/things/", "limit=1&kind=a", "../things?limit=1&kind=a"),
        ("/things/a b/", "", "../a%20b"),
        ("/things/x/parts/3/", "", "../3"),
    ],
)
async def test_a_slash_too_many_is_redirected_without_a_host(path: str, query: str, location: str) -> None:
    for method in ("GET", "POST", "HEAD"):
        _, scope = await ask(table, method, path, query)
        assert (scope["answered"]["status"], scope["answered"]["location"]) == (307, location)
    assert urljoin(f"https://proxy.example/below{quote(path)}", location) == f"https://proxy.example/below{quote(path[:-1])}" + (
        f"?{query}" if query else ""
    )


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


def test_parameters_of_a_class_are_documented_like_those_of_a_signature() -> None:
    app = FastAPI()
    app.include_router(router)
    documented = app.openapi()["paths"]["/shared"]["get"]["parameters"]
    assert {(p["name"], p["in"], p["required"]) for p in documented} == {
        (n, "query", False) for n in ("owner", "limit", "names", "kind")
    }


@pytest.mark.parametrize(
    ("path", "query", "names"),
    [
        ("/things", "stauts=failed&limit=5", ["stauts"]),
        ("/things", "LIMIT=5", ["LIMIT"]),
        ("/things", "kind=a&kind=b", ["kind"]),
        ("/things", "kind=a&kind=a&x=1&x=2", ["kind", "x", "x"]),
        ("/named", "names=a&names=b&kind=a&kind=b", ["kind"]),
        ("/things", "metadata.team=x&limit=no", ["metadata.team", "limit"]),
        ("/things", "=1", [""]),
        ("/things", "unknown", ["unknown"]),
        (f"/things/{ID}", "thing_id=1", ["thing_id"]),
        ("/streamed", "a=1", ["a"]),
        ("/shared", "limit=10&owner=x&shared=1&kind=a&kind=b", ["shared", "kind", "owner", "limit"]),
    ],
)
async def test_unknown_and_repeated_parameters_are_named(path: str, query: str, names: list[str]) -> None:
    assert [place for place, _ in await refused(path, query)] == [(name,) for name in names]


async def test_the_refusal_of_an_unknown_parameter_says_which_there_are() -> None:
    assert await refused("/things", "x=1") == [(("x",), "unknown parameter; the parameters are limit, kind, owner")]
    assert await refused("/streamed", "x=1") == [(("x",), "unknown parameter; this route has none")]
    assert await refused("/things", "limit=1&limit=2") == [(("limit",), "the parameter is given more than once")]


@pytest.mark.parametrize("text", ["1_0", "1.0", "+1", " 1", "1 ", "1e1", "\u0661", "true", ""])
async def test_a_whole_number_has_one_form(text: str) -> None:
    assert [place for place, _ in await refused(f"/numbers/{text or ' '}")] == [("whole",)]
    assert [place for place, _ in await refused("/things", f"limit={quote(text)}")] == [("limit",)]


async def test_numbers_and_booleans_have_the_forms_of_json() -> None:
    for query, expected in (
        ("real=1.5&yes=true", (-7, 1.5, True)),
        ("real=1e-05&yes=false", (-7, 1e-05, False)),
        ("real=3", (-7, 3.0, False)),
    ):
        assert (await ask(table, "GET", "/numbers/-7", query))[0] == repr(expected)
    for query in ("real=1_0.5", "real=nan", "real=inf", "real=.5", "real=%2b1", "yes=1", "yes=yes", "yes=True"):
        assert len(await refused("/numbers/1", query)) == 1, query


async def test_a_body_may_come_in_pieces_and_is_there_twice() -> None:
    pieces = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
    text, _ = await ask(table, "POST", "/things", "", *pieces)
    assert text == repr(("posted", b"ab", b"ab"))
    with pytest.raises(ClientDisconnect):
        await ask(table, "POST", "/things", "", pieces[0], {"type": "http.disconnect"})


async def test_the_first_of_two_routes_wins() -> None:
    two = APIRouter(route_class=DirectRoute)
    for number in (1, 2):

        @public
        async def endpoint(request: Request, number: int = number) -> Response:
            return said(number)

        two.get("/same")(endpoint)
        two.get("/same/{name}")(endpoint)
    both = RouteTable(two.routes)
    assert [(await ask(both, "GET", path))[0] for path in ("/same", "/same/x")] == [repr((1,))] * 2


def declared(path: str, *says: Callable[[Any], Any]) -> RouteTable:
    """A table of one route, whose endpoint says these things about what it needs."""

    async def endpoint(request: Request) -> Response:
        return said("served", await request.body())

    for say in says:
        endpoint = say(endpoint)
    one = APIRouter(route_class=DirectRoute)
    one.post(path)(endpoint)
    return RouteTable(one.routes)


@pytest.mark.parametrize("path", ["/v1/things", "/things"])
def test_a_route_that_does_not_say_what_it_needs_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(TypeError, match="does not say what it needs"):
        declared(path)


def test_a_route_of_the_wrong_side_of_the_gate_is_refused_at_the_start() -> None:
    """The gate asks for a key under /v1 alone: nothing there is public, and nothing elsewhere can have an action."""
    with pytest.raises(TypeError, match="need an action, and all others are public"):
        declared("/v1/things", public)
    with pytest.raises(TypeError, match="need an action, and all others are public"):
        declared("/things", needs(Action.RUNS_READ))
    with pytest.raises(TypeError, match="says twice"):
        declared("/v1/things", needs(Action.RUNS_READ), needs(Action.RUNS_START))


def test_a_route_about_one_thing_has_the_id_of_the_thing_in_its_path() -> None:
    for reach in BY_PATH:
        with pytest.raises(TypeError, match="is about one"):
            declared("/v1/things", needs(Action.RUNS_READ, reach))


async def test_a_route_that_does_not_say_its_reach_is_refused_to_narrowed_keys() -> None:
    """Before anything of the request is read."""
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/things", "query_string": b"wrong=1", "headers": []}
    scope["state"] = {"principal": Principal(ID, ID, "key:test", Role.OWNER, frozenset({ID}))}
    with pytest.raises(KeyIsNarrowed):
        await declared("/v1/things", needs(Action.RUNS_READ))(scope, None, None)
    for reach in (Reach.CATALOG, Reach.LIMITED):
        with pytest.raises(InvalidParameters):
            await declared("/v1/things", needs(Action.RUNS_READ, reach))(scope, None, None)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
async def test_a_route_asks_the_table_before_it_reads_anything(role: Role, action: Action) -> None:
    async def receive() -> Message:
        if action not in PERMISSIONS[role]:
            raise AssertionError("the body was read")
        return {"type": "http.request", "body": b"x"}

    sent = list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    key = Principal(ID, ID, "key:test", role)
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/things", "query_string": b"wrong=1", "headers": []}
    scope["state"] = {"principal": key}
    if action in PERMISSIONS[role]:
        with pytest.raises(InvalidParameters):
            await declared("/v1/things", needs(action))(scope, receive, send)
        await declared("/v1/things", needs(action))({**scope, "query_string": b""}, receive, send)
        assert sent[0]["status"] == 200
    else:
        with pytest.raises(NotPermitted) as caught:
            await declared("/v1/things", needs(action))(scope, receive, send)
        assert (caught.value.action, caught.value.role, scope["route"].path) == (action, role, "/v1/things")
        assert str(action) in caught.value.message and not sent


async def test_without_a_caller_nothing_is_served() -> None:
    with pytest.raises(KeyError):
        await declared("/v1/things", needs(Action.RUNS_READ))(
            {"type": "http", "method": "POST", "path": "/v1/things", "query_string": b"", "headers": [], "state": {}}, None, None
        )


def test_another_kind_of_route_is_refused() -> None:
    other = APIRouter()
    other.get("/other")(get_needed)
    with pytest.raises(TypeError, match="route_class"):
        RouteTable(other.routes)


def test_an_endpoint_without_the_request_is_refused() -> None:
    @public
    async def endpoint(limit: int = 1) -> Response:
        return said(limit)

    with pytest.raises(TypeError, match="the request"):
        APIRouter(route_class=DirectRoute).get("/wrong")(endpoint)
