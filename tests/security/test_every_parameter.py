"""Every parameter of every route, one at a time, with values of another tenant: the answer is the one for a value that nobody has.

The parameters come from the OpenAPI document: each place in a path, in a query, in a header and in a body. All the rest of each
request is valid and the caller's own, so that the value is really looked at. A new route or parameter fails the first test until
this page knows how to ask for it.
"""

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
import pytest_asyncio

from api.http.conventions import look_ups
from application.engine.ports.pages import decode_cursor
from application.slash_commands.line import CommandLine, Option, write_line
from domain.errors import InvalidCommand
from tests.integration.documented_kit import document, operations_of, takes_content
from tests.integration.system_kit import new_id
from tests.security.bodies import BODIES, NEW, NEW_NAME
from tests.security.two_tenants import ID, OPERATIONS_ON_ALL, TIME, Other, Pair

OF_CONTENT = {"/v1/blobs", "/v1/work/blobs", "/hooks/{hook_id}"}
"""Operations whose body is a content of its own."""
NAMES_A_NEW_THING = {
    ("/v1/runs", "run_id"), ("/v1/runs/{run_id}/fork", "run_id"), ("/v1/commands", "run_id"), ("/v1/keys", "key_id"),
    ("/v1/keys/{key_id}/rotate", "key_id"),
}  # fmt: skip
"""Ids that the caller gives to new things. An id of another tenant is taken, since ids are those of the whole installation."""
MAKES_A_NAME = {
    ("/v1/tools", "name"), ("/v1/schedules", "name"), ("/v1/workflows", "name"), ("/v1/workflows/{name}/draft", "name"),
    ("/v1/triggers", "name"), ("/v1/approval-policies/{name}", "name"),
}  # fmt: skip
"""Each tenant has names of its own: a tool with a name of another tenant is made. From then on the name is the caller's own."""
NAMED = (
    "/v1/tools/{name}", "/v1/schedules/{name}", "/v1/workflows/{name}", "/v1/triggers/{name}", "/v1/triggers:dry-run",
    "/v1/approval-policies/{name}",
)  # fmt: skip
EXPRESSIONS = {"when", "approval", "input_from", "value", "until", "over", "good", "by", "result"}
"""Places of expressions in plans, schedules and triggers.

An id there is a sum, or a fault of the language.
"""
TRIES = 4
"""An answer may change meanwhile, as by a read model that moves: only a difference that stays is one."""


class Place(NamedTuple):
    """A place for a value in the requests of an operation."""

    method: str
    path: str
    kind: str
    """path, query, header or body."""
    name: str
    """Of a body: the fields that lead there, separated by `/`."""
    whole: bool = False
    """Only whole numbers fit."""


