"""Tools that are data: definitions, files of them, and requests made of them. The built-in tools without a network, too."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.kit.played_service import Service, answer, played_service
from tidelog.builtin.definitions import DefinitionsError, HttpTool, read_definitions
from tidelog.builtin.http_tools import http_tools, url_of
from tidelog.builtin.placeholders import MAX_FILLED, PlaceholderError, fill
from tidelog.builtin.pointers import NotThereError, parts_of, value_at
from tidelog.builtin.tools import built_in_tools
from tidelog.errors import DefinitionError, PermanentError
from tidelog.guard import Allowed, GuardedClient
from tidelog.guard.secrets import Secrets
from tidelog.tools import InvalidArgumentsError, ToolContext

PARAMETERS = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "tags": {"type": "array"}, "note": {"type": "string"}, "page": {"default": 1}},
    "required": ["id"],
}


def definition(**fields: Any) -> HttpTool:
    return HttpTool.model_validate({"name": "t", "url": "https://api.example/items/{{id}}", "parameters": PARAMETERS, **fields})


@pytest.fixture
async def client() -> AsyncIterator[GuardedClient]:
    client = GuardedClient(Allowed.of(["127.0.0.1"]))
    yield client
    await client.aclose()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with played_service() as service:
        yield service


async def called(client: GuardedClient, given: HttpTool, arguments: dict[str, Any], **environment: str) -> Any:
    [tool] = http_tools([given], client, Secrets(environment))
    return await tool.invoke(arguments, ToolContext(Path(), "the-key-of-the-call", 1))


# --- requests -----------------------------------------------------------------------------------------------------------


async def test_arguments_go_to_their_places(client: GuardedClient, service: Service) -> None:
    given = definition(
        method="POST",
        url=service.url("/items/{{id}}?fixed=1"),
        query={"page": "{{page}}", "note": "{{note}}"},
        headers={"X-Note": "about {{id}}", "X-Left-Out": "{{note}}"},
        body={"id": "{{id}}", "tags": "{{tags}}", "note": "{{note}}", "text": "item {{id}} of {{page}}", "n": 3,
              "deep": [{"a": "{{tags.0}}"}]},
        idempotency_header="Idempotency-Key",
    )  # fmt: skip
    told = await called(client, given, {"id": "a/b?c", "tags": ["x", 2]})
    assert told["target"] == "/items/a%2Fb%3Fc?fixed=1&page=1"
    assert json.loads(told["body"]) == {"id": "a/b?c", "tags": ["x", 2], "text": "item a/b?c of 1", "n": 3, "deep": [{"a": "x"}]}
    headers = told["headers"]
    assert (headers["x-note"], headers["content-type"]) == ("about a/b?c", "application/json") and "x-left-out" not in headers
    assert headers["idempotency-key"] == "the-key-of-the-call" and given.is_idempotent


@pytest.mark.parametrize("value", ["..", ".", "", "\ud800"])
def test_a_value_is_one_part_of_the_path(value: str) -> None:
    with pytest.raises(PlaceholderError):
        url_of(definition(), {"id": value})


@pytest.mark.parametrize(
    ("value", "path"),
    [("../admin", "..%2Fadmin"), ("a?b=c#d", "a%3Fb%3Dc%23d"), ("@evil.example", "%40evil.example"), ("ä", "%C3%A4"), (7, "7"),
     ("%2e%2e", "%252e%252e"), ("{{note}}", "%7B%7Bnote%7D%7D")],
)  # fmt: skip
def test_no_value_leads_elsewhere(value: object, path: str) -> None:
    assert url_of(definition(), {"id": value, "note": "n"}) == f"https://api.example/items/{path}"


def test_values_next_to_dots_do_not_climb() -> None:
    with pytest.raises(PlaceholderError, match="folder above"):
        url_of(definition(url="https://api.example/a/.{{id}}/b"), {"id": "."})


async def test_secrets_go_as_the_definition_says(client: GuardedClient, service: Service) -> None:
    for auth, header in (
        ({"secret": "it"}, "authorization"),
        ({"secret": "it", "kind": "header", "header": "X-Api-Key"}, "x-api-key"),
        ({"secret": "it", "kind": "basic", "user": "ada"}, "authorization"),
    ):
        told = await called(client, definition(url=service.url("/{{id}}"), auth=auth), {"id": "x"}, TIDELOG_SECRET_IT="12345678")
        assert told["headers"][header] == "[secret it]"
    assert [asked.headers.get("authorization") for asked in service.asked] == ["Bearer 12345678", None, "Basic YWRhOjEyMzQ1Njc4"]


def test_a_tool_without_its_secret_is_not_offered(client: GuardedClient) -> None:
    with pytest.raises(DefinitionError, match="set TIDELOG_SECRET_IT in its environment"):
        http_tools([definition(auth={"secret": "it"})], client, Secrets({}))


async def test_the_result_is_the_part_that_is_picked(client: GuardedClient, service: Service) -> None:
    service.routes["/x"] = lambda asked: answer(body={"items": [{"a": 1}, {"a": 2}]})
    assert await called(client, definition(url=service.url("/{{id}}"), pick="/items/1/a"), {"id": "x"}) == 2
    with pytest.raises(PermanentError, match="has not the part"):
        await called(client, definition(url=service.url("/{{id}}"), pick="/items/7"), {"id": "x"})
    with pytest.raises(InvalidArgumentsError, match="id: is missing"):
        await called(client, definition(url=service.url("/{{id}}")), {"unknown": 1})


# --- definitions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"url": "ftp://x/"}, "http://HOST"),
        ({"url": "https://{{id}}.example/"}, "scheme, host and port are fixed"),
        ({"url": "https://api.example:{{id}}/"}, "scheme, host and port are fixed"),
        ({"url": "https://user:pass@api.example/"}, "scheme, host and port are fixed"),
        ({"url": "{{id}}://api.example/"}, "http://HOST"),
        ({"url": "https://api.example/{{other}}"}, "'other' is no parameter"),
        ({"url": "https://api.example/{{ id + 1 }}"}, "without a name behind"),
        ({"method": "get"}, "method: one of"),
        ({"body": {}}, "GET has none"),
        ({"headers": {"Host": "x"}}, "cannot be chosen"),
        ({"headers": {"a b": "x"}}, "cannot be sent"),
        ({"pick": "items"}, "begins with a slash"),
        ({"parameters": {"type": "array"}}, "a JSON Schema with"),
        ({"parameters": {"type": "object", "properties": {"id": {}, "key": {}}}}, "`key` is taken"),
        ({"auth": {"secret": "PATH"}}, "String should match"),
        ({"auth": {"secret": "it", "kind": "header"}}, "`header` is the name"),
        ({"auth": {"secret": "it", "kind": "basic"}}, "`user` is for"),
        ({"auth": {"secret": "it", "kind": "header", "header": "Cookie"}}, "cannot be chosen"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        definition(**fields)


def test_methods_promise_what_is_idempotent() -> None:
    assert definition().is_idempotent and definition(method="PUT", body={}).is_idempotent
    assert not definition(method="POST").is_idempotent and definition(method="POST", idempotent=True).is_idempotent
    assert not definition(idempotent=False).is_idempotent


def test_files_in_json_and_toml(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"tools": [{"name": "a", "url": "https://a.example/"}]}))
    (tmp_path / "b.toml").write_text('[[tools]]\nname = "b"\nurl = "https://b.example/"\n')
    assert [read_definitions(tmp_path / name)[0].name for name in ("a.json", "b.toml")] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.yaml", "tools: []", "YAML is not read here"),
        ("x.txt", "", "must end in .json or .toml"),
        ("x.json", "{", "cannot be read"),
        ("x.json", "[" * 100_000, "cannot be read"),
        ("x.json", "[]", "an object with the field tools"),
        ("x.json", '{"tools": {}}', 'one field, "tools"'),
        ("x.json", '{"tools": [], "other": 1}', 'one field, "tools"'),
        ("x.json", '{"tools": [1]}', "tool 1 ''"),
        ("x.json", '{"tools": [{"name": "a", "url": "ftp://x"}]}', "tool 1 'a': url: http"),
        (
            "x.json",
            '{"tools": [{"name": "a", "url": "http://x/"}, {"name": "a", "url": "http://y/"}]}',
            "two tools have the name 'a'",
        ),
        ("x.toml", "tools = ", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DefinitionsError) as raised:
        read_definitions(tmp_path / name)
    assert told in str(raised.value) and name in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match="No such file"):
        read_definitions(tmp_path / "x.json")


# --- built-in tools -----------------------------------------------------------------------------------------------------


async def built_in(client: GuardedClient, name: str, **arguments: Any) -> Any:
    [tool] = [tool for tool in built_in_tools(client, Secrets({})) if tool.name == name]
    tool.describe()
    return await tool.invoke(arguments, ToolContext(Path(), "k", 1))


async def test_parts_of_a_document(client: GuardedClient) -> None:
    document = {"a": [{"b/c": 1}, {"m~n": [2]}], "": 3}
    assert await built_in(client, "json.query", document=document, pointer="/a/0/b~1c") == 1
    assert await built_in(client, "json.query", document=document, pointers={"x": "/a/1/m~0n/0", "y": "/", "z": ""}) == {
        "x": 2, "y": 3, "z": document,
    }  # fmt: skip
    assert await built_in(client, "json.query", document=document, pointer="/no", missing="null") is None
    for wrong in ({"pointer": "/no"}, {"pointer": "a"}, {"pointer": "/~2"}, {}, {"pointer": "", "pointers": {}}):
        with pytest.raises(PermanentError):
            await built_in(client, "json.query", document=document, **wrong)


@pytest.mark.parametrize("pointer", ["/a/01", "/a/-", "/a/-1", "/a/1e0", "/a/2", "/a/0/x", "/a/ 0"])
def test_a_place_that_a_document_has_not(pointer: str) -> None:
    with pytest.raises(NotThereError):
        value_at({"a": [1, 2]}, pointer)


def test_pointers_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        parts_of("/" * 2_000)


async def test_a_template_fills_and_evaluates_nothing(client: GuardedClient) -> None:
    values = {"name": "{{other}}", "other": "x", "user": {"tags": ["a", {"b": None}]}, "__class__": "no"}
    text = "Hi {{name}}, {{ user.tags.0 }} {{user.tags.1}} {single} ${{other}} {{__class__}}"
    assert await built_in(client, "text.template", text=text, values=values) == 'Hi {{other}}, a {"b":null} {single} $x no'
    for wrong in (
        "{{missing}}",
        "{{name.upper}}",
        "{{name.__class__}}",
        "{{ 1 + 1 }}",
        "{{}}",
        "{{name",
        "{{user.tags.9}}",
        "x" * 70_000,
    ):
        with pytest.raises(PermanentError):
            await built_in(client, "text.template", text=wrong, values=values)


def test_what_is_filled_is_bounded() -> None:
    with pytest.raises(PlaceholderError, match="over"):
        fill("{{a}}" * 100, {"a": "x" * (MAX_FILLED // 50)})


async def test_the_time_in_a_zone(client: GuardedClient) -> None:
    found = await built_in(client, "time.now", zone="UTC")
    assert found["time"].endswith("+00:00") and found["unix"] > 1.7e9
    for wrong in ("Nowhere/Else", "../../etc/passwd", "", "/etc/localtime"):
        with pytest.raises(PermanentError):
            await built_in(client, "time.now", zone=wrong)


async def test_a_page(client: GuardedClient, service: Service) -> None:
    service.routes["/text"] = lambda asked: answer(raw="ä\0".encode(), content_type="text/plain", etag='"1"', set_cookie="no")
    found = await built_in(client, "http.get", url=service.url("/text"), headers={"Accept": "text/plain"})
    assert found["body"] == "ä\ufffd" and found["headers"]["etag"] == '"1"' and "set-cookie" not in found["headers"]
    assert service.asked[-1].headers["accept"] == "text/plain"
    for wrong in ({"headers": {"Authorization": "x"}}, {"url": "file:///x"}):
        with pytest.raises(PermanentError):
            await built_in(client, "http.get", **{"url": service.url("/x"), **wrong})
    with pytest.raises(InvalidArgumentsError):
        await built_in(client, "http.get", url=service.url("/x"), max_bytes=10**9)