def resolved(schema: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def texts_in(schema: dict[str, Any], described: dict[str, Any], place: str = "", depth: int = 0) -> Iterator[str]:
    """The places in a body at which a text may stand. `*`: any entry of a list or of an object with free names."""
    schema = resolved(schema, described)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        if one.keys() != {"required"}:
            yield from texts_in(one, described, place, depth)
    for name, field in schema.get("properties", {}).items():
        yield from texts_in(field, described, f"{place}/{name}", depth + 1)
    for entries in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(entries, dict):
            yield from texts_in(entries, described, f"{place}/*", depth + 1)
    free = not schema.keys() & {"type", "anyOf", "oneOf", "allOf", "enum", "const", "properties"}
    if (
        (schema.get("type") == "string" and not schema.keys() & {"enum", "const"})
        or free
        or schema.get("additionalProperties") is True
    ):
        yield place


def places_of(described: dict[str, Any]) -> list[Place]:
    found: dict[Place, None] = {}
    for (method, path), operation in operations_of(described).items():
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            if not closed(schema):
                whole = schema.get("type") == "integer"
                found[Place(method, path, parameter["in"], parameter["name"], whole)] = None
        if "requestBody" in operation and not takes_content(operation):
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            found |= {Place(method, path, "body", place.strip("/")): None for place in texts_in(schema, described)}
    return list(found)


def closed(schema: dict[str, Any]) -> bool:
    """Whether only values fit that the document names, or small numbers such as `limit`."""
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return all("enum" in one or one.get("type") == "boolean" or one.get("maximum", 10**9) <= 1_000 for one in options)


TURNS = 5
HASHED = re.compile(r"\b[0-9a-f]{64}\b")


class Turns:
    """Which values are tried at a place.

    Some places are those of many operations, and the same code looks at them: headers, plans, failures, and what is declared anew
    as it was made (`/v1/tools`, `/v1/tools/{name}/versions`). The first operation tries all values, and each other one a fifth of
    them, in turn.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[str, ...], int] = {}

    def of(self, place: Place, pairs: list[Pair]) -> list[Pair]:
        if (alike := self._alike(place)) is None:
            return pairs
        number = self._taken[alike] = self._taken.get(alike, -1) + 1
        return pairs[number % TURNS :: TURNS] if number else pairs

    @staticmethod
    def _alike(place: Place) -> tuple[str, ...] | None:
        """The same for all places at which the same code looks."""
        if place.kind == "header":
            return ("header", place.name)
        if place.kind != "body":
            return None
        _, is_in_plan, rest = place.name.partition("plan/")
        if is_in_plan:
            return ("plan", rest)
        if place.name.startswith("error/"):
            return ("error", place.name)
        return (re.split(r"[/:]", place.path)[2], place.name.removeprefix("definition/").removeprefix("declaration/"))


class Asked(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


def placed(body: Any, steps: list[str], value: str) -> Any:
    """The body with a value at a place. Raises LookupError if the body has no such place."""
    if not steps or steps == [""]:
        return {**body, "x": value} if isinstance(body, dict) else value
    first, *rest = steps
    if first == "*":
        for key in range(len(body)) if isinstance(body, list) else [*body][:1]:
            with contextlib.suppress(LookupError):  # the first one that has the place
                changed = copy.copy(body)
                changed[key] = placed(body[key], rest, value)
                return changed
        raise LookupError
    if not isinstance(body, dict) or first not in body:
        raise LookupError
    return {**body, first: placed(body[first], rest, value)}


def body_with(place: Place, value: str) -> dict[str, Any]:
    if (place.path, place.name) == ("/v1/commands", "text"):  # any other text would be no line of a command
        value = write_line(CommandLine("query", (Option("agent", value, 0),)))
    for body in BODIES[place.path]:
        try:
            return dict(placed(body, place.name.split("/"), value))
        except LookupError:
            continue
    raise AssertionError(f"no body in BODIES has {place.name}: {place}")


def is_text_of_cursor(given: str) -> bool:
    try:
        return bool(decode_cursor(given))
    except InvalidCommand:
        return False


def own_of(other: Other, path: str) -> dict[str, str]:
    """Values of the caller's own, by the names of the parameters of a path."""
    names = {
        "/v1/tools/": "own_http", "/v1/workflows/": "own_flow", "/v1/commands/": "own_flow", "/v1/schedules/": "own-schedule",
        "/v1/triggers/": "own", "/v1/approval-policies/": "own", "/v1/agents/": "own",
    }  # fmt: skip
    found = [name for beginning, name in names.items() if path.startswith(beginning)]
    if "/parts" in path:
        return {**other.own, "step": "parts"}
    return {**other.own, "name": found[0]} if found else other.own


async def ask(other: Other, place: Place, value: str) -> httpx2.Response:
    """Asks with the value at the place, and with values of the caller's own everywhere else."""
    own = {**own_of(other, place.path), **({place.name: value} if place.kind == "path" else {})}
    path = re.sub(r"{(\w+)}", lambda found: quote(own[found[1]], safe=""), place.path)
    request: dict[str, Any] = {"headers": {}}
    if place.kind == "query":
        request["params"] = {place.name: value}
    elif place.kind == "header":
        request["headers"][place.name] = value
        if place.name == "Last-Event-ID":
            request["headers"]["Accept"] = "text/event-stream"
    if (place.method == "PUT" and place.path not in BODIES) or (place.method == "POST" and place.path in OF_CONTENT):
        request["content"] = "own"
    elif place.method in ("POST", "PATCH", "PUT"):
        body = body_with(place, value) if place.kind == "body" else BODIES[place.path][0]
        text = re.sub(r"(?<!{){(\w+)}", lambda found: other.own[found[1]], json.dumps(body))
        request["json"] = json.loads(text.replace(NEW, str(new_id())).replace(NEW_NAME, f"t{new_id().hex}"))
    if place.path.startswith("/v1/sessions"):
        request["headers"]["Host"] = "127.0.0.1"  # by another name links are not looked at
    if place.path == "/v1/events" and place.name == "Last-Event-ID":
        return await other.streamed(path, value)
    return await other.learns_nothing(place.method, path, **request)


def compared(other: Other, place: Place, pair: Pair, answer: httpx2.Response) -> Asked:
    """What an answer says, without the two values, and without what differs between any two answers."""
    known = set(other.own.values())

    def without(text: str) -> str:
        if place.method != "GET":
            text = re.sub(r'"(position|version|policy_version)":\d+', "", text)
        text = re.sub(r'"trace_id":"[^"]*"|tl_\w+|"sha256":"\w+"|"secret":"[\w-]+"|\(invalid [^)]*\)|\bt[0-9a-f]{32}\b', "", text)
        for form in {form for value in pair for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])}:
            if form in text:
                text = re.sub(rf"(?<![0-9a-uw-z_-]){re.escape(form)}(?![\w-])", "@", text)
        text = re.sub(r"at position [@\d]+", "", text)
        return ID.sub(lambda found: found[0] if found[0] in known else "#", TIME.sub("T", text))

    text = answer.text
    if place.path == "/v1/audit/export":  # each export leaves an entry, which the next one has
        text = "\n".join(line for line in text.splitlines() if "audit.export" not in line)
    names = ("content-type", "location", "allow", "link", "cache-control", "tidelog-history", "tidelog-idempotent-replay")
    headers = {name: without(answer.headers[name]) for name in names if name in answer.headers}
    return Asked(answer.status_code, without(text), headers)


class Nobodys:
    """The answers for values that nobody has.

    All ids that nobody has are answered alike. So a foreign id that is answered like one of them is answered like one of nobody.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[Place, str], list[Asked]] = {}

    def known(self, place: Place, value: str) -> list[Asked]:
        """Answers for values like this one at the place, all of which nobody has."""
        return self._told.setdefault((place, HASHED.sub("#", ID.sub("@", value))), [])


async def differs(other: Other, place: Place, pair: Pair, nobodys: Nobodys) -> tuple[Asked, Asked] | None:
    """The two answers, if they stay different."""
    found, known = None, nobodys.known(place, pair.absent)
    for _ in range(TRIES):
        foreign = compared(other, place, pair, await ask(other, place, pair.foreign))
        if foreign in known or pair.foreign == pair.absent:
            return None
        absent = compared(other, place, pair, await ask(other, place, pair.absent))
        known.append(absent)
        if foreign == absent:
            return None
        found = foreign, absent
        await other.system.settled()
    return found


@pytest.fixture(autouse=True)
def wrong_keys_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value in the place of a key is a wrong key."""
    monkeypatch.setattr(look_ups, "PACE_S", 0.0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def settled(other: Other) -> Other:
    await other.settle()
    return other


async def test_each_place_of_the_document_can_be_asked_at(other: Other) -> None:
    """Fails for a new route, parameter or field that this page does not know."""
    described = await document(other.system)
    found = places_of(described)
    assert len(found) > 150 and {place.kind for place in found} == {"path", "query", "header", "body"}
    for method, path in operations_of(described):
        if method in ("POST", "PATCH") and path not in OF_CONTENT:
            assert path in BODIES, f"{path}: BODIES has no body"
    for place in found:
        if place.kind == "body":
            body_with(place, "x")


async def test_what_is_ones_own_is_answered(settled: Other) -> None:
    """So the requests below get as far as to look at their values."""
    for method, path in operations_of(await document(settled.system)):
        if method == "GET" and path.startswith("/v1/") and not path.startswith((OPERATIONS_ON_ALL, "/v1/log", "/v1/work/")):
            asked = path.format_map(own_of(settled, path))
            if asked == "/v1/events/1":
                continue
            answer = await settled.http.get(asked)
            expected = 404 if path.endswith(("/error", "/evidence")) else 200
            assert answer.status_code == expected, (path, answer.text)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_foreign_value_is_answered_like_one_of_nobody(settled: Other, method: str) -> None:
    described = await document(settled.system)
    tried, turns, nobodys = 0, Turns(), Nobodys()
    values = {whole: await settled.pairs(digits_only=whole) for whole in (False, True)}
    for place in places_of(described):
        if place.method != method:
            continue
        fields = set(place.name.split("/"))
        has_expressions = {"plan", "start", "policy"} & fields or place.path.startswith(("/v1/triggers", "/v1/approval-policies"))
        if place.kind == "body" and has_expressions and (EXPRESSIONS & fields or place.name.endswith("start/signal/run")):
            continue
        for pair in turns.of(place, values[place.whole]):
            if place.whole and place.kind == "path":
                pair = Pair(pair.foreign, str(2**40))
            if (place.path, place.name) in NAMES_A_NEW_THING and pair.foreign in settled.seen.ids:
                continue
            if place.name in ("longer_s", "shorter_s"):
                continue  # seconds, which are longer or shorter than those of a run of one's own
            if place.name == "cursor" and is_text_of_cursor(pair.foreign) != is_text_of_cursor(pair.absent):
                continue  # three digits may be a cursor by chance
            names_a_tool = place.kind == "path" or place.name in ("replaced_by", "name")
            kind = place.path.removeprefix("/v1/").partition("/")[0].partition(":")[0]
            if "start" in fields and place.name.endswith("workflow") and settled.made & {("workflows", value) for value in pair}:
                continue
            if place.name == "notices/*/tool" and settled.made & {("tools", value) for value in pair}:
                continue
            if place.path.startswith(NAMED) and names_a_tool and settled.made & {(kind, value) for value in pair}:
                continue
            told = await differs(settled, place, pair, nobodys)
            assert told is None, f"{place} tells {pair.foreign!r} from {pair.absent!r}:\n{told[0]}\n{told[1]}"
            if (place.path, place.name) in MAKES_A_NAME:
                settled.made |= {(kind, value) for value in pair}
            tried += 1
    assert tried > {"GET": 1_000, "POST": 500, "PUT": 20, "PATCH": 50, "DELETE": 20}[method]
